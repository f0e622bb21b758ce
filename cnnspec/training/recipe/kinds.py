"""What a value of a recipe may be: slots whose text is text, since recipes have no expressions.

They say the same as JSON Schema as those of the language do. What the values mean may not enter.
"""

# ruff: noqa: D102 - said once, on Slot

from __future__ import annotations

from math import isfinite
from typing import Any

from cnnspec.diagnostics import Reject, did_you_mean, quantity
from cnnspec.slots import Schema, Slot, describe_value

__all__ = [
    "Choice",
    "Each",
    "Flag",
    "Items",
    "Number",
    "OrWord",
    "Range",
    "Text",
    "Whole",
]

_OLD_BOOLEANS = frozenset(("yes", "no", "on", "off", "y", "n"))


class Number(Slot):
    """A finite number; `least` and `most` are allowed themselves, `above` and `below` are not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def describe(self) -> str:
        if self.least is not None and self.most is not None:
            return f"a number from {self.least:g} to {self.most:g}"
        limits = [
            f"{words} {limit:g}"
            for words, limit in (
                ("of at least", self.least),
                ("above", self.above),
                ("of at most" if self.above is None else "at most", self.most),
                ("below", self.below),
            )
            if limit is not None
        ]
        return " ".join(("a number", " and ".join(limits))).rstrip()

    def accept(self, value: object, axes: int) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(value)
        if (
            not isfinite(value)
            or (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        ):
            raise Reject(
                "argument-value", f"must be {self.describe()}, not {describe_value(value)}"
            )
        return float(value)

    def schema(self, axes: int) -> Schema:
        limits = {
            "minimum": self.least,
            "maximum": self.most,
            "exclusiveMinimum": self.above,
            "exclusiveMaximum": self.below,
        }
        return {"type": "number", **{k: v for k, v in limits.items() if v is not None}}


class Whole(Slot):
    """An integer from `least` to `most`, both allowed; `odd` ones only where asked."""

    least: int = 0
    most: int = 2**31 - 1
    odd: bool = False

    def describe(self) -> str:
        return f"an {'odd ' if self.odd else ''}integer of at least {self.least}"

    def accept(self, value: object, axes: int) -> int:
        if isinstance(value, float) and isfinite(value):
            whole = value == int(value) and abs(value) <= self.most
            raise Reject(
                "float-for-int",
                f"must be {self.describe()}, not {describe_value(value)}",
                help=f"write `{int(value)}`" if whole else "",
            )
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(value)
        if value > self.most:
            raise Reject(
                "argument-value", f"must be at most {self.most}, not {describe_value(value)}"
            )
        if value < self.least or (self.odd and value % 2 == 0):
            raise Reject(
                "argument-value", f"must be {self.describe()}, not {describe_value(value)}"
            )
        return value

    def schema(self, axes: int) -> Schema:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Flag(Slot):
    """`true` or `false`."""

    def describe(self) -> str:
        return "true or false"

    def accept(self, value: object, axes: int) -> bool:
        if isinstance(value, bool):
            return value
        old = isinstance(value, str) and value.lower() in _OLD_BOOLEANS
        raise Reject(
            "argument-type",
            f"must be true or false, not {describe_value(value)}",
            help="the booleans are `true` and `false`" if old else "",
        )

    def schema(self, axes: int) -> Schema:
        return {"type": "boolean"}


class Choice(Slot):
    """One of a closed set of words. `aliases` are further words that mean one of them."""

    choices: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.choices, *(alias for alias, _ in self.aliases))

    def describe(self) -> str:
        quoted = [f"`{choice}`" for choice in self.choices]
        return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"

    def accept(self, value: object, axes: int) -> str:
        if not isinstance(value, str) or value not in self.words:
            help = did_you_mean(value, self.choices) if isinstance(value, str) else ""
            raise Reject(
                "argument-value",
                f"must be {self.describe()}, not {describe_value(value)}",
                help=help,
            )
        return dict(self.aliases).get(value, value)

    def schema(self, axes: int) -> Schema:
        return {"type": "string", "enum": list(self.words)}


class Text(Slot):
    """Text of at least one character."""

    def describe(self) -> str:
        return "text"

    def accept(self, value: object, axes: int) -> str:
        if isinstance(value, str) and value:
            return value
        plain = isinstance(value, (int, float)) and not isinstance(value, bool)
        raise Reject(
            "argument-type",
            f"must be text, not {describe_value(value) if value != '' else 'empty'}",
            help=f'quote it: "{describe_value(value)}"' if plain else "",
        )

    def schema(self, axes: int) -> Schema:
        return {"type": "string", "minLength": 1}


class Items(Slot):
    """A list of `counts` values (any number where there are none); becomes a tuple.

    `single` also takes one value in place of a list, which stays one.
    """

    item: Slot
    counts: tuple[int, ...] = ()
    single: bool = False
    each: str = ""
    """What a value is for, in words: `one for each side`."""

    def describe(self) -> str:
        item, each = self.item.describe(), f" ({self.each})" if self.each else ""
        count = " or ".join(map(str, self.counts))
        if self.single:
            return f"{item}, or {f'{count} of them' if count else 'a list of them'}{each}"
        return f"a list of {f'{count} values' if count else 'values'}{each}, each {item}"

    def accept(self, value: object, axes: int) -> Any:
        if not isinstance(value, (list, tuple)):
            if self.single:
                return self.item.accept(value, axes)
            raise self.refuse(value)
        items = tuple(self.item.accept(item, axes) for item in value)
        if self.counts and len(items) not in self.counts:
            raise Reject(
                "argument-count",
                f"has {quantity(len(items), 'value')}, but must be {self.describe()}",
            )
        return items

    def schema(self, axes: int) -> Schema:
        item = self.item.schema(axes)
        own: Schema = {"type": "array", "items": item}
        if self.counts:
            own |= {"minItems": min(self.counts), "maxItems": max(self.counts)}
        if not self.single:
            return own
        return {**item, **own, "type": [*_types(item), "array"]}


class Each(Slot):
    """A list with a slot for each of its places; becomes a tuple."""

    places: tuple[Slot, ...]

    def describe(self) -> str:
        return f"[{', '.join(place.describe() for place in self.places)}]"

    def accept(self, value: object, axes: int) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise self.refuse(value)
        if len(value) != len(self.places):
            raise Reject(
                "argument-count",
                f"has {quantity(len(value), 'value')}, but must be {self.describe()}",
            )
        return tuple(slot.accept(item, axes) for slot, item in zip(self.places, value, strict=True))

    def schema(self, axes: int) -> Schema:
        items = [slot.schema(axes) for slot in self.places]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}


class Range(Slot):
    """Two numbers, the lower first. Where `single`, also one number, which stays one."""

    item: Number
    single: bool = False
    single_item: Number | None = None
    """What a single number may be, where that is not what a bound may be."""

    def describe(self) -> str:
        pair = f"[low, high], each {self.item.describe()}"
        return f"{(self.single_item or self.item).describe()}, or {pair}" if self.single else pair

    def accept(self, value: object, axes: int) -> Any:
        if not isinstance(value, (list, tuple)):
            if self.single:
                return (self.single_item or self.item).accept(value, axes)
            raise self.refuse(value)
        items = tuple(self.item.accept(item, axes) for item in value)
        if len(items) != 2:
            raise Reject(
                "argument-count",
                f"has {quantity(len(items), 'value')}, but must be [low, high]",
            )
        if items[0] > items[1]:
            raise Reject(
                "argument-value", f"must be [low, high], and {items[0]:g} is above {items[1]:g}"
            )
        return items

    def schema(self, axes: int) -> Schema:
        own: Schema = {"type": "array", "items": self.item.schema(axes)}
        own |= {"minItems": 2, "maxItems": 2}
        if not self.single:
            return own
        single = (self.single_item or self.item).schema(axes)
        return {**single, **own, "type": ["number", "array"]}


class OrWord(Slot):
    """Another slot's values, or one word."""

    slot: Slot
    word: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.word,)

    def describe(self) -> str:
        return f"{self.slot.describe()}, or `{self.word}`"

    def accept(self, value: object, axes: int) -> Any:
        if value == self.word:
            return self.word
        if isinstance(value, str):
            raise self.refuse(value)
        return self.slot.accept(value, axes)

    def schema(self, axes: int) -> Schema:
        schema = self.slot.schema(axes)
        return {**schema, "type": [*_types(schema), "string"], "pattern": f"^{self.word}$"}


def _types(schema: Schema) -> list[str]:
    types = schema["type"]
    return [types] if isinstance(types, str) else list(types)
