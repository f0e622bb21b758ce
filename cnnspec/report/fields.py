"""Receptive fields in a few characters: `483/32` is a field of 483 with a stride of 32."""

from __future__ import annotations

from collections.abc import Sequence

from cnnspec.geometry import AxisField
from cnnspec.report.model import InputField
from cnnspec.report.numbers import plain_number

__all__ = ["field_text"]


def field_text(fields: Sequence[InputField] | None) -> str:
    """Field and stride of a layer.

    `483/32`; `11x5/4x1` where axes differ; `188-204/16` where it depends on the position; `global`
    where all is seen, `483/32 global` where a part is seen besides; `?` where it is not known; a
    final `~` where branches look at different places. Inputs that are seen differently are named.
    """
    if not fields:
        return ""
    by_input: dict[str, list[AxisField]] = {}
    for one in fields:
        by_input.setdefault(one.input, []).append(one.field)
    texts = {name: _input_text(axes) for name, axes in by_input.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _input_text(axes: Sequence[AxisField]) -> str:
    if all(map(_sees_all, axes)):
        return "global"
    size = _across([_size(field) for field in axes])
    strides = [_stride(field) for field in axes]
    text = f"{size}/{_across(strides)}" if any(strides) else size
    if any(map(_is_global, axes)):
        text += " global"
    return text if all(field.aligned for field in axes) else f"{text}~"


def _size(field: AxisField) -> str:
    if field.unavailable is not None:
        return "?"
    if _sees_all(field):
        return "all"
    least, most = field.size_min, field.size
    return f"{most}" if least == most else f"{least}-{most}"


def _sees_all(field: AxisField) -> bool:
    """Whether nothing but the whole axis is seen: no part of it by position."""
    return _is_global(field) and not field.advance and not field.tabled and not field.flattened


def _is_global(field: AxisField) -> bool:
    """Whether each position sees the whole axis, through one op or by a field as large as it."""
    if field.is_global:
        return True
    constant = len(field.spans) == 1 and not (field.advance or field.tabled or field.flattened)
    seen = field.spans[0] if constant else None
    return seen is not None and seen[0] <= 0 and seen[1] >= field.extent - 1


def _stride(field: AxisField) -> str:
    return "" if field.stride is None else plain_number(field.stride)


def _across(texts: Sequence[str]) -> str:
    """One text where all axes agree, else all of them."""
    return texts[0] if len(set(texts)) == 1 else "x".join(text or "-" for text in texts)
