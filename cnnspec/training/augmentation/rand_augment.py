"""RandAugment (Cubuk and others, 2019): some of fourteen changes, all of one magnitude.

The changes and their magnitudes are those of torchvision's `RandAugment`; every image has its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kornia.enhance import equalize, posterize, sharpness, solarize
from torch import Tensor

from cnnspec.training.augmentation.colouring import brightness, contrast, saturation
from cnnspec.training.augmentation.philox import Floats, Integers, Keys
from cnnspec.training.augmentation.pixels import (
    Changed,
    factors,
    in_colour,
    on_some,
    placed,
    tensor,
    unit,
)
from cnnspec.training.augmentation.rectangles import whole
from cnnspec.training.augmentation.warping import Interpolation, inverses, warped

__all__ = ["KINDS", "RandAugment"]

KINDS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
_MOVING = KINDS[1:6]
_BLENDING = {"Brightness": brightness, "Color": saturation, "Contrast": contrast}


@dataclass(frozen=True, slots=True)
class RandAugment:
    """`num_ops` changes one after another, each any of `KINDS`.

    The strength of all is `magnitude` of `num_magnitude_bins` steps from nothing to the most.
    Images of one channel keep `Color` as it is.
    """

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    interpolation: Interpolation = "nearest"
    fill: float = 0.0

    def __call__(self, images: Tensor, masks: Tensor | None, keys: Keys) -> Changed:
        """The changed images and masks."""
        drawn = keys.uniform(2 * self.num_ops)
        for turn in range(self.num_ops):
            kinds = whole(drawn[:, 2 * turn], len(KINDS))
            signs = np.where(drawn[:, 2 * turn + 1] < 0.5, -1.0, 1.0)
            images, masks = self.applied(images, masks, kinds, signs)
        return images, masks

    def applied(
        self, images: Tensor, masks: Tensor | None, kinds: Integers, signs: Floats
    ) -> Changed:
        """One change of each image: which of `KINDS`, and its sign where it has one."""
        images = unit(images).clamp(0.0, 1.0)
        moving = np.isin(kinds, [KINDS.index(kind) for kind in _MOVING])
        places = np.flatnonzero(moving)
        if len(places):
            where = placed(places, images)
            some = None if masks is None else masks.index_select(0, where)
            moved, some = warped(
                images.index_select(0, where),
                some,
                self._matrices(kinds[places], signs[places], images),
                self.interpolation,
                self.fill,
            )
            images = images.index_copy(0, where, moved)
            if masks is not None and some is not None:
                masks = masks.index_copy(0, where, some)
        for kind, name in enumerate(KINDS):
            if name != "Identity" and name not in _MOVING:
                images = on_some(
                    images,
                    kinds == kind,
                    lambda some, where, name=name: self._coloured(  # type: ignore[misc]
                        name, some, signs[where]
                    ),
                )
        return images, masks

    @property
    def strength(self) -> float:
        """The magnitude as a share of the most, 0 to 1."""
        return self.magnitude / (self.num_magnitude_bins - 1)

    def _matrices(self, kinds: Integers, signs: Floats, images: Tensor) -> Floats:
        tall, wide = images.shape[-2:]
        amounts = dict.fromkeys(_MOVING, 0.3)
        amounts |= {"TranslateX": 150 / 331 * wide, "TranslateY": 150 / 331 * tall, "Rotate": 30.0}
        sized = {
            name: np.where(kinds == KINDS.index(name), signs * amount * self.strength, 0.0)
            for name, amount in amounts.items()
        }
        shear = np.rad2deg(np.arctan(sized["ShearX"])), np.rad2deg(np.arctan(sized["ShearY"]))
        # Turned about the middle, sheared about the corner of the first pixel.
        corner = np.where(kinds == KINDS.index("Rotate"), 0.0, -0.5)
        return inverses(
            -sized["Rotate"],
            (np.trunc(sized["TranslateX"]), np.trunc(sized["TranslateY"])),
            np.ones(len(kinds)),
            shear,
            (corner * wide, corner * tall),
        )

    def _coloured(self, name: str, images: Tensor, signs: Floats) -> Tensor:
        if name == "AutoContrast":
            return _stretched(images)
        if name == "Equalize":
            return tensor(equalize(images))
        if name == "Posterize":
            return tensor(posterize(images, 8 - round(4 * self.strength)))
        if name == "Solarize":
            return tensor(solarize(images, 1.0 - self.strength))
        factor = factors(1.0 + signs * 0.9 * self.strength, images)
        if name in _BLENDING:
            return _BLENDING[name](images, factor)
        return (
            images
            if min(images.shape[-2:]) < 3
            else in_colour(images, lambda three: sharpness(three, factor))
        )


def _stretched(images: Tensor) -> Tensor:
    """Each channel stretched to 0..1 from its least and greatest value; even ones as they are."""
    least, most = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    spread = most - least
    return torch.where(spread > 0, (images - least) / spread.clamp(min=1e-12), images)
