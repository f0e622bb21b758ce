"""What a run tells whoever watches it, on the process of rank 0. How that is shown is theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["EpochFigures", "Silent", "Stepped", "Watcher"]


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step of the optimiser is queued on the device.

    `loss` is the mean over the whole batch, over all processes, and `correct` counts its samples
    whose first choice is right (None where that means nothing). `step` counts the epoch's steps
    that are through, from 1; `samples` are those of the whole batch.
    """

    epoch: int
    step: int
    steps: int
    samples: int
    loss: float
    correct: float | None
    rate: float


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """An epoch is over. Fractions are of 1, seconds of wall time, `rate` its last learning rate.

    The keys of `held_out` are those of an evaluation (`loss`, `top1`, `top5`); it is empty where
    nothing is held out.
    """

    epoch: int
    epochs: int
    step: int
    train_loss: float
    train_top1: float | None
    held_out: Mapping[str, float]
    rate: float
    samples_per_second: float
    seconds: float
    memory: int
    best: bool = False


class Watcher(Protocol):
    """All methods return at once and never raise."""

    def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
        """`first` is the step that the epoch goes on from, 0 but for a resume."""

    def stepped(self, step: Stepped) -> None:
        """A step was taken."""

    def evaluating(self, done: int, whole: int) -> None:
        """So many held-out samples are through."""

    def epoch_ended(self, figures: EpochFigures) -> None:
        """An epoch is over, its figures known."""

    def saved(self, place: str) -> None:
        """A checkpoint is on the disk."""

    def said(self, message: str) -> None:
        """Something the user should know: one line."""


class Silent:
    """Nobody watches."""

    def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
        """Nothing."""

    def stepped(self, step: Stepped) -> None:
        """Nothing."""

    def evaluating(self, done: int, whole: int) -> None:
        """Nothing."""

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Nothing."""

    def saved(self, place: str) -> None:
        """Nothing."""

    def said(self, message: str) -> None:
        """Nothing."""
