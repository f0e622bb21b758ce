"""`random`: samples of any shape made of nothing, for benchmarks and trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.training.data.samples import Dataset, Target
from cnnspec.training.recipe.model import Data

__all__ = ["RandomSamples", "open_random"]

_MANY = 1024
_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True)
class RandomSamples:
    """`count` images of noise, HxW; each is a function of `seed` and its number behind `first`.

    Classes take turns, so that there are equally many of each.
    """

    count: int
    height: int
    width: int
    classes: int
    seed: int
    first: int

    def __len__(self) -> int:
        return self.count

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        channels = 1 if mode == "L" else 3
        size = self.height * self.width * channels
        key = np.array([self.seed & _WORD, self.first + number], dtype=np.uint64)
        bits = np.random.Philox(key=key).random_raw(-(-size // 8))
        pixels = bits.astype("<u8", copy=False).view(np.uint8)[:size]
        shape = (self.height, self.width) if channels == 1 else (self.height, self.width, 3)
        return Image.fromarray(pixels.reshape(shape)), number % self.classes

    def label(self, number: int) -> str:
        """See `Samples`."""
        return f"random, image {self.first + number}"

    def targets(self) -> Sequence[int]:
        """See `Samples`."""
        return [number % self.classes for number in range(self.count)]


def open_random(data: Data, shape: tuple[int, ...], seed: int, classes: int | None) -> Dataset:
    """Noise for an input of `shape` (CxHxW): `data.samples`, 1,024 where nobody says how many.

    `data.classes` come before `classes`, those of the network. Another `data.hold_out` of that many
    are held out. Raises `EnvironmentFailure` for inputs that are no images.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise EnvironmentFailure(
            f"random images have 1 or 3 channels, a height and a width; the input is "
            f"{shape_text(shape)}"
        )
    many = classes if data.classes is None else data.classes
    if many is None:
        raise EnvironmentFailure(
            "the number of classes of random images is not given", help="set `data.classes`"
        )
    count = _MANY if data.samples is None else data.samples
    rest = int(count * data.hold_out + 0.5)
    _, height, width = shape
    train = RandomSamples(count, height, width, many, seed, 0)
    held_out = RandomSamples(rest, height, width, many, seed, count) if rest else None
    said = repr((count, rest, shape, many, seed & _WORD))
    return Dataset(
        name="random",
        train=train,
        held_out=held_out,
        classes=(),
        fingerprint=sha256(said.encode()).hexdigest(),
        description=f"noise, {height}x{width}",
    )
