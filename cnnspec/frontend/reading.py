"""Pieces of the tree to expressions, templates and literals, with every mistake recorded.

What names a piece may use is known from the text alone (scopes are lexical), so that a block
nobody calls is checked like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cnnspec.diagnostics import Reject, SpecError, did_you_mean, error, listed
from cnnspec.frontend import tree
from cnnspec.frontend.document import Piece, located
from cnnspec.frontend.expressions import (
    RESERVED,
    Expression,
    ExpressionError,
    Loop,
    Template,
    parse,
    parse_targets,
    parse_template,
)
from cnnspec.frontend.problems import Problems
from cnnspec.slots import Slot

__all__ = ["OLD_BOOLEANS", "Names", "Reader", "StaticScope"]

T = TypeVar("T")

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OLD_BOOLEANS = frozenset(("yes", "no", "on", "off"))
"""Words that YAML 1.1 took for booleans; YAML 1.2 does not."""


@dataclass(frozen=True, slots=True)
class Names:
    """Tensor names of a block as written: whole ones, and patterns of those with templates."""

    whole: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, written: Iterable[str]) -> Names:
        """Names from the `name` values and branch names of a block."""
        whole: set[str] = set()
        patterns: list[re.Pattern[str]] = []
        for text in written:
            if "{" in text:
                pieces = re.split(r"\{[^}]*\}", text.split(".")[0])
                patterns.append(re.compile(".*".join(map(re.escape, pieces))))
            else:
                whole.update((text, text.split(".")[0]))
        return cls(frozenset(whole), tuple(patterns))

    def may_be(self, name: str) -> bool:
        """Whether some entry of the block may have this name."""
        return name in self.whole or any(p.fullmatch(name) for p in self.patterns)


@dataclass(frozen=True, slots=True)
class StaticScope:
    """What a piece of text may name. `used` collects the variables it does name."""

    variables: frozenset[str]
    tensors: Names
    used: set[str] = field(default_factory=set)
    hints: Mapping[str, str] = field(default_factory=dict)
    """Help for names that mean something elsewhere: params further down, of the file."""

    def binding(self, names: Iterable[str]) -> StaticScope:
        """This scope with loop variables."""
        return replace(self, variables=self.variables | frozenset(names))


class Reader:
    """Reads pieces and records what is wrong with them; None stands for a piece that is wrong."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def error(self, code: str, message: str, at: tree.Node | Piece, *, help: str = "") -> None:
        """Record an error at a piece or node."""
        self.problems.add(error(code, message, at.span, help=help))

    def expression(
        self, piece: Piece, scope: StaticScope, extra: Iterable[str] = ()
    ) -> tuple[Piece, Expression] | None:
        """An expression whose names are all known; `extra` names are allowed besides."""
        parsed = self._parsed(parse, piece)
        if parsed is None or not self._names(parsed.names, piece, scope, extra):
            return None
        return piece, parsed

    def template(self, piece: Piece, scope: StaticScope) -> tuple[Piece, Template] | None:
        """Text with `{expression}` parts."""
        parsed = self._parsed(parse_template, piece)
        if parsed is None or not self._names(parsed.names, piece, scope, ()):
            return None
        return piece, parsed

    def loop(self, piece: Piece, scope: StaticScope) -> tuple[Piece, Loop] | None:
        """`targets in list`."""
        shape = "" if " in " in piece.text else "a loop is written `NAMES in LIST`"
        parsed = self._parsed(parse_targets, piece, shape)
        if parsed is None or not self._names(parsed.iterable.names, piece, scope, ()):
            return None
        return piece, parsed

    def _parsed(self, parser: Callable[[str], T], piece: Piece, help: str = "") -> T | None:
        try:
            return parser(piece.text)
        except ExpressionError as failure:
            failure.help = help or failure.help
            self.problems.add(located(failure, piece))
            return None

    def _names(
        self, names: Iterable[str], piece: Piece, scope: StaticScope, extra: Iterable[str]
    ) -> bool:
        allowed = frozenset(extra)
        known = True
        for name in sorted(names):
            if name in scope.variables:
                scope.used.add(name)
            elif name not in allowed and not scope.tensors.may_be(name):
                known = False
                start, end = _position(piece.text, name)
                help = did_you_mean(name, (*scope.variables, *scope.tensors.whole, *allowed))
                if name.lower() in OLD_BOOLEANS:
                    help = "the booleans are `true` and `false`"
                elif name in scope.hints:
                    help = scope.hints[name]
                self.problems.add(
                    error(
                        "unknown-name",
                        f"`{name}` is not defined here",
                        piece.at(start, end),
                        help=help,
                    )
                )
        return known

    def scalar(self, node: tree.Node, what: str, help: str = "") -> tree.Scalar | None:
        """A node that has to be text or a number."""
        if isinstance(node, tree.Scalar) and not node.absent:
            return node
        found = (
            "nothing"
            if isinstance(node, tree.Scalar)
            else ("a mapping" if isinstance(node, tree.Mapping) else "a list")
        )
        self.error("wrong-kind", f"{what} must be text, not {found}", node, help=help)
        return None

    def mapping(self, node: tree.Node, what: str, help: str = "") -> tree.Mapping | None:
        """A node that has to be a mapping; nothing at all is an empty one."""
        if isinstance(node, tree.Mapping):
            return node
        if isinstance(node, tree.Scalar) and node.absent:
            return tree.Mapping((), node.span)
        found = "a list" if isinstance(node, tree.Sequence) else "text"
        self.error("wrong-kind", f"{what} must be a mapping, not {found}", node, help=help)
        return None

    def sequence(self, node: tree.Node, what: str, help: str = "") -> tree.Sequence | None:
        """A node that has to be a list; nothing at all is an empty one."""
        if isinstance(node, tree.Sequence):
            return node
        if isinstance(node, tree.Scalar) and node.absent:
            return tree.Sequence((), node.span)
        found = "a mapping" if isinstance(node, tree.Mapping) else "text"
        self.error("wrong-kind", f"{what} must be a list, not {found}", node, help=help)
        return None

    def known_keys(self, mapping: tree.Mapping, known: Iterable[str], what: str) -> None:
        """Report the keys of a mapping that are not among those it may have."""
        known = tuple(known)
        for key, _ in mapping.items:
            if key.text not in known:
                self.error(
                    "unknown-key",
                    f"`{key.text}` is no key of {what}",
                    key,
                    help=did_you_mean(key.text, known) or f"its keys are {listed(known)}",
                )

    def identifier(self, name: tree.Scalar, what: str) -> bool:
        """Whether a name may stand in expressions; reported where not."""
        if _IDENTIFIER.fullmatch(name.text) and name.text not in RESERVED:
            return True
        self.error(
            "bad-name",
            f"`{name.text}` cannot name {what}",
            name,
            help="letters, digits and `_`, not starting with a digit, and no word of an expression",
        )
        return False

    def literal(self, node: tree.Scalar) -> tree.Literal:
        """The literal value of a scalar; one that is out of range counts as 0."""
        try:
            return tree.literal(node)
        except SpecError as failure:
            for diagnostic in failure.diagnostics:
                self.problems.add(diagnostic)
            return 0

    def plain(self, node: tree.Node) -> object:
        """A node as plain data: numbers, text, tuples and dicts, with nothing evaluated."""
        match node:
            case tree.Scalar():
                return self.literal(node)
            case tree.Sequence():
                return tuple([self.plain(item) for item in node.items])
            case tree.Mapping():
                return {key.text: self.plain(value) for key, value in node.items}

    def mark_used(self, node: tree.Node, scope: StaticScope) -> None:
        """Note the variables that arguments name, where what they mean is not known yet."""
        match node:
            case tree.Mapping():
                for _, value in node.items:
                    self.mark_used(value, scope)
            case tree.Sequence():
                for item in node.items:
                    self.mark_used(item, scope)
            case tree.Scalar():
                if isinstance(self.literal(node), str):
                    for read in (parse, parse_template):
                        try:
                            scope.used.update(read(node.text).names & scope.variables)
                        except ExpressionError:
                            continue

    def fits(self, node: tree.Node, slot: Slot, axes: int, name: str, scope: StaticScope) -> bool:
        """Check what can be known of an argument without evaluating it: literals and names."""
        whole, computed = self._outline(node, slot, name, scope)
        if whole is _WRONG:
            return False
        if computed:
            return True
        return self.accepted(node, slot, axes, name, whole)

    def accepted(self, node: tree.Node, slot: Slot, axes: int, name: str, value: object) -> bool:
        """Check a literal value against its slot."""
        try:
            slot.accept(value, axes)
        except Reject as reject:
            reject.message = f"`{name}` {reject.message}"
            self.problems.add(reject.located(self._culprit(node, slot, axes, value).span))
            return False
        return True

    def _culprit(self, node: tree.Node, slot: Slot, axes: int, value: object) -> tree.Node:
        """The item of a list that is to blame, or the whole of it."""
        if not isinstance(node, tree.Sequence) or not isinstance(value, tuple):
            return node
        for number, item in enumerate(node.items, start=1):
            # An item may be wrong by itself, or by not being like those before it (rows).
            rows = isinstance(item, tree.Mapping)
            try:
                slot.accept(value[:number] if rows else value[number - 1 : number], axes)
            except Reject as reject:
                if reject.code == "argument-count":
                    return node
                if reject.code == "table-fields" and isinstance(item, tree.Mapping):
                    return next((k for k, _ in item.items if f"`{k.text}`" in reject.message), item)
                return item
        return node

    def _outline(
        self, node: tree.Node, slot: Slot, name: str, scope: StaticScope
    ) -> tuple[object, bool]:
        """The value of a node as far as it is literal, and whether some of it is computed."""
        if isinstance(node, tree.Mapping):
            message = f"`{name}` must be {slot.describe()}, not a mapping"
            self.error("argument-type", message, node)
            return _WRONG, False
        if isinstance(node, tree.Sequence):
            parts = [self._outline(item, slot, name, scope) for item in node.items]
            if any(value is _WRONG for value, _ in parts):
                return _WRONG, False
            return tuple([value for value, _ in parts]), any(computed for _, computed in parts)
        if node.text in slot.words:
            return node.text, False
        try:
            value = tree.literal(node)
        except SpecError as failure:
            for diagnostic in failure.diagnostics:
                self.problems.add(diagnostic)
            return _WRONG, False
        if not isinstance(value, str):
            return value, False
        word = slot.words and node.text.isidentifier() and node.text not in scope.variables
        if word and not scope.tensors.may_be(node.text):
            refusal = slot.refuse(node.text)
            refusal.message = f"`{name}` {refusal.message}"
            self.problems.add(refusal.located(node.span))
            return _WRONG, False
        if self.expression(Piece(node), scope) is None:
            return _WRONG, False
        return None, True


_WRONG = object()


def _position(text: str, name: str) -> tuple[int, int]:
    found = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text)
    return found.span() if found else (0, len(text))
