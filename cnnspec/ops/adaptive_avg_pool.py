"""Average pooling to a given size: AdaptiveAvgPool1d, 2d and 3d."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.lower import Const, Dim, In, Node, OnnxValue, Out, Tmp, const, node, shape
from cnnspec.op import Example, Op, Ops, Saved, Site, arg
from cnnspec.ops._adaptive import AdaptivePool, bins
from cnnspec.ops._reduce import mean_nodes
from cnnspec.ops.avg_pool import AvgPool1d, AvgPool2d, AvgPool3d
from cnnspec.slots import Size

_POOLS: Mapping[int, type[Op]] = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}
"""The pools with windows of a given size, by the number of axes."""

_FLOAT32 = 1
"""ONNX's number for the dtype."""


class _AdaptiveAvgPool(AdaptivePool, abstract=True):
    """The rules that adaptive average pools of every rank share."""

    saves = ("input",)

    def cost(self, at: Site) -> Ops:
        """Each window's additions, one less than its positions, and a division for each output."""
        return Ops(add=self._combined(at), div=at.y.elements)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input; nothing of a global mean, whose gradient is the same everywhere."""
        return super().saved(at, batch) if any(n > 1 for n in at.y.shape[1:]) else Saved()

    def with_fixed_windows(self, at: Site) -> Op | None:
        """The pool with those windows; the identity where nothing changes."""
        return self._fixed(at, _POOLS[self.axes])

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """GlobalAveragePool, or AveragePool along axes that divide and matrices along others.

        Averaging along one axis is a product with a fixed matrix, and axes are independent.
        """
        if set(self.output_size) == {1}:
            return (node("GlobalAveragePool", In(0)),)
        axes = range(2, self.axes + 2)
        sizes = tuple(zip(at.x.shape[1:], at.y.shape[1:], strict=True))
        whole = tuple(axis for axis, out in zip(axes, self.output_size, strict=True) if out == 1)
        kernel = [
            1 if axis in whole or n % out else n // out
            for axis, (n, out) in zip(axes, sizes, strict=True)
        ]
        current: OnnxValue = In(0)
        nodes: list[Node] = []
        if whole:
            reduced = Tmp("reduced")
            nodes += mean_nodes(current, whole, opset, reduced)
            current = reduced
        if any(extent > 1 for extent in kernel):
            pooled = Tmp("pooled")
            nodes.append(
                node("AveragePool", current, to=pooled, kernel_shape=kernel, strides=kernel)
            )
            current = pooled
        for axis, (n, out) in zip(axes, sizes, strict=True):
            if n % out:
                mixed = Tmp(f"mixed{axis}")
                nodes += self._onnx_mix(current, axis, n, out, mixed)
                current = mixed
        return (*nodes, node("Identity", current, to=Out(0)))

    def onnx_open(self, at: Site, opset: int) -> tuple[Node, ...]:
        """GlobalAveragePool, or for each axis a matrix that is made when the network runs."""
        if set(self.output_size) == {1}:
            return self.onnx(at, opset)
        current: OnnxValue = In(0)
        nodes: list[Node] = []
        for axis, out in enumerate(self.output_size, start=2):
            if out is not None:
                mixed, columns = Tmp(f"mixed{axis}"), Tmp(f"columns{axis}")
                nodes += _columns(axis, out, columns)
                nodes += self._onnx_product(current, axis, columns, mixed)
                current = mixed
        return (*nodes, node("Identity", current, to=Out(0)))

    def _onnx_mix(self, x: OnnxValue, axis: int, n: int, out: int, to: Tmp) -> tuple[Node, ...]:
        """The axis from `n` to `out` positions by a fixed matrix."""
        columns = tuple(
            tuple(
                1 / (stop - start) if start <= row < stop else 0.0 for start, stop in bins(n, out)
            )
            for row in range(n)
        )
        return self._onnx_product(x, axis, const(columns), to)

    def _onnx_product(
        self, x: OnnxValue, axis: int, columns: OnnxValue, to: Tmp
    ) -> tuple[Node, ...]:
        """A product along an axis with a matrix, which acts on a last axis."""
        last = self.axes + 1
        if axis == last:
            return (node("MatMul", x, columns, to=to),)
        order = [*range(self.axes + 2)]
        order[axis], order[last] = last, axis
        there, product = Tmp(f"there{axis}"), Tmp(f"product{axis}")
        return (
            node("Transpose", x, to=there, perm=order),
            node("MatMul", there, columns, to=product),
            node("Transpose", product, to=to, perm=order),
        )


def _columns(axis: int, out: int, to: Tmp) -> tuple[Node, ...]:
    """The matrix of `bins` for the size that the axis has when the network runs.

    Its column `i` has the share `1 / (stop - start)` in the rows from `start` to `stop`.
    """

    def tmp(name: str) -> Tmp:
        return Tmp(f"{name}{axis}")

    def whole(*numbers: int) -> Const:
        return const(numbers, "int64")

    def to_float(value: Tmp, to: Tmp) -> Node:
        return Node("Cast", (value,), (to,), (("to", _FLOAT32),))

    n = shape(Dim(In(0), axis))
    zero, one = const(0, "int64"), const(1, "int64")
    return (
        node("Mul", n, whole(*range(out)), to=tmp("low")),
        node("Div", tmp("low"), whole(out), to=tmp("start")),
        node("Mul", n, whole(*range(1, out + 1)), to=tmp("high")),
        node("Add", tmp("high"), whole(out - 1), to=tmp("rounded")),
        node("Div", tmp("rounded"), whole(out), to=tmp("stop")),
        node("Squeeze", n, to=tmp("count")),
        node("Range", zero, tmp("count"), one, to=tmp("places")),
        node("Unsqueeze", tmp("places"), whole(1), to=tmp("rows")),
        node("GreaterOrEqual", tmp("rows"), tmp("start"), to=tmp("behind")),
        node("Less", tmp("rows"), tmp("stop"), to=tmp("before")),
        node("And", tmp("behind"), tmp("before"), to=tmp("inside")),
        node("Sub", tmp("stop"), tmp("start"), to=tmp("length")),
        to_float(tmp("inside"), tmp("mask")),
        to_float(tmp("length"), tmp("parts")),
        node("Div", tmp("mask"), tmp("parts"), to=to),
    )


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """Averages a sequence down, or up, to a given length."""

    output_size: tuple[int, ...] = arg(Size())
    """Positions of the result; torch takes no null here."""

    axes = 1
    examples = (
        Example({"output_size": 1}, (4, 9), (4, 1), 0),
        Example({"output_size": 4}, (3, 10), (3, 4), note="windows of three that overlap"),
    )


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """Averages an image to a given size, whatever size it has.

    Output `i` of `out` reads from `floor(i*n/out)` up to, not including, `ceil((i + 1)*n/out)`.
    """

    examples = (
        Example({"output_size": 1}, (8, 7, 6), (8, 1, 1), note="global average pooling"),
        Example({"output_size": [2, 3]}, (4, 8, 9), (4, 2, 3), note="sizes that divide"),
        Example({"output_size": [3, 4]}, (4, 7, 10), (4, 3, 4), note="sizes that do not"),
        Example({"output_size": [None, 5]}, (4, 6, 9), (4, 6, 5), note="null keeps the height"),
        Example({"output_size": [1, 4]}, (4, 6, 9), (4, 1, 4)),
        Example({"output_size": 7}, (2, 3, 7), (2, 7, 7), note="more outputs than inputs"),
    )


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """Averages a volume to a given size."""

    axes = 3
    examples = (
        Example({"output_size": 1}, (4, 3, 4, 5), (4, 1, 1, 1)),
        Example({"output_size": [2, 3, None]}, (2, 3, 6, 4), (2, 2, 3, 4)),
        Example({"output_size": [1, 2, 3]}, (2, 3, 5, 4), (2, 1, 2, 3)),
    )


__all__ = ["AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d"]
