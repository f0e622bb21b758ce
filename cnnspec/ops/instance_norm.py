"""Instance normalisation: InstanceNorm1d, InstanceNorm2d, InstanceNorm3d."""

from __future__ import annotations

from math import prod

from cnnspec.diagnostics import Reject
from cnnspec.lower import In, Node, node
from cnnspec.op import Example, Saved, Site, arg
from cnnspec.ops._norms import ChannelNorm
from cnnspec.slots import Bool, Float, Nullable
from cnnspec.tensor import Tensor


class _InstanceNorm(ChannelNorm, abstract=True):
    """The rules that instance norms of every rank share."""

    momentum: float | None = arg(Nullable(Float()), 0.1)
    """Share of a new batch in the running statistics; null leaves them at mean 0, variance 1."""
    affine: bool = arg(Bool(), False)
    track_running_stats: bool = arg(Bool(), False)
    """Whether inference uses running statistics; if not, it uses those of each sample."""

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

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, mean and deviation of each channel; torch repeats what it stores by sample."""
        channels = batch * at.x.shape[0]
        repeated = channels * (self.affine + 2 * self.track_running_stats)
        whole = super().saved(at, batch)
        return whole._replace(statistics=2 * channels, elements=repeated)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """InstanceNormalization; BatchNormalization with running statistics."""
        if self.track_running_stats:
            return self._onnx_tracked(at)
        values = self._onnx_scale_and_shift(at)
        return (node("InstanceNormalization", In(0), *values, epsilon=self.eps),)


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
