"""One step of training: forward, backward, what processes share, the move of the weights.

The hot path: nothing here waits for the device but for numbers of a forward pass that is over.
When steps are taken, and what is done between them, is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from cnnspec.backends.torch import named_outputs
from cnnspec.training.compiling import compiled
from cnnspec.training.data.samples import Batch
from cnnspec.training.distribution.collectives import GradientSums
from cnnspec.training.ema import WeightAverage
from cnnspec.training.interrupting import Interruption
from cnnspec.training.non_finite import Gauge, first_odd_layer
from cnnspec.training.objective import Objective
from cnnspec.training.optimizing import Update
from cnnspec.training.planning import Plan
from cnnspec.training.scheduling import RateSchedule
from cnnspec.training.seeding import seed_step

__all__ = ["RIDERS", "NotFinite", "Position", "Stepper", "Taken", "autocast"]

RIDERS = 3
"""What is known of a step at once: its loss, right samples, whether somebody wants it to end."""

_HALVES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class NotFinite(Exception):
    """The loss of a step is no number; the weights are still those from before it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Which step it is: of which epoch, behind how many of the run, of how many samples."""

    epoch: int
    step: int
    taken: int
    samples: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken, over all processes: mean loss, right samples, a signal agreed upon."""

    loss: float
    correct: float | None
    signal: int | None
    rate: float


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Operations that bear it in 16 bits, for the time of a block."""
    if precision not in _HALVES:
        return nullcontext()
    return torch.autocast(device.type, dtype=_HALVES[precision])


class Stepper:
    """Takes steps with a module that lies on the device."""

    def __init__(
        self,
        plan: Plan,
        module: nn.Module,
        *,
        prepared: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]],
        objective: Objective,
        update: Update,
        schedule: RateSchedule,
        average: WeightAverage | None,
        sums: GradientSums | None,
        interruption: Interruption,
    ) -> None:
        recipe = plan.recipe
        self._plan, self._recipe, self._device = plan, recipe, plan.place.device
        self._module = module
        self._forward = compiled(module) if recipe.compile else module
        self._prepared = prepared
        self._objective = objective
        self._update, self._schedule, self._average = update, schedule, average
        self._sums, self._interruption = sums, interruption
        self._gauge = Gauge(RIDERS, self._device)
        self._layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self._zero = torch.zeros((), device=self._device)
        self._judges = True

    def take(self, parts: Sequence[Batch], at: Position) -> Taken:
        """Take a step with this process's parts of the batch.

        Raises `NotFinite` on all processes alike, before the weights are moved.
        """
        self._seed(at)
        self._update.optimizer.zero_grad(set_to_none=True)
        self._schedule.before_step(at.taken)
        rate = self._schedule.rate
        filled = [part for part in parts if len(part.images)]
        losses: list[Tensor] = []
        right: list[Tensor] = []
        for part in filled:
            loss, correct = self._part(part, at)
            losses.append(loss.detach())
            if correct is not None:
                right.append(correct)
            if len(losses) == len(filled):
                self._judges = bool(right)
                self._send(losses, right)
            self._update.scaled(loss).backward()  # type: ignore[no-untyped-call]
        if not filled:
            self._send(losses, right)
        values = self._gauge.read() if self._sums is None else self._sums.finish()
        if not isfinite(values[0]):
            raise NotFinite
        self._update.apply()
        self._schedule.after_step()
        if self._average is not None:
            self._average.update(at.taken + 1)
        judged = values[1] if self._judges else None
        return Taken(values[0], judged, Interruption.agreed(values[2]), rate)

    def _seed(self, at: Position) -> None:
        seed_step(self._recipe.seed, at.epoch, at.step, self._plan.place.rank, self._device)

    def _send(self, losses: Sequence[Tensor], right: Sequence[Tensor]) -> None:
        numbers = (self._sum(losses), self._sum(right), self._wish())
        whole = torch.stack(numbers)
        if self._sums is None:
            self._gauge.send(whole)
        else:
            self._sums.expect(whole)

    def _sum(self, numbers: Sequence[Tensor]) -> Tensor:
        total = self._zero
        for number in numbers:
            total = number if total is self._zero else total + number
        return total.float()

    def _wish(self) -> Tensor:
        weight = self._interruption.weight
        return self._zero if not weight else torch.full_like(self._zero, weight)

    def _part(self, part: Batch, at: Position) -> tuple[Tensor, Tensor | None]:
        images, targets = self._inputs(part, at.epoch)
        with autocast(self._recipe.precision, self._device):
            outputs = self._forward(images)
        return self._judged(outputs, images, targets, at.samples)

    def _inputs(self, part: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        images = part.images.to(self._device, non_blocking=True)
        targets = part.targets.to(self._device, non_blocking=True)
        images, targets = self._prepared(images, targets, part.samples, epoch)
        return images.contiguous(memory_format=self._layout), targets

    def _judged(
        self, outputs: Any, images: Tensor, targets: Tensor, samples: int
    ) -> tuple[Tensor, Tensor | None]:
        named = named_outputs(self._plan.graph, outputs, training=True)
        loss = self._objective(named, targets, images, count=samples)
        return loss, self._objective.correct(named, targets)

    def odd_layer(self, parts: Sequence[Batch], at: Position) -> str | None:
        """What is not finite first in a step that `take` refused, in words; None where it is here.

        The step is computed again, layer by layer.
        """
        self._seed(at)
        for part in parts:
            if not len(part.images):
                continue
            images, targets = self._inputs(part, at.epoch)
            if not bool(images.isfinite().all()):
                return "the images are not finite"
            with torch.no_grad(), autocast(self._recipe.precision, self._device):
                found = first_odd_layer(self._module, images)
                if found is not None:
                    return found
                loss, _ = self._judged(self._module(images), images, targets, at.samples)
            if not bool(loss.isfinite()):
                return "the outputs of all layers are finite, what the loss makes of them is not"
        return None
