"""One pass over samples with one or several networks, whatever runs them. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cnnspec.runtime.preparing import Array
from cnnspec.training.evaluating.figures import Evaluation
from cnnspec.training.evaluating.reading import SampleReader
from cnnspec.training.evaluating.task import CROSS_ENTROPY, Task
from cnnspec.training.recipe.model import Call

__all__ = ["Engine", "averaged_task", "evaluate"]


class Engine(Protocol):
    """Networks that run on arrays and count what comes out.

    `uses` is, for each network, the number of the preparation that it takes.
    """

    uses: Sequence[int]

    def add(
        self,
        images: Sequence[Sequence[Array]],
        targets: NDArray[np.int64],
        mirrored: Sequence[bool],
    ) -> None:
        """Run a batch and count: for each preparation each view, and which views are mirrored.

        Of several networks and views the probabilities are averaged.
        """

    def evaluation(self, *, seconds: float, names: Sequence[str]) -> Evaluation:
        """What was counted."""


def averaged_task(task: Task) -> Task:
    """What is measured of averaged probabilities: their logarithms come in place of scores."""
    return replace(task, loss=Call(CROSS_ENTROPY), probabilities=False)


def evaluate(
    engine: Engine,
    reader: SampleReader,
    *,
    names: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Every sample once. Seconds are those of the whole pass, reading and computing.

    `progress` is told how many of all samples are through.
    """
    whole, done = len(reader.samples), 0
    mirrored = reader.views.mirrored
    start = perf_counter()
    for batch in reader.batches():
        engine.add(batch.images, batch.targets, mirrored)
        done += len(batch.targets)
        if progress is not None:
            progress(done, whole)
    # What was counted is asked for first: a device may still be at work.
    found = engine.evaluation(seconds=0.0, names=names)
    return replace(found, seconds=perf_counter() - start)
