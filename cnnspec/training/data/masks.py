"""Maps of classes: read, and moved with their images."""

from __future__ import annotations

import warnings
from dataclasses import replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Preprocess
from cnnspec.runtime.images import ImageFailure, ImageSource
from cnnspec.runtime.preparing import LARGEST_PIXELS, Preparation
from cnnspec.training.data.samples import IGNORED

__all__ = ["prepared_mask", "read_mask", "refuse_other_size"]


def read_mask(source: ImageSource, classes: int | None) -> NDArray[np.uint8]:
    """A map of classes, HxW: the numbers of a palette (as of Pascal VOC), of greys, or of bits.

    Raises `ImageFailure` for what holds colours, and for classes of `classes` and more that are not
    `IGNORED`.
    """
    content = source.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(content), formats=["PNG", "BMP", "GIF", "TIFF"])
            if image.width * image.height > LARGEST_PIXELS:
                raise ImageFailure(source.name, f"it has more than {LARGEST_PIXELS:,} pixels")
            image.load()
    except ImageFailure:
        raise
    except Exception:  # Pillow's decoders raise whatever they stumble over
        raise ImageFailure(source.name, "it is no mask, or damaged") from None
    if image.mode not in ("P", "L", "1", "I;16", "I"):
        raise ImageFailure(source.name, "its pixels are colours, where a mask has classes")
    pixels = np.asarray(image)
    largest = int(pixels.max(initial=0, where=pixels != IGNORED))
    if largest > IGNORED or (classes is not None and largest >= classes):
        of = "" if classes is None else f" of {classes}"
        raise ImageFailure(source.name, f"it holds class {largest}{of}")
    return pixels.astype(np.uint8)


def refuse_other_size(mask: NDArray[np.uint8], size: tuple[int, int]) -> None:
    """Raise `EnvironmentFailure` where a mask is not of its image's `size` (width, height)."""
    if mask.shape != (size[1], size[0]):
        raise EnvironmentFailure(
            f"its mask has {mask.shape[1]}x{mask.shape[0]} pixels, the image {size[0]}x{size[1]}"
        )


def prepared_mask(mask: NDArray[np.uint8], preparation: Preparation) -> NDArray[np.int64]:
    """A mask as `preparation` moves its image; classes do not mix.

    What lies beside the image is `IGNORED`.
    """
    said = preparation.preprocess
    moves = replace(
        preparation,
        preprocess=Preprocess(
            resize=said.resize, crop=said.crop, interpolation="nearest", colour="grey"
        ),
        channels=1,
        dtype="uint8",
        channels_last=False,
    )
    # Cropping fills with zeros, so IGNORED has to be zero on the way.
    turned = moves(Image.fromarray(IGNORED - mask))
    return np.asarray(IGNORED - turned[0].astype(np.int64))
