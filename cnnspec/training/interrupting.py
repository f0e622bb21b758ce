"""Ctrl-C and SIGTERM while a run trains: noted at once, acted on between two steps.

What is done then is the engine's.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupted", "Interruption", "listening"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 2.0
"""Seconds in which a signal is taken for the same one: a launcher passes on what came already."""

_WEIGHT = 4096.0
"""What SIGTERM counts for where processes add up what they saw; SIGINT counts for 1."""


class Interrupted(Exception):
    """A run ended because somebody asked for it; its state is kept.

    `epoch` and `step` (from 0) are those that a resume goes on with.
    """

    def __init__(self, number: int, epoch: int, step: int) -> None:
        self.signal = number
        self.epoch = epoch
        self.step = step
        super().__init__(f"signal {number} at epoch {epoch}, step {step}")

    @property
    def exit_code(self) -> int:
        """What a process says to its parent that a signal ended."""
        return 128 + self.signal


class Interruption:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at = 0.0

    @property
    def weight(self) -> float:
        """What this process saw, as a number that can be added up."""
        if self.signal is None:
            return 0.0
        return _WEIGHT if self.signal == signal.SIGTERM else 1.0

    @staticmethod
    def agreed(weight: float) -> int | None:
        """The signal that all processes act on, from the sum of what they saw."""
        if not weight > 0:
            return None
        return int(signal.SIGTERM if weight >= _WEIGHT else signal.SIGINT)

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal came. A second one, well behind the first, is not waited for."""
        now = time.monotonic()
        if self.signal is not None and now - self._at > _ECHO:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = number
            self._at = now


@contextmanager
def listening() -> Iterator[Interruption]:
    """Take signals for the time of a block; outside the main thread nobody gets any."""
    found = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = {number: signal.signal(number, found.note) for number in _SIGNALS}
    try:
        yield found
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
