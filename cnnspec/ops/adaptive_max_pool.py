"""Max pooling to a given size: AdaptiveMaxPool1d, 2d and 3d."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.lower import In, Node, OnnxValue, Tmp, const, node
from cnnspec.op import Example, Op, Ops, Site, arg
from cnnspec.ops._adaptive import AdaptivePool, bins
from cnnspec.ops._reduce import max_nodes
from cnnspec.ops.max_pool import MaxPool1d, MaxPool2d, MaxPool3d
from cnnspec.slots import Size

_POOLS: Mapping[int, type[Op]] = {1: MaxPool1d, 2: MaxPool2d, 3: MaxPool3d}
"""The pools with windows of a given size, by the number of axes."""


class _AdaptiveMaxPool(AdaptivePool, abstract=True):
    """The rules that adaptive max pools of every rank share."""

    saves = ("input", "indices")

    def cost(self, at: Site) -> Ops:
        """Each window's comparisons, one less than its positions."""
        return Ops(cmp=self._combined(at))

    def with_fixed_windows(self, at: Site) -> Op | None:
        """The pool with those windows; the identity where nothing changes."""
        return self._fixed(at, _POOLS[self.axes])

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """GlobalMaxPool, or MaxPool along axes that divide and gathered windows along others.

        A maximum is one along each axis in turn. Windows of different lengths are gathered as long
        as the longest, shorter ones with their last position again.
        """
        if set(self.output_size) == {1}:
            return (node("GlobalMaxPool", In(0)),)
        sizes = tuple(zip(at.x.shape[1:], at.y.shape[1:], strict=True))
        kernel = [1 if n % out else n // out for n, out in sizes]
        current: OnnxValue = Tmp("pooled")
        nodes = [node("MaxPool", In(0), to=Tmp("pooled"), kernel_shape=kernel, strides=kernel)]
        for axis, (n, out) in enumerate(sizes, start=2):
            if n % out:
                windows, highest = Tmp(f"windows{axis}"), Tmp(f"highest{axis}")
                longest = max(stop - start for start, stop in bins(n, out))
                places = tuple(
                    tuple(min(start + step, stop - 1) for step in range(longest))
                    for start, stop in bins(n, out)
                )
                nodes.append(node("Gather", current, const(places, "int64"), to=windows, axis=axis))
                nodes += max_nodes(windows, (axis + 1,), opset, highest, keepdims=False)
                current = highest
        return (*nodes, node("Identity", current))


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The largest values of a sequence, brought to a given length."""

    output_size: tuple[int, ...] = arg(Size())
    """Positions of the result; torch takes no null here."""

    axes = 1
    examples = (
        Example({"output_size": 1}, (4, 9), (4, 1), 0),
        Example({"output_size": 4}, (3, 10), (3, 4), note="windows of three that overlap"),
    )


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The largest values of an image, brought to a given size whatever size it has.

    Output `i` of `out` reads from `floor(i*n/out)` up to, not including, `ceil((i + 1)*n/out)`.
    """

    examples = (
        Example({"output_size": 1}, (8, 7, 6), (8, 1, 1), note="global max pooling"),
        Example({"output_size": [2, 3]}, (4, 8, 9), (4, 2, 3), note="sizes that divide"),
        Example({"output_size": [3, 4]}, (4, 7, 10), (4, 3, 4), note="sizes that do not"),
        Example({"output_size": [None, 5]}, (4, 6, 9), (4, 6, 5), note="null keeps the height"),
        Example({"output_size": [1, 4]}, (4, 6, 9), (4, 1, 4)),
        Example({"output_size": 7}, (2, 3, 7), (2, 7, 7), note="more outputs than inputs"),
    )


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The largest values of a volume, brought to a given size."""

    axes = 3
    examples = (
        Example({"output_size": 1}, (4, 3, 4, 5), (4, 1, 1, 1)),
        Example({"output_size": [2, 3, None]}, (2, 3, 6, 4), (2, 2, 3, 4)),
        Example({"output_size": [1, 2, 3]}, (2, 3, 5, 4), (2, 1, 2, 3)),
    )


__all__ = ["AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d"]
