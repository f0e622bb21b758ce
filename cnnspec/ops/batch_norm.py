"""Batch normalisation: BatchNorm1d, BatchNorm2d, BatchNorm3d."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.lower import In, Node, Out, Tmp
from cnnspec.op import Example, Op, Saved, Site
from cnnspec.ops._norms import ChannelNorm
from cnnspec.ops._reduce import per_channel_nodes, standardise_nodes
from cnnspec.tensor import Tensor


class _BatchNorm(ChannelNorm, abstract=True):
    """The rules that batch norms of every rank share."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank != self.axes + 1 and not (self.axes == 1 and x.rank == 1):
            wanted = "one or two axes" if self.axes == 1 else f"{self.axes + 1} axes"
            raise Reject("input-rank", f"`{self.name}` needs {wanted}, its input is {x}", at=0)
        if not self.eps:
            raise Reject("argument-value", "`eps` must be more than 0", at="eps")
        return (x,)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the mean and deviation of each channel over the batch."""
        return super().saved(at, batch)._replace(statistics=2 * at.x.shape[0])

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """BatchNormalization; without running statistics the batch's own, from means."""
        if self.track_running_stats:
            return self._onnx_tracked(at)
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

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """The norm of channels of that many axes, where those are all the features."""
        norms = {1: BatchNorm1d, 2: BatchNorm2d, 3: BatchNorm3d}
        norm = norms.get(len(window) - 1) if set(window[1:]) == {1} else None
        return norm(**self.arguments()) if norm is not None else None

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
