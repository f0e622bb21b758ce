"""`mnist` and `fashion-mnist` from their published files: idx, plain or packed with gzip."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data.in_memory import ArraySamples, array_fingerprint
from cnnspec.training.data.packed import damaged, folder_of, read_file
from cnnspec.training.data.samples import Dataset

__all__ = ["FASHION", "MNIST", "open_mnist"]

MNIST = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""The classes, in the order of their numbers."""

_UBYTE = 0x08
_MOST = 2**31
_BELOW = ("", "raw", "MNIST/raw", "FashionMNIST/raw")
"""Where files are: in the folder itself, or where torchvision puts them."""


def open_mnist(path: str | None, source: str) -> Dataset:
    """60,000 images to train with and 10,000 held out, 28x28, of the four files in a folder.

    Raises `EnvironmentFailure`, naming the file, for what is not there or not what it has to be.
    """
    title, classes = ("MNIST", MNIST) if source == "mnist" else ("Fashion-MNIST", FASHION)
    folder = folder_of(path, title, source)
    train = _part(folder, "train", len(classes), title)
    held_out = _part(folder, "t10k", len(classes), title)
    return Dataset(
        name=source,
        train=train,
        held_out=held_out,
        classes=classes,
        fingerprint=array_fingerprint(train, held_out),
        description=f"{title} of `{path}`",
    )


def _part(folder: Path, part: str, classes: int, title: str) -> ArraySamples:
    images_file = _find(folder, f"{part}-images", 3, title)
    labels_file = _find(folder, f"{part}-labels", 1, title)
    images, labels = _idx(images_file, 3), _idx(labels_file, 1)
    if len(images) != len(labels):
        raise damaged(
            labels_file, f"it has {len(labels):,} classes, `{images_file}` {len(images):,} images"
        )
    if not images.size:
        raise damaged(images_file, "it holds no images")
    if labels.max() >= classes:
        raise damaged(labels_file, f"it holds class {labels.max()} of {classes}")
    places = np.arange(len(images), dtype=np.int64)
    return ArraySamples(images, labels.astype(np.int64), str(images_file), places)


def _find(folder: Path, stem: str, axes: int, title: str) -> Path:
    wanted = f"{stem}-idx{axes}-ubyte"
    for below in _BELOW:
        for name in (wanted, f"{stem}.idx{axes}-ubyte"):
            for suffix in ("", ".gz"):
                path = folder / below / f"{name}{suffix}"
                if path.is_file():
                    return path
    raise EnvironmentFailure(
        f"`{folder}` has no file `{wanted}`, plain or as `.gz`",
        help=f"{title} is four files: images and labels, of `train` and of `t10k`",
    )


def _idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """An array of bytes: two zeros, its type, how many axes, their sizes (32 bits), its values."""
    content = read_file(path, _MOST)
    header = 4 * (1 + axes)
    if len(content) < header:
        raise damaged(path, "it is truncated")
    magic, *sizes = struct.unpack(f">{1 + axes}I", content[:header])
    if magic != (_UBYTE << 8) + axes:
        raise damaged(
            path, f"it begins with {magic:#010x}, where {(_UBYTE << 8) + axes:#010x} has to be"
        )
    values = 1
    for size in sizes:
        values *= size
    if len(content) - header != values:
        raise damaged(
            path, f"it has {len(content) - header:,} bytes of data, its head says {values:,}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(sizes)
