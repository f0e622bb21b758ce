"""Where two recipes differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from cnnspec.training.recipe.model import Call, Recipe
from cnnspec.training.recipe.write import value_text

__all__ = ["differences"]


def differences(run: Recipe, now: Recipe) -> list[str]:
    """A line for each part that differs: "`epochs` is 10 in the run and 20 now". None where equal.

    Of two calls of one name the arguments are compared, one that is left out is `not given`.
    """
    lines: list[str] = []
    for field in fields(Recipe):
        lines.extend(_differing(field.name, getattr(run, field.name), getattr(now, field.name)))
    if run.rates == now.rates and [*run.rates] != [*now.rates]:
        # The last pattern that matches wins.
        lines.append(_line("rates", value_text(run.rates), value_text(now.rates)))
    return lines


def _differing(path: str, old: Any, new: Any) -> Iterator[str]:
    if old == new and type(old) is type(new):
        return
    match old, new:
        case (Call(), Call()) if old.name == new.name:
            yield from _mappings(path, old.arguments, new.arguments)
        case (Mapping(), Mapping()):
            yield from _mappings(path, old, new)
        case (tuple(), tuple()) if _same_calls(old, new):
            for before, after in zip(old, new, strict=True):
                yield from _differing(f"{path}.{before.name}", before, after)
        case _ if is_dataclass(old) and type(old) is type(new) and not isinstance(old, Call):
            for field in fields(old):
                # A scheduler and a loss are what users call the schedule and the loss.
                own = field.name in ("scheduler", "loss")
                below = path if own else f"{path}.{field.name}"
                yield from _differing(below, getattr(old, field.name), getattr(new, field.name))
        case _:
            yield _line(path, _shown(old), _shown(new))


def _mappings(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        below = f"{path}.{key}" if key else path
        if key in old and key in new:
            yield from _differing(below, old[key], new[key])
        else:
            before = _shown(old[key]) if key in old else "not given"
            yield _line(below, before, _shown(new[key]) if key in new else "not given")


def _same_calls(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    """Whether two lists are calls of the same names, each once, in the same order."""
    if not all(isinstance(item, Call) for item in (*old, *new)):
        return False
    names = [item.name for item in old]
    return names == [item.name for item in new] and len(set(names)) == len(names)


def _shown(value: Any) -> str:
    return "nothing" if value is None else value_text(value)


def _line(path: str, old: str, new: str) -> str:
    return f"`{path}` is {old} in the run and {new} now"
