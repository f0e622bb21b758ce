"""The largest of several linear pieces: Maxout."""

from __future__ import annotations

from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Out, Rest, Tmp, TorchCode, call, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.ops._reduce import max_nodes
from cnnspec.ops._windows import require_groups
from cnnspec.slots import Int
from cnnspec.tensor import Tensor


class Maxout(Stateless):
    """The largest of each `num_pieces` neighbours along one axis: pooling across channels.

    Behind a `Linear` or a convolution with `num_pieces` times as many outputs it is the maxout
    unit of Goodfellow et al. (Maxout networks, 2013): output `i` is the largest of the pieces
    `num_pieces * i` to `num_pieces * (i + 1) - 1`. Equal pieces share the gradient.
    """

    num_pieces: int = arg(Int(1))
    """Neighbours of which the largest stays; they divide the size of the axis."""
    dim: int = arg(Int(), 1)
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""

    saves = ("input", "output")
    examples = (
        Example({"num_pieces": 4}, (64, 14, 14), (16, 14, 14), 0, "across channels"),
        Example({"num_pieces": 2}, (10,), (5,), 0, "features"),
        Example({"num_pieces": 3, "dim": -1}, (5, 6), (5, 2), note="each of five tokens"),
        Example({"num_pieces": 2, "dim": 2}, (3, 4, 5), (3, 2, 5)),
    )

    def _axis(self, x: Tensor) -> int:
        return position(self.dim, x)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The axis divided by `num_pieces`."""
        x = inputs[0]
        axis = self._axis(x)
        size = x.shape[axis]
        require_groups(size, x.roles[axis], self.num_pieces, "num_pieces")
        sizes = list(x.shape)
        sizes[axis] = size // self.num_pieces
        return (x.with_shape(*sizes),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Its pieces along the axis, the same place along the others."""
        pieces = Window(self.num_pieces, self.num_pieces)
        own = self._axis(at.x)
        return tuple((axis, pieces if axis == own else POINTWISE) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Comparisons of the pieces."""
        return Ops(cmp=(self.num_pieces - 1) * at.y.elements)

    def torch(self, at: Site) -> TorchCode:
        """`amax` over the pieces, laid out as an axis of their own."""
        axis = self._axis(at.x) + 1
        return call(".amax", call(".unflatten", In(0), axis, (-1, self.num_pieces)), axis + 1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """ReduceMax over the pieces, laid out as an axis of their own."""
        axis = self._axis(at.x) + 1
        groups = (*(0,) * axis, at.y.shape[axis - 1], self.num_pieces)
        further = (Rest(In(0), axis + 1),) if axis < at.x.rank else ()
        pieces = Tmp("pieces")
        split = node("Reshape", In(0), shape(*groups, *further), to=pieces)
        return split, *max_nodes(pieces, (axis + 1,), opset, Out(0), keepdims=False)


__all__ = ["Maxout"]
