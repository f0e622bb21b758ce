"""Samples whose pixels are at hand, and choices of any samples. Nothing is read here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.training.data.random_source import RandomSamples
from cnnspec.training.data.samples import Samples, Target

__all__ = ["ArraySamples", "Subset", "array_fingerprint", "is_at_hand"]


@dataclass(frozen=True, slots=True, eq=False)
class ArraySamples:
    """Images of one size in memory.

    `images` are uint8, NxHxW or NxHxWx3, `classes` N numbers. `file` is what users call the place
    they came from, `places` their numbers in it.
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.int64]
    file: str
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        return Image.fromarray(self.images[number]).convert(mode), int(self.classes[number])

    def label(self, number: int) -> str:
        """See `Samples`."""
        return f"{self.file}, image {self.places[number]}"

    def targets(self) -> Sequence[int]:
        """See `Samples`."""
        return [int(each) for each in self.classes]

    def taken(self, chosen: NDArray[Any]) -> ArraySamples:
        """Those that `chosen` says, by number or one truth for each."""
        return ArraySamples(
            self.images[chosen], self.classes[chosen], self.file, self.places[chosen]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Subset:
    """Some of `whole`, by their numbers there."""

    whole: Samples
    numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        return self.whole.read(int(self.numbers[number]), mode)

    def label(self, number: int) -> str:
        """See `Samples`."""
        return self.whole.label(int(self.numbers[number]))

    def targets(self) -> Sequence[int] | None:
        """See `Samples`."""
        known = self.whole.targets()
        return None if known is None else [known[number] for number in self.numbers]


def is_at_hand(samples: Samples) -> bool:
    """Whether reading a sample neither waits for a disk nor decodes."""
    if isinstance(samples, Subset):
        return is_at_hand(samples.whole)
    return isinstance(samples, (ArraySamples, RandomSamples))


def array_fingerprint(*parts: ArraySamples | None) -> str:
    """A SHA-256 of all pixels and classes, in their order."""
    found = sha256()
    for part in parts:
        if part is not None:
            found.update(repr(part.images.shape).encode())
            found.update(np.ascontiguousarray(part.images).data)
            found.update(np.ascontiguousarray(part.classes, dtype="<i8").data)
    return found.hexdigest()
