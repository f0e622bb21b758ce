"""Local response normalisation with torch's meaning: LocalResponseNorm."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Out, Rest, Tmp, TorchCode, const, module, node, shape
from cnnspec.op import Example, Look, Ops, Pointwise, Site, Stateless, arg
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Float, Int
from cnnspec.tensor import Tensor


class LocalResponseNorm(Pointwise, Stateless):
    """Divides each channel by a power of the mean square of its neighbours.

    `y = x / (k + alpha*mean)**beta`, the mean over `size` channels, `size // 2` of them before,
    missing ones as zeros. Krizhevsky, Sutskever and Hinton (2012, section 3.3) have the sum in
    place of the mean: `alpha` times `size` here is their alpha.
    """

    size: int = arg(Int(1))
    """Number of neighbouring channels; for an even number one more before than after."""
    alpha: float = arg(Float(), 1e-4)
    """Weight of the mean square."""
    beta: float = arg(Float(), 0.75)
    """Exponent."""
    k: float = arg(Float(), 1.0)
    """Added to the weighted mean square."""

    saves = ("input", "output")
    examples = (
        Example({"size": 5}, (8, 5, 6), (8, 5, 6), 0),
        Example({"size": 5, "alpha": 0.5, "beta": 0.6, "k": 2}, (8, 5, 6)),
        Example({"size": 4, "alpha": 0.5}, (8, 5, 6), note="an even size is not centred"),
        Example({"size": 9, "alpha": 2}, (3, 4, 4), note="more neighbours than channels"),
        Example({"size": 3, "alpha": 0.5}, (6, 9)),
        Example({"size": 2, "alpha": 0.5}, (4, 3, 4, 5)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank < 2:
            raise Reject(
                "input-rank",
                f"`{self.name}` needs channels and at least one further axis, its input is {x}",
                at=0,
            )
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """A window of channels, the same place in space."""
        channels = Window(self.size, before=self.size // 2)
        return ((0, channels), *((axis, POINTWISE) for axis in range(1, at.x.rank)))

    def cost(self, at: Site) -> Ops:
        """Square, sum and mean of the window, its weight, `k`, the power and the division."""
        elements = at.x.elements
        return Ops(add=self.size * elements, mul=2 * elements, div=2 * elements, exp=elements)

    def torch(self, at: Site) -> TorchCode:
        """`nn.LocalResponseNorm`."""
        written = {"alpha": (self.alpha, 1e-4), "beta": (self.beta, 0.75), "k": (self.k, 1.0)}
        return module("nn.LocalResponseNorm", self.size, **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LRN for images and odd sizes; else squares, padded and averaged along channels.

        ONNX's window has the odd neighbour of an even size after, torch's before; ONNX Runtime
        takes images and odd sizes only.
        """
        if at.x.rank == 3 and self.size % 2:
            return (
                node(
                    "LRN",
                    In(0),
                    size=self.size,
                    alpha=float(self.alpha),
                    beta=float(self.beta),
                    bias=float(self.k),
                ),
            )
        before, after = self.size // 2, (self.size - 1) // 2
        channels = at.x.shape[0]
        return (
            node("Mul", In(0), In(0), to=Tmp("square")),
            node("Reshape", Tmp("square"), const((0, 1, channels, -1), "int64"), to=Tmp("flat")),
            node(
                "Pad",
                Tmp("flat"),
                const((0, 0, before, 0, 0, 0, after, 0), "int64"),
                to=Tmp("padded"),
                mode="constant",
            ),
            node("AveragePool", Tmp("padded"), to=Tmp("mean"), kernel_shape=[self.size, 1]),
            node("Reshape", Tmp("mean"), shape(-1, channels, Rest(In(0), 2)), to=Tmp("shaped")),
            node("Mul", Tmp("shaped"), const(float(self.alpha)), to=Tmp("weighted")),
            node("Add", Tmp("weighted"), const(float(self.k)), to=Tmp("base")),
            node("Pow", Tmp("base"), const(float(self.beta)), to=Tmp("divisor")),
            node("Div", In(0), Tmp("divisor"), to=Out(0)),
        )


__all__ = ["LocalResponseNorm"]
