"""Python's cyclic garbage collector, paused while something large is built.

A graph is many small objects that all stay. As it grows, the collector walks them again and again
and frees nothing: half of the time of a network of 100,000 entries. Nothing else may enter here.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

__all__ = ["collector_paused"]

_SWITCH = Lock()
"""Looking whether the collector runs and switching it are one step to other threads."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the collector for a block, or for the calls of a function it decorates.

    A collector that was running runs again at the end. Blocks may nest, and overlap in threads:
    then the first to pause resumes, which may be early for the others and costs them time only.
    """
    with _SWITCH:
        running = gc.isenabled()
        gc.disable()
    try:
        yield
    finally:
        if running:
            with _SWITCH:
                gc.enable()
