"""Sources of samples by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean
from cnnspec.training.data.digits_source import open_digits
from cnnspec.training.data.samples import Dataset
from cnnspec.training.recipe.model import Data

__all__ = ["SOURCES", "open_dataset"]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What whoever opens a source knows."""

    data: Data
    shape: tuple[int, ...]
    seed: int
    classes: int | None


def _digits(asked: _Asked) -> Dataset:
    return open_digits()


def _images(asked: _Asked) -> Dataset:
    from cnnspec.training.data.folders import open_images

    return open_images(asked.data, asked.classes)


def _mnist(asked: _Asked) -> Dataset:
    from cnnspec.training.data.mnist import open_mnist

    return open_mnist(asked.data.path, asked.data.source)


def _cifar(asked: _Asked) -> Dataset:
    from cnnspec.training.data.cifar import open_cifar

    return open_cifar(asked.data.path, asked.data.source, asked.data.label)


def _hub(asked: _Asked) -> Dataset:
    from cnnspec.training.data.huggingface import open_hub

    return open_hub(asked.data, asked.classes)


def _random(asked: _Asked) -> Dataset:
    from cnnspec.training.data.random_source import open_random

    return open_random(asked.data, asked.shape, asked.seed, asked.classes)


_OPENERS: Mapping[str, Callable[[_Asked], Dataset]] = {
    "digits": _digits,
    "images": _images,
    "mnist": _mnist,
    "fashion-mnist": _mnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "huggingface": _hub,
    "random": _random,
}

SOURCES = tuple(_OPENERS)
"""The names that `Data.source` may have."""


def open_dataset(data: Data, *, shape: tuple[int, ...], seed: int, classes: int | None) -> Dataset:
    """The samples that `data` describes.

    `shape` is the input's, CxHxW, and `classes` how many the network tells apart, where that is
    known; both matter to sources that make samples up. What is held out does not depend on `seed`.

    Raises `EnvironmentFailure` for what is not there or not what its source has to be.
    """
    opener = _OPENERS.get(data.source)
    if opener is None:
        raise EnvironmentFailure(
            f"there is no source of data `{data.source}`", help=did_you_mean(data.source, SOURCES)
        )
    return opener(_Asked(data, shape, seed, classes))
