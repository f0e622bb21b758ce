"""Whole runs in one process: exact resumes, what a recipe asks for, how a run may end."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, replace
from math import isfinite, log
from typing import Any

import pytest
import torch

from cnnspec.api import load
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.compiling import compiler_explained
from cnnspec.training.distribution.place import joined
from cnnspec.training.engine import Interrupted, train
from cnnspec.training.planning import plan
from cnnspec.training.recipe.model import Call, Checkpointing, EarlyStop, Recipe, Schedule
from cnnspec.training.state import FORMAT
from cnnspec.training.stepping import Stepper
from cnnspec.training.watching import EpochFigures, Stepped
from tests.training.runs import PLAIN, RICH, SMALL, Kept, Noting, here, run, small


def _equal(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


_TIMED = ("seconds", "samples_per_second", "memory")


def _timeless(figures: EpochFigures) -> dict[str, Any]:
    return {key: value for key, value in asdict(figures).items() if key not in _TIMED}


def _without_times(state: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {key: value for key, value in row.items() if key not in _TIMED}
        for row in (*state["history"], state["best"] or {})
    ]
    return {**state, "seconds": 0, "history": rows, "best": None}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bfloat16"},
        {"precision": "float16", "ema": None},
        {"accumulate": 4, "channels_last": True},
        {
            "optimizer": Call("SGD", {"lr": 0.1, "momentum": 0.9}),
            "schedule": Schedule(scheduler=Call("ReduceLROnPlateau", {"patience": 0})),
        },
        {"mixup": 0.4, "cutmix": 1.0, "schedule": None},
        {"freeze": ("conv", "norm"), "rates": {"head": 0.5}},
    ],
)
def test_a_resume_from_anywhere_ends_in_the_same_state(changes: dict[str, Any]) -> None:
    recipe = replace(RICH, **changes)
    _, noted, kept = run(small(), recipe)
    assert len(kept.states) == 6
    positions = [(state["epoch"], state["step"]) for state in kept.states]
    assert positions == [(0, 3), (0, 6), (1, 0), (1, 3), (1, 6), (2, 0)]
    for state in (kept.states[0], kept.states[2], kept.states[4]):
        outcome, again, kept_again = run(small(), recipe, resume=state)
        assert _equal(_without_times(kept_again.states[-1]), _without_times(kept.states[-1]))
        assert kept.final is not None
        assert _equal(dict(outcome.weights), dict(kept.final))
        assert again.losses == noted.losses[state["taken"] :]
        figures = [_timeless(each) for each in outcome.history]
        assert figures == [_timeless(each) for each in noted.epochs]


def test_a_state_holds_plain_things(tmp_path: Any) -> None:
    _, _, kept = run(small(), RICH)
    path = tmp_path / "state.pt"
    torch.save(kept.states[0], path)
    state = torch.load(path, weights_only=True)
    assert state["format"] == FORMAT
    run(small(), RICH, resume=state)


def test_a_finished_run_has_nothing_left_to_do() -> None:
    outcome, _, kept = run(small(), RICH)
    again, noted, _ = run(small(), RICH, resume=kept.states[-1])
    assert not noted.steps
    assert (again.epochs, again.steps) == (outcome.epochs, outcome.steps) == (2, 16)
    assert _equal(dict(again.weights), dict(outcome.weights))


def test_states_of_other_runs_are_refused() -> None:
    _, _, kept = run(small(), RICH)
    with pytest.raises(EnvironmentFailure, match="epochs of 8 steps, and now they are 24"):
        run(small(), PLAIN, resume=kept.states[0])
    with pytest.raises(EnvironmentFailure, match="another `ema`"):
        run(small(), replace(RICH, ema=None), resume=kept.states[0])
    with pytest.raises(EnvironmentFailure, match="another network"):
        run(load("lenet5").graph, RICH, resume=kept.states[0])
    with pytest.raises(EnvironmentFailure, match="has format 0"):
        run(small(), RICH, resume={**kept.states[0], "format": 0})


# ---------------------------------------------------------------------------------- what is asked


def test_the_first_loss_is_that_of_guessing() -> None:
    _, noted, _ = run(load("lenet5").graph, replace(PLAIN, batch_size=1437))
    assert noted.losses[0] == pytest.approx(log(10), abs=0.05)


def test_parts_of_a_batch_are_one_batch() -> None:
    graph = load("lenet5").graph
    whole, one, _ = run(graph, PLAIN)
    parted, other, _ = run(graph, replace(PLAIN, accumulate=4))
    assert other.losses == pytest.approx(one.losses, abs=1e-5)
    for key, each in whole.weights.items():
        torch.testing.assert_close(parted.weights[key], each, atol=1e-5, rtol=0)


def test_figures_of_an_epoch() -> None:
    outcome, noted, kept = run(small(), replace(PLAIN, epochs=2))
    first, last = noted.epochs
    assert (first.epoch, first.step, last.epoch, last.step) == (0, 24, 1, 48)
    assert first.train_loss == pytest.approx(
        sum(step.loss * step.samples for step in noted.steps[:24]) / 1437
    )
    right = [step.correct for step in noted.steps[:24]]
    assert first.train_top1 == pytest.approx(sum(filter(None, right)) / 1437)
    assert set(last.held_out) == {"loss", "top1", "top5"}
    assert outcome.figures == last
    assert noted.begun == [(0, 0), (1, 0)]
    assert [step.step for step in noted.steps] == [*range(1, 25)] * 2
    assert kept.final is not None


def test_the_average_is_evaluated_and_kept() -> None:
    recipe = replace(PLAIN, ema=0.9)
    outcome, _, kept = run(small(), recipe)
    plainly, _, _ = run(small(), PLAIN)
    state = kept.states[-1]
    assert _equal(dict(outcome.weights), state["ema"])
    # The weights themselves go on as if there were no average.
    assert _equal(state["model"], dict(plainly.weights))
    assert outcome.history[-1].held_out != plainly.history[-1].held_out


def test_frozen_parts_stay_to_the_bit() -> None:
    outcome, _, kept = run(small(), replace(RICH, ema=None, freeze=("conv", "norm")))
    started = plan(small(), RICH, place=here()).module.state_dict()
    for key in started:
        assert torch.equal(outcome.weights[key], started[key]) == (not key.startswith("head"))
    assert len(kept.states[-1]["optimizer"]["state"]) == 2


def test_the_best_is_kept() -> None:
    _, noted, kept = run(small(), replace(PLAIN, epochs=4, checkpoint=Checkpointing(best="loss")))
    losses = [figures.held_out["loss"] for figures in noted.epochs]
    best = [figures for figures in noted.epochs if figures.best]
    assert kept.best == best
    assert best[-1].held_out["loss"] == min(losses)


def test_training_stops_when_nothing_gets_better() -> None:
    recipe = replace(
        PLAIN,
        epochs=20,
        optimizer=Call("SGD", {"lr": 0.0}),
        early_stop=EarlyStop(patience=3, metric="top1"),
        checkpoint=Checkpointing(epochs=5),
    )
    graph = load("lenet5").graph
    outcome, _, kept = run(graph, recipe)
    assert outcome.stopped_early
    assert outcome.epochs == 4
    again, noted, _ = run(graph, recipe, resume=kept.states[-1])
    assert again.stopped_early
    assert not noted.steps


def test_checkpoints_come_as_often_as_asked() -> None:
    recipe = replace(PLAIN, epochs=5, checkpoint=Checkpointing(epochs=2))
    _, _, kept = run(small(), recipe)
    assert [state["epoch"] for state in kept.states] == [2, 4, 5]


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_other_ways_to_compute_learn_as_well(changes: dict[str, Any]) -> None:
    outcome, _, _ = run(small(), replace(PLAIN, epochs=3, **changes))
    assert outcome.figures is not None
    assert outcome.figures.held_out["top1"] > 0.85
    assert all(each.dtype in (torch.float32, torch.int64) for each in outcome.weights.values())


# --------------------------------------------------------------------------------- how a run ends


class Signalling(Noting):
    """Sends this process a signal behind a step, or in an evaluation."""

    def __init__(self, number: int, at: int | None) -> None:
        super().__init__()
        self._number, self._at = number, at

    def stepped(self, step: Stepped) -> None:
        super().stepped(step)
        if len(self.steps) == self._at:
            os.kill(os.getpid(), self._number)

    def evaluating(self, done: int, whole: int) -> None:
        if self._at is None:
            self._at = -1
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize(
    ("number", "at", "position"),
    [(signal.SIGINT, 5, (0, 5)), (signal.SIGTERM, 11, (1, 3)), (signal.SIGINT, None, (0, 8))],
)
def test_a_signal_ends_the_step_and_a_resume_goes_on(
    number: int, at: int | None, position: tuple[int, int]
) -> None:
    whole, _, _ = run(small(), RICH)
    kept = Kept()
    with joined(here()), pytest.raises(Interrupted) as stop:
        train(plan(small(), RICH, place=here()), kept, Signalling(number, at))
    assert stop.value.exit_code == 128 + number
    assert (stop.value.epoch, stop.value.step) == position
    assert (kept.states[-1]["epoch"], kept.states[-1]["step"]) == position
    assert kept.final is None
    outcome, _, _ = run(small(), RICH, resume=kept.states[-1])
    assert _equal(dict(outcome.weights), dict(whole.weights))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _fails(graph: Any, recipe: Recipe) -> tuple[EnvironmentFailure, Kept]:
    kept = Kept()
    with joined(here()), pytest.raises(EnvironmentFailure) as failure:
        train(plan(graph, recipe, place=here()), kept, Noting())
    tensors = [each for state in kept.states for each in state["model"].values()]
    assert all(bool(each.isfinite().all()) for each in tensors)
    return failure.value, kept


def test_a_loss_that_is_no_number_names_the_layer() -> None:
    recipe = replace(PLAIN, optimizer=Call("SGD", {"lr": 1e30}), checkpoint=Checkpointing(steps=1))
    failure, kept = _fails(
        load(text=SMALL.replace("  - BatchNorm2d:\n    name: norm\n", "")).graph, recipe
    )
    assert "is not finite: `" in failure.message
    assert "layer whose output is not finite" in failure.message
    assert "clip" in failure.help
    assert kept.final is None


def test_the_layer_that_makes_it_is_named() -> None:
    spec = SMALL.replace(
        "  - ReLU\n",
        "  - ReLU:\n    name: rectify\n  - LPPool2d: "
        "{norm_type: 300, kernel_size: 2, stride: 1}\n    name: huge\n",
    )
    graph = load(text=spec).graph
    failure, _ = _fails(graph, replace(PLAIN, optimizer=Call("SGD", {"lr": 0.0})))
    assert "`huge`" in failure.message


def test_weights_that_are_no_numbers_are_not_kept() -> None:
    # The loss of the one step is finite, its gradients move the weights out of all bounds.
    recipe = replace(
        PLAIN, batch_size=1437, optimizer=Call("SGD", {"lr": 1e9, "weight_decay": 1e38})
    )
    failure, kept = _fails(load("lenet5").graph, recipe)
    assert "is not finite behind step 1" in failure.message
    assert not kept.states


def test_what_is_not_finite_on_held_out_samples_is_not_kept() -> None:
    # The one step is finite, and so are the weights behind it.
    recipe = replace(
        PLAIN,
        batch_size=1437,
        optimizer=Call("SGD", {"lr": 1e38}),
        checkpoint=Checkpointing(best="loss"),
    )
    failure, kept = _fails(small(), recipe)
    assert failure.message == "the loss of held-out samples is not finite behind step 1"
    assert not kept.states
    assert not kept.best


def test_a_compiler_that_fails_says_so() -> None:
    from torch._dynamo.exc import TorchDynamoException

    said = "cannot compile the network: no compiler"
    with pytest.raises(EnvironmentFailure, match=said), compiler_explained(wanted=True):
        raise TorchDynamoException("no compiler")
    with pytest.raises(ZeroDivisionError), compiler_explained(wanted=True):
        raise ZeroDivisionError


def test_too_little_memory_says_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate ...")

    monkeypatch.setattr(Stepper, "take", full)
    failure, _ = _fails(small(), PLAIN)
    assert "a step of 60 samples at once does not fit" in failure.message


def test_every_loss_is_a_number() -> None:
    _, noted, _ = run(small(), RICH)
    assert all(map(isfinite, noted.losses))
