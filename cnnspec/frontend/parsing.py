"""One file, from tree to `Document`: the top-level keys, params, inputs, blocks, outputs.

Imports are handed to a loader; everything else is checked here, whether or not it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cnnspec.diagnostics import did_you_mean, error, listed, warning
from cnnspec.frontend import tree
from cnnspec.frontend.document import (
    Block,
    Document,
    Param,
    Variant,
)
from cnnspec.frontend.entries import EntryParser, names_written
from cnnspec.frontend.expressions import RESERVED
from cnnspec.frontend.initialisers import read_init
from cnnspec.frontend.metadata import read_labels, read_preprocess
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.params import ParamParser
from cnnspec.frontend.ports import PortParser
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reading import Names, StaticScope
from cnnspec.op import slots_of
from cnnspec.ops import registry
from cnnspec.slots import describe_value
from cnnspec.source import Span

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
        self.ports = PortParser(self.reader)
        self.params = ParamParser(self.entries)
        self.root: tree.Mapping | None = None
        self.start = Span(document.source, 1, 1, 1, 1)
        """Where what is missing is reported: the first key."""

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
        self.start = root.items[0][0].span if root.items else root.span
        blocks = root.get("blocks")
        if isinstance(blocks, tree.Mapping):
            self.params.blocks = tuple(key.text for key, _ in blocks.items)
        keys = {key.text: (key, value) for key, value in root.items}
        if not self._version(root, keys.get("cnnspec")):
            self.document.broken = True
            return
        self.reader.known_keys(root, FILE_KEYS, "a spec")
        document = self.document
        if "name" in keys:
            name = self.reader.scalar(keys["name"][1], "`name`")
            document.name = name.text if name else ""
        elif "layers" in keys:
            self.problems.add(error("missing-key", "the spec has no `name`", self.start))
        if "description" in keys:
            text = self.reader.scalar(keys["description"][1], "`description`")
            document.description = text.text if text else ""
        self._imports(keys)
        scope = self._file_scope(keys)
        self._defaults(keys, scope)
        if "preprocess" in keys:
            document.preprocess = read_preprocess(self.reader, keys["preprocess"][1], scope)
        self._blocks(keys)
        if "layers" in keys:
            self._top(root, keys, scope.used)
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
                    self.problems.add(error("missing-key", "the spec has no `layers`", self.start))
        if "labels" in keys:
            document.labels = read_labels(self.reader, keys["labels"][1])

    def _version(self, root: tree.Mapping, found: tuple[tree.Scalar, tree.Node] | None) -> bool:
        if found is None:
            self.problems.add(
                error(
                    "missing-version",
                    "the spec does not say which version of the language it is in",
                    self.start,
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

    @staticmethod
    def _file_scope(keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> StaticScope:
        """What `defaults`, `init` and `preprocess` may name: the params of a network."""
        params = keys["params"][1] if "layers" in keys and "params" in keys else None
        names = [key.text for key, _ in params.items] if isinstance(params, tree.Mapping) else []
        return StaticScope(frozenset(names), Names.of(()))

    # ------------------------------------------------------------- other files, arguments by op

    def _imports(self, keys: dict[str, tuple[tree.Scalar, tree.Node]]) -> None:
        if "imports" not in keys:
            return
        mapping = self.reader.mapping(keys["imports"][1], "`imports`")
        for prefix, node in mapping.items if mapping else ():
            if not self.reader.identifier(prefix, "an import"):
                continue
            path = self.reader.scalar(node, f"the path of import `{prefix.text}`")
            imported = self.load_import(path) if path else None
            unknown = Document(self.document.source, broken=True)
            self.document.imports[prefix.text] = imported or unknown

    def _defaults(self, keys: dict[str, tuple[tree.Scalar, tree.Node]], scope: StaticScope) -> None:
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
                    slot = slots[key.text].metadata["slot"]
                    if self.reader.fits(value, slot, op.axes, key.text, scope):
                        kept.append((key, value))
                self.document.defaults[name.text] = tuple(kept)
        if "init" in keys:
            mapping = self.reader.mapping(keys["init"][1], "`init`")
            for name, node in mapping.items if mapping else ():
                if self._operation_name(name):
                    self.document.init[name.text] = read_init(self.reader, node, scope)

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
            self.reader.known_keys(body, BLOCK_KEYS, "a block")
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
                block.inputs = tuple(
                    [t for t in texts if t and self.reader.identifier(t, "an input")]
                )
            tensors = tuple(text.text for text in block.inputs) or ("input",)
            block.params = self.params.read(body.get("params"), tensors)
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
            block.outputs = self.ports.outputs(outputs, scope, top=False)
        if (assertions := body.get("assert")) is not None:
            block.assertions = self.ports.assertions(assertions, scope)
        self._unused_params(block.params, scope, body.get("params"))

    def _block_hints(self, block: Block) -> dict[str, str]:
        """Help for names that a block does not see though its file has them."""
        params = self.root.get("params") if self.root else None
        hints = {
            key.text: f"a block only sees its own params: give it a param `{key.text}`"
            for key, _ in (params.items if isinstance(params, tree.Mapping) else ())
        }
        inputs = self.root.get("inputs") if self.root else None
        for _, sizes in inputs.items if isinstance(inputs, tree.Mapping) else ():
            for size in sizes.items if isinstance(sizes, tree.Sequence) else ():
                symbol = (
                    size.text.partition("=")[0].strip() if isinstance(size, tree.Scalar) else ""
                )
                help = f"a block does not see `{symbol}`: use the sizes of its input"
                hints.setdefault(symbol, help)
        if block.inputs:
            names = listed(name.text for name in block.inputs)
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
            if param.name.text not in scope.used:
                self.problems.add(
                    warning(
                        "unused-param",
                        f"param `{param.name.text}` is never used",
                        param.name.span,
                    )
                )

    # ------------------------------------------------------------------------------- top level

    def _top(
        self, root: tree.Mapping, keys: dict[str, tuple[tree.Scalar, tree.Node]], used: set[str]
    ) -> None:
        """The network; `used` are params that the file has used already."""
        document = self.document
        top = Block(document.name, None, root.span)
        document.top = top
        if "params" in keys:
            top.params = self.params.read(keys["params"][1], ())
        symbols: list[str] = []
        if "inputs" in keys:
            document.inputs = self.ports.inputs(keys["inputs"][1], top.params, symbols, used)
        written = keys["inputs"][1] if "inputs" in keys else None
        if written is None or (
            written.absent if isinstance(written, tree.Scalar) else not written.items
        ):
            self.problems.add(
                error(
                    "missing-key",
                    "the spec has no `inputs`",
                    keys["inputs"][0].span if "inputs" in keys else self.start,
                    help="for example `inputs: {image: [3, 224, 224]}`",
                )
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
            top.outputs = self.ports.outputs(keys["outputs"][1], scope, top=True)
        if "assert" in keys:
            top.assertions = self.ports.assertions(keys["assert"][1], scope)
        if "variants" in keys:
            self._variants(keys["variants"][1], top)
            self.reader.mark_used(keys["variants"][1], scope)
        if "expect" in keys:
            document.expect = self._expect(keys["expect"][1])
        self._unused_params(top.params, scope, None)
        called = self.entries.called | set(
            _words(keys[k][1] for k in ("params", "variants") if k in keys)
        )
        for name, block in document.blocks.items():
            if name not in called and block.key:
                self.problems.add(
                    warning("unused-block", f"block `{name}` is never used", block.key.span)
                )

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
                    self.reader.known_keys(inner, EXPECTABLE, "`expect`")
                continue
            self.reader.error(
                "unknown-key",
                f"`{key.text}` is neither a metric nor a variant",
                key,
                help=did_you_mean(key.text, (*EXPECTABLE, *variants)),
            )
        return mapping


def _words(nodes: Iterable[tree.Node]) -> Iterator[str]:
    """All text in values: the cells of a table may name blocks."""
    for node in nodes:
        match node:
            case tree.Scalar():
                yield node.text
            case tree.Sequence():
                yield from _words(node.items)
            case tree.Mapping():
                yield from _words(value for _, value in node.items)
