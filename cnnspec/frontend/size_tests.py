"""Assertions about sizes, kept so that they can be asked again of other sizes.

`H % 16 == 0` says which inputs a network is for. Once a network is built, such an assertion is a
`SizeTest`: its sizes are open, everything else in it is settled. Sizes may then be numbers that are
not known; so evaluation is Python's own on what they have, and the rest of the language (lists,
functions, text) is left out.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnnspec.diagnostics import Reject
from cnnspec.frontend import syntax_tree as syntax
from cnnspec.frontend.expressions import Expression
from cnnspec.frontend.values import Poisoned, Reads
from cnnspec.ir import SizeRead
from cnnspec.source import Span

__all__ = ["Asserted", "size_test"]

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class _Beyond(Exception):
    """The expression has something that sizes which are not known cannot be asked."""


@dataclass(frozen=True, slots=True)
class Asserted:
    """An assertion that held, with its settled values and its open sizes by place in the text.

    A size has its value at hand beside it.
    """

    span: Span
    root: syntax.Node
    reads: tuple[SizeRead, ...]
    settled: Mapping[int, object]
    sizes: Mapping[int, tuple[SizeRead, int]]

    def holds(self, size: Callable[[SizeRead], int | None]) -> bool | None:
        """Whether it holds for what `size` says (None: as it was); None where that is open."""
        try:
            return bool(self._value(self.root, size))
        except _Beyond:
            return None

    def _value(self, node: syntax.Node, size: Callable[[SizeRead], int | None]) -> Any:
        match node:
            case syntax.Constant():
                return node.value
            case syntax.Group():
                return self._value(node.inner, size)
            case syntax.Name() | syntax.Attribute():
                if node.start in self.sizes:
                    read, usual = self.sizes[node.start]
                    given = size(read)
                    return usual if given is None else given
                if node.start in self.settled:
                    return self.settled[node.start]
            case syntax.Unary(symbol="not"):
                return not self._value(node.operand, size)
            case syntax.Unary(symbol="-"):
                return -self._value(node.operand, size)
            case syntax.Arithmetic():
                value = self._value(node.first, size)
                for symbol, right in node.rest:
                    value = self._step(symbol, value, self._value(right, size))
                return value
            case syntax.Comparison():
                left = self._value(node.first, size)
                for symbol, other in node.rest:
                    right_value = self._value(other, size)
                    if not self._step(symbol, left, right_value):
                        return False
                    left = right_value
                return True
            case syntax.Choice():
                value = None
                for operand in node.operands:
                    value = self._value(operand, size)
                    if bool(value) is node.stops_at:
                        break
                return value
            case syntax.Conditional():
                chosen = node.then if self._value(node.condition, size) else node.otherwise
                return self._value(chosen, size)
        raise _Beyond

    def _step(self, symbol: str, left: Any, right: Any) -> Any:
        if symbol not in _OPERATORS or isinstance(left, str) or isinstance(right, str):
            raise _Beyond
        return _OPERATORS[symbol](left, right)


def size_test(
    expression: Expression,
    span: Span,
    asked: Reads,
    lookup: Callable[[Reads], Callable[[str], object]],
) -> Asserted:
    """An assertion that held and asked for sizes in doing so, for others.

    `lookup` makes a function that resolves names and tells which sizes those were.
    """
    settled: dict[int, object] = {}
    sizes: dict[int, tuple[SizeRead, int]] = {}
    for node in _leaves(expression.root):
        reads: Reads = {}
        find = lookup(reads)
        try:
            if isinstance(node, syntax.Name):
                value = find(node.name)
            else:
                assert isinstance(node.container, syntax.Name)  # `_leaves` gives no others
                owner: Any = find(node.container.name)
                value = owner.attribute(node.name)
        except (Reject, Poisoned, KeyError, AttributeError):
            continue
        if reads and isinstance(value, int):
            (read,) = reads.values()
            sizes[node.start] = read, value
        elif not reads and (value is None or isinstance(value, (int, float, str))):
            settled[node.start] = value
    all_reads = asked | {(read.value, read.what): read for read, _ in sizes.values()}
    return Asserted(span, expression.root, tuple(all_reads.values()), settled, sizes)


def _leaves(root: syntax.Node) -> Iterator[syntax.Name | syntax.Attribute]:
    """Names, and fields of names, in the parts of the language that a test has."""
    stack = [root]
    while stack:
        node = stack.pop()
        match node:
            case syntax.Name() | syntax.Attribute(container=syntax.Name()):
                yield node
            case syntax.Group():
                stack.append(node.inner)
            case syntax.Unary():
                stack.append(node.operand)
            case syntax.Arithmetic() | syntax.Comparison():
                stack += [node.first, *(part for _, part in node.rest)]
            case syntax.Choice():
                stack += node.operands
            case syntax.Conditional():
                stack += [node.then, node.condition, node.otherwise]
