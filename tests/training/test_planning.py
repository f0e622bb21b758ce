"""What is decided before the first step, and what cannot be trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnnspec.api import load
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.distribution.place import Place, find_place
from cnnspec.training.ema import WeightAverage
from cnnspec.training.interrupting import Interruption
from cnnspec.training.memory_estimate import estimate, largest_batch
from cnnspec.training.non_finite import first_odd_tensor
from cnnspec.training.planning import plan
from cnnspec.training.recipe.model import Call, Data, OutputLoss, Recipe
from cnnspec.training.seeding import mixed
from tests.training.runs import PLAIN, RICH, SMALL, here, small


def _of(world: int) -> Place:
    return Place(torch.device("cpu"), world=world)


def test_a_plan_says_what_will_happen() -> None:
    found = plan(small(), replace(RICH, freeze=("conv",)), place=here())
    assert (found.samples, found.held_out, found.steps, found.shape) == (1437, 360, 8, (1, 8, 8))
    assert found.frozen == ("conv.weight",)
    assert found.trained == 8 + 8 + 288 * 10 + 10


@pytest.mark.parametrize(
    ("batch", "world", "accumulate", "steps", "drops"),
    [
        (60, 1, 1, 24, False),
        (479, 3, 1, 3, False),
        (359, 1, 1, 4, True),  # one sample would be alone
        (287, 1, 1, 6, False),  # two are enough
        (287, 2, 1, 5, True),
        (284, 2, 4, 6, False),
        (2000, 1, 1, 1, False),
    ],
)
def test_steps_of_an_epoch(
    batch: int, world: int, accumulate: int, steps: int, drops: bool
) -> None:
    recipe = replace(PLAIN, batch_size=batch, accumulate=accumulate)
    found = plan(small(), recipe, place=_of(world))
    assert (found.steps, found.drop_last) == (steps, drops)


def test_what_no_loss_depends_on_does_not_train() -> None:
    spec = SMALL.replace("  - Flatten\n", "  - Flatten:\n    name: flat\n")
    spec += "  - Linear: {out_features: 10}\n    name: side\n    from: flat\n"
    spec += "outputs:\n  main: head\n  aside: {from: side, training: true, weight: 0.4}\n"
    graph = load(text=spec).graph
    assert plan(graph, PLAIN, place=here()).idle == ()
    alone = replace(PLAIN, loss={"main": OutputLoss(loss=Call("CrossEntropyLoss"))})
    found = plan(graph, alone, place=here())
    assert found.idle == ("side.weight", "side.bias")
    assert not any(key.startswith("side") for group in found.groups for key in group.keys)


@pytest.mark.parametrize(
    ("recipe", "world", "message"),
    [
        (replace(PLAIN, data=None), 1, "no data to train with"),
        (replace(PLAIN, batch_size=4), 5, "a batch of 4 has too few samples for 5 processes"),
        (replace(PLAIN, sync_batch_norm=True), 2, "cannot share their statistics"),
        (replace(PLAIN, freeze=("convolution",)), 1, "`convolution`"),
        (replace(PLAIN, freeze=("*",)), 1, "nothing trains"),
    ],
)
def test_what_cannot_be_trained(recipe: Recipe, world: int, message: str) -> None:
    with pytest.raises(EnvironmentFailure, match=message):
        plan(small(), recipe, place=_of(world))


@pytest.mark.parametrize(
    ("batch", "samples", "world", "accumulate", "help"),
    [
        (1, 64, 1, 1, "`--batch-size 2` is the least"),
        (7, 64, 2, 2, "`--batch-size 8` is the least"),
        (8, 7, 2, 2, "there are 7 samples to train with"),
        (8, 64, 2, 2, None),
        (64, 8, 1, 4, None),
    ],
)
def test_norms_need_more_than_one_sample(
    batch: int, samples: int, world: int, accumulate: int, help: str | None
) -> None:
    data = replace(PLAIN.data or Data(source=""), source="random", samples=samples)
    recipe = replace(PLAIN, data=data, batch_size=batch, accumulate=accumulate)
    plan(small(), recipe, place=_of(world))  # its norm has many positions
    spec = SMALL + "  - BatchNorm1d:\n    name: last\n"
    graph = load(text=spec).graph
    if help is None:
        plan(graph, recipe, place=_of(world))
        return
    with pytest.raises(EnvironmentFailure, match="`last` takes the mean") as failure:
        plan(graph, recipe, place=_of(world))
    assert failure.value.help == help
    plan(graph, replace(recipe, freeze=("last",)), place=_of(world))


def test_other_classes_than_the_output_tells_apart() -> None:
    with pytest.raises(EnvironmentFailure, match=r"has 10 classes, and output .* 7") as failure:
        plan(load("lenet5", params={"classes": 7}).graph, PLAIN, place=here())
    assert failure.value.help == "`--set classes=10` makes it fit"


def test_classes_without_names_are_counted() -> None:
    data = replace(PLAIN.data or Data(source=""), source="random", samples=64, classes=12)
    with pytest.raises(EnvironmentFailure, match=r"`random` has 12 classes, and output .* 10"):
        plan(small(), replace(PLAIN, data=data), place=here())
    plan(small(), replace(PLAIN, data=replace(data, classes=3)), place=here())


# ------------------------------------------------------------------------------------- memory


def test_memory_follows_the_analyzer() -> None:
    network = load("resnet18")
    report = network.analyze(batch=32, optimizer="adam").training_memory
    found = estimate(network.graph, replace(PLAIN, optimizer=Call("Adam")), 32)
    assert found.step == report.peak
    with_average = estimate(network.graph, replace(PLAIN, optimizer=Call("Adam"), ema=0.9), 32)
    assert with_average.step == report.peak + report.weights + report.buffers
    half = estimate(network.graph, replace(PLAIN, optimizer=Call("Adam"), precision="bfloat16"), 32)
    assert half.state == found.state
    assert 0.5 * found.working < half.working < 0.6 * found.working


def test_the_largest_batch_is_the_last_that_fits() -> None:
    graph = load("lenet5").graph
    for room in (2**20, 10 * 2**20, 100 * 2**20):
        most = largest_batch(graph, PLAIN, room)
        assert estimate(graph, PLAIN, most).step <= room < estimate(graph, PLAIN, most + 1).step
    assert largest_batch(graph, PLAIN, 1000) == 0


# ------------------------------------------------------------------------------------- small parts


def test_an_average_follows_its_formula() -> None:
    module = torch.nn.BatchNorm1d(2)
    average = WeightAverage(module, 0.3)
    expected = 1.0
    for taken, value in enumerate((5.0, 7.0, 2.0), 1):
        with torch.no_grad():
            module.weight.fill_(value)
            module.num_batches_tracked.fill_(taken)
        average.update(taken)
        decay = min(0.3, (1 + taken) / (10 + taken))
        expected = decay * expected + (1 - decay) * value
    assert average.tensors["weight"].tolist() == pytest.approx([expected] * 2)
    assert int(average.tensors["num_batches_tracked"]) == 3
    with average.in_place():
        assert module.weight.tolist() == pytest.approx([expected] * 2)
    assert module.weight.tolist() == [2.0, 2.0]


def test_the_first_odd_tensor() -> None:
    sound, none = torch.ones(3), torch.tensor([1.0, float("nan")])
    assert first_odd_tensor({"a": sound, "n": torch.tensor(3)}) is None
    assert first_odd_tensor({"a": sound, "b": none, "c": none}) == "b"
    assert first_odd_tensor({"a": torch.tensor([-float("inf")])}) == "a"


def test_processes_act_on_the_same_signal() -> None:
    assert Interruption.agreed(0.0) is None
    assert Interruption.agreed(3.0) == 2
    term = Interruption()
    term.note(15, None)
    assert Interruption.agreed(term.weight + 2.0) == 15


def test_seeds_differ_in_every_number() -> None:
    seen = {mixed(*numbers) for numbers in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (-1, 0, 0))}
    assert len(seen) == 5
    assert mixed(1, 2) != mixed(2, 1)
    assert all(0 <= each < 2**64 for each in seen)


def test_places_come_from_the_environment() -> None:
    alone = find_place("cpu", threads=3, environment={})
    assert alone == Place(torch.device("cpu"), threads=3)
    assert alone.first
    one = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    found = find_place("cpu", environment=one)
    assert (found.rank, found.world, found.local_rank, found.first) == (3, 4, 1, False)
    with pytest.raises(EnvironmentFailure, match="`RANK` is `x`"):
        find_place("cpu", environment={"RANK": "x"})
