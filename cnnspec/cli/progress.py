"""How far a command is with many things, on one line of standard error that is gone at the end.

Only terminals see it, and only when the work takes long. Nothing else may be written here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TypeVar

__all__ = ["counted"]

_QUIET = 1.0
"""Seconds of work before anything is shown."""

_Item = TypeVar("_Item")


def counted(items: Sequence[_Item], what: str) -> Iterator[_Item]:
    """All items; meanwhile a terminal is told `12 of 141 networks`."""
    started = monotonic()
    stream = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
    told = False
    for number, item in enumerate(items):
        if stream is not None and monotonic() - started > _QUIET:
            told = True
            stream.write(f"\r{number} of {len(items)} {what}")
            stream.flush()
        yield item
    if stream is not None and told:
        stream.write("\r\x1b[K")
        stream.flush()
