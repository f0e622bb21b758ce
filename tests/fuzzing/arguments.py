"""Random arguments for any operation, from its slots and its own examples.

No operation is known by name here: what a slot takes is tried in small values, and an example's
arguments are where an operation is most likely to work. What comes out may still be refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from random import Random
from typing import Any

from cnnspec.op import Op, slots_of
from cnnspec.slots import (
    Axes,
    Bool,
    ConnectionTable,
    Float,
    Int,
    Ints,
    Margins,
    Nullable,
    Padding,
    PerAxis,
    Size,
    Slot,
    TensorRef,
    Word,
)

__all__ = ["OMITTED", "arguments", "value", "written"]

OMITTED = object()
"""What `value` gives for a slot that only a reference or an example can fill."""

_SMALL = (1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 5, 7)
_FLOATS = (0.0, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 1e-3, 1e-5, -0.5)


def arguments(op: type[Op], rng: Random, shape: Sequence[int]) -> dict[str, Any]:
    """Arguments as a spec would write them: those of an example, some of them changed.

    `shape` is that of the input: its sizes and their divisors are likely where integers are due.
    References to tensors are left out.
    """
    chosen: dict[str, Any] = dict(rng.choice(op.examples).arguments)
    for name, declared in slots_of(op).items():
        slot: Slot = declared.metadata["slot"]
        if slot.refers:
            chosen.pop(name, None)
            continue
        optional = declared.default is not MISSING
        if name in chosen:
            if optional and rng.random() < 0.3:
                del chosen[name]
                continue
            change = rng.random() < 0.45
        else:
            change = not optional or rng.random() < 0.25
        if change:
            drawn = value(slot, rng, op.axes, shape)
            if drawn is not OMITTED:
                chosen[name] = drawn
    return chosen


def value(slot: Slot, rng: Random, axes: int, shape: Sequence[int]) -> Any:
    """Some value that the slot takes, or `OMITTED`."""
    match slot:
        case Nullable(inner):
            return None if rng.random() < 0.3 else value(inner, rng, axes, shape)
        case Bool():
            return rng.random() < 0.5
        case Word(choices):
            return rng.choice(choices)
        case Int(least):
            return _integer(rng, least, shape)
        case Float(least, most):
            fitting = [
                each
                for each in _FLOATS
                if (least is None or each >= least) and (most is None or each <= most)
            ]
            return rng.choice(fitting or [least if least is not None else most])
        case Size(least, nullable):
            return _per_axis(rng, axes, lambda: _extent(rng, least, nullable))
        case PerAxis(item):
            count = max(1, len(shape) - 1)
            return _per_axis(rng, count, lambda: value(item, rng, axes, shape))
        case Padding():
            return _padding(rng, axes)
        case Margins():
            if rng.random() < 0.4:
                return rng.choice((0, 1, 2, 3))
            return [rng.choice((0, 0, 1, 2, 3, -1)) for _ in range(2 * axes)]
        case ConnectionTable():
            return _table(rng, shape)
        case Axes():
            picked = rng.sample(range(1, len(shape) + 1), rng.randint(1, max(1, len(shape))))
            return picked[0] if len(picked) == 1 else picked
        case Ints(least, fewest, most):
            return _integers(rng, least, fewest, most, shape)
        case TensorRef():
            return OMITTED
        case _:
            return OMITTED


def _integer(rng: Random, least: int | None, shape: Sequence[int]) -> int:
    """A small number, a size of the input, or a divisor or multiple of its channels."""
    channels = shape[0] if shape else 1
    divisors = [number for number in range(1, channels + 1) if channels % number == 0]
    near = -len(shape) if least is None else least
    drawn = rng.choice(
        (
            rng.choice(divisors),
            rng.choice(_SMALL),
            channels * rng.randint(1, 2),
            rng.randint(near, near + 6),
        )
    )
    return drawn if least is None else max(least, drawn)


def _extent(rng: Random, least: int, nullable: bool) -> int | None:
    if nullable and rng.random() < 0.3:
        return None
    return rng.choice((0, 0, 1, 1, 2)) if least == 0 else max(least, rng.choice(_SMALL))


def _per_axis(rng: Random, count: int, draw: Any) -> Any:
    if rng.random() < 0.5:
        return draw()
    return [draw() for _ in range(count)]


def _padding(rng: Random, axes: int) -> Any:
    def number() -> int:
        return rng.choice((0, 0, 1, 1, 2, 3))

    match rng.randint(0, 5):
        case 0:
            return "same"
        case 1:
            return "valid"
        case 2:
            return [number() for _ in range(axes)]
        case 3:
            return [[number(), number()] for _ in range(axes)]
        case _:
            return number()


def _table(rng: Random, shape: Sequence[int]) -> list[list[int]]:
    channels = shape[0] if shape else 1
    rows = rng.randint(1, 6)
    return [
        sorted(rng.sample(range(channels), rng.randint(1, min(channels, 4)))) for _ in range(rows)
    ]


def _integers(
    rng: Random, least: int | None, fewest: int, most: int, shape: Sequence[int]
) -> list[int]:
    """A permutation of the axes, or a few sizes."""
    if rng.random() < 0.5 and fewest <= len(shape) + 1 <= most:
        axes = list(range(1, len(shape) + 1))
        rng.shuffle(axes)
        return [0, *axes]
    count = rng.randint(fewest, min(most, fewest + 3))
    return [_integer(rng, least, shape) for _ in range(count)]


def written(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with lists in the place of tuples, as YAML has them."""
    return {name: _plain(each) for name, each in arguments.items()}


def _plain(each: Any) -> Any:
    if isinstance(each, Mapping):
        return {key: _plain(item) for key, item in each.items()}
    return [_plain(item) for item in each] if isinstance(each, (list, tuple)) else each
