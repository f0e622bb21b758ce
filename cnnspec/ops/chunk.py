"""Chunk: one tensor cut into several along an axis."""

from __future__ import annotations

from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Out, TorchCode, call, const, index, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.slots import Int
from cnnspec.tensor import Tensor


class Chunk(Stateless):
    """Cuts a tensor into parts of equal size along an axis, as torch.chunk does.

    Parts have `ceil(size / chunks)` each, the last one what is left: there may be fewer parts than
    asked for. They are named `x.0`, `x.1`, ...
    """

    chunks: int = arg(Int(1))
    """How many parts."""
    dim: int = arg(Int())
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""

    outputs_named = True
    quantizable = True
    saves = ()
    examples = (
        Example({"chunks": 2, "dim": 1}, (6, 4, 5), (3, 4, 5), 0),
        Example({"chunks": 3, "dim": -1}, (3, 4, 8), (3, 4, 3), note="3, 3 and 2"),
        Example({"chunks": 4, "dim": 1}, (5,), (2,), note="3 parts of 2, 2 and 1"),
        Example({"chunks": 1, "dim": 1}, (5,), (5,)),
        Example({"chunks": 9, "dim": 1}, (3,), (1,), note="3 parts of 1"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One tensor for each part."""
        x = inputs[0]
        axis = position(self.dim, x)
        n = x.shape[axis]
        size = -(-n // self.chunks)
        return tuple(
            x.with_shape(*x.shape[:axis], min(size, n - start), *x.shape[axis + 1 :])
            for start in range(0, n, size)
        )

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at its place in the whole."""
        own = position(self.dim, at.x)
        start = output * at.y.shape[own]
        return tuple(
            (axis, Window(before=-start) if axis == own else POINTWISE) for axis in range(at.x.rank)
        )

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """Parts lie in the whole."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """`torch.chunk`."""
        parts = call("torch.chunk", In(0), self.chunks, dim=position(self.dim, at.x) + 1)
        return parts if len(at.outputs) > 1 else index(parts, 0)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Split."""
        axis = position(self.dim, at.x)
        sizes = const(tuple(part.shape[axis] for part in at.outputs), "int64")
        outputs = tuple(Out(number) for number in range(len(at.outputs)))
        return (node("Split", In(0), sizes, to=outputs, axis=axis + 1),)
