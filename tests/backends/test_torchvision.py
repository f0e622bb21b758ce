"""Bundled specs with torchvision's own weights: loaded strictly, they compute what it computes.

Every network, at its own size, runs torchvision's operations in torchvision's order: on the meta
device, where even the largest costs little. Values are compared where that can be afforded: for
each spec at its own size, at another one, or both; inference and a step of training, in which
dropout and stochastic depth draw from equal seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from time import process_time
from typing import NamedTuple

import pytest
import torch

import cnnspec
from bench.departures import PARTS, departure
from cnnspec.backends.torch import named_outputs
from tests import aten, torchvision_values
from tests.fuzzing.comparison import module_of
from tests.golden import oracles
from tests.torchvision_networks import (
    difference,
    enliven,
    lively,
    pixels,
    reference,
)
from tests.torchvision_values import input_of, of_inference, of_training

MORE_OF_THE_SAME = frozenset(
    {
        "convnext_base",
        "convnext_large",
        "deeplabv3_resnet101",
        "densenet161",
        "densenet169",
        "densenet201",
        "fcn_resnet101",
        "regnet_x_16gf",
        "regnet_x_1_6gf",
        "regnet_x_32gf",
        "regnet_x_3_2gf",
        "regnet_x_800mf",
        "regnet_x_8gf",
        "regnet_y_128gf",
        "regnet_y_16gf",
        "regnet_y_1_6gf",
        "regnet_y_32gf",
        "regnet_y_3_2gf",
        "regnet_y_800mf",
        "regnet_y_8gf",
        "resnet152",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "vgg13",
        "vgg13_bn",
        "vgg19",
        "vgg19_bn",
        "wide_resnet101_2",
    }
)
"""Deeper or wider than others, of the same blocks: `bench.module` and `bench.values` have them."""

OTHERWISE = ("efficientnet", "mnasnet", "shufflenet_v2")
"""Families that do the same by other operations: torchvision averages without keeping axes,
shuffles by views, and overwrites what dropout reads. Their values are compared."""

NAMES = [
    name
    for name in oracles.NETWORKS
    if name not in MORE_OF_THE_SAME and not name.startswith(OTHERWISE)
]


class Case(NamedTuple):
    name: str
    size: tuple[int, int] | None = None
    """Height and width of the input; None for the spec's own."""


INFERRED = [
    Case("resnet50"),
    Case("googlenet"),
    Case("convnext_tiny"),
    Case("mobilenet_v3_large", (75, 50)),
    Case("inception_v3"),
]
"""Too dear to be trained here."""

TRAINED = [
    Case("alexnet"),
    Case("alexnet", (64, 90)),
    Case("vgg11_bn", (32, 40)),
    Case("googlenet", (96, 64)),
    Case("resnet18"),
    Case("resnet18", (65, 80)),
    Case("resnet50", (64, 64)),
    Case("resnext50_32x4d", (64, 64)),
    Case("densenet121", (64, 70)),
    Case("mobilenet_v3_small"),
    Case("mobilenet_v3_large", (64, 64)),
    Case("convnext_tiny", (64, 64)),
    Case("vit_b_16"),
    Case("deeplabv3_resnet50", (40, 48)),
    Case("deeplabv3_mobilenet_v3_large", (64, 48)),
    Case("efficientnet_b0", (64, 64)),
    Case("efficientnet_v2_s", (64, 64)),
    Case("fcn_resnet50", (40, 48)),
    Case("lraspp_mobilenet_v3_large", (64, 80)),
    Case("mnasnet0_5", (64, 96)),
    Case("mobilenet_v2", (64, 96)),
    Case("regnet_x_400mf", (64, 64)),
    Case("regnet_y_400mf", (65, 64)),
    Case("shufflenet_v2_x0_5", (64, 64)),
    Case("squeezenet1_1", (64, 70)),
]

SECONDS_TO_BUILD = 20.0
"""Of the processor, for the largest; a few are usual."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Where others compute as well, threads wait for one another."""
    with torchvision_values.one_thread():
        yield


def network(case: Case) -> cnnspec.Network:
    return cnnspec.load(case.name, inputs={"image": (3, *case.size)} if case.size else None)


# -------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("case", INFERRED, ids=str)
def test_infers_what_torchvision_does(case: Case) -> None:
    net, theirs = network(case), reference(case.name)
    ours = net.to_torch().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert max(of_inference(net, ours, theirs).values()) <= 1e-6


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_computes_and_trains_as_torchvision_does(case: Case) -> None:
    """Outputs of both modes, gradients of all weights, and everything stored after a step."""
    net, theirs = network(case), reference(case.name)
    began = process_time()
    ours = net.to_torch()
    assert process_time() - began < SECONDS_TO_BUILD
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert max(of_inference(net, ours, theirs).values()) <= 1e-6
    outputs, gradients, silent, stored = of_training(net, ours, theirs)
    assert not silent
    assert max(outputs.values()) <= 1e-6
    assert max(gradients.values()) <= 1e-5, max(gradients, key=lambda key: gradients[key])
    assert max(stored.values()) <= 1e-6, max(stored, key=lambda key: stored[key])


def test_computes_and_trains_as_torchvisions_pyramid() -> None:
    net = cnnspec.load("fpn")
    theirs = deepcopy(oracles.pyramid()).to_empty(device="cpu")
    enliven(theirs)
    ours = net.to_torch()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    report = net.analyze()
    given = {
        name: pixels(2, channels, *(size // 4 for size in sizes), seed=number)
        for number, (name, (channels, *sizes)) in enumerate(report.inputs.items())
    }
    found = net.with_inputs(**{name: given[name].shape[1:] for name in given})
    wanted = theirs(given)
    made = named_outputs(found.graph, ours(*given.values()), training=True)
    for mine, other in zip(made.values(), wanted.values(), strict=True):
        assert lively(other)
        assert difference(mine.detach(), other.detach()) <= 1e-6
    for outputs in (made, wanted):
        torch.autograd.backward([output.square().mean() for output in outputs.values()])
    for (key, mine), (other_key, other) in zip(
        sorted(ours.named_parameters()), sorted(theirs.named_parameters()), strict=True
    ):
        assert key == other_key
        assert mine.grad is not None
        assert other.grad is not None
        assert difference(mine.grad, other.grad) <= 1e-5, key


# ---------------------------------------------------------------------------------- operations


@pytest.mark.parametrize("name", NAMES)
def test_runs_the_operations_of_torchvision(name: str) -> None:
    """At the network's own size: inference, forward and backward of training."""
    net = cnnspec.load(name)
    ours, theirs = module_of(net.graph), deepcopy(oracles.model(name))
    given = input_of(net).to("meta")
    pairs = (
        (aten.of_inference(ours, given), aten.of_inference(theirs, given)),
        *zip(aten.of_training(ours, given), aten.of_training(theirs, given), strict=True),
    )
    for part, (mine, other) in zip(PARTS, pairs, strict=True):
        stated = departure(name, part)
        if stated is None:
            assert not list(aten.differences(mine, other))
            continue
        assert mine != other
        assert stated.explains(mine, other), stated.reason
        for changed in (mine[1:], [*mine, mine[-1]], _with_another_convolution(mine)):
            assert not stated.explains(changed, other), stated.reason


def _with_another_convolution(operations: list[str]) -> list[str]:
    number = next(at for at, each in enumerate(operations) if "convolution" in each)
    changed = operations[number].replace("[1, 1], False", "[2, 2], False")
    assert changed != operations[number]
    return [*operations[:number], changed, *operations[number + 1 :]]
