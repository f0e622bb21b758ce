"""Counting on the device where a network runs, in torch: no batch waits for the host.

Counts are exact whatever the batches and however many processes share them. What is counted is that
of `numpy_counting`, its twin without torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from cnnspec.training.data.samples import IGNORED
from cnnspec.training.evaluating.figures import Evaluation, Tally, evaluation_of
from cnnspec.training.evaluating.task import CROSS_ENTROPY, LEAST_LOG, Task, middle_of
from cnnspec.training.recipe.model import Call

__all__ = ["Counting", "log_probabilities"]

_SAMPLES, _POSITIONS, _RIGHT, _RIGHT_OF_5, _ODD = range(5)
_GIVEN, _CHOSEN, _HIT = range(3)
_FEW = 5


def log_probabilities(scores: Tensor, *, probabilities: bool) -> Tensor:
    """Logarithms of probabilities over axis 1, in float32, from scores or from probabilities."""
    scores = scores.float()
    return scores.log().clamp(min=LEAST_LOG) if probabilities else scores.log_softmax(1)


class Counting:
    """Sums over samples, on a device.

    Every sample is given to exactly one process. `evaluation` is the end: until then nothing is
    read back.
    """

    def __init__(self, task: Task, device: torch.device, *, confusion: bool = False) -> None:
        self._task = task
        number = task.classes
        self._loss = torch.zeros(1, dtype=torch.float64, device=device)
        self._counts = torch.zeros(5, dtype=torch.int64, device=device)
        self._classes = torch.zeros(3, number, dtype=torch.int64, device=device)
        self._confusion = torch.zeros(
            number * number if confusion else 0, dtype=torch.int64, device=device
        )
        self._order = torch.arange(number, device=device)

    @torch.no_grad()
    def add(self, output: Tensor, targets: Tensor, images: Tensor | None = None) -> None:
        """Count a batch: the output of the task, and the true classes, N or NxHxW.

        A map that is smaller than its targets is compared with their middle. A task of images takes
        the `images` that went in.
        """
        self._counts[_SAMPLES] += len(output)
        if self._task.kind == "image":
            assert images is not None  # the task says so
            self._counts[_POSITIONS] += len(output)
            squares = functional.mse_loss(output.float(), images.float(), reduction="none")
            self._loss += squares.flatten(1).mean(1).sum(dtype=torch.float64)
            return
        scores, true, counted = self._flat(output.detach().float(), targets)
        self._loss += self._losses(scores, true).masked_fill(~counted, 0).sum(dtype=torch.float64)
        self._judge(scores, true, counted)

    def _flat(self, scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores by position (PxK), true classes (P), and which positions count."""
        if self._task.kind == "classes":
            return scores, targets, torch.ones_like(targets, dtype=torch.bool)
        targets = targets[middle_of(targets.shape, scores.shape)]
        counted = (targets != IGNORED).flatten()
        true = targets.flatten().masked_fill(~counted, 0)
        return scores.movedim(1, -1).reshape(-1, self._task.classes), true, counted

    def _losses(self, scores: Tensor, true: Tensor) -> Tensor:
        """The loss of each position."""
        return _losses(self._task.loss, scores, true, probabilities=self._task.probabilities)

    def _judge(self, scores: Tensor, true: Tensor, counted: Tensor) -> None:
        own = scores.gather(1, true[:, None])
        # Of equal scores the first comes first.
        above = (scores > own) | ((scores == own) & (self._order < true[:, None]))
        odd = scores.isnan().any(1)
        place = above.sum(1).masked_fill(odd, self._task.classes + _FEW)
        self._counts[_POSITIONS] += counted.sum()
        self._counts[_RIGHT] += ((place == 0) & counted).sum()
        self._counts[_RIGHT_OF_5] += ((place < _FEW) & counted).sum()
        self._counts[_ODD] += (odd & counted).sum()
        chosen = scores.argmax(1)
        sane = (counted & ~odd).to(torch.int64)
        self._classes[_GIVEN].index_add_(0, true, counted.to(torch.int64))
        self._classes[_CHOSEN].index_add_(0, chosen, sane)
        self._classes[_HIT].index_add_(0, true, ((place == 0) & counted).to(torch.int64))
        if len(self._confusion):
            self._confusion.index_add_(0, true * self._task.classes + chosen, sane)

    def evaluation(self, *, seconds: float = 0.0, names: Sequence[str] = ()) -> Evaluation:
        """What all processes counted together; every process calls it, and has the same.

        `seconds` is the wall time that it took, `names` are those of the classes.
        """
        return evaluation_of(self._task, self._tally(), seconds=seconds, names=names)

    def _tally(self) -> Tally:
        whole = torch.cat([self._counts, self._classes.flatten(), self._confusion])
        loss = self._loss.clone()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(whole)
            torch.distributed.all_reduce(loss)
        number = self._task.classes
        counts = whole.cpu().numpy()
        (samples, positions, right, right_of_5, odd), rest = counts[:5].tolist(), counts[5:]
        by_class = rest[: 3 * number].reshape(3, number)
        confusion = rest[3 * number :].reshape(number, number) if len(self._confusion) else None
        return Tally(
            loss=float(loss.item()),
            samples=samples,
            positions=positions,
            right=right,
            right_of_5=right_of_5,
            odd=odd,
            given=by_class[_GIVEN],
            chosen=by_class[_CHOSEN],
            hit=by_class[_HIT],
            confusion=confusion,
        )


def _losses(loss: Call, scores: Tensor, true: Tensor, *, probabilities: bool) -> Tensor:
    """What torch.nn's loss of that name is for each row of scores (PxK), in float32."""
    if loss.name == CROSS_ENTROPY:
        logs = log_probabilities(scores, probabilities=probabilities)
        return -logs.gather(1, true[:, None]).squeeze(1)
    if loss.name == "MultiMarginLoss":
        return functional.multi_margin_loss(
            scores,
            true,
            p=loss.arguments.get("p", 1),
            margin=loss.arguments.get("margin", 1.0),
            reduction="none",
        )
    wanted = functional.one_hot(true, scores.shape[1]).float()
    measure = (
        functional.mse_loss
        if loss.name == "MSELoss"
        else functional.binary_cross_entropy_with_logits
    )
    return measure(scores, wanted, reduction="none").mean(1)
