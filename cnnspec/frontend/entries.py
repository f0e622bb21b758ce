"""Entries of a block, from tree to `Entry`: which operation, which controls, which arguments.

Everything that can be known without evaluating is checked here, in every block, called or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, replace

from cnnspec.diagnostics import SILENCEABLE, did_you_mean, error, listed, nearest
from cnnspec.frontend import tree
from cnnspec.frontend.document import CONTROLS, Block, Branch, Document, Entry, Piece, Written
from cnnspec.frontend.expressions import Expression, Template
from cnnspec.frontend.initialisers import read_init
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reading import Reader, StaticScope
from cnnspec.op import INFERRED, Op, slots_of
from cnnspec.ops import registry
from cnnspec.slots import describe_value
from cnnspec.weights import Init

__all__ = ["EntryParser", "names_written"]

_CAMEL = re.compile(r"[A-Z][A-Za-z0-9_]*")
_BLOCK = re.compile(r"[a-z_][A-Za-z0-9_]*(\.[a-z_][A-Za-z0-9_]*)?")
_SEQUENTIAL = "Sequential"


def names_written(nodes: Iterable[tree.Node]) -> Iterator[str]:
    """Every tensor name the entries of one block may give, in Sequentials and joins too."""
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if isinstance(node, tree.Sequence):
            stack.extend(node.items)
        elif isinstance(node, tree.Mapping):
            for key, value in node.items:
                if key.text == "name" and isinstance(value, tree.Scalar):
                    yield value.text
                elif isinstance(value, (tree.Sequence, tree.Mapping)):
                    if isinstance(value, tree.Mapping):
                        yield from (name.text for name, _ in value.items)
                    stack.append(value)


class EntryParser:
    """Parses the entries of the blocks of one document."""

    def __init__(self, document: Document, problems: Problems) -> None:
        self.document = document
        self.problems = problems
        self.reader = Reader(problems)
        self.called: set[str] = set()
        """Names of this document's blocks that some entry may call."""

    # -------------------------------------------------------------------------------- entries

    def entries(self, node: tree.Node, scope: StaticScope, what: str) -> tuple[Entry, ...]:
        """The entries of a list."""
        sequence = self.reader.sequence(node, what, "start each entry with `- `")
        if sequence is None:
            return ()
        return tuple([self.entry(item, scope) for item in sequence.items])

    def entry(self, node: tree.Node, scope: StaticScope) -> Entry:
        """One entry; a broken one is kept, so that what follows is not blamed for it."""
        if isinstance(node, tree.Scalar):
            if node.absent:
                self.reader.error("empty-entry", "the entry is empty", node)
                return _broken(node, node)
            return self._operation(node, None, {}, node, scope)
        if isinstance(node, tree.Sequence):
            self.reader.error(
                "wrong-kind",
                "an entry must be an operation, not a list",
                node,
                help="`Sequential` groups entries",
            )
            return _broken(tree.Scalar("", node.span), node)
        controls = {k.text: (k, v) for k, v in node.items if k.text in CONTROLS}
        operations = [(k, v) for k, v in node.items if k.text not in CONTROLS]
        if not operations:
            self.reader.error(
                "no-operation",
                "the entry has no operation",
                node.items[0][0] if node.items else node,
                help="an entry is one operation, with its control keys beside it",
            )
            broken = _broken(tree.Scalar("", node.span), node)
            return replace(broken, name=self._template(controls, "name", scope))
        if len(operations) > 1:
            known = [(k, v) for k, v in operations if self._is_operation(k.text)]
            key, body = (known or operations)[0]
            for other, value in operations:
                if "name" not in controls and nearest(other.text, CONTROLS) == "name":
                    controls["name"] = other, value
            self._other_keys(key, [k for k, _ in operations if k is not key], known)
            operation = self._operation(key, body, controls, node, scope)
            return replace(operation, broken=True)
        ((key, body),) = operations
        return self._operation(key, body, controls, node, scope)

    def _other_keys(
        self,
        first: tree.Scalar,
        others: list[tree.Scalar],
        operations: list[tuple[tree.Scalar, tree.Node]],
    ) -> None:
        """Report keys that are neither controls nor the entry's operation, `first`."""
        op = registry().get(first.text)
        slots = slots_of(op) if op is not None else {}
        for key in others:
            if key.text in slots:
                help = f"`{key.text}` is an argument: `{first.text}: {{{key.text}: ...}}`"
            elif any(key is operation for operation, _ in operations):
                help = "each operation is an entry of its own: start it with `- `"
            else:
                help = did_you_mean(key.text, CONTROLS) or did_you_mean(key.text, slots)
            self.problems.add(
                error(
                    "unknown-control",
                    f"`{key.text}` is no key of an entry",
                    key.span,
                    label=f"beside `{first.text}`",
                    help=help,
                )
            )

    def _is_operation(self, name: str) -> bool:
        return (
            name in registry()
            or name == _SEQUENTIAL
            or name in self.document.blocks
            or name.split(".")[0] in self.document.imports
        )

    def _operation(
        self,
        key: tree.Scalar,
        body: tree.Node | None,
        controls: dict[str, tuple[tree.Scalar, tree.Node]],
        node: tree.Node,
        scope: StaticScope,
    ) -> Entry:
        if not controls:
            return self._resolved(key, body, node, scope)
        loop = repeat = when = None
        outer = scope
        if "for" in controls:
            help = "for example `for: i in [1, 2, 3]`"
            text = self.reader.scalar(controls["for"][1], "`for`", help)
            loop = self.reader.loop(Piece(text), scope) if text else None
            if loop:
                scope = scope.binding(loop[1].targets.names)
        if "repeat" in controls:
            if "for" in controls:
                self.reader.error(
                    "two-loops", "an entry has `for` or `repeat`, not both", controls["repeat"][0]
                )
            repeat = self._repeat(controls["repeat"][1], outer)
        entry = self._resolved(key, body, node, scope)
        if "when" in controls:
            when = self._expression(controls["when"][1], "`when`", scope)
        name = self._template(controls, "name", scope)
        source = self._source(controls, scope)
        share = self._template(controls, "share", scope)
        read = {
            "name": name,
            "from": source,
            "for": loop,
            "repeat": repeat,
            "when": when,
            "share": share,
        }
        return replace(
            entry,
            name=name,
            source=source,
            loop=loop,
            repeat=repeat,
            when=when,
            inline=self._inline(controls, entry),
            share=share,
            init=self._init(controls, entry, scope),
            allow=self._allow(controls),
            broken=entry.broken
            or ("for" in controls and "repeat" in controls)
            or any(key in controls and value is None for key, value in read.items()),
        )

    # -------------------------------------------------------------------------------- controls

    def _expression(
        self, node: tree.Node, what: str, scope: StaticScope
    ) -> tuple[Piece, Expression] | None:
        text = self.reader.scalar(node, what)
        return self.reader.expression(Piece(text), scope) if text else None

    def _repeat(self, node: tree.Node, scope: StaticScope) -> tuple[Piece, Expression] | None:
        found = self._expression(node, "`repeat`", scope)
        if found is None:
            return None
        value = self.reader.plain(node)
        if not isinstance(value, str) and (
            isinstance(value, bool) or not isinstance(value, int) or value < 0
        ):
            message = f"`repeat` must be an integer of at least 0, not {describe_value(value)}"
            self.reader.error("repeat-count", message, node)
            return None
        return found

    def _init(
        self, controls: dict[str, tuple[tree.Scalar, tree.Node]], entry: Entry, scope: StaticScope
    ) -> tuple[tuple[tree.Scalar, Init | Written], ...]:
        if "init" not in controls:
            return ()
        key, node = controls["init"]
        if "share" in controls:
            message = "shared weights start as their owner says: `init` stands there"
            self.reader.error("control-not-here", message, key)
            return ()
        if entry.kind in ("op", "slot", "join"):
            return read_init(self.reader, node, scope)
        self.reader.error("control-not-here", "`init` belongs to a single operation", key)
        return ()

    def _template(
        self, controls: dict[str, tuple[tree.Scalar, tree.Node]], key: str, scope: StaticScope
    ) -> tuple[Piece, Template] | None:
        if key not in controls:
            return None
        text = self.reader.scalar(controls[key][1], f"`{key}`")
        return self.reader.template(Piece(text), scope) if text else None

    def _source(
        self, controls: dict[str, tuple[tree.Scalar, tree.Node]], scope: StaticScope
    ) -> tree.Node | None:
        if "from" not in controls:
            return None
        node = controls["from"][1]
        items: Iterable[tree.Node] = (node,)
        if isinstance(node, tree.Sequence):
            items = node.items
        elif isinstance(node, tree.Mapping):
            items = [value for _, value in node.items]
        fine = True
        for item in items:
            text = self.reader.scalar(item, "`from`")
            fine = bool(text and self.reader.template(Piece(text), scope)) and fine
        return node if fine else None

    def _inline(self, controls: dict[str, tuple[tree.Scalar, tree.Node]], entry: Entry) -> bool:
        if "inline" not in controls:
            return False
        key, node = controls["inline"]
        value = self.reader.plain(node)
        if not isinstance(value, bool):
            self.reader.error("argument-type", "`inline` must be true or false", node)
        elif entry.kind not in ("sequential", "call", "slot"):
            self.reader.error(
                "control-not-here", "`inline` belongs to a Sequential or a block", key
            )
        return value is True

    def _allow(self, controls: dict[str, tuple[tree.Scalar, tree.Node]]) -> frozenset[str]:
        if "allow" not in controls:
            return frozenset()
        node = controls["allow"][1]
        items = node.items if isinstance(node, tree.Sequence) else (node,)
        found: set[str] = set()
        for item in items:
            text = self.reader.scalar(item, "`allow`")
            if text is None:
                continue
            if text.text not in SILENCEABLE:
                help = did_you_mean(text.text, SILENCEABLE) or f"there are {listed(SILENCEABLE)}"
                message = f"there is no warning `{text.text}`"
                self.reader.error("unknown-warning", message, text, help=help)
            found.add(text.text)
        return frozenset(found)

    # ------------------------------------------------------------------------------ operations

    def _resolved(
        self, key: tree.Scalar, body: tree.Node | None, node: tree.Node, scope: StaticScope
    ) -> Entry:
        name = key.text
        head = name.split(".")[0]
        if name == _SEQUENTIAL:
            if body is None:
                body = tree.Sequence((), key.span)
            inner = self.entries(body, scope, "`Sequential`")
            return Entry("sequential", key, node.span, body, entries=inner)
        if head in scope.variables or not (_CAMEL.fullmatch(name) or _BLOCK.fullmatch(name)):
            return self._slot(key, body, node, scope)
        op = registry().get(name)
        if op is not None and name[0].islower():
            branches = self._branches(key, body, scope)
            broken = not isinstance(body, (tree.Sequence, tree.Mapping))
            return Entry("join", key, node.span, body, op=op, branches=branches, broken=broken)
        if op is not None:
            broken = not self._arguments(op, key, body, scope)
            return Entry("op", key, node.span, body, op=op, broken=broken)
        block = self._block(key)
        if block is None:
            return _broken(key, node)
        broken = not self._call(block[1], key, body, scope)
        return Entry("call", key, node.span, body, call=block, broken=broken)

    def _slot(
        self, key: tree.Scalar, body: tree.Node | None, node: tree.Node, scope: StaticScope
    ) -> Entry:
        bare = key.text.removeprefix("torch.").removeprefix("nn.")
        if bare != key.text and bare in registry():
            message = f"there is no operation `{key.text}`"
            self.reader.error("unknown-operation", message, key, help=f"write `{bare}`")
            return _broken(key, node)
        found = self.reader.expression(Piece(key), scope, self._operation_names())
        if found is not None:
            self.called.update(found[1].names & self.document.blocks.keys())
        if body is not None and self.reader.mapping(body, f"the arguments of `{key.text}`"):
            self.reader.mark_used(body, scope)
        return Entry("slot", key, node.span, body, slot=found, broken=found is None)

    def _operation_names(self) -> Iterable[str]:
        return (*registry(), *self.document.blocks, *self.document.imports)

    def _block(self, key: tree.Scalar) -> tuple[Document, Block] | None:
        """The block a key names, of this file or an import."""
        prefix, dot, name = key.text.rpartition(".")
        if dot:
            imported = self.document.imports.get(prefix)
            if imported is None:
                self.reader.error(
                    "unknown-import",
                    f"there is no import `{prefix}`",
                    key,
                    help=did_you_mean(prefix, self.document.imports),
                )
                return None
            if imported.broken:
                return None
            if name not in imported.blocks:
                self.reader.error(
                    "unknown-operation",
                    f"`{imported.source.name}` has no block `{name}`",
                    key,
                    help=did_you_mean(name, imported.blocks),
                )
                return None
            return imported, imported.blocks[name]
        if name not in self.document.blocks:
            candidates = (*registry(), _SEQUENTIAL, *self.document.blocks)
            self.reader.error(
                "unknown-operation",
                f"there is no operation or block `{name}`",
                key,
                help=did_you_mean(name, candidates),
            )
            return None
        self.called.add(name)
        return self.document, self.document.blocks[name]

    def _arguments(
        self,
        op: type[Op],
        key: tree.Scalar,
        body: tree.Node | None,
        scope: StaticScope,
        *,
        partial: bool = False,
    ) -> bool:
        """Check an op's arguments as far as the text tells; `partial` ones may be completed."""
        slots = slots_of(op)
        first = next((name for name, f in slots.items() if f.default is MISSING), None)
        written = body.text if isinstance(body, tree.Scalar) else "..."
        help = f"write `{op.name}: {{{first}: {written}}}`" if first else ""
        what = f"the arguments of `{op.name}`"
        mapping = self.reader.mapping(body, what, help) if body is not None else None
        if body is not None and mapping is None:
            return False
        fine = True
        given: set[str] = set()
        for name, value in mapping.items if mapping else ():
            given.add(name.text)
            if name.text not in slots:
                given.add(self._unknown_argument(op.name, name, slots))
                fine = False
                continue
            slot = slots[name.text].metadata["slot"]
            if slot.refers:
                text = self.reader.scalar(value, f"`{name.text}`")
                fine = bool(text and self.reader.template(Piece(text), scope)) and fine
            else:
                fine = self.reader.fits(value, slot, op.axes, name.text, scope) and fine
        given.update(k.text for k, _ in self.document.defaults.get(op.name, ()))
        for name_, slot_field in slots.items():
            if slot_field.default is MISSING and name_ not in given and not partial:
                self.reader.error("missing-argument", f"`{op.name}` needs `{name_}`", key)
                fine = False
        return fine

    def _unknown_argument(self, owner: str, name: tree.Scalar, known: Iterable[str]) -> str:
        """Report an argument that is not there; gives the one that was probably meant, or ""."""
        if name.text in CONTROLS:
            self.reader.error(
                "control-inside",
                f"`{name.text}` is not an argument of `{owner}`",
                name,
                help=f"`{name.text}` stands beside the operation, not among its arguments",
            )
            return ""
        if name.text in INFERRED:
            help = f"`{name.text}` is inferred from the input: leave it out"
        else:
            help = did_you_mean(name.text, known)
        self.reader.error(
            "unknown-argument", f"`{owner}` has no argument `{name.text}`", name, help=help
        )
        return nearest(name.text, known) or ""

    def _call(
        self,
        block: Block,
        key: tree.Scalar,
        body: tree.Node | None,
        scope: StaticScope,
        *,
        partial: bool = False,
    ) -> bool:
        mapping = self.reader.mapping(body, f"the arguments of `{key.text}`") if body else None
        if block.broken or (body is not None and mapping is None):
            return False
        fine = True
        given: set[str] = set()
        for name, value in mapping.items if mapping else ():
            given.add(name.text)
            param = block.param(name.text)
            if param is None:
                names = [p.name.text for p in block.params]
                given.add(self._unknown_argument(key.text, name, names))
                fine = False
            else:
                fine = self.param_value(param.type, value, name.text, scope) and fine
        for param in block.params:
            if param.required and param.name.text not in given and not partial:
                self.reader.error(
                    "missing-argument", f"`{key.text}` needs `{param.name.text}`", key
                )
                fine = False
        return fine

    def param_value(self, type: str, node: tree.Node, name: str, scope: StaticScope) -> bool:
        """Check what is passed for a param of a type, as far as the text tells."""
        if type == "op":
            return self.operation_value(node, scope)
        if type == "str":
            text = self.reader.scalar(node, f"`{name}`")
            return bool(text and self.reader.template(Piece(text), scope))
        if type in ("table", "list") and not isinstance(node, tree.Scalar):
            return self._cells(type, node, name, scope)
        return self.reader.fits(node, PARAM_SLOTS[type], 1, name, scope)

    def _cells(self, type: str, node: tree.Node, name: str, scope: StaticScope) -> bool:
        """A list written out: rows of a table are literal, items of a list may be computed."""
        if type == "table":
            return self.reader.accepted(node, PARAM_SLOTS[type], 1, name, self.reader.plain(node))
        if isinstance(node, tree.Mapping):
            self.reader.error("argument-type", f"`{name}` must be a list, not a mapping", node)
            return False
        assert isinstance(node, tree.Sequence)  # a scalar never comes here
        fine = True
        for item in node.items:
            if isinstance(item, tree.Mapping):
                continue
            fine = (
                self.reader.fits(item, PARAM_SLOTS["list"], 1, name, scope)
                if isinstance(item, tree.Sequence)
                else self._item(item, scope) and fine
            )
        return fine

    def _item(self, item: tree.Scalar, scope: StaticScope) -> bool:
        value = self.reader.literal(item)
        if not isinstance(value, str) or item.text in registry():
            return True
        return self.reader.expression(Piece(item), scope) is not None

    def operation_value(self, node: tree.Node, scope: StaticScope) -> bool:
        """What stands in an operation slot: null, a name or expression, or an op with arguments."""
        if isinstance(node, tree.Scalar):
            if node.absent or self.reader.literal(node) is None:
                return True
            if _CAMEL.fullmatch(node.text):
                if node.text in registry():
                    return True
                self.reader.error(
                    "unknown-operation",
                    f"there is no operation `{node.text}`",
                    node,
                    help=did_you_mean(node.text, registry()),
                )
                return False
            found = self.reader.expression(Piece(node), scope, self._operation_names())
            if found:
                self.called.update(found[1].names & self.document.blocks.keys())
            return found is not None
        if isinstance(node, tree.Mapping) and len(node.items) == 1:
            key, body = node.items[0]
            op = registry().get(key.text)
            if op is not None:
                return self._arguments(op, key, body, scope, partial=True)
            block = self._block(key)
            return block is not None and self._call(block[1], key, body, scope, partial=True)
        self.reader.error(
            "argument-type",
            "an operation must be a name, or one operation with its arguments",
            node,
        )
        return False

    # ----------------------------------------------------------------------------------- joins

    def _branches(
        self, key: tree.Scalar, body: tree.Node | None, scope: StaticScope
    ) -> tuple[Branch, ...]:
        if isinstance(body, tree.Sequence):
            return tuple([self._list_branch(item, scope) for item in body.items])
        if isinstance(body, tree.Mapping):
            return tuple([self._named_branch(k, v, scope) for k, v in body.items])
        self.reader.error(
            "wrong-kind",
            f"`{key.text}` joins a list of tensors, or a mapping of branches",
            body if isinstance(body, tree.Scalar) and not body.absent else key,
        )
        return ()

    def _list_branch(self, node: tree.Node, scope: StaticScope) -> Branch:
        if isinstance(node, tree.Scalar):
            return Branch(reference=self._reference(node, scope), span=node.span)
        return Branch(entry=self.entry(node, scope), span=node.span)

    def _named_branch(self, name: tree.Scalar, node: tree.Node, scope: StaticScope) -> Branch:
        """A branch under a name: a list is a Sequential of that name, one entry takes it itself."""
        if isinstance(node, tree.Scalar) and not node.absent:
            return Branch(reference=self._reference(node, scope), span=node.span)
        given = self.reader.template(Piece(name), scope)
        if isinstance(node, tree.Mapping):
            entry = self.entry(node, scope)
            if entry.name is not None:
                self.reader.error(
                    "two-names",
                    f"the entry has the branch's name, `{name.text}`, and another",
                    entry.name[0],
                )
            return Branch(entry=replace(entry, name=given), span=node.span)
        entries = self.entries(node, scope, f"branch `{name.text}`")
        if not entries:
            return Branch(span=node.span, name=given)
        group = Entry("sequential", name, node.span, node, entries=entries, name=given)
        return Branch(entry=group, span=node.span)

    def _reference(self, node: tree.Scalar, scope: StaticScope) -> tuple[Piece, Template] | None:
        if node.absent:
            self.reader.error("empty-entry", "the entry is empty", node)
            return None
        if node.text in registry() and node.text[0].isupper():
            self.reader.error(
                "operation-as-tensor",
                f"`{node.text}` is an operation; a name in a join is a tensor",
                node,
                help=f"write `{node.text}:` for the operation",
            )
            return None
        return self.reader.template(Piece(node), scope)


def _broken(key: tree.Scalar, node: tree.Node) -> Entry:
    return Entry("op", key, node.span, None, broken=True)
