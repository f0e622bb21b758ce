"""What all changes of images have in common: their form, bytes and floats, some of a batch.

Images are NxCxHxW, uint8 as they were read until a change needs floats, then float32 from 0 to 1 in
the order RGB. Masks are NxHxW of int64. What a single change does may not enter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cnnspec.training.augmentation.philox import Floats, Integers, Keys

__all__ = [
    "Change",
    "Changed",
    "factors",
    "in_colour",
    "on_some",
    "placed",
    "tensor",
    "unit",
]

Changed = tuple[Tensor, Tensor | None]

_Number = TypeVar("_Number", np.float32, np.int64, np.bool_)


class Change(Protocol):
    """A call of a recipe: what it makes of images, and of their masks where they have any.

    The random numbers come from `keys` alone. Tensors that come in are left as they are.
    """

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""


def unit(images: Tensor) -> Tensor:
    """Images as floats from 0 to 1: bytes divided by 255, floats as they are."""
    if images.dtype != torch.uint8:
        return images
    # A divisor on the device: CUDA multiplies by the inverse of one that is not, and rounds.
    return images.float().div_(torch.full((), 255.0, device=images.device))


def placed(values: NDArray[_Number], like: Tensor) -> Tensor:
    """Numbers of the host on the device of `like`."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device, non_blocking=True)


def factors(values: Floats, like: Tensor) -> Tensor:
    """Numbers for each sample as float32 on the device of `like`."""
    return placed(values.astype(np.float32), like)


def in_colour(images: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    """`change`, a convolution of channels by themselves, given three channels in any case.

    Where there is one in all, libraries compute it otherwise for one image than for several.
    """
    if images.shape[1] > 1:
        return tensor(change(images))
    return tensor(change(images.expand(-1, 3, -1, -1).contiguous()))[:, :1]


def tensor(value: object) -> Tensor:
    """What kornia gave, which leaves some of its types open."""
    if not isinstance(value, Tensor):
        raise TypeError(f"a tensor was wanted, not {type(value).__name__}")
    return value


def on_some(
    images: Tensor, chosen: NDArray[np.bool_], change: Callable[[Tensor, Integers], Tensor]
) -> Tensor:
    """`images`, those that are chosen changed; `change` gets them and their places in the batch."""
    places = np.flatnonzero(chosen)
    if not len(places):
        return images
    if len(places) == len(chosen):
        return change(images, places)
    where = placed(places, images)
    return images.index_copy(0, where, change(images.index_select(0, where), places))
