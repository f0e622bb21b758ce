"""Bytes -> text -> located tree: the only place that runs a YAML parser.

PyYAML supplies events; the tree is built from them without recursion, so that no text, however
deep or large, can exhaust the stack or memory. Resolvers, constructors and composers of PyYAML
stay out, and so does every word of the language. What authors trip over is explained in
`cnnspec.frontend.yaml_traps`.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import replace
from typing import Any

import yaml

from cnnspec.diagnostics import Diagnostic, Note, SpecError, error
from cnnspec.frontend import yaml_failures, yaml_traps
from cnnspec.frontend.tree import Mapping, Node, Scalar, Sequence
from cnnspec.source import Source, Span

__all__ = [
    "MAX_ALIASED_NODES",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_ERRORS",
    "MAX_NODES",
    "read",
    "read_bytes",
]

MAX_BYTES = 4_000_000
"""Largest file read, in bytes."""

MAX_DEPTH = 200
"""Most mappings and lists that may lie within one another."""

MAX_NODES = 1_000_000
"""Most scalars, mappings and lists in one file."""

MAX_ALIASED_NODES = 10_000
"""Most nodes that all aliases of one file may stand for together."""

MAX_ERRORS = 100
"""Errors after which reading stops."""

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]"
)
_COLON = re.compile(r"(?:\s++|#[^\n]*+)*+:")
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*+(?:\s++|#[^\n]*+)*+)*+")
_TAG = re.compile(r"(?:&\S++\s++)?+(![^\s,\[\]{}]*+)")


def read_bytes(name: str, data: bytes) -> Source:
    """The text of a file, from UTF-8 (with or without a byte order mark) or UTF-16 with one.

    Raises:
        SpecError: `file-too-large` or `not-text`, at line 1, column 1.
    """
    if len(data) > MAX_BYTES:
        raise _refused(Source(name, ""), _too_large())
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if utf16 else "UTF-8"
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as failure:
        line = data.count(b"\n", 0, failure.start) + 1
        reason = f"this is not {encoding} text: line {line} holds a byte that cannot be decoded"
    else:
        if "\0" not in text:
            return Source(name, text)
        reason = "this is not text: it holds NUL bytes"
    found = error("not-text", reason, help="save the file as UTF-8 text")
    raise _refused(Source(name, ""), found)


def read(source: Source) -> Node:
    """The located tree of a YAML text.

    Anchors and aliases are resolved: an alias is the anchor's own node, with the anchor's span.

    Raises:
        SpecError: with every error that does not hide the others, in the order of the text.
    """
    text = source.text
    if len(text) > MAX_BYTES:
        raise _refused(source, _too_large())
    if text.startswith("\ufeff"):
        # A line break keeps all offsets, and whatever may start a text may follow one.
        text = "\n" + text[1:]
    if found := _UNPRINTABLE.search(text):
        raise SpecError([yaml_traps.unprintable(source, found.start())])
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(text)
    builder = _Builder(source)
    try:
        root = builder.build(loader)
    except yaml.YAMLError as failure:
        fatal = yaml_failures.syntax(source, failure)
        builder.errors[:] = [found for found in builder.errors if not _inside(found, fatal)]
        builder.errors.append(fatal)
    except _FatalError:
        pass
    finally:
        loader.dispose()
    if builder.errors:
        raise SpecError(sorted(builder.errors, key=_order))
    if isinstance(root, Scalar) and root.absent:
        found_empty = error(
            "empty-spec",
            "the spec is empty",
            help="a spec needs at least `cnnspec: 1`, `name`, `inputs` and `layers`",
        )
        raise _refused(source, found_empty)
    return root


class _FatalError(Exception):
    """Reading cannot go on; the reason is the last of the builder's errors."""


class _Frame:
    """A mapping or list whose end has not been read yet."""

    __slots__ = (
        "anchor",
        "bare",
        "end",
        "flow",
        "height",
        "items",
        "key",
        "key_end",
        "mapping",
        "size",
        "start",
    )

    def __init__(self, mapping: bool, flow: bool, start: int, anchor: str | None) -> None:
        self.mapping = mapping
        self.flow = flow
        self.start = start
        self.end = start
        self.anchor = anchor
        self.items: list[Any] = []
        self.key: Scalar | None = None
        self.key_end = start
        self.bare: list[int] = []
        """Positions in `items` of flow entries that have no colon."""
        self.size = 1
        """Nodes in here, those that aliases stand for included."""
        self.height = 1


class _Builder:
    """Builds the tree bottom up; `errors` gathers what does not hinder reading on."""

    def __init__(self, source: Source) -> None:
        self.errors: list[Diagnostic] = []
        self._source = source
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Node, int, int] | None] = {}
        """The node of an anchor, its size and height; None while the node is being read."""
        self._nodes = 0
        self._aliased = 0
        self._root: Node | None = None
        self._line, self._line_start, self._line_end = 1, 0, -1
        """The line of the last span, and the offsets between which it lies."""

    def build(self, loader: Any) -> Node:
        """Read all events of a PyYAML loader; the root of their only document."""
        next_event = loader.get_event
        while True:
            event = next_event()
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._document(event)
            elif isinstance(event, yaml.StreamEndEvent):
                break
        return self._root or Scalar("", self._span(0, 0))

    def _document(self, event: Any) -> None:
        if self._root is not None:
            self._stop(yaml_traps.several_documents(self._source, event.start_mark.index))

    def _scalar(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        text, style, anchor = event.value, event.style, event.anchor
        if anchor or event.tag is not None:
            start = self._content(event)
        if not style:
            if not text:
                start = end = self._absence(start if anchor is None else end)
            node = Scalar(text, self._span(start, end))
        elif style in "|>":
            end = start + len(self._source.text[start:end].rstrip())
            node = Scalar(text, self._span(start, end), False, False, True)
            if not text and self._source.text[start + 1 : start + 2].isdigit():
                # `>8` asks for an indentation of 8, and nothing below has it.
                self._report(yaml_traps.block_indicator(self._source, start))
        else:
            node = Scalar(text, self._span(start, end), False, True, False)
        if anchor:
            self._anchors[anchor] = node, 1, 0
        self._place(node, start, end, 1, 0)

    def _absence(self, position: int) -> int:
        """Where a value that is not written would start: after the colon of its key."""
        frame = self._frames[-1] if self._frames else None
        if frame is None or frame.key is None:
            return position
        if colon := _COLON.match(self._source.text, frame.key_end):
            return colon.end()
        if frame.flow:
            frame.bare.append(len(frame.items))
        return frame.key_end

    def _alias(self, event: Any) -> None:
        start, end, name = event.start_mark.index, event.end_mark.index, event.anchor
        span = self._span(start, end)
        target = self._anchors.get(name)
        if target is None:
            self._report(yaml_traps.alias(span, name, recursive=name in self._anchors))
            target = Scalar(f"*{name}", span), 1, 0
        node, size, height = target
        self._aliased += size
        if self._aliased > MAX_ALIASED_NODES:
            message = f"the aliases up to here stand for more than {MAX_ALIASED_NODES:,} nodes"
            help_text = "use a block with `repeat` or `for` in place of aliases"
            self._stop(error("alias-expansion", message, span, help=help_text))
        if len(self._frames) + height > MAX_DEPTH:
            self._stop(self._too_deep(span))
        frame = self._frames[-1] if self._frames else None
        if isinstance(node, Scalar) and frame and frame.mapping and frame.key is None:
            # Diagnostics about this key must point at this mapping.
            node = replace(node, span=span)
        self._place(node, start, end, size, height)

    def _open(self, event: Any) -> None:
        start, anchor = event.start_mark.index, event.anchor
        if anchor or event.tag is not None:
            start = self._content(event)
            if anchor:
                self._anchors[anchor] = None
        if len(self._frames) >= MAX_DEPTH:
            self._stop(self._too_deep(self._span(start, start + 1)))
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._frames.append(_Frame(mapping, bool(event.flow_style), start, anchor))

    def _close(self, event: Any) -> None:
        frame = self._frames.pop()
        # The end mark of indented lines lies at the next token, lines below; a pair such as
        # `[a: 1]` has no closing mark at all.
        bracketed = frame.flow and self._source.text[frame.start] in "{["
        end = event.end_mark.index if bracketed else frame.end
        span = self._span(frame.start, end)
        node: Node
        if frame.mapping:
            node = Mapping(tuple(frame.items), span, frame.flow)
            self._check_mapping(node, frame.bare)
        else:
            node = Sequence(tuple(frame.items), span, frame.flow)
            if frame.flow:
                self._report(*yaml_traps.split_items(node))
        if frame.anchor:
            self._anchors[frame.anchor] = node, frame.size, frame.height
        self._place(node, frame.start, end, frame.size, frame.height)

    def _place(self, node: Node, start: int, end: int, size: int, height: int) -> None:
        """Put a finished node where it belongs: under a key, into a list, or at the root."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"the file has more than {MAX_NODES:,} keys, values and items"
            self._stop(error("too-many-nodes", message, self._span(0, 0)))
        if not self._frames:
            self._root = node
            return
        frame = self._frames[-1]
        frame.size += size
        frame.end = end
        if frame.height <= height:
            frame.height = height + 1
        if not frame.mapping:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node, start, end)
            frame.key_end = end
        else:
            frame.items.append((frame.key, node))
            frame.key = None

    def _key(self, node: Node, start: int, end: int) -> Scalar:
        if isinstance(node, Scalar) and not node.absent:
            return node
        span = self._span(start, end)
        self._report(yaml_traps.key_not_text(None if isinstance(node, Scalar) else node, span))
        return Scalar(span.text, span)

    def _check_mapping(self, node: Mapping, bare: list[int]) -> None:
        if bare:
            self._report(*yaml_traps.bare_entries(node, bare))
        colonless = set(bare)
        first: dict[str, Scalar] = {}
        for position, (key, _) in enumerate(node.items):
            if position in colonless:
                continue
            if key.plain and (found := yaml_traps.merge_key(key) or yaml_traps.glued_key(key)):
                self._report(found)
            elif key.text in first:
                self._report(yaml_traps.duplicate_key(key, first[key.text]))
            else:
                first[key.text] = key

    def _content(self, event: Any) -> int:
        """Where a node with an anchor or a tag starts itself."""
        start: int = event.start_mark.index
        end: int = event.end_mark.index
        text = self._source.text
        if event.tag is not None:
            found = _TAG.match(text, start)
            tag_start, tag_end = found.span(1) if found else (start, end)
            self._report(yaml_traps.tag(self._source, tag_start, tag_end))
        properties = _PROPERTIES.match(text, start)
        return min(properties.end(), end) if properties and end > start else start

    def _span(self, start: int, end: int) -> Span:
        """`Source.span`, quick for a text that is read line by line."""
        if not self._line_start <= start <= end <= self._line_end:
            source = self._source
            self._line, column = source.position(start)
            self._line_start = start - column + 1
            newline = source.text.find("\n", start)
            self._line_end = len(source.text) if newline < 0 else newline
            if end > self._line_end:
                return source.span(start, end)
        line, shift = self._line, 1 - self._line_start
        return Span(self._source, line, start + shift, line, end + shift)

    def _too_deep(self, span: Span) -> Diagnostic:
        return error(
            "too-deep",
            f"the file nests mappings and lists deeper than {MAX_DEPTH} levels",
            self._span(0, 0),
            notes=[Note(f"level {MAX_DEPTH + 1} starts here", span)],
        )

    def _report(self, *found: Diagnostic) -> None:
        self.errors.extend(found)
        if len(self.errors) >= MAX_ERRORS:
            del self.errors[MAX_ERRORS:]
            raise _FatalError

    def _stop(self, found: Diagnostic) -> None:
        self.errors.append(found)
        raise _FatalError


def _too_large() -> Diagnostic:
    message = f"the file is larger than {MAX_BYTES // 1_000_000} MB"
    return error("file-too-large", message, help="use blocks and loops in place of repeated text")


def _refused(source: Source, found: Diagnostic) -> SpecError:
    """An error about the file as a whole, at line 1, column 1."""
    return SpecError([replace(found, span=source.span(0, 0))])


def _inside(found: Diagnostic, other: Diagnostic) -> bool:
    """Whether an error lies within the place of another, which then is the cause of both."""
    inner, outer = found.span, other.span
    if inner is None or outer is None:
        return False
    return (outer.line, outer.column) <= (inner.line, inner.column) and (
        inner.end_line,
        inner.end_column,
    ) <= (outer.end_line, outer.end_column)


def _order(found: Diagnostic) -> tuple[int, int]:
    return (found.span.line, found.span.column) if found.span else (1, 1)
