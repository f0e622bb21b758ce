"""Changes that only move pixels: mirroring, shifting, cropping. Exact, in whatever type images are.

What interpolates may not enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.training.augmentation.philox import Integers, Keys
from cnnspec.training.augmentation.pixels import Changed, placed
from cnnspec.training.augmentation.rectangles import whole
from cnnspec.training.data.samples import IGNORED

__all__ = ["Flip", "Outside", "Window"]

Outside = Literal["constant", "edge", "reflect"]


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirrors with probability `p`: left and right (`axis` -1) or top and bottom (-2)."""

    axis: Literal[-1, -2]
    p: float = 0.5

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        chosen = placed(keys.uniform(1)[:, 0] < self.p, images)
        images = torch.where(chosen[:, None, None, None], images.flip(self.axis), images)
        if masks is not None:
            masks = torch.where(chosen[:, None, None], masks.flip(self.axis), masks)
        return images, masks


@dataclass(frozen=True, slots=True)
class Window:
    """A window at a random place of the padded image: `RandomCrop`, and `RandomShift`.

    `size` is the window's height and width, None that of the image. `padding` is left, top, right,
    bottom. What lies outside is `fill` (a byte), the nearest pixel, or the image mirrored at its
    border pixels; in masks it does not count, unless it is a pixel.
    """

    name: str
    size: tuple[int, int] | None
    padding: tuple[int, int, int, int]
    outside: Outside = "constant"
    fill: float = 0.0

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        tall, wide = images.shape[-2:]
        left, top, right, bottom = self.padding
        height, width = self.size or (tall, wide)
        free = tall + top + bottom - height, wide + left + right - width
        if min(free) < 0:
            raise EnvironmentFailure(
                f"`{self.name}` takes {shape_text((height, width))} pixels, images have "
                f"{shape_text((tall, wide))}"
            )
        if self.outside == "reflect" and (max(top, bottom) >= tall or max(left, right) >= wide):
            raise EnvironmentFailure(
                f"`{self.name}` reflects {max(self.padding)} pixels, images have "
                f"{shape_text((tall, wide))}"
            )
        drawn = keys.uniform(2)
        rows = _indices(whole(drawn[:, 0], free[0] + 1) - top, height)
        columns = _indices(whole(drawn[:, 1], free[1] + 1) - left, width)
        fill = self.fill if images.dtype == torch.uint8 else self.fill / 255
        moved = self._taken(images, rows, columns, fill)
        if masks is not None:
            masks = self._taken(masks[:, None], rows, columns, IGNORED)[:, 0]
        return moved, masks

    def _taken(self, images: Tensor, rows: Integers, columns: Integers, fill: float) -> Tensor:
        n, c, tall, wide = images.shape
        y, inside_y = self._inside(placed(rows, images), tall)
        x, inside_x = self._inside(placed(columns, images), wide)
        place = (y[:, :, None] * wide + x[:, None, :]).flatten(1)
        taken = images.flatten(2).gather(2, place[:, None].expand(n, c, -1))
        taken = taken.view(n, c, y.shape[1], x.shape[1])
        if self.outside == "constant":
            taken.masked_fill_(~(inside_y[:, :, None] & inside_x[:, None, :])[:, None], fill)
        return taken

    def _inside(self, places: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Places that exist, in stead of ones that may not, and which did."""
        last = size - 1
        if self.outside == "reflect":
            places = last - (last - places.abs()).abs()
        inside = places.clamp(0, last)
        return inside, inside == places


def _indices(starts: Integers, length: int) -> Integers:
    return np.asarray(starts[:, None] + np.arange(length), np.int64)
