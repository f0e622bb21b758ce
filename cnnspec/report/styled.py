"""Lines of text with styles, and text made safe to print.

One layout serves terminals and pipes: as plain text, or as rich's `Text` objects (never its markup,
which text from a spec could abuse). rich is imported only when colour is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from unicodedata import category, combining, east_asian_width

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Line", "as_plain", "as_text", "display_width", "fit", "visible"]

Line = list[tuple[str, str]]
"""Pieces of one line, each with a rich style; the empty style is the terminal's own."""

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))


def visible(text: str) -> str:
    """`text` with everything that has no shape of its own, or moves the cursor, written as escapes.

    Control and format characters (right-to-left overrides too), line breaks, lone surrogates.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if category(character) not in _INVISIBLE:
        return character
    code = ord(character)
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    return named or (f"\\x{code:02x}" if code < 256 else f"\\u{{{code:x}}}")


def display_width(text: str) -> int:
    """Columns that `text` takes in a terminal: 2 for wide characters, 0 for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if combining(character) or category(character) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """`text` in at most `width` columns, its end replaced by an ellipsis where it is too long."""
    if display_width(text) <= width:
        return text
    kept, used = [], 0
    for character in text:
        used += _cells(character)
        if used > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…"


def as_plain(lines: Iterable[Line]) -> str:
    """The lines without styles and without trailing spaces, each ended by a newline."""
    return "".join("".join(piece for piece, _ in line).rstrip() + "\n" for line in lines)


def as_text(lines: Iterable[Line]) -> Text:
    """The lines as one rich `Text`, which reads no markup. Print it with `soft_wrap=True`."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore", end="")
    for line in lines:
        for piece, style in line:
            text.append(piece, style or None)
        text.append("\n")
    return text
