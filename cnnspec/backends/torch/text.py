"""Python text: layout of expressions as a formatter would break them, names, escaped strings.

Nothing here knows a graph or torch.
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import TypeAlias

__all__ = [
    "INDENT",
    "Doc",
    "Group",
    "call_of",
    "camel",
    "docstring",
    "flat",
    "is_attribute",
    "literal",
    "operators",
    "prefixed",
    "quote",
    "render",
    "suffixed",
    "unique",
    "variable",
]

INDENT = "    "
_WIDTH = 100
_LONGEST_NAME = 40


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


Doc: TypeAlias = str | Group


def call_of(function: str, items: Iterable[Doc]) -> Group:
    """`function(items)`."""
    return Group("(", tuple(items), ")", lead=function)


def operators(operator: str, operands: Iterable[Doc]) -> Group:
    """`a + b`: broken, it stands in parentheses."""
    return Group("(", tuple(operands), ")", separator=f" {operator} ", bare=True)


def prefixed(prefix: str, doc: Doc) -> Doc:
    """`doc` behind a text that stays on its first line."""
    return prefix + doc if isinstance(doc, str) else replace(doc, lead=prefix + doc.lead)


def suffixed(doc: Doc, suffix: str) -> Doc:
    """`doc` with a text that stays on its last line."""
    return doc + suffix if isinstance(doc, str) else replace(doc, tail=doc.tail + suffix)


def flat(doc: Doc) -> str:
    """`doc` on one line."""
    if isinstance(doc, str):
        return doc
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
    if isinstance(doc, str) or not doc.items or len(indent) + len(one) <= _WIDTH:
        return [indent + one]
    lines = [f"{indent}{doc.lead}{doc.open}"]
    comma = doc.separator == ", "
    inside = doc.separator.join(map(flat, doc.items))
    if len(indent) + len(INDENT) + len(inside) <= _WIDTH and not (
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


# ---------------------------------------------------------------------------------------- values


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
    if value is None or type(value) in (bool, int, float):
        return repr(value)
    raise TypeError(f"{type(value).__name__} cannot stand in generated source")


def docstring(lines: Iterable[str], depth: int = 0) -> list[str]:
    """Lines between triple quotes, wrapped, with everything escaped that is not plain ASCII."""
    indent = INDENT * depth
    found: list[str] = []
    for line in lines:
        shown = line.encode("unicode_escape").decode("ascii").replace('"', '\\"')
        width = _WIDTH - len(indent) - 6 * (not found)
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
        "NamedTuple",
        "OrderedDict",
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
