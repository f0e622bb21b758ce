"""Softmax and its relatives, along any axis but the batch."""

from __future__ import annotations

from cnnspec.lower import In, Node, Tmp, TorchCode, module, node
from cnnspec.op import Example, Op, Ops, Site, arg
from cnnspec.ops._dim import AlongAxis, position
from cnnspec.ops._windows import require_channels_first
from cnnspec.slots import Int
from cnnspec.tensor import Tensor


class _Normalized(AlongAxis, abstract=True):
    """Weighs each element against the others along one axis."""

    inplace_capable = True
    quantizable = True
    saves = ("output",)

    def cost(self, at: Site) -> Ops:
        """Largest, difference, exponential, sum and quotient."""
        n = at.x.elements
        within = n - n // at.x.shape[self._axis(at.x)]
        return Ops(cmp=within, add=n + within, exp=n, div=n)


class _AlongDim(_Normalized, abstract=True):
    """A softmax along a given axis."""

    dim: int = arg(Int())
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""

    examples = (
        Example({"dim": 1}, (3, 4, 5), (3, 4, 5), 0),
        Example({"dim": -1}, (3, 4, 5)),
        Example({"dim": 1}, (10,), (10,), 0),
        Example({"dim": 1}, (1, 6), note="an axis of one element"),
    )

    def _axis(self, x: Tensor) -> int:
        return position(self.dim, x)

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """Over the channels, where those are all the features."""
        return self.replace(dim=1) if set(window[1:]) == {1} else None

    def torch(self, at: Site) -> TorchCode:
        """The module of torch.nn of the same name."""
        return module(f"nn.{self.name}", dim=self.dim)


class Softmax(_AlongDim):
    """`exp(x) / sum(exp(x))` along an axis."""

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Softmax."""
        return (node("Softmax", In(0), axis=self._axis(at.x) + 1),)


class Softmin(_AlongDim):
    """`exp(-x) / sum(exp(-x))` along an axis."""

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Neg and Softmax."""
        return (
            node("Neg", In(0), to=Tmp("negative")),
            node("Softmax", Tmp("negative"), axis=self._axis(at.x) + 1),
        )


class LogSoftmax(_AlongDim):
    """`x - log(sum(exp(x)))` along an axis."""

    quantizable = False

    def cost(self, at: Site) -> Ops:
        """Largest, difference, exponential, sum, its logarithm and another difference."""
        n = at.x.elements
        sums = n // at.x.shape[self._axis(at.x)]
        return Ops(cmp=n - sums, add=3 * n - sums, exp=n + sums)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LogSoftmax."""
        return (node("LogSoftmax", In(0), axis=self._axis(at.x) + 1),)


class Softmax2d(_Normalized):
    """A softmax over the channels at each place of an image."""

    examples = (Example({}, (3, 4, 5), (3, 4, 5), 0),)

    def _axis(self, x: Tensor) -> int:
        require_channels_first("Softmax2d", 2, x)
        return 0

    def torch(self, at: Site) -> TorchCode:
        """`nn.Softmax2d`."""
        return module("nn.Softmax2d")

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Softmax over axis 1."""
        return (node("Softmax", In(0), axis=1),)
