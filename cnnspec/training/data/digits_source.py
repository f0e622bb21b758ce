"""`digits`: 1,797 handwritten digits that come with cnnspec; see `digits/ATTRIBUTION.md`."""

from __future__ import annotations

import gzip
from importlib.resources import files

import numpy as np

from cnnspec.training.data.in_memory import ArraySamples, array_fingerprint
from cnnspec.training.data.samples import Dataset

__all__ = ["HELD_OUT", "open_digits"]

HELD_OUT = 5
"""Every fifth image is held out, the first among them."""

_SIDE = 8
_DARKEST = 16


def open_digits() -> Dataset:
    """The digits as 8-bit greyscale images, ink white: 1,437 to train with and 360 held out."""
    packed = files("cnnspec.training.data").joinpath("digits/digits.csv.gz").read_bytes()
    lines = gzip.decompress(packed).split()
    numbers = np.array([line.split(b",") for line in lines]).astype(np.uint8)
    steps = numbers[:, :-1].astype(np.uint16).reshape(-1, _SIDE, _SIDE)
    images = ((steps * 255 * 2 + _DARKEST) // (2 * _DARKEST)).astype(np.uint8)
    whole = ArraySamples(
        images, numbers[:, -1].astype(np.int64), "digits", np.arange(len(lines), dtype=np.int64)
    )
    held_out = whole.places % HELD_OUT == 0
    train, rest = whole.taken(~held_out), whole.taken(held_out)
    return Dataset(
        name="digits",
        train=train,
        held_out=rest,
        classes=tuple("0123456789"),
        fingerprint=array_fingerprint(train, rest),
        description="handwritten digits of the UCI repository, 8x8, every fifth held out",
    )
