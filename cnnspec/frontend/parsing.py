"""One file, from tree to `Document`: the top-level keys, params, inputs, blocks, outputs.

Imports are handed to a loader; everything else is checked here, whether or not it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from cnnspec.diagnostics import did_you_mean, error, warning
from cnnspec.frontend import tree
from cnnspec.frontend.document import (
    Assertion,
    Block,
    Dimension,
    Document,
    InputDecl,
    OutputDecl,
    Param,
    Piece,
    Variant,
)
from cnnspec.frontend.entries import EntryParser, names_written
from cnnspec.frontend.expressions import RESERVED, Template
from cnnspec.frontend.initialisers import read_init
from cnnspec.frontend.metadata import read_labels, read_preprocess
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reading import OLD_BOOLEANS, Names, Reader, StaticScope
from cnnspec.op import slots_of
from cnnspec.ops import registry
from cnnspec.slots import describe_value

__all__ = ["BLOCK_KEYS", "EXPECTABLE", "FILE_KEYS", "LANGUAGE_VERSION", "parse_document"]

LANGUAGE_VERSION = 1
"""The version of the language that `cnnspec:` has to name."""

FILE_KEYS = (
    "cnnspec",
    "name",
    "description",
    "params",
    "inputs",
    "imports",
    "blocks",
    "layers",
    "outputs",
    "variants",
    "expect",
    "assert",
    "defaults",
    "init",
    "preprocess",
    "labels",
)
"""The keys of a file."""

BLOCK_KEYS = ("params", "inputs", "layers", "outputs", "assert", "inline", "description")
"""The keys of a block."""

EXPECTABLE = (
    "params",
    "trainable_params",
    "buffers",
    "macs",
    "flops",
    "connections",
    "connections_with_bias",
    "activations",
    "peak_activation_bytes",
    "weight_bytes",
    "layers",
    "output",
    "receptive_field",
)
"""What `expect` may state: the totals of a report, the outputs' shapes, and the field."""

_TYPED = re.compile(rf"\s*({'|'.join(PARAM_SLOTS)})\s*(?:=(.*))?", re.DOTALL)
_SYMBOL = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:=(?!=)(.*))?", re.DOTALL)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BLOCK_NAME = re.compile(r"[a-z_][a-z0-9_]*")

ImportLoader = Callable[[tree.Scalar], Document | None]


def parse_document(
    root: tree.Node, document: Document, problems: Problems, load_import: ImportLoader
) -> None:
    """Fill `document` from the tree of its file, recording everything wrong in `problems`."""
    _FileParser(document, problems, load_import).parse(root)


class _FileParser:
    def __init__(self, document: Document, problems: Problems, load_import: ImportLoader) -> None:
        self.document = document
        self.problems = problems
        self.load_import = load_import
        self.entries = EntryParser(document, problems)
        self.reader = self.entries.reader
        self.root: tree.Mapping | None = None

    def parse(self, root: tree.Node) -> None:
        if not isinstance(root, tree.Mapping):
            self.problems.add(
                error(
                    "not-a-spec",
                    "a spec is a mapping of keys such as `name`, `inputs` and `layers`, "
                    f"this is {'a list' if isinstance(root, tree.Sequence) else 'text'}",
                    root.span,
                )
            )
            self.document.broken = True
            return
        self.root = root
        keys = {key.text: (key, value) for key, value in root.items}
        if not self._version(root, keys.get("cnnspec")):
            self.document.broken = True
            return
        self._known_keys(root, FILE_KEYS, "a spec")
        document = self.document
        if "name" in keys:
            name = self.reader.scalar(keys["name"][1], "`name`")
            document.name = name.text if name else ""
        elif "layers" in keys:
            self.problems.add(error("missing-key", "the spec has no `name`", root.items[0][0].span))
        if "description" in keys:
            text = self.reader.scalar(keys["description"][1], "`description`")
            document.description = text.text if text else ""
        self._imports(keys)
        self._defaults(keys)
        self._blocks(keys)
        if "layers" in keys:
            self._top(root, keys)
        else:
            for key in ("inputs", "outputs", "variants", "expect", "assert"):
                if key in keys:
                    self.problems.add(
                        error(
                            "missing-key",
                            f"the spec has `{key}`, but no `layers`",
                            keys[key][0].span,
                        )
                    )
                    break
            else:
                if not document.blocks:
                    self.problems.add(
                        error("missing-key", "the spec has no `layers`", root.items[0][0].span)
                    )
        if "preprocess" in keys:
            document.preprocess = read_preprocess(self.reader, keys["preprocess"][1])
        if "labels" in keys:
            document.labels = read_labels(self.reader, keys["labels"][1])

    def _version(self, root: tree.Mapping, found: tuple[tree.Scalar, tree.Node] | None) -> bool:
        if found is None:
            self.problems.add(
                error(
                    "missing-version",
                    "the spec does not say which version of the language it is in",
                    root.items[0][0].span if root.items else root.span,
                    help=f"put `cnnspec: {LANGUAGE_VERSION}` in the first line",
                )
            )
            return True
        node = found[1]
        value = self.reader.literal(node) if isinstance(node, tree.Scalar) else None
        if value == LANGUAGE_VERSION and isinstance(value, int) and not isinstance(value, bool):
            return True
        message = f"the version of the language must be the integer {LANGUAGE_VERSION}"
        help = f"write `cnnspec: {LANGUAGE_VERSION}`"
        if isinstance(node, tree.Scalar):
            message += f", not {describe_value(value)}"
        if isinstance(value, int) and not isinstance(value, bool) and value > LANGUAGE_VERSION:
            message = (
                f"the spec is in version {value} of the language, this cnnspec reads version "
                f"{LANGUAGE_VERSION}"
            )
            help = "upgrade cnnspec: `pip install --upgrade cnnspec`"
        self.problems.add(error("unknown-version", message, node.span, help=help))
        return False

    def _known_keys(self, mapping: tree.Mapping, known: Iterable[str], what: str) -> None:
        known = tuple(known)
        for key, _ in mapping.items:
            if key.text not in known:
                self.reader.error(
                    "unknown-key",
                    f"`{key.text}` is no key of {what}",
                    key,
                    help=did_you_mean(key.text, known) or f"its keys are {', '.join(known)}",
                )

    # ------------------------------------------------------------- other files, arguments by op

    def _imports(self, keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> None:
        if "imports" not in keys:
            return
        mapping = self.reader.mapping(keys["imports"][1], "`imports`")
        for prefix, node in mapping.items if mapping else ():
            if not self._identifier(prefix, "an import"):
                continue
            path = self.reader.scalar(node, f"the path of import `{prefix.text}`")
            imported = self.load_import(path) if path else None
            unknown = Document(self.document.source, broken=True)
            self.document.imports[prefix.text] = imported or unknown

    def _defaults(self, keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> None:
        if "defaults" in keys:
            mapping = self.reader.mapping(keys["defaults"][1], "`defaults`")
            for name, node in mapping.items if mapping else ():
                if not self._operation_name(name):
                    continue
                arguments = self.reader.mapping(node, f"the defaults of `{name.text}`")
                if arguments is None:
                    continue
                op = registry()[name.text]
                slots = slots_of(op)
                kept = []
                for key, value in arguments.items:
                    if key.text not in slots:
                        self.reader.error(
                            "unknown-argument",
                            f"`{op.name}` has no argument `{key.text}`",
                            key,
                            help=did_you_mean(key.text, slots),
                        )
                        continue
                    nothing = StaticScope(frozenset(), Names.of(()))
                    slot = slots[key.text].metadata["slot"]
                    if self.reader.fits(value, slot, op.axes, key.text, nothing):
                        kept.append((key, value))
                self.document.defaults[name.text] = tuple(kept)
        if "init" in keys:
            mapping = self.reader.mapping(keys["init"][1], "`init`")
            for name, node in mapping.items if mapping else ():
                if self._operation_name(name):
                    self.document.init[name.text] = read_init(self.reader, node)

    def _operation_name(self, name: tree.Scalar) -> bool:
        if name.text in registry():
            return True
        self.reader.error(
            "unknown-operation",
            f"there is no operation `{name.text}`",
            name,
            help=did_you_mean(name.text, registry()),
        )
        return False

    def _identifier(self, name: tree.Scalar, what: str) -> bool:
        if _IDENTIFIER.fullmatch(name.text) and name.text not in RESERVED:
            return True
        self.reader.error(
            "bad-name",
            f"`{name.text}` cannot name {what}",
            name,
            help="letters, digits and `_`, not starting with a digit, and no word of an expression",
        )
        return False

    # ---------------------------------------------------------------------------------- blocks

    def _blocks(self, keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> None:
        if "blocks" not in keys:
            return
        mapping = self.reader.mapping(keys["blocks"][1], "`blocks`")
        bodies: list[tuple[Block, tree.Mapping]] = []
        for name, node in mapping.items if mapping else ():
            misnamed = True
            if not _BLOCK_NAME.fullmatch(name.text) or name.text in RESERVED:
                self.reader.error(
                    "bad-name",
                    f"`{name.text}` cannot name a block",
                    name,
                    help="small letters, digits and `_`: capitals are for operations",
                )
            elif name.text in registry():
                self.reader.error("bad-name", f"`{name.text}` is a join of the language", name)
            else:
                misnamed = False
            body = self.reader.mapping(node, f"block `{name.text}`")
            if body is None:
                self.document.blocks[name.text] = Block(name.text, name, node.span, broken=True)
                continue
            block = Block(name.text, name, body.span, broken=misnamed)
            self._known_keys(body, BLOCK_KEYS, "a block")
            params = body.get("params")
            block.params = self._params(params, f"`{name.text}`", within=True) if params else ()
            if (inline := body.get("inline")) is not None:
                value = self.reader.plain(inline)
                block.inline = value is True
                if not isinstance(value, bool):
                    self.reader.error("argument-type", "`inline` must be true or false", inline)
            if (inputs := body.get("inputs")) is not None:
                sequence = self.reader.sequence(inputs, "the inputs of a block")
                texts = [
                    self.reader.scalar(item, "an input of a block")
                    for item in (sequence.items if sequence else ())
                ]
                block.inputs = tuple([t for t in texts if t and self._identifier(t, "an input")])
            self.document.blocks[name.text] = block
            bodies.append((block, body))
        for block, body in bodies:
            self._fill(block, body)

    def _fill(self, block: Block, body: tree.Mapping) -> None:
        layers = body.get("layers")
        tensors = [i.text for i in block.inputs] or ["input"]
        scope = replace(self._scope(block.params, layers, tensors), hints=self._block_hints(block))
        if layers is None:
            block.broken = True
            self.reader.error(
                "missing-key", f"block `{block.name}` has no `layers`", block.key or body
            )
        else:
            block.entries = self.entries.entries(layers, scope, "`layers`")
        if (outputs := body.get("outputs")) is not None:
            block.outputs = self._outputs(outputs, scope, top=False)
        if (assertions := body.get("assert")) is not None:
            block.assertions = self._assertions(assertions, scope)
        self._unused_params(block.params, scope, body.get("params"))

    def _block_hints(self, block: Block) -> dict[str, str]:
        """Help for names that a block does not see though its file has them."""
        params = self.root.get("params") if self.root else None
        hints = {
            key.text: f"a block only sees its own params: give it a param `{key.text}`"
            for key, _ in (params.items if isinstance(params, tree.Mapping) else ())
        }
        if block.inputs:
            names = ", ".join(f"`{name.text}`" for name in block.inputs)
            hints["input"] = f"the inputs of `{block.name}` are {names}"
        return hints

    def _scope(
        self, params: Iterable[Param], layers: tree.Node | None, tensors: Iterable[str]
    ) -> StaticScope:
        names = Names.of((*tensors, *names_written([layers] if layers else [])))
        params = tuple(params)
        scope = StaticScope(frozenset(p.name.text for p in params), names)
        for param in params:
            if param.expression:
                scope.used.update(param.expression[1].names & scope.variables)
            if param.text:
                scope.used.update(param.text[1].names & scope.variables)
            if param.name.text in self.document.imports:
                self.reader.error(
                    "import-shadows",
                    f"`{param.name.text}` is a param and an import",
                    param.name,
                    help="give the import another prefix",
                )
        return scope

    def _unused_params(
        self, params: Iterable[Param], scope: StaticScope, node: tree.Node | None
    ) -> None:
        for param in params:
            excused = param.broken or param.name.text in self.reader.unknown
            if param.name.text not in scope.used and not excused:
                self.problems.add(
                    warning(
                        "unused-param",
                        f"param `{param.name.text}` is never used",
                        param.name.span,
                    )
                )

    # ---------------------------------------------------------------------------------- params

    def _params(self, node: tree.Node, owner: str, *, within: bool) -> tuple[Param, ...]:
        mapping = self.reader.mapping(node, "`params`")
        params: list[Param] = []
        names = frozenset(key.text for key, _ in mapping.items) if mapping else frozenset()
        for name, value in mapping.items if mapping else ():
            if not self._identifier(name, "a param"):
                continue
            if name.text == "input":
                self.reader.error("bad-name", "`input` is the input of the block", name)
                continue
            earlier = StaticScope(
                frozenset(p.name.text for p in params),
                Names.of(("input",) if within else ()),
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
        if node.quoted or node.block:
            return Param(name, "str", literal=node)
        value = self.reader.literal(node)
        if isinstance(value, bool):
            return Param(name, "bool", literal=node)
        if isinstance(value, int):
            return Param(name, "int", literal=node)
        if isinstance(value, float):
            return Param(name, "float", literal=node)
        typed = _TYPED.fullmatch(node.text) if value is not None else None
        if typed is None:
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
            help = did_you_mean(word, PARAM_SLOTS) or f"the types are {', '.join(PARAM_SLOTS)}"
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
            template = self.reader.template(piece, scope)
            return Param(name, type, text=template, broken=template is None)
        extra: Iterable[str] = ()
        if type == "op":
            extra = (*registry(), *self.document.blocks, *self._block_names())
        expression = self.reader.expression(piece, scope, extra)
        if expression is None:
            return Param(name, type, broken=True)
        if type == "op":
            self.entries.called.update(expression[1].names)
        return Param(name, type, expression=expression)

    def _block_names(self) -> Iterable[str]:
        blocks = self.root.get("blocks") if self.root else None
        return [key.text for key, _ in blocks.items] if isinstance(blocks, tree.Mapping) else []

    # ------------------------------------------------------------------------------- top level

    def _top(self, root: tree.Mapping, keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> None:
        document = self.document
        top = Block(document.name, None, root.span)
        document.top = top
        if "params" in keys:
            top.params = self._params(keys["params"][1], "the spec", within=False)
        symbols: list[str] = []
        used: set[str] = set()
        if "inputs" in keys:
            document.inputs = self._inputs(keys["inputs"][1], top.params, symbols, used)
        written = keys["inputs"][1] if "inputs" in keys else None
        if written is None or (
            written.absent if isinstance(written, tree.Scalar) else not written.items
        ):
            self.reader.error(
                "missing-key",
                "the spec has no `inputs`",
                keys["inputs"][0] if "inputs" in keys else root.items[0][0],
                help="for example `inputs: {image: [3, 224, 224]}`",
            )
        layers = keys["layers"][1]
        tensors = [declared.name.text for declared in document.inputs]
        scope = self._scope(top.params, layers, (*tensors, "input"))
        scope.used.update(used)
        scope = scope.binding(symbols)
        if isinstance(layers, tree.Sequence) and not layers.items:
            self.reader.error("no-output", "the network has no entry", keys["layers"][0])
        top.entries = self.entries.entries(layers, scope, "`layers`")
        if "outputs" in keys:
            top.outputs = self._outputs(keys["outputs"][1], scope, top=True)
        if "assert" in keys:
            top.assertions = self._assertions(keys["assert"][1], scope)
        if "variants" in keys:
            self._variants(keys["variants"][1], top)
        if "expect" in keys:
            document.expect = self._expect(keys["expect"][1])
        self._unused_params(top.params, scope, None)
        for name, block in document.blocks.items():
            if name not in self.entries.called and block.key and not block.broken:
                self.problems.add(
                    warning("unused-block", f"block `{name}` is never used", block.key.span)
                )

    def _inputs(
        self,
        node: tree.Node,
        params: tuple[Param, ...],
        symbols: list[str],
        used: set[str],
    ) -> tuple[InputDecl, ...]:
        mapping = self.reader.mapping(node, "`inputs`")
        variables = frozenset(p.name.text for p in params)
        declared: list[InputDecl] = []
        for name, value in mapping.items if mapping else ():
            if not self._identifier(name, "an input"):
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

    def _outputs(self, node: tree.Node, scope: StaticScope, *, top: bool) -> tuple[OutputDecl, ...]:
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
        self._known_keys(node, ("from", "training", "weight") if top else ("from",), "an output")
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

    def _assertions(self, node: tree.Node, scope: StaticScope) -> tuple[Assertion, ...]:
        sequence = self.reader.sequence(node, "`assert`")
        found = []
        for item in sequence.items if sequence else ():
            mapping = self.reader.mapping(item, "an assertion")
            if mapping is None:
                continue
            self._known_keys(mapping, ("that", "message"), "an assertion")
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

    def _variants(self, node: tree.Node, top: Block) -> None:
        mapping = self.reader.mapping(node, "`variants`")
        names = {key.text for key, _ in mapping.items} if mapping else set()
        for name, value in mapping.items if mapping else ():
            if name.text == self.document.name:
                self.reader.error(
                    "bad-name", f"`{name.text}` is the spec itself, which is no variant", name
                )
                continue
            if isinstance(value, tree.Scalar) and not value.absent:
                if value.text not in names and value.text != self.document.name:
                    self.reader.error(
                        "unknown-variant",
                        f"there is no variant `{value.text}`",
                        value,
                        help=did_you_mean(value.text, (*names, self.document.name)),
                    )
                    continue
                self.document.variants[name.text] = Variant(name, alias=value)
                continue
            values = self.reader.mapping(value, f"variant `{name.text}`")
            kept = []
            for key, item in values.items if values else ():
                param = top.param(key.text)
                if param is None:
                    self.reader.error(
                        "unknown-param",
                        f"the spec has no param `{key.text}`",
                        key,
                        help=did_you_mean(key.text, [p.name.text for p in top.params]),
                    )
                    continue
                others = frozenset(p.name.text for p in top.params) - {key.text}
                if self.param_literal(param.type, item, key.text, others):
                    kept.append((key, item))
            self.document.variants[name.text] = Variant(name, tuple(kept))
        for variant in self.document.variants.values():
            self._alias_ends(variant)

    def _alias_ends(self, variant: Variant) -> None:
        seen: set[str] = set()
        step: Variant | None = variant
        while step is not None and step.alias is not None and variant.alias is not None:
            if step.name.text in seen:
                message = f"`{variant.name.text}` is an alias of itself"
                self.reader.error("alias-cycle", message, variant.alias)
                return
            seen.add(step.name.text)
            step = self.document.variants.get(step.alias.text)

    def param_literal(self, type: str, node: tree.Node, name: str, others: frozenset[str]) -> bool:
        """Check the value a variant gives a param: lists and tables are literal."""
        if type in ("list", "table") and isinstance(node, tree.Sequence):
            plain = self.reader.plain(node)
            return self.reader.accepted(node, PARAM_SLOTS[type], 1, name, plain)
        return self.entries.param_value(type, node, name, StaticScope(others, Names.of(())))

    def _expect(self, node: tree.Node) -> tree.Mapping | None:
        mapping = self.reader.mapping(node, "`expect`")
        if mapping is None:
            return None
        variants = (self.document.name, *self.document.variants)
        for key, value in mapping.items:
            if key.text in EXPECTABLE:
                continue
            if key.text in variants:
                inner = self.reader.mapping(value, f"what is expected of `{key.text}`")
                if inner is not None:
                    self._known_keys(inner, EXPECTABLE, "`expect`")
                continue
            self.reader.error(
                "unknown-key",
                f"`{key.text}` is neither a metric nor a variant",
                key,
                help=did_you_mean(key.text, (*EXPECTABLE, *variants)),
            )
        return mapping
