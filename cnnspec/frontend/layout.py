"""A YAML text as lines of parts, laid out anew: indentation, spaces, blank lines, columns.

Works on PyYAML's tokens, so that comments, order and the author's line breaks all survive; knows
YAML's layout and no word of the language. Whether the result says the same is not decided here:
`cnnspec.frontend.formatting` reads both texts and compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

__all__ = [
    "BREAK",
    "INDENT",
    "Frame",
    "Line",
    "Part",
    "comments",
    "has_anchors",
    "lay_out",
    "render",
]

INDENT = 2
"""Spaces by which each level is indented."""

BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What ends a line of YAML."""

_HEADER = re.compile(r"([|>])([-+0-9]*)[ \t]*(#.*)?")
_UNUSUAL = re.compile("[\u2028\u2029]")

_TEXTS = {
    yaml.ValueToken: ":",
    yaml.BlockEntryToken: "-",
    yaml.FlowEntryToken: ",",
    yaml.FlowMappingStartToken: "{",
    yaml.FlowMappingEndToken: "}",
    yaml.FlowSequenceStartToken: "[",
    yaml.FlowSequenceEndToken: "]",
    yaml.KeyToken: "?",
}
"""Tokens that are written in one way only."""


@dataclass(slots=True, eq=False)
class Part:
    """A token on its line. `kind` is its own text for punctuation, else `text` or `property`.

    `column` is where it stood, `gap` the spaces before it unless it starts a line, `pad` further
    ones that bring it into a column, `at` the column it gets.
    """

    text: str
    kind: str
    column: int
    gap: int
    pad: int = 0
    at: int = 0


@dataclass(slots=True, eq=False)
class Frame:
    """A collection whose end has not been met: a block of lines, or a flow in brackets.

    `column` is where its lines stood, `indent` where they get. For a flow `start` and `offset` say
    where its further lines go: so far right of a part, or of the margin without one. `close_start`
    and `close_offset` say the same of its closing bracket.
    """

    kind: str
    column: int
    indent: int
    start: Part | None = None
    offset: int = 0
    close_start: Part | None = None
    close_offset: int = 0
    empty: bool = True


@dataclass(slots=True, eq=False)
class Line:
    """One line. Its indentation is `offset`, or so much right of the part `start`.

    `frame` is the block it is a line of, and `key` the index of the part where its own text begins,
    after a dash. A `verbatim` line belongs to a scalar and is never touched.
    """

    start: Part | None = None
    offset: int = 0
    parts: list[Part] = field(default_factory=list)
    comment: str = ""
    comment_column: int = 0
    blank: bool = False
    verbatim: bool = False
    frame: Frame | None = None
    key: int = 0

    @property
    def indent(self) -> int:
        """The column of the first part; those of the lines above must be known."""
        return self.offset + (self.start.at if self.start else 0)

    def place(self) -> int:
        """Give every part its column; the column after the last."""
        column = self.indent
        for number, part in enumerate(self.parts):
            column += part.pad + (part.gap if number else 0)
            part.at = column
            column += len(part.text)
        return column


def lay_out(text: str) -> list[Line]:
    """The lines of a YAML text, which `cnnspec.frontend.reader` can read, in their new layout.

    Line breaks are those of the author, columns not yet aligned.
    """
    return _Layout(text).lines()


def render(lines: list[Line]) -> str:
    """The text of lines, with a line break at its end."""
    rendered: list[str] = []
    for line in lines:
        if line.blank:
            rendered.append("")
        end = line.place()
        if line.verbatim:
            rendered.append(" " * line.indent + line.parts[0].text if line.parts else "")
            continue
        pieces: list[str] = []
        column = 0
        for part in line.parts:
            pieces.append(" " * (part.at - column) + part.text)
            column = part.at + len(part.text)
        if line.comment:
            pieces.append(" " * max(line.comment_column - end, 0) + line.comment)
        rendered.append("".join(pieces))
    return "\n".join(rendered) + "\n"


def comments(text: str) -> Iterator[str]:
    """The comments of a YAML text in their order, without what may follow on their lines."""
    text = text.removeprefix("\ufeff")
    end = 0
    for token in _tokens(text):
        start = token.start_mark.index
        for piece in BREAK.split(text[end:start]):
            if (stripped := piece.strip(" \t\ufeff")).startswith("#"):
                yield stripped
        end = max(end, token.end_mark.index)
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            header = _HEADER.match(text, start)
            if header and header[3]:
                yield header[3].rstrip()


def has_anchors(text: str) -> bool:
    """Whether a YAML text gives names to parts of it, which may stand elsewhere too."""
    return "&" in text and any(isinstance(token, yaml.AnchorToken) for token in _tokens(text))


def _tokens(text: str) -> Iterator[Any]:
    # Stubs do not know the parser in C, which is there wherever PyYAML comes as a wheel.
    return yaml.scan(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))


class _Layout:
    """Lays out one text, once."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._lines: list[Line] = []
        self._frames: list[Frame] = []
        self._closed: list[Frame] = []
        """Frames that ended since the last part, innermost first."""
        self._opened = False
        self._key = False
        """Whether the next part is the key of a line."""
        self._explicit = False
        self._previous = ""
        """The kind of the last part."""
        self._end = 0
        self._blank = False
        self._break = False
        """Whether a break waits that has to follow a comma."""

    def lines(self) -> list[Line]:
        for token in _tokens(self.text):
            self._token(token)
        return self._lines

    def _token(self, token: Any) -> None:
        start, end = token.start_mark.index, token.end_mark.index
        column = token.start_mark.column
        match token:
            case yaml.BlockMappingStartToken() | yaml.BlockSequenceStartToken():
                mapping = isinstance(token, yaml.BlockMappingStartToken)
                self._open("map" if mapping else "seq", column)
            case yaml.BlockEndToken():
                self._leave_list()
                self._closed.append(self._frames.pop())
            case yaml.KeyToken() if start == end:
                if self._frames and self._frames[-1].kind == "list":
                    self._leave_list()
                self._key = True
            case yaml.StreamStartToken():
                pass
            case yaml.StreamEndToken():
                self._gap(len(self.text), None, 0)
            case yaml.ScalarToken() if token.style in ("|", ">"):
                self._block_scalar(start, end, column)
            case yaml.ScalarToken():
                self._scalar(start, end, column)
            case _:
                self._mark(token, start, end, column)

    def _mark(self, token: Any, start: int, end: int, column: int) -> None:
        """A token that is no scalar."""
        kind = _TEXTS.get(type(token), "property")
        if isinstance(token, (yaml.DocumentStartToken, yaml.DocumentEndToken, yaml.DirectiveToken)):
            kind = "document"
        if kind == "-" and not (self._frames and self._frames[-1].kind in ("seq", "list")):
            # A list as far left as the key above it, which has no start of its own.
            self._open("list", column)
        elif kind == "?" and self._frames and self._frames[-1].kind == "list":
            self._leave_list()
        if kind in ("}", "]"):
            self._drop_comma(start)
        self._add(Part(self.text[start:end].rstrip(), kind, column, self._space(kind)), start, end)
        if kind == "?":
            self._explicit = True
        elif kind in ("{", "["):
            bracket = self._lines[-1].parts[-1]
            self._frames.append(Frame("flow", column, 0, bracket, close_start=bracket))
        elif kind in ("}", "]"):
            self._frames.pop()
        elif kind == "document":
            self._break = True

    # ------------------------------------------------------------------------------- collections

    def _open(self, kind: str, column: int) -> None:
        indent = self._frames[-1].indent + INDENT if self._frames else 0
        self._frames.append(Frame(kind, column, indent))
        self._opened = True

    def _leave_list(self) -> None:
        if self._frames and self._frames[-1].kind == "list":
            self._closed.append(self._frames.pop())

    def _drop_comma(self, start: int) -> None:
        """Take back a comma before a closing bracket on its line."""
        parts = self._lines[-1].parts
        if len(parts) > 1 and parts[-1].kind == "," and "\n" not in self.text[self._end : start]:
            parts.pop()
            self._previous = parts[-1].kind

    # ------------------------------------------------------------------------------------- parts

    def _space(self, kind: str) -> int:
        """Spaces between the last part and one of `kind` on its line."""
        before = self._previous
        if before in ("{", "["):
            return 0
        if kind in (",", "}", "]"):
            # `a:,` would be a word that ends with a colon.
            return 1 if before == ":" else 0
        if kind == ":":
            # An alias takes the colon for its own.
            return 0 if before == "text" and not self._explicit else 1
        return 1

    def _add(self, part: Part, start: int, end: int) -> None:
        """Put a part where it belongs: on the last line, or on a new one."""
        fresh = self._gap(start, part, part.column)
        top = self._frames[-1] if self._frames else None
        if fresh or not self._lines:
            where, offset = self._where(part.kind)
            if not self._frames and part.kind == "text" and part.text.startswith(("---", "...")):
                offset = INDENT  # at the margin it would begin or end a document
            self._lines.append(Line(where, offset, blank=self._take_blank()))
        line = self._lines[-1]
        if part.kind == "-" or (self._key and top is not None and top.kind == "map"):
            line.frame = top
            line.key = len(line.parts) + (part.kind == "-")
        line.parts.append(part)
        if top is not None and top.kind == "flow" and top.empty:
            top.empty = False
            if part.kind not in ("}", "]"):
                top.start = top.start if fresh else part
        if part.kind == ":":
            self._explicit = False
        self._previous = part.kind
        self._end = end
        self._closed.clear()
        self._opened = self._key = False

    def _take_blank(self) -> bool:
        blank, self._blank = self._blank and bool(self._lines), False
        return blank

    def _where(self, kind: str) -> tuple[Part | None, int]:
        """Where a line that starts with such a part begins."""
        if kind == "document" or not self._frames:
            return None, 0
        top = self._frames[-1]
        if top.kind == "flow":
            if top.empty:
                self._hang(top)
            return (
                (top.close_start, top.close_offset)
                if kind in ("}", "]")
                else (top.start, top.offset)
            )
        if kind in ("-", "?", ":") or (self._key and top.kind == "map"):
            return None, top.indent
        return None, top.indent + INDENT

    def _hang(self, flow: Frame) -> None:
        """Let a flow whose bracket ends a line go on below, indented.

        The closing bracket of an outermost one may not stand below the key: YAML wants whatever
        belongs to a value further right than its key, though few parsers insist.
        """
        outer = self._frames[-2] if len(self._frames) > 1 else None
        if outer is None:
            flow.start, flow.offset, flow.close_start, flow.close_offset = None, INDENT, None, 0
        elif outer.kind == "flow":
            flow.start, flow.offset = outer.start, outer.offset + INDENT
            flow.close_start, flow.close_offset = outer.start, outer.offset
        else:
            flow.start = flow.close_start = None
            flow.offset = flow.close_offset = outer.indent + INDENT

    # --------------------------------------------------------------------- between two parts

    def _gap(self, start: int, part: Part | None, column: int) -> bool:
        """Keep the comments before the part at `start`; whether it begins a line."""
        pieces = BREAK.split(self.text[self._end : start])
        fresh = len(pieces) > 1 or self._break
        remarks = [piece.strip(" \t\ufeff") for piece in pieces]
        commented = any(remarks)
        kind = part.kind if part else ""
        if fresh and not commented and self._lines and self._joins(kind):
            self._break = kind == ","
            return False
        self._break = False
        if not self._lines:
            pieces.insert(0, "")
            remarks.insert(0, "")
        elif remarks[0]:
            line = self._lines[-1]
            line.comment = remarks[0]
            line_start = self.text.rfind("\n", 0, self._end) + 1
            line.comment_column = self.text.index("#", self._end) - line_start
        if len(pieces) > 2:
            self._remarks(pieces[1:-1], kind, column)
        if part is None and len(pieces) > 1 and remarks[-1]:
            self._remarks(pieces[-1:], kind, column)
        return fresh

    def _joins(self, kind: str) -> bool:
        """Whether a part may move up to the line above."""
        if kind == ",":
            return True
        if kind == ":":
            return not self._explicit
        if self._previous != "-" or kind in ("", "document"):
            return False
        # A key or a dash that opens nothing belongs to a line further out.
        return self._opened or not (self._key or kind in ("-", "?"))

    def _remarks(self, pieces: list[str], kind: str, column: int) -> None:
        """Comments and blank lines before a part that stood in `column`."""
        for piece in pieces:
            text = piece.strip(" \t\ufeff")
            if not text:
                self._blank = True
                continue
            stood = len(piece) - len(piece.lstrip(" \t\ufeff"))
            start, offset = self._where(kind) if kind else (None, 0)
            if not self._opened and stood != column:
                nearest = next((f for f in self._closed if f.column <= stood), None)
                if nearest is not None:
                    start, offset = None, nearest.indent
                elif self._previous == ":" and stood > column:
                    inside = self._frames[-1].kind != "flow" if self._frames else False
                    offset += INDENT if inside and start is None else 0
            remark = Part(text, "comment", stood, 0)
            self._lines.append(Line(start, offset, [remark], blank=self._take_blank()))

    # ----------------------------------------------------------------------------------- scalars

    def _scalar(self, start: int, end: int, column: int) -> None:
        """A plain or quoted scalar; the further lines of one get an indentation of their own."""
        written = self.text[start:end]
        first, *further = written.split("\n")
        self._add(
            Part(first if not further else first.rstrip(), "text", column, self._space("text")),
            start,
            end,
        )
        if not further:
            return
        if _UNUSUAL.search(written) or re.search(r"\\[ \t]+$", written, re.MULTILINE):
            # Breaks that are content, and spaces that are escaped.
            self._lines[-1].parts[-1].text = first
            for text in further:
                self._lines.append(Line(None, 0, [Part(text, "text", 0, 0)]))
            return
        start_part, offset = self._continuation()
        for text in further:
            parts = [Part(text.strip(" \t"), "text", 0, 0)] if text.strip(" \t") else []
            self._lines.append(Line(start_part, offset, parts))

    def _continuation(self) -> tuple[Part | None, int]:
        """Where the further lines of a scalar begin."""
        if not self._frames:
            return None, INDENT
        top = self._frames[-1]
        if top.kind == "flow":
            return top.start, top.offset
        return None, top.indent + INDENT

    def _block_scalar(self, start: int, end: int, column: int) -> None:
        """A scalar of lines as they are, after `|` or `>`."""
        header, *body = self.text[start:end].split("\n")
        found = _HEADER.match(header)
        assert found is not None  # the scanner has read it
        style, indicators, remark = found.groups()
        top = self._frames[-1] if self._frames else Frame("map", 0, 0)
        digits = indicators.strip("+-")
        if digits:
            old, new = top.column + int(digits), top.indent + int(digits)
        else:
            old = next((len(t) - len(t.lstrip(" ")) for t in body if t.strip(" ")), 0)
            new = top.indent + INDENT
        if body and len(body[-1]) > old:
            # The text ends without a break, which it is about to get.
            indicators = digits + "-"
        elif body:
            body.pop()
        while "+" not in indicators and body and len(body[-1]) <= old:
            body.pop()
        last = start + len("\n".join([header, *body]))
        self._add(Part(style + indicators, "text", column, self._space("text")), start, last)
        if remark:
            line = self._lines[-1]
            line.comment = remark.rstrip()
            line.comment_column = column + found.start(3)
        for text in body:
            kept = re.sub(f"([\u2028\u2029]) {{{old}}}", r"\1" + " " * new, text[old:])
            parts = [Part(kept, "text", 0, 0)] if kept else []
            self._lines.append(Line(None, new if kept else 0, parts, verbatim=True))
