"""The gated linear unit, which halves an axis."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Tmp, TorchCode, const, module, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.slots import Int
from cnnspec.tensor import Tensor


class GLU(Stateless):
    """`a * sigmoid(b)`, where `a` and `b` are the halves of an axis (Dauphin et al. 2016)."""

    dim: int = arg(Int(), -1)
    """The axis to halve, in torch's numbering: 1 is the first after the batch, -1 the last."""

    saves = ("input",)
    examples = (
        Example({"dim": 1}, (6, 4, 5), (3, 4, 5), 0),
        Example({}, (3, 4, 8), (3, 4, 4)),
        Example({}, (10,), (5,)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Half as many along the axis."""
        x = inputs[0]
        axis = position(self.dim, x)
        if x.shape[axis] % 2:
            raise Reject(
                "odd-size",
                f"{x.shape[axis]} along {x.roles[axis]} cannot be halved",
                at="dim",
                label=f"axis {self.dim} of {x}",
            )
        return (x.with_shape(*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :]),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Along the axis, an output looks at its place in either half."""
        own = position(self.dim, at.x)
        halves = Window(2, dilation=at.y.shape[own])
        return tuple((axis, halves if axis == own else POINTWISE) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """A sigmoid (exponential, addition, division) and a product for each output element."""
        n = at.y.elements
        return Ops(exp=n, add=n, div=n, mul=n)

    def torch(self, at: Site) -> TorchCode:
        """`nn.GLU`."""
        return module("nn.GLU", dim=self.dim)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Split, Sigmoid and Mul."""
        axis = position(self.dim, at.x)
        halves = const((at.y.shape[axis],) * 2, "int64")
        return (
            node("Split", In(0), halves, to=(Tmp("value"), Tmp("logit")), axis=axis + 1),
            node("Sigmoid", Tmp("logit"), to=Tmp("gate")),
            node("Mul", Tmp("value"), Tmp("gate")),
        )
