"""Bundled specs with torchvision's own weights: loaded strictly, they compute what it computes.

At the smallest inputs at which a network's windows still fit.
"""

from __future__ import annotations

from time import process_time
from typing import NamedTuple

import pytest
import torch

import cnnspec
from cnnspec.backends.torch import named_outputs
from tests.torchvision_networks import difference, lively, pixels, reference, without_dropout


class Case(NamedTuple):
    name: str
    size: int | None = 64
    """Height and width of the input; None for the spec's own."""


CASES = [
    Case("alexnet"),
    Case("vgg11_bn", 32),
    Case("googlenet", 96),
    Case("resnet18"),
    Case("resnet50"),
    Case("resnext50_32x4d"),
    Case("densenet121"),
    Case("mobilenet_v3_small"),
    Case("mobilenet_v3_large"),
    Case("convnext_tiny"),
    Case("vit_b_16", None),
    Case("deeplabv3_resnet50", 40),
]
SECONDS_TO_BUILD = 20.0
"""Of the processor, for the largest; a few are usual."""


def network(case: Case) -> cnnspec.Network:
    size = case.size
    return cnnspec.load(case.name, inputs={"image": (3, size, size)} if size else None)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_computes_what_torchvision_does(case: Case) -> None:
    theirs = reference(case.name)
    net = network(case)
    began = process_time()
    ours = net.to_torch().eval()
    assert process_time() - began < SECONDS_TO_BUILD
    ours.load_state_dict(theirs.state_dict(), strict=True)

    (shape,) = net.analyze().inputs.values()
    given = pixels(2, *shape)
    with torch.no_grad():
        found = named_outputs(net.graph, ours(given), training=False)
        wanted = theirs(given)
    ((name, mine),) = found.items()
    other = wanted[name] if isinstance(wanted, dict) else wanted
    assert lively(other)
    assert difference(mine, other) <= 1e-6


def test_trains_as_torchvisions_googlenet_does() -> None:
    """With the auxiliary heads: outputs, gradients, and statistics afterwards."""
    theirs = reference("googlenet")
    ours = network(Case("googlenet")).to_torch()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    given = pixels(4, 3, 64, 64)
    with without_dropout(ours, theirs):
        found, wanted = ours(given), theirs(given)
        pairs = [
            (found.logits, wanted.logits),
            (found.aux1, wanted.aux_logits1),
            (found.aux2, wanted.aux_logits2),
        ]
        for mine, other in pairs:
            assert lively(other)
            assert difference(mine.detach(), other.detach()) <= 1e-6
        for outputs in zip(*pairs, strict=True):
            torch.autograd.backward([output.square().mean() for output in outputs])
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for key, parameter in ours.named_parameters():
        other = gradients[key]
        assert parameter.grad is not None
        assert other is not None
        assert difference(parameter.grad, other) <= 1e-4, key
    after = theirs.state_dict()
    for key, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, after[key], rtol=1e-6, atol=1e-6)


def test_trains_as_torchvisions_deeplab_does() -> None:
    theirs = reference("deeplabv3_resnet50")
    net = network(Case("deeplabv3_resnet50", 40))
    ours = net.to_torch()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    given = pixels(2, 3, 40, 40)
    with without_dropout(ours, theirs), torch.no_grad():
        found, wanted = named_outputs(net.graph, ours(given), training=True), theirs(given)
    assert list(found) == list(wanted) == ["out", "aux"]
    for name, mine in found.items():
        assert difference(mine, wanted[name]) <= 1e-6
