"""How far two arrays are apart. Who made them, and what is too far, may not enter."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "Difference", "first_choices", "measured"]

AnyArray = NDArray[Any]

_SILENT = 1e-30
"""Largest value of a result too small for float32 to be exact about."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`absolute` is max|ours - theirs|, `scale` is max|theirs| over what is finite there.

    `absolute` is infinite where shapes or kinds of numbers differ, or where only one of the two is
    finite, or they are not finite in different ways. Two results that are zero throughout do not
    differ and prove nothing; `silent` says so.
    """

    absolute: float
    scale: float
    silent: bool = False

    @property
    def relative(self) -> float:
        """max|ours - theirs| / max|theirs|."""
        if not self.absolute:
            return 0.0
        return self.absolute / self.scale if self.scale else inf

    @property
    def comparable(self) -> bool:
        """False if it is no question of how much."""
        return isfinite(self.absolute)


def measured(ours: AnyArray, theirs: AnyArray) -> Difference:
    """How far `ours` is from `theirs`, whose type may be wider; floats are no whole numbers."""
    if ours.shape != theirs.shape or (ours.dtype.kind == "f") != (theirs.dtype.kind == "f"):
        return Difference(inf, 0.0)
    if not ours.size:
        return Difference(0.0, 0.0, silent=True)
    if ours.dtype.kind != "f":
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        absolute = float(np.abs(ours - theirs).max())
        scale = float(np.abs(theirs).max())
    if not (isfinite(absolute) and isfinite(scale)):
        return _with_infinities(ours, theirs)
    silent = scale < _SILENT and float(np.abs(ours).max()) < _SILENT
    return Difference(0.0 if silent else absolute, scale, silent)


def _with_infinities(ours: AnyArray, theirs: AnyArray) -> Difference:
    """As above, where what is infinite or not a number has to be so in both and alike."""
    finite = np.isfinite(theirs)
    scale = float(np.abs(theirs[finite]).max(initial=0.0))
    alike = np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
    if not alike or not np.isfinite(ours[finite]).all():
        return Difference(inf, scale)
    return Difference(float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0)), scale)


def first_choices(ours: AnyArray, theirs: AnyArray, slack: float) -> int:
    """For how many rows of scores the largest of `ours` is a largest of `theirs`.

    Scores within `slack` of the largest count as largest too: rounding decides between them.
    """
    rows = np.arange(len(theirs))
    return int(np.sum(theirs[rows, ours.argmax(axis=1)] >= theirs.max(axis=1) - slack))
