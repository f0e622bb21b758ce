"""What a run has to remember to go on as if nothing had happened.

Plain containers and tensors, so that a file of them is read without running anything. Where a state
is kept may not enter. No generator's state is in it: see `seeding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.ema import WeightAverage
from cnnspec.training.optimizing import Update
from cnnspec.training.scheduling import RateSchedule
from cnnspec.training.watching import EpochFigures

__all__ = ["FORMAT", "Parts", "Progress", "capture", "refuse_other_format", "restore"]

FORMAT = 1


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    `epoch` and `step` are the next step to be taken, from 0; behind the last step of an epoch
    `step` is their number until the epoch is evaluated. `taken` are steps of the whole run.
    `loss`, `correct` and `counted` are sums over the epoch so far: of losses of samples, of right
    ones, of samples (`judged` of those that can be right or wrong). `rate` is that of the last
    step. `waited` counts epochs without a better figure than `stop_best`.
    """

    epoch: int = 0
    step: int = 0
    taken: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    correct: float = 0.0
    counted: int = 0
    judged: int = 0
    rate: float = 0.0
    stop_best: float | None = None
    waited: int = 0
    stopped: bool = False
    history: list[EpochFigures] = field(default_factory=list)
    best: EpochFigures | None = None

    def begin_epoch(self) -> None:
        """Go on to the first step of the next epoch."""
        self.epoch += 1
        self.step = 0
        self.loss = self.correct = 0.0
        self.counted = self.judged = 0


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What has a state."""

    module: nn.Module
    average: WeightAverage | None
    update: Update
    schedule: RateSchedule


def capture(parts: Parts, progress: Progress, *, steps: int, world: int) -> dict[str, Any]:
    """The state. Tensors are those of the parts, not copies: keep them before the next step."""
    update = parts.update
    return {
        "format": FORMAT,
        "epoch": progress.epoch,
        "step": progress.step,
        "steps": steps,
        "taken": progress.taken,
        "world": world,
        "seconds": progress.seconds,
        "model": dict(parts.module.state_dict()),
        "ema": dict(parts.average.tensors) if parts.average is not None else None,
        "optimizer": update.optimizer.state_dict(),
        "scheduler": parts.schedule.state_dict(),
        "scaler": update.scaler.state_dict() if update.scaler is not None else None,
        "running": {
            "loss": progress.loss,
            "correct": progress.correct,
            "counted": progress.counted,
            "judged": progress.judged,
            "rate": progress.rate,
        },
        "stopping": {
            "best": progress.stop_best,
            "waited": progress.waited,
            "stopped": progress.stopped,
        },
        "history": [_row(figures) for figures in progress.history],
        "best": _row(progress.best) if progress.best is not None else None,
    }


def refuse_other_format(state: Mapping[str, Any]) -> None:
    """Raise `EnvironmentFailure` for a state that another version of cnnspec has captured."""
    if state.get("format") != FORMAT:
        raise EnvironmentFailure(
            f"the checkpoint has format {state.get('format')}, and this version reads {FORMAT}"
        )


def restore(state: Mapping[str, Any], parts: Parts, *, steps: int) -> Progress:
    """Put a state into the parts, and say where it stands.

    Raises `EnvironmentFailure` for a state of another network or another training.
    """
    refuse_other_format(state)
    if state["steps"] != steps:
        raise EnvironmentFailure(
            f"the run has epochs of {state['steps']} steps, and now they are {steps}",
            help="data and batch size have to be those of the run",
        )
    update, average = parts.update, parts.average
    if (state["ema"] is None) != (average is None) or (state["scaler"] is None) != (
        update.scaler is None
    ):
        raise EnvironmentFailure("the checkpoint is of a run with another `ema` or `precision`")
    _load(parts.module, state["model"])
    if average is not None:
        average.load(state["ema"])
    update.optimizer.load_state_dict(state["optimizer"])
    parts.schedule.load_state_dict(state["scheduler"])
    if update.scaler is not None:
        update.scaler.load_state_dict(state["scaler"])
    running, stopping = state["running"], state["stopping"]
    return Progress(
        epoch=state["epoch"],
        step=state["step"],
        taken=state["taken"],
        seconds=state["seconds"],
        loss=running["loss"],
        correct=running["correct"],
        counted=running["counted"],
        judged=running["judged"],
        rate=running["rate"],
        stop_best=stopping["best"],
        waited=stopping["waited"],
        stopped=stopping["stopped"],
        history=[EpochFigures(**row) for row in state["history"]],
        best=EpochFigures(**state["best"]) if state["best"] is not None else None,
    )


def _load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise EnvironmentFailure("the checkpoint is of another network") from None


def _row(figures: EpochFigures) -> dict[str, Any]:
    return {**asdict(figures), "held_out": dict(figures.held_out)}
