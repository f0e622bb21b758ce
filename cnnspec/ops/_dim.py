"""What is done along one axis: torch's numbering of axes, where 0 is the batch, and what is seen.

Positions in a shape are those without batch. No op may be here.
"""

from __future__ import annotations

from abc import abstractmethod

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, AlsoEverything
from cnnspec.op import Look, Site, Stateless
from cnnspec.tensor import Tensor

__all__ = ["AlongAxis", "look_along", "position"]


def position(dim: int, x: Tensor, at: str = "dim", *, new: int = 0) -> int:
    """The axis of `x`, batch not counted, that torch calls `dim`; negative ones count from the end.

    `new` is the number of axes about to be added, which may be named too. Rejects the batch axis
    and axes that do not exist, blaming the argument `at`.
    """
    rank = x.rank + 1 + new
    axes = "1 axis" if rank == 1 else f"{rank} axes"
    if not -rank <= dim < rank:
        raise Reject(
            "axis-range",
            f"there is no axis {dim}: {x} with its batch has {axes}",
            at=at,
            help=f"axes are 1 to {rank - 1}, or -1 to {1 - rank} from the end" if rank > 1 else "",
        )
    if dim % rank == 0:
        raise Reject("batch-axis", f"axis {dim} is the batch, which no operation changes", at=at)
    return dim % rank - 1


def look_along(mixed: int, rank: int) -> Look:
    """What a position sees that looks at itself, and along the axis `mixed` at all."""
    return tuple(
        (axis, AlsoEverything(POINTWISE) if axis == mixed else POINTWISE) for axis in range(rank)
    )


class AlongAxis(Stateless, abstract=True):
    """Base of what weighs the elements along one axis against one another."""

    @abstractmethod
    def _axis(self, x: Tensor) -> int:
        """The axis, batch not counted; rejects what has no such axis."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        self._axis(inputs[0])
        return (inputs[0],)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself, and along the axis at all."""
        return look_along(self._axis(at.x), at.x.rank)
