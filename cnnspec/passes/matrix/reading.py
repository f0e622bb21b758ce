"""Runs the ONNX lowering of an operation on affine forms, for one sample.

A node that is not affine, or that nobody has put down here, raises `NotAffineError` with its name.
Arrays of plain numbers (sizes, indices) are computed as ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np

from cnnspec.lower import Const, Dim, In, Node, OnnxValue, Out, Own, Rest, Shape, Tmp
from cnnspec.passes.matrix.form import Form, NotAffineError, exact_number
from cnnspec.passes.matrix.tensors import (
    Array,
    average_pool,
    convolve,
    convolve_transposed,
    multiplied,
    padded,
    reshaped,
    resized,
)

__all__ = ["read_nodes"]

_Given: TypeAlias = list[Any]
"""Arrays that a node is given, None where it leaves one out."""

_INT64 = 7
_FLOAT32 = 1


def read_nodes(
    nodes: Sequence[Node], inputs: Sequence[Array], own: Mapping[str, Array], outputs: int
) -> tuple[Array, ...]:
    """The outputs of nodes, from inputs and from what the operation stores, by its names."""
    return _Reading(inputs, own).run(nodes, outputs)


class _Reading:
    """Values by what names them."""

    def __init__(self, inputs: Sequence[Array], own: Mapping[str, Array]) -> None:
        self._inputs = inputs
        self._own = own
        self._found: dict[Tmp | Out, Array] = {}

    def run(self, nodes: Sequence[Node], outputs: int) -> tuple[Array, ...]:
        for node in nodes:
            rule: Callable[..., Any] | None = getattr(self, f"_{_snake(node.op)}", None)
            if rule is None:
                raise NotAffineError(node.op)
            try:
                made = rule([self._value(v) for v in node.inputs], dict(node.attributes))
            except NotAffineError:
                raise NotAffineError(node.op) from None
            several = made if isinstance(made, tuple) else (made,)
            self._found.update(zip(node.outputs, several, strict=True))
        return tuple(self._found[Out(number)] for number in range(outputs))

    # ---------------------------------------------------------------------------------- values

    def _value(self, value: OnnxValue) -> Array | None:
        match value:
            case None:
                return None
            case In(number):
                return self._inputs[number]
            case Tmp() | Out():
                return self._found[value]
            case Own(name, permute, rows):
                array = self._own[name]
                if rows is not None:
                    array = array[slice(*rows)]
                return array if permute is None else array.transpose(permute)
            case Const(values, dtype, shape):
                array = np.array(values)
                array = _numbers(array) if dtype == "float32" else array.astype(dtype)
                return array if shape is None else array.reshape(shape)
            case Shape(items):
                return np.array([size for item in items for size in self._sizes(item)], np.int64)

    def _sizes(self, item: int | Dim | Rest) -> tuple[int, ...]:
        if isinstance(item, int):
            return (item,)
        shape = self._inputs[item.tensor.index].shape
        return shape[item.axis :] if isinstance(item, Rest) else (shape[item.axis],)

    # ------------------------------------------------------------------------- moving elements

    def _identity(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return given[0]

    def _flatten(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return given[0].reshape(1, -1)

    def _reshape(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return reshaped(given[0], [int(size) for size in given[1]])

    def _transpose(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return given[0].transpose(how["perm"])

    def _concat(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.concatenate(given, how["axis"])

    def _split(self, given: _Given, how: Mapping[str, Any]) -> tuple[Array, ...]:
        axis = how.get("axis", 0)
        if len(given) > 1:
            return tuple(np.split(given[0], np.cumsum(given[1].astype(int))[:-1], axis))
        return tuple(np.split(given[0], how["num_outputs"], axis))

    def _squeeze(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.squeeze(given[0], tuple(map(int, given[1])) if len(given) > 1 else None)

    def _unsqueeze(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.expand_dims(given[0], tuple(map(int, given[1].reshape(-1))))

    def _tile(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.tile(given[0], given[1].astype(int))

    def _expand(self, given: _Given, how: Mapping[str, Any]) -> Any:
        sizes = np.broadcast_shapes(given[0].shape, tuple(map(int, given[1])))
        return np.broadcast_to(given[0], sizes)

    def _gather(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.take(given[0], given[1].astype(int), how.get("axis", 0))

    def _slice(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, starts, ends, *others = given
        axes = others[0] if others else np.arange(len(starts))
        steps = others[1] if len(others) > 1 else np.ones(len(starts), np.int64)
        cut = [slice(None)] * x.ndim
        bounds = (values.reshape(-1).tolist() for values in (axes, starts, ends, steps))
        for axis, start, end, step in zip(*bounds, strict=True):
            cut[axis] = slice(int(start), int(end), int(step))
        return x[tuple(cut)]

    def _pad(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, lengths, fill, axes = (*given, None, None)[:4]
        named = [int(axis) for axis in axes] if axes is not None else list(range(x.ndim))
        pads = [(0, 0)] * x.ndim
        flat = [int(length) for length in lengths]
        for number, axis in enumerate(named):
            pads[axis] = (flat[number], flat[number + len(named)])
        value = 0 if fill is None else fill.reshape(-1)[0]
        grown = padded(
            x, [(max(0, a), max(0, b)) for a, b in pads], how.get("mode", "constant"), value
        )
        cut = [
            slice(max(0, -before), size - max(0, -after))
            for size, (before, after) in zip(grown.shape, pads, strict=True)
        ]
        return grown[tuple(cut)]

    def _scatter_nd(self, given: _Given, how: Mapping[str, Any]) -> Any:
        into, places, updates = given
        out = into.astype(object)
        for number in np.ndindex(*places.shape[:-1]):
            out[tuple(places[number])] = updates[number]
        return out

    def _depth_to_space(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, block = given[0], how["blocksize"]
        _, channels, height, width = x.shape
        kept = channels // block**2
        if how.get("mode", "DCR") == "DCR":
            parts = x.reshape(1, block, block, kept, height, width).transpose(0, 3, 4, 1, 5, 2)
        else:
            parts = x.reshape(1, kept, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
        return parts.reshape(1, kept, height * block, width * block)

    # ------------------------------------------------------------------------------ arithmetic

    def _add(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(given[0] + given[1])

    def _sub(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(given[0] - given[1])

    def _mul(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(given[0] * given[1])

    def _neg(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(-given[0])

    def _div(self, given: _Given, how: Mapping[str, Any]) -> Any:
        left, right = given
        if left.dtype.kind == "i" and right.dtype.kind == "i":
            return np.asarray(left // right)
        return np.asarray(left / right)

    def _mod(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(_plain(given[0]) % _plain(given[1]))

    def _min(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.minimum(_plain(given[0]), _plain(given[1]))

    def _floor(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.floor(_plain(given[0]))

    def _range(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.arange(*(int(bound) for bound in given), dtype=np.int64)

    def _cast(self, given: _Given, how: Mapping[str, Any]) -> Any:
        kinds = {_INT64: np.int64, _FLOAT32: np.float32}
        return _plain(given[0]).astype(kinds[how["to"]])

    def _mean(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return np.asarray(reduce(add, given) / len(given))

    def _reduce_sum(self, given: _Given, how: Mapping[str, Any]) -> Any:
        axes = tuple(map(int, given[1])) if len(given) > 1 else how.get("axes")
        return np.asarray(np.sum(given[0], axes, keepdims=bool(how.get("keepdims", 1))))

    def _reduce_mean(self, given: _Given, how: Mapping[str, Any]) -> Any:
        total = self._reduce_sum(given, how)
        return np.asarray(total / (given[0].size // total.size))

    def _mat_mul(self, given: _Given, how: Mapping[str, Any]) -> Any:
        return multiplied(given[0], given[1])

    def _gemm(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, weight, bias = (*given, None)[:3]
        product = multiplied(x, weight.T if how.get("transB") else weight)
        return np.asarray(product if bias is None else product + bias)

    # --------------------------------------------------------------------------------- windows

    def _conv(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, weight, bias = (*given, None)[:3]
        axes = weight.ndim - 2
        y = convolve(
            x,
            weight,
            strides=how.get("strides", [1] * axes),
            dilations=how.get("dilations", [1] * axes),
            pads=how.get("pads", [0] * 2 * axes),
            groups=how.get("group", 1),
        )
        return _with_bias(y, bias)

    def _conv_transpose(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, weight, bias = (*given, None)[:3]
        axes = weight.ndim - 2
        y = convolve_transposed(
            x,
            weight,
            strides=how.get("strides", [1] * axes),
            dilations=how.get("dilations", [1] * axes),
            pads=how.get("pads", [0] * 2 * axes),
            output_padding=how.get("output_padding", [0] * axes),
            groups=how.get("group", 1),
        )
        return _with_bias(y, bias)

    def _average_pool(self, given: _Given, how: Mapping[str, Any]) -> Any:
        kernel = how["kernel_shape"]
        return average_pool(
            given[0],
            kernel=kernel,
            strides=how.get("strides", [1] * len(kernel)),
            pads=how.get("pads", [0] * 2 * len(kernel)),
            ceil_mode=bool(how.get("ceil_mode", 0)),
            count_include_pad=bool(how.get("count_include_pad", 0)),
        )

    def _global_average_pool(self, given: _Given, how: Mapping[str, Any]) -> Any:
        axes = tuple(range(2, given[0].ndim))
        total = np.sum(given[0], axes, keepdims=True)
        return np.asarray(total / (given[0].size // total.size))

    def _resize(self, given: _Given, how: Mapping[str, Any]) -> Any:
        x, _, scales, sizes = (*given, None, None)[:4]
        if sizes is not None:
            out = [int(size) for size in sizes]
            factors = [after / before for after, before in zip(out, x.shape, strict=True)]
        else:
            factors = [float(scale) for scale in scales]
            out = [
                int(np.float32(n) * np.float32(f)) for n, f in zip(x.shape, factors, strict=True)
            ]
        return resized(
            x,
            out,
            factors,
            mode=how["mode"],
            coordinates=how["coordinate_transformation_mode"],
            cubic=how.get("cubic_coeff_a", -0.75),
        )


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else np.asarray(y + bias.reshape(1, -1, *[1] * (y.ndim - 2)))


def _plain(x: Array) -> Array:
    """An array of numbers alone, as numpy's own numbers."""
    if x.dtype != object:
        return x
    if any(isinstance(value, Form) for value in x.reshape(-1)):
        raise NotAffineError
    return x.astype(np.float32)


def _numbers(values: Array) -> Array:
    """Floats as the numbers that they were computed from."""
    found = np.empty(values.shape, dtype=object)
    for place in np.ndindex(*values.shape):
        found[place] = exact_number(float(values[place]))
    return found


def _snake(name: str) -> str:
    """`GlobalAveragePool` as `global_average_pool`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
