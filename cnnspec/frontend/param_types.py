"""The slots of params: what a value passed to a block may be.

Ops have slots of their own (`cnnspec.slots`); these are the types a spec declares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnspec.diagnostics import Reject
from cnnspec.slots import LARGEST_INT, Bool, Float, Int, Schema, Slot, describe_value

__all__ = ["PARAM_SLOTS", "AnyList", "AnySize", "Operation", "Table", "Text"]


class AnySize(Slot):
    """An integer, or a list with one per axis; the op it is handed on to knows how many."""

    def describe(self) -> str:
        return "an integer, or a list of one integer per axis"

    def accept(self, value: object, axes: int) -> int | tuple[int, ...]:
        if isinstance(value, (list, tuple)):
            if not 1 <= len(value) <= 3:
                raise Reject(
                    "argument-count", f"has {len(value)} values, where 1 to 3 are possible"
                )
            return tuple(Int().accept(item, axes) for item in value)
        try:
            return Int().accept(value, axes)
        except Reject as reject:
            if reject.code == "argument-type":
                raise self.refuse(value) from None
            raise

    def schema(self, axes: int) -> Schema:
        limits = {"minimum": -LARGEST_INT, "maximum": LARGEST_INT}
        return {
            "type": ["integer", "array", "string"],
            **limits,
            "items": {"type": ["integer", "string"], **limits},
            "minItems": 1,
            "maxItems": 3,
        }


class AnyList(Slot):
    """A list of anything."""

    def describe(self) -> str:
        return "a list"

    def accept(self, value: object, axes: int) -> tuple[object, ...]:
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value)
        return tuple(value)

    def schema(self, axes: int) -> Schema:
        return {"type": ["array", "string"]}


class Table(Slot):
    """A list of rows, all with the same fields."""

    def describe(self) -> str:
        return "a list of rows with the same fields"

    def accept(self, value: object, axes: int) -> tuple[Mapping[str, object], ...]:
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value)
        fields: set[str] | None = None
        for number, row in enumerate(value, start=1):
            if not isinstance(row, Mapping):
                raise Reject(
                    "argument-type", f"row {number} is {describe_value(row)}, not a mapping"
                )
            if fields is None:
                fields = set(row)
            elif fields != set(row):
                odd = sorted(fields ^ set(row))[0]
                lacks = "lacks" if odd in fields else "has the extra"
                raise Reject("table-fields", f"row {number} {lacks} field `{odd}`")
        return tuple(value)

    def schema(self, axes: int) -> Schema:
        return {"type": ["array", "string"], "items": {"type": "object"}}


class Text(Slot):
    """Free text, with `{expression}` templates."""

    def describe(self) -> str:
        return "text"

    def accept(self, value: object, axes: int) -> str:
        if not isinstance(value, str):
            raise self.refuse(value)
        return value

    def schema(self, axes: int) -> Schema:
        return {"type": "string"}


class Operation(Slot):
    """An operation, with or without arguments, or null for none."""

    def describe(self) -> str:
        return "an operation"

    def accept(self, value: object, axes: int) -> Any:
        return value

    def schema(self, axes: int) -> Schema:
        return {"type": ["string", "object", "null"]}


PARAM_SLOTS: Mapping[str, Slot] = {
    "int": Int(),
    "float": Float(),
    "bool": Bool(),
    "str": Text(),
    "op": Operation(),
    "list": AnyList(),
    "table": Table(),
    "size": AnySize(),
}
"""The slot of each type that a param may have."""
