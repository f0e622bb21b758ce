"""Groups of parameters, and optimisers made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cnnspec.api import load
from cnnspec.backends.torch import to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.freezing import freeze
from cnnspec.training.optimizing import Update, make_optimizer, parameter_groups
from cnnspec.training.recipe.known import OPTIMIZERS
from cnnspec.training.recipe.model import Call, Clip
from tests.training.runs import PLAIN, small


def test_only_weights_decay_if_asked() -> None:
    graph = load("resnet18").graph
    module = to_torch(graph)
    (everything,) = parameter_groups(graph, module, PLAIN)
    assert everything.decay
    assert list(everything.keys) == [key for key, _ in module.named_parameters()]
    groups = parameter_groups(graph, module, replace(PLAIN, decay="weights"))
    sizes = {key: each.ndim for key, each in module.named_parameters()}
    assert {group.decay: {sizes[key] > 1 for key in group.keys} for group in groups} == {
        True: {True},
        False: {False},
    }
    assert sum(group.elements for group in groups) == everything.elements


def test_rates_by_path_and_frozen_ones_out() -> None:
    graph = small()
    module = to_torch(graph)
    freeze(module, ["norm"])
    recipe = replace(PLAIN, rates={"*": 0.1, "head": 2.0, "head.bias": 4.0})
    groups = parameter_groups(graph, module, recipe)
    assert {group.factor: group.keys for group in groups} == {
        0.1: ("conv.weight",),
        2.0: ("head.weight",),
        4.0: ("head.bias",),
    }
    optimizer = make_optimizer(Call("SGD", {"lr": 0.5}), groups, dict(module.named_parameters()))
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 1.0, 2.0]
    with pytest.raises(EnvironmentFailure, match="`hed`"):
        parameter_groups(graph, module, replace(PLAIN, rates={"hed": 1.0}))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimiser_moves_the_weights_and_resumes(name: str) -> None:
    graph = small()
    recipe = replace(PLAIN, decay="weights")

    def stepped(steps: int, state: object = None, weights: object = None) -> tuple[object, object]:
        module = to_torch(graph)
        if weights is not None:
            module.load_state_dict(weights)  # type: ignore[arg-type]
        parameters = dict(module.named_parameters())
        groups = parameter_groups(graph, module, recipe)
        optimizer = make_optimizer(Call(name, {"lr": 0.01}), groups, parameters)
        if state is not None:
            optimizer.load_state_dict(state)  # type: ignore[arg-type]
        for _ in range(steps):
            optimizer.zero_grad()
            images = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
            module.eval()
            module(images).square().sum().backward()
            optimizer.step()
        return optimizer.state_dict(), {k: v.clone() for k, v in module.state_dict().items()}

    state, weights = stepped(2)
    _, resumed = stepped(2, state, weights)
    _, whole = stepped(4)
    started = to_torch(graph).state_dict()
    assert isinstance(resumed, dict)
    assert isinstance(whole, dict)
    assert not torch.equal(whole["conv.weight"], started["conv.weight"])
    assert all(torch.equal(resumed[key], each) for key, each in whole.items())


def test_lists_and_defaults_reach_torch() -> None:
    graph = small()
    module = to_torch(graph)
    groups = parameter_groups(graph, module, replace(PLAIN, decay="weights", rates={"head": 0.5}))
    call = Call("AdamW", {"betas": (0.8, 0.9), "weight_decay": 0.3})
    optimizer = make_optimizer(call, groups, dict(module.named_parameters()))
    decays = {
        group.keys[0]: found for group, found in zip(groups, optimizer.param_groups, strict=True)
    }
    assert decays["conv.weight"]["weight_decay"] == 0.3
    assert decays["norm.weight"]["weight_decay"] == 0.0
    assert decays["head.weight"]["lr"] == pytest.approx(0.5 * 1e-3)
    assert decays["head.weight"]["betas"] == (0.8, 0.9)


def test_what_torch_refuses_is_said() -> None:
    graph = small()
    module = to_torch(graph)
    groups = parameter_groups(graph, module, PLAIN)
    parameters = dict(module.named_parameters())
    with pytest.raises(EnvironmentFailure, match="no optimiser `Sgd`"):
        make_optimizer(Call("Sgd"), groups, parameters)
    with pytest.raises(EnvironmentFailure, match="refuses the optimiser `SGD`"):
        make_optimizer(Call("SGD", {"nesterov": True}), groups, parameters)


@pytest.mark.parametrize("clip", [Clip(norm=0.5), Clip(value=0.1)])
def test_clipping(clip: Clip) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))]
    for each in parameters:
        each.grad = torch.tensor([3.0, -4.0])
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    recipe = replace(PLAIN, clip=clip)
    Update(optimizer, parameters, recipe, torch.device("cpu")).apply()
    moved = torch.cat([each.detach() for each in parameters])
    if clip.norm is not None:
        assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)
        assert float(moved[0] / moved[1]) == pytest.approx(-0.75)
    else:
        assert moved.tolist() == pytest.approx([-0.1, 0.1] * 2)
