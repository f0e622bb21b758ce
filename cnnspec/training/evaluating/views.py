"""Several views of one image, over which a network's answers are averaged: mirrored, ten crops.

Images and arrays alone; networks may not enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.runtime.preparing import Array, Preparation

__all__ = ["Views"]


@dataclass(frozen=True, slots=True)
class Views:
    """Which views there are.

    With `ten` the four corners and the middle of the resized image, in the network's size, and
    those of its mirror image (Krizhevsky et al. 2012, section 4.1), as torchvision cuts them. With
    `flip` the image as usual and its mirror image. Neither: the image as usual.
    """

    ten: bool = False
    flip: bool = False

    @property
    def mirrored(self) -> tuple[bool, ...]:
        """For each view whether it is a mirror image."""
        if self.ten:
            return (False,) * 5 + (True,) * 5
        return (False, True) if self.flip else (False,)

    def check(self, preparation: Preparation) -> None:
        """Raise `EnvironmentFailure` where a network's images have no such views."""
        if self.ten and preparation.in_graph == "full":
            raise EnvironmentFailure(
                "--ten-crop cuts images itself, and this file does so too",
                help="export it without `--preprocess full`",
            )
        if self.ten and (preparation.preprocess.resize is None or None in preparation.size):
            raise EnvironmentFailure(
                "--ten-crop needs to know the size that images are cut from, and to",
                help="say `resize` and `crop` in the spec's `preprocess`",
            )

    def arrays(self, image: Image.Image, preparation: Preparation) -> tuple[Array, ...]:
        """The array of each view of a decoded image. Raises `EnvironmentFailure`."""
        if not self.ten:
            whole = preparation(image)
            across = 1 if preparation.channels_last else 2
            return (whole, np.ascontiguousarray(np.flip(whole, across))) if self.flip else (whole,)
        resized = preparation.resized(image)
        both = (resized, ImageOps.mirror(resized))
        return tuple(preparation.array(crop) for each in both for crop in _five(each, preparation))


def _five(image: Image.Image, preparation: Preparation) -> list[Image.Image]:
    height, width = (size or 0 for size in preparation.size)
    if image.height < height or image.width < width or image.size == (width, height):
        raise EnvironmentFailure(
            f"ten crops of {shape_text((height, width))} cannot be cut from "
            f"{shape_text((image.height, image.width))}",
            help="a larger `resize` in the spec's `preprocess` leaves something to cut",
        )
    below, beside = image.height - height, image.width - width
    places = [
        (0, 0),
        (0, beside),
        (below, 0),
        (below, beside),
        (round(below / 2), round(beside / 2)),
    ]
    return [image.crop((left, top, left + width, top + height)) for top, left in places]
