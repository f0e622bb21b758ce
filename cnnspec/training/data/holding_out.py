"""Which samples are held out where a source does not say: a share of every class, by their names.

The seed of a run may not enter: runs with different seeds are compared on the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from cnnspec.training.data.in_memory import Subset
from cnnspec.training.data.samples import Samples

__all__ = ["held_out_share", "parted"]


def held_out_share(
    count: int, key: Callable[[int], bytes], targets: Sequence[int] | None, share: float
) -> NDArray[np.bool_]:
    """One truth for each of `count` samples: `share` of every class, rounded, is held out.

    Those whose `key` has the smallest hashes are. So files that come or go leave nearly all others
    where they are. Something of a class is left to train with.
    """
    held = np.zeros(count, dtype=np.bool_)
    if share <= 0 or count == 0:
        return held
    words = b"".join(blake2b(key(number), digest_size=8).digest() for number in range(count))
    classes = np.zeros(count, np.int64) if targets is None else np.asarray(targets, np.int64)
    order = np.lexsort((np.frombuffer(words, dtype=">u8"), classes))
    starts = np.flatnonzero(np.diff(classes[order], prepend=classes[order[0]] - 1))
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        size = int(stop - start)
        taken = min(int(size * share + 0.5), size - 1)
        held[order[start : start + taken]] = True
    return held


def parted(
    whole: Samples, key: Callable[[int], bytes], share: float
) -> tuple[Samples, Samples | None]:
    """Samples to train with and samples held out, None where none are."""
    held = held_out_share(len(whole), key, whole.targets(), share)
    if not held.any():
        return whole, None
    return Subset(whole, np.flatnonzero(~held)), Subset(whole, np.flatnonzero(held))
