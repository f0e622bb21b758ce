"""Whether a run may go on with what is asked for now: the same network, recipe and samples.

A run that goes on ends with the weights that it would have had without a break, or it is refused.
What a state holds may not enter, nor torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any, Final

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.recipe.differing import differences
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.runs.run_folder import RunFolder

__all__ = ["RunChanged", "refuse_changes", "spec_differences"]

_SHOWN: Final = 6
_LONGEST: Final = 60
_COMPARED: Final = 500
"""Lines between the first and the last that differ, beyond which they are not matched."""


class RunChanged(EnvironmentFailure):
    """What is asked for is not what the run was begun with; `differences` has all, one each."""

    def __init__(self, message: str, differences: tuple[str, ...], *, help: str) -> None:
        self.differences = differences
        super().__init__(message, help=help)


def refuse_changes(
    folder: RunFolder, *, spec: str, recipe: Recipe, facts: Mapping[str, Any]
) -> tuple[str, ...]:
    """Raise `RunChanged` unless going on makes what the run would have made without a break.

    `spec` is the flat network, compared without its comments. Of a recipe all is compared but what
    cannot change a weight: its name, the number of workers, where the samples are (their
    `fingerprint` in `facts` has to be the run's) and how often the state is stored.

    What comes back are remarks on what else is different, one line each: processes, threads, the
    device and versions. With those the run goes on, equal up to rounding and not to the bit.
    """
    found = [
        *spec_differences(folder.spec, spec),
        *differences(_deciding(folder.recipe, recipe), recipe),
    ]
    if _differ(folder.facts, facts, "fingerprint"):
        source = recipe.data.source if recipe.data is not None else "data"
        found.append(f"the samples of `{source}` are not those of the run")
    if found:
        shown = "; ".join(found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise RunChanged(
            f"`{folder.path}` was begun with something else, and is not resumed: {shown}{more}",
            tuple(found),
            help="give what the run was begun with, or begin another with -o; "
            f"`--init-from {folder.path}` starts that from the weights of this one",
        )
    return tuple(_remarks(folder.facts, facts))


def _deciding(run: Recipe, now: Recipe) -> Recipe:
    """The run's recipe with what cannot change a weight as it is now."""
    data = run.data
    if data is not None and now.data is not None:
        data = replace(data, workers=now.data.workers, path=now.data.path)
    checkpoint = replace(run.checkpoint, epochs=now.checkpoint.epochs, steps=now.checkpoint.steps)
    return replace(run, name=now.name, data=data, checkpoint=checkpoint)


def _differ(run: Mapping[str, Any], now: Mapping[str, Any], key: str) -> bool:
    return key in run and key in now and bool(run[key] != now[key])


def _remarks(run: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    found = []
    for key, one, several in (("world", "process", "processes"), ("threads", "thread", "threads")):
        if _differ(run, now, key):
            found.append(f"{run[key]} {one if run[key] == 1 else several}, now {now[key]}")
    if _differ(run, now, "device"):
        found.append(f"the device `{run['device']}`, now `{now['device']}`")
    old, new = run.get("versions", {}), now.get("versions", {})
    found += [f"{key} {old[key]}, now {new[key]}" for key in sorted(old) if _differ(old, new, key)]
    for each in found:
        yield f"the run had {each}: it goes on equal up to rounding, not to the bit"


# ------------------------------------------------------------------------------------ specs


def spec_differences(run: str, now: str) -> list[str]:
    """What changed between two flat specs, a line each; nothing for equal ones.

    Comments do not count: they say where a layer is written, which a comment above it changes.
    """
    if run == now or _events(run) == _events(now):
        return []
    old, new = _plain(run), _plain(now)
    if old == new:
        old, new = run.splitlines(), now.splitlines()
    start = next(n for n, (a, b) in enumerate(zip_longest(old, new)) if a != b)
    old, new = old[start:], new[start:]
    while old and new and old[-1] == new[-1]:
        old.pop()
        new.pop()
    if max(len(old), len(new)) > _COMPARED:
        return [_change(old[:1], new[:1]), "more of the network follows"]
    found = []
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            pairs = zip_longest(old[a:b], new[c:d])
            found += [_change([x] if x else [], [y] if y else []) for x, y in pairs]
    return found


def _events(text: str) -> list[tuple[object, ...]]:
    """What YAML says, without places and comments."""
    import yaml

    return [
        (
            type(event).__name__,
            getattr(event, "anchor", None),
            getattr(event, "tag", None),
            getattr(event, "value", None),
            # 3 is a number, "3" is none.
            getattr(event, "style", None) in ('"', "'"),
        )
        for event in yaml.parse(text, Loader=yaml.SafeLoader)
    ]


def _plain(text: str) -> list[str]:
    bare = (line.partition("  # ")[0].rstrip() for line in text.splitlines())
    return [line for line in bare if line and not line.startswith("#")]


def _change(old: Sequence[str], new: Sequence[str]) -> str:
    if not new:
        return f"{_quoted(old[0])} of the spec is gone"
    if not old:
        return f"{_quoted(new[0])} of the spec is new"
    return f"{_quoted(old[0])} of the spec is {_quoted(new[0])} now"


def _quoted(line: str) -> str:
    text = line.strip().removeprefix("- ")
    return f"`{text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}`"
