"""Counts that other tools and plain loops agree with: macts, padding, bytes moved, intensity."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis

import cnnspec
from cnnspec.geometry import taps_inside
from cnnspec.passes import Options, run
from cnnspec.passes.cost import Cost
from cnnspec.passes.traffic import Moved, Traffic
from tests.graphs import Drop, Flat, Net, Norm, Plus, Rectify
from tests.ops.harness import Interpreted

PUBLISHED = {
    "resnet18": "2.48",
    "resnet50": "11.11",
    "vgg16": "13.56",
    "densenet121": "6.90",
    "convnext_tiny": "13.44",
    "vit_b_16": "16.49",
    "mobilenet_v3": "4.41",
}
"""Millions of activations in timm's tables of results, at 224 pixels."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_macts_that_timm_publishes(name: str) -> None:
    macts = cnnspec.load(name).analyze().totals.macts
    assert f"{macts / 1e6:.2f}" == PUBLISHED[name]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3", "googlenet", "lenet5"])
def test_macts_are_the_activations_of_fvcore(name: str) -> None:
    net = cnnspec.load(name)
    if name != "lenet5":
        net = net.with_inputs(image=(3, 64, 64))
    inputs = tuple(
        torch.zeros(1, *net.graph.tensors[value].shape) for value in net.graph.inputs.values()
    )
    counted = ActivationCountAnalysis(net.to_torch().eval(), inputs)
    assert net.analyze().totals.macts == counted.unsupported_ops_warnings(False).total()


# ------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("before", [-1, 0, 1, 3])
def test_taps_inside_by_counting(n: int, before: int) -> None:
    for outputs, kernel, stride, dilation in product((1, 4), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        positions = [
            stride * output - before + dilation * tap
            for output in range(outputs)
            for tap in range(kernel)
        ]
        expected = sum(0 <= position < n for position in positions)
        assert taps_inside(n, outputs, kernel, stride, dilation, before) == expected


CONVOLUTIONS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Conv2d", {"kernel_size": 3, "padding": 1}, (3, 5, 6)),
    ("Conv2d", {"kernel_size": [1, 4], "padding": "same", "stride": 2}, (3, 5, 6)),
    ("Conv2d", {"kernel_size": 3, "padding": [[1, 0], [2, 1]], "dilation": 2}, (2, 7, 7)),
    ("Conv1d", {"kernel_size": 5, "padding": 4, "stride": 3}, (4, 9)),
    ("Conv3d", {"kernel_size": [3, 1, 2], "padding": [1, 0, 1]}, (2, 3, 4, 5)),
    ("ConvTranspose2d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 4, 5)),
    ("ConvTranspose1d", {"kernel_size": 4, "dilation": 2, "padding": 3}, (2, 6)),
]


@pytest.mark.parametrize(("op", "arguments", "shape"), CONVOLUTIONS)
def test_macs_on_padding_are_those_that_ones_do_not_meet(
    op: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """With ones everywhere the outputs add up to the multiplications that meet an input."""
    net = Net(x=shape)
    net.add(op, out_channels=4, bias=False, **arguments)
    graph = net.build()
    found = run(graph, Options())[Cost]
    module = Interpreted(graph).double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(1)
        (result,) = module(torch.ones(1, *shape, dtype=torch.float64))
    assert found.nodes[0].mac - found.padding[0] == int(result.sum())


def test_padding_that_repeats_the_input_is_not_wasted() -> None:
    net = Net(x=(3, 8, 8))
    net.add("Conv2d", out_channels=4, kernel_size=3, padding=1, padding_mode="reflect")
    net.add("Conv2d", out_channels=4, kernel_size=3, padding=1)
    net.add(Rectify())
    full = 4 * 4 * 9 * 64
    assert run(net.build(), Options())[Cost].padding == (0, full - 4 * 4 * 22 * 22, 0)


# ------------------------------------------------------------------------------------- traffic


def moved(net: Net, **options: Any) -> tuple[Moved, ...]:
    return run(net.build(), Options(**options))[Traffic].nodes


def test_what_layers_move() -> None:
    net = Net(image=(1, 8, 8))
    net.add("Conv2d", out_channels=16, kernel_size=3, padding=1)
    net.add(Norm())
    net.add(Rectify())
    net.add(Drop())
    net.add("Flatten")
    weights = 4 * (16 * 9 + 16)
    conv = Moved(4 * 64 + weights, 4 * 1024, weights)
    assert moved(net) == (conv, Moved(), Moved(4096, 4096, 0), Moved(), Moved())
    norm = 4 * 32 + 4 * 32 + 8
    assert moved(net, fold=False)[1] == Moved(4096 + norm, 4096, norm)
    half = weights // 2
    assert moved(net, batch=3, dtype="float16")[0] == Moved(3 * 128 + half, 3 * 2048, half)


def test_a_join_reads_all_its_inputs() -> None:
    net = Net(a=(4, 8, 8), b=(4, 8, 8))
    net.add(Plus(), 0, 1)
    net.add(Flat())
    size = 4 * prod((4, 8, 8))
    assert moved(net) == (Moved(2 * size, size, 0), Moved(size, size, 0))


def test_intensity_is_flops_by_bytes() -> None:
    report = cnnspec.load("lenet5").analyze(batch=4)
    conv = report.layers[0]
    assert conv.intensity == 4 * conv.flops / (conv.bytes_read + conv.bytes_written)
    totals = report.totals
    whole = sum(layer.bytes_read + layer.bytes_written for layer in report.layers)
    assert totals.intensity == 4 * totals.flops / whole
