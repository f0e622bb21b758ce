"""`params:` from tree to `Param`: types, literal defaults, expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cnnspec.diagnostics import did_you_mean, listed
from cnnspec.frontend import tree
from cnnspec.frontend.document import Param, Piece
from cnnspec.frontend.entries import EntryParser
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.reading import OLD_BOOLEANS, Names, StaticScope
from cnnspec.ops import registry

__all__ = ["ParamParser"]

_TYPED = re.compile(rf"\s*({'|'.join(PARAM_SLOTS)})\s*(?:=(.*))?", re.DOTALL)


class ParamParser:
    """Parses the params of a file and of its blocks."""

    def __init__(self, entries: EntryParser) -> None:
        self.entries = entries
        self.reader = entries.reader
        self.blocks: tuple[str, ...] = ()
        """Names of the file's blocks, which a default of type `op` may be."""

    def read(self, node: tree.Node | None, tensors: tuple[str, ...]) -> tuple[Param, ...]:
        """The params of a file or block; their defaults may use its input `tensors`."""
        if node is None:
            return ()
        mapping = self.reader.mapping(node, "`params`")
        params: list[Param] = []
        names = frozenset(key.text for key, _ in mapping.items) if mapping else frozenset()
        for name, value in mapping.items if mapping else ():
            if not self.reader.identifier(name, "a param"):
                continue
            if name.text == "input":
                self.reader.error("bad-name", "`input` is the input of the block", name)
                continue
            earlier = StaticScope(
                frozenset(p.name.text for p in params),
                Names.of(tensors),
                hints=dict.fromkeys(
                    names - {p.name.text for p in params}, "a default may use the params above it"
                ),
            )
            params.append(self._param(name, value, earlier))
        return tuple(params)

    def _param(self, name: tree.Scalar, node: tree.Node, scope: StaticScope) -> Param:
        if isinstance(node, tree.Sequence):
            rows = node.items and all(isinstance(item, tree.Mapping) for item in node.items)
            type = "table" if rows else "list"
            fine = self.reader.accepted(
                node, PARAM_SLOTS[type], 1, name.text, self.reader.plain(node)
            )
            return Param(name, type, literal=node, broken=not fine)
        if isinstance(node, tree.Mapping):
            fine = self.entries.operation_value(node, scope)
            return Param(name, "op", literal=node, broken=not fine)
        typed = _TYPED.fullmatch(node.text)
        if (node.quoted or node.block) and (typed is None or typed[2] is None):
            return Param(name, "str", literal=node)
        value = self.reader.literal(node)
        if isinstance(value, bool):
            return Param(name, "bool", literal=node)
        if isinstance(value, int):
            return Param(name, "int", literal=node)
        if isinstance(value, float):
            return Param(name, "float", literal=node)
        if typed is None or value is None:
            self._untyped(name, node)
            return Param(name, "int", broken=True)
        if typed[2] is None:
            return Param(name, typed[1])
        return self._default(name, typed, node, scope)

    def _untyped(self, name: tree.Scalar, node: tree.Scalar) -> None:
        word = node.text.partition("=")[0].strip()
        if word.lower() in OLD_BOOLEANS:
            help = "the booleans are `true` and `false`"
        elif word in registry():
            help = f"for an operation write `{name.text}: op = {node.text}`"
        elif "=" in node.text:
            help = did_you_mean(word, PARAM_SLOTS) or f"the types are {listed(PARAM_SLOTS)}"
        elif node.absent or node.text in ("null", "~"):
            help = f"for no operation write `{name.text}: op = null`"
        elif near := did_you_mean(word, PARAM_SLOTS):
            help = near
        else:
            help = f"`{name.text}: int = {node.text}` for an expression, quotes for text"
        self.reader.error(
            "untyped-param",
            f"`{node.text}` is neither a type nor a plain value"
            if node.text
            else f"param `{name.text}` has no type and no value",
            node if node.text else name,
            help=help,
        )

    def _default(
        self, name: tree.Scalar, typed: re.Match[str], node: tree.Scalar, scope: StaticScope
    ) -> Param:
        type, text = typed[1], typed[2]
        start = typed.start(2) + len(text) - len(text.lstrip())
        piece = Piece(node, start, typed.end(2) - (len(text) - len(text.rstrip())))
        if type == "str":
            quoted = re.fullmatch(r"'[^']*'|\"[^\"]*\"", piece.text)
            if quoted:
                piece = Piece(node, piece.start + 1, piece.start + len(piece.text) - 1)
            template = self.reader.template(piece, scope)
            return Param(name, type, text=template, broken=template is None)
        extra: Iterable[str] = ()
        if type == "op":
            extra = (*registry(), *self.blocks, *self.entries.document.imports)
        expression = self.reader.expression(piece, scope, extra)
        if expression is None:
            return Param(name, type, broken=True)
        if type == "op":
            self.entries.called.update(expression[1].names)
        return Param(name, type, expression=expression)
