"""Normalisation by the root of the mean square: RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.lower import In, Node, Out, Own, Tmp, TorchCode, const, module, node
from cnnspec.op import Example, Ops, Saved, Site, arg
from cnnspec.ops._norms import FeatureNorm
from cnnspec.ops._reduce import mean_nodes, scale_and_shift
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool, Float, Nullable
from cnnspec.weights import Weight

_FLOAT32_EPS = 2.0**-23


class RMSNorm(FeatureNorm):
    """Divides the last axis of each position by the root of its mean square.

    Zhang and Sennrich, Root mean square layer normalization, 2019. torch's `normalized_shape` is
    the last axis.
    """

    eps: float | None = arg(Nullable(Float(least=0)), None)
    """Added to the mean square before its root; the precision of the input's type if null."""
    elementwise_affine: bool = arg(Bool(), True)
    """Whether each feature has a learned scale."""

    examples = (
        Example({}, (8,), (8,), 8),
        Example({"eps": 1e-2}, (5, 8), (5, 8), 8, "each of five tokens"),
        Example({"elementwise_affine": False}, (3, 4, 8), params=0),
    )

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (features) of ones, if affine."""
        if not self.elementwise_affine:
            return {}
        return scale_and_shift(at.x.shape[-1:], bias=False)

    def cost(self, at: Site) -> Ops:
        """Squares, their mean, epsilon, root and its reciprocal; a product, and the scale."""
        elements = at.x.elements
        sets = elements // at.x.shape[-1]
        return Ops(
            add=elements,
            mul=elements * (2 + self.elementwise_affine),
            div=2 * sets,
            exp=sets,
        )

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the root of the mean square of each position."""
        sets = at.x.in_batch(batch) // at.x.shape[-1]
        return super().saved(at, batch)._replace(statistics=sets)

    def torch(self, at: Site) -> TorchCode:
        """`nn.RMSNorm`."""
        written = {
            "eps": (self.eps, None),
            "elementwise_affine": (self.elementwise_affine, True),
        }
        return module("nn.RMSNorm", at.x.shape[-1], **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """RMSNormalization from opset 23 on, its parts before."""
        eps = _FLOAT32_EPS if self.eps is None else float(self.eps)
        if opset >= 23:
            ones = const((1.0,) * at.x.shape[-1])
            scale = Own("weight") if self.elementwise_affine else ones
            return (node("RMSNormalization", In(0), scale, axis=-1, epsilon=eps),)
        square, mean, safe, root = Tmp("square"), Tmp("mean"), Tmp("safe"), Tmp("root")
        standard = Tmp("standard") if self.elementwise_affine else Out(0)
        nodes = (
            node("Mul", In(0), In(0), to=square),
            *mean_nodes(square, (-1,), opset, mean),
            node("Add", mean, const(eps), to=safe),
            node("Sqrt", safe, to=root),
            node("Div", In(0), root, to=standard),
        )
        if not self.elementwise_affine:
            return nodes
        return (*nodes, node("Mul", Tmp("standard"), Own("weight")))


__all__ = ["RMSNorm"]
