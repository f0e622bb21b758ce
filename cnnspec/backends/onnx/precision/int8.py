"""8 bits: a float32 model to one whose convolutions and linear layers run on integers.

Static quantization in ONNX's own form: QuantizeLinear and DequantizeLinear around float nodes,
which a runtime fuses into integer kernels where it has them and runs as written where not. Weights
are int8, symmetric, with a scale for each output channel; activations uint8 with a zero point
(`target="cpu"`: a ReLU then ends where the range does and dissolves, and all 256 steps are used) or
int8 without one (`target="tensorrt"`, which takes nothing else). Biases are int32 on the scale of
the products they are added to.

ONNX Runtime's own `quantize_static` is not used: it destroys a model that it is given in memory,
works through files, drops ReLU nodes, and gives no reasons. Networks enter for what their
operations say of themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cnnspec.backends.onnx.precision.calibration import Method, Range, ranges
from cnnspec.backends.onnx.precision.kept import Converted
from cnnspec.backends.onnx.precision.planning import Plan, Product, plan_of
from cnnspec.backends.onnx.precision.rewriting import (
    Names,
    add_array,
    blank,
    layer_of,
    named_for,
    writers,
)
from cnnspec.backends.onnx.precision.running import Feeds, Progress
from cnnspec.ir import Graph

__all__ = ["Target", "quantize"]

Target = Literal["cpu", "tensorrt"]
"""Whose form of 8 bits is written."""

_TINY = float(np.finfo(np.float32).tiny)

_LARGEST = 127
"""Largest integer that a weight becomes."""

_LARGEST_PAIR = 127.0
"""Largest sum of two weights of one sign, before they are rounded and grow by 1 at most.

x86 processors without VNNI multiply and add two pairs into 16 bits, which saturate: with
activations of 255, two weights may sum up to 128 (32,640 of 32,767). Which two meet depends on the
kernel, so no two pass it.
"""

_BIAS_LIMIT = float(1 << 30)
"""Largest integer that a bias becomes, half of what int32 holds."""


def quantize(
    model: onnx.ModelProto,
    graph: Graph,
    samples: Iterable[Feeds],
    *,
    method: Method = "minmax",
    target: Target = "cpu",
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> Converted:
    """`model`, written from `graph`, with its convolutions and linear layers in 8 bits.

    `samples` are inputs as the model takes them, read once; `progress` is called behind each. The
    same model, samples and options give the same bytes. Names of nodes, tensors, inputs and
    outputs stay, as do free sizes. Layers whose path is in `keep` stay float32. The file
    computes the same on processors that add two products in 16 bits.

    Raises `EnvironmentFailure` for no samples and for values that are not finite.
    """
    plan = plan_of(model, graph, keep)
    sources = list(dict.fromkeys(plan.held.values()))
    found = ranges(model, sources, samples, method=method, progress=progress)
    scales = {name: _Scale.of(found[name], target) for name in sources}
    writing = _Writing(model, plan, scales, target)
    return Converted(writing.result(), plan.kept)


@dataclass(frozen=True, slots=True)
class _Scale:
    """`real = scale * (integer - zero)`."""

    scale: np.float32
    zero: np.uint8 | np.int8

    @staticmethod
    def of(found: Range, target: Target) -> _Scale:
        """The scale on which a range fits, and 0 is exact."""
        low, high = min(found[0], 0.0), max(found[1], 0.0)
        if target == "tensorrt":
            return _Scale(_step(max(-low, high), 127), np.int8(0))
        scale = _step(high - low, 255)
        return _Scale(scale, np.uint8(min(255, round(-low / float(scale)))))


def _step(width: float, steps: int) -> np.float32:
    """The size of one of `steps` steps of a range, rounded so that they do not pass its end."""
    if width <= 0:
        return np.float32(1)
    step = np.float32(width / steps)
    if float(step) * steps > width:
        step = np.nextafter(step, np.float32(0))
    return max(step, np.float32(_TINY))


def _largest_pair(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest sum of two weights of one sign in each row, which may be of one weight."""
    sums = np.zeros(len(weights))
    for signed in (weights, -weights):
        ahead = -np.partition(-np.maximum(signed, 0), min(1, signed.shape[1] - 1), axis=1)[:, :2]
        sums = np.maximum(sums, ahead.sum(axis=1))
    return sums


class _Writing:
    """Writes the nodes again, each 8-bit tensor with its QuantizeLinear and DequantizeLinear."""

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: Plan,
        scales: Mapping[str, _Scale],
        target: Target,
    ) -> None:
        self._model = model
        self._plan = plan
        self._scales = scales
        self._target = target
        self._names = Names(model.graph)
        self._layers = writers(model)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._uses: dict[str, list[int]] = {}
        for number, node in enumerate(model.graph.node):
            for name in node.input:
                if name in self._constants:
                    self._uses.setdefault(name, []).append(number)
        self._arrays: dict[str, NDArray[np.generic]] = {}
        self._parameters: dict[str, tuple[str, str]] = {}
        self._read_as: dict[str, str] = {}
        self._weights: dict[tuple[str, int], tuple[str, NDArray[np.float32]]] = {}
        self._nodes: list[onnx.NodeProto] = []

    def result(self) -> onnx.ModelProto:
        """The model."""
        written = blank(self._model)
        for value in written.graph.input:
            self._hold(value.name)
        for number, node in enumerate(self._model.graph.node):
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            product = self._plan.products.get(number)
            inner = product is not None or number in self._plan.carried
            for position, name in enumerate(node.input):
                if name in self._read_as and (inner or name in self._plan.everywhere):
                    copied.input[position] = self._read_as[name]
            if product is not None:
                self._product(copied, node, product)
            self._nodes.append(copied)
            for name in node.output:
                self._hold(name)
        body = written.graph
        body.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        read.update(each.name for each in body.output)
        made = {name for node in self._nodes for name in node.output}
        for name, tensor in self._constants.items():
            if name in read and name not in made:
                body.initializer.add().CopyFrom(tensor)
        for name, array in self._arrays.items():
            add_array(body, name, array)
        return written

    # ------------------------------------------------------------------------------- activations

    def _hold(self, name: str) -> None:
        """Quantize and dequantize a tensor behind what writes it, where the plan wants that."""
        if name not in self._plan.held:
            return
        scale, zero = self._scale_of(self._plan.held[name])
        integers, back = (self._names.new(f"{name}/{end}") for end in ("quantized", "dequantized"))
        for op, source, to in (
            ("QuantizeLinear", name, integers),
            ("DequantizeLinear", integers, back),
        ):
            called = named_for(self._layers.get(name, name), to)
            self._nodes.append(helper.make_node(op, [source, scale, zero], [to], name=called))
        self._read_as[name] = back

    def _scale_of(self, source: str) -> tuple[str, str]:
        """The names of the scale and of the zero point of a tensor, written once."""
        if source not in self._parameters:
            names = self._names.new(f"{source}/scale"), self._names.new(f"{source}/zero_point")
            chosen = self._scales[source]
            self._arrays[names[0]] = np.asarray(chosen.scale)
            self._arrays[names[1]] = np.asarray(chosen.zero)
            self._parameters[source] = names
        return self._parameters[source]

    # ----------------------------------------------------------------------------------- weights

    def _product(self, copied: onnx.NodeProto, node: onnx.NodeProto, product: Product) -> None:
        """Give a product its weights as integers."""
        name, scale = self._weight(node, product)
        copied.input[1] = name
        if product.bias and self._target == "cpu":
            copied.input[2] = self._bias(node, product, scale)

    def _weight(self, node: onnx.NodeProto, product: Product) -> tuple[str, NDArray[np.float32]]:
        """The tensor of weights held in 8 bits, and their scale for each output channel."""
        key, axis = product.weight, product.axis
        if (key, axis) not in self._weights:
            array = numpy_helper.to_array(self._constants[key])
            channels = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            scale = self._weight_scale(product, channels.astype(np.float64))
            shape = [-1 if number == axis else 1 for number in range(array.ndim)]
            steps = np.rint(array / scale.reshape(shape))
            integers = np.clip(steps, -_LARGEST, _LARGEST).astype(np.int8)
            zero = np.zeros(scale.shape, np.int8)
            name = self._dequantized(node, (key, key), integers, scale, zero, axis)
            self._weights[key, axis] = name, scale
        return self._weights[key, axis]

    def _weight_scale(self, product: Product, weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """A scale for each row of weights: the largest fits, and so does its bias in int32.

        A channel whose weights are (nearly) zero has a coarser scale than its weights ask for,
        since its bias is told on the scale of the products.
        """
        scale = np.abs(weights).max(axis=1, initial=0.0) / _LARGEST
        if self._target == "cpu":
            scale = np.maximum(scale, _largest_pair(weights) / _LARGEST_PAIR)
            for number in self._uses[product.weight]:
                use = self._plan.products.get(number)
                if use is not None and use.weight == product.weight and use.bias:
                    bias = numpy_helper.to_array(self._constants[use.bias]).astype(np.float64)
                    step = float(self._input_scale(number))
                    scale = np.maximum(scale, np.abs(bias) / (step * _BIAS_LIMIT))
        return np.where(scale > 0, np.maximum(scale, _TINY), 1.0).astype(np.float32)

    def _input_scale(self, number: int) -> np.float32:
        return self._scales[self._plan.held[self._model.graph.node[number].input[0]]].scale

    def _bias(
        self, node: onnx.NodeProto, product: Product, weight_scale: NDArray[np.float32]
    ) -> str:
        """The bias as integers on the scale of the products of this node."""
        scale = self._scales[self._plan.held[node.input[0]]].scale * weight_scale
        scale = np.maximum(scale, np.float32(_TINY))
        array = numpy_helper.to_array(self._constants[product.bias]).astype(np.float64)
        limit = 2.0**31 - 128
        integers = np.clip(np.rint(array / scale), -limit, limit).astype(np.int32)
        shared = len(self._uses[product.bias]) > 1
        key = f"{layer_of(node)}/bias" if shared else product.bias
        return self._dequantized(node, (product.bias, key), integers, scale, None, 0)

    def _dequantized(
        self,
        node: onnx.NodeProto,
        called: tuple[str, str],
        integers: NDArray[np.generic],
        scale: NDArray[np.float32],
        zero: NDArray[np.int8] | None,
        axis: int,
    ) -> str:
        """Store integers for `node`, and dequantize them; the name they are then read by.

        `called` are what they stand for and what the new tensors are named after. They take the
        name of what they stand for if every node that reads it does so in 8 bits and on one scale.
        """
        source, key = called
        ends = ("quantized", "scale", *(("zero_point",) if zero is not None else ()))
        names = [self._names.new(f"{key}/{end}") for end in ends]
        for name, array in zip(names, (integers, scale, zero), strict=False):
            assert array is not None
            self._arrays[name] = array
        replaced = key == source and all(
            self._reads_whole(number, source, axis) for number in self._uses[source]
        )
        to = source if replaced else self._names.new(f"{key}/dequantized")
        name = named_for(layer_of(node), f"{key}/dequantized")
        self._nodes.append(helper.make_node("DequantizeLinear", names, [to], name=name, axis=axis))
        return to

    def _reads_whole(self, number: int, source: str, axis: int) -> bool:
        """True if a node reads a constant as nothing but weights or bias of a product in 8 bits."""
        product = self._plan.products.get(number)
        if product is None or list(self._model.graph.node[number].input).count(source) != 1:
            return False
        return source == product.bias or (source == product.weight and axis == product.axis)
