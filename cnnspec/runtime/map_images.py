"""Maps of classes as PNG images, a colour for each class."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from cnnspec.runtime.preparing import Array

__all__ = ["PALETTE", "png"]

_BITS = 8


def _colours() -> list[int]:
    """Red, green and blue of 256 classes, as of PASCAL VOC: black, maroon, green, olive, navy...

    The bits of a class, three at a time, are the highest bits left of the three colours.
    """
    found = []
    for index in range(1 << _BITS):
        channels = [0, 0, 0]
        for bit in range(_BITS):
            level, channel = divmod(bit, 3)
            channels[channel] |= (index >> bit & 1) << (_BITS - 1 - level)
        found += channels
    return found


PALETTE = tuple(_colours())
"""Red, green and blue of class 0, of class 1, and so on to 255."""


def png(classes: Array) -> bytes:
    """A map (HxW, whole numbers) as a PNG file: its pixels are the classes, shown in colours.

    With more than 256 classes pixels are 16-bit greyscale.
    """
    image = Image.fromarray(classes)
    if classes.dtype == np.uint8:
        image = Image.frombytes("P", image.size, np.ascontiguousarray(classes).tobytes())
        image.putpalette(list(PALETTE))
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
