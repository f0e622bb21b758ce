"""The spatial size an op is told to give its result: a number, one per axis, another tensor's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cnnspec.diagnostics import Reject
from cnnspec.op import Op
from cnnspec.tensor import Role, Tensor

__all__ = ["check_one_given", "like_sizes", "need_space", "per_axis"]

T = TypeVar("T")


def check_one_given(op: Op, *names: str) -> None:
    """Reject an op that has none of the arguments `names`, or more than one of them."""
    given = [name for name in names if getattr(op, name) is not None]
    if len(given) == 1:
        return
    quoted = [f"`{name}`" for name in names]
    if not given:
        listed = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        raise Reject("missing-argument", f"`{op.name}` needs {listed}")
    raise Reject(
        "argument-conflict",
        f"`{given[0]}` and `{given[1]}` both say how large the result is",
        at=given[1],
    )


def need_space(op: Op, x: Tensor) -> None:
    """Reject an input that is not channels and one to three axes."""
    if not 2 <= x.rank <= 4 or x.roles[0] is not Role.CHANNEL:
        raise Reject(
            "input-rank",
            f"`{op.name}` needs channels and 1 to 3 spatial axes, its input is {x}",
            at=0,
        )


def per_axis(values: Sequence[T], x: Tensor, at: str) -> tuple[T, ...]:
    """One value for each spatial axis of `x`, from one for all or as many as there are."""
    axes = x.rank - 1
    if len(values) not in (1, axes):
        raise Reject(
            "argument-count",
            f"`{at}` has {len(values)} values, but the input has {axes} spatial "
            f"{'axis' if axes == 1 else 'axes'}",
            at=at,
        )
    return tuple(values) * (axes // len(values))


def like_sizes(x: Tensor, like: Tensor) -> tuple[int, ...]:
    """The spatial sizes of `like`, which has as many axes as `x`."""
    if like.rank != x.rank:
        raise Reject(
            "like-rank",
            f"the input is {x}, which cannot take its size from {like}",
            at="like",
        )
    return like.shape[1:]
