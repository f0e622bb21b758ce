"""Division by a norm along one axis: Normalize."""

from __future__ import annotations

from cnnspec.lower import In, Node, Tmp, TorchCode, call, const, node
from cnnspec.op import Example, Ops, Saved, Site, arg
from cnnspec.ops._dim import AlongAxis, position
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Float, Int
from cnnspec.tensor import Tensor


class Normalize(AlongAxis):
    """Gives vectors along one axis a p-norm of 1, as torch.nn.functional.normalize does.

    `y = x / max(norm(x), eps)`: embeddings to be compared by their angle (Schroff et al., FaceNet,
    2015). Mean and standard deviation of a network's images are the spec's `preprocess`.
    """

    p: float = arg(Float(least=1), 2.0)
    """Exponent of the norm: 2 is the Euclidean one, 1 the sum of absolute values."""
    dim: int = arg(Int(), 1)
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""
    eps: float = arg(Float(least=0), 1e-12)
    """Least value of the divisor."""

    inplace_capable = True
    saves = ("input",)
    examples = (
        Example({}, (8,), (8,), 0),
        Example({}, (4, 5, 6), (4, 5, 6), 0, "channels of each pixel"),
        Example({"p": 1, "dim": -1}, (5, 8)),
        Example({"p": 3, "dim": 2, "eps": 1e-3}, (4, 5, 6)),
        Example({"p": 1.5, "eps": 20}, (6,), note="short vectors are divided by `eps`"),
        Example({"dim": 1}, (1, 6), note="an axis of one element"),
    )

    def _axis(self, x: Tensor) -> int:
        return position(self.dim, x)

    def cost(self, at: Site) -> Ops:
        """Powers, their sum, its root, the larger of that and `eps`, and the division."""
        elements = at.x.elements
        sets = elements // at.x.shape[self._axis(at.x)]
        summed = Ops(add=elements - sets, cmp=sets, div=elements)
        if self.p == 1:
            return summed + Ops(cmp=elements)
        if self.p == 2:
            return summed + Ops(mul=elements, exp=sets)
        return summed + Ops(cmp=elements, exp=elements + sets)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and each norm as it is and as it divides."""
        sets = at.x.in_batch(batch) // at.x.shape[self._axis(at.x)]
        return super().saved(at, batch)._replace(elements=2 * sets)

    def torch(self, at: Site) -> TorchCode:
        """`F.normalize`."""
        written = {"p": (self.p, 2.0), "dim": (self.dim, 1), "eps": (self.eps, 1e-12)}
        return call("F.normalize", In(0), **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """The norm (ReduceL1, ReduceL2, or from powers), Max and Div."""
        axis = self._axis(at.x) + 1
        norm, divisor = Tmp("norm"), Tmp("divisor")
        if self.p in (1, 2):
            kind = f"ReduceL{self.p:.0f}"
            nodes: tuple[Node, ...] = (
                (node(kind, In(0), to=norm, axes=[axis], keepdims=1),)
                if opset < 18
                else (node(kind, In(0), const((axis,), "int64"), to=norm, keepdims=1),)
            )
        else:
            nodes = (
                node("Abs", In(0), to=Tmp("size")),
                node("Pow", Tmp("size"), const(float(self.p)), to=Tmp("power")),
                node("ReduceSum", Tmp("power"), const((axis,), "int64"), to=Tmp("sum"), keepdims=1),
                node("Pow", Tmp("sum"), const(1 / self.p), to=norm),
            )
        return (
            *nodes,
            node("Max", norm, const(float(self.eps)), to=divisor),
            node("Div", In(0), divisor),
        )


__all__ = ["Normalize"]
