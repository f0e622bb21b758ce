"""Constructor calls as trees, and classes made of them: one class for all calls of one structure.

Two units have one class if their text is equal but for numbers in constructors. Numbers that then
differ between the calls become arguments of the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from cnnspec.backends.torch.signatures import Constant
from cnnspec.backends.torch.text import (
    Doc,
    Group,
    call_of,
    flat,
    literal,
    prefixed,
    suffixed,
    unique,
    variable,
)

__all__ = [
    "Body",
    "Build",
    "ClassGroup",
    "Instance",
    "Item",
    "Number",
    "Parameter",
    "Statement",
    "Value",
    "docs",
    "structure",
]

_FEWEST_REPEATED = 3


@dataclass(frozen=True, slots=True)
class Number:
    """A number, truth value or tuple of numbers in a constructor; `owner` is the module's name."""

    value: Constant
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """An argument or element. `keyword` names it; it is printed if `written` and not positional."""

    value: Value
    keyword: str = ""
    positional: bool = True
    implied: bool = False
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Build:
    """`callee(items)`, where the callee is a text or a class of the file; `""` is a tuple.

    `brackets` other than parentheses make list and dict literals.
    """

    callee: str | ClassGroup
    items: tuple[Item, ...]
    brackets: str = "()"


Value: TypeAlias = Number | str | Build


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of `__init__`: `lead`, a value, `tail`; `label` names what it makes."""

    lead: str
    value: Value
    tail: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """All of a class but its name and the arguments of its constructor.

    `doc` are the lines of its docstring. `forward` are statements with their depth below the
    class; a class without one inherits it.
    """

    base: str
    doc: tuple[str, ...]
    init: tuple[Statement, ...]
    forward: tuple[tuple[int, Doc], ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a class's constructor."""

    name: str
    annotation: str


@dataclass(slots=True, eq=False)
class Instance:
    """One use of a class: its numbers in order, the arguments of the block's call."""

    numbers: tuple[tuple[str, Number], ...]
    arguments: dict[str, Constant]
    given: tuple[Item, ...] = ()


@dataclass(slots=True, eq=False)
class ClassGroup:
    """A class of the file and its uses."""

    number: int
    wanted: str
    body: Body
    instances: list[Instance] = field(default_factory=list)
    parameters: tuple[Parameter, ...] = ()
    name: str = ""
    _columns: tuple[str | None, ...] = ()

    def settle(self) -> None:
        """Decide on the constructor's arguments and give each use its values."""
        first = self.instances[0]
        columns: list[str | None] = []
        named: dict[tuple[str, ...], str] = {}
        parameters: list[Parameter] = []
        sources: list[int] = []
        candidates = {
            tuple(repr(use.arguments.get(name)) for use in self.instances): name
            for name in reversed(first.arguments)
        }
        for position, (keyword, number) in enumerate(first.numbers):
            values = [use.numbers[position][1].value for use in self.instances]
            shown = tuple(map(repr, values))
            if len(set(shown)) == 1:
                columns.append(None)
                continue
            if shown not in named:
                taken = [parameter.name for parameter in parameters]
                name = variable(candidates.get(shown) or keyword or "value")
                if name in taken:
                    name = variable(f"{number.owner}_{keyword}") if number.owner else name
                name = unique(name, taken)
                named[shown] = name
                parameters.append(Parameter(name, _annotation(values)))
                sources.append(position)
            columns.append(named[shown])
        self.parameters = tuple(parameters)
        self._columns = tuple(columns)
        for use in self.instances:
            use.given = tuple(
                Item(Number(use.numbers[source][1].value), parameter.name, positional=False)
                for parameter, source in zip(parameters, sources, strict=True)
            )

    def init_lines(self) -> Iterator[tuple[Doc, str]]:
        """Statements of `__init__` with the arguments put in, and the end of their last line."""
        columns = iter(self._columns)
        for statement in self.body.init:
            yield prefixed(statement.lead, _doc(statement.value, columns)), statement.tail


def docs(value: Value) -> Doc:
    """A value with all its numbers as they are."""
    return _doc(value, iter(lambda: None, 0))


def structure(values: Iterable[Value]) -> tuple[tuple[Any, ...], tuple[tuple[str, Number], ...]]:
    """What makes two trees one class, and the numbers in which they may still differ."""
    numbers: list[tuple[str, Number]] = []

    def walk(value: Value, keyword: str) -> object:
        if isinstance(value, Number):
            numbers.append((keyword, value))
            return 0
        if isinstance(value, str):
            return value
        callee = value.callee if isinstance(value.callee, str) else value.callee.number
        items = [
            (item.prefix, item.keyword, walk(item.value, item.keyword)) for item in value.items
        ]
        return (callee, value.brackets, *items)

    return tuple([walk(value, "") for value in values]), tuple(numbers)


def _doc(value: Value, columns: Iterator[str | None]) -> Doc:
    if isinstance(value, Number):
        return next(columns) or literal(value.value)
    if isinstance(value, str):
        return value
    items: list[Doc] = []
    by_name = False
    for item in value.items:
        column: str | None = None
        if isinstance(item.value, Number):
            column = next(columns)
            shown: Doc = column or literal(item.value.value)
        else:
            shown = _doc(item.value, columns)
        if item.implied and column is None:
            by_name = True
            continue
        by_name = by_name or not item.positional or item.implied
        items.append(prefixed(f"{item.keyword}=" if by_name else item.prefix, shown))
    callee = value.callee if isinstance(value.callee, str) else value.callee.name
    return Group(value.brackets[0], tuple(_collapsed(items)), value.brackets[1], lead=callee)


def _collapsed(items: list[Doc]) -> Iterator[Doc]:
    """The items; three or more equal calls in a row become one generator expression."""
    start = 0
    while start < len(items):
        stop = start + 1
        while stop < len(items) and items[stop] == items[start]:
            stop += 1
        item = items[start]
        if stop - start >= _FEWEST_REPEATED and not isinstance(item, str):
            turns = f"for _ in range({stop - start})"
            yield Group("(", (item, turns), ")", lead="*", separator=" ")
        else:
            yield from items[start:stop]
        start = stop


def _annotation(values: list[Constant]) -> str:
    found = dict.fromkeys(map(_type_name, values))
    if set(found) == {"int", "float"}:
        return "float"
    return " | ".join(sorted(found))


def _type_name(value: Constant) -> str:
    if not isinstance(value, tuple):
        return type(value).__name__
    inside = list(dict.fromkeys(map(_type_name, value)))
    if len(inside) == 1 and len(value) > 4:
        return f"tuple[{inside[0]}, ...]"
    return f"tuple[{', '.join(map(_type_name, value))}]" if value else "tuple[()]"


def signature(parameters: tuple[Parameter, ...]) -> Doc:
    """`def __init__(...)` as a statement without its body."""
    arguments = [f"{parameter.name}: {parameter.annotation}" for parameter in parameters]
    return suffixed(call_of("def __init__", ("self", *arguments)), " -> None:")


def one_line(lines: Iterable[tuple[int, Doc]]) -> tuple[tuple[int, str], ...]:
    """Statements in a form that can be compared."""
    return tuple((depth, flat(doc)) for depth, doc in lines)
