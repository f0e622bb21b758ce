"""The language's own tree: what the words of one file are, before anything is evaluated.

`Document` is a file, `Block` a list of entries with params, `Entry` one operation with its control
keys. Parsed expressions are inside; values, tensors and shapes are not. `parsing` makes these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from cnnspec.diagnostics import Diagnostic, error
from cnnspec.frontend import tree
from cnnspec.frontend.expressions import Expression, ExpressionError, Loop, Template
from cnnspec.op import Op
from cnnspec.source import Source, Span
from cnnspec.weights import Init

__all__ = [
    "CONTROLS",
    "Assertion",
    "Block",
    "Dimension",
    "Document",
    "Entry",
    "EntryKind",
    "InputDecl",
    "OutputDecl",
    "Param",
    "Piece",
    "Variant",
    "Written",
    "located",
]

CONTROLS = ("name", "from", "repeat", "for", "when", "inline", "share", "init", "allow")
"""The keys that stand beside an operation."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A stretch of a scalar that holds an expression, a template or a name of its own."""

    scalar: tree.Scalar
    start: int = 0
    end: int | None = None

    @property
    def text(self) -> str:
        """The characters of the piece."""
        return self.scalar.text[self.start : self.end]

    @property
    def span(self) -> Span:
        """Where the piece stands."""
        if self.start == 0 and self.end is None:
            return self.scalar.span
        end = len(self.scalar.text) if self.end is None else self.end
        return self.scalar.content_span(self.start, end)

    def at(self, start: int, end: int) -> Span:
        """Where the characters `start` to `end` of `text` stand."""
        return self.scalar.content_span(self.start + start, self.start + end)


def located(failure: ExpressionError, piece: Piece) -> Diagnostic:
    """The diagnostic of an expression's failure, at its place in the file."""
    span = piece.at(failure.start, max(failure.end, failure.start + 1))
    return error(failure.code, failure.message, span, help=failure.help)


@dataclass(frozen=True, slots=True, eq=False)
class Param:
    """A param: required without a default. A `literal` default is a YAML value as it stands."""

    name: tree.Scalar
    type: str
    literal: tree.Node | None = None
    expression: tuple[Piece, Expression] | None = None
    text: tuple[Piece, Template] | None = None
    broken: bool = False
    """Whether it has been reported; nothing is known of its value."""

    @property
    def required(self) -> bool:
        """Whether a caller has to pass it."""
        given = (self.literal, self.expression, self.text)
        return not self.broken and all(default is None for default in given)


@dataclass(frozen=True, slots=True, eq=False)
class Dimension:
    """One size of an input: a `symbol` with an optional default, or an expression."""

    piece: Piece
    symbol: str | None
    expression: Expression | None


@dataclass(frozen=True, slots=True, eq=False)
class InputDecl:
    """A network input and its sizes, batch not counted."""

    name: tree.Scalar
    dimensions: tuple[Dimension, ...]
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class OutputDecl:
    """A named output, the tensor it is, and what training does with it."""

    name: Piece
    reference: tuple[Piece, Template]
    training: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Assertion:
    """`{that: EXPRESSION, message: TEXT}`."""

    that: tuple[Piece, Expression]
    message: tuple[Piece, Template] | None
    span: Span


EntryKind = Literal["op", "join", "sequential", "call", "slot"]


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """An initialiser as it stands in the text; its arguments may be expressions."""

    kind: str
    arguments: tuple[tuple[tree.Scalar, tree.Node], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One entry of a block.

    `kind` says what the key is: an `op` (in `op`), a `join` (likewise), a `sequential`, the `call`
    of a block (in `call`), or a `slot`: an expression whose value is an operation. `body` is what
    stands under the key. `entries` are the children of a Sequential, `branches` the inputs of a
    join. A `broken` entry has been reported; expansion passes over it.
    """

    kind: EntryKind
    key: tree.Scalar
    span: Span
    body: tree.Node | None
    op: type[Op] | None = None
    call: tuple[Document, Block] | None = None
    slot: tuple[Piece, Expression] | None = None
    entries: tuple[Entry, ...] = ()
    branches: tuple[Branch, ...] = ()
    name: tuple[Piece, Template] | None = None
    source: tree.Node | None = None
    loop: tuple[Piece, Loop] | None = None
    repeat: tuple[Piece, Expression] | None = None
    when: tuple[Piece, Expression] | None = None
    inline: bool = False
    share: tuple[Piece, Template] | None = None
    init: tuple[tuple[tree.Scalar, Init | Written], ...] = ()
    allow: frozenset[str] = frozenset()
    broken: bool = False

    @property
    def loops(self) -> bool:
        """Whether the entry is written out several times."""
        return self.loop is not None or self.repeat is not None


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One input of a join: a `reference` to a tensor, an `entry`, or neither: the identity."""

    span: Span
    reference: tuple[Piece, Template] | None = None
    entry: Entry | None = None
    name: tuple[Piece, Template] | None = None
    """What the identity is called."""


@dataclass(slots=True, eq=False)
class Block:
    """A block, or the top level of a file. `inputs` are names where it takes several tensors."""

    name: str
    key: tree.Scalar | None
    span: Span
    params: tuple[Param, ...] = ()
    inputs: tuple[tree.Scalar, ...] = ()
    entries: tuple[Entry, ...] = ()
    outputs: tuple[OutputDecl, ...] = ()
    assertions: tuple[Assertion, ...] = ()
    inline: bool = False
    broken: bool = False
    """Whether there is nothing to call; what is wrong has been reported."""

    def tensor_names(self) -> Iterator[str]:
        """Names its entries may give, as written, in Sequentials and joins too."""
        stack = list(self.entries)
        while stack:
            entry = stack.pop()
            if entry.name is not None:
                yield entry.name[1].text
            stack.extend(entry.entries)
            stack.extend(branch.entry for branch in entry.branches if branch.entry is not None)

    def param(self, name: str) -> Param | None:
        """The param `name`, or None."""
        return next((p for p in self.params if p.name.text == name), None)


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """A named set of param values, or another name of one (`alias`)."""

    name: tree.Scalar
    values: tuple[tuple[tree.Scalar, tree.Node], ...] = ()
    alias: tree.Scalar | None = None


@dataclass(slots=True, eq=False)
class Document:
    """One file. Built by `parsing`, then left alone."""

    source: Source
    name: str = ""
    top: Block | None = None
    inputs: tuple[InputDecl, ...] = ()
    blocks: dict[str, Block] = field(default_factory=dict)
    imports: dict[str, Document] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    defaults: dict[str, tuple[tuple[tree.Scalar, tree.Node], ...]] = field(default_factory=dict)
    init: dict[str, tuple[tuple[tree.Scalar, Init | Written], ...]] = field(default_factory=dict)
    expect: tree.Mapping | None = None
    preprocess: tuple[tuple[tree.Scalar, tree.Node], ...] | None = None
    labels: tuple[str, ...] | None = None
    description: str = ""
    broken: bool = False
    """Whether the file could not be read as a spec at all; what is wrong has been reported."""

    @property
    def runnable(self) -> bool:
        """Whether the file is a network, not only a collection of blocks to import."""
        return self.top is not None
