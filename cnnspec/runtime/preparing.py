"""How an image becomes the input of a network: resized, cropped, scaled, normalised.

To the bit what torchvision's transforms do to images of Pillow. Files may not enter: images come
decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.metadata import InGraph, Preprocess

__all__ = ["LARGEST_PIXELS", "Array", "Preparation", "preparation", "start"]

Array = NDArray[Any]

LARGEST_PIXELS = 178_956_970
"""Pixels of an image before and after resizing; more is an attack, Pillow says too."""

_BYTE = 1 / 255
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
_TYPES = ("float32", "float16", "float64", "uint8")


@dataclass(frozen=True, slots=True)
class Preparation:
    """From a decoded image to the array of one sample.

    `size` is the height and width that the network takes, None where it takes any. `assumed` says
    that nobody told how images are prepared: they are resized to `size` and scaled to 0..1.
    """

    preprocess: Preprocess
    in_graph: InGraph
    channels: int
    size: tuple[int | None, int | None]
    dtype: str
    channels_last: bool
    assumed: bool = False

    @property
    def mode(self) -> str:
        """Pillow's mode of the images it takes: `L` or `RGB`."""
        return "L" if self.channels == 1 or self.preprocess.colour == "grey" else "RGB"

    def __call__(self, image: Image.Image) -> Array:
        """The array of an image of `mode`: CxHxW, or HxWxC where the network takes that.

        Raises `EnvironmentFailure` for sizes that nobody wants.
        """
        if self.in_graph == "full":
            return self.array(self._exactly(image))
        return self.array(self._cropped(self.resized(image)))

    def resized(self, image: Image.Image) -> Image.Image:
        """An image in its size before the middle is cut out of it.

        Raises `EnvironmentFailure` for sizes that nobody wants.
        """
        said = self.preprocess
        if said.resize is None:
            return self._exactly(image) if said.crop is None else image
        if isinstance(said.resize, tuple):
            return self._to(image, *said.resize)
        width, height = image.size
        if width <= height:
            return self._to(image, int(said.resize * height / width), said.resize)
        return self._to(image, said.resize, int(said.resize * width / height))

    def array(self, image: Image.Image) -> Array:
        """The array of an image of `mode` in its final size: scaled, normalised, laid out."""
        bytes_ = np.asarray(image)
        if bytes_.ndim == 2:
            bytes_ = np.repeat(bytes_[..., None], self.channels, axis=2)
        if self.dtype == "uint8":
            return self._laid(bytes_)
        return self._laid(self._normalised(bytes_)).astype(self.dtype, copy=False)

    def _laid(self, pixels: Array) -> Array:
        return np.ascontiguousarray(pixels if self.channels_last else pixels.transpose(2, 0, 1))

    def _normalised(self, pixels: Array) -> Array:
        said = self.preprocess
        # A byte over 255 in float32, as torchvision has it, is not always the byte times 1/255.
        scaled = pixels.astype(np.float32)
        if said.scale == _BYTE:
            scaled /= np.float32(255)
        else:
            scaled *= np.float32(said.scale)
        if self.in_graph != "none":
            return scaled
        if said.colour == "bgr":
            scaled = scaled[..., ::-1]
        mean, std = (np.asarray(each, np.float32) for each in (said.mean, said.std))
        return np.asarray((scaled - mean) / std)

    # ---------------------------------------------------------------------------------- geometry

    def _exactly(self, image: Image.Image) -> Image.Image:
        """`image` in the size that the network takes, whatever becomes of its proportions."""
        width, height = image.size
        return self._to(image, self.size[0] or height, self.size[1] or width)

    def _to(self, image: Image.Image, height: int, width: int) -> Image.Image:
        if image.size == (width, height):
            return image
        _refuse_larger(height, width)
        return image.resize((width, height), _RESAMPLING[self.preprocess.interpolation])

    def _cropped(self, image: Image.Image) -> Image.Image:
        if self.preprocess.crop is not None:
            image = _centre(image, *self.preprocess.crop)
        height, width = self.size
        return _centre(image, height or image.height, width or image.width)


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of an image; where it is too small, with black around it."""
    if image.size == (width, height):
        return image
    _refuse_larger(height, width)
    top, left = start(image.height, height), start(image.width, width)
    # Pillow fills what lies outside with zeros.
    return image.crop((left, top, left + width, top + height))


def _refuse_larger(height: int, width: int) -> None:
    if height * width > LARGEST_PIXELS:
        raise EnvironmentFailure(
            f"the network takes it at {shape_text((height, width))}, which is more than "
            f"{LARGEST_PIXELS:,} pixels"
        )


def start(size: int, wanted: int) -> int:
    """Where the middle begins, negative where `size` is too small. Rounds as torchvision does."""
    return -((wanted - size) // 2) if wanted > size else round((size - wanted) / 2.0)


def preparation(
    preprocess: Preprocess | Mapping[str, object] | None,
    shape: Sequence[int | str | None],
    *,
    dtype: str = "float32",
    in_graph: InGraph = "none",
) -> Preparation:
    """How images become an input of `shape`, the batch first: NxCxHxW, or NxHxWxC.

    `preprocess` is what a spec or file says, `in_graph` how much of it the network does itself
    (see `ModelMetadata`). Without any, images are resized to the input's size and scaled to 0..1.

    What is said comes first. Where there is then no `crop`, the middle of the size that the network
    takes is kept, and without a `resize` too the image is resized to that size.

    Raises `EnvironmentFailure` for an input that is no image.
    """
    said = preprocess if isinstance(preprocess, Preprocess) else Preprocess.of(preprocess or {})
    last = in_graph == "full" or (len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3))
    if len(shape) != 4 or dtype not in _TYPES:
        raise _no_image(shape, dtype)
    channels, height, width = (
        (shape[3], shape[1], shape[2]) if last else (shape[1], shape[2], shape[3])
    )
    if preprocess is None and channels == 1:
        said = replace(said, colour="grey")
    if channels not in (1, 3):
        raise _no_image(shape, dtype)
    if channels == 1 and said.colour != "grey":
        if len(said.mean) > 1 or len(said.std) > 1:
            raise EnvironmentFailure(
                f"images in {said.colour} do not fit an input of 1 channel",
                help="say `colour: grey` in the spec's `preprocess`",
            )
        said = replace(said, colour="grey")
    return Preparation(
        preprocess=said,
        in_graph=in_graph,
        channels=int(channels),
        size=(_fixed(height), _fixed(width)),
        dtype=dtype,
        channels_last=last,
        assumed=preprocess is None,
    )


def _fixed(size: int | str | None) -> int | None:
    return size if isinstance(size, int) and size > 0 else None


def _no_image(shape: Sequence[int | str | None], dtype: str) -> EnvironmentFailure:
    sizes = " x ".join("?" if size is None else str(size) for size in shape) or "scalar"
    return EnvironmentFailure(
        f"the input is {sizes} of {dtype or 'an unknown type'}, which no image becomes"
    )
