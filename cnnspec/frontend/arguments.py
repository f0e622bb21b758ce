"""Arguments of ops and blocks, gathered from where they may come and evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cnnspec.diagnostics import Diagnostic, Reject, did_you_mean, error
from cnnspec.frontend import tree
from cnnspec.frontend.document import Block, Entry, Param, located
from cnnspec.frontend.expressions import ExpressionError, Value, evaluate
from cnnspec.frontend.names import Level
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.values import BROKEN, Bound, Env, Evaluator, Fault, OpValue
from cnnspec.op import Op, slots_of
from cnnspec.ops import bind
from cnnspec.source import Span

__all__ = ["Arguments"]

ReadTensor = Callable[[tree.Node, Env], int]
"""Makes the tensor named by a node a further input and gives its position among the inputs."""


class Arguments:
    """Evaluates arguments. Ops whose arguments are all literal are made once an entry."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._literal: dict[int, tuple[Op, dict[str, Span]]] = {}
        self._files: dict[int, Env] = {}

    def enter(self, env: Env) -> None:
        """Note the scope of a file, with the params that it has now."""
        self._files[id(env.document)] = env

    def file(self, env: Env) -> Env:
        """The scope of the file that `env` is in, which `defaults` and `init` see.

        The params of a file that is imported have their defaults. Raises `Fault`.
        """
        document = env.document
        if document.top is None:
            return env  # a file without a network has no params: there is nothing but literals
        found = self._files.get(id(document))
        if found is None:
            found = self._files[id(document)] = Env(document, document.top, {}, Level())
            for param in document.top.params:
                if not param.required:
                    found.variables[param.name.text] = self.default(param, found)
        return found

    def op(
        self, op: type[Op], entry: Entry, operation: OpValue, env: Env, read: ReadTensor
    ) -> tuple[Op, dict[str, Span]]:
        """An op with its arguments, and the place of each.

        The file's defaults come first, then what a value in an operation slot has bound, then the
        entry's own. Raises `Fault`.
        """
        known = self._literal.get(id(entry)) if entry.kind == "op" else None
        if known is not None:
            return known
        defaults = env.document.defaults.get(op.name, ())
        scope = self.file(env) if defaults else env
        gathered: dict[str, Bound] = {key.text: (key, node, scope) for key, node in defaults}
        gathered |= _gathered(entry, operation, env)
        slots = slots_of(op)
        values: dict[str, object] = {}
        places: dict[str, Span] = {}
        literal = entry.kind == "op"
        for name, (key, node, scope) in gathered.items():
            if name not in slots:
                raise Fault(_unknown(op.name, key, slots))
            slot = slots[name].metadata["slot"]
            places[name] = node.span
            if slot.refers and not (isinstance(node, tree.Scalar) and node.absent):
                literal = False
                values[name] = read(node, scope)
            else:
                literal = literal and _is_literal(node, slot.words)
                values[name] = self.evaluator.raw(node, slot.words, scope)
        try:
            bound = bind(op, values)
        except Reject as reject:
            place = places.get(reject.at) if isinstance(reject.at, str) else None
            raise Fault(reject.located(place or entry.key.span)) from None
        if literal:
            self._literal[id(entry)] = bound, places
        return bound, places

    def passed(self, block: Block, entry: Entry, operation: OpValue, env: Env) -> dict[str, Value]:
        """What a call passes, evaluated in the caller's scope. Raises `Fault`."""
        given = _gathered(entry, operation, env)
        values: dict[str, Value] = {}
        for name, (key, node, scope) in given.items():
            param = block.param(name)
            if param is None:
                raise Fault(_unknown(block.name, key, [p.name.text for p in block.params]))
            values[name] = self.evaluator.param(param.type, node, name, scope, literal=False)
        for param in block.params:
            if param.required and param.name.text not in values:
                raise Fault(
                    error(
                        "missing-argument",
                        f"`{block.name}` needs `{param.name.text}`",
                        entry.key.span,
                    )
                )
        return values

    def block(self, block: Block, passed: Mapping[str, Value], env: Env) -> None:
        """Put the params of a called block into `env`, its scope. Raises `Fault`."""
        for param in block.params:
            name = param.name.text
            env.variables[name] = passed[name] if name in passed else self.default(param, env)

    def default(self, param: Param, env: Env) -> Value:
        """The default of a param, which may use earlier ones and `input`. Raises `Fault`."""
        name = param.name.text
        if param.broken:
            return BROKEN
        if param.literal is not None:
            return self.evaluator.param(param.type, param.literal, name, env, literal=True)
        if param.text is not None:
            return self.evaluator.template(param.text, env)
        assert param.expression is not None  # otherwise it is required
        piece, expression = param.expression
        if param.type == "op":
            return self.evaluator.computed_operation(param.expression, env)
        try:
            lookup = self.evaluator.lookup(env, piece.span)
            value = evaluate(expression, lookup, names=env.variables)
            return PARAM_SLOTS[param.type].accept(value, 1)
        except ExpressionError as failure:
            raise Fault(located(failure, piece)) from None
        except Reject as reject:
            reject.message = f"`{name}` {reject.message}"
            raise Fault(reject.located(piece.span)) from None


def _gathered(entry: Entry, operation: OpValue, env: Env) -> dict[str, Bound]:
    gathered = {bound[0].text: bound for bound in operation.arguments}
    if isinstance(entry.body, tree.Mapping):
        gathered |= {key.text: (key, node, env) for key, node in entry.body.items}
    return gathered


def _unknown(owner: str, key: tree.Scalar, known: Iterable[str]) -> Diagnostic:
    return error(
        "unknown-argument",
        f"`{owner}` has no argument `{key.text}`",
        key.span,
        help=did_you_mean(key.text, known),
    )


def _is_literal(node: tree.Node, words: tuple[str, ...]) -> bool:
    if isinstance(node, tree.Sequence):
        return all(_is_literal(item, words) for item in node.items)
    if isinstance(node, tree.Mapping):
        return False
    return node.text in words or not isinstance(tree.literal(node), str)
