"""What becomes of a batch of training images on the device: changed, normalised, mixed.

The calls of a recipe by their names. Files and Pillow may not enter; calls that give images their
size run before, in `cropping`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, shape_text
from cnnspec.metadata import Preprocess
from cnnspec.training.augmentation.colouring import Blur, Grayscale, Jitter, PCAColor
from cnnspec.training.augmentation.cropping import sizing
from cnnspec.training.augmentation.erasing import Erasing
from cnnspec.training.augmentation.mixing import Mixing
from cnnspec.training.augmentation.moving import Flip, Window
from cnnspec.training.augmentation.philox import Integers, Keys
from cnnspec.training.augmentation.pixels import Change, unit
from cnnspec.training.augmentation.rand_augment import RandAugment
from cnnspec.training.augmentation.rectangles import sides
from cnnspec.training.augmentation.warping import Affine
from cnnspec.training.recipe.model import Call

__all__ = ["NAMES", "Augmentation"]

_BYTE = 1 / 255


class Augmentation:
    """A batch of uint8 images to what the network takes, the same for a sample in any batch.

    `calls` are all of a recipe; each draws from its own stream, which is its place among them.
    `preprocess` is the spec's: scale, mean, deviation and order of colours. `size` is the height
    and width that the network takes, `classes` how many there are, for mixing.

    Without calls the result equals `runtime.preparing` to the bit. Random numbers are equal on all
    devices, pixels up to the rounding of a device's arithmetic. On one device an image comes out
    the same to the bit in any batch; mixing is the exception, as partners come from the batch.

    Raises `EnvironmentFailure` for calls that do not go with the images.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        preprocess: Preprocess,
        *,
        seed: int,
        channels: int,
        size: tuple[int, int] | None = None,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        classes: int | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._constants: dict[torch.device, _Constants] = {}
        self._seed = seed
        self._before: list[tuple[int, Change]] = []
        self._behind: list[tuple[int, Change]] = []
        elsewhere = sizing(calls)
        for place, call in enumerate(calls):
            if place in elsewhere:
                continue
            change = _made(call, channels, size)
            found = self._behind if isinstance(change, Erasing) else self._before
            found.append((place, change))
        self._mixing: Mixing | None = None
        if mixup or cutmix:
            if classes is None:
                raise EnvironmentFailure(
                    "`mixup` and `cutmix` mix classes, of which there are none"
                )
            self._mixing = Mixing(mixup, cutmix, classes, seed)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, targets: Tensor, samples: Tensor | Integers, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """NxCxHxW of float32, and targets.

        Targets are N or NxHxW of int64, as they came, or NxK of float32 if classes are mixed.
        `samples` are the numbers of the samples, on the host.
        """
        if images.dtype != torch.uint8:
            raise TypeError("images to augment are uint8; others are prepared already")
        if not self._before and not self._behind and self._mixing is None:
            return self._normalised(images), targets
        numbers = np.asarray(samples, np.int64)
        masks = targets if targets.ndim == 3 else None
        for place, change in self._before:
            images, masks = change(images, masks, Keys(self._seed, epoch, numbers, place))
        images = self._normalised(images)
        for place, change in self._behind:
            images, masks = change(images, masks, Keys(self._seed, epoch, numbers, place))
        if masks is not None:
            targets = masks
        if self._mixing is None:
            return images, targets
        if targets.ndim != 1:
            raise EnvironmentFailure("`mixup` and `cutmix` mix classes of images, not of pixels")
        return self._mixing(images, targets, numbers, epoch)

    def _normalised(self, images: Tensor) -> Tensor:
        """Floats of the network; those that come in are written over."""
        by = self._constants.get(images.device)
        if by is None:
            by = self._constants[images.device] = _Constants.of(self._preprocess, images.device)
        fresh = images.dtype == torch.uint8
        # Of grey images that a change has made three channels, all are in one place until here.
        images = images if fresh else images.contiguous()
        if by.scale is None:
            images = unit(images)
        else:
            images = images.float() if fresh else images.mul_(255)
            images = images.mul_(by.scale)
        if self._preprocess.colour == "bgr":
            images = images.flip(1)
        if by.mean is not None:
            images = images.sub_(by.mean)
        return images if by.std is None else images.div_(by.std)


@dataclass(frozen=True, slots=True, eq=False)
class _Constants:
    """What images are normalised by, on their device: brought there in every step, they would have
    the host wait for it. None is for what changes nothing.
    """

    scale: Tensor | None
    mean: Tensor | None
    std: Tensor | None

    @classmethod
    def of(cls, said: Preprocess, device: torch.device) -> _Constants:
        """Tensors for images of 1 or 3 channels; a scale of 1/255 is `unit`'s."""

        def by_channel(values: Sequence[float], nothing: float) -> Tensor | None:
            if all(each == nothing for each in values):
                return None
            return torch.tensor(values, device=device)[:, None, None]

        scale = None if said.scale == _BYTE else torch.full((), said.scale, device=device)
        return cls(scale, by_channel(said.mean, 0.0), by_channel(said.std, 1.0))


def _size(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _around(value: Any, centre: float, least: float | None) -> tuple[float, float] | None:
    """The range of a jitter: `value` to both sides of what changes nothing, or as it is said."""
    if isinstance(value, (int, float)):
        if not value:
            return None
        low = centre - value
        return (low if least is None else max(low, least)), centre + value
    low, high = value
    return None if low == high == centre else (low, high)


def _range(value: Any) -> tuple[float, float]:
    """A range, or one number to both sides of 0."""
    return (-value, value) if isinstance(value, (int, float)) else (value[0], value[1])


def _shift(said: Mapping[str, Any]) -> Change:
    down, right = _size(said["pixels"])
    return Window(
        "RandomShift",
        None,
        (right, down, right, down),
        said.get("padding_mode", "constant"),
        said.get("fill", 0.0),
    )


def _crop(said: Mapping[str, Any]) -> Change:
    return Window(
        "RandomCrop",
        _size(said["size"]),
        sides(said.get("padding")),
        said.get("padding_mode", "constant"),
        said.get("fill", 0.0),
    )


def _jitter(said: Mapping[str, Any]) -> Change:
    brightness, contrast, saturation = (
        _around(said.get(name, 0), 1.0, 0.0) for name in ("brightness", "contrast", "saturation")
    )
    hue = _around(said.get("hue", 0), 0.0, None)
    return Jitter((brightness, contrast, saturation, hue), said.get("p", 1.0))


def _affine(said: Mapping[str, Any]) -> Change:
    given = said.get("shear")
    shears = [0.0, 0.0] if given is None else list(_range(given) if _single(given) else given)
    return Affine(
        _range(said["degrees"]),
        tuple(said.get("translate") or (0.0, 0.0)),
        tuple(said.get("scale") or (1.0, 1.0)),
        ((shears[0], shears[1]), (shears[2], shears[3]) if len(shears) == 4 else (0.0, 0.0)),
        said.get("interpolation", "nearest"),
        said.get("fill", 0.0),
    )


def _single(value: Any) -> bool:
    return isinstance(value, (int, float))


def _rotation(said: Mapping[str, Any]) -> Change:
    low, high = _range(said["degrees"])
    return _affine({**said, "degrees": (-high, -low)})


def _erasing(said: Mapping[str, Any]) -> Change:
    value = said.get("value", 0.0)
    known = {key: tuple(said[key]) for key in ("scale", "ratio") if key in said}
    if value != "random":
        value = (value,) if _single(value) else tuple(value)
    return Erasing(p=said.get("p", 0.5), value=value, **known)


def _blur(said: Mapping[str, Any]) -> Change:
    sigma = said.get("sigma", (0.1, 2.0))
    return Blur(
        _size(said["kernel_size"]),
        (sigma, sigma) if _single(sigma) else tuple(sigma),
        said.get("p", 1.0),
    )


_MADE: Mapping[str, Callable[[Mapping[str, Any]], Change]] = {
    "RandomHorizontalFlip": lambda said: Flip(-1, **said),
    "RandomVerticalFlip": lambda said: Flip(-2, **said),
    "RandomShift": _shift,
    "RandomCrop": _crop,
    "ColorJitter": _jitter,
    "RandomGrayscale": lambda said: Grayscale(**said),
    "PCAColor": lambda said: PCAColor(**said),
    "RandAugment": lambda said: RandAugment(**said),
    "RandomErasing": _erasing,
    "RandomRotation": _rotation,
    "RandomAffine": _affine,
    "GaussianBlur": _blur,
}
NAMES = (*_MADE, "RandomResizedCrop", "Resize", "CenterCrop")
"""All calls that there are, those of `cropping` too."""


def _made(call: Call, channels: int, size: tuple[int, int] | None) -> Change:
    if call.name not in _MADE:
        raise EnvironmentFailure(
            f"there is no augmentation `{call.name}`", help=did_you_mean(call.name, NAMES)
        )
    change: Change = _MADE[call.name](call.arguments)
    if isinstance(change, PCAColor) and channels != 3:
        raise EnvironmentFailure(
            f"`PCAColor` is for images of 3 channels, the network takes {channels}"
        )
    values = change.value if isinstance(change, Erasing) else "random"
    if values != "random" and len(values) not in (1, channels):
        raise EnvironmentFailure(
            f"`RandomErasing` has {len(values)} values, images have {channels} channels"
        )
    if isinstance(change, Window) and change.size and size and change.size != size:
        raise EnvironmentFailure(
            f"`{change.name}` makes images of {shape_text(change.size)}, the network takes "
            f"{shape_text(size)}"
        )
    return change
