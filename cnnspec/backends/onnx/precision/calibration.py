"""The range of every tensor that is to be held in 8 bits, from samples.

Numbers only: which tensors those are, and what becomes of a range, may not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from cnnspec.backends.onnx.precision.running import Feeds, Progress, observed

__all__ = ["PERCENTILE", "Method", "Range", "ranges"]

Method = Literal["minmax", "percentile", "entropy"]
"""How a range is found: all values, all but the rarest, or the one that keeps most information."""

Range = tuple[float, float]

PERCENTILE = 99.99
"""Percent of the values that `percentile` keeps within the range."""

_BINS = 4096
_ENTROPY_BINS = 2048
_STEP = 16
"""Bins between two thresholds that `entropy` tries."""

_Counts = NDArray[np.int64]
_Float64 = NDArray[np.float64]


def ranges(
    model: onnx.ModelProto,
    names: Sequence[str],
    samples: Iterable[Feeds],
    *,
    method: Method,
    progress: Progress | None = None,
) -> Mapping[str, Range]:
    """The smallest and largest value to represent of each tensor; `samples` are read once.

    Raises `EnvironmentFailure` for no samples and for values that are not finite.
    """
    seen = {name: _Seen(histogram=method != "minmax") for name in names}
    for name, value in observed(model, names, samples, progress):
        seen[name].add(value)
    match method:
        case "minmax":
            return {name: each.extremes for name, each in seen.items()}
        case "percentile":
            return {name: each.percentile(PERCENTILE) for name, each in seen.items()}
        case "entropy":
            return {name: each.entropy() for name, each in seen.items()}


class _Seen:
    """The values of one tensor: the extremes and, where asked for, how often each size came.

    Sizes are counted in bins from 0 to a power of two, apart for negative and other values. A
    larger value doubles the bins' width, which merges pairs: the order of samples does not matter.
    """

    def __init__(self, *, histogram: bool) -> None:
        self._low, self._high = np.inf, -np.inf
        self._counts: _Counts | None = np.zeros((2, _BINS), np.int64) if histogram else None
        self._exponent: int | None = None

    def add(self, value: NDArray[np.float32]) -> None:
        """Count every element."""
        if not value.size:
            return
        self._low = min(self._low, float(value.min()))
        self._high = max(self._high, float(value.max()))
        if self._counts is not None:
            self._count(value.reshape(-1))

    def _count(self, value: NDArray[np.float32]) -> None:
        assert self._counts is not None
        size = np.abs(value)
        exponent = int(np.frexp(size.max())[1])
        if self._exponent is None:
            self._exponent = exponent
        while self._exponent < exponent:
            merged = self._counts.reshape(2, _BINS // 2, 2).sum(axis=2)
            self._counts = np.concatenate((merged, np.zeros_like(merged)), axis=1)
            self._exponent += 1
        bins = np.minimum(np.ldexp(size, -self._exponent) * _BINS, _BINS - 1).astype(np.int64)
        for row, part in enumerate((bins[value < 0], bins[value >= 0])):
            self._counts[row] += np.bincount(part, minlength=_BINS)

    @property
    def extremes(self) -> Range:
        """The smallest and the largest value; nothing but 0 where none were seen."""
        return (self._low, self._high) if self._low <= self._high else (0.0, 0.0)

    def percentile(self, percent: float) -> Range:
        """The range without the rarest values, half of them at each end where both signs came."""
        low, high = self.extremes
        if self._counts is None or self._exponent is None:
            return low, high
        both = low < 0 < high
        spare = self._counts.sum() * (1 - percent / 100) / (2 if both else 1)
        negative, positive = (self._edge(row, spare) for row in self._counts)
        return max(low, -negative), min(high, positive)

    def _edge(self, counts: _Counts, spare: float) -> float:
        """The size above which at most `spare` values lie."""
        above = np.cumsum(counts[::-1])[::-1]
        kept = int(np.count_nonzero(above > spare))
        return self._size(kept, _BINS)

    def _size(self, bins: int, of: int) -> float:
        return float(np.ldexp(bins / of, self._exponent or 0))

    def entropy(self) -> Range:
        """The range at which 8 bits tell least falsely how sizes are distributed.

        The threshold with the smallest Kullback-Leibler divergence of the distribution that is cut
        off there from its quantized form (Migacz, 8-bit inference with TensorRT, 2017).
        """
        low, high = self.extremes
        if self._counts is None or self._exponent is None:
            return low, high
        levels = 128 if low < 0 else 256
        sizes = self._counts.sum(axis=0).reshape(_ENTROPY_BINS, -1).sum(axis=1).astype(np.float64)
        sizes[0] = sizes[1]  # zeros are exact, and a ReLU's would outweigh all else
        used = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else levels
        tried = [*range(levels, used, _STEP), max(levels, used)]
        best = min(tried, key=lambda count: _divergence(sizes, count, levels))
        threshold = self._size(best, _ENTROPY_BINS)
        return max(low, -threshold), min(high, threshold)


def _divergence(sizes: _Float64, count: int, levels: int) -> float:
    """Of the first `count` bins, those beyond counted into the last, from `levels` steps."""
    kept = sizes[:count]
    reference = kept.copy()
    reference[-1] += sizes[count:].sum()
    step = np.arange(count) * levels // count
    filled = np.bincount(step, weights=kept > 0, minlength=levels)
    total = np.bincount(step, weights=kept, minlength=levels)
    mean = total / np.maximum(filled, 1)
    quantized = np.where(kept > 0, mean[step], 0.0)
    there = reference > 0
    p = reference[there] / reference.sum()
    q = np.maximum(quantized[there], 1e-4) / max(float(quantized.sum()), 1e-4)
    return float((p * np.log(p / q)).sum())
