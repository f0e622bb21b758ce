"""Samples read and prepared for one pass over them, in order. Needs no torch.

Threads are enough: decoding and resizing let go of Python's lock. What networks make of the arrays
may not enter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.images import ImageFailure
from cnnspec.runtime.preparing import Array, Preparation
from cnnspec.training.data.masks import prepared_mask, refuse_other_size
from cnnspec.training.data.samples import Samples, Target
from cnnspec.training.evaluating.views import Views

__all__ = ["PreparedBatch", "SampleReader", "following"]

_AT_ONCE = 8
"""Samples that a thread reads before it asks for more."""
_AHEAD = 2
"""Batches that are read before they are asked for, for each thread at least one share."""


class PreparedBatch(NamedTuple):
    """Samples of one batch: for each preparation the array of each view, and the true classes."""

    images: tuple[tuple[Array, ...], ...]
    targets: NDArray[np.int64]


class _Prepared(NamedTuple):
    """One sample: for each preparation the array of each view."""

    arrays: tuple[tuple[Array, ...], ...]
    target: Target


@dataclass(frozen=True, slots=True)
class SampleReader:
    """How samples are read.

    `preparations` are those of the networks, each asked for once. `masks` is how a map of classes
    follows its image, where that is not as the first of them does. `failed` is told of each sample
    that is skipped; with `fail` for `corrupt` the first is raised, as `ImageFailure`.
    """

    samples: Samples
    preparations: Sequence[Preparation]
    views: Views
    batch: int
    threads: int
    corrupt: Literal["fail", "skip"] = "fail"
    masks: Preparation | None = None
    failed: Callable[[ImageFailure], None] | None = None

    def batches(self) -> Iterator[PreparedBatch]:
        """All samples, in order, every one once. Arrays of different sizes are never together."""
        waiting: list[_Prepared] = []
        for sample in self._prepared():
            if waiting and (len(waiting) == self.batch or _sizes(sample) != _sizes(waiting[0])):
                yield _stacked(waiting)
                waiting = []
            waiting.append(sample)
        if waiting:
            yield _stacked(waiting)

    def _prepared(self) -> Iterator[_Prepared]:
        count = len(self.samples)
        shares = [range(first, min(first + _AT_ONCE, count)) for first in range(0, count, _AT_ONCE)]
        ahead = max(self.threads, _AHEAD * -(-self.batch // _AT_ONCE))
        pending: deque[Future[list[_Prepared | ImageFailure]]] = deque()
        pool = ThreadPoolExecutor(self.threads, "reading")
        try:
            for share in shares:
                pending.append(pool.submit(self._share, share))
                if len(pending) > ahead:
                    yield from self._usable(pending.popleft().result())
            while pending:
                yield from self._usable(pending.popleft().result())
        finally:
            pool.shutdown(cancel_futures=True)

    def _usable(self, found: Sequence[_Prepared | ImageFailure]) -> Iterator[_Prepared]:
        for each in found:
            if not isinstance(each, ImageFailure):
                yield each
            elif self.corrupt == "fail":
                raise each
            elif self.failed is not None:
                self.failed(each)

    def _share(self, numbers: Sequence[int]) -> list[_Prepared | ImageFailure]:
        found: list[_Prepared | ImageFailure] = []
        for number in numbers:
            try:
                found.append(self._one(number))
            except ImageFailure as failure:
                found.append(failure)
        return found

    def _one(self, number: int) -> _Prepared:
        images: dict[str, Image.Image] = {}
        target: Target = 0
        for mode in {each.mode: None for each in self.preparations}:
            images[mode], target = self.samples.read(number, mode)
        try:
            arrays = tuple(self.views.arrays(images[each.mode], each) for each in self.preparations)
            if isinstance(target, np.ndarray):
                refuse_other_size(target, next(iter(images.values())).size)
                target = prepared_mask(target, self.masks or self.preparations[0])
        except ImageFailure:
            raise
        except EnvironmentFailure as failure:
            raise ImageFailure(self.samples.label(number), failure.message) from None
        return _Prepared(arrays, target)


def _sizes(sample: _Prepared) -> Any:
    """What has to be the same for samples to be stacked."""
    return np.shape(sample.target), [[view.shape for view in views] for views in sample.arrays]


def _stacked(samples: Sequence[_Prepared]) -> PreparedBatch:
    whole = zip(*(sample.arrays for sample in samples), strict=True)
    images = tuple(tuple(np.stack(view) for view in zip(*each, strict=True)) for each in whole)
    return PreparedBatch(images, np.asarray([sample.target for sample in samples], np.int64))


def following(preparation: Preparation, size: tuple[int | None, int | None]) -> Preparation:
    """How maps follow the images of a file that resizes and crops these itself, to `size`."""
    if preparation.in_graph != "full":
        return preparation
    return replace(preparation, in_graph="none", size=size)
