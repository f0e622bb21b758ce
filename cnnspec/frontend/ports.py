"""What goes in and out: `inputs:`, `outputs:` and `assert:` from tree to declarations."""

from __future__ import annotations

import re

from cnnspec.frontend import tree
from cnnspec.frontend.document import Assertion, Dimension, InputDecl, OutputDecl, Param, Piece
from cnnspec.frontend.expressions import RESERVED, Template
from cnnspec.frontend.reading import Names, Reader, StaticScope
from cnnspec.slots import describe_value

__all__ = ["PortParser"]

_SYMBOL = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:=(?!=)(.*))?", re.DOTALL)


class PortParser:
    """Parses the declarations of a network's or block's tensors."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def inputs(
        self,
        node: tree.Node,
        params: tuple[Param, ...],
        symbols: list[str],
        used: set[str],
    ) -> tuple[InputDecl, ...]:
        """The inputs; their symbols are added to `symbols`, params they name to `used`."""
        mapping = self.reader.mapping(node, "`inputs`")
        variables = frozenset(p.name.text for p in params)
        declared: list[InputDecl] = []
        for name, value in mapping.items if mapping else ():
            if not self.reader.identifier(name, "an input"):
                continue
            sizes = self.reader.sequence(value, f"the sizes of input `{name.text}`")
            if sizes is None:
                continue
            if not 1 <= len(sizes.items) <= 4:
                self.reader.error(
                    "input-rank",
                    f"input `{name.text}` has {len(sizes.items)} sizes, 1 to 4 are possible",
                    value,
                    help="the batch is not written: an image is `[3, 224, 224]`",
                )
                continue
            dimensions = []
            for item in sizes.items:
                text = self.reader.scalar(item, f"a size of input `{name.text}`")
                if text is not None:
                    dimensions.append(self._dimension(text, variables, symbols, used))
            if len(dimensions) == len(sizes.items):
                declared.append(InputDecl(name, tuple(dimensions), value.span))
        return tuple(declared)

    def _dimension(
        self,
        node: tree.Scalar,
        variables: frozenset[str],
        symbols: list[str],
        used: set[str],
    ) -> Dimension:
        value = self.reader.literal(node)
        if not isinstance(value, str) and (
            isinstance(value, bool) or not isinstance(value, int) or value < 1
        ):
            self.reader.error(
                "input-size",
                f"a size must be an integer of at least 1, not {describe_value(value)}",
                node,
            )
            return Dimension(Piece(node), None, None)
        scope = StaticScope(variables | frozenset(symbols), Names.of(()), used)
        symbol = _SYMBOL.fullmatch(node.text)
        if symbol and symbol[1] not in variables and symbol[1] not in RESERVED:
            if symbol[1] not in symbols:
                symbols.append(symbol[1])
            if symbol[2] is None:
                return Dimension(Piece(node), symbol[1], None)
            text = symbol[2]
            start = symbol.start(2) + len(text) - len(text.lstrip())
            default = self.reader.expression(Piece(node, start), scope)
            return Dimension(Piece(node, start), symbol[1], default[1] if default else None)
        parsed = self.reader.expression(Piece(node), scope)
        return Dimension(Piece(node), None, parsed[1] if parsed else None)

    def outputs(self, node: tree.Node, scope: StaticScope, *, top: bool) -> tuple[OutputDecl, ...]:
        """The outputs of the network (`top`) or of a block."""
        if isinstance(node, tree.Scalar) and not node.absent:
            node = tree.Sequence((node,), node.span)
        if isinstance(node, tree.Sequence):
            found = []
            for item in node.items:
                text = self.reader.scalar(item, "an output")
                reference = self.reader.template(Piece(text), scope) if text else None
                if text and reference:
                    found.append(OutputDecl(Piece(text), reference))
            return tuple(found)
        mapping = self.reader.mapping(node, "`outputs`")
        declared = []
        for name, value in mapping.items if mapping else ():
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name.text):
                self.reader.error(
                    "bad-name",
                    f"`{name.text}` cannot name an output",
                    name,
                    help="letters, digits, `_` and `-`",
                )
                continue
            output = self._output(name, value, scope, top=top)
            if output is not None:
                declared.append(output)
        return tuple(declared)

    def _output(
        self, name: tree.Scalar, node: tree.Node, scope: StaticScope, *, top: bool
    ) -> OutputDecl | None:
        if not isinstance(node, tree.Mapping):
            text = self.reader.scalar(node, f"output `{name.text}`")
            reference = self.reader.template(Piece(text), scope) if text else None
            return OutputDecl(Piece(name), reference) if reference else None
        known = ("from", "training", "weight") if top else ("from",)
        self.reader.known_keys(node, known, "an output")
        source = node.get("from")
        if source is None:
            self.reader.error("missing-key", f"output `{name.text}` has no `from`", name)
            return None
        text = self.reader.scalar(source, f"output `{name.text}`")
        reference = self.reader.template(Piece(text), scope) if text else None
        training, weight = False, 1.0
        if (value := node.get("training")) is not None:
            found = self.reader.plain(value)
            training = found is True
            if not isinstance(found, bool):
                self.reader.error("argument-type", "`training` must be true or false", value)
        if (value := node.get("weight")) is not None:
            found = self.reader.plain(value)
            if isinstance(found, bool) or not isinstance(found, (int, float)):
                self.reader.error("argument-type", "`weight` must be a number", value)
            else:
                weight = float(found)
        return OutputDecl(Piece(name), reference, training, weight) if reference else None

    def assertions(self, node: tree.Node, scope: StaticScope) -> tuple[Assertion, ...]:
        """The conditions that have to hold."""
        sequence = self.reader.sequence(node, "`assert`")
        found = []
        for item in sequence.items if sequence else ():
            mapping = self.reader.mapping(item, "an assertion")
            if mapping is None:
                continue
            self.reader.known_keys(mapping, ("that", "message"), "an assertion")
            that = mapping.get("that")
            if that is None:
                self.reader.error("missing-key", "the assertion has no `that`", item)
                continue
            text = self.reader.scalar(that, "`that`")
            expression = self.reader.expression(Piece(text), scope) if text else None
            message: tuple[Piece, Template] | None = None
            if (words := mapping.get("message")) is not None:
                text = self.reader.scalar(words, "`message`")
                message = self.reader.template(Piece(text), scope) if text else None
            if expression:
                found.append(Assertion(expression, message, item.span))
        return tuple(found)
