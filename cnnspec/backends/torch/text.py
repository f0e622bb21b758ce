"""Python text: layout of expressions as a formatter would break them, names, escaped strings.

Nothing here knows a graph or torch.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TypeAlias

__all__ = [
    "INDENT",
    "WIDTH",
    "Doc",
    "Figure",
    "Group",
    "call_of",
    "camel",
    "docstring",
    "flat",
    "is_attribute",
    "literal",
    "numbered_runs",
    "operators",
    "prefixed",
    "quote",
    "render",
    "suffixed",
    "unique",
    "variable",
]

INDENT = "    "
WIDTH = 100
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, or a tuple of numbers, that may be another one where the text is used again.

    `name` is what it is an argument for, if that is known.
    """

    value: Figures
    name: str = ""
    lead: str = ""
    tail: str = ""

    @property
    def text(self) -> str:
        """As it stands in source."""
        return f"{self.lead}{flat(literal(self.value))}{self.tail}"


Figures: TypeAlias = int | float | tuple["Figures", ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Items in brackets, on one line if they fit.

    `lead` and `tail` surround the brackets. A `bare` group has its brackets only when it is broken.
    Operators (any separator but a comma) stand at the start of a line.
    """

    open: str
    items: tuple[Doc, ...]
    close: str
    lead: str = ""
    tail: str = ""
    separator: str = ", "
    bare: bool = False
    is_tuple: bool = False


Doc: TypeAlias = str | Figure | Group


def call_of(function: str, items: Iterable[Doc]) -> Group:
    """`function(items)`."""
    return Group("(", tuple(items), ")", lead=function)


def operators(operator: str, operands: Iterable[Doc]) -> Group:
    """`a + b`: broken, it stands in parentheses."""
    return Group("(", tuple(operands), ")", separator=f" {operator} ", bare=True)


def prefixed(prefix: str, doc: Doc) -> Doc:
    """`doc` behind a text that stays on its first line."""
    if isinstance(doc, str):
        return prefix + doc
    return replace(doc, lead=prefix + doc.lead)


def suffixed(doc: Doc, suffix: str) -> Doc:
    """`doc` with a text that stays on its last line."""
    if isinstance(doc, str):
        return doc + suffix
    return replace(doc, tail=doc.tail + suffix)


def flat(doc: Doc) -> str:
    """`doc` on one line."""
    if isinstance(doc, str):
        return doc
    if isinstance(doc, Figure):
        return doc.text
    inside = doc.separator.join(map(flat, doc.items))
    if doc.bare:
        return f"{doc.lead}{inside}{doc.tail}"
    if doc.is_tuple and len(doc.items) == 1:
        inside += ","
    return f"{doc.lead}{doc.open}{inside}{doc.close}{doc.tail}"


def render(doc: Doc, depth: int, after: str = "") -> list[str]:
    """Lines of `doc` at `depth` levels of indentation, the last one ended by `after`."""
    indent = INDENT * depth
    one = flat(doc) + after
    if not isinstance(doc, Group) or not doc.items or len(indent) + len(one) <= WIDTH:
        return [indent + one]
    lines = [f"{indent}{doc.lead}{doc.open}"]
    comma = doc.separator == ", "
    inside = doc.separator.join(map(flat, doc.items))
    if len(indent) + len(INDENT) + len(inside) <= WIDTH and not (
        doc.is_tuple and len(doc.items) == 1
    ):
        lines.append(f"{indent}{INDENT}{inside}")
    else:
        start = "" if comma else doc.separator.lstrip()
        for number, item in enumerate(doc.items):
            lead = prefixed(start, item) if number else item
            lines += render(lead, depth + 1, "," if comma else "")
    lines.append(f"{indent}{doc.close}{doc.tail}{after}")
    return lines


# ------------------------------------------------------------------------------------------ runs

_FEWEST_REPEATED = 3
_NUMBER = re.compile(r"(?<![\w.\-])(\d+)(?![\w.])")
_KEY = re.compile(r'"([A-Za-z_\-]+)(0|[1-9]\d*)"')


def numbered_runs(items: Sequence[Doc]) -> Iterator[Doc]:
    """The items, with three or more in a row as one generator expression.

    These are equal calls, or pairs of a numbered key and calls whose whole numbers are the same or
    grow by equal steps.
    """
    start = 0
    while start < len(items):
        item, stop = items[start], start + 1
        while stop < len(items) and items[stop] == item:
            stop += 1
        if stop - start >= _FEWEST_REPEATED and not isinstance(item, str):
            yield _generator(item, f"for _ in range({stop - start})")
            start = stop
            continue
        run = _numbered(items, start)
        if run is not None:
            stop, made = run
            yield made
        else:
            stop = start + 1
            yield item
        start = stop


def _generator(item: Doc, turns: str) -> Group:
    return Group("(", (item, turns), ")", lead="*", separator=" ")


def _numbered(items: Sequence[Doc], start: int) -> tuple[int, Group] | None:
    """A run of pairs with keys numbered one after the other: where it ends, and its expression."""
    first = _split(items[start])
    second = _split(items[start + 1]) if start + 1 < len(items) else None
    if first is None or second is None:
        return None
    key, number, texts, values = first
    if second[0] != key or second[2] != texts:
        return None
    steps = [after - before for before, after in zip(values, second[3], strict=True)]
    stop = start + 1
    while stop < len(items):
        turn = stop - start
        expected = (key, number + turn, texts)
        found = _split(items[stop])
        if found is None or found[:3] != expected:
            break
        if found[3] != tuple(v + turn * step for v, step in zip(values, steps, strict=True)):
            break
        stop += 1
    if stop - start < _FEWEST_REPEATED or (any(steps) and any('"' in text for text in texts)):
        return None
    shown = [texts[0]]
    for value, step, text in zip(values, steps, texts[1:], strict=True):
        shown += [_progression(value - step * number, step), text]
    pair = Group("(", (f'f"{key}{{i}}"', "".join(shown)), ")")
    bounds = f"{number}, {number + stop - start}" if number else f"{stop - start}"
    return stop, _generator(pair, f"for i in range({bounds})")


def _progression(base: int, step: int) -> str:
    if not step:
        return str(base)
    term = "i" if step == 1 else f"{step} * i"
    if not base:
        return term
    return f"{base} + {term}" if base > 0 else f"{term} - {-base}"


def _split(item: Doc) -> tuple[str, int, tuple[str, ...], tuple[int, ...]] | None:
    """A pair as its key, the number of that, and the text between whole numbers and these."""
    if not isinstance(item, Group) or item.lead or len(item.items) != 2:
        return None
    key = _KEY.fullmatch(flat(item.items[0]))
    if key is None:
        return None
    parts = _NUMBER.split(flat(item.items[1]))
    return key[1], int(key[2]), tuple(parts[::2]), tuple(map(int, parts[1::2]))


# ---------------------------------------------------------------------------------------- values


_EXPONENT = re.compile(r"e\+?(-?)0*")
"""Of `1e-06` and `1e+16`, which nobody writes so."""


def quote(text: str) -> str:
    """A string literal in double quotes where that needs no escape."""
    shown = ascii(text)
    return f'"{shown[1:-1]}"' if shown[0] == "'" and '"' not in shown else shown


def literal(value: object) -> Doc:
    """A checked constant as Python writes it.

    Raises `TypeError` for anything but None, bool, int, float, str and tuples of these.
    """
    if isinstance(value, tuple):
        return Group("(", tuple(map(literal, value)), ")", is_tuple=True)
    if isinstance(value, str):
        return quote(value)
    if type(value) is float:
        return _EXPONENT.sub(r"e\1", repr(value))
    if value is None or type(value) in (bool, int):
        return repr(value)
    raise TypeError(f"{type(value).__name__} cannot stand in generated source")


def docstring(lines: Iterable[str], depth: int = 0) -> list[str]:
    """Lines between triple quotes, wrapped, with everything escaped that is not plain ASCII."""
    indent = INDENT * depth
    found: list[str] = []
    for line in lines:
        shown = line.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        width = WIDTH - len(indent) - 6 * (not found)
        found += wrap(shown, width, break_long_words=False, break_on_hyphens=False) or [""]
    found[0] = f'"""{found[0]}'
    if len(found) == 1:
        return [f'{indent}{found[0]}"""']
    return [indent + line if line else "" for line in (*found, '"""')]


# ----------------------------------------------------------------------------------------- names

_FORBIDDEN = frozenset(
    (
        "self",
        "torch",
        "nn",
        "math",
        "F",
        "Tensor",
        "Callable",
        "NamedTuple",
        "OrderedDict",
        "cast",
        *keyword.kwlist,
        *keyword.softkwlist,
        *dir(builtins),
    )
)


def is_attribute(name: str) -> bool:
    """True if `self.name` means `name` inside a class: no keyword, and no mangled private name."""
    return (
        name.isidentifier()
        and name.isascii()
        and not keyword.iskeyword(name)
        and not name.startswith("__")
    )


def variable(name: str) -> str:
    """The nearest name a local variable can have: lower case, no keyword, no builtin."""
    found = re.sub(r"[^a-z0-9_]", "_", name.lower())[:_LONGEST_NAME].lstrip("_") or "value"
    if found[0].isdigit():
        found = f"x_{found}"
    return f"{found}_" if found in _FORBIDDEN else found


def camel(name: str, otherwise: str) -> str:
    """The nearest name a class can have, `otherwise` where nothing is left of it."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    found = "".join(word[0].upper() + word[1:] for word in words)[:_LONGEST_NAME]
    if not found or found[0].isdigit():
        found = otherwise + found
    return f"{found}Block" if found in _FORBIDDEN else found


def unique(name: str, taken: Iterable[str], separator: str = "_") -> str:
    """`name`, or `name_2`, `name_3`, ... until it is not `taken`."""
    occupied = taken if isinstance(taken, (set, frozenset, dict)) else set(taken)
    found, number = name, 2
    while found in occupied:
        found = f"{name}{separator}{number}"
        number += 1
    return found
