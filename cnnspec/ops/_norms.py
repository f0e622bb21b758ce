"""What norms have in common: arguments, what they look at, store and learn. No op may be here."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, AlsoEverything
from cnnspec.lower import In, Node, OnnxValue, Own, TorchCode, const, module, node
from cnnspec.op import ChannelAffine, Connections, Look, Op, Ops, Site, arg, slots_of
from cnnspec.ops._dim import look_along
from cnnspec.ops._reduce import norm_cost, scale_and_shift
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool, Float, Nullable
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight

__all__ = ["ChannelNorm", "FeatureNorm", "Norm"]


class Norm(Op, abstract=True):
    """Base of norms: backward needs their input."""

    saves = ("input",)

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def connections(self, at: Site) -> Connections | None:
        """There are no units."""
        return None


class FeatureNorm(Norm, abstract=True):
    """Base of norms of each position over its features: the last axis, or what `_axis` says."""

    def _axis(self, x: Tensor) -> int:
        return x.rank - 1

    def _features(self, x: Tensor) -> int:
        return x.shape[self._axis(x)]

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if not x.rank:
            raise Reject(
                "input-rank", f"`{self.name}` needs an axis of features, its input is {x}", at=0
            )
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself and at all features of its place."""
        return look_along(self._axis(at.x), at.x.rank)


class ChannelNorm(Norm, abstract=True):
    """Base of norms of each channel that may have running statistics.

    Arguments are those of torch.nn, and so are their defaults, here or where a family differs.
    """

    eps: float = arg(Float(least=0), 1e-5)
    """Added to the variance before its root."""
    momentum: float | None = arg(Nullable(Float()), 0.1)
    """Share of a new batch in the running statistics; null averages all batches alike."""
    affine: bool = arg(Bool(), True)
    """Whether each channel has a learned scale and shift."""
    track_running_stats: bool = arg(Bool(), True)
    """Whether inference uses running statistics; if not, it uses those of its own batch."""
    bias: bool = arg(Bool(), True)
    """Whether there is a shift beside the scale."""

    @property
    def _shifted(self) -> bool:
        return self.affine and self.bias

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself, and at its whole channel without running statistics."""
        view = POINTWISE if self.track_running_stats else AlsoEverything(POINTWISE)
        return ((0, POINTWISE), *((axis, view) for axis in range(1, at.x.rank)))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` of ones and `bias` of zeros (channels), if affine."""
        return scale_and_shift(at.x.shape[:1], bias=self.bias) if self.affine else {}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Running mean and variance (channels) and a counter of batches, if they are tracked."""
        channels = (at.x.shape[0],)
        if not self.track_running_stats:
            return {}
        return {
            "running_mean": Buffer(channels),
            "running_var": Buffer(channels, fill=1),
            "num_batches_tracked": Buffer((), dtype="int64"),
        }

    def cost(self, at: Site) -> Ops:
        """Statistics of each channel; a multiplication and an addition where they are known."""
        elements = at.x.elements
        if self.track_running_stats:
            return Ops(add=elements, mul=elements)
        return norm_cost(elements, at.x.shape[0], scaled=self.affine, shifted=self._shifted)

    def channel_affine(self, at: Site) -> ChannelAffine | None:
        """What the op is at inference; None without running statistics."""
        if not self.track_running_stats:
            return None
        scale = "weight" if self.affine else None
        shift = "bias" if self._shifted else None
        return ChannelAffine("running_mean", "running_var", scale, shift, self.eps)

    def with_bias(self) -> Op:
        """With a scale and a shift that are learned."""
        return self.replace(affine=True, bias=True)

    def forgets_shifts(self, at: Site) -> bool:
        """In training always: the mean of each channel is subtracted."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """The module of torch.nn of the same name, with the arguments unlike its defaults."""
        declared = slots_of(type(self)).items()
        written = {name: (getattr(self, name), field.default) for name, field in declared}
        return module(f"nn.{self.name}", at.x.shape[0], **unlike_default(written))

    def _onnx_scale_and_shift(self, at: Site) -> tuple[OnnxValue, OnnxValue]:
        """Both for each channel, ones and zeros where they are not learned."""
        channels = at.x.shape[0]
        scale = Own("weight") if self.affine else const((1.0,) * channels)
        shift = Own("bias") if self._shifted else const((0.0,) * channels)
        return scale, shift

    def _onnx_tracked(self, at: Site) -> tuple[Node, ...]:
        """BatchNormalization by the running statistics."""
        values = (*self._onnx_scale_and_shift(at), Own("running_mean"), Own("running_var"))
        return (node("BatchNormalization", In(0), *values, epsilon=self.eps),)
