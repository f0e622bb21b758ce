"""From torch's numbering of axes, where 0 is the batch, to positions in a shape without batch."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.tensor import Tensor

__all__ = ["position"]


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
