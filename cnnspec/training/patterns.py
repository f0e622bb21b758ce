"""Patterns of paths, in one meaning for all that is chosen by path: rates, freezing, transfer.

Text alone: modules and tensors may not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean

__all__ = ["any_matches", "levels", "matches", "refuse_unmatched"]


def levels(key: str) -> Iterator[str]:
    """A key of a state dict and the levels above it: `a.b.weight`, `a.b`, `a`."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def matches(pattern: str, key: str) -> bool:
    """Whether a pattern means a key of a state dict.

    It does where it is the key or a level above it. `*` stands for anything, dots too, `?` for one
    character and `[abc]` for one of some; letter case counts.
    """
    return any(fnmatchcase(level, pattern) for level in levels(key))


def any_matches(patterns: Iterable[str], key: str) -> bool:
    """Whether one of several patterns means a key."""
    return any(matches(pattern, key) for pattern in patterns)


def refuse_unmatched(what: str, patterns: Iterable[str], keys: Iterable[str]) -> None:
    """Raise `EnvironmentFailure` for a pattern that means none of the keys.

    `what` is what users call the patterns: `--freeze`.
    """
    known = tuple(keys)
    paths = dict.fromkeys(level for key in known for level in levels(key))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise EnvironmentFailure(
                f"`{pattern}` of {what} matches nothing in the network",
                help=did_you_mean(pattern.removesuffix(".*"), paths)
                or "paths are those of `cnnspec analyze`; `*` stands for anything",
            )
