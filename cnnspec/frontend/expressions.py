"""The expression language: text to syntax tree to value, with positions and bounded work.

Python's arithmetic, comparisons, conditionals, comprehensions, lists and attributes, and a closed
list of functions. This file holds what callers use; behind it, `expression_parser` reads text,
`syntax_tree` evaluates and `evaluation` has the rules of values. YAML, scopes and the meaning of
slots stay outside: a caller passes text and a `lookup` of names, and places the offsets of an
`ExpressionError` in its file.

Python's `eval` and `ast` may not enter: a spec is data from strangers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cnnspec.diagnostics import Reject
from cnnspec.frontend.evaluation import (
    FUNCTIONS,
    MAX_TEXT,
    Budget,
    check_extent,
    describe,
)
from cnnspec.frontend.expression_parser import RESERVED, Parser
from cnnspec.frontend.syntax_tree import (
    Constant,
    Environment,
    ExpressionError,
    Lookup,
    Name,
    Node,
    Target,
    Value,
    bind_targets,
    elements_of,
)

__all__ = [
    "FUNCTION_NAMES",
    "RESERVED",
    "Budget",
    "Expression",
    "ExpressionError",
    "Lookup",
    "Loop",
    "Target",
    "Template",
    "Value",
    "bind_targets",
    "describe",
    "evaluate",
    "parse",
    "parse_targets",
    "parse_template",
]

FUNCTION_NAMES: Final = frozenset(FUNCTIONS)
"""The functions an expression may call; a variable of the same name does not hide one."""

_SIMPLE: Final = re.compile(r"(?P<number>0|[1-9][0-9]{0,29})|[A-Za-z_][A-Za-z0-9_]*")
_LITERAL: Final = re.compile(r"(?:[^{}]|\{\{|\}\})+")
_INSIDE: Final = re.compile(r"""(?:"[^"]*"|'[^']*'|[^{}"'])*""")


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. `names` are its free names, without those a comprehension binds."""

    text: str
    root: Node
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Loop:
    """`targets in iterable`, the text of `for:`."""

    targets: Target
    iterable: Expression

    def turns(
        self, lookup: Lookup, budget: Budget | None = None, *, names: Iterable[str] = ()
    ) -> tuple[dict[str, Value], ...]:
        """What each turn binds, in order; raises `ExpressionError`, also for what is not a list."""
        env = Environment(lookup, budget or Budget(), names)
        values = elements_of(self.iterable.root, env)
        _check(values, self.iterable.root)
        return tuple([bind_targets(self.targets, value) for value in values])


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text with `{expression}` parts: `layer{s+1}`. Offsets count in the whole text."""

    text: str
    parts: tuple[str | Expression, ...]

    @property
    def is_literal(self) -> bool:
        """Whether it says the same whatever the names mean."""
        return all(isinstance(part, str) for part in self.parts)

    @property
    def names(self) -> frozenset[str]:
        """The free names of all parts."""
        return frozenset().union(
            *(part.names for part in self.parts if isinstance(part, Expression))
        )

    def render(
        self, lookup: Lookup, budget: Budget | None = None, *, names: Iterable[str] = ()
    ) -> str:
        """The text with each part's value, a whole number or text; raises `ExpressionError`."""
        budget = budget or Budget()
        written: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                written.append(part)
                continue
            value = evaluate(part, lookup, budget, names=names)
            if isinstance(value, bool) or not isinstance(value, (int, str)):
                found = repr(value) if isinstance(value, float) else describe(value)
                raise ExpressionError(
                    "template-value",
                    f"a name takes whole numbers and text, not {found}",
                    *part.root.place,
                    help="`int(...)` gives a whole number" if isinstance(value, float) else "",
                )
            written.append(str(value))
        try:
            budget.text_of(sum(map(len, written)))
        except Reject as reject:
            raise ExpressionError.at(reject, 0, len(self.text)) from None
        return "".join(written)


def parse(text: str) -> Expression:
    """The expression that `text` is; raises `ExpressionError`.

    Refused are more than 10,000 characters and nesting beyond 100 levels.
    """
    _check_length(text)
    simple = _SIMPLE.fullmatch(text)
    if simple and simple[0] not in RESERVED:
        if simple["number"]:
            return Expression(text, Constant(0, len(text), 1, int(text)), frozenset())
        return Expression(text, Name(0, len(text), 1, text), frozenset({text}))
    return _parse(text, 0, len(text))


def parse_targets(text: str) -> Loop:
    """The loop that `text` (`i, (a, b) in enumerate(zip(x, y))`) is; raises `ExpressionError`."""
    _check_length(text)
    parser = Parser(text, 0, len(text))
    targets = parser.loop_targets()
    parser.expect("in", help="write `NAME in LIST`")
    root = parser.whole()
    return Loop(targets, Expression(text, root, frozenset(parser.free)))


def parse_template(text: str) -> Template:
    """The template that `text` is, with `{{` and `}}` for braces; raises `ExpressionError`."""
    _check_length(text)
    parts: list[str | Expression] = []
    position = 0
    while position < len(text):
        literal = _LITERAL.match(text, position)
        if literal:
            parts.append(literal[0].replace("{{", "{").replace("}}", "}"))
            position = literal.end()
            continue
        if text[position] == "}":
            raise ExpressionError(
                "expression-syntax",
                "`}` closes nothing",
                position,
                position + 1,
                help="write `}}` for the character itself",
            )
        inside = _INSIDE.match(text, position + 1)
        end = text.find("}", inside.end()) if inside else -1
        if end < 0:
            raise ExpressionError(
                "expression-syntax",
                "`{` is never closed",
                position,
                position + 1,
                help="write `{{` for the character itself",
            )
        parts.append(_parse(text, position + 1, end))
        position = end + 1
    return Template(text, tuple(parts))


def evaluate(
    expression: Expression,
    lookup: Lookup,
    budget: Budget | None = None,
    *,
    names: Iterable[str] = (),
) -> Value:
    """The value of an expression; raises `ExpressionError`.

    `lookup` is asked once for each name that is reached. `budget` is the work allowed, by default
    100,000 steps for this evaluation; `names` are those to suggest for an unknown one. No number is
    beyond 10**30 or infinite, no list has more than 100,000 elements (nested ones included), no
    text more than 10,000 characters.
    """
    root = expression.root
    value = root.eval(Environment(lookup, budget or Budget(), names))
    _check(value, root)
    return value


def _check(value: Value, root: Node) -> None:
    try:
        check_extent(value)
    except Reject as reject:
        raise ExpressionError.at(reject, root.start, root.end) from None


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ExpressionError(
            "expression-too-long",
            f"the expression has more than {MAX_TEXT:,} characters",
            0,
            len(text),
        )


def _parse(text: str, start: int, end: int) -> Expression:
    parser = Parser(text, start, end)
    root = parser.whole()
    return Expression(text, root, frozenset(parser.free))
