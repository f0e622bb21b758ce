"""Max pooling: MaxPool1d, MaxPool2d, MaxPool3d."""

from __future__ import annotations

from math import inf, prod

from cnnspec.lower import In, Node, OnnxValue, Tmp, TorchCode, const, module, node
from cnnspec.op import Example, Ops, Site, arg
from cnnspec.ops._pooling import SlidingPool
from cnnspec.ops._windows import short, unlike_default
from cnnspec.slots import Size


class _MaxPool(SlidingPool, abstract=True):
    """The rules that max pools of every rank share."""

    dilation: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the positions that a window compares."""

    saves = ("input", "indices")

    @property
    def _dilation(self) -> tuple[int, ...]:
        return self.dilation

    def cost(self, at: Site) -> Ops:
        """One comparison less than the window has positions, for each output."""
        return Ops(cmp=(prod(self.kernel_size) - 1) * at.y.elements)

    def torch(self, at: Site) -> TorchCode:
        """`nn.MaxPool*d`."""
        written = {**self._written(), "dilation": (short(self.dilation), 1)}
        return module(f"nn.{self.name}", short(self.kernel_size), **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """MaxPool, behind Pad where the padding at an end is negative and cuts."""
        before, ends = self.padding, self._ends(at)
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        if any(end < 0 for end in ends):
            x = Tmp("padded")
            pads = const((0, 0, *before, 0, 0, *ends), "int64")
            nodes = (node("Pad", In(0), pads, const(-inf), to=x, mode="constant"),)
            before = ends = (0,) * self.axes
        return (
            *nodes,
            node(
                "MaxPool",
                x,
                kernel_shape=list(self.kernel_size),
                strides=list(self._stride),
                pads=[*before, *ends],
                dilations=list(self.dilation),
                ceil_mode=int(self.ceil_mode),
            ),
        )


class MaxPool1d(_MaxPool):
    """The largest value in each window of a sequence."""

    axes = 1
    examples = (
        Example({"kernel_size": 2}, (3, 9), (3, 4), 0),
        Example({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (3, 8), (3, 5)),
        Example({"kernel_size": 2, "dilation": 3, "padding": 1, "stride": 1}, (2, 7), (2, 6)),
    )


class MaxPool2d(_MaxPool):
    """The largest value in each window of an image."""

    examples = (
        Example({"kernel_size": 3, "stride": 2, "padding": 1}, (4, 9, 10), (4, 5, 5)),
        Example(
            {"kernel_size": 3, "stride": 2, "ceil_mode": True},
            (4, 8, 9),
            (4, 4, 4),
            note="rounds up, as Caffe's networks do",
        ),
        Example(
            {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
            (2, 5, 6),
            (2, 2, 3),
            note="a window that would start in the padding is dropped, on one axis here",
        ),
        Example(
            {"kernel_size": 1, "stride": 3, "ceil_mode": True},
            (2, 6, 7),
            (2, 2, 3),
            note="a dropped window without padding",
        ),
        Example(
            {"kernel_size": [2, 3], "stride": 1, "padding": 1, "dilation": [3, 2]},
            (2, 5, 7),
            (2, 4, 5),
        ),
        Example(
            {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True},
            (2, 8, 9),
        ),
    )


class MaxPool3d(_MaxPool):
    """The largest value in each window of a volume."""

    axes = 3
    examples = (
        Example({"kernel_size": 2}, (2, 4, 5, 6), (2, 2, 2, 3)),
        Example(
            {
                "kernel_size": [1, 3, 3],
                "stride": [1, 2, 2],
                "padding": [0, 1, 1],
                "ceil_mode": True,
            },
            (2, 3, 6, 7),
        ),
    )


__all__ = ["MaxPool1d", "MaxPool2d", "MaxPool3d"]
