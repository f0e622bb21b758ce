"""Samples read, prepared and stacked: the part of loading that runs in worker processes.

Everything here is a function of the numbers asked for; there is no random state. What cannot be
read comes back as a value, since exceptions do not survive the way between processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.runtime.images import ImageFailure
from cnnspec.runtime.preparing import Array, Preparation
from cnnspec.training.data.masks import prepared_mask, refuse_other_size
from cnnspec.training.data.samples import Samples, Target

__all__ = ["Crop", "Failed", "Key", "Part", "Reader", "Remark"]

_MOST_REPLACED = 100
"""Unreadable images in a row, after which it is not the images that are to blame."""


class Crop(Protocol):
    """Random geometry of training images, `cnnspec.training.augmentation.cropping.Cropping`."""

    def both(
        self, image: Image.Image, mask: Array | None, epoch: int, sample: int
    ) -> tuple[Array, Array | None]:
        """Of an image in the mode of the preparation uint8, CxHxW, and of its mask int64, HxW."""


class Key(NamedTuple):
    """What is asked of a worker: samples by their numbers, as they are in `epoch`."""

    epoch: int
    numbers: NDArray[np.int64]


class Remark(NamedTuple):
    """A sample that was skipped, and why."""

    name: str
    reason: str


class Part(NamedTuple):
    """Samples read: see `Batch`, and what was skipped among them."""

    images: torch.Tensor
    targets: torch.Tensor
    samples: torch.Tensor
    remarks: list[Remark]


class Failed(NamedTuple):
    """Why samples could not be read."""

    message: str
    help: str


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads parts of batches.

    For training (`evaluate` false) images are uint8, and the place of one that is skipped is taken
    by the next sample that can be read, so that every batch has its size; in evaluation they are
    float32 as `preparation` makes them, and what is skipped is missing.
    """

    samples: Samples
    preparation: Preparation
    crop: Crop | None
    evaluate: bool
    corrupt: Literal["fail", "skip"]

    def __call__(self, key: Key) -> Part | Failed:
        """The samples of `key`, or why not."""
        images: list[Array] = []
        targets: list[Target] = []
        kept: list[int] = []
        remarks: list[Remark] = []
        try:
            for number in map(int, key.numbers):
                found = self._readable(key.epoch, number, remarks)
                if found is not None:
                    images.append(found[0])
                    targets.append(found[1])
                    kept.append(number)
            return Part(self._stacked(images), _targets(targets), _numbers(kept), remarks)
        except EnvironmentFailure as failure:
            return Failed(failure.message, failure.help)

    def empty(self) -> Part:
        """A part of no samples."""
        return Part(self._stacked([]), _targets([]), _numbers([]), [])

    def one(self, epoch: int, number: int) -> tuple[Array, Target]:
        """A sample. Raises `ImageFailure`."""
        image, target = self.samples.read(number, self.preparation.mode)
        mask = target if isinstance(target, np.ndarray) else None
        try:
            if mask is not None:
                refuse_other_size(mask, image.size)
            if self.crop is not None:
                pixels, moved = self.crop.both(image, mask, epoch, number)
            else:
                geometry = self._geometry()
                pixels = geometry(image)
                moved = None if mask is None else prepared_mask(mask, geometry)
        except EnvironmentFailure as failure:
            raise ImageFailure(self.samples.label(number), failure.message) from None
        return pixels, target if moved is None else moved

    def _geometry(self) -> Preparation:
        if self.evaluate:
            return self.preparation
        return replace(self.preparation, dtype="uint8", channels_last=False)

    def _readable(
        self, epoch: int, number: int, remarks: list[Remark]
    ) -> tuple[Array, Target] | None:
        count = len(self.samples)
        for step in range(min(count, _MOST_REPLACED)):
            try:
                return self.one(epoch, (number + step) % count)
            except ImageFailure as failure:
                if self.corrupt == "fail":
                    raise EnvironmentFailure(
                        failure.message, help="`--with data.corrupt=skip` leaves such images out"
                    ) from None
                remarks.append(Remark(failure.name, failure.reason))
                if self.evaluate:
                    return None
        name, reason = remarks[-1]
        raise EnvironmentFailure(
            f"no image of {min(count, _MOST_REPLACED)} in a row can be used, the last of them "
            f"`{name}`: {reason}"
        )

    def _stacked(self, images: Sequence[Array]) -> torch.Tensor:
        if not images:
            height, width = self.preparation.size
            shape = (0, self.preparation.channels, height or 1, width or 1)
            return torch.empty(shape, dtype=torch.float32 if self.evaluate else torch.uint8)
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            small, large, *_ = sorted(shapes)
            raise EnvironmentFailure(
                f"images of one batch have different sizes, {shape_text(small)} and "
                f"{shape_text(large)}",
                help="say `resize` in the spec's `preprocess`",
            )
        return torch.from_numpy(np.stack(images))


def _targets(targets: Sequence[Target]) -> torch.Tensor:
    if targets and isinstance(targets[0], np.ndarray):
        return torch.from_numpy(np.stack(targets).astype(np.int64, copy=False))
    return torch.tensor(targets, dtype=torch.int64)


def _numbers(kept: list[int]) -> torch.Tensor:
    return torch.tensor(kept, dtype=torch.int64)
