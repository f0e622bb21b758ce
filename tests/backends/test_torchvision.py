"""Bundled specs with torchvision's own weights: loaded strictly, they compute what it computes.

Every network, at its own size, runs torchvision's operations in torchvision's order: on the meta
device, where even the largest costs little. Values are compared where that can be afforded: for
each spec at its own size, at another one, or both; inference and a step of training, in which
dropout and stochastic depth draw from equal seeds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from time import process_time
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import cnnspec
from cnnspec.backends.torch import named_outputs
from tests import aten
from tests.fuzzing.comparison import module_of
from tests.golden import oracles
from tests.torchvision_networks import (
    difference,
    enliven,
    lively,
    pixels,
    reference,
    without_dropout,
)

MORE_OF_THE_SAME = frozenset(
    {
        "convnext_base",
        "convnext_large",
        "deeplabv3_resnet101",
        "densenet161",
        "densenet169",
        "densenet201",
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
"""Deeper or wider than others, of the same blocks; `python -m bench.module` takes them too."""

NAMES = sorted({name for names in oracles.SHARED.values() for name in names} - MORE_OF_THE_SAME)


class Case(NamedTuple):
    name: str
    size: tuple[int, int] | None = None
    """Height and width of the input; None for the spec's own."""


INFERRED = [
    Case("resnet50"),
    Case("googlenet"),
    Case("convnext_tiny"),
    Case("mobilenet_v3_large", (75, 50)),
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
]

SECONDS_TO_BUILD = 20.0
"""Of the processor, for the largest; a few are usual."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Where others compute as well, threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def network(case: Case) -> cnnspec.Network:
    return cnnspec.load(case.name, inputs={"image": (3, *case.size)} if case.size else None)


def of_ours(net: cnnspec.Network, module: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """Our outputs by name."""
    return named_outputs(net.graph, module(given), training=module.training)


def of_theirs(net: cnnspec.Network, module: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """torchvision's outputs, by the names that the specs have for them."""
    made = module(given)
    if isinstance(made, Tensor):
        (name,) = net.analyze().outputs
        return {name: made}
    named = made if isinstance(made, dict) else made._asdict()
    return {name.replace("aux_logits", "aux"): tensor for name, tensor in named.items()}


def input_of(net: cnnspec.Network) -> Tensor:
    (shape,) = net.analyze().inputs.values()
    return pixels(2, *shape)


# -------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("case", INFERRED, ids=str)
def test_infers_what_torchvision_does(case: Case) -> None:
    net, theirs = network(case), reference(case.name)
    ours = net.to_torch().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    compare_inference(net, ours, theirs)


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_computes_and_trains_as_torchvision_does(case: Case) -> None:
    """Outputs of both modes, gradients of all weights, and everything stored after a step."""
    net, theirs = network(case), reference(case.name)
    began = process_time()
    ours = net.to_torch()
    assert process_time() - began < SECONDS_TO_BUILD
    ours.load_state_dict(theirs.state_dict(), strict=True)
    compare_inference(net, ours, theirs)

    given = input_of(net)
    if case.name == "googlenet":
        # Its heads for training run in another order, and so would draw other numbers.
        with without_dropout(ours, theirs):
            found, wanted = of_ours(net, ours, given), of_theirs(net, theirs, given)
    else:
        ours.train()
        theirs.train()
        torch.manual_seed(3)
        found = of_ours(net, ours, given)
        torch.manual_seed(3)
        wanted = of_theirs(net, theirs, given)
    assert set(found) == set(wanted)
    for name, mine in found.items():
        assert lively(wanted[name])
        assert difference(mine.detach(), wanted[name].detach()) <= 1e-6, name

    for module, outputs in ((ours, found), (theirs, wanted)):
        step = torch.optim.SGD(module.parameters(), lr=1e-3)
        torch.autograd.backward([outputs[name].square().mean() for name in found])
        step.step()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        other = gradients.pop(key)
        assert parameter.grad is not None
        assert other is not None
        assert other.any(), key
        assert difference(parameter.grad, other) <= 1e-5, key
    assert not gradients
    after = theirs.state_dict()
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, after[key], rtol=1e-6, atol=1e-6)


def compare_inference(net: cnnspec.Network, ours: nn.Module, theirs: nn.Module) -> None:
    given = input_of(net)
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        found, wanted = of_ours(net, ours, given), of_theirs(net, theirs, given)
    assert found
    for name, mine in found.items():
        assert lively(wanted[name])
        assert difference(mine, wanted[name]) <= 1e-6, name


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

DEPARTURES = ("deeplabv3", "densenet", "googlenet", "mobilenet", "vit")
"""Families of which some operation is another one, for the reasons below."""

HEADS_ALWAYS = frozenset({"deeplabv3_resnet50", "deeplabv3_resnet101"})
"""torchvision runs heads for training in inference too; what it computes there is left out."""

REORDERED = frozenset({"googlenet"})
"""Its heads for training come earlier in torchvision's forward."""

JOINS = frozenset({"cat", "slice", "add"})
"""Our dense layers add to what is joined already, torchvision's join all parts so far anew."""

SAME: Mapping[str, str] = {
    "select": "slice",
    "slice": "slice",
    "select_backward": "slice_backward",
    "slice_backward": "slice_backward",
    "new_empty": "empty",
    "empty": "empty",
}
"""Ways to say the same: a token taken with its axis and without, memory that is filled next."""


class Step(NamedTuple):
    """An operation, in place or not, and the shapes it reads."""

    name: str
    shapes: tuple[str, ...]


def steps(operations: Sequence[str]) -> Iterator[Step]:
    """What the operations compute: without views, copies, and where results are kept."""
    for operation in operations:
        called, _, given = operation.removeprefix("aten.").partition("(")
        name = called.partition(".")[0]
        name = name if name.startswith("_") else name.rstrip("_")
        if name not in ("clone", "view", "detach"):
            shapes = () if name in SAME else re.findall(r"\w+\[[\d, ]*\]", given)
            yield Step(SAME.get(name, name), tuple(shapes))


def without_joins(found: Sequence[Step]) -> list[Step]:
    return [step for step in found if step.name not in JOINS]


@pytest.mark.parametrize("name", NAMES)
def test_runs_the_operations_of_torchvision(name: str) -> None:
    """At the network's own size: inference, forward and backward of training."""
    net = cnnspec.load(name)
    ours, theirs = module_of(net.graph), deepcopy(oracles.model(name))
    given = input_of(net).to("meta")
    for mine, other in (
        (aten.of_inference(ours, given), aten.of_inference(theirs, given)),
        *zip(aten.of_training(ours, given), aten.of_training(theirs, given), strict=True),
    ):
        if not name.startswith(DEPARTURES):
            assert not list(aten.differences(mine, other))
            continue
        found, wanted = list(steps(mine)), list(steps(other))
        assert found
        if name.startswith("densenet"):
            found, wanted = without_joins(found), without_joins(wanted)
        if name in HEADS_ALWAYS and len(found) < len(wanted):
            assert not Counter(found) - Counter(wanted)
        elif name in REORDERED:
            assert Counter(found) == Counter(wanted)
        else:
            assert not list(aten.differences(list(map(str, found)), list(map(str, wanted))))
