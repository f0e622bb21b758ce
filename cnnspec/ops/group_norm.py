"""Group normalisation: GroupNorm."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, AlsoEverything
from cnnspec.lower import In, Node, Out, Rest, Tmp, TorchCode, const, module, node, shape
from cnnspec.op import Example, Look, Ops, Saved, Site, arg
from cnnspec.ops._norms import Norm
from cnnspec.ops._reduce import norm_cost, per_channel_nodes, scale_and_shift
from cnnspec.ops._windows import require_groups, unlike_default
from cnnspec.slots import Bool, Float, Int
from cnnspec.tensor import Tensor
from cnnspec.weights import Weight


class GroupNorm(Norm):
    """Normalises groups of channels, all positions together, by their own mean and variance.

    Wu and He, Group normalization, 2018.
    """

    num_groups: int = arg(Int(1))
    """Blocks of neighbouring channels that share statistics; 1 normalises the whole sample."""
    eps: float = arg(Float(least=0), 1e-5)
    """Added to the variance before its root."""
    affine: bool = arg(Bool(), True)
    """Whether each channel has a learned scale and shift."""
    bias: bool = arg(Bool(), True)
    """Whether there is a shift beside the scale."""

    examples = (
        Example({"num_groups": 4}, (8, 5, 6), (8, 5, 6), 16),
        Example({"num_groups": 1, "eps": 1e-3}, (6, 5, 6), note="over the whole sample"),
        Example({"num_groups": 6, "affine": False}, (6, 5, 6), params=0),
        Example({"num_groups": 2}, (8,), (8,), 16, "features without space"),
        Example({"num_groups": 2, "bias": False}, (4, 9), params=4),
        Example({"num_groups": 2}, (4, 3, 4, 5)),
    )

    @property
    def _shifted(self) -> bool:
        return self.affine and self.bias

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if not x.rank:
            raise Reject("input-rank", f"`{self.name}` needs channels, its input is {x}", at=0)
        require_groups(x.shape[0], "channel", self.num_groups, "num_groups")
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself and at its whole group."""
        return tuple((axis, AlsoEverything(POINTWISE)) for axis in range(at.x.rank))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` of ones and `bias` of zeros (channels), if affine."""
        return scale_and_shift(at.x.shape[:1], bias=self.bias) if self.affine else {}

    def cost(self, at: Site) -> Ops:
        """Statistics, standardisation, scale and shift."""
        return norm_cost(at.x.elements, self.num_groups, scaled=self.affine, shifted=self._shifted)

    def forgets_shifts(self, at: Site) -> bool:
        """Where each group is one channel; in a larger one channels keep their distance."""
        return self.num_groups == at.x.shape[0]

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the mean and deviation of each group."""
        return super().saved(at, batch)._replace(statistics=2 * batch * self.num_groups)

    def torch(self, at: Site) -> TorchCode:
        """`nn.GroupNorm`."""
        written = {
            "eps": (self.eps, 1e-5),
            "affine": (self.affine, True),
            "bias": (self.bias, True),
        }
        return module("nn.GroupNorm", self.num_groups, at.x.shape[0], **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """InstanceNormalization over groups laid out as channels, then scale and shift.

        GroupNormalization means something else at opset 18 than from 21 on.
        """
        channels = at.x.shape[0]
        grouped, standard = Tmp("grouped"), Tmp("standard")
        restored = Tmp("restored") if self.affine else Out(0)
        sizes = shape(0, channels, Rest(In(0), 2)) if at.x.rank > 1 else shape(0, channels)
        nodes = (
            node("Reshape", In(0), const((0, self.num_groups, -1), "int64"), to=grouped),
            node(
                "InstanceNormalization",
                grouped,
                const((1.0,) * self.num_groups),
                const((0.0,) * self.num_groups),
                to=standard,
                epsilon=self.eps,
            ),
            node("Reshape", standard, sizes, to=restored),
        )
        if not self.affine:
            return nodes
        return (*nodes, *per_channel_nodes(Tmp("restored"), at.x.shape, Out(0), bias=self.bias))


__all__ = ["GroupNorm"]
