"""Whole networks as torch source: compared with an independent reading of the same lowerings.

`UPDATE_GOLDEN=1 pytest tests/backends` writes the sources in `tests/golden/torch` anew.
"""

from __future__ import annotations

import inspect
import os
import pickle
import re
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnspec.backends.torch import ModuleMismatchError, emit, named_outputs, to_torch
from cnnspec.frontend.load import expand, load_text
from cnnspec.ir import Graph
from cnnspec.op import Site
from cnnspec.ops import bind
from cnnspec.ops.conv import Conv2d
from cnnspec.tensor import Role, Tensor
from cnnspec.weights import Weight
from tests.ops.harness import Interpreted, alone, randomise, sample

GOLDEN = Path(__file__).parents[1] / "golden" / "torch"


def network(text: str) -> Graph:
    return expand(load_text(f"cnnspec: 1\n{text}"))


RESIDUAL = """
name: small_resnet
params: {classes: int = 10}
inputs: {image: [3, 16, 16]}
blocks:
  basic:
    params: {width: int, stride: int = 1}
    layers:
      - Conv2d: {out_channels: width, kernel_size: 3, stride: stride, padding: 1, bias: false}
        name: conv1
      - BatchNorm2d:
        name: bn1
      - ReLU
      - Conv2d: {out_channels: width, kernel_size: 3, padding: 1, bias: false}
        name: conv2
      - BatchNorm2d:
        name: bn2
      - Sequential:
          - Conv2d: {out_channels: width, kernel_size: 1, stride: stride, bias: false}
          - BatchNorm2d
        name: downsample
        from: input
        when: stride != 1 or input.channels != width
      - add: [bn2, downsample]
      - ReLU
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1, bias: false}
    name: conv1
  - BatchNorm2d:
    name: bn1
  - ReLU
  - Sequential:
      - basic: {width: 8*2**s, stride: 2 if s > 0 and i == 0 else 1}
        for: i in range(4)
    for: s in range(3)
    name: layer{s+1}
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: classes}
    name: fc
"""

PLAIN = """
name: lenet
inputs: {image: [1, 12, 12]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - Tanh
  - AvgPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 5}
"""

DENSE = """
name: dense
inputs: {image: [4, 8, 8]}
blocks:
  dense_layer:
    params: {growth: int}
    layers:
      - concat:
          skip: []
          new:
            - BatchNorm2d
            - ReLU: {inplace: true}
            - Conv2d: {out_channels: growth, kernel_size: 3, padding: 1, bias: false}
layers:
  - dense_layer: {growth: 3}
    repeat: 3
"""

UNNAMED = """
name: unnamed
inputs: {image: [4, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
  - ReLU: {inplace: true}
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: second
  - add: [second, image]
  - Conv2d: {out_channels: 2, kernel_size: [1, 3]}
"""

TAPS = """
name: taps
inputs: {image: [3, 8, 8]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU: {inplace: true}
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU
    name: features
  - Conv2d: {out_channels: 1, kernel_size: 1}
    from: features.0
    name: early
outputs: {early: early, late: features, middle: features.1}
"""

LIKE = """
name: like
inputs: {image: [3, 8, 8], mask: [1, 8, 8]}
blocks:
  gate:
    inputs: [x, gate]
    layers:
      - mul: [x, gate]
      - Conv2d: {out_channels: 4, kernel_size: 1}
layers:
  - gate:
    from: {gate: mask, x: image}
    name: gated
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - add: [gated, "0"]
      - BatchNorm2d
    name: body
"""

TWO_OUTPUTS = """
name: two_outputs
inputs: {image: [3, 8, 8]}
blocks:
  trunk:
    outputs: [low, high]
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: low
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: mid
      - Conv2d: {out_channels: 6, kernel_size: 3, padding: 1}
        name: high
layers:
  - trunk:
    name: a
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: a.low
    name: x
  - trunk:
    from: image
    name: b
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: b.high
    name: y
  - add: [x, y]
"""

AUXILIARY = """
name: auxiliary
inputs: {image: [3, 8, 8]}
blocks:
  trunk:
    outputs: [main, aux]
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: main
      - Conv2d: {out_channels: 2, kernel_size: 1}
        name: pre
      - BatchNorm2d:
        name: aux
layers:
  - trunk:
    name: trunk
  - Flatten:
    from: trunk.main
  - Linear: {out_features: 5}
    name: fc
  - Flatten:
    from: trunk.aux
  - Linear: {out_features: 5}
    name: head
outputs: {logits: fc, aux: {from: head, training: true}}
"""

SHARED = """
name: shared
inputs: {left: [3, 8, 8], right: [3, 8, 8]}
blocks:
  encoder:
    layers:
      - Sequential:
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
          - BatchNorm2d
          - ReLU
        name: stem
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: conv
      - add: [stem, conv]
layers:
  - encoder:
    from: left
    name: encoder
  - encoder:
    from: right
    share: encoder
    name: other
  - concat: [encoder, other]
"""

BORROWED = """
name: borrowed
inputs: {image: [4, 8, 8]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: first
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        share: first.0
      - BatchNorm2d
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        share: first.2
    name: second
  - Linear: {out_features: 8}
"""

DOTTED = """
name: dotted
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.2
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.1
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.0
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: b.x-y
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: b.7.8
  - Parameter: {shape: [4, 1, 1], value: 0.5}
    name: c.scale
  - mul: [c.scale, b.7.8]
  - BatchNorm2d:
    name: c.items
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: l-m
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: _private
"""

TRANSFORMER = """
name: transformer
inputs: {tokens: [3, 4, 4]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 2, stride: 2}
    name: patches
  - Flatten: {start_dim: 2}
  - Permute: {dims: [0, 2, 1]}
    name: sequence
  - Parameter: {shape: [1, 8], batch: true, std: 0.02}
    name: class_token
  - Concat: {dim: 1}
    from: [class_token, sequence]
  - MultiheadAttention: {num_heads: 2}
    name: attention
  - Slice: {dim: 1, stop: 1}
  - Flatten
"""

CHUNKED = """
name: chunked
inputs: {image: [6, 8, 8]}
layers:
  - Chunk: {chunks: 3, dim: 1}
    name: parts
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: parts.0
    name: left
  - add: [left, parts.2]
"""

PADDED = """
name: padded
inputs: {image: [3, 9, 9]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: [[1, 0], [0, 2]]}
      - ReLU
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: same, stride: 2}
    name: body
"""

UNUSED = """
name: unused
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: kept
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 1}
      - ReLU
    name: dead
outputs: [kept]
"""

NETWORKS: Mapping[str, str] = {
    "residual": RESIDUAL,
    "plain": PLAIN,
    "dense": DENSE,
    "unnamed": UNNAMED,
    "taps": TAPS,
    "like": LIKE,
    "two_outputs": TWO_OUTPUTS,
    "auxiliary": AUXILIARY,
    "shared": SHARED,
    "borrowed": BORROWED,
    "dotted": DOTTED,
    "transformer": TRANSFORMER,
    "chunked": CHUNKED,
    "padded": PADDED,
    "unused": UNUSED,
}
each_network = pytest.mark.parametrize("text", NETWORKS.values(), ids=NETWORKS.keys())


def outputs_of(graph: Graph, module: nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        result = module(*(tensor.clone() for tensor in inputs))
    named = named_outputs(graph, result, module.training)
    return [named[output.name] for output in graph.outputs if output.name in named]


# ---------------------------------------------------------------------------------- behaviour


@each_network
def test_module_computes_what_the_lowerings_say(text: str) -> None:
    graph = network(text)
    module = to_torch(graph).eval()
    randomise(module)
    reference = Interpreted(graph).eval()
    reference.load_state_dict(module.state_dict(), strict=True)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=3)
    with torch.no_grad():
        expected = reference(*inputs)
    for given, wanted in zip(outputs_of(graph, module, inputs), expected, strict=True):
        assert torch.equal(given, wanted)


@each_network
def test_state_dict_keys_are_the_paths_of_the_graph(text: str) -> None:
    graph = network(text)
    expected: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        if node.share is None:
            site = graph.site(node)
            shapes = {name: weight.shape for name, weight in node.op.weights(site).items()}
            shapes.update((name, buffer.shape) for name, buffer in node.op.buffers(site).items())
            for name, shape in shapes.items():
                expected[f"{node.path}.{name}" if name else node.path] = shape
    state = to_torch(graph).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected


@each_network
def test_every_parameter_gets_a_gradient_in_training_mode(text: str) -> None:
    graph = network(text)
    module = to_torch(graph)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=3)
    result = module(*inputs)
    total = sum(tensor.sum() for tensor in named_outputs(graph, result, training=True).values())
    assert isinstance(total, torch.Tensor)
    torch.autograd.backward(total)
    owners = {node.index if node.share is None else node.share: node for node in graph.nodes}
    used = {graph.nodes[i].path for i, node in owners.items() if node.index in graph.used}
    for key, parameter in module.named_parameters():
        assert (parameter.grad is not None) == any(
            key == path or key.startswith(f"{path}.") for path in used
        ), key


@each_network
def test_compiles_without_a_graph_break(text: str) -> None:
    graph = network(text)
    module = to_torch(graph).eval()
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=2)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        result = compiled(*inputs)
    shown = named_outputs(graph, result, training=False)
    for given, wanted in zip(shown.values(), outputs_of(graph, module, inputs), strict=True):
        torch.testing.assert_close(given, wanted)


def test_training_outputs_are_there_in_training_mode_alone() -> None:
    graph = network(AUXILIARY)
    module = to_torch(graph)
    inputs = sample([graph.tensors[0]], batch=2)
    trained = module(*inputs)
    assert type(trained).__name__ == "AuxiliaryTrainingOutput"
    assert trained._fields == ("logits", "aux")
    assert trained.aux.shape == (2, 5)
    module.eval()
    calls: list[str] = []
    for path, inner in module.named_modules():
        inner.register_forward_hook(lambda *_, path=path: calls.append(path))
    result = module(*inputs)
    assert isinstance(result, torch.Tensor)
    assert list(named_outputs(graph, result, training=False)) == ["logits"]
    assert {"trunk.main", "fc"} <= set(calls)
    assert not {"trunk.pre", "trunk.aux", "head"} & set(calls)


def test_several_outputs_are_a_named_tuple() -> None:
    graph = network(TAPS)
    result = to_torch(graph)(*sample([graph.tensors[0]], batch=2))
    assert type(result).__name__ == "TapsOutput"
    assert result._fields == ("early", "late", "middle")


# ------------------------------------------------------------------------------------- weights


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


# -------------------------------------------------------------------------------------- source


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


def test_names_that_python_owns_do_no_harm() -> None:
    text = """
name: "torch\\"\\"\\" \\\\ \\u2028 quit()"
inputs: {self: [3, 8, 8], torch: [3, 8, 8], F: [3, 8, 8]}
layers:
  - add: [self, torch, F]
    name: nn
  - Conv2d: {out_channels: 3, kernel_size: 1}
    name: getattr
  - add: [nn, getattr]
"""
    graph = network(text)
    module = to_torch(graph)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=2)
    assert outputs_of(graph, module, inputs)[0].shape == (2, 3, 8, 8)


def test_a_forward_that_ends_with_a_call_of_several_results() -> None:
    """A block that hands on what another block puts out."""
    text = """\
cnnspec: 1
name: net
inputs: {x: [3, 8, 8]}
blocks:
  two:
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3}
        name: a
      - ReLU:
        name: b
    outputs: [a, b]
  outer:
    layers:
      - two:
        name: t
    outputs: {p: t.a, q: t.b}
layers:
  - outer:
    name: o
outputs: [o.p, o.q]
"""
    network = to_torch(expand(load_text(text)))
    p, q = network(torch.zeros(1, 3, 8, 8))
    assert p.shape == q.shape == (1, 4, 6, 6)
