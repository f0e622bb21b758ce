"""What every source of samples is. How samples become batches is `loading`.

Needs no torch to be imported, so that samples can be read without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch

__all__ = ["IGNORED", "Batch", "Dataset", "Samples", "Target"]

IGNORED = 255
"""In a map of classes, the position that does not count (Pascal VOC's border)."""

Target = int | NDArray[Any]
"""A class by its number; of segmentation a map of classes, HxW of uint8, or `IGNORED`."""


class Samples(Protocol):
    """Samples by number, to be read in any process: it has to be picklable, and small.

    `read` raises `ImageFailure` (`cnnspec.runtime.images`) for what cannot be used.
    """

    def __len__(self) -> int:
        """How many there are."""

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """The image in Pillow's `mode` (`RGB` or `L`), not resized, and what it is."""

    def label(self, number: int) -> str:
        """What users call a sample: its file, or its place in one."""

    def targets(self) -> Sequence[int] | None:
        """The classes of all of them without reading images; None where that cannot be."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples to train with and samples held out, and what is known about them.

    `classes` are names, empty where none are known. `fingerprint` is a SHA-256 that changes with
    the samples (names, sizes, order): a resume has to find the same.
    """

    name: str
    train: Samples
    held_out: Samples | None
    classes: tuple[str, ...]
    fingerprint: str
    description: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one step on one process.

    `images` are NxCxHxW, uint8 where they are augmented and normalised later on the device, and
    float32 where they are prepared already (evaluation). `targets` are int64: N, or NxHxW.
    `samples` are the numbers of the samples (N, int64, CPU).
    """

    images: torch.Tensor
    targets: torch.Tensor
    samples: torch.Tensor
