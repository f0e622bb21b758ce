"""Small networks of each structure that matters to float16 and int8, and how near models are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.session import session
from cnnspec.ir import Graph
from cnnspec.ops import registry
from tests.backends.onnx_networks import image, made, torch_of
from tests.ops.harness import Network, arrays

Feeds = dict[str, NDArray[np.float32]]


class _Chain:
    """Adds ops by name, each behind the last unless told otherwise."""

    def __init__(self, *shape: int) -> None:
        self.net = Network(image=image(*shape))
        self.at = 0

    def __call__(self, path: str, op: str, *inputs: int, **arguments: object) -> int:
        kind = registry()[op]
        self.at = self.net.add(path, made(kind, **arguments), *(inputs or (self.at,)))
        return self.at

    def graph(self, name: str = "logits") -> Graph:
        self.net.output(name, self.at)
        return self.net.graph()


def _conv(channels: int, size: int = 3, **others: object) -> dict[str, object]:
    return {"out_channels": channels, "kernel_size": size, "padding": size // 2, **others}


def plain() -> Graph:
    """Convolutions with batch norm, depthwise too, pooling and two linear layers."""
    add = _Chain(3, 16, 16)
    add("conv1", "Conv2d", **_conv(16))
    add("bn1", "BatchNorm2d")
    add("relu1", "ReLU")
    add("pool1", "MaxPool2d", kernel_size=2)
    add("depthwise", "Conv2d", **_conv(16, groups=16, bias=False))
    add("bn2", "BatchNorm2d")
    add("relu2", "ReLU6")
    add("conv2", "Conv2d", **_conv(24, 1))
    add("leaky", "LeakyReLU")
    add("pool2", "AvgPool2d", kernel_size=2)
    add("flat", "Flatten")
    add("fc1", "Linear", out_features=32)
    add("relu3", "ReLU")
    add("drop", "Dropout")
    add("fc2", "Linear", out_features=10)
    return add.graph()


def residual() -> Graph:
    """A sum of two branches, and a concatenation of two more."""
    add = _Chain(3, 12, 12)
    add("stem", "Conv2d", **_conv(16))
    stem = add("stem_relu", "ReLU")
    add("a", "Conv2d", **_conv(16))
    add("a_relu", "ReLU")
    branch = add("b", "Conv2d", **_conv(16))
    add("sum", "add", branch, stem)
    joined = add("sum_relu", "ReLU")
    left = add("left", "Conv2d", joined, **_conv(8, 1))
    right = add("right", "MaxPool2d", joined, kernel_size=3, stride=1, padding=1)
    add("cat", "concat", left, right)
    add("last", "Conv2d", **_conv(16))
    add("last_relu", "ReLU")
    add("gap", "AdaptiveAvgPool2d", output_size=1)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    return add.graph()


def excited() -> Graph:
    """Squeeze and excitation."""
    add = _Chain(3, 12, 12)
    add("stem", "Conv2d", **_conv(16))
    x = add("stem_act", "Hardswish")
    add("squeeze", "AdaptiveAvgPool2d", output_size=1)
    add("reduce", "Conv2d", **_conv(8, 1))
    add("reduce_relu", "ReLU")
    add("expand", "Conv2d", **_conv(16, 1))
    gate = add("gate", "Sigmoid")
    add("scale", "mul", x, gate)
    add("conv", "Conv2d", **_conv(16))
    add("act", "SiLU")
    add("gap", "AdaptiveAvgPool2d", output_size=1)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    return add.graph()


def upsampled() -> Graph:
    """Down and up again: transposed convolution, nearest and linear upsampling."""
    add = _Chain(3, 12, 12)
    stem = add("stem", "Conv2d", **_conv(16))
    add("stem_relu", "ReLU", stem)
    add("down", "Conv2d", **_conv(24, stride=2))
    add("down_relu", "ReLU")
    deep = add("up", "ConvTranspose2d", out_channels=16, kernel_size=2, stride=2)
    add("cat", "concat", deep, stem)
    add("mix", "Conv2d", **_conv(16))
    add("mix_relu", "ReLU")
    add("nearest", "Upsample", scale_factor=2)
    add("fine", "Conv2d", **_conv(8))
    add("fine_relu", "ReLU")
    add("linear", "Upsample", scale_factor=2, mode="bilinear")
    add("head", "Conv2d", **_conv(4, 1))
    return add.graph("mask")


def attentive() -> Graph:
    """A transformer block on tokens, with Softmax at the end."""
    add = _Chain(6, 16)
    tokens = add("embed", "Linear", out_features=32)
    add("norm1", "LayerNorm")
    mixed = add("attention", "MultiheadAttention", num_heads=4)
    x = add("sum1", "add", tokens, mixed)
    add("norm2", "LayerNorm")
    add("up", "Linear", out_features=64)
    add("act", "GELU")
    wide = add("down", "Linear", out_features=32)
    add("sum2", "add", x, wide)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    add("shares", "Softmax", dim=-1)
    return add.graph("shares_out")


def along_one() -> Graph:
    """A sequence."""
    add = _Chain(2, 40)
    add("conv1", "Conv1d", out_channels=16, kernel_size=5, stride=2)
    add("bn", "BatchNorm1d")
    add("relu", "ReLU")
    add("pool", "MaxPool1d", kernel_size=2)
    add("conv2", "Conv1d", out_channels=24, kernel_size=3, dilation=2)
    add("relu2", "ReLU")
    add("gap", "AdaptiveAvgPool1d", output_size=1)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    return add.graph()


def along_three() -> Graph:
    """A volume."""
    add = _Chain(2, 6, 8, 8)
    add("conv1", "Conv3d", out_channels=12, kernel_size=3, padding=1)
    add("bn", "BatchNorm3d")
    add("relu", "ReLU")
    add("pool", "MaxPool3d", kernel_size=2)
    add("conv2", "Conv3d", out_channels=16, kernel_size=3, padding=1)
    add("relu2", "ReLU")
    add("gap", "AdaptiveAvgPool3d", output_size=1)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    return add.graph()


def shared() -> Graph:
    """One convolution's weights used three times, on inputs of other ranges."""
    add = _Chain(8, 10, 10)
    first = add("conv", "Conv2d", **_conv(8))
    owner = 0
    add("relu", "ReLU")
    kind = made(registry()["Conv2d"], **_conv(8))
    again = add.net.add("again", kind, add.at, share=owner)
    add("pool", "MaxPool2d", again, kernel_size=2)
    last = add.net.add("last", kind, add.at, share=owner)
    del first
    add("gap", "AdaptiveAvgPool2d", last, output_size=1)
    add("flat", "Flatten")
    add("fc", "Linear", out_features=10)
    return add.graph()


NETWORKS: Mapping[str, Callable[[], Graph]] = {
    each.__name__: each
    for each in (
        plain,
        residual,
        excited,
        upsampled,
        attentive,
        along_one,
        along_three,
        shared,
    )
}


def model_of(graph: Graph, opset: int = 18, *, fold: bool = True) -> onnx.ModelProto:
    """The float32 model with random weights."""
    return to_model(graph, arrays(torch_of(graph)), opset=opset, fold=fold)


def inputs_of(graph: Graph, batch: int, seed: int) -> Feeds:
    """Random inputs of a network."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal((batch, *graph.tensors[value].shape), dtype=np.float32)
        for name, value in graph.inputs.items()
    }


def run(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[np.generic]], *, optimise: bool = False
) -> list[NDArray[np.float32]]:
    """All outputs, as ONNX Runtime computes them."""
    levels = onnxruntime.GraphOptimizationLevel
    level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    return session(model.SerializeToString(), optimise=level).run(None, dict(feeds))


def relative(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference in units of the largest value."""
    return float(np.abs(reference - other).max() / np.abs(reference).max())


def decibels(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The ratio of signal to noise."""
    noise = float(np.square(reference.astype(np.float64) - other).sum())
    return float(10 * np.log10(np.square(reference.astype(np.float64)).sum() / noise))


def stable_bytes(model: onnx.ModelProto) -> bytes:
    """The model as it would be written."""
    return model.SerializeToString(deterministic=True)
