"""Where text came from: a source file and spans of it.

The lowest room. It knows lines and columns and nothing else; it never reads a file.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Source", "Span"]


@dataclass(frozen=True, eq=False, repr=False)
class Source:
    """The text of one spec, and its name as users know it (`specs/unet.yaml`, `<stdin>`)."""

    name: str
    text: str

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        text = self.text
        position = text.find("\n")
        while position >= 0:
            starts.append(position + 1)
            position = text.find("\n", position + 1)
        return starts

    @property
    def line_count(self) -> int:
        """Number of lines; a final newline does not start another one."""
        return len(self._starts) - (1 if self.text.endswith("\n") else 0) or 1

    def line(self, number: int) -> str:
        """Text of line `number` (from 1) without its line break; empty beyond the end."""
        if not 1 <= number <= len(self._starts):
            return ""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : None if end < 0 else end].rstrip("\r")

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1, of the character at `offset` (from 0)."""
        row = bisect_right(self._starts, offset) - 1
        return row + 1, offset - self._starts[row] + 1

    def offset(self, line: int, column: int) -> int:
        """Offset of a line and column, both from 1: the inverse of `position`."""
        return self._starts[line - 1] + column - 1

    def span(self, start: int, end: int) -> Span:
        """The span of the characters `start` to `end` (offsets from 0, `end` exclusive)."""
        line, column = self.position(start)
        end_line, end_column = self.position(max(start, end))
        return Span(self, line, column, end_line, end_column)

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a source. Lines and columns count from 1; the end is exclusive."""

    source: Source
    line: int
    column: int
    end_line: int
    end_column: int

    def part(self, start: int, end: int) -> Span:
        """Characters `start` to `end` of this span, for a span that lies on one line."""
        if self.line != self.end_line:
            return self
        column = self.column
        return Span(self.source, self.line, column + start, self.line, column + max(end, start + 1))

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of `other`."""
        return Span(self.source, self.line, self.column, other.end_line, other.end_column)

    def inside(self, other: Span) -> bool:
        """Whether all of this span lies in `other`."""
        return (
            self.source is other.source
            and (other.line, other.column) <= (self.line, self.column)
            and (self.end_line, self.end_column) <= (other.end_line, other.end_column)
        )

    @property
    def text(self) -> str:
        """The characters of the span."""
        source = self.source
        return source.text[
            source.offset(self.line, self.column) : source.offset(self.end_line, self.end_column)
        ]

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def __repr__(self) -> str:
        return f"Span({self})"
