"""Calls that give images their size: in workers, on single images of Pillow, before they are bytes.

Masks of classes are cut and resized along, by their nearest pixels. What leaves an image its size
may not enter, nor may torch: workers start fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.runtime.preparing import LARGEST_PIXELS, Preparation, start
from cnnspec.training.augmentation.philox import Keys
from cnnspec.training.augmentation.rectangles import ATTEMPTS, rectangles, sides, whole
from cnnspec.training.data.samples import IGNORED
from cnnspec.training.recipe.model import Call

__all__ = ["Cropping", "sizing"]

_SIZED = ("RandomResizedCrop", "Resize", "CenterCrop")
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

Array = NDArray[Any]
Size = tuple[int, int]
Outside = Literal["constant", "edge", "reflect"]


def sizing(calls: Sequence[Call]) -> frozenset[int]:
    """The places of the calls that run in workers.

    They are `RandomResizedCrop`, `Resize` and `CenterCrop`, `RandomCrop` without `padding`, and
    any `RandomCrop` where there is one of those.
    """
    crops = {place for place, call in enumerate(calls) if call.name == "RandomCrop"}
    found = {place for place, call in enumerate(calls) if call.name in _SIZED}
    found |= {place for place in crops if calls[place].arguments.get("padding") is None}
    return frozenset(found | crops if found else ())


@dataclass(frozen=True, slots=True)
class Cropping:
    """From a decoded image to the bytes that training changes further.

    `calls` are those of a recipe that give images their size, with their places among all. Whatever
    comes out of them has its middle cut to the size that the network takes, black where it is
    smaller. It can be sent to other processes.
    """

    calls: tuple[tuple[int, Call], ...]
    preparation: Preparation
    seed: int

    @classmethod
    def of(cls, calls: Sequence[Call], preparation: Preparation, seed: int) -> Cropping | None:
        """For all calls of a recipe; None where none of them gives images a size.

        Raises `EnvironmentFailure` where the last one gives a size that the network does not take.
        """
        found = tuple((place, calls[place]) for place in sorted(sizing(calls)))
        if not found:
            return None
        last = found[-1][1]
        size = _size(last.arguments["size"])
        wanted = tuple(has or given for has, given in zip(preparation.size, size, strict=True))
        if last.name != "Resize" and size != wanted:
            raise EnvironmentFailure(
                f"`{last.name}` makes images of {shape_text(size)}, the network takes "
                f"{shape_text(wanted)}"
            )
        return cls(found, preparation, seed)

    def __call__(self, image: Image.Image, epoch: int, sample: int) -> Array:
        """An image in the mode of the preparation as uint8, CxHxW."""
        return self.both(image, None, epoch, sample)[0]

    def both(
        self, image: Image.Image, mask: Array | None, epoch: int, sample: int
    ) -> tuple[Array, Array | None]:
        """The same of an image and its mask: uint8 CxHxW, and int64 HxW from uint8 of one size.

        What lies outside the image is 255 in the mask: it does not count.
        """
        layers = [_Layer(image)]
        if mask is not None:
            # The other way round, as what lies outside an image is filled with zeros.
            layers.append(_Layer(Image.fromarray(IGNORED - mask), mask=True))
        for place, call in self.calls:
            keys = Keys(self.seed, epoch, np.asarray([sample]), place)
            change = _CHANGES[call.name](call.arguments, image.size[::-1], keys)
            layers = [change(layer) for layer in layers]
            image = layers[0].image
        height, width = self.preparation.size
        tall, wide = height or image.height, width or image.width
        arrays = [np.asarray(layer.cut(*_middle(image, tall, wide)).image) for layer in layers]
        pixels = arrays[0] if arrays[0].ndim == 3 else arrays[0][..., None]
        if pixels.shape[2] != self.preparation.channels:
            pixels = np.repeat(pixels, self.preparation.channels, axis=2)
        made = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return made, (IGNORED - arrays[1].astype(np.int64) if mask is not None else None)


@dataclass(frozen=True, slots=True)
class _Layer:
    """An image, or the mask that goes with it."""

    image: Image.Image
    mask: bool = False

    def resized(self, height: int, width: int, interpolation: str) -> _Layer:
        if self.image.size == (width, height):
            return self
        if height * width > LARGEST_PIXELS:
            raise EnvironmentFailure(
                f"it would be resized to {shape_text((height, width))}, which is more than "
                f"{LARGEST_PIXELS:,} pixels"
            )
        way = _RESAMPLING["nearest" if self.mask else interpolation]
        return replace(self, image=self.image.resize((width, height), way))

    def cut(self, top: int, left: int, height: int, width: int) -> _Layer:
        """A part; Pillow fills what lies outside with zeros."""
        if (top, left) == (0, 0) and self.image.size == (width, height):
            return self
        return replace(self, image=self.image.crop((left, top, left + width, top + height)))

    def padded(self, around: tuple[int, int, int, int], outside: Outside, fill: float) -> _Layer:
        """Left, top, right and bottom; outside of a mask nothing counts, unless it repeats."""
        if not any(around):
            return self
        left, top, right, bottom = around
        pixels = np.asarray(self.image)
        widths = [(top, bottom), (left, right), (0, 0)][: pixels.ndim]
        if outside == "constant":
            value = 0 if self.mask else round(fill)
            pixels = np.pad(pixels, widths, constant_values=value)
        else:
            pixels = np.pad(pixels, widths, outside)
        return replace(self, image=Image.fromarray(pixels))


_Move = Callable[[_Layer], _Layer]


def _middle(image: Image.Image, tall: int, wide: int) -> tuple[int, int, int, int]:
    return start(image.height, tall), start(image.width, wide), tall, wide


def _size(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _resize(said: Mapping[str, Any], size: Size, keys: Keys) -> _Move:
    wanted, (tall, wide) = said["size"], size
    if not isinstance(wanted, int):
        tall, wide = wanted
    elif wide <= tall:
        tall, wide = int(wanted * tall / wide), wanted
    else:
        tall, wide = wanted, int(wanted * wide / tall)
    way = said.get("interpolation", "bilinear")
    return lambda layer: layer.resized(tall, wide, way)


def _centre(said: Mapping[str, Any], size: Size, keys: Keys) -> _Move:
    wanted = _size(said["size"])
    return lambda layer: layer.cut(*_middle(layer.image, *wanted))


def _crop(said: Mapping[str, Any], size: Size, keys: Keys) -> _Move:
    wanted, (left, top, right, bottom) = _size(said["size"]), sides(said.get("padding"))
    short = [
        max(0, want - length)
        for want, length in zip(
            wanted, (size[0] + top + bottom, size[1] + left + right), strict=True
        )
    ]
    # Too small an image is padded on both sides, the odd pixel behind.
    top, bottom = top + short[0] // 2, bottom + short[0] - short[0] // 2
    left, right = left + short[1] // 2, right + short[1] - short[1] // 2
    free = np.asarray((size[0] + top + bottom, size[1] + left + right), np.int64) - wanted
    down, across = (int(value) for value in whole(keys.uniform(2), free + 1)[0])
    outside, fill = said.get("padding_mode", "constant"), said.get("fill", 0.0)
    if outside == "reflect" and (max(top, bottom) >= size[0] or max(left, right) >= size[1]):
        raise EnvironmentFailure(
            f"`RandomCrop` reflects {max(left, top, right, bottom)} pixels, the image has "
            f"{shape_text(size)}"
        )
    around = left, top, right, bottom
    return lambda layer: layer.padded(around, outside, fill).cut(down, across, *wanted)


def _resized_crop(said: Mapping[str, Any], size: Size, keys: Keys) -> _Move:
    """Szegedy and others, Going Deeper with Convolutions (2014), section 6; as torchvision has it.

    Where ten attempts do not fit, the middle is taken, as much as the ratios allow.
    """
    wanted, ratio = _size(said["size"]), tuple(said.get("ratio", (3 / 4, 4 / 3)))
    drawn = keys.uniform(2 + 2 * ATTEMPTS)
    # The ratio is that of width to height.
    wide, tall = rectangles(
        drawn[:, 2:].reshape(1, ATTEMPTS, 2),
        (size[1], size[0]),
        tuple(said.get("scale", (0.08, 1.0))),
        ratio,
        full=True,
    )[0]
    if wide:
        part = np.asarray((tall, wide))
        top, left = whole(drawn[0, :2], np.asarray(size) - part + 1)
    else:
        has = size[1] / size[0]
        tall, wide = size
        if has < ratio[0]:
            tall = round(wide / ratio[0])
        elif has > ratio[1]:
            wide = round(tall * ratio[1])
        top, left = (size[0] - tall) // 2, (size[1] - wide) // 2
    box = int(top), int(left), int(tall), int(wide)
    way = said.get("interpolation", "bilinear")
    return lambda layer: layer.cut(*box).resized(*wanted, way)


_CHANGES: Mapping[str, Callable[[Mapping[str, Any], Size, Keys], _Move]] = {
    "Resize": _resize,
    "CenterCrop": _centre,
    "RandomCrop": _crop,
    "RandomResizedCrop": _resized_crop,
}
