"""Evaluation: what the text in a slot is, in the scope of one call of a block.

`Env` is that scope. Names are params, loop variables and tensors; an operation slot knows
operations and blocks besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cnnspec.diagnostics import Diagnostic, Reject, did_you_mean, error, listed
from cnnspec.frontend import tree
from cnnspec.frontend.document import Block, Document, Piece, located
from cnnspec.frontend.expressions import (
    Expression,
    ExpressionError,
    Template,
    Value,
    describe,
    evaluate,
    parse,
    parse_template,
)
from cnnspec.frontend.names import Level, Result
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.reading import Names
from cnnspec.ir import SizeRead
from cnnspec.op import Op
from cnnspec.ops import registry
from cnnspec.slots import Slot
from cnnspec.source import Span
from cnnspec.tensor import Role, Tensor

__all__ = [
    "BROKEN",
    "Bound",
    "Env",
    "Evaluator",
    "Fault",
    "OpValue",
    "Poisoned",
    "Reads",
    "TensorValue",
    "plain",
]


class Fault(Exception):
    """An entry that cannot be built, with its diagnostic, already located."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(diagnostic.message)


_ATTRIBUTES: Mapping[str, Role] = {
    "channels": Role.CHANNEL,
    "height": Role.HEIGHT,
    "width": Role.WIDTH,
    "depth": Role.DEPTH,
    "length": Role.LENGTH,
    "features": Role.FEATURE,
    "tokens": Role.TOKEN,
}


@dataclass(frozen=True, slots=True)
class TensorValue:
    """A tensor in an expression: its sizes by the meaning of their axes, `shape`, and what is
    inside where it is a Sequential. `read` is told of every size that is asked for."""

    name: str
    value: int
    result: Result
    find: Callable[[int], Tensor]
    read: Callable[[int, str, tuple[int, ...]], None]

    @property
    def tensor(self) -> Tensor:
        """What is known of it."""
        return self.find(self.value)

    def attribute(self, name: str) -> Value:
        """A size, `shape`, or a tensor inside; `Reject` where there is none."""
        tensor = self.tensor
        if name == "shape":
            self.read(self.value, name, tuple(range(tensor.rank)))
            return tensor.shape
        role = _ATTRIBUTES.get(name)
        if role in tensor.roles:
            axis = tensor.roles.index(role)
            self.read(self.value, name, (axis,))
            return tensor.shape[axis]
        inner = self.result.level.entries.get(name) if self.result.level else None
        if inner is not None and inner.single and (value := inner.values[0][1]) is not None:
            return TensorValue(f"{self.name}.{name}", value, inner, self.find, self.read)
        if role is not None:
            raise Reject("unknown-field", f"`{self.name}` is {self.tensor} and has no {name}")
        raise Reject(
            "unknown-field",
            f"a tensor has no `{name}`",
            help=did_you_mean(name, (*_ATTRIBUTES, "shape"))
            or f"tensors have {listed((*_ATTRIBUTES, 'shape'))}",
        )


BROKEN = object()
"""The value of a variable that has none because of an error reported already."""

Bound = tuple[tree.Scalar, tree.Node, "Env"]
"""An argument not evaluated yet: its key, its value, and the scope it was written in."""


@dataclass(frozen=True, slots=True, eq=False)
class OpValue:
    """An operation as a value: an op or a block, with arguments bound so far."""

    op: type[Op] | None
    block: tuple[Document, Block] | None
    arguments: tuple[Bound, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Import:
    """The prefix of an import in an operation slot: `lib` in `lib.conv`."""

    prefix: str
    document: Document
    find: Callable[[str, Document], OpValue | None]

    def attribute(self, name: str) -> OpValue:
        """A block of the imported file."""
        found = self.find(f"{self.prefix}.{name}", self.document)
        if found is None:
            imported = self.document.imports[self.prefix]
            if imported.broken:
                raise Poisoned
            raise Reject(
                "unknown-operation",
                f"`{imported.source.name}` has no block `{name}`",
                help=did_you_mean(name, imported.blocks),
            )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """A table's cell that is one operation with arguments."""

    node: tree.Mapping


class Env:
    """The scope of one call: the file, the block's text, variables, tensor names, loop values."""

    __slots__ = ("block", "document", "level", "loops", "variables")

    def __init__(
        self,
        document: Document,
        block: Block,
        variables: dict[str, Value],
        level: Level,
        loops: tuple[tuple[str, Value], ...] = (),
    ) -> None:
        self.document = document
        self.block = block
        self.variables = variables
        self.level = level
        self.loops = loops

    def turn(self, bindings: dict[str, Value]) -> Env:
        """This scope in one turn of a loop."""
        loops = tuple((dict(self.loops) | bindings).items())
        variables = {**self.variables, **bindings}
        return Env(self.document, self.block, variables, self.level, loops)

    def inside(self, level: Level) -> Env:
        """This scope with the names of an inner level."""
        return Env(self.document, self.block, self.variables, level, self.loops)

    def missing(self, name: str) -> Reject | None:
        """Why a tensor that the text may name is not there, if it stands further down."""
        if self.level.uncertain:
            raise Poisoned
        built = set(self.level.names())
        for written in self.block.tensor_names():
            names = Names.of([written])
            if names.may_be(name) and not any(names.may_be(known) for known in built):
                break
        else:
            return None
        return Reject(
            "forward-reference",
            f"`{name}` is not built yet here",
            help="an entry can only read what stands above it",
        )


Compiled = tuple[Piece, Expression] | None
Reads = dict[tuple[int | None, str], SizeRead]
"""Sizes that were asked for, each once."""


class Evaluator:
    """Evaluates nodes in a scope. Parses each piece of text once.

    `symbols` are names of input sizes, variables in the text of `top`. `reads` collects the sizes
    that expressions asked for, each where that was first.
    """

    def __init__(
        self, tensor: Callable[[int], Tensor], top: Block | None, symbols: frozenset[str]
    ) -> None:
        self.tensor = tensor
        self.reads: Reads = {}
        self._top = top
        self._symbols = symbols
        self._expressions: dict[int, tuple[tree.Scalar, Compiled, object]] = {}

    # ------------------------------------------------------------------------------- lookups

    def lookup(
        self, env: Env, at: Span, *, operations: bool = False, reads: Reads | None = None
    ) -> Callable[[str], Value]:
        """How the text `at` a place resolves names: variables, then tensors, then `operations`.

        Sizes that are asked for are noted in `reads`, if given, in place of the evaluator's own.
        """
        noted = self.reads if reads is None else reads

        def read(value: int | None, what: str, axes: tuple[int, ...]) -> None:
            noted.setdefault((value, what), SizeRead(value, what, axes, at))

        def find(name: str) -> Value:
            if name in env.variables:
                value = env.variables[name]
                if value is BROKEN:
                    raise Poisoned
                if name in self._symbols and env.block is self._top and name not in dict(env.loops):
                    read(None, name, ())
                return value
            result = env.level.find(name)
            if result is not None:
                return self.tensor_value(name, result, read)
            if operations and name in env.document.imports:
                return _Import(name, env.document, self.operation_named)
            operation = self.operation_named(name, env.document) if operations else None
            if operation is None:
                raise env.missing(name) or KeyError(name)
            return operation

        return find

    def tensor_value(
        self, name: str, result: Result, read: Callable[[int, str, tuple[int, ...]], None]
    ) -> TensorValue:
        """A result as a value in expressions."""
        if result.poisoned:
            raise Poisoned
        if not result.single:
            raise Reject("several-outputs", f"`{name}` has several outputs: {result.references}")
        value = result.values[0][1]
        assert value is not None  # poisoned ones are gone
        return TensorValue(name, value, result, self.tensor, read)

    def operation_named(self, name: str, document: Document) -> OpValue | None:
        """The op or block of a name, which may have the prefix of an import."""
        op = registry().get(name)
        if op is not None:
            return OpValue(op, None)
        prefix, dot, name = name.rpartition(".")
        owner = document.imports.get(prefix) if dot else document
        block = owner.blocks.get(name) if owner else None
        return OpValue(None, (owner, block)) if owner and block else None

    # ------------------------------------------------------------------------------ evaluation

    def expression(
        self, compiled: tuple[Piece, Expression], env: Env, reads: Reads | None = None
    ) -> Value:
        """The value of an expression; `reads` as in `lookup`."""
        piece, expression = compiled
        try:
            lookup = self.lookup(env, piece.span, reads=reads)
            return evaluate(expression, lookup, names=env.variables)
        except ExpressionError as failure:
            raise Fault(located(failure, piece)) from None

    def template(self, compiled: tuple[Piece, Template], env: Env) -> str:
        """The text of a template."""
        piece, template = compiled
        if template.is_literal:
            return "".join(part for part in template.parts if isinstance(part, str))
        try:
            return template.render(self.lookup(env, piece.span), names=env.variables)
        except ExpressionError as failure:
            raise Fault(located(failure, piece)) from None

    def text(self, node: tree.Scalar, env: Env) -> str:
        """The text of a scalar that is a template."""
        if "{" not in node.text and "}" not in node.text:
            return node.text
        return self.template((Piece(node), parse_template(node.text)), env)

    def raw(self, node: tree.Node, words: tuple[str, ...], env: Env) -> Value:
        """What stands in a slot of numbers, booleans, lists or sizes, before the slot sees it."""
        if isinstance(node, tree.Sequence):
            return tuple([self.raw(item, words, env) for item in node.items])
        if isinstance(node, tree.Mapping):
            return MappingProxyType(
                {
                    key.text: tree.literal(value) if isinstance(value, tree.Scalar) else None
                    for key, value in node.items
                }
            )
        if node.text in words:
            return node.text
        _, compiled, value = self._compiled(node)
        return value if compiled is None else self.expression(compiled, env)

    def _compiled(self, node: tree.Scalar) -> tuple[tree.Scalar, Compiled, object]:
        known = self._expressions.get(id(node))
        if known is None:
            value = tree.literal(node)
            compiled: Compiled = None
            if isinstance(value, str):
                try:
                    compiled = Piece(node), parse(node.text)
                except ExpressionError as failure:
                    raise Fault(located(failure, Piece(node))) from None
            known = self._expressions[id(node)] = node, compiled, value
        return known

    def argument(self, node: tree.Node, slot: Slot, axes: int, name: str, env: Env) -> object:
        """The final value of an argument; `Fault` at the node where its slot refuses it."""
        value = self.raw(node, slot.words, env)
        try:
            return slot.accept(value, axes)
        except Reject as reject:
            reject.message = f"`{name}` {reject.message}"
            raise Fault(reject.located(node.span)) from None

    def param(self, type: str, node: tree.Node, name: str, env: Env, *, literal: bool) -> Value:
        """The value of a param of a type. Tables, and `literal` lists, are not evaluated."""
        if type == "op":
            return self.operation(node, env)
        if type == "str":
            if not isinstance(node, tree.Scalar):
                raise Fault(error("argument-type", f"`{name}` must be text", node.span))
            return self.text(node, env)
        if isinstance(node, tree.Sequence) and (type == "table" or literal):
            value: object = plain(node)
            try:
                return PARAM_SLOTS[type].accept(value, 1)
            except Reject as reject:
                reject.message = f"`{name}` {reject.message}"
                raise Fault(reject.located(node.span)) from None
        if isinstance(node, tree.Sequence) and type == "list":
            return tuple([self._item(item, env) for item in node.items])
        return self.argument(node, PARAM_SLOTS[type], 1, name, env)

    def _item(self, node: tree.Node, env: Env) -> Value:
        """An item of a list that is passed: computed, except rows and the names of operations."""
        if isinstance(node, tree.Mapping):
            return plain(node)
        if isinstance(node, tree.Sequence):
            return tuple([self._item(item, env) for item in node.items])
        if node.text in registry():
            return node.text
        return self.raw(node, (), env)

    def operation(self, node: tree.Node, env: Env) -> OpValue | None:
        """What stands in an operation slot; None for an operation that is not built."""
        if isinstance(node, tree.Mapping):
            ((key, body),) = node.items
            found = self.as_operation(key.text, env, key)
            assert found is not None  # text names an operation
            items = body.items if isinstance(body, tree.Mapping) else ()
            return OpValue(found.op, found.block, tuple((k, v, env) for k, v in items))
        if isinstance(node, tree.Sequence):
            raise Fault(error("argument-type", "an operation must not be a list", node.span))
        if node.plain and tree.literal(node) is None:
            return None
        try:
            return self.computed_operation((Piece(node), parse(node.text)), env)
        except ExpressionError as failure:
            raise Fault(located(failure, Piece(node))) from None

    def computed_operation(self, compiled: tuple[Piece, Expression], env: Env) -> OpValue | None:
        """The operation an expression gives: an op, a block, the name of one, or null."""
        piece, expression = compiled
        try:
            lookup = self.lookup(env, piece.span, operations=True)
            value = evaluate(expression, lookup, names=env.variables)
        except ExpressionError as failure:
            raise Fault(located(failure, piece)) from None
        return self.as_operation(value, env, piece)

    def as_operation(self, value: Value, env: Env, at: Piece | tree.Scalar) -> OpValue | None:
        """A value as an operation: one already, null, or a table's cell."""
        if value is None or isinstance(value, OpValue):
            return value
        if isinstance(value, _Written):
            return self.operation(value.node, env)
        if isinstance(value, str):
            document = env.document
            found = self.operation_named(value, document)
            if found is not None:
                return found
            raise Fault(
                error(
                    "unknown-operation",
                    f"there is no operation or block `{value}`",
                    at.span,
                    help=did_you_mean(value, (*registry(), *document.blocks)),
                )
            )
        message = f"{describe(value)} stands where an operation must"
        name = at.text.strip()
        hides = name in env.variables and name in env.document.blocks
        help = f"the variable `{name}` hides the block of that name: rename one" if hides else ""
        raise Fault(error("not-an-operation", message, at.span, help=help))


class Poisoned(Exception):
    """A tensor that could not be built is read; its cause has been reported."""


def plain(node: tree.Node) -> object:
    """A node as plain data: literals, tuples and rows, with nothing evaluated.

    In a row, `{LeakyReLU: {negative_slope: 0.1}}` is an operation with arguments.
    """
    match node:
        case tree.Scalar():
            return tree.literal(node)
        case tree.Sequence():
            return tuple([plain(item) for item in node.items])
        case tree.Mapping():
            return MappingProxyType({key.text: _cell(value) for key, value in node.items})


def _cell(node: tree.Node) -> object:
    if isinstance(node, tree.Mapping) and len(node.items) == 1:
        return _Written(node)
    return plain(node)
