"""Which operations and tensors go together, and which are small enough to be tried."""

from __future__ import annotations

from collections.abc import Sequence

from cnnspec.op import Op, Site
from cnnspec.tensor import Tensor

__all__ = ["alike", "is_join", "light", "small", "unary"]

_MOST_ELEMENTS = 6_000
_MOST_WEIGHTS = 60_000


def is_join(op: type[Op]) -> bool:
    """Whether the operation is one of the closed set of joins."""
    return op.name[0].islower()


def unary(op: type[Op]) -> bool:
    """Whether the operation may follow a tensor in a chain."""
    most = op.arity.most
    return (
        op.arity.least <= 1
        and (most is None or most >= 1)
        and not is_join(op)
        and not op.outputs_named
    )


def small(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors can be computed with, not only counted."""
    return all(0 < tensor.elements <= _MOST_ELEMENTS for tensor in tensors)


def light(op: Op, site: Site) -> bool:
    """Whether the operation stores little."""
    return sum(weight.elements for weight in op.weights(site).values()) <= _MOST_WEIGHTS


def alike(a: Tensor, b: Tensor) -> int:
    """Axes of equal size."""
    return sum(n == m for n, m in zip(a.shape, b.shape, strict=True))
