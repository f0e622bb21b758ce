"""Changes that turn, shear, scale and move images by fractions of pixels: rotation, affine.

Places in the image are computed element by element, so that an image comes out the same in any
batch; torch reads the pixels there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnspec.training.augmentation.philox import Floats, Keys
from cnnspec.training.augmentation.pixels import Changed, factors, unit
from cnnspec.training.augmentation.rectangles import between
from cnnspec.training.data.samples import IGNORED

__all__ = ["Affine", "Interpolation", "inverses", "warped"]

Interpolation = Literal["nearest", "bilinear"]
Range = tuple[float, float]


def inverses(
    angle: Floats,
    move: tuple[Floats, Floats],
    scale: Floats,
    shear: tuple[Floats, Floats],
    centre: tuple[Floats | float, Floats | float] = (0.0, 0.0),
) -> Floats:
    """From a place in the result to that in the image, N x 2 x 3, in pixels from the middle.

    The image is sheared, scaled, turned around `centre` and moved by x and y. Angles are in
    degrees, clockwise, y pointing down; shears are the angles of torchvision.
    """
    turn, x, y = (np.deg2rad(each) for each in (angle, *shear))
    cos, sin, tan_x, tan_y = np.cos(turn), np.sin(turn), np.tan(x), np.tan(y)
    a, c = cos + sin * tan_y, sin - cos * tan_y
    b, d = -a * tan_x - sin, -c * tan_x + cos
    # The matrix without its scale has the determinant 1.
    inverse = np.stack((d, -b, -c, a), axis=-1).reshape(-1, 2, 2) / scale[:, None, None]
    there = np.stack([move[0] + centre[0], move[1] + centre[1]], axis=-1)
    around = np.stack(np.broadcast_arrays(*centre, angle)[:2], axis=-1)
    back = around - (inverse * there[:, None, :]).sum(axis=2)
    return np.concatenate((inverse, back[:, :, None]), axis=2)


def warped(
    images: Tensor,
    masks: Tensor | None,
    matrices: Floats,
    interpolation: Interpolation,
    fill: float,
) -> Changed:
    """Each image by its matrix of `inverses`; `fill` (a byte) lies around it."""
    tall, wide = images.shape[-2:]
    m = factors(matrices, images)[:, :, :, None, None]
    y = torch.arange(tall, device=images.device)[:, None] - (tall - 1) / 2
    x = torch.arange(wide, device=images.device)[None, :] - (wide - 1) / 2
    at_x = m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2] + (wide - 1) / 2
    at_y = m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2] + (tall - 1) / 2
    if masks is not None:
        masks = _nearest(masks[:, None], at_x, at_y, IGNORED)[:, 0]
    if interpolation == "nearest":
        fill = fill if images.dtype == torch.uint8 else fill / 255
        return _nearest(images, at_x, at_y, fill), masks
    images, fill = unit(images), fill / 255
    grid = torch.stack(((2 * at_x + 1) / wide - 1, (2 * at_y + 1) / tall - 1), dim=-1)
    shifted = images - fill if fill else images
    read = functional.grid_sample(shifted, grid, "bilinear", "zeros", align_corners=False)
    return (read + fill if fill else read), masks


def _nearest(images: Tensor, at_x: Tensor, at_y: Tensor, fill: float) -> Tensor:
    n, c, tall, wide = images.shape
    x, y = at_x.round(), at_y.round()
    inside = (x >= 0) & (x <= wide - 1) & (y >= 0) & (y <= tall - 1)
    place = y.clamp(0, tall - 1).long() * wide + x.clamp(0, wide - 1).long()
    read = images.flatten(2).gather(2, place.flatten(1)[:, None].expand(n, c, -1))
    return read.view_as(images).masked_fill_(~inside[:, None], fill)


@dataclass(frozen=True, slots=True)
class Affine:
    """`RandomAffine`, and `RandomRotation`, which turns the other way round.

    `degrees` and `shear` are ranges of angles, `translate` shares of width and height, `scale` is a
    range of factors.
    """

    degrees: Range
    translate: Range = (0.0, 0.0)
    scale: Range = (1.0, 1.0)
    shear: tuple[Range, Range] = ((0.0, 0.0), (0.0, 0.0))
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        tall, wide = images.shape[-2:]
        drawn = keys.uniform(6)
        reach = self.translate[0] * wide, self.translate[1] * tall
        matrices = inverses(
            between(drawn[:, 0], self.degrees),
            (
                np.round(between(drawn[:, 1], (-reach[0], reach[0]))),
                np.round(between(drawn[:, 2], (-reach[1], reach[1]))),
            ),
            between(drawn[:, 3], self.scale),
            (between(drawn[:, 4], self.shear[0]), between(drawn[:, 5], self.shear[1])),
        )
        return warped(images, masks, matrices, self.interpolation, self.fill)
