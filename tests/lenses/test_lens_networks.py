"""Whole networks through the lenses: the tools' own totals and printed lines, published figures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import cnnspec
from cnnspec.ir import Graph
from tests.golden.oracles import SEGMENTING, SHARED, WITH_HEADS, models, weights_of
from tests.lenses.networks import inputs_of, module_of, readings_of, text_of
from tests.lenses.tools import TOOLS
from tests.zoo.networks import FEW, FILES

SPECS = Path(__file__).parents[2] / "specs"

UNTOLD = {
    ("unet_paper", "fvcore"): "unavailable",  # tracing fails where a size is rounded
    ("unet_paper", "timm"): "unavailable",
    ("lenet5_1998", "ptflops"): "partial",  # a function it patches, called inside an operation
}
"""Where a lens cannot tell all, by variant and tool."""

ON_META = ("torchvision", "thop", "torchinfo")
"""Tools that count as well without computing."""

SMALL: dict[str, tuple[str | None, dict[str, object]]] = {
    "convnext": ("convnext_tiny", {"image": (3, 32, 32)}),
    "googlenet": (None, {"image": (3, 32, 32)}),
    "lenet5": ("lenet5_table", {}),
    "m5": ("m3", {"audio": (1, 2000)}),
    "mobilenet_v3": ("mobilenet_v3_small", {"image": (3, 32, 32)}),
    "resnet": ("resnet18", {"image": (3, 32, 32)}),
    "rgbd": (None, {"H": 32, "W": 32}),
    "style": (None, {"H": 32, "W": 32}),
}
"""Variants and sizes at which the others compute in little time."""


@cache
def network(spec: str, variant: str | None = None) -> Graph:
    return cnnspec.load(SPECS / f"{spec}.yaml", variant=variant).graph


@pytest.mark.parametrize(("spec", "variant"), FEW)
def test_differences_add_up(spec: str, variant: str | None) -> None:
    """From our MACs to the tool's total, to the last operation, and by layer and group too."""
    for reading in readings_of(network(spec, variant)).values():
        assert reading.status == UNTOLD.get((variant, reading.lens.name), "exact")
        assert reading.macs + sum(cause.amount for cause in reading.causes) == reading.total
        assert reading.total == sum(group.counted or 0 for group in reading.groups)
        assert reading.macs == sum(group.macs for group in reading.groups)
        assert all(cause.amount for cause in reading.causes)


@pytest.mark.parametrize("spec", FILES)
def test_tools_that_need_not_compute(spec: str) -> None:
    graph = network(spec)
    module, inputs, readings = (
        module_of(graph, "meta"),
        inputs_of(graph, "meta"),
        readings_of(graph),
    )
    for name in ON_META:
        reading, found = readings[name], TOOLS[name](module, inputs)
        assert (name, reading.total, reading.params) == (name, found.total, found.params)
        assert dict(reading.printed) == found.printed


@pytest.mark.parametrize("spec", SMALL)
def test_tools_that_compute(spec: str) -> None:
    variant, sizes = SMALL[spec]
    graph = cnnspec.load(SPECS / f"{spec}.yaml", variant=variant, inputs=sizes).graph
    module, inputs, readings = module_of(graph), inputs_of(graph), readings_of(graph)
    for name in ("fvcore", "ptflops", *(("timm",) if spec == "convnext" else ())):
        reading, found = readings[name], TOOLS[name](module, inputs)
        assert (name, reading.total, reading.params) == (name, found.total, found.params)
        assert dict(reading.printed) == found.printed


@pytest.mark.parametrize(
    ("spec", "variant"), [(spec, variant) for spec, all_ in SHARED.items() for variant in all_]
)
def test_torchvision_published_the_same(spec: str, variant: str) -> None:
    """The `_ops` of torchvision's weights, at the sizes that their transforms give."""
    meta = weights_of(variant).meta
    transforms = weights_of(variant).transforms()
    (size,) = transforms.resize_size if spec in SEGMENTING else transforms.crop_size
    graph = network(spec, variant)
    assert graph.tensors[next(iter(graph.inputs.values()))].shape == (3, size, size)
    reading = readings_of(graph)["torchvision"]
    total = reading.total
    if spec in WITH_HEADS:  # torchvision runs its auxiliary head in inference too
        heads = [node for node in graph.nodes if node.index not in graph.inference]
        total += sum(node.op.cost(graph.site(node)).mac for node in heads)
    else:
        assert dict(reading.printed)["_ops"] == str(meta["_ops"])
    assert round(total / 1e9, 3) == meta["_ops"]


@pytest.mark.parametrize(
    "name", ["alexnet", "resnet50", "mobilenet_v3_small", "convnext_tiny", "vit_b_16"]
)
def test_models_of_torchvision_itself(name: str) -> None:
    """Lenses read our spec, tools torchvision's own module of the same structure."""
    readings = readings_of(cnnspec.load(name).graph)
    with torch.device("meta"):
        module = models.get_model(name, weights=None).eval()
        inputs = {"x": torch.zeros(1, 3, 224, 224)}
    for tool in ON_META:
        found = TOOLS[tool](module, inputs)
        assert (tool, readings[tool].total) == (tool, found.total)
        assert dict(readings[tool].printed) == found.printed


@pytest.mark.parametrize(
    ("name", "gmacs", "macts"),
    [
        ("resnet50", "4.11", "11.11"),
        ("vit_b_16", "16.87", "16.49"),
        ("convnext_tiny", "4.47", "13.44"),
    ],
)
def test_timm_published_the_same(name: str, gmacs: str, macts: str) -> None:
    """timm's results tables have these for the models of the same structure, at 224 pixels."""
    printed = dict(readings_of(cnnspec.load(name).graph)["timm"].printed)
    assert (printed["gmacs"], printed["macts"]) == (gmacs, macts)


ODD = {
    "a shared layer": """\
cnnspec: 1
name: net
inputs: {a: [3, 8, 8], b: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: first
    from: a
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: second
    from: b
    share: first
  - add: [first, second]
""",
    "a head for training": """\
cnnspec: 1
name: net
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: conv
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: aux
    from: conv
  - BatchNorm2d:
    name: main
    from: conv
outputs:
  main: main
  aux: {from: aux, training: true}
""",
    "a block of functions with a parameter": """\
cnnspec: 1
name: net
inputs: {image: [3, 8, 8]}
blocks:
  scaled:
    params: {}
    layers:
      - Parameter: {shape: [3, 1, 1]}
        name: weight
      - mul: [input, weight]
layers:
  - Conv2d: {out_channels: 3, kernel_size: 3}
  - scaled:
    name: first
""",
    "padding that is `same`, of zeros and of other values": """\
cnnspec: 1
name: net
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: same}
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: same, padding_mode: replicate}
""",
    "a parameter beside layers": """\
cnnspec: 1
name: net
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: conv
  - Parameter: {shape: [4, 1, 1]}
    name: weight
  - mul: [conv, weight]
""",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_networks(text: str) -> None:
    graph = text_of(text)
    module, inputs, readings = module_of(graph), inputs_of(graph), readings_of(graph)
    for name, reading in readings.items():
        found = TOOLS[name](module, inputs)
        if name == "torchinfo" and "weight\n      - mul" in text:  # it takes the block for a layer
            assert (reading.status, reading.counts[1]) == ("partial", None)
            continue
        assert (name, reading.total, reading.params) == (name, found.total, found.params)
        assert dict(reading.printed) == found.printed
