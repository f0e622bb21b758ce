"""Counting in numpy, for what runs without torch, as `torch_counting`, its twin, does in torch.

Losses are torch's by the cross-entropy: a file does not say what it was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cnnspec.runtime.preparing import Array
from cnnspec.training.data.samples import IGNORED
from cnnspec.training.evaluating.figures import Evaluation, Tally, evaluation_of
from cnnspec.training.evaluating.task import LEAST_LOG, Task, middle_of

__all__ = ["NumpyCounting", "log_probabilities"]

_FEW = 5


def log_probabilities(scores: Array, *, probabilities: bool) -> NDArray[np.float32]:
    """Logarithms of probabilities over axis 1, in float32, from scores or from probabilities."""
    scores = scores.astype(np.float32, copy=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        if probabilities:
            return np.maximum(np.log(scores), np.float32(LEAST_LOG))
        moved = scores - scores.max(axis=1, keepdims=True)
        return np.asarray(moved - np.log(np.exp(moved).sum(axis=1, keepdims=True)), np.float32)


class NumpyCounting:
    """Sums over samples. `evaluation` is the end."""

    def __init__(self, task: Task, *, confusion: bool = False) -> None:
        number = task.classes
        self._task = task
        self._tally = Tally(
            *(0.0, 0, 0, 0, 0, 0),
            given=np.zeros(number, np.int64),
            chosen=np.zeros(number, np.int64),
            hit=np.zeros(number, np.int64),
            confusion=np.zeros((number, number), np.int64) if confusion else None,
        )

    def add(self, output: Array, targets: NDArray[np.int64], images: Array | None = None) -> None:
        """Count a batch: the output of the task, and the true classes, N or NxHxW.

        A map that is smaller than its targets is compared with their middle. A task of images takes
        the `images` that went in.
        """
        tally, count = self._tally, len(output)
        if self._task.kind == "image":
            assert images is not None  # the task says so
            difference = output.astype(np.float32) - images.astype(np.float32)
            squares = (difference * difference).reshape(count, -1).mean(axis=1)
            self._tally = replace(
                tally,
                loss=tally.loss + float(squares.sum(dtype=np.float64)),
                samples=tally.samples + count,
                positions=tally.positions + count,
            )
            return
        scores, true = self._flat(output.astype(np.float32, copy=False), targets)
        logs = log_probabilities(scores, probabilities=self._task.probabilities)
        own = np.take_along_axis(logs, true[:, None], 1)
        place, odd = _places(scores, true)
        chosen = scores.argmax(axis=1)[~odd]
        number = self._task.classes
        tally.given[:] += np.bincount(true, minlength=number)
        tally.chosen[:] += np.bincount(chosen, minlength=number)
        tally.hit[:] += np.bincount(true[place == 0], minlength=number)
        if tally.confusion is not None:
            np.add.at(tally.confusion, (true[~odd], chosen), 1)
        self._tally = replace(
            tally,
            loss=tally.loss - float(own.sum(dtype=np.float64)),
            samples=tally.samples + count,
            positions=tally.positions + len(true),
            right=tally.right + int((place == 0).sum()),
            right_of_5=tally.right_of_5 + int((place < _FEW).sum()),
            odd=tally.odd + int(odd.sum()),
        )

    def _flat(self, scores: Array, targets: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
        """Scores of the positions that count (PxK), and their true classes (P)."""
        if self._task.kind == "classes":
            return scores, targets
        true = targets[middle_of(targets.shape, scores.shape)].reshape(-1)
        counted = true != IGNORED
        return np.moveaxis(scores, 1, -1).reshape(-1, self._task.classes)[counted], true[counted]

    def evaluation(self, *, seconds: float = 0.0, names: Sequence[str] = ()) -> Evaluation:
        """What was counted; `seconds` is the wall time it took, `names` those of the classes."""
        return evaluation_of(self._task, self._tally, seconds=seconds, names=names)


def _places(scores: Array, true: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many scores come before that of the true class, and which rows hold no numbers.

    Of equal scores the first comes first. A row without numbers has no class in front.
    """
    own = np.take_along_axis(scores, true[:, None], 1)
    order = np.arange(scores.shape[1])
    above = (scores > own) | ((scores == own) & (order < true[:, None]))
    odd = np.asarray(np.isnan(scores).any(axis=1))
    return np.where(odd, scores.shape[1] + _FEW, above.sum(axis=1)), odd
