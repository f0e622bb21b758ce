"""What an argument may be: the slots into which spec values are put.

A slot checks one evaluated value and gives it its final form (a size becomes one int per axis). It
says the same as a JSON Schema fragment, so that editors, `check` and `analyze` agree. Expressions
and locations may not enter: a string reaches a slot only if it is one of the slot's own words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from cnnspec.diagnostics import Reject, did_you_mean
from cnnspec.record import Record

__all__ = [
    "LARGEST_INT",
    "Axes",
    "Bool",
    "ConnectionTable",
    "Float",
    "Int",
    "Ints",
    "Kernels",
    "Margins",
    "Nullable",
    "Padding",
    "PerAxis",
    "Rows",
    "Schema",
    "Shape",
    "Size",
    "Slot",
    "TensorRef",
    "Word",
    "describe_value",
]

LARGEST_INT = 2**31 - 1
"""The largest number an argument may be."""

Schema = dict[str, Any]


def describe_value(value: object) -> str:
    """A value as a user would name it in a message: `3`, `2.5`, `true`, `[1, 2]`, `nothing`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            text = str(value)
            return text if len(text) <= 24 else f"a number of {len(text)} digits"
        case str():
            return f'"{value}"' if len(value) <= 40 else "a long text"
        case list() | tuple():
            parts = [describe_value(item) for item in value[:6]]
            return f"[{', '.join(parts)}{', ...' if len(value) > 6 else ''}]"
        case Mapping():
            return "a mapping"
        case _:
            return "an operation"


class Slot(Record, ABC):
    """One kind of argument. `words` are the strings it takes literally."""

    @property
    def words(self) -> tuple[str, ...]:
        """Strings that stand for themselves here; any other string is an expression."""
        return ()

    @property
    def refers(self) -> bool:
        """Whether the slot takes the name of a tensor, which becomes a further input."""
        return False

    @abstractmethod
    def describe(self) -> str:
        """What the slot takes, to complete `must be ...`."""

    @abstractmethod
    def accept(self, value: object, axes: int) -> Any:
        """The final form of an evaluated `value` for an op of `axes` spatial axes.

        Raises `Reject` without a place where the slot does not take the value.
        """

    @abstractmethod
    def schema(self, axes: int) -> Schema:
        """JSON Schema (draft-07, without oneOf or anyOf) of what a spec may write here.

        A string is always allowed, since it may be an expression.
        """

    def refuse(self, value: object) -> Reject:
        """The rejection of a value of the wrong kind."""
        if isinstance(value, str) and self.words:
            return Reject(
                "argument-value",
                f"must be {self.describe()}, not {describe_value(value)}",
                help=did_you_mean(value, self.words),
            )
        return Reject("argument-type", f"must be {self.describe()}, not {describe_value(value)}")


def _int(slot: Slot, value: object, least: int | None, most: int = LARGEST_INT) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        if isinstance(value, float):
            raise Reject(
                "float-for-int",
                f"must be {slot.describe()}, not {describe_value(value)}",
                help="`int(...)` cuts a number to an integer, `//` divides to one",
            )
        raise slot.refuse(value)
    if value > most:
        raise Reject("argument-value", f"must be at most {most}, not {describe_value(value)}")
    if value < (-LARGEST_INT if least is None else least):
        raise Reject("argument-value", f"must be {slot.describe()}, not {describe_value(value)}")
    return value


def _int_schema(least: int | None, *extra: str) -> Schema:
    schema: Schema = {"type": ["integer", "string", *extra], "maximum": LARGEST_INT}
    schema["minimum"] = -LARGEST_INT if least is None else least
    return schema


class Int(Slot):
    """An integer of at least `least`."""

    least: int | None = None

    def describe(self) -> str:
        return "an integer" if self.least is None else f"an integer of at least {self.least}"

    def accept(self, value: object, axes: int) -> int:
        return _int(self, value, self.least)

    def schema(self, axes: int) -> Schema:
        return _int_schema(self.least)


class Float(Slot):
    """A finite number between `least` and `most`, both allowed; integers count."""

    least: float | None = None
    most: float | None = None

    def describe(self) -> str:
        match self.least, self.most:
            case None, None:
                return "a number"
            case least, None:
                return f"a number of at least {least:g}"
            case None, most:
                return f"a number of at most {most:g}"
            case least, most:
                return f"a number from {least:g} to {most:g}"

    def accept(self, value: object, axes: int) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        if (
            not isfinite(value)
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
        ):
            raise Reject(
                "argument-value", f"must be {self.describe()}, not {describe_value(value)}"
            )
        return value

    def schema(self, axes: int) -> Schema:
        schema: Schema = {"type": ["number", "string"]}
        if self.least is not None:
            schema["minimum"] = self.least
        if self.most is not None:
            schema["maximum"] = self.most
        return schema


class Bool(Slot):
    """`true` or `false`."""

    def describe(self) -> str:
        return "true or false"

    def accept(self, value: object, axes: int) -> bool:
        if not isinstance(value, bool):
            raise self.refuse(value)
        return value

    def schema(self, axes: int) -> Schema:
        return {"type": ["boolean", "string"]}


class Word(Slot):
    """One of a closed set of words."""

    choices: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        return self.choices

    def describe(self) -> str:
        quoted = [f"`{choice}`" for choice in self.choices]
        return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"

    def accept(self, value: object, axes: int) -> str:
        if not isinstance(value, str) or value not in self.choices:
            raise self.refuse(value)
        return value

    def schema(self, axes: int) -> Schema:
        return {"type": "string", "examples": list(self.choices)}


class Size(Slot):
    """An integer for all axes, or one integer per axis; becomes one integer per axis.

    `nullable` allows null for an axis (`AdaptiveAvgPool2d: {output_size: [null, 7]}`).
    """

    least: int = 1
    nullable: bool = False

    def describe(self) -> str:
        return f"an integer of at least {self.least}, or one per axis"

    def accept(self, value: object, axes: int) -> tuple[int | None, ...]:
        if isinstance(value, (list, tuple)):
            if len(value) == 1 or len(value) == axes:
                items = tuple(self._item(item) for item in value)
                return items * (axes // len(items))
            raise Reject(
                "argument-count",
                f"has {len(value)} values, but there {'is' if axes == 1 else 'are'} {axes} "
                f"{'axis' if axes == 1 else 'axes'}",
            )
        return (self._item(value),) * axes

    def _item(self, value: object) -> int | None:
        if value is None and self.nullable:
            return None
        return _int(self, value, self.least)

    def schema(self, axes: int) -> Schema:
        null = ("null",) if self.nullable else ()
        item = _int_schema(self.least, *null)
        return {
            **_int_schema(self.least, "array", *null),
            "items": item,
            "minItems": 1,
            "maxItems": axes,
        }


class PerAxis(Slot):
    """One value for all axes, or one per axis, where the number of axes depends on the input.

    Becomes a tuple of one to `most` values, whose number the op compares with its input's axes.
    """

    item: Slot
    most: int = 3

    def describe(self) -> str:
        return f"{self.item.describe()}, or one per axis"

    def accept(self, value: object, axes: int) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            return (self.item.accept(value, axes),)
        if not 1 <= len(value) <= self.most:
            raise Reject(
                "argument-count",
                f"has {len(value)} values, where 1 to {self.most} are possible",
            )
        return tuple(self.item.accept(item, axes) for item in value)

    def schema(self, axes: int) -> Schema:
        item = self.item.schema(axes)
        return {
            **item,
            "type": [*_types(item["type"]), "array"],
            "items": item,
            "minItems": 1,
            "maxItems": self.most,
        }


class Padding(Slot):
    """torch's padding (an int, or one per axis, both sides alike), `same`, `valid`, or per side.

    Becomes one `(before, after)` pair per axis, or the word `same`. `[[top, bottom], [left,
    right]]` gives each side its own.
    """

    @property
    def words(self) -> tuple[str, ...]:
        return ("same", "valid")

    def describe(self) -> str:
        return "an integer of at least 0, one per axis, a pair per axis, `same` or `valid`"

    def accept(self, value: object, axes: int) -> str | tuple[tuple[int, int], ...]:
        if value == "same":
            return "same"
        if value == "valid":
            return ((0, 0),) * axes
        if isinstance(value, (list, tuple)):
            if len(value) not in (1, axes):
                raise Reject(
                    "argument-count",
                    f"has {len(value)} values, but there {'is' if axes == 1 else 'are'} {axes} "
                    f"{'axis' if axes == 1 else 'axes'}",
                )
            sides = tuple(self._sides(item) for item in value)
            return sides * (axes // len(sides))
        return (self._sides(value),) * axes

    def _sides(self, value: object) -> tuple[int, int]:
        if isinstance(value, (list, tuple)):
            if len(value) != 2:
                raise Reject(
                    "argument-count",
                    f"has {len(value)} values for one axis, which has two sides",
                )
            return _int(self, value[0], 0), _int(self, value[1], 0)
        both = _int(self, value, 0)
        return both, both

    def schema(self, axes: int) -> Schema:
        sides = {**_int_schema(0, "array"), "items": _int_schema(0), "minItems": 2, "maxItems": 2}
        return {**_int_schema(0, "array"), "items": sides, "minItems": 1, "maxItems": axes}


class Margins(Slot):
    """torch's padding of a padding layer: an int, or two sides per axis, the last axis first.

    Becomes one `(before, after)` pair per axis, the first axis first. `[left, right, top, bottom]`
    is torch's order, `[[top, bottom], [left, right]]` the one of `Padding`. Negative ones crop.
    """

    def describe(self) -> str:
        return "an integer, two per axis in torch's order, or a pair per axis"

    def accept(self, value: object, axes: int) -> tuple[tuple[int, int], ...]:
        if not isinstance(value, (list, tuple)):
            return ((_int(self, value, None),) * 2,) * axes
        if value and all(isinstance(item, (list, tuple)) for item in value):
            if len(value) != axes:
                raise Reject(
                    "argument-count",
                    f"has {len(value)} pairs, but there {'is' if axes == 1 else 'are'} {axes} "
                    f"{'axis' if axes == 1 else 'axes'}",
                )
            return tuple(map(self._sides, value))
        if len(value) != 2 * axes:
            raise Reject(
                "argument-count",
                f"has {len(value)} values, where {2 * axes} are needed, two per axis",
            )
        flat = [_int(self, item, None) for item in value]
        return tuple(zip(flat[-2::-2], flat[-1::-2], strict=True))

    def _sides(self, pair: Sequence[object]) -> tuple[int, int]:
        if len(pair) != 2:
            raise Reject(
                "argument-count", f"has {len(pair)} values for one axis, which has two sides"
            )
        return _int(self, pair[0], None), _int(self, pair[1], None)

    def schema(self, axes: int) -> Schema:
        sides = _int_schema(None, "array")
        pair = {**sides, "items": _int_schema(None), "minItems": 2, "maxItems": 2}
        return {**sides, "items": pair, "minItems": axes, "maxItems": 2 * axes}


class Kernels(Slot):
    """One fixed kernel as a list of rows, or several of one size; becomes a tuple of kernels."""

    def describe(self) -> str:
        return "a kernel as a list of rows of numbers, or a list of such kernels of one size"

    def accept(self, value: object, axes: int) -> tuple[tuple[tuple[float, ...], ...], ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self.refuse(value)
        first = value[0]
        several = isinstance(first, (list, tuple)) and first and isinstance(first[0], (list, tuple))
        kernels = tuple(map(self._kernel, value if several else (value,)))
        if len({(len(kernel), len(kernel[0])) for kernel in kernels}) > 1:
            raise Reject("argument-count", "has kernels of different sizes")
        return kernels

    def _kernel(self, value: object) -> tuple[tuple[float, ...], ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self.refuse(value)
        rows = []
        for row in value:
            if not isinstance(row, (list, tuple)) or not row:
                raise self.refuse(value)
            rows.append(tuple(self._weight(item) for item in row))
        if len(set(map(len, rows))) > 1:
            raise Reject("argument-count", "has rows of different lengths")
        return tuple(rows)

    def _weight(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        if not isfinite(value):
            raise Reject(
                "argument-value", f"must be {self.describe()}, not {describe_value(value)}"
            )
        return value

    def schema(self, axes: int) -> Schema:
        weight: Schema = {"type": ["number", "string"]}
        rows: Schema = {"type": ["number", "array", "string"], "minItems": 1, "items": weight}
        kernel: Schema = {"type": ["array", "string"], "minItems": 1, "items": rows}
        return {"type": ["array", "string"], "minItems": 1, "items": kernel}


class Rows(Slot):
    """A table of numbers, as a list of rows of one length."""

    def describe(self) -> str:
        return "a list of rows of numbers"

    def accept(self, value: object, axes: int) -> tuple[tuple[float, ...], ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self.refuse(value)
        rows = []
        for row in value:
            if not isinstance(row, (list, tuple)) or not row:
                raise self.refuse(value)
            rows.append(tuple(Float().accept(item, axes) for item in row))
        if len(set(map(len, rows))) > 1:
            raise Reject("argument-count", "has rows of different lengths")
        return tuple(rows)

    def schema(self, axes: int) -> Schema:
        row = {"type": ["array", "string"], "minItems": 1, "items": Float().schema(axes)}
        return {"type": ["array", "string"], "minItems": 1, "items": row}


class Ints(Slot):
    """A list of integers of at least `least`, from `fewest` to `most` of them."""

    least: int | None = None
    fewest: int = 1
    most: int = 16

    def describe(self) -> str:
        return "a list of integers" + ("" if self.least is None else f" of at least {self.least}")

    def accept(self, value: object, axes: int) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value)
        if not self.fewest <= len(value) <= self.most:
            raise Reject(
                "argument-count",
                f"has {len(value)} values, where {self.fewest} to {self.most} are possible",
            )
        return tuple(_int(self, item, self.least) for item in value)

    def schema(self, axes: int) -> Schema:
        return {
            "type": ["array", "string"],
            "items": _int_schema(self.least),
            "minItems": self.fewest,
            "maxItems": self.most,
        }


class Shape(Ints):
    """The sizes of a tensor, batch not counted."""

    def __init__(self) -> None:
        super().__init__(least=1, fewest=0, most=8)


class Axes(Slot):
    """One axis or a list of axes, in torch's numbering (0 is the batch, negative from the end)."""

    def describe(self) -> str:
        return "an axis, or a list of axes"

    def accept(self, value: object, axes: int) -> tuple[int, ...]:
        items = value if isinstance(value, (list, tuple)) else (value,)
        return tuple(_int(self, item, -9, 9) for item in items)

    def schema(self, axes: int) -> Schema:
        return {
            "type": ["integer", "array", "string"],
            "minimum": -9,
            "maximum": 9,
            "items": {"type": ["integer", "string"], "minimum": -9, "maximum": 9},
        }


class ConnectionTable(Slot):
    """For each output channel the input channels it reads, as LeNet-5's C3 has it."""

    def describe(self) -> str:
        return "a list with, for each output channel, the list of input channels it reads"

    def accept(self, value: object, axes: int) -> tuple[tuple[int, ...], ...]:
        if not isinstance(value, (list, tuple)) or not value:
            raise self.refuse(value)
        rows = []
        for row in value:
            if not isinstance(row, (list, tuple)) or not row:
                raise self.refuse(value)
            rows.append(tuple(_int(self, item, 0) for item in row))
        return tuple(rows)

    def schema(self, axes: int) -> Schema:
        row = {"type": ["array", "string"], "minItems": 1, "items": _int_schema(0)}
        return {"type": ["array", "string"], "minItems": 1, "items": row}


class TensorRef(Slot):
    """The name of a tensor, which becomes a further input of the op.

    The final value is the position of that input among the op's inputs.
    """

    @property
    def refers(self) -> bool:
        return True

    def describe(self) -> str:
        return "the name of a tensor"

    def accept(self, value: object, axes: int) -> int:
        return _int(self, value, 0)

    def schema(self, axes: int) -> Schema:
        return {"type": "string"}


class Nullable(Slot):
    """Another slot's values, or null."""

    slot: Slot

    @property
    def words(self) -> tuple[str, ...]:
        return self.slot.words

    @property
    def refers(self) -> bool:
        return self.slot.refers

    def describe(self) -> str:
        return f"{self.slot.describe()}, or null"

    def accept(self, value: object, axes: int) -> Any:
        return None if value is None else self.slot.accept(value, axes)

    def schema(self, axes: int) -> Schema:
        schema = self.slot.schema(axes)
        found = {**schema, "type": [*_types(schema["type"]), "null"]}
        if "enum" in schema:
            found["enum"] = [*schema["enum"], None]
        return found


def _types(types: str | Iterable[str]) -> list[str]:
    return [types] if isinstance(types, str) else list(types)
