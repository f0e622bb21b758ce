"""The order of samples: a function of (seed, epoch), and which process takes what of it.

No state: any step of any epoch can be asked for, on any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "permutation", "portion"]

_WORD = 2**64 - 1
_TAG = 0x6F72646572
"""Keeps these random numbers apart from others of the same seed and epoch."""


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The numbers below `count` in an order that only `seed` and `epoch` decide.

    They are sorted by random words of Philox 4x64 (Salmon et al., 2011), whose stream numpy keeps
    for ever, which it does not promise of its shuffling.
    """
    key = np.array([seed & _WORD, epoch & _WORD], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=[0, 0, 0, _TAG]).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64, copy=False)


def portion(count: int, part: int, parts: int) -> range:
    """Which of `count` things in a row the `part`th of `parts` gets: the first get one more."""
    size, rest = divmod(count, parts)
    return range(part * size + min(part, rest), (part + 1) * size + min(part + 1, rest))


@dataclass(frozen=True, slots=True)
class Order:
    """How `count` samples become steps of `batch_size`, and those the parts of processes.

    A step is the same set of samples at any `world`: its batch is cut into `world` shares, each
    into `accumulate` parts. Sizes differ by one at most; a part is empty only where a batch has
    less than `world * accumulate` samples.
    """

    count: int
    seed: int
    batch_size: int
    accumulate: int
    rank: int
    world: int
    shuffle: bool
    drop_last: bool

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def size(self, step: int) -> int:
        """Samples of a step over all processes."""
        return min(self.batch_size, self.count - step * self.batch_size)

    def numbers(self, epoch: int) -> NDArray[np.int64]:
        """All samples in the order of an epoch."""
        if self.shuffle:
            return permutation(self.seed, epoch, self.count)
        return np.arange(self.count, dtype=np.int64)

    def part(self, numbers: NDArray[np.int64], step: int, part: int) -> NDArray[np.int64]:
        """What this process computes in a part of a step; `numbers` are those of the epoch."""
        first = step * self.batch_size
        share = portion(self.size(step), self.rank, self.world)
        mine = portion(len(share), part, self.accumulate)
        start = first + share.start
        return numbers[start + mine.start : start + mine.stop]
