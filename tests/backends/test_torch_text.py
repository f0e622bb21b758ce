"""The text of modules: goldens, and what is written how.

`UPDATE_GOLDEN=1 pytest tests/backends` writes the sources in `tests/golden/torch` anew.
"""

from __future__ import annotations

import inspect
import os
import pickle
import re
import traceback
from pathlib import Path

import pytest
import torch

from cnnspec.backends.torch import emit, to_torch
from tests.backends.torch_networks import (
    NETWORKS,
    PLAIN,
    RESIDUAL,
    SHARED,
    each_network,
    network,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "torch"


@pytest.mark.parametrize("name", ["residual", "auxiliary", "dotted", "taps", "plain", "shared"])
def test_golden_source(name: str) -> None:
    path = GOLDEN / f"{name}.py.txt"
    source = emit(network(NETWORKS[name]))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")


@each_network
def test_source_is_the_same_each_time_and_knows_nothing_of_us(text: str) -> None:
    source = emit(network(text))
    assert source == emit(network(text))
    assert not re.search(r"import.*cnnspec", source)


def test_calls_of_a_block_are_one_class_with_arguments() -> None:
    source = emit(network(RESIDUAL))
    classes = re.findall(r"^class (\w+)", source, re.MULTILINE)
    assert classes == ["Basic", "SmallResnet"]
    assert "in_channels: int, width: int, stride: int = 1, downsample: bool = False" in source
    assert "*(Basic(16, 16) for _ in range(3))" in source
    assert "Basic(16, 32, stride=2, downsample=True)" in source
    assert "identity = self.downsample(x)" in source


def test_numbers_in_a_forward_are_attributes() -> None:
    text = """
name: figures
inputs: {image: [3, 8, 8]}
blocks:
  grow:
    params: {rows: int}
    layers:
      - Conv2d: {out_channels: 3, kernel_size: 1, padding: [[rows, 0], [0, 0]]}
        name: conv
layers:
  - grow: {rows: 2}
    name: a
  - grow: {rows: 3}
    name: b
"""
    graph = network(text)
    source = emit(graph)
    assert source.count("class Grow") == 1
    assert re.search(r"F.pad\(x, self\.(\w+)\)", source)
    assert to_torch(graph)(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 13, 8)


def test_operations_given_to_a_block_are_arguments() -> None:
    text = """
name: activated
inputs: {image: [3, 8, 8]}
blocks:
  conv:
    params: {act: op}
    layers:
      - Conv2d: {out_channels: 3, kernel_size: 1}
      - act
layers:
  - conv: {act: ReLU}
  - conv: {act: Hardswish}
  - conv: {act: ReLU}
"""
    source = emit(network(text))
    assert source.count("class Conv(") == 1
    assert "act: Callable[..., nn.Module]" in source
    assert "nn.Hardswish" in source


def test_numbered_entries_are_written_as_a_loop() -> None:
    text = """
name: numbered
inputs: {image: [4, 8, 8]}
layers:
  - Sequential:
      - Conv2d: {out_channels: input.channels + 2*i + 2, kernel_size: 1}
        for: i in range(4)
        name: conv{i+1}
    name: body
"""
    graph = network(text)
    assert "for i in range(1, 5)" in emit(graph)
    shapes = [tuple(p.shape) for name, p in to_torch(graph).named_parameters() if "weight" in name]
    assert shapes == [(6, 4, 1, 1), (8, 6, 1, 1), (10, 8, 1, 1), (12, 10, 1, 1)]


def test_a_shared_block_is_one_module_called_twice() -> None:
    source = emit(network(SHARED))
    assert source.count("Encoder(") == 2
    assert source.count("= self.encoder(") == 2
    assert "class Stem" not in source


def test_source_and_traceback_show_the_module() -> None:
    module = to_torch(network(PLAIN.replace("lenet", "shown")))
    source = inspect.getsource(type(module))
    assert source.startswith("class Shown(nn.")
    broken = to_torch(network(RESIDUAL))
    with pytest.raises(RuntimeError) as failure:
        broken(torch.zeros(1, 5, 16, 16))
    shown = "".join(traceback.format_tb(failure.value.__traceback__))
    assert "x = self.conv1(image)" in shown
    assert "<cnnspec small_resnet" in shown


def test_module_can_be_pickled_where_it_was_made() -> None:
    module = to_torch(network(PLAIN))
    again = pickle.loads(pickle.dumps(module))
    assert type(again) is type(module)


def test_layers_without_names_are_reached_by_their_keys() -> None:
    """Their numbers are no attributes, and `getattr` on each line is nobody's style."""
    text = """
name: net
inputs: {image: [4, 8, 8]}
blocks:
  residual:
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: last
      - add: [last, input]
      - ReLU
layers:
  - residual:
    repeat: 2
"""
    source = emit(network(text))
    assert "class Residual(nn.ModuleDict):" in source
    assert '"relu": nn.ReLU(inplace=True),\n                "last": nn.Conv2d(' in source
    assert 'out = self["0"](x)' in source
    assert '= self["relu"](out)' in source
    assert "getattr" not in source
    assert list(to_torch(network(text)).state_dict())[:3] == [
        "0.0.weight",
        "0.0.bias",
        "0.last.weight",
    ]


def test_layers_that_are_called_one_after_the_other_are_a_loop() -> None:
    text = """
name: net
inputs: {image: [4, 8, 8]}
blocks:
  gate:
    inputs: [module]
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 1}
        from: module
      - Sigmoid
      - mul: ["1", module]
  tapped:
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 1}
      - Sigmoid
      - mul: ["0", "1"]
layers:
  - gate:
    from: {module: image}
  - tapped
"""
    source = emit(network(text))
    gate = source[source.index("class Gate(nn.Sequential)") : source.index("class Tapped")]
    loop = "out = module\n        for module_2 in self:\n            out = module_2(out)\n"
    assert loop in gate
    assert "return out * module" in gate
    assert "class Tapped(nn.ModuleList)" in source


def test_numbers_that_are_related_are_one_argument() -> None:
    text = """
name: net
inputs: {image: [8]}
blocks:
  mlp:
    params: {p: float}
    layers:
      - Linear: {out_features: 4*input.features}
        name: up
      - GELU
      - Linear: {out_features: input.features}
        name: down
      - Dropout: {p: p}
layers:
  - {mlp: {p: 0.25}, name: a}
  - Linear: {out_features: 12}
  - {mlp: {p: 1e-5}, name: b}
"""
    source = emit(network(text))
    assert "def __init__(self, in_features: int, p: float)" in source
    assert "self.down = nn.Linear(4 * in_features, in_features)" in source
    assert "Mlp(12, p=1e-5)" in source


def test_constants_are_made_as_such() -> None:
    text = """
name: net
inputs: {image: [3, 8, 8]}
layers:
  - {Parameter: {shape: [3, 1, 1], value: 1}, name: scale}
  - {Parameter: {shape: [3, 1, 1], value: 0}, name: shift}
  - {Parameter: {shape: [3, 1, 1], std: 0.02}, name: noise}
  - mul: [image, scale]
  - {add: [shift, noise], name: moved}
  - add: [moved, image]
"""
    source = emit(network(text))
    assert "self.scale = nn.Parameter(torch.ones(3, 1, 1))" in source
    assert "self.shift = nn.Parameter(torch.zeros(3, 1, 1))" in source
    assert "nn.init.normal_(torch.empty(3, 1, 1), std=0.02)" in source
