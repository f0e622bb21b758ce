"""The lexer and parser of the expression language: text to syntax tree, with positions.

Python's grammar of arithmetic, comparisons, conditionals, comprehensions, lists and attributes,
with calls of a closed list of functions; what looks like another language gets a hint. Nothing is
evaluated here. Work is linear in the text, whose length the caller bounds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cnnspec.diagnostics import did_you_mean
from cnnspec.frontend.evaluation import FUNCTIONS, MAX_DEPTH, MAX_NUMBER
from cnnspec.frontend.syntax_tree import (
    Arithmetic,
    Attribute,
    Call,
    Choice,
    Clause,
    Comparison,
    Comprehension,
    Conditional,
    Constant,
    ExpressionError,
    Group,
    Index,
    Listing,
    Name,
    Node,
    Slice,
    Target,
    Unary,
    Value,
)

__all__ = ["RESERVED", "Parser"]

_KEYWORDS: Final = frozenset({"and", "or", "not", "if", "else", "for", "in"})
_LITERALS: Final[Mapping[str, Value]] = {"true": True, "false": False, "null": None}
_PYTHON_LITERALS: Final = {"True": "true", "False": "false", "None": "null"}

RESERVED: Final = frozenset({*_KEYWORDS, *_LITERALS, *_PYTHON_LITERALS})
"""Words that cannot name a variable (Python's three literals are refused with a hint)."""


# The lexer

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<number>(?:[0-9]+(?:_[0-9]+)*(?:\.(?:[0-9]+(?:_[0-9]+)*)?)?|\.[0-9]+(?:_[0-9]+)*)
        (?:[eE][+-]?[0-9]+(?:_[0-9]+)*)?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<text>"[^"\n]*"|'[^'\n]*')
  | (?P<symbol>\*\*|//|[=!<>]=|&&|\|\||<<|>>|:=|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_FIELD: Final = re.compile(r"[ \t\r\n]*\.[ \t\r\n]*([A-Za-z_][A-Za-z0-9_]*)|\.([0-9][A-Za-z0-9_]*)")
_STUCK: Final = re.compile(r"[A-Za-z0-9_.]+")

_OPERANDS: Final = frozenset({"name", "text"})
_CLOSERS: Final = frozenset({")", "]"})
_QUOTES: Final = frozenset({'"', "'"})
_MOST_DIGITS: Final = len(str(MAX_NUMBER))
_HINTS: Final[Mapping[str, str]] = {
    "&&": "write `and`",
    "&": "write `and`",
    "||": "write `or`",
    "|": "write `or`",
    "!": "write `not`",
    "~": "write `not`",
    "^": "write `**` for a power",
    "=": "write `==` to compare",
    ":=": "write `==` to compare",
    "is": "write `==` to compare",
    "?": "write `a if condition else b`",
    "elif": "write `a if c else b if d else e`",
    "<<": "write `* 2**n`",
    ">>": "write `// 2**n`",
    "{": "names stand without braces here",
    "}": "names stand without braces here",
    "$": "names stand without `$` and braces: write `w`, not `${w}`",
    "\u00d7": "write `*`",
    "\u2212": "write `-`",
    "\u2264": "write `<=`",
    "\u2265": "write `>=`",
    "\u2260": "write `!=`",
    "\u201c": "write straight quotes",
    "\u201d": "write straight quotes",
    "\u2018": "write straight quotes",
    "\u2019": "write straight quotes",
    "lambda": "expressions define no functions",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _tokens(text: str, start: int, end: int) -> Iterator[_Token]:
    position = start
    ended_operand = False
    while position < end:
        field = _FIELD.match(text, position, end) if ended_operand else None
        if field:
            yield _Token("field", "." + (field[1] or field[2]), position, field.end())
            position = field.end()
            continue
        found = _TOKEN.match(text, position, end)
        assert found is not None  # a symbol is any character
        kind, word, stop = str(found.lastgroup), found[0], found.end()
        if kind == "number":
            _check_number(text, position, stop, end)
        elif kind == "name" and word in _KEYWORDS:
            kind = "symbol"
        elif word in _QUOTES:
            raise ExpressionError("expression-syntax", "the text is never closed", position, stop)
        if kind != "space":
            yield _Token(kind, word, position, stop)
        ended_operand = kind in _OPERANDS or word in _CLOSERS
        position = stop
    yield _Token("end", "", end, end)


def _check_number(text: str, start: int, stop: int, end: int) -> None:
    stuck = _STUCK.match(text, start, end)
    if not stuck or stuck.end() <= stop:
        return
    digits, rest = text[start:stop], text[stop : stuck.end()]
    product = rest[0].isalpha() and rest not in _KEYWORDS and not digits.startswith("0")
    raise ExpressionError(
        "expression-syntax",
        f"`{stuck[0]}` is not a number",
        start,
        stuck.end(),
        help=f"write `{digits}*{rest}` for a product" if product else "",
    )


def _number(token: _Token) -> int | float:
    digits = token.text.replace("_", "")
    if not digits.isdigit():
        value = float(digits)
        if value <= sys.float_info.max:
            return value
        raise ExpressionError(
            "expression-too-large", "a number that is not finite", token.start, token.end
        )
    plain = digits.lstrip("0") or "0"
    if len(plain) < len(digits) and plain != "0":
        raise ExpressionError(
            "expression-syntax",
            f"`{token.text}` starts with a zero",
            token.start,
            token.end,
            help=f"write `{plain}`",
        )
    if len(plain) > _MOST_DIGITS or int(plain) > MAX_NUMBER:
        raise ExpressionError(
            "expression-too-large", "a whole number beyond 10**30", token.start, token.end
        )
    return int(plain)


def _text(token: _Token) -> str:
    escape = token.text.find("\\")
    if escape < 0:
        return token.text[1:-1]
    raise ExpressionError(
        "expression-syntax",
        "text in an expression has no `\\` escapes",
        token.start + escape,
        token.start + escape + 1,
    )


# The parser (top-down operator precedence)

_TERNARY: Final = 1
_OR: Final = 2
_AND: Final = 3
_NOT: Final = 4
_COMPARISON: Final = 5
_SUM: Final = 6
_PRODUCT: Final = 7
_SIGN: Final = 8
_POWER: Final = 9

_LEVELS: Final[Mapping[str, int]] = {
    "if": _TERNARY,
    "or": _OR,
    "and": _AND,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "not"), _COMPARISON),
    **dict.fromkeys(("+", "-"), _SUM),
    **dict.fromkeys(("*", "/", "//", "%"), _PRODUCT),
    "**": _POWER,
}


class Parser:
    """One pass over the tokens; `free` collects the names that no comprehension binds."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self._tokens = _tokens(text, start, end)
        self._token = next(self._tokens)
        self._begun = self._token.kind != "end"
        self._level = 0
        self._open: list[_Token] = []
        self.free: set[str] = set()

    def whole(self) -> Node:
        """The expression that the rest of the text is."""
        root = self._expression(_TERNARY)
        if self._token.kind != "end":
            raise self._unexpected()
        return root

    def expect(self, text: str, *, help: str = "") -> _Token:
        """The next token, which must be `text`."""
        if self._token.text != text:
            raise self._unexpected(help)
        return self._advance()

    def _expression(self, floor: int) -> Node:
        # As far as the operators bind at least as tightly as `floor`.
        self._descend()
        left = self._operand(floor)
        while (level := _LEVELS.get(self._token.text, 0)) >= floor:
            left = self._infix(left, level)
        self._level -= 1
        return left

    def loop_targets(self) -> Target:
        """`a`, or `a, (b, c)`."""
        target = self._targets()
        names = target.names
        for name in names:
            if names.count(name) > 1:
                raise ExpressionError(
                    "expression-syntax",
                    f"the loop binds `{name}` twice",
                    target.start,
                    target.end,
                )
        return target

    def _targets(self) -> Target:
        parts = [self._target()]
        while self._token.text == ",":
            self._advance()
            parts.append(self._target())
        if len(parts) == 1:
            return parts[0]
        return Target(parts[0].start, parts[-1].end, None, tuple(parts))

    def _target(self) -> Target:
        if self._token.text == "(":
            self._descend()
            self._enter()
            target = self._targets()
            self._leave(")")
            self._level -= 1
            return target
        if self._token.kind != "name" or self._token.text in RESERVED:
            raise self._unexpected("write `NAME in LIST`")
        token = self._advance()
        return Target(token.start, token.end, token.text)

    def _infix(self, left: Node, level: int) -> Node:
        if level == _TERNARY:
            self._advance()
            condition = self._expression(_OR)
            self.expect("else", help="write `a if condition else b`")
            otherwise = self._expression(_TERNARY)
            depth = self._over(left, condition, otherwise)
            return Conditional(left.start, otherwise.end, depth, left, condition, otherwise)
        if level in (_OR, _AND):
            word = self._token.text
            operands = [left]
            while self._token.text == word:
                self._advance()
                operands.append(self._expression(level + 1))
            depth = self._over(*operands)
            return Choice(left.start, operands[-1].end, depth, word == "or", tuple(operands))
        steps: list[tuple[str, Node]] = []
        while _LEVELS.get(self._token.text) == level:
            symbol = self._advance().text
            if symbol == "not":
                self.expect("in", help="write `not in`")
                symbol = "not in"
            # The right side of a power may be signed and is itself a power: 2 ** -3 ** 2.
            steps.append((symbol, self._expression(_SIGN if level == _POWER else level + 1)))
        nodes = [node for _, node in steps]
        make = Comparison if level == _COMPARISON else Arithmetic
        return make(left.start, nodes[-1].end, self._over(left, *nodes), left, tuple(steps))

    def _operand(self, floor: int) -> Node:
        token = self._token
        if token.text in ("+", "-") or (token.text == "not" and floor <= _NOT):
            self._advance()
            operand = self._expression(_NOT if token.text == "not" else _SIGN)
            return Unary(token.start, operand.end, self._over(operand), token.text, operand)
        node: Node
        if token.text == "(":
            self._enter()
            inner = self._expression(_TERNARY)
            if isinstance(inner, Group):
                inner = inner.inner
            if self._token.text == ",":
                raise self._unexpected("write a list in brackets, as in `[1, 7]`")
            node = Group(token.start, self._leave(")"), self._over(inner), inner)
        elif token.text == "[":
            node = self._listing()
        else:
            node = self._atom()
        while True:
            if self._token.kind == "field":
                field = self._advance()
                node = Attribute(node.start, field.end, self._over(node), node, field.text[1:])
            elif self._token.text == "[":
                node = self._subscript(node)
            else:
                return node

    def _atom(self) -> Node:
        token = self._token
        if token.kind == "number":
            self._advance()
            return Constant(token.start, token.end, 1, _number(token))
        if token.kind == "text":
            self._advance()
            return Constant(token.start, token.end, 1, _text(token))
        if token.text in _PYTHON_LITERALS:
            raise self._unexpected(f"write `{_PYTHON_LITERALS[token.text]}`")
        if token.kind != "name":
            raise self._unexpected()
        self._advance()
        if token.text in _LITERALS:
            return Constant(token.start, token.end, 1, _LITERALS[token.text])
        if self._token.text == "(":
            return self._call(token)
        self.free.add(token.text)
        return Name(token.start, token.end, 1, token.text)

    def _call(self, name: _Token) -> Node:
        function = FUNCTIONS.get(name.text)
        if function is None:
            known = ", ".join(f"`{each}`" for each in FUNCTIONS)
            raise ExpressionError(
                "unknown-function",
                f"unknown function `{name.text}`",
                name.start,
                name.end,
                help=did_you_mean(name.text, FUNCTIONS) or f"the functions are {known}",
            )
        self._enter()
        arguments: list[Node] = []
        while self._token.text != ")":
            arguments.append(self._expression(_TERNARY))
            if self._token.text == "=":
                raise ExpressionError(
                    "function-arguments",
                    f"arguments of `{name.text}` have no names",
                    arguments[-1].start,
                    self._token.end,
                    help=f"write `{function.signature}`",
                )
            if self._token.text == "for":
                raise self._unexpected(f"write `{name.text}([... for ... in ...])`")
            if self._token.text != ")":
                self.expect(",")
        end = self._leave(")")
        count = len(arguments)
        if count < function.least or (function.most is not None and count > function.most):
            raise ExpressionError(
                "function-arguments",
                f"`{name.text}` takes {function.arity}, not {count}",
                name.start,
                end,
                help=f"write `{function.signature}`",
            )
        return Call(name.start, end, self._over(*arguments), function, tuple(arguments))

    def _listing(self) -> Node:
        start = self._enter().start
        outer, self.free = self.free, set()
        items: list[Node] = []
        while self._token.text != "]":
            items.append(self._expression(_TERNARY))
            if self._token.text == "for" and len(items) == 1:
                return self._comprehension(start, items[0], outer)
            if self._token.text != "]":
                self.expect(",")
        self.free |= outer
        return Listing(start, self._leave("]"), self._over(*items), tuple(items))

    def _comprehension(self, start: int, element: Node, outer: set[str]) -> Node:
        inside = self.free
        bound: set[str] = set()
        clauses: list[Clause] = []
        nodes = [element]
        while self._token.text == "for":
            self._advance()
            target = self.loop_targets()
            self.expect("in", help="write `for NAME in LIST`")
            self.free = set()
            iterable = self._expression(_OR)
            outer |= self.free - bound
            bound.update(target.names)
            self.free = set()
            conditions: list[Node] = []
            while self._token.text == "if":
                self._advance()
                conditions.append(self._expression(_OR))
            outer |= self.free - bound
            clauses.append(Clause(target, iterable, tuple(conditions)))
            nodes += [iterable, *conditions]
        self.free = outer | (inside - bound)
        end = self._leave("]")
        depth = self._over(*nodes, levels=len(clauses))
        return Comprehension(start, end, depth, element, tuple(clauses))

    def _subscript(self, container: Node) -> Node:
        self._enter()
        bounds: list[Node | None] = [None]
        if self._token.text != ":":
            bounds[0] = self._expression(_TERNARY)
        while self._token.text == ":" and len(bounds) < 3:
            self._advance()
            written = self._token.text not in (":", "]")
            bounds.append(self._expression(_TERNARY) if written else None)
        end = self._leave("]")
        depth = self._over(container, *(node for node in bounds if node))
        start = container.start
        if len(bounds) == 1 and bounds[0]:
            return Index(start, end, depth, container, bounds[0])
        first, last, step = (*bounds, None)[:3]
        return Slice(start, end, depth, container, (first, last, step))

    def _advance(self) -> _Token:
        token = self._token
        if token.kind != "end":
            self._token = next(self._tokens)
        return token

    def _enter(self) -> _Token:
        self._open.append(self._token)
        return self._advance()

    def _leave(self, closer: str) -> int:
        end = self.expect(closer).end
        self._open.pop()
        return end

    def _descend(self) -> None:
        self._level += 1
        self._check_depth(self._level)

    def _over(self, *nodes: Node, levels: int = 1) -> int:
        depth = levels + max((node.depth for node in nodes), default=0)
        self._check_depth(depth)
        return depth

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise ExpressionError(
                "expression-too-deep",
                f"the expression is nested more than {MAX_DEPTH} levels deep",
                self._token.start,
                self._token.end,
            )

    def _unexpected(self, help: str = "") -> ExpressionError:
        token = self._token
        code = "expression-syntax"
        if token.kind != "end":
            text = token.text
            return ExpressionError(
                code,
                f"unexpected `{text}`",
                token.start,
                token.end,
                help=_HINTS.get(text) or help,
            )
        if self._open:
            opener = self._open[-1]
            message = f"`{opener.text}` is never closed"
            return ExpressionError(code, message, opener.start, opener.end)
        message = "the expression ends too early" if self._begun else "the expression is empty"
        return ExpressionError(code, message, token.start, token.end, help=help)
