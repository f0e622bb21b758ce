"""Instance normalisation: InstanceNorm1d, InstanceNorm2d, InstanceNorm3d."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, AlsoEverything
from cnnspec.lower import In, Node, OnnxValue, Own, TorchCode, const, module, node
from cnnspec.op import ChannelAffine, Connections, Example, Look, Op, Ops, Saved, Site, arg
from cnnspec.ops._reduce import norm_cost, scale_and_shift
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool, Float, Nullable
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight


class _InstanceNorm(Op, abstract=True):
    """The rules that instance norms of every rank share."""

    eps: float = arg(Float(least=0), 1e-5)
    """Added to the variance before its root."""
    momentum: float | None = arg(Nullable(Float()), 0.1)
    """Share of a new batch in the running statistics; null leaves them at mean 0, variance 1."""
    affine: bool = arg(Bool(), False)
    """Whether each channel has a learned scale and shift."""
    track_running_stats: bool = arg(Bool(), False)
    """Whether inference uses running statistics; if not, it uses those of each sample."""
    bias: bool = arg(Bool(), True)
    """Whether there is a shift beside the scale."""

    saves = ("input",)

    @property
    def _shifted(self) -> bool:
        return self.affine and self.bias

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank != self.axes + 1:
            raise Reject(
                "input-rank", f"`{self.name}` needs {self.axes + 1} axes, its input is {x}", at=0
            )
        if prod(x.shape[1:]) == 1:
            raise Reject(
                "one-position",
                f"`{self.name}` has no variance over one position, its input is {x}",
                at=0,
            )
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself, and at its whole channel without running statistics."""
        view = POINTWISE if self.track_running_stats else AlsoEverything(POINTWISE)
        return ((0, POINTWISE), *((axis, view) for axis in range(1, at.x.rank)))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` of ones and `bias` of zeros (channels), if affine."""
        return scale_and_shift(at.x.shape[:1], bias=self.bias) if self.affine else {}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Running mean and variance (channels) and a counter, if they are tracked."""
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

    def connections(self, at: Site) -> Connections | None:
        """There are no units."""
        return None

    def channel_affine(self, at: Site) -> ChannelAffine | None:
        """What the op is at inference; None without running statistics."""
        if not self.track_running_stats:
            return None
        scale = "weight" if self.affine else None
        shift = "bias" if self._shifted else None
        return ChannelAffine("running_mean", "running_var", scale, shift, self.eps)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, mean and deviation of each channel; torch repeats what it stores by sample."""
        channels = batch * at.x.shape[0]
        repeated = channels * (self.affine + 2 * self.track_running_stats)
        whole = super().saved(at, batch)
        return whole._replace(statistics=2 * channels, elements=repeated)

    def torch(self, at: Site) -> TorchCode:
        """`nn.InstanceNorm*d`."""
        written = {
            "eps": (self.eps, 1e-5),
            "momentum": (self.momentum, 0.1),
            "affine": (self.affine, False),
            "track_running_stats": (self.track_running_stats, False),
            "bias": (self.bias, True),
        }
        return module(f"nn.{self.name}", at.x.shape[0], **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """InstanceNormalization; BatchNormalization with running statistics."""
        channels = at.x.shape[0]
        scale: OnnxValue = Own("weight") if self.affine else const((1.0,) * channels)
        shift: OnnxValue = Own("bias") if self._shifted else const((0.0,) * channels)
        if self.track_running_stats:
            statistics = Own("running_mean"), Own("running_var")
            return (node("BatchNormalization", In(0), scale, shift, *statistics, epsilon=self.eps),)
        return (node("InstanceNormalization", In(0), scale, shift, epsilon=self.eps),)


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sequence by its own mean and variance."""

    axes = 1
    examples = (
        Example({}, (4, 9), (4, 9), 0),
        Example({"affine": True, "eps": 1e-3}, (4, 9), params=8),
        Example({"track_running_stats": True}, (4, 9), params=0),
    )


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each image by its own mean and variance.

    Ulyanov, Vedaldi and Lempitsky, Instance normalization: the missing ingredient for fast
    stylization, 2016. With running statistics it is a batch norm at inference, and is folded.
    """

    examples = (
        Example({}, (4, 5, 6), (4, 5, 6), 0),
        Example({"affine": True}, (4, 5, 6), (4, 5, 6), 8),
        Example({"affine": True, "bias": False}, (4, 5, 6), params=4),
        Example({"affine": True, "bias": False, "track_running_stats": True}, (4, 5, 6), params=4),
        Example({"affine": True, "track_running_stats": True, "momentum": 0.01}, (4, 5, 6)),
        Example({"track_running_stats": True, "eps": 0.5, "momentum": None}, (4, 5, 6)),
    )


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each volume by its own mean and variance."""

    axes = 3
    examples = (
        Example({}, (3, 3, 4, 5), (3, 3, 4, 5), 0),
        Example({"affine": True, "track_running_stats": True}, (3, 3, 4, 5), params=6),
    )


__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]
