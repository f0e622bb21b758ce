"""Local response normalisation: torch's LocalResponseNorm, and the paper's own, PaperLRN."""

from __future__ import annotations

from abc import abstractmethod

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Out, Rest, Tmp, TorchCode, call, const, module, node, shape
from cnnspec.op import Example, Look, Ops, Pointwise, Saved, Site, Stateless, arg
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Float, Int
from cnnspec.tensor import Tensor


class _ResponseNorm(Pointwise, Stateless, abstract=True):
    """The rules that both share, from the channels around each and the weight of their mean."""

    saves = ("input",)

    @property
    @abstractmethod
    def _channels(self) -> int:
        """Channels of which torch takes the mean."""

    @property
    @abstractmethod
    def _weight(self) -> float:
        """Weight of that mean."""

    @property
    @abstractmethod
    def _curve(self) -> tuple[float, float]:
        """Exponent and what is added below it."""

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
        channels = Window(self._channels, before=self._channels // 2)
        return ((0, channels), *((axis, POINTWISE) for axis in range(1, at.x.rank)))

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, its padded squares, and the divisor before and after it is raised."""
        elements = at.x.in_batch(batch)
        padded = elements // at.x.shape[0] * (at.x.shape[0] + self._channels - 1)
        return super().saved(at, batch)._replace(elements=padded + 2 * elements)

    def torch(self, at: Site) -> TorchCode:
        """`nn.LocalResponseNorm`, whose weight is that of the mean."""
        beta, k = self._curve
        written = {"alpha": (self._weight, 1e-4), "beta": (beta, 0.75), "k": (k, 1.0)}
        # torch takes a view of a volume, which one whose axes were permuted does not have.
        feeds = (call(".contiguous", In(0)),) if at.x.rank == 4 else None
        arguments = unlike_default(written)
        return module("nn.LocalResponseNorm", self._channels, feeds=feeds, **arguments)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LRN for images and odd sizes; else squares, padded and averaged along channels.

        ONNX's window has the odd neighbour of an even size after, torch's before; ONNX Runtime
        takes images, odd sizes, and an alpha and a beta above 0 only. It moves a sum along the
        channels, with what rounding left of other channels, which shows where `k` is small.
        """
        size, alpha = self._channels, float(self._weight)
        beta, k = map(float, self._curve)
        if at.x.rank == 3 and size % 2 and 0 < alpha <= k and beta > 0:
            return (node("LRN", In(0), size=size, alpha=alpha, beta=beta, bias=k),)
        before, after = size // 2, (size - 1) // 2
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
            node("AveragePool", Tmp("padded"), to=Tmp("mean"), kernel_shape=[size, 1]),
            node("Reshape", Tmp("mean"), shape(-1, channels, Rest(In(0), 2)), to=Tmp("shaped")),
            node("Mul", Tmp("shaped"), const(alpha), to=Tmp("weighted")),
            node("Add", Tmp("weighted"), const(k), to=Tmp("base")),
            node("Pow", Tmp("base"), const(beta), to=Tmp("divisor")),
            node("Div", In(0), Tmp("divisor"), to=Out(0)),
        )


class LocalResponseNorm(_ResponseNorm):
    """Divides each channel by a power of the mean square of its neighbours.

    `y = x / (k + alpha*mean)**beta`, the mean over `size` channels, `size // 2` of them before,
    missing ones as zeros. `PaperLRN` has the sum in place of the mean.
    """

    size: int = arg(Int(1))
    """Number of neighbouring channels; for an even number one more before than after."""
    alpha: float = arg(Float(), 1e-4)
    """Weight of the mean square."""
    beta: float = arg(Float(), 0.75)
    """Exponent."""
    k: float = arg(Float(), 1.0)
    """Added to the weighted mean square."""

    examples = (
        Example({"size": 5}, (8, 5, 6), (8, 5, 6), 0),
        Example({"size": 5, "alpha": 0.5, "beta": 0.6, "k": 2}, (8, 5, 6)),
        Example({"size": 4, "alpha": 0.5}, (8, 5, 6), note="an even size is not centred"),
        Example({"size": 9, "alpha": 2}, (3, 4, 4), note="more neighbours than channels"),
        Example({"size": 3, "alpha": 0.5}, (6, 9)),
        Example({"size": 2, "alpha": 0.5}, (4, 3, 4, 5)),
    )

    @property
    def _channels(self) -> int:
        return self.size

    @property
    def _weight(self) -> float:
        return self.alpha

    @property
    def _curve(self) -> tuple[float, float]:
        return self.beta, self.k

    def cost(self, at: Site) -> Ops:
        """Square, sum and mean of the window, its weight, `k`, the power and the division."""
        elements = at.x.elements
        return Ops(add=self.size * elements, mul=2 * elements, div=2 * elements, exp=elements)


class PaperLRN(_ResponseNorm):
    """Divides each channel by a power of the sum of squares of its neighbours, as AlexNet does.

    `y = x / (k + alpha*sum)**beta`, the sum over the channels from `n // 2` before to `n // 2`
    after, for an even `n` too; missing ones count as zeros. Krizhevsky, Sutskever and Hinton,
    ImageNet classification with deep convolutional neural networks, 2012, section 3.3, whose
    constants are the defaults. torch, Caffe and ONNX divide `alpha` by the number of channels.
    """

    n: int = arg(Int(1), 5)
    """Number of neighbouring channels; an even one counts as the odd one above it."""
    k: float = arg(Float(), 2.0)
    """Added to the weighted sum."""
    alpha: float = arg(Float(), 1e-4)
    """Weight of the sum."""
    beta: float = arg(Float(), 0.75)
    """Exponent."""

    examples = (
        Example({}, (8, 5, 6), (8, 5, 6), 0),
        Example({"n": 5, "alpha": 0.5, "beta": 0.6, "k": 1}, (8, 5, 6)),
        Example({"n": 4, "alpha": 0.5}, (8, 5, 6), note="five channels: two on either side"),
        Example({"n": 9, "alpha": 2}, (3, 4, 4), note="more neighbours than channels"),
        Example({"n": 3, "alpha": 0.5}, (6, 9)),
        Example({"n": 1, "alpha": 0.5}, (4, 3, 4, 5)),
    )

    @property
    def _channels(self) -> int:
        return 2 * (self.n // 2) + 1

    @property
    def _weight(self) -> float:
        return self.alpha * self._channels

    @property
    def _curve(self) -> tuple[float, float]:
        return self.beta, self.k

    def cost(self, at: Site) -> Ops:
        """Square and sum of the window, its weight, `k`, the power and the division."""
        elements = at.x.elements
        return Ops(add=self._channels * elements, mul=2 * elements, div=elements, exp=elements)


__all__ = ["LocalResponseNorm", "PaperLRN"]
