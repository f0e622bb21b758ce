"""Specs as plain data: to text, and with one part left out, for generators and shrinking."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

import yaml

__all__ = ["Entry", "Spec", "entries_of", "smaller", "text_of"]

Spec: TypeAlias = dict[str, Any]
Entry: TypeAlias = "dict[str, Any] | str"


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]  # the C library's where it is there
    """Writes equal lists out, where PyYAML would write an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text_of(spec: Spec) -> str:
    """The spec as YAML."""
    text: str = yaml.dump(
        spec, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=1_000_000
    )
    return text


_CONTROLS = frozenset(("name", "from", "repeat", "for", "when", "inline", "share", "init", "allow"))


def entries_of(spec: Spec) -> Iterator[list[Entry]]:
    """Every list of entries: of the network, of blocks, of Sequentials and of branches."""
    for block in spec.get("blocks", {}).values():
        yield from _lists(block["layers"])
    yield from _lists(spec["layers"])


def _lists(entries: list[Entry]) -> Iterator[list[Entry]]:
    yield entries
    for entry in entries:
        if isinstance(entry, dict):
            for key, arguments in entry.items():
                if key not in _CONTROLS:
                    yield from _inside(arguments)


def _inside(arguments: Any) -> Iterator[list[Entry]]:
    branches = arguments.values() if isinstance(arguments, dict) else [arguments]
    for branch in branches:
        if isinstance(branch, list) and all(_is_entry(item) for item in branch):
            yield from _lists(branch)


def _is_entry(item: Any) -> bool:
    return isinstance(item, dict) or (isinstance(item, str) and item[:1].isupper())


def smaller(spec: Spec) -> Iterator[Spec]:
    """The spec with one thing less, the largest things first; some of these are no networks."""
    lists = len(list(entries_of(spec)))
    for number in range(lists):
        length = len(list(entries_of(spec))[number])
        for size in (length // 2, length // 4, 1):
            if not size:
                continue
            for start in range(0, length, size):
                less = copy.deepcopy(spec)
                del list(entries_of(less))[number][start : start + size]
                yield less
    for number in range(lists):
        for position, entry in enumerate(list(entries_of(spec))[number]):
            if not isinstance(entry, dict):
                continue
            for key, arguments in entry.items():
                less = copy.deepcopy(spec)
                here = list(entries_of(less))[number]
                if key in _CONTROLS:
                    del here[position][key]  # type: ignore[arg-type]  # the same entry
                    yield less
                elif isinstance(arguments, dict):
                    for name in arguments:
                        less = copy.deepcopy(spec)
                        here = list(entries_of(less))[number]
                        del here[position][key][name]  # type: ignore[index]  # the same entry
                        yield less
                elif key == "Sequential":
                    here[position : position + 1] = arguments
                    yield less
    for section in ("outputs", "inputs", "blocks", "params"):
        for name in spec.get(section, ()):
            less = copy.deepcopy(spec)
            if isinstance(less[section], dict):
                del less[section][name]
            else:
                less[section].remove(name)
            if not less[section]:
                del less[section]
            yield less
