"""Slice and Select: a stretch of one axis, or one position of it."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import Cut, In, Node, TorchCode, const, index, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.slots import Int, Nullable
from cnnspec.tensor import Role, Tensor

_TO_THE_END = 2**63 - 1
"""ONNX's `stop` for a slice that has none."""


class Slice(Stateless):
    """Positions `start`, `start + step`, ... before `stop` of an axis, as Python's `x[a:b:c]`.

    Negative positions count from the end; those beyond either end are cut to it. The axis stays,
    even if it has one position left.
    """

    dim: int = arg(Int())
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""
    start: int = arg(Int(), 0)
    """First position."""
    stop: int | None = arg(Nullable(Int()), None)
    """Position behind the last; null goes to the end."""
    step: int = arg(Int(1), 1)
    """Distance between positions."""

    quantizable = True
    saves = ()
    examples = (
        Example({"dim": 1, "stop": 1}, (197, 8), (1, 8), 0, "the class token, with its axis"),
        Example({"dim": 2, "start": 1, "step": 2}, (3, 7, 5), (3, 3, 5)),
        Example({"dim": -1, "start": -3, "stop": -1}, (3, 4, 8), (3, 4, 2)),
        Example({"dim": 1, "start": -9, "stop": 99}, (6,), (6,), note="beyond both ends"),
    )

    def _bounds(self, n: int) -> tuple[int, int]:
        """The first position of `n`, and the one behind the last."""
        first, behind = (
            at if at >= 0 else max(0, at + n)
            for at in (self.start, n if self.stop is None else self.stop)
        )
        return min(first, n), min(behind, n)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As many as the slice has."""
        x = inputs[0]
        axis = position(self.dim, x)
        n = x.shape[axis]
        first, behind = self._bounds(n)
        if first >= behind:
            raise Reject(
                "empty-slice",
                f"nothing is left of the {n} positions along {x.roles[axis]}",
                at="stop" if self.stop is not None else "start",
                label=f"axis {self.dim} of {x}",
            )
        kept = -((first - behind) // self.step)
        return (x.with_shape(*x.shape[:axis], kept, *x.shape[axis + 1 :]),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Along the axis, a stride and an offset."""
        own = position(self.dim, at.x)
        view = Window(stride=self.step, before=-self._bounds(at.x.shape[own])[0])
        return tuple((axis, view if axis == own else POINTWISE) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """A part lies in the whole."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """A subscript."""
        own = Cut(self.start or None, self.stop, self.step if self.step > 1 else None)
        before = (Cut(),) * (position(self.dim, at.x) + 1)
        return index(In(0), *before, own)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Slice."""
        stop = _TO_THE_END if self.stop is None else self.stop
        axis = position(self.dim, at.x) + 1
        bounds = (const((n,), "int64") for n in (self.start, stop, axis, self.step))
        return (node("Slice", In(0), *bounds),)


class Select(Stateless):
    """One position of an axis, as Python's `x[:, 0]`: the axis goes.

    `Slice` keeps it. Channels that are all that is left become features.
    """

    dim: int = arg(Int())
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""
    index: int = arg(Int())
    """The position; negative ones count from the end."""

    quantizable = True
    saves = ()
    examples = (
        Example({"dim": 1, "index": 0}, (197, 8), (8,), 0, "the class token"),
        Example({"dim": 2, "index": -1}, (6, 9), (6,), note="the last step of a sequence"),
        Example({"dim": -1, "index": 4}, (3, 7, 5), (3, 7)),
        Example({"dim": 2, "index": 0}, (3, 1, 4, 5), (3, 4, 5), note="an image of depth 1"),
    )

    def _position(self, n: int) -> int:
        """The position, counted from the start of `n`."""
        return self.index if self.index >= 0 else n + self.index

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """All axes but one."""
        x = inputs[0]
        axis = position(self.dim, x)
        if x.rank == 1:
            raise Reject("input-rank", f"`{self.name}` takes an axis away, its input {x} has one")
        n = x.shape[axis]
        if not 0 <= self._position(n) < n:
            raise Reject(
                "index-out-of-range",
                f"there is no position {self.index} among the {n} along {x.roles[axis]}",
                at="index",
                label=f"axis {self.dim} of {x}",
            )
        roles = (*x.roles[:axis], *x.roles[axis + 1 :])
        if roles == (Role.CHANNEL,):
            roles = (Role.FEATURE,)
        return (Tensor((*x.shape[:axis], *x.shape[axis + 1 :]), roles, x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """One position of the axis."""
        own = position(self.dim, at.x)
        view = Window(before=-self._position(at.x.shape[own]))
        return (
            *((axis, POINTWISE) for axis in range(own)),
            (None, view),
            *((axis, POINTWISE) for axis in range(own, at.y.rank)),
        )

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """A part lies in the whole."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """A subscript."""
        before = (Cut(),) * (position(self.dim, at.x) + 1)
        return index(In(0), *before, self.index)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Gather by a single number."""
        axis = position(self.dim, at.x) + 1
        return (node("Gather", In(0), const(self.index, "int64"), axis=axis),)
