"""The one layout of a spec: what `cnnspec fmt` makes of a text.

Comments, order and line breaks are the author's. Indentation, spaces, blank lines and needless
punctuation are not. Libraries that keep comments (ruamel.yaml) hold them beside values and put
them back by rules of their own, which move some and lose others; here PyYAML's tokens, with their
positions, are put on new lines and nothing is ever taken apart. Nothing is trusted either: the
result is read again and compared with what was read before, and a result that differs in a single
scalar, or lacks a comment, is never handed out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from cnnspec.diagnostics import SpecError
from cnnspec.frontend import tree
from cnnspec.frontend.columns import align
from cnnspec.frontend.layout import BREAK, INDENT, comments, has_anchors, lay_out, render
from cnnspec.frontend.reader import read
from cnnspec.source import Source, Span

__all__ = ["WIDTH", "FormattingError", "format_text"]

WIDTH = 100
"""Columns a line may have before its flow mapping is written as lines, a key on each."""

_MOST_ROUNDS = 250
"""Rounds after which what still changes is a bug: no text nests deeper."""

_BREAKS = re.compile("\r\n|[\r\x85]")
_OPERATION = re.compile(r"[A-Z][A-Za-z0-9]*")
_WORDS = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.]*(?: ?[-+*/%<>=!]{1,2} ?[A-Za-z0-9_.]+| [A-Za-z0-9_.]+)*"
)
"""Text that means the same with quotes and without, in a flow too."""


class FormattingError(Exception):
    """The formatter would have changed what a spec says: a bug in cnnspec."""


def format_text(source: Source) -> str:
    """The text of a spec in its one layout.

    Raises:
        SpecError: the text is no YAML that a spec may be.
        FormattingError: the result would not say the same.
    """
    before = read(source)
    text = _BREAKS.sub("\n", source.text.removeprefix("\ufeff"))
    for _ in range(_MOST_ROUNDS):
        try:
            formatted = _round(text)
        except (SpecError, yaml.YAMLError):
            raise FormattingError from None
        if formatted == text:
            break
        text = formatted
    if text != source.text:
        _compare(source, before, text)
    return text


def _round(text: str) -> str:
    """One pass: needless punctuation goes, the rest is laid out, lines too long are split."""
    source = Source("", text)
    # A part of the text may stand for others, which an edit would change too.
    aliased = has_anchors(text)
    if not aliased:
        text = _edited(source, _needless(source, read(source)))
    lines = lay_out(text)
    align(lines)
    text = render(lines)
    if aliased:
        return text
    source = Source("", text)
    return _edited(source, _too_long(source, read(source)))


_Edit = tuple[Span, str]


def _edited(source: Source, edits: Iterator[_Edit]) -> str:
    """The text with spans replaced, of which no two overlap."""
    found = [
        (source.offset(s.line, s.column), source.offset(s.end_line, s.end_column), new)
        for s, new in edits
    ]
    pieces, end = [], 0
    for start, stop, new in sorted(found):
        pieces += [source.text[end:start], new]
        end = stop
    return "".join([*pieces, source.text[end:]])


# ------------------------------------------------------------------------------------- the walk


@dataclass(frozen=True, slots=True)
class _Item:
    """A node on the walk through a tree: what it is, by where it stands.

    `place` is `entries` for a list of entries, `entry` for an item of one, `inside` for what else
    lies in an entry, and `elsewhere` for the rest.
    """

    node: tree.Node
    place: str
    key: bool = False


def _walk(root: tree.Node) -> Iterator[_Item]:
    """Every node in the order of the text, a mapping or list before what is in it."""
    stack = [_Item(root, "file")]
    while stack:
        item = stack.pop()
        yield item
        node = item.node
        if isinstance(node, tree.Sequence):
            inside = {"entries": "entry", "entry": "inside"}.get(item.place, item.place)
            stack.extend(_Item(child, inside) for child in reversed(node.items))
        elif isinstance(node, tree.Mapping):
            for key, value in reversed(node.items):
                stack.append(_Item(value, _below(item.place, key.text)))
                quotes = "inside" if item.place in ("entry", "inside", "entries") else "elsewhere"
                stack.append(_Item(key, quotes, key=True))


def _below(place: str, key: str) -> str:
    """What stands under a key of a mapping at a place."""
    match place, key:
        case ("file" | "block", "layers") | ("entry", "Sequential"):
            return "entries"
        case "file", "blocks":
            return "blocks"
        case "blocks", _:
            return "block"
        case (("entries" | "entry" | "inside"), _):
            return "inside"
    return "elsewhere"


def _bare_operation(item: _Item) -> tree.Scalar | None:
    """The name of the operation, if an entry is nothing else: `ReLU: {}`."""
    node = item.node
    if item.place != "entry" or not isinstance(node, tree.Mapping) or len(node.items) != 1:
        return None
    key, value = node.items[0]
    nothing = value.absent if isinstance(value, tree.Scalar) else not value.items
    if isinstance(value, tree.Sequence) or not nothing or not _OPERATION.fullmatch(key.text):
        return None
    word = key.plain or tree.literal(tree.Scalar(key.text, key.span)) == key.text
    return key if word and key.text != "Sequential" else None


def _unquotable(item: _Item) -> bool:
    """Whether quotes around a scalar mean nothing: inside entries, around words.

    A param's default and a cell of a table are text with quotes and something else without.
    """
    node = item.node
    if not isinstance(node, tree.Scalar) or node.span.line != node.span.end_line:
        return False
    if not (item.key or item.place in ("entry", "inside")):
        return False
    plain = tree.Scalar(node.text, node.span)
    return bool(_WORDS.fullmatch(node.text)) and tree.literal(plain) == node.text


# -------------------------------------------------------------------------------------- the edits


def _needless(source: Source, root: tree.Node) -> Iterator[_Edit]:
    """Punctuation that may go: quotes, and the nothing after an operation without arguments."""
    covered = -1
    for item in _walk(root):
        node = item.node
        start = source.offset(node.span.line, node.span.column)
        if start < covered:
            continue
        operation = _bare_operation(item)
        if operation is not None and node.span.line == node.span.end_line:
            covered = source.offset(node.span.end_line, node.span.end_column)
            if not _delimits(source, node):
                yield node.span, operation.text
        elif isinstance(node, tree.Scalar) and node.quoted and _unquotable(item):
            if not _delimits(source, node):
                yield node.span, node.text
        elif isinstance(node, tree.Scalar) and node.quoted and _requotable(node):
            yield node.span, f'"{node.text}"'


def _delimits(source: Source, node: tree.Node) -> bool:
    """Whether its quotes or brackets alone end it, as in `{"a":1}` and `ReLU: {}# x`.

    The layout gives it a space, after which they may go.
    """
    rest = source.line(node.span.end_line)[node.span.end_column - 1 :]
    return re.match(r"#|[ \t]*:\S", rest) is not None


def _requotable(node: tree.Scalar) -> bool:
    """Whether single quotes may be double ones, which most specs have."""
    written = node.span.text
    return written == f"'{node.text}'" and not re.search(r"[\"\\\n]", node.text)


def _too_long(source: Source, root: tree.Node) -> Iterator[_Edit]:
    """Flow mappings that make their lines too long, each as lines of its own."""
    for item in _walk(root):
        node = item.node
        if isinstance(node, tree.Scalar) or node.flow:
            continue
        if isinstance(node, tree.Sequence):
            for value in node.items:
                if _splits(value) and any(
                    isinstance(inner, tree.Mapping)
                    for _, inner in (value.items if isinstance(value, tree.Mapping) else ())
                ):
                    yield _split(source, value, value.span.column - 1, "")
            continue
        for key, value in node.items:
            if _splits(value) and key.span.line == value.span.line:
                yield _split(source, value, key.span.column - 1 + INDENT, "\n")


def _splits(node: tree.Node) -> bool:
    span = node.span
    return (
        isinstance(node, tree.Mapping)
        and node.flow
        and bool(node.items)
        and span.line == span.end_line
        and span.end_column - 1 > WIDTH
        and span.text.startswith("{")
        and not BREAK.search(span.text)
    )


def _split(source: Source, node: tree.Node, indent: int, first: str) -> _Edit:
    """A flow mapping as lines; what follows it on its line moves up, to the end of the first."""
    assert isinstance(node, tree.Mapping)  # the caller has looked
    margin = " " * indent
    items = []
    for key, value in node.items:
        absent = isinstance(value, tree.Scalar) and value.absent
        items.append(f"{key.span.text}:" if absent else key.span.to(value.span).text)
    line = source.line(node.span.line)
    remark = line[node.span.end_column - 1 :]
    end = len(line) + 1
    span = Span(source, node.span.line, node.span.column, node.span.line, end)
    if first:
        return span, f"{remark.strip()}\n" + "\n".join(margin + text for text in items)
    head, *rest = items
    return span, "\n".join([f"{head}  {remark.strip()}".rstrip(), *(margin + t for t in rest)])


# ---------------------------------------------------------------------------------- the comparison


def _content(root: tree.Node) -> Iterator[tuple[object, ...]]:
    """All that a tree says, in order; what differs only in layout gives the same."""
    skip = 0
    for item in _walk(root):
        if skip:
            skip -= 1
            continue
        node = item.node
        operation = _bare_operation(item)
        if operation is not None:
            skip = 2
            yield "text", operation.text, True
        elif isinstance(node, tree.Scalar):
            yield "text", node.text, node.plain or _unquotable(item)
        else:
            kind = "mapping" if isinstance(node, tree.Mapping) else "list"
            yield kind, len(node.items)


def _compare(source: Source, before: tree.Node, text: str) -> None:
    """Refuse a text that says anything else than the source."""
    try:
        after = read(Source(source.name, text))
    except SpecError:
        raise FormattingError from None
    same = list(_content(before)) == list(_content(after))
    if not same or list(comments(source.text)) != list(comments(text)):
        raise FormattingError
