"""How processes that read samples live and die with the one that trains."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import current_thread, main_thread

__all__ = ["calmed", "undisturbed_children"]

_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def calmed(parent: int) -> Callable[[int], None]:
    """What a worker does first. It hears no Ctrl-C and no signal to the parent's process group.

    The parent says when to end: it finishes its step and saves, for which it may need a batch more.
    Where the system can, a worker is killed when its parent dies; elsewhere torch's own watch ends
    it within seconds.
    """
    return partial(_calm, parent)


def _calm(parent: int, number: int) -> None:
    del number
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


@contextmanager
def undisturbed_children() -> Iterator[None]:
    """Keep the handler of SIGCHLD while workers are started.

    torch sets one that raises wherever the main thread is when a worker dies, in the middle of
    writing a checkpoint too. Without it torch notices when the next batch does not come.
    """
    if not hasattr(signal, "SIGCHLD") or current_thread() is not main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)
