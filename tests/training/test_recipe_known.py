"""The tables of names and arguments against torch itself."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from cnnspec.diagnostics import Reject
from cnnspec.training.recipe.known import (
    LENGTHS,
    LOSSES,
    MOMENTUM,
    OPTIMIZERS,
    OUTSIDE,
    SCHEDULERS,
    Known,
)
from cnnspec.training.recipe.model import Call, Recipe, Schedule
from tests.training.recipe_strategies import arguments, calls, conflicting

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much]
)
OTHER_LOOPS = {"differentiable", "capturable"}
NOT_OURS = {
    "CyclicLR": {"scale_fn"},  # a function
    "OneCycleLR": {"epochs", "steps_per_epoch"},  # said by the recipe
}


def parameters(made: type[Any]) -> dict[str, inspect.Parameter]:
    """The arguments of a class of torch, but those that give it what it works on."""
    found = dict(inspect.signature(made.__init__).parameters)
    for name in ("self", "params", "optimizer", "last_epoch"):
        found.pop(name, None)
    return found


def accepts_defaults(known: Known, found: dict[str, inspect.Parameter]) -> None:
    for name, slot in known.arguments.items():
        default = found[name].default
        if default is inspect.Parameter.empty or default is None:
            continue
        try:
            slot.accept(default, 1)
        except Reject as reject:
            raise AssertionError(f"{name}={default}: {reject}") from None


def test_every_optimizer_is_known() -> None:
    names = {
        name
        for name, made in vars(torch.optim).items()
        if inspect.isclass(made) and issubclass(made, torch.optim.Optimizer)
    }
    assert names - {"Optimizer"} == set(OPTIMIZERS) | {"LBFGS", "Muon", "SparseAdam"}
    assert {"LBFGS", "Muon", "SparseAdam"} <= set(OUTSIDE)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arguments_of_optimizers(name: str) -> None:
    found = parameters(getattr(torch.optim, name))
    assert set(found) - set(OPTIMIZERS[name].arguments) <= OTHER_LOOPS
    assert set(OPTIMIZERS[name].arguments) <= set(found)
    assert OPTIMIZERS[name].required == ()
    accepts_defaults(OPTIMIZERS[name], found)


def test_every_scheduler_is_known() -> None:
    names = {
        name
        for name, made in vars(lr_scheduler).items()
        if inspect.isclass(made)
        and issubclass(made, lr_scheduler.LRScheduler)
        and not name.startswith("_")
    }
    known = set(SCHEDULERS) | (set(OUTSIDE) & names)
    assert names - {"LRScheduler"} == known


@pytest.mark.parametrize("name", SCHEDULERS)
def test_arguments_of_schedulers(name: str) -> None:
    found = parameters(getattr(lr_scheduler, name))
    known = SCHEDULERS[name]
    assert set(found) == set(known.arguments) | NOT_OURS.get(name, set())
    needed = {n for n, p in found.items() if p.default is inspect.Parameter.empty}
    assert set(known.required) == needed - {LENGTHS.get(name)}
    accepts_defaults(known, found)


@pytest.mark.parametrize("name", LOSSES)
def test_arguments_of_losses(name: str) -> None:
    found = parameters(getattr(torch.nn, name))
    assert set(LOSSES[name].arguments) <= set(found)
    accepts_defaults(LOSSES[name], found)


def _weight() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(2, 2))


@SETTINGS
@given(calls(OPTIMIZERS))
def test_torch_takes_what_recipes_take(call: Call) -> None:
    if conflicting(Recipe(name="x", optimizer=call)):
        return
    getattr(torch.optim, call.name)([_weight()], **call.arguments)


@SETTINGS
@given(st.sampled_from(sorted(OPTIMIZERS)), st.floats(max_value=0, exclude_max=True))
def test_both_refuse_a_negative_rate(name: str, rate: float) -> None:
    with pytest.raises(Reject):
        OPTIMIZERS[name].arguments["lr"].accept(rate, 1)
    with pytest.raises(ValueError, match=r"[Ll]earning rate"):
        getattr(torch.optim, name)([_weight()], lr=rate)


@SETTINGS
@given(calls(SCHEDULERS))
def test_torch_schedules_what_recipes_schedule(call: Call) -> None:
    by: Literal["step", "epoch"] = "epoch" if call.name == "ReduceLROnPlateau" else "step"
    if conflicting(Recipe(name="x", schedule=Schedule(scheduler=call, by=by))):
        return
    lengths = {LENGTHS[call.name]: 10} if call.name in LENGTHS else {}
    optimizer = torch.optim.SGD([_weight()], lr=0.1, momentum=0.9)
    getattr(lr_scheduler, call.name)(optimizer, **{**lengths, **call.arguments})


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_momentum_that_can_be_cycled(name: str) -> None:
    optimizer = getattr(torch.optim, name)([_weight()])
    assert ("momentum" in optimizer.defaults or "betas" in optimizer.defaults) == (name in MOMENTUM)


@SETTINGS
@given(st.data())
def test_torch_takes_losses(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(LOSSES)))
    getattr(torch.nn, name)(**data.draw(arguments(LOSSES[name])))
