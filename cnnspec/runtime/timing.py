"""Times of what is run again and again: how runs are shared out in turns, and what they come to.

Arithmetic alone. What is timed, by whom and where may not enter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import floor
from typing import TypeVar

__all__ = ["LONGEST_TURN", "Timing", "order", "quantile", "ratio", "turn_count", "turns"]

LONGEST_TURN = 5
"""Runs of a turn, at most: the shorter turns are, the more alike is what they meet."""

_Each = TypeVar("_Each")


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values lie below, linear between two of them.

    Hyndman and Fan's type 7, numpy's default. Of no values there is none: `ValueError`.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError("a quantile is of some values, and of a share from 0 to 1")
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every run, turn by turn; at least one run in each turn, and at least one turn."""

    turns: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not self.turns or not all(self.turns):
            raise ValueError("a timing is of at least one run in each turn")

    @property
    def seconds(self) -> tuple[float, ...]:
        """All runs in their order."""
        return tuple(chain.from_iterable(self.turns))

    @property
    def median(self) -> float:
        """Seconds of a run: half of all took less."""
        return quantile(self.seconds, 0.5)

    @property
    def p95(self) -> float:
        """Seconds that 95 of 100 runs stay below."""
        return quantile(self.seconds, 0.95)

    def throughput(self, batch: int) -> float:
        """Samples a second over all runs of `batch` samples each, the slow ones too."""
        seconds = self.seconds
        return batch * len(seconds) / sum(seconds)


def ratio(timing: Timing, reference: Timing) -> float:
    """How many times as fast as `reference`: the median over turns of the ratios of their medians.

    What else the machine does in a turn slows both down, and no ratio by much. Turns that only one
    of the two has had do not count.
    """
    return quantile(
        [
            quantile(theirs, 0.5) / quantile(own, 0.5)
            for own, theirs in zip(timing.turns, reference.turns, strict=False)
        ],
        0.5,
    )


def turn_count(runs: int) -> int:
    """How many turns `runs` runs take."""
    return -(-runs // LONGEST_TURN)


def turns(runs: int) -> Iterator[int]:
    """How many of `runs` runs each turn has: as equal as can be, and no turn without any."""
    count = turn_count(runs)
    return (runs // count + (number < runs % count) for number in range(count))


def order(contenders: Sequence[_Each], turn: int) -> tuple[_Each, ...]:
    """Who runs when in a turn: another one begins each time."""
    start = turn % len(contenders) if contenders else 0
    return (*contenders[start:], *contenders[:start])
