"""PadChannels: channels of zeros before and after those of the input."""

from __future__ import annotations

from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, TorchCode, call, const, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.slots import Int
from cnnspec.tensor import Role, Tensor


class PadChannels(Stateless):
    """Adds channels of zeros, as a shortcut without weights does where a stage widens.

    This is option A of He et al. (2015, section 3.3). Features without a channel axis are padded
    along their only, or last, axis.
    """

    before: int = arg(Int(0), 0)
    """Channels of zeros before the input's."""
    after: int = arg(Int(0), 0)
    """Channels of zeros after the input's."""

    quantizable = True
    saves = ()
    examples = (
        Example({"before": 1, "after": 2}, (3, 4, 5), (6, 4, 5), 0),
        Example({"after": 4}, (3, 6), (7, 6)),
        Example({"before": 2}, (7,), (9,)),
        Example({}, (3, 4, 5), (3, 4, 5)),
    )

    def _axis(self, x: Tensor) -> int:
        return x.roles.index(Role.CHANNEL) if Role.CHANNEL in x.roles else x.rank - 1

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """More channels."""
        x = inputs[0]
        axis = self._axis(x)
        channels = self.before + x.shape[axis] + self.after
        return (x.with_shape(*x.shape[:axis], channels, *x.shape[axis + 1 :]),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at what it was."""
        own = self._axis(at.x)
        return tuple(
            (axis, Window(before=self.before) if axis == own else POINTWISE)
            for axis in range(at.x.rank)
        )

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`F.pad`, which counts axes from the last."""
        behind = at.x.rank - 1 - self._axis(at.x)
        return call("F.pad", In(0), (*(0, 0) * behind, self.before, self.after))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Pad with zeros."""
        axis, rank = self._axis(at.x) + 1, at.x.rank + 1
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = self.before, self.after
        return (node("Pad", In(0), const(tuple(pads), "int64"), mode="constant"),)
