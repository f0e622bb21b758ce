"""Layer normalisation: LayerNorm over the last axis, LayerNorm2d over the channels of an image."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.lower import In, Node, OnnxValue, Out, Own, Tmp, TorchCode, const, helper, module, node
from cnnspec.op import Example, Ops, Saved, Site, arg
from cnnspec.ops._norms import FeatureNorm
from cnnspec.ops._reduce import norm_cost, scale_and_shift, standardise_nodes
from cnnspec.ops._windows import require_channels_first, unlike_default
from cnnspec.slots import Bool, Float
from cnnspec.tensor import Tensor
from cnnspec.weights import Weight

_SOURCE = '''class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
'''


class _LayerNorm(FeatureNorm, abstract=True):
    """The rules that both layer norms share."""

    eps: float = arg(Float(least=0), 1e-5)
    """Added to the variance before its root."""
    elementwise_affine: bool = arg(Bool(), True)
    """Whether each feature has a learned scale and shift."""
    bias: bool = arg(Bool(), True)
    """Whether there is a shift beside the scale."""

    @property
    def _shifted(self) -> bool:
        return self.elementwise_affine and self.bias

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (features) of ones and `bias` (features) of zeros, if affine."""
        if not self.elementwise_affine:
            return {}
        return scale_and_shift((self._features(at.x),), bias=self.bias)

    def cost(self, at: Site) -> Ops:
        """Statistics, standardisation, scale and shift."""
        elements = at.x.elements
        sets = elements // self._features(at.x)
        return norm_cost(elements, sets, scaled=self.elementwise_affine, shifted=self._shifted)

    def _written(self) -> dict[str, tuple[object, object]]:
        """The arguments as torch's constructor takes them, each with its default there."""
        return {
            "eps": (self.eps, 1e-5),
            "elementwise_affine": (self.elementwise_affine, True),
            "bias": (self.bias, True),
        }

    def _onnx_last(self, at: Site, opset: int, x: OnnxValue, to: Tmp | Out) -> tuple[Node, ...]:
        """LayerNormalization of the last axis of `x`, or its parts below opset 17."""
        if opset >= 17:
            ones = const((1.0,) * self._features(at.x))
            scale = Own("weight") if self.elementwise_affine else ones
            shift = Own("bias") if self._shifted else None
            return (node("LayerNormalization", x, scale, shift, to=to, axis=-1, epsilon=self.eps),)
        if not self.elementwise_affine:
            return standardise_nodes(x, (-1,), self.eps, opset, to)
        standard, scaled = Tmp("standard"), Tmp("scaled")
        nodes = standardise_nodes(x, (-1,), self.eps, opset, standard)
        if not self.bias:
            return (*nodes, node("Mul", standard, Own("weight"), to=to))
        return (
            *nodes,
            node("Mul", standard, Own("weight"), to=scaled),
            node("Add", scaled, Own("bias"), to=to),
        )

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the mean and deviation of each position."""
        sets = at.x.in_batch(batch) // self._features(at.x)
        return super().saved(at, batch)._replace(statistics=2 * sets)


class LayerNorm(_LayerNorm):
    """Normalises the last axis of each position by its own mean and variance.

    Ba, Kiros and Hinton, Layer normalization, 2016. torch's `normalized_shape` is the last axis.
    """

    examples = (
        Example({}, (8,), (8,), 16),
        Example({"eps": 1e-6}, (5, 8), (5, 8), 16, "each of five tokens"),
        Example({"bias": False}, (3, 4, 8), params=8),
        Example({"elementwise_affine": False}, (5, 8), params=0),
    )

    def torch(self, at: Site) -> TorchCode:
        """`nn.LayerNorm`."""
        return module("nn.LayerNorm", self._features(at.x), **unlike_default(self._written()))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LayerNormalization."""
        return self._onnx_last(at, opset, In(0), Out(0))


class LayerNorm2d(_LayerNorm):
    """Normalises the channels of each pixel by their own mean and variance, as ConvNeXt does.

    Liu et al., A ConvNet for the 2020s, 2022.
    """

    examples = (
        Example({"eps": 1e-6}, (8, 5, 6), (8, 5, 6), 16),
        Example({"elementwise_affine": False}, (4, 5, 6), params=0),
        Example({"bias": False}, (4, 5, 6), params=4),
    )

    def _axis(self, x: Tensor) -> int:
        return 0

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        require_channels_first(self.name, self.axes, inputs[0])
        return (inputs[0],)

    def torch(self, at: Site) -> TorchCode:
        """`nn.LayerNorm` between two permutations."""
        return helper(self.name, _SOURCE, at.x.shape[0], **unlike_default(self._written()))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LayerNormalization between two transpositions."""
        last, normed = Tmp("last"), Tmp("normed")
        return (
            node("Transpose", In(0), to=last, perm=[0, 2, 3, 1]),
            *self._onnx_last(at, opset, last, normed),
            node("Transpose", normed, to=Out(0), perm=[0, 3, 1, 2]),
        )


__all__ = ["LayerNorm", "LayerNorm2d"]
