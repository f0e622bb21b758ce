"""Batch normalisation: BatchNorm1d, BatchNorm2d, BatchNorm3d."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, AlsoEverything
from cnnspec.lower import In, Node, OnnxValue, Out, Own, Tmp, TorchCode, const, module, node
from cnnspec.op import ChannelAffine, Example, Look, Op, Ops, Saved, Site, arg
from cnnspec.ops._reduce import norm_cost, per_channel_nodes, scale_and_shift, standardise_nodes
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool, Float, Nullable
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight


class _BatchNorm(Op, abstract=True):
    """The rules that batch norms of every rank share."""

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

    saves = ("input",)

    @property
    def _shifted(self) -> bool:
        return self.affine and self.bias

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank != self.axes + 1 and not (self.axes == 1 and x.rank == 1):
            wanted = "one or two axes" if self.axes == 1 else f"{self.axes + 1} axes"
            raise Reject("input-rank", f"`{self.name}` needs {wanted}, its input is {x}", at=0)
        if not self.eps:
            raise Reject("argument-value", "`eps` must be more than 0", at="eps")
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself, and at its whole channel without running statistics."""
        view = POINTWISE if self.track_running_stats else AlsoEverything(POINTWISE)
        return ((0, POINTWISE), *((axis, view) for axis in range(1, at.x.rank)))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` of ones and `bias` of zeros (channels), if affine."""
        return scale_and_shift(at.x.shape[:1], bias=self.bias) if self.affine else {}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Running mean and variance (channels), and how many batches made them."""
        channels = (at.x.shape[0],)
        if not self.track_running_stats:
            return {}
        return {
            "running_mean": Buffer(channels),
            "running_var": Buffer(channels, fill=1),
            "num_batches_tracked": Buffer((), dtype="int64"),
        }

    def cost(self, at: Site) -> Ops:
        """A multiplication and an addition for each element, as running statistics are known."""
        elements = at.x.elements
        if self.track_running_stats:
            return Ops(add=elements, mul=elements)
        return norm_cost(elements, at.x.shape[0], scaled=self.affine, shifted=self._shifted)

    def connections(self, at: Site) -> None:
        """There are no units."""
        return

    def channel_affine(self, at: Site) -> ChannelAffine | None:
        """What the op is at inference; None without running statistics."""
        if not self.track_running_stats:
            return None
        scale = "weight" if self.affine else None
        shift = "bias" if self._shifted else None
        return ChannelAffine("running_mean", "running_var", scale, shift, self.eps)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the mean and deviation of each channel over the batch."""
        return super().saved(at, batch)._replace(statistics=2 * at.x.shape[0])

    def torch(self, at: Site) -> TorchCode:
        """`nn.BatchNorm*d`."""
        written = {
            "eps": (self.eps, 1e-5),
            "momentum": (self.momentum, 0.1),
            "affine": (self.affine, True),
            "track_running_stats": (self.track_running_stats, True),
            "bias": (self.bias, True),
        }
        return module(f"nn.{self.name}", at.x.shape[0], **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """BatchNormalization; without running statistics the batch's own, from means."""
        channels = at.x.shape[0]
        if self.track_running_stats:
            scale: OnnxValue = Own("weight") if self.affine else const((1.0,) * channels)
            shift: OnnxValue = Own("bias") if self._shifted else const((0.0,) * channels)
            statistics = Own("running_mean"), Own("running_var")
            return (node("BatchNormalization", In(0), scale, shift, *statistics, epsilon=self.eps),)
        axes = (0, *range(2, at.x.rank + 1))
        if not self.affine:
            return standardise_nodes(In(0), axes, self.eps, opset, Out(0))
        return (
            *standardise_nodes(In(0), axes, self.eps, opset, Tmp("standard")),
            *per_channel_nodes(Tmp("standard"), at.x.shape, Out(0), bias=self.bias),
        )


class BatchNorm1d(_BatchNorm):
    """Normalises each feature, or each channel of a sequence, over the batch."""

    axes = 1
    examples = (
        Example({}, (8,), (8,), 16),
        Example({"eps": 1e-3}, (4, 9), (4, 9), 8),
        Example({"affine": False}, (4, 9), (4, 9), 0),
        Example({"track_running_stats": False}, (4, 9)),
        Example({"track_running_stats": False, "bias": False}, (4, 9), params=4),
    )


class BatchNorm2d(_BatchNorm):
    """Normalises each channel over the batch and all its pixels.

    Ioffe and Szegedy, Batch normalization: accelerating deep network training by reducing internal
    covariate shift, 2015, algorithms 1 and 2.
    """

    examples = (
        Example({}, (8, 5, 6), (8, 5, 6), 16),
        Example({"eps": 0.001, "momentum": 0.01}, (4, 5, 6)),
        Example({"affine": False, "momentum": None}, (4, 5, 6), params=0),
        Example({"bias": False}, (4, 5, 6), params=4),
        Example({"affine": False, "track_running_stats": False}, (4, 5, 6)),
    )


class BatchNorm3d(_BatchNorm):
    """Normalises each channel over the batch and all its voxels."""

    axes = 3
    examples = (Example({}, (4, 3, 4, 5), (4, 3, 4, 5), 8),)


__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]
