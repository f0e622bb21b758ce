"""What ops that slide something over channels-first tensors share: checks, wording, number forms.

Free functions only; no op and no field of one may be here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from cnnspec.diagnostics import Reject, quantity
from cnnspec.geometry import remainder, unread
from cnnspec.tensor import Role, Tensor

__all__ = [
    "kernel_too_large",
    "require_channels_first",
    "require_groups",
    "short",
    "unlike_default",
    "unread_rows",
]

Number = TypeVar("Number", int, float)


def require_channels_first(name: str, axes: int, x: Tensor) -> None:
    """Reject an input of op `name` that is not channels and then `axes` further axes."""
    if x.rank == axes + 1 and x.roles[0] is Role.CHANNEL:
        return
    order = f", in the order {', '.join(x.roles)}" if x.rank == axes + 1 else ""
    raise Reject(
        "input-rank",
        f"`{name}` needs channels and {axes} spatial {'axis' if axes == 1 else 'axes'}, "
        f"its input is {x}{order}",
        at=0,
    )


def require_groups(count: int, noun: str, groups: int, at: str) -> None:
    """Reject `count` channels that do not split into `groups` equal blocks; `at` is the field."""
    if count % groups:
        raise Reject(
            "groups-divide",
            f"{quantity(count, noun)} cannot be split into {quantity(groups, 'group')}",
            at=at,
        )


def kernel_too_large(
    x: Tensor, axis: int, extent: int, padding: int, at: str = "kernel_size"
) -> Reject:
    """The rejection of a kernel that covers more than `axis` of the input has, padding included."""
    return Reject(
        "kernel-too-large",
        f"the kernel covers {extent} along {x.roles[axis]}, but the input has {x.shape[axis]}"
        + (f" and {padding} of padding" if padding else ""),
        at=at,
        label=f"the input is {x}",
    )


def short(values: tuple[Number, ...]) -> Number | tuple[Number, ...]:
    """One number where all axes agree, as a person would write it."""
    return values[0] if len(set(values)) == 1 else values


def unlike_default(written: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Keyword arguments to write, of `(value, torch's default)`: those that differ."""
    return {key: value for key, (value, default) in written.items() if value != default}


def unread_rows(
    axes: Iterable[tuple[int, int, int, int, int, int]],
) -> tuple[tuple[int, int, int], ...]:
    """`Op.unread` of windows, from size, kernel, stride, dilation, padding before and after."""
    return tuple(
        (axis, unread(*along), left)
        for axis, along in enumerate(axes, start=1)
        if (left := remainder(*along))
    )
