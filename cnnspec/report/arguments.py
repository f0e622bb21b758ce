"""Arguments as a spec would write them, as short as they can be: as values and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from cnnspec.diagnostics import Reject
from cnnspec.op import Op, slots_of
from cnnspec.slots import Slot

__all__ = ["arguments_text", "named_arguments", "refers", "short_arguments"]


def arguments_text(arguments: Mapping[str, Any], op: type[Op] | None = None) -> str:
    """`out_channels=64 kernel_size=7 stride=2`: arguments, those left at an op's default omitted.

    Sizes that agree on all axes are written once. Values that are no plain data are left out.
    """
    defaults = {} if op is None else _defaults(op)
    texts = (
        (name, _text(value))
        for name, value in arguments.items()
        if name not in defaults or defaults[name] != value
    )
    return " ".join(f"{name}={text}" for name, text in texts if text)


def refers(op: type[Op]) -> bool:
    """Whether arguments of an op may name tensors, of which the op itself knows positions only."""
    return any(declared.metadata["slot"].refers for declared in slots_of(op).values())


def named_arguments(op: Op, inputs: Sequence[str]) -> dict[str, Any]:
    """Arguments in their final form, those that name tensors by the names of the op's `inputs`."""
    slots = slots_of(type(op))
    return {
        name: inputs[value] if slots[name].metadata["slot"].refers and value is not None else value
        for name, value in op.arguments().items()
    }


def _defaults(op: type[Op]) -> dict[str, object]:
    return {
        name: declared.metadata["slot"].accept(declared.default, op.axes)
        for name, declared in slots_of(op).items()
        if declared.default is not MISSING
    }


def _text(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float() | str():
            return str(value)
        case list() | tuple():
            items = [_text(item) for item in value]
            if not items or not all(items):
                return ""
            if len(items) > 1 and len(set(items)) == 1:
                return items[0]
            return f"[{','.join(items)}]" if len(items) > 1 else items[0]
        case _:
            return ""


def short_arguments(op: Op) -> dict[str, object]:
    """Arguments that bind to this very op, by name: those at their default left out.

    Sizes that agree on all axes are one number. Those that name tensors are positions of inputs.
    """
    kind = op.__class__
    defaults = _defaults(kind)
    found: dict[str, object] = {}
    for name, declared in slots_of(kind).items():
        value = getattr(op, name)
        if name not in defaults or defaults[name] != value:
            found[name] = _short(declared.metadata["slot"], value, op.axes)
    return found


def _short(slot: Slot, value: Any, axes: int) -> object:
    """The shortest way to write the final form of an argument: one number where all agree."""
    for candidate in _shorter(value):
        try:
            if slot.accept(candidate, axes) == value:
                return candidate
        except Reject:
            continue
    return value


def _shorter(value: object) -> Iterator[object]:
    """Values that may mean the same, the shortest first."""
    if isinstance(value, tuple) and value:
        inner = [next(_shorter(item)) for item in value]
        if all(item == inner[0] for item in inner):
            yield inner[0]
        yield inner
    yield value
