"""How the weights of modules start, and that a module which is not what was analyzed is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from cnnspec.backends.torch import ModuleMismatchError, to_torch
from cnnspec.op import Site
from cnnspec.ops import bind
from cnnspec.ops.conv import Conv2d
from cnnspec.tensor import Role, Tensor
from cnnspec.weights import Weight
from tests.backends.torch_networks import DOTTED, PLAIN, RESIDUAL, network
from tests.ops.harness import alone


def test_weights_depend_on_the_seed_and_their_key_alone() -> None:
    first = to_torch(network(RESIDUAL), seed=3).state_dict()
    again = to_torch(network(RESIDUAL), seed=3).state_dict()
    other = to_torch(network(RESIDUAL), seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["fc.weight"], other["fc.weight"])
    longer = to_torch(network(RESIDUAL.replace("range(4)", "range(5)")), seed=3).state_dict()
    assert all(torch.equal(first[key], longer[key]) for key in first)
    assert not torch.equal(first["layer1.0.conv1.weight"], first["layer1.1.conv1.weight"])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    to_torch(network(PLAIN))
    assert torch.equal(torch.rand(2), expected)


def test_weights_start_as_the_rules_say() -> None:
    state = to_torch(network(RESIDUAL)).state_dict()
    bound = 1 / 64**0.5
    weight = state["layer3.0.downsample.0.weight"]
    assert weight.shape == (32, 16, 1, 1)
    assert weight.abs().max() <= 1 / 4
    assert weight.std().item() == pytest.approx(1 / 4 / 3**0.5, rel=0.1)
    assert state["fc.bias"].abs().max() <= bound * 2**0.5
    assert torch.equal(state["bn1.weight"], torch.ones(8))
    assert torch.equal(state["bn1.running_var"], torch.ones(8))
    assert state["bn1.num_batches_tracked"].dtype == torch.int64
    scale = to_torch(network(DOTTED)).state_dict()["c.scale"]
    assert torch.equal(scale, torch.full((4, 1, 1), 0.5))


def test_init_of_an_entry_wins() -> None:
    text = PLAIN.replace(
        "  - Linear: {out_features: 5}\n",
        "  - Linear: {out_features: 5}\n    init: {weight: {constant: {val: 2}}, bias: zeros}\n",
    )
    state = to_torch(network(text)).state_dict()
    assert torch.equal(state["4.weight"], torch.full((5, 100), 2.0))
    assert torch.equal(state["4.bias"], torch.zeros(5))


class Lying(Conv2d, name="Conv2d"):
    """A convolution whose rules promise another bias than its lowering has."""

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """One element too many."""
        found = dict(super().weights(at))
        return {**found, "bias": Weight((self.out_channels + 1,), found["bias"].init)}


def test_a_module_that_is_not_what_was_analyzed_is_refused() -> None:
    image = Tensor((3, 8, 8), (Role.CHANNEL, Role.HEIGHT, Role.WIDTH))
    graph = alone(bind(Lying, {"out_channels": 4, "kernel_size": 3}), [image])
    message = "made a module that is not what it analyzed: `op.bias`"
    with pytest.raises(ModuleMismatchError, match=message):
        to_torch(graph)
