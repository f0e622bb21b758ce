"""Files whose sizes stay open: equal to torch at sizes they were not written for, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import GraphOptimizationLevel

from cnnspec.api import load
from cnnspec.backends.onnx import newest_opset
from cnnspec.backends.onnx.build import OLDEST_OPSET, Options, lower
from cnnspec.backends.onnx.dynamic import FreeSizes, free_sizes
from cnnspec.backends.onnx.folding import fold
from cnnspec.backends.onnx.program import program_of
from cnnspec.backends.onnx.session import session
from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from tests.ops.harness import arrays, randomise, sample

CONV = "Conv2d: {out_channels: 6, kernel_size: 3, padding: 1}"

TAKEN: Mapping[str, tuple[str, tuple[tuple[int, ...], ...], list[str]]] = {
    "fully convolutional": (
        f"""
inputs: {{image: [3, 20, 24]}}
layers:
  - {{{CONV}}}
  - BatchNorm2d
  - MaxPool2d: {{kernel_size: 3, stride: 2, padding: 1}}
  - Conv2d: {{out_channels: 5, kernel_size: 1}}
""",
        ((3, 20, 24), (3, 9, 17), (3, 33, 8)),
        ["5", "ceil(height/2)", "ceil(width/2)"],
    ),
    "global pooling": (
        f"""
inputs: {{image: [3, 16, 16]}}
layers:
  - {{{CONV}}}
  - MaxPool2d: {{kernel_size: 3, stride: 2, ceil_mode: true}}
  - AdaptiveAvgPool2d: {{output_size: 1}}
  - Flatten
  - Linear: {{out_features: 4}}
""",
        ((3, 16, 16), (3, 7, 19), (3, 3, 4)),
        ["4"],
    ),
    "pooling to 3 positions": (
        f"""
inputs: {{image: [3, 18, 18]}}
layers:
  - {{{CONV}}}
  - AdaptiveAvgPool2d: {{output_size: [3, 2]}}
  - Flatten
  - Linear: {{out_features: 4}}
""",
        ((3, 18, 18), (3, 7, 19), (3, 2, 1)),
        ["4"],
    ),
    "pooling of rows alone": (
        """
inputs: {image: [3, 12, 9]}
layers:
  - AdaptiveAvgPool2d: {output_size: [4, null]}
  - ReLU
""",
        ((3, 12, 9), (3, 5, 6), (3, 4, 11)),
        ["3", "4", "width"],
    ),
    "pooling of a sequence": (
        """
inputs: {sound: [3, 20]}
layers: [{AdaptiveAvgPool1d: {output_size: 6}}, ReLU]
""",
        ((3, 20), (3, 17), (3, 4)),
        ["3", "6"],
    ),
    "pooling of a volume": (
        """
inputs: {clip: [2, 6, 7, 8]}
layers: [{AdaptiveAvgPool3d: {output_size: [4, 1, 3]}}, ReLU]
""",
        ((2, 6, 7, 8), (2, 3, 5, 4), (2, 9, 2, 2)),
        ["2", "4", "1", "3"],
    ),
    "encoder and decoder": (
        f"""
inputs: {{image: [3, H = 16, W = 16]}}
layers:
  - {{{CONV}, name: skip}}
  - MaxPool2d: {{kernel_size: 2}}
  - {{{CONV}}}
  - {{ConvTranspose2d: {{out_channels: 6, kernel_size: 2, stride: 2}}, name: up}}
  - concat: [skip, up]
  - {{{CONV}}}
""",
        ((3, 16, 16), (3, 22, 10), (3, 2, 34)),
        ["6", "H", "W"],
    ),
    "feature pyramid": (
        """
inputs: {fine: [4, 12, 16], coarse: [4, 6, 8]}
layers:
  - {Upsample: {like: fine}, from: coarse, name: up}
  - {add: [fine, up], name: sum}
  - {Upsample: {like: fine, mode: bilinear}, from: coarse, name: smooth}
outputs: [sum, smooth]
""",
        (),
        ["4", "fine.height", "fine.width"],
    ),
    "style": (
        f"""
inputs: {{image: [3, 16, 16]}}
layers:
  - {{{CONV}}}
  - {{InstanceNorm2d: {{affine: true}}, name: features}}
  - {{Gram: {{normalize: true}}, name: gram}}
  - {{GroupNorm: {{num_groups: 2}}, from: features, name: normed}}
  - {{LocalResponseNorm: {{size: 4}}, name: local}}
outputs: [gram, local]
""",
        ((3, 16, 16), (3, 5, 9), (3, 20, 3)),
        ["6", "6"],
    ),
    "enlarged to the input": (
        f"""
inputs: {{image: [3, 16, 16]}}
layers:
  - Conv2d: {{out_channels: 6, kernel_size: 3, stride: 4, padding: 1}}
  - {{{CONV}}}
  - Upsample: {{like: image, mode: bilinear}}
""",
        ((3, 16, 16), (3, 5, 9), (3, 21, 30)),
        ["6", "height", "width"],
    ),
    "rearranged": (
        """
inputs: {image: [2, 12, 12]}
layers:
  - PixelUnshuffle: {downscale_factor: 3}
  - {ReflectionPad2d: {padding: 1}}
  - {CircularPad2d: {padding: [1, 0, 2, 1]}}
  - {ZeroPad2d: {padding: [-1, 2, 1, -1]}}
  - {ChannelShuffle: {groups: 3}}
  - {AvgPool2d: {kernel_size: 2, stride: 1, padding: 1, divisor_override: 3}}
  - {Upsample: {scale_factor: 2}}
  - Flatten: {start_dim: 2}
  - {Permute: {dims: [0, 2, 1]}}
  - MultiheadAttention: {num_heads: 3}
""",
        ((2, 12, 12), (2, 9, 15), (2, 24, 6)),
        ["output.token", "18"],
    ),
}


@cache
def opsets() -> tuple[int, ...]:
    """The oldest, the usual one and the newest that ONNX Runtime loads here."""
    return OLDEST_OPSET, 18, newest_opset()


def network(text: str) -> Graph:
    return load(text=f"cnnspec: 1\nname: net\n{text.strip()}\n").graph


def shapes_to_try(graph: Graph, given: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, ...]]]:
    if given:
        return [[shape] for shape in given]
    return [[(4, 12, 16), (4, 6, 8)], [(4, 9, 11), (4, 4, 7)], [(4, 3, 5), (4, 8, 5)]]


@pytest.mark.parametrize("name", TAKEN)
def test_is_torchs_at_every_size(name: str) -> None:
    text, given, _ = TAKEN[name]
    graph = network(text)
    module = to_torch(graph).eval()
    randomise(module)
    for opset in opsets():
        free = free_sizes(graph, opset)
        assert not free.fixed
        model = written(graph, module, free, opset)
        runtime = session(model.SerializeToString(), optimise=GraphOptimizationLevel.ORT_ENABLE_ALL)
        others = [list(shapes.values()) for shapes in free.others]
        for shapes in [*shapes_to_try(graph, given), *others]:
            tensors = [
                graph.tensors[value].with_shape(*shape)
                for value, shape in zip(graph.inputs.values(), shapes, strict=True)
            ]
            for batch in (1, 3):
                inputs = sample(tensors, batch)
                with torch.no_grad():
                    wanted = named_outputs(graph, module(*inputs), training=False)
                feeds = {key: x.numpy() for key, x in zip(graph.inputs, inputs, strict=True)}
                found = runtime.run(None, feeds)
                for ours, theirs in zip(found, wanted.values(), strict=True):
                    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def written(graph: Graph, module: torch.nn.Module, free: FreeSizes, opset: int) -> onnx.ModelProto:
    program = fold(program_of(graph, arrays(module)))
    model = lower(program, Options(opset, free=free.values)).with_arrays()
    onnx.checker.check_model(model, full_check=True)
    return model


def declared(value: onnx.ValueInfoProto) -> list[str]:
    return [dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("name", TAKEN)
def test_sizes_have_names(name: str) -> None:
    text, _, sizes = TAKEN[name]
    graph = network(text)
    free = free_sizes(graph)
    model = written(graph, to_torch(graph), free, 18)
    assert declared(model.graph.output[0]) == ["batch", *sizes]
    inputs = [name for value in model.graph.input for name in declared(value)[2:]]
    assert inputs == list(free.names)


REFUSED: Mapping[str, tuple[str, str]] = {
    "weights for each position": (
        f"""
inputs: {{image: [3, 16, 16]}}
layers:
  - {{{CONV}}}
  - Flatten
  - {{Linear: {{out_features: 4}}, name: fc}}
""",
        "the weights of `fc` change with height",
    ),
    "a few sizes of equal rounding": (
        """
inputs: {image: [3, 32, 32]}
layers:
  - {Conv2d: {out_channels: 8, kernel_size: 16, stride: 16}, name: patches}
  - {Parameter: {shape: [8, 2, 2]}, name: positions}
  - {add: [patches, positions], name: sum}
""",
        "`sum` refuses height = 48: cannot add: height is 3 and 2",
    ),
    "padding by the size": (
        """
inputs: {image: [3, 16, 16]}
layers:
  - {Conv2d: {out_channels: 8, kernel_size: 3, stride: 2, padding: same}, name: first}
""",
        "`first` (Conv2d) becomes `Conv` with pads 0x0x1x1 where height is 16, 1x0x1x1 where "
        "height is 1",
    ),
    "windows by the size": (
        """
inputs: {image: [3, 16, 16]}
layers:
  - {AdaptiveMaxPool2d: {output_size: 4}, name: pool}
""",
        "`pool` (AdaptiveMaxPool2d) becomes `MaxPool` with kernel_shape 4x4 where height is 16, "
        "1x4 where height is 1",
    ),
    "a layer of as many channels as there are rows": (
        """
inputs: {image: [3, 16, 16]}
layers:
  - {Conv2d: {out_channels: "image.height", kernel_size: 3}, name: first}
""",
        "line 5 asks for the height of `image`, on which layers may depend",
    ),
    "no image": (
        "inputs: {x: [16]}\nlayers: [{Linear: {out_features: 4}}]",
        "the network's inputs have no spatial axis",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_rests_on_the_size_is_named(name: str) -> None:
    text, why = REFUSED[name]
    with pytest.raises(EnvironmentFailure) as failure:
        free_sizes(network(text))
    assert failure.value.message == f"no size of the inputs can stay open: {why}"


def test_one_size_may_stay_open_and_another_not() -> None:
    """A line of text: its height becomes channels."""
    graph = network(
        """
inputs: {line: [1, 16, 40]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
  - Flatten: {start_dim: 1, end_dim: 2}
  - {Conv1d: {out_channels: 5, kernel_size: 3}, name: letters}
"""
    )
    free = free_sizes(graph)
    assert dict(free.names) == {"width": "width >= 3"}
    (fixed,) = free.fixed
    assert (fixed.name, fixed.path) == ("height", "letters")
    assert fixed.reason == "the weights of `letters` change with height"
    module = to_torch(graph).eval()
    model = written(graph, module, free, 18)
    assert declared(model.graph.input[0]) == ["batch", "1", "16", "width"]
    assert declared(model.graph.output[0]) == ["batch", "5", "width - 2"]
    runtime = session(model.SerializeToString(), optimise=GraphOptimizationLevel.ORT_ENABLE_ALL)
    for shapes in free.others:
        assert shapes["line"][:2] == (1, 16)
        x = torch.randn(2, *shapes["line"])
        with torch.no_grad():
            wanted = module(x).numpy()
        (found,) = runtime.run(None, {"line": x.numpy()})
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_file_says_nothing_of_sizes_that_do_not_change() -> None:
    graph = network(TAKEN["global pooling"][0])
    free = free_sizes(graph)
    pooled = {graph.nodes[index].outputs[0] for index in (2, 3, 4)}
    assert not pooled & free.values.keys()


def test_sizes_to_try_are_two_that_differ() -> None:
    graph = network(TAKEN["encoder and decoder"][0])
    smaller, larger = (shapes["image"] for shapes in free_sizes(graph).others)
    assert smaller[1] * smaller[2] < 256 < larger[1] * larger[2]
    assert all(size % 2 == 0 and size != 16 for size in (*smaller[1:], *larger[1:]))
