"""Changes of what pixels are, not where: colour jitter, grey, AlexNet's colours, blur.

kornia computes them, with factors of our own for each image.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.training.augmentation.philox import Keys
from cnnspec.training.augmentation.pixels import (
    Changed,
    factors,
    in_colour,
    on_some,
    tensor,
    unit,
)
from cnnspec.training.augmentation.rectangles import between

__all__ = ["Blur", "Grayscale", "Jitter", "PCAColor", "brightness", "contrast", "saturation"]

Range = tuple[float, float]

_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = (
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Images times their factors, cut to 0..1."""
    return tensor(adjust_brightness_accumulative(images, factor))


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Images blended with their own grey; of one channel as they are."""
    return tensor(adjust_saturation_with_gray_subtraction(images, factor))


def hue(images: Tensor, factor: Tensor) -> Tensor:
    """Images with their hue turned by a share of the circle; of one channel as they are."""
    if images.shape[1] == 1:
        return images
    return tensor(adjust_hue(images, factor * (2 * pi)))


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Images blended with the mean of their grey, cut to 0..1.

    The mean is that of the grey as whole 2^-16, added up exactly: a sum of floats would depend on
    how a batch is split among threads.
    """
    grey = rgb_to_grayscale(images) if images.shape[1] == 3 else images
    total = (grey * 65536).round().long().sum(dim=(1, 2, 3), keepdim=True)
    mean = (total.double() / (65536 * grey[0].numel())).float()
    factor = factor[:, None, None, None]
    return (images * factor + mean * (1 - factor)).clamp_(0.0, 1.0)


_JITTERS = (brightness, contrast, saturation, hue)


@dataclass(frozen=True, slots=True)
class Jitter:
    """`ColorJitter`: brightness, contrast, saturation and hue, in an order of each image.

    Each is the range of its factor, None where it stays; `hue` is in shares of the circle.
    """

    ranges: tuple[Range | None, Range | None, Range | None, Range | None]
    p: float = 1.0

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        drawn = keys.uniform(9)
        images, chosen = unit(images), drawn[:, 0] < self.p
        kinds = [kind for kind, ends in enumerate(self.ranges) if ends is not None]
        order = np.asarray(kinds)[np.argsort(drawn[:, 1 : 1 + len(kinds)], axis=1, kind="stable")]
        for turn in range(len(kinds)):
            for kind in kinds:
                ends = self.ranges[kind]
                if ends is None:
                    continue
                factor = between(drawn[:, 5 + kind], ends)
                images = on_some(
                    images,
                    chosen & (order[:, turn] == kind),
                    lambda some, where, kind=kind, factor=factor: _JITTERS[kind](  # type: ignore[misc]
                        some, factors(factor[where], some)
                    ),
                )
        return images, masks


@dataclass(frozen=True, slots=True)
class Grayscale:
    """`RandomGrayscale`: with probability `p` all channels are the luma of ITU-R BT.601."""

    p: float = 0.1

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        if images.shape[1] == 1:
            return images, masks
        return on_some(
            unit(images),
            keys.uniform(1)[:, 0] < self.p,
            lambda some, _: tensor(rgb_to_grayscale(some)).expand_as(some),
        ), masks


@dataclass(frozen=True, slots=True)
class PCAColor:
    """AlexNet's change of colour: along the main axes of ImageNet's pixels (2012, section 4.1).

    All pixels of an image get `p1 a1 l1 + p2 a2 l2 + p3 a3 l3` added, `a` normal with a deviation
    of `std`. The axes `p` and `l` are those that implementations use, for images from 0 to 1. The
    result is not cut to 0..1.
    """

    std: float = 0.1

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        weights = keys.normal(3) * self.std * np.asarray(_EIGENVALUES)
        added = (weights[:, None, :] * np.asarray(_EIGENVECTORS)).sum(axis=2)
        return unit(images) + factors(added, images)[:, :, None, None], masks


@dataclass(frozen=True, slots=True)
class Blur:
    """`GaussianBlur`: a Gaussian of `kernel` (height and width), its deviation even in `sigma`."""

    kernel: tuple[int, int]
    sigma: Range = (0.1, 2.0)
    p: float = 1.0

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        size = tuple(images.shape[-2:])
        if any(kernel // 2 >= length for kernel, length in zip(self.kernel, size, strict=True)):
            raise EnvironmentFailure(
                f"`GaussianBlur` has a kernel of {shape_text(self.kernel)}, images have "
                f"{shape_text(size)} pixels"
            )
        drawn = keys.uniform(2)
        sigma = between(drawn[:, 1:], self.sigma).repeat(2, axis=1)
        return on_some(
            unit(images),
            drawn[:, 0] < self.p,
            lambda some, where: in_colour(
                some,
                lambda three: gaussian_blur2d(three, self.kernel, factors(sigma[where], some)),
            ),
        ), masks
