"""Constructor calls as trees, and classes made of them: one class for all calls of one structure.

Two units have one class if their text is equal but for numbers, for the classes of modules without
weights, and for modules that one of them lacks. What then differs between the calls become
arguments of the class.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from cnnspec.backends.torch.signatures import Constant
from cnnspec.backends.torch.text import (
    Doc,
    Figure,
    Group,
    call_of,
    flat,
    literal,
    numbered_runs,
    prefixed,
    suffixed,
    unique,
    variable,
)
from cnnspec.op import INFERRED

__all__ = [
    "Body",
    "Build",
    "ClassGroup",
    "Instance",
    "Item",
    "Line",
    "Name",
    "Number",
    "Optional",
    "Parameter",
    "Slot",
    "Statement",
    "Value",
    "figures",
    "signature",
    "skeleton",
    "structure",
]

_POSITIONAL = 2
"""How many arguments of a class are passed by position, the first and whole numbers."""
_FEWEST_TO_RELATE = 2
"""How many different values an argument has before another is computed from it."""
_FACTORS = range(2, 17)


class Name(str):
    """A name in generated source that stands where a number might: the class of a module."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Number:
    """A number, truth value, tuple of numbers or name; `owner` is the module's name."""

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

    `brackets` other than parentheses make list and dict literals. A callee that is a `Number` may
    be another one in other uses of the class.
    """

    callee: str | ClassGroup | Number
    items: tuple[Item, ...]
    brackets: str = "()"


@dataclass(frozen=True, slots=True)
class Optional:
    """A module that some uses of the class lack: `name` says so, and `there` for this use.

    One that is not there passes on what it is given. `value` is what would be made.
    """

    name: str
    value: Build
    there: bool


Value: TypeAlias = Number | str | Build | Optional


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of `__init__`: `lead`, a value, `tail`; `label` names what it makes."""

    lead: str
    value: Value
    tail: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A statement of a forward, its depth below the class, and what is remarked behind it."""

    depth: int
    doc: Doc
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Body:
    """All of a class but its name and the arguments of its constructor.

    `doc` are the lines of its docstring. A class without a `forward` inherits it.
    """

    base: str
    doc: tuple[str, ...]
    init: tuple[Statement, ...]
    forward: tuple[Line, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What bodies of one class have in common."""
        shape, _ = structure(statement.value for statement in self.init)
        leads = tuple([(statement.lead, statement.tail) for statement in self.init])
        return self.base, leads, shape, skeleton(self.forward)


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument of a class's constructor; `default` is None where it has none."""

    name: str
    annotation: str
    default: Constant


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a number in the text of a class, and the number of one use.

    `there` is False in a use that does not need it. `implied` is a number that is not written, as
    it is what torch takes anyway.
    """

    keyword: str
    number: Number
    implied: bool = False
    there: bool = True


@dataclass(slots=True, eq=False)
class Instance:
    """One use of a class: its numbers in order, the arguments of the block's call."""

    slots: tuple[Slot, ...]
    arguments: Mapping[str, Constant]
    given: tuple[Item, ...] = ()


@dataclass(slots=True, eq=False)
class ClassGroup:
    """A class of the file and its uses; `paths` are those of the scopes that it is written for."""

    number: int
    wanted: str
    body: Body
    instances: list[Instance] = field(default_factory=list)
    parameters: tuple[Parameter, ...] = ()
    name: str = ""
    paths: list[str] = field(default_factory=list)
    _columns: tuple[str | None, ...] = ()
    _taken: frozenset[str] = frozenset()

    def add(self, body: Body, arguments: Mapping[str, Constant]) -> Instance:
        """Note a use, whose body is that of the class but for numbers."""
        _, slots = structure(statement.value for statement in body.init)
        own = tuple(Slot(f.name, Number(f.value)) for f in figures(body.forward))
        use = Instance((*slots, *own), arguments)
        self.instances.append(use)
        return use

    def settle(self, taken: frozenset[str] = frozenset()) -> None:
        """Decide on the constructor's arguments and give each use its values.

        `taken` are names that the class's own attributes must not have.
        """
        self._taken = taken
        columns = _Columns(self.instances)
        self._columns = columns.texts
        self.parameters = columns.parameters
        for number, use in enumerate(self.instances):
            use.given = columns.given(number)

    def init_lines(self) -> Iterator[tuple[Doc, str]]:
        """Statements of `__init__` with the arguments put in, and the end of their last line."""
        columns = iter(self._columns)
        kept = list(dict.fromkeys(column for column in self._own_columns() if column))
        for number, statement in enumerate(self.body.init):
            yield prefixed(statement.lead, _doc(statement.value, columns)), statement.tail
            if not number:
                for name in kept:
                    yield f"self.{self._attribute(name)} = {name}", ""

    def forward_lines(self) -> Iterator[Line]:
        """Statements of the forward; numbers that differ between uses are attributes."""
        columns = iter(self._own_columns())
        for line in self.body.forward:
            yield replace(line, doc=self._placed(line.doc, columns))

    def _own_columns(self) -> tuple[str | None, ...]:
        count = sum(1 for _ in figures(self.body.forward))
        return self._columns[len(self._columns) - count :] if count else ()

    def _attribute(self, name: str) -> str:
        return unique(name, self._taken)

    def _placed(self, doc: Doc, columns: Iterator[str | None]) -> Doc:
        if isinstance(doc, Figure):
            column = next(columns)
            return f"{doc.lead}self.{self._attribute(column)}{doc.tail}" if column else doc.text
        if isinstance(doc, str):
            return doc
        return replace(doc, items=tuple([self._placed(item, columns) for item in doc.items]))


class _Columns:
    """The numbers of all uses of a class, place by place: which become arguments, and how."""

    def __init__(self, uses: Sequence[Instance]) -> None:
        self._uses = uses
        first = uses[0]
        self._names: dict[tuple[str, ...], str] = {
            tuple([repr(use.arguments.get(name)) for use in uses]): name
            for name in reversed(list(first.arguments))
        }
        places = range(len(first.slots))
        self._rows = [[use.slots[place] for use in uses] for place in places]
        self._chosen: dict[str, int] = {}
        texts: list[str | None] = [None] * len(self._rows)
        differing = [place for place in places if self._differs(place)]
        named = [place for place in differing if self._asked(place) is not None]
        for place in (*named, *(place for place in differing if place not in named)):
            texts[place] = self._known(place) or self._again(place, texts) or self._new(place)
        self.texts: tuple[str | None, ...] = tuple(texts)
        order = sorted(self._chosen, key=self._chosen.__getitem__)
        made = [self._parameter(name) for name in order]
        self.parameters = tuple(sorted(made, key=lambda p: p.default is not None))

    def given(self, use: int) -> tuple[Item, ...]:
        """The arguments of one use, those left out that are defaults."""
        found: list[Item] = []
        for number, parameter in enumerate(self.parameters):
            value = self._value(self._chosen[parameter.name], use)
            implied = parameter.default is not None and repr(value) == repr(parameter.default)
            by_place = number < _POSITIONAL and parameter.default is None
            by_place = by_place and (not number or parameter.annotation == "int")
            found.append(Item(Number(value), parameter.name, by_place, implied))
        return tuple(found)

    def _differs(self, place: int) -> bool:
        there = {repr(slot.number.value) for slot in self._rows[place] if slot.there}
        return len(there) > 1

    def _asked(self, place: int) -> str | None:
        """The name that the spec has for the numbers of a place."""
        return self._names.get(tuple([repr(slot.number.value) for slot in self._rows[place]]))

    def _known(self, place: int) -> str | None:
        """An argument that has the values needed already."""
        row = self._rows[place]
        for name, source in self._chosen.items():
            pairs = zip(row, self._rows[source], strict=True)
            if all(
                not mine.there or (theirs.there and repr(mine.number.value) == _shown(theirs))
                for mine, theirs in pairs
            ):
                return name
        return None

    def _again(self, place: int, texts: Sequence[str | None]) -> str | None:
        """What stands at an earlier place that has the same values in all uses."""
        row = self._rows[place]
        for earlier in range(place):
            text, others = texts[earlier], self._rows[earlier]
            if text is not None and all(
                mine.there and theirs.there and repr(mine.number.value) == _shown(theirs)
                for mine, theirs in zip(row, others, strict=True)
            ):
                return text
        return None

    def _new(self, place: int) -> str:
        return self._derived(place) or self._chosen_as(place)

    def _derived(self, place: int) -> str | None:
        """An expression in arguments that are there already: `4 * planes`, `k // 2`."""
        row = self._rows[place]
        keyword = row[0].keyword
        if keyword == "padding":
            return self._padding(place)
        if keyword in INFERRED or self._asked(place) is not None:
            return None
        if any(slot.implied for slot in row if slot.there):
            return None
        for name, source in self._chosen.items():
            pairs = self._pairs(place, source)
            if pairs is None or len({theirs for _, theirs in pairs}) < _FEWEST_TO_RELATE:
                continue
            for factor in _FACTORS:
                if all(mine == factor * theirs for mine, theirs in pairs):
                    return f"{factor} * {name}"
                if all(theirs == factor * mine for mine, theirs in pairs):
                    return f"{name} // {factor}"
        return None

    def _padding(self, place: int) -> str | None:
        """Half a kernel, as an expression in the kernel's size."""
        for name, source in self._chosen.items():
            pairs = self._pairs(place, source)
            if pairs is None or len({theirs for _, theirs in pairs}) < _FEWEST_TO_RELATE:
                continue
            if self._rows[source][0].keyword == "kernel_size" and all(
                mine == theirs // 2 for mine, theirs in pairs
            ):
                return f"{name} // 2"
        return None

    def _pairs(self, place: int, source: int) -> list[tuple[int, int]] | None:
        """Values of both where the first is needed, if all of them are positive whole numbers."""
        found: list[tuple[int, int]] = []
        for mine, theirs in zip(self._rows[place], self._rows[source], strict=True):
            if not mine.there:
                continue
            a, b = mine.number.value, theirs.number.value
            if not theirs.there or type(a) is not int or type(b) is not int or b <= 0:
                return None
            found.append((a, b))
        return found

    def _chosen_as(self, place: int) -> str:
        """A new argument for a place."""
        slot = self._rows[place][0]
        name = variable(self._asked(place) or slot.keyword or "value")
        if name in self._chosen and slot.number.owner:
            name = variable(f"{slot.number.owner}_{slot.keyword}")
        name = unique(name, self._chosen)
        self._chosen[name] = place
        return name

    def _parameter(self, name: str) -> Parameter:
        row = self._rows[self._chosen[name]]
        values = [slot.number.value for slot in row if slot.there]
        usual = next((slot.number.value for slot in row if slot.implied and slot.there), None)
        return Parameter(name, _annotation(values), usual)

    def _value(self, place: int, use: int) -> Constant:
        row = self._rows[place]
        return next(slot for slot in (row[use], *row) if slot.there).number.value


def _shown(slot: Slot) -> str:
    return repr(slot.number.value)


# ------------------------------------------------------------------------------------- comparison


def structure(values: Iterable[Value]) -> tuple[tuple[Any, ...], tuple[Slot, ...]]:
    """What makes two trees one class, and the numbers in which they may still differ."""
    slots: list[Slot] = []

    def walk(value: Value, keyword: str, implied: bool, there: bool) -> object:
        if isinstance(value, Number):
            slots.append(Slot(keyword, value, implied, there))
            return 0
        if isinstance(value, str):
            return value
        if isinstance(value, Optional):
            slots.append(Slot(value.name, Number(value.there), implied=not value.there))
            return "optional", value.name, walk(value.value, "", False, there and value.there)
        callee: object = value.callee
        if isinstance(callee, Number):
            slots.append(Slot("layer", callee, there=there))
            callee = 0
        elif isinstance(callee, ClassGroup):
            callee = callee.number, callee.wanted
        items = [
            (item.prefix, item.keyword, walk(item.value, item.keyword, item.implied, there))
            for item in value.items
        ]
        return (callee, value.brackets, *items)

    return tuple([walk(value, "", False, True) for value in values]), tuple(slots)


def figures(lines: Iterable[Line]) -> Iterator[Figure]:
    """The numbers in statements, in order."""
    stack: list[Doc]
    for line in lines:
        stack = [line.doc]
        while stack:
            doc = stack.pop()
            if isinstance(doc, Figure):
                yield doc
            elif isinstance(doc, Group):
                stack += reversed(doc.items)


def skeleton(lines: Iterable[Line]) -> tuple[tuple[int, str], ...]:
    """Statements without their numbers, in a form that can be compared."""

    def bare(doc: Doc) -> Doc:
        if isinstance(doc, Figure):
            return f"{doc.lead}#{doc.tail}"
        if isinstance(doc, str):
            return doc
        return replace(doc, items=tuple([bare(item) for item in doc.items]))

    return tuple([(line.depth, flat(bare(line.doc))) for line in lines])


# ------------------------------------------------------------------------------------------- text


def _doc(value: Value, columns: Iterator[str | None]) -> Doc:
    if isinstance(value, Number):
        return next(columns) or _constant(value.value)
    if isinstance(value, str):
        return value
    if isinstance(value, Optional):
        flag = next(columns)
        made = _doc(value.value, columns)
        if flag is None:
            return made
        words = (made, f"if {flag}", "else nn.Identity()")
        return Group("(", words, ")", separator=" ", bare=True)
    callee = value.callee
    if isinstance(callee, Number):
        lead = next(columns) or str(callee.value)
    else:
        lead = callee if isinstance(callee, str) else callee.name
    items: list[Doc] = []
    by_name = False
    for item in value.items:
        column: str | None = None
        if isinstance(item.value, Number):
            column = next(columns)
            shown = column or _constant(item.value.value)
        else:
            shown = _doc(item.value, columns)
        if item.implied and column is None:
            by_name = True
            continue
        by_name = by_name or not item.positional or item.implied
        items.append(prefixed(f"{item.keyword}=" if by_name else item.prefix, shown))
    runs = tuple(numbered_runs(items))
    if value.brackets == "[]" and len(runs) == 1:
        (run,) = runs
        if isinstance(run, Group) and run.lead == "*":
            return replace(run, lead=lead, open="[", close="]")
    return Group(value.brackets[0], runs, value.brackets[1], lead=lead)


def _constant(value: Constant) -> Doc:
    return str(value) if isinstance(value, Name) else literal(value)


def _annotation(values: Sequence[Constant]) -> str:
    found = dict.fromkeys(map(_type_name, values))
    if set(found) == {"int", "float"}:
        return "float"
    return " | ".join(sorted(found))


def _type_name(value: Constant) -> str:
    if isinstance(value, Name):
        return "Callable[..., nn.Module]"
    if not isinstance(value, tuple):
        return type(value).__name__
    inside = list(dict.fromkeys(map(_type_name, value)))
    if len(inside) == 1 and len(value) > 4:
        return f"tuple[{inside[0]}, ...]"
    return f"tuple[{', '.join(map(_type_name, value))}]" if value else "tuple[()]"


def signature(parameters: Sequence[Parameter]) -> Doc:
    """`def __init__(...)` as a statement without its body."""
    arguments = [
        f"{parameter.name}: {parameter.annotation}"
        + ("" if parameter.default is None else f" = {flat(_constant(parameter.default))}")
        for parameter in parameters
    ]
    return suffixed(call_of("def __init__", ("self", *arguments)), " -> None:")
