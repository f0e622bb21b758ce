"""Arguments as a spec would write them, as short as they can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from cnnspec.op import Op, slots_of

__all__ = ["arguments_text"]


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
