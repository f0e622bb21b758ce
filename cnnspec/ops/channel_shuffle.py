"""ChannelShuffle: channels of all groups by turns."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Taps
from cnnspec.lower import In, Node, Rest, Tmp, TorchCode, module, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._windows import require_groups
from cnnspec.slots import Int
from cnnspec.tensor import Role, Tensor


class ChannelShuffle(Stateless):
    """Deals out the channels of each group, so that the next groups see all (Zhang et al. 2017).

    Channel `o` of the result is channel `o % groups * (channels/groups) + o // groups`.
    """

    groups: int = arg(Int(1))
    """Blocks of channels that are dealt out by turns."""

    quantizable = True
    saves = ()
    examples = (
        Example({"groups": 3}, (6, 4, 5), (6, 4, 5), 0),
        Example({"groups": 2}, (4, 7), (4, 7)),
        Example({"groups": 1}, (3, 2, 2, 2)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank < 2 or x.roles[0] is not Role.CHANNEL:
            raise Reject(
                "input-rank",
                f"`ChannelShuffle` needs channels and at least one more axis, its input is {x}",
                at=0,
            )
        require_groups(x.shape[0], "input channel", self.groups, "groups")
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at the one it was."""
        channels = at.x.shape[0]
        each = channels // self.groups
        sources = (o % self.groups * each + o // self.groups for o in range(channels))
        spatial = tuple((axis, POINTWISE) for axis in range(1, at.x.rank))
        return ((0, Taps(tuple((source, source) for source in sources))), *spatial)

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`nn.ChannelShuffle`."""
        return module("nn.ChannelShuffle", self.groups)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape, Transpose, Reshape."""
        channels, space = at.x.shape[0], Rest(In(0), 2)
        dealt = shape(0, self.groups, channels // self.groups, space)
        order = [0, 2, 1, *range(3, at.x.rank + 2)]
        return (
            node("Reshape", In(0), dealt, to=Tmp("groups")),
            node("Transpose", Tmp("groups"), to=Tmp("turns"), perm=order),
            node("Reshape", Tmp("turns"), shape(0, channels, space)),
        )
