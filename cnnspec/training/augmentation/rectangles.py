"""Where a random part of an image lies: rectangles of random area and shape, and padding.

Numbers only; torch and Pillow may not enter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnnspec.training.augmentation.philox import Floats, Integers

__all__ = ["ATTEMPTS", "Padding", "between", "rectangles", "sides", "whole"]

Padding = int | Sequence[int] | None
Range = tuple[float, float]

ATTEMPTS = 10
"""How often a rectangle is drawn until one fits, as in torchvision."""


def between(drawn: Floats, ends: Range) -> Floats:
    """Numbers in (0, 1) stretched to lie between two ends."""
    return np.asarray(ends[0] + drawn * (ends[1] - ends[0]), np.float64)


def whole(drawn: Floats, count: Integers | int) -> Integers:
    """Numbers in (0, 1) as whole ones from 0 to below `count`."""
    return np.asarray(np.floor(drawn * count), np.int64)


def sides(padding: Padding) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a `padding` in the forms of torchvision."""
    if padding is None:
        return 0, 0, 0, 0
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[1], padding[0], padding[1]
    left, top, right, bottom = padding
    return left, top, right, bottom


def rectangles(
    drawn: Floats, size: tuple[int, int], scale: Range, ratio: Range, *, full: bool
) -> Integers:
    """Height and width of the first rectangle that fits, N x 2; zeros where none does.

    `drawn` are two numbers for each attempt, N x attempts x 2. The area is even in `scale`, a share
    of the image's of `size`; the ratio of height to width is even in its logarithm. A side may be
    as long as the image's only with `full`.
    """
    area = between(drawn[:, :, 0], scale) * (size[0] * size[1])
    shape = np.exp(between(drawn[:, :, 1], (float(np.log(ratio[0])), float(np.log(ratio[1])))))
    found = np.round(np.stack((np.sqrt(area * shape), np.sqrt(area / shape)), axis=2))
    fits = np.all((found > 0) & (found < np.asarray(size) + full), axis=2)
    chosen = found[np.arange(len(found)), np.argmax(fits, axis=1)]
    return np.asarray(np.where(np.any(fits, axis=1)[:, None], chosen, 0), np.int64)
