"""RandomErasing (Zhong and others, 2017): a random rectangle of an image is painted over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cnnspec.training.augmentation.philox import Integers, Keys
from cnnspec.training.augmentation.pixels import Changed, factors, on_some, placed
from cnnspec.training.augmentation.rectangles import ATTEMPTS, rectangles, whole

__all__ = ["Erasing", "covered"]

Range = tuple[float, float]


def covered(corners: Integers, sides: Integers, like: Tensor) -> Tensor:
    """Which pixels lie in rectangles, N x 1 x H x W: their first corners and sides are N x 2."""
    tall, wide = like.shape[-2:]
    first = placed(corners, like)[:, :, None]
    behind = first + placed(sides, like)[:, :, None]
    y, x = (torch.arange(length, device=like.device)[None] for length in (tall, wide))
    rows = (y >= first[:, 0]) & (y < behind[:, 0])
    columns = (x >= first[:, 1]) & (x < behind[:, 1])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


@dataclass(frozen=True, slots=True)
class Erasing:
    """`RandomErasing`, which runs on normalised images, so that `value` 0 is the mean colour.

    `value` is one number, one for each channel, or `random`: every pixel of its own, normal.
    """

    p: float = 0.5
    scale: Range = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)
    value: tuple[float, ...] | Literal["random"] = (0.0,)

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images, and masks as they are: what is hidden is still there."""
        drawn = keys.uniform(_DRAWN)
        size = images.shape[-2], images.shape[-1]
        attempts = drawn[:, 3:].reshape(-1, ATTEMPTS, 2)
        sides = rectangles(attempts, size, self.scale, self.ratio, full=False)
        corners = whole(drawn[:, 1:3], np.asarray(size) - sides + 1)

        def erased(some: Tensor, where: Integers) -> Tensor:
            inside = covered(corners[where], sides[where], some)
            return torch.where(inside, self._paint(some, keys.of(where)), some)

        return on_some(images, (drawn[:, 0] < self.p) & (sides[:, 0] > 0), erased), masks

    def _paint(self, images: Tensor, keys: Keys) -> Tensor:
        if self.value == "random":
            count = images[0].numel()
            noise = keys.normal(count, first=_NOISE)
            return factors(noise, images).view(images.shape)
        return factors(np.asarray(self.value), images)[None, :, None, None]


_DRAWN = 3 + 2 * ATTEMPTS
"""Numbers before the noise: whether, where, and two for each attempt."""

_NOISE = -(-_DRAWN // 4) * 4
