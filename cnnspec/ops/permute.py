"""Permute: axes in another order."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE
from cnnspec.lower import In, Node, TorchCode, call, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.slots import Ints
from cnnspec.tensor import Tensor


class Permute(Stateless):
    """Puts axes into another order; each keeps its meaning and its receptive field."""

    dims: tuple[int, ...] = arg(Ints(fewest=1, most=9))
    """Where each axis comes from, in torch's numbering: `[0, 2, 3, 1]` puts channels last.
    0 is the batch and stays first."""

    quantizable = True
    saves = ()
    examples = (
        Example({"dims": [0, 2, 3, 1]}, (3, 4, 5), (4, 5, 3), 0, "channels last"),
        Example({"dims": [0, -1, 1]}, (3, 4), (4, 3)),
        Example({"dims": [0, 1]}, (7,), (7,)),
        Example({"dims": [0, 3, 1, 4, 2]}, (2, 3, 4, 5), (4, 2, 5, 3)),
    )

    def _order(self, x: Tensor) -> tuple[int, ...]:
        """Where each axis comes from, batch not counted."""
        rank = x.rank + 1
        order = tuple(dim + rank if dim < 0 else dim for dim in self.dims)
        if sorted(order) != list(range(rank)):
            raise Reject(
                "permute-dims",
                f"`dims` must name each axis from 0 to {x.rank} once",
                at="dims",
                label=f"the input is {x}, behind its batch",
            )
        if order[0]:
            raise Reject("batch-axis", "axis 0 is the batch, which stays first", at="dims")
        return tuple(dim - 1 for dim in order[1:])

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Sizes and roles move together."""
        x = inputs[0]
        order = self._order(x)
        roles = tuple(x.roles[axis] for axis in order)
        return (Tensor(tuple(x.shape[axis] for axis in order), roles, x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each axis lies along the place it went to."""
        order = self._order(at.x)
        return tuple((order.index(axis), POINTWISE) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """torch changes strides only."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """`permute`."""
        return call(".permute", In(0), *self.dims)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Transpose."""
        return (node("Transpose", In(0), perm=[0, *(axis + 1 for axis in self._order(at.x))]),)
