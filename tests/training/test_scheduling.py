"""Learning rates by position, against formulas, and after a resume."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import Any

import pytest
import torch
from torch import nn

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.recipe.known import SCHEDULERS
from cnnspec.training.recipe.model import Call, Schedule, Warmup
from cnnspec.training.scheduling import RateSchedule

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")

STEPS, EPOCHS = 4, 6


def made(
    schedule: Schedule | None, factors: Sequence[float] = (1.0,), lr: float = 0.1
) -> tuple[RateSchedule, torch.optim.Optimizer]:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr * each} for each in factors]
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return (
        RateSchedule(optimizer, schedule, factors=factors, steps=STEPS, epochs=EPOCHS),
        optimizer,
    )


def rates(
    schedule: RateSchedule,
    optimizer: torch.optim.Optimizer,
    *,
    first: int = 0,
    last: int = STEPS * EPOCHS,
    watched: Sequence[float] = (1.0,) * EPOCHS,
) -> list[list[float]]:
    """The rate of every group at every step."""
    found = []
    for taken in range(first, last):
        schedule.before_step(taken)
        found.append([group["lr"] for group in optimizer.param_groups])
        schedule.after_step()
        if (taken + 1) % STEPS == 0:
            schedule.after_epoch(watched[taken // STEPS])
    return found


def of(name: str, by: Any = "epoch", warmup: Warmup | None = None, **arguments: Any) -> Schedule:
    return Schedule(scheduler=Call(name, arguments), by=by, warmup=warmup)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (None, lambda t: 0.1),
        (of("StepLR", step_size=2, gamma=0.5), lambda t: 0.1 * 0.5 ** (t // STEPS // 2)),
        (of("StepLR", "step", step_size=5, gamma=0.5), lambda t: 0.1 * 0.5 ** (t // 5)),
        (
            of("MultiStepLR", milestones=(1, 4), gamma=0.1),
            lambda t: 0.1 * 0.1 ** ((t >= STEPS) + (t >= 4 * STEPS)),
        ),
        (
            of("CosineAnnealingLR"),
            lambda t: 0.05 * (1 + cos(pi * (t // STEPS) / EPOCHS)),
        ),
        (
            of("CosineAnnealingLR", "step"),
            lambda t: 0.05 * (1 + cos(pi * t / (STEPS * EPOCHS))),
        ),
        (of("PolynomialLR", "step"), lambda t: 0.1 * (1 - t / (STEPS * EPOCHS))),
        (
            Schedule(warmup=Warmup(epochs=1.5, start=0.1)),
            lambda t: 0.1 * min(1.0, 0.1 + 0.9 * t / 6),
        ),
        (
            of("StepLR", warmup=Warmup(epochs=2, start=0.5), step_size=1, gamma=0.5),
            lambda t: 0.1 * 0.5 ** (t // STEPS) * min(1.0, 0.5 + 0.5 * t / 8),
        ),
    ],
)
def test_rates_follow_the_position(schedule: Schedule | None, expected: Any) -> None:
    found = rates(*made(schedule))
    assert [rate for (rate,) in found] == pytest.approx([expected(t) for t in range(len(found))])


def test_plateau_lowers_the_rate_when_the_figure_stays() -> None:
    schedule, optimizer = made(of("ReduceLROnPlateau", factor=0.1, patience=1))
    found = rates(schedule, optimizer, watched=(1.0, 0.5, 0.5, 0.5, 0.4, 0.3))
    assert [found[t * STEPS][0] for t in range(EPOCHS)] == pytest.approx([0.1] * 4 + [0.01] * 2)
    assert not schedule.watches_best
    assert made(of("ReduceLROnPlateau", mode="max"))[0].watches_best


def test_factors_hold_under_every_schedule() -> None:
    for schedule in (
        of("OneCycleLR", "step", max_lr=0.5),
        of("CyclicLR", "step", base_lr=0.01, max_lr=0.1, step_size_up=3),
        of("StepLR", warmup=Warmup(epochs=1), step_size=2),
    ):
        for one, other in rates(*made(schedule, (1.0, 0.25))):
            assert other == pytest.approx(0.25 * one)


def test_the_rate_is_told_without_factors() -> None:
    assert made(None, (0.5, 1.0))[0].rate == pytest.approx(0.1)


_REQUIRED: dict[str, dict[str, Any]] = {
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": (2, 9)},
    "OneCycleLR": {"max_lr": 0.5},
    "ReduceLROnPlateau": {"patience": 0},
    "StepLR": {"step_size": 2},
}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
@pytest.mark.parametrize("by", ["step", "epoch"])
@pytest.mark.parametrize("kept", [3, STEPS, 13])
def test_a_resume_goes_on_with_the_same_rates(name: str, by: str, kept: int) -> None:
    schedule = of(name, by, Warmup(epochs=1.25), **_REQUIRED.get(name, {}))
    whole = rates(*made(schedule, (1.0, 0.1)))
    first, optimizer = made(schedule, (1.0, 0.1))
    rates(first, optimizer, last=kept)
    state = first.state_dict()
    assert state is not None
    second, another = made(schedule, (1.0, 0.1))
    another.load_state_dict(optimizer.state_dict())
    second.load_state_dict(state)
    assert rates(second, another, first=kept) == whole[kept:]


def test_what_torch_refuses_is_said() -> None:
    with pytest.raises(EnvironmentFailure, match="no scheduler `Nothing`"):
        made(of("Nothing"))
    with pytest.raises(EnvironmentFailure, match="refuses the scheduler `StepLR`"):
        made(of("StepLR"))
