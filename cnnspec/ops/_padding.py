"""Padding around the spatial axes of a tensor: checks, views and ONNX nodes, for ops that pad.

What a convolution, a blur and a padding layer mean by it is the same. Free functions only; no op
and no field of one may be here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, cast

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Continued, View, Window
from cnnspec.lower import Node, OnnxValue, Out, Tmp, const, node
from cnnspec.tensor import Tensor

__all__ = ["PADDING_MODES", "Sides", "onnx_pad", "padding_view", "require_source", "torch_order"]

Sides: TypeAlias = tuple[tuple[int, int], ...]
"""Positions added `(before, after)` each spatial axis; negative ones are cut off."""

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
"""What may stand in the padding: zeros, or values of the axis itself."""

_TO_THE_END = 2**63 - 1
"""ONNX's `stop` for a slice that has none."""

_ONNX_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def require_source(x: Tensor, sides: Sides, mode: str, at: str = "padding") -> None:
    """Reject padding for whose values the axes of `x` are too short.

    A reflection leaves out the end it mirrors at; a circular one reads what a crop on the other
    side leaves.
    """
    for (before, after), n, role in zip(sides, x.shape[1:], x.roles[1:], strict=True):
        most = max(before, after)
        if mode == "circular":
            n += min(0, before) + min(0, after)
        if most > 0 and most > {"reflect": n - 1, "circular": n}.get(mode, most):
            raise Reject(
                "padding-too-large",
                f"{mode} padding of {most} needs more than the {n} that the input has along {role}",
                at=at,
            )


def padding_view(n: int, before: int, after: int, mode: str) -> View:
    """How padding looks back along an axis of `n` positions."""
    if not before and not after:
        return POINTWISE
    if mode == "zeros" or max(before, after) <= 0:
        return Window(before=before)
    first, last = 0, n - 1
    if mode == "circular":
        first, last = max(0, -before), n - 1 + min(0, after)
    continued = cast(Literal["reflect", "replicate", "circular"], mode)
    return Continued(continued, before, first, last)


def torch_order(sides: Sides) -> tuple[int, ...]:
    """The sides as `F.pad` takes them: flat, the last axis first."""
    return tuple(side for pair in reversed(sides) for side in pair)


def onnx_pad(
    x: OnnxValue,
    sides: Sides,
    mode: str,
    opset: int,
    to: Tmp | Out,
    value: float = 0.0,
) -> tuple[Node, ...]:
    """`x` with its spatial axes padded into `to`, however long they are; zeros may be a `value`.

    Zeros are written so that they stay: ONNX Runtime's rule `Pad_Fusion` gives those in front of a
    pooling to the pooling, whose own padding is minus infinity and less than a window. It leaves a
    Pad alone that names its axes, as Pad can from opset 18 on, or whose zero is -0.

    What is negative is cut by Slice: before a padding that must not see it (constants, which may
    take the place of everything, and `circular`), behind one that mirrors it.
    """
    grown = tuple((max(0, before), max(0, after)) for before, after in sides)
    cut = tuple((-min(0, before), -min(0, after)) for before, after in sides)
    padded = any(map(any, grown))
    if not any(map(any, cut)):
        if not padded:
            return (node("Identity", x, to=to),)
        return _grow(x, grown, mode, opset, to, value)
    if not padded:
        return (_slice(x, cut, to),)
    between = Tmp("cut" if mode in ("zeros", "circular") else "grown")
    if mode in ("zeros", "circular"):
        return (_slice(x, cut, between), *_grow(between, grown, mode, opset, to, value))
    return (*_grow(x, grown, mode, opset, between, value), _slice(between, cut, to))


def _slice(x: OnnxValue, cut: Sides, to: Tmp | Out) -> Node:
    """What is left of each spatial axis without so many positions at either end."""
    starts = tuple(before for before, _ in cut)
    stops = tuple(-after if after else _TO_THE_END for _, after in cut)
    axes = tuple(range(2, len(cut) + 2))
    bounds = (const(values, "int64") for values in (starts, stops, axes))
    return node("Slice", x, *bounds, to=to)


def _grow(
    x: OnnxValue,
    sides: Sides,
    mode: str,
    opset: int,
    to: Tmp | Out,
    value: float,
) -> tuple[Node, ...]:
    """Pad; `wrap` came with opset 19, before it circular padding is slices put together."""
    if mode == "circular" and opset < 19:
        return _wrap(x, sides, to)
    lengths = (*(before for before, _ in sides), *(after for _, after in sides))
    if mode == "zeros" and opset >= 18:
        axes = const(tuple(range(2, len(sides) + 2)), "int64")
        fill = const(value) if value else None
        return (node("Pad", x, const(lengths, "int64"), fill, axes, to=to, mode="constant"),)
    full = const((0, 0, *lengths[: len(sides)], 0, 0, *lengths[len(sides) :]), "int64")
    if mode == "zeros":
        return (node("Pad", x, full, const(value or -0.0), to=to, mode="constant"),)
    return (node("Pad", x, full, to=to, mode=_ONNX_MODES[mode]),)


def _wrap(x: OnnxValue, sides: Sides, to: Tmp | Out) -> tuple[Node, ...]:
    """Circular padding, axis by axis; some side is padded."""
    nodes: list[Node] = []
    padded = [axis for axis, pair in enumerate(sides, 2) if any(pair)]
    for axis in padded:
        joined = Tmp(f"wrapped{axis}")
        nodes += _wrap_axis(x, axis, sides[axis - 2], to if axis == padded[-1] else joined)
        x = joined
    return tuple(nodes)


def _wrap_axis(x: OnnxValue, axis: int, sides: tuple[int, int], to: Tmp | Out) -> tuple[Node, ...]:
    before, after = sides
    nodes: list[Node] = []
    parts = [x]
    if before:
        parts.insert(0, Tmp(f"head{axis}"))
        bounds = (const((bound,), "int64") for bound in (-before, _TO_THE_END, axis))
        nodes.append(node("Slice", x, *bounds, to=Tmp(f"head{axis}")))
    if after:
        parts.append(Tmp(f"tail{axis}"))
        bounds = (const((bound,), "int64") for bound in (0, after, axis))
        nodes.append(node("Slice", x, *bounds, to=Tmp(f"tail{axis}")))
    return (*nodes, node("Concat", *parts, to=to, axis=axis))
