"""Diagnostics as text: the place, the line with a caret, notes and help, as rustc prints them.

Also as JSON and as GitHub annotations. What a diagnostic says is decided where it is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from cnnspec.diagnostics import Diagnostic, Note, quantity
from cnnspec.report.styled import Line, as_plain, as_text, display_width, visible
from cnnspec.source import Span

if TYPE_CHECKING:
    from rich.text import Text

__all__ = [
    "count_line",
    "diagnostic_lines",
    "diagnostics_document",
    "render_annotations",
    "render_diagnostics",
]

_STYLES = {"error": "bold red", "warning": "bold yellow"}
_TAB = "    "
_ELLIPSIS = "…"
_LEAST_EXCERPT = 20


@overload
def render_diagnostics(
    diagnostics: Sequence[Diagnostic], *, width: int, colour: Literal[False] = False
) -> str: ...


@overload
def render_diagnostics(
    diagnostics: Sequence[Diagnostic], *, width: int, colour: bool
) -> str | Text: ...


def render_diagnostics(
    diagnostics: Sequence[Diagnostic], *, width: int, colour: bool = False
) -> str | Text:
    """All diagnostics, one blank line between them, and a last line that counts them.

    Excerpts of the source are cut to `width` columns, messages are not. Empty without diagnostics.
    Plain text, or a rich `Text` with `colour`.
    """
    lines: list[Line] = []
    for diagnostic in diagnostics:
        lines.extend(diagnostic_lines(diagnostic, width))
        lines.append([])
    if diagnostics:
        worst = "error" if any(d.severity == "error" for d in diagnostics) else "warning"
        lines.append([(count_line(diagnostics), _STYLES[worst])])
    return as_text(lines) if colour else as_plain(lines)


def count_line(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`; empty where there is nothing to count."""
    severities = [diagnostic.severity for diagnostic in diagnostics]
    counts = ((severities.count(kind), kind) for kind in ("error", "warning"))
    return ", ".join(quantity(count, kind) for count, kind in counts if count)


def diagnostic_lines(diagnostic: Diagnostic, width: int) -> Iterator[Line]:
    """The lines of one diagnostic."""
    style = _STYLES[diagnostic.severity]
    yield [
        (f"{diagnostic.severity}[{diagnostic.code}]", style),
        (f": {visible(diagnostic.message)}", "bold"),
    ]
    spans = [n.span for n in diagnostic.notes if n.span is not None and not _names_its_place(n)]
    if diagnostic.span is not None:
        spans.append(diagnostic.span)
    gutter = len(str(max((span.line for span in spans), default=0)))
    if diagnostic.span is not None:
        yield from _window(diagnostic.span, diagnostic.label, width, gutter, style, "^")
    for note in diagnostic.notes:
        if not _names_its_place(note):
            yield from _note(note, width, gutter)
    if diagnostic.help:
        yield [("help", "bold cyan"), (f": {visible(diagnostic.help)}", "")]
    for note in diagnostic.notes:
        if _names_its_place(note):
            yield from _note(note, width, gutter)


def _names_its_place(note: Note) -> bool:
    """Whether the message gives the span as `file:line:column`: a step of a chain of calls.

    Such a note stands on one line, at the end.
    """
    return note.span is not None and str(note.span) in note.message


def _note(note: Note, width: int, gutter: int) -> Iterator[Line]:
    yield [("note", "bold green"), (f": {visible(note.message)}", "")]
    if note.span is not None and not _names_its_place(note):
        yield from _window(note.span, "", width, gutter, "bold green", "-")


def _window(
    span: Span, label: str, width: int, gutter: int, style: str, mark: str
) -> Iterator[Line]:
    """` --> place` and the first line of the span, with the span marked and labelled below it."""
    blue = "bold blue"
    margin = " " * gutter
    place = f"{visible(span.source.name)}:{span.line}:{span.column}"
    yield [(f"{margin}--> ", blue), (place, "")]
    line = span.source.line(span.line)
    end = span.end_column if span.end_line == span.line else len(line) + 1
    excerpt, offset, length = _excerpt(line, span.column - 1, end - 1, width - gutter - 3)
    yield [(f"{margin} |", blue)]
    yield [(f"{span.line:>{gutter}} | ", blue), (excerpt, "")]
    marks = " " * offset + mark * max(length, 1)
    label = f" {visible(label)}" if label else ""
    yield [(f"{margin} | ", blue), (marks + label, style)]


def _excerpt(line: str, start: int, end: int, width: int) -> tuple[str, int, int]:
    """A part of `line` of at most `width` columns around the characters `start` to `end`.

    Returns the text, and the column and the number of columns of the marked part in it. Tabs
    become spaces and invisible characters escapes, each piece kept whole, so that marks line up.
    """
    width = max(width, _LEAST_EXCERPT)
    end = min(max(end, start), len(line))
    start = min(start, len(line))
    # No more than `width` characters on either side can be seen: a line may have millions.
    first, last = max(0, start - width), min(len(line), start + width)
    pieces = [_TAB if c == "\t" else visible(c) for c in line[first:last]]
    cells = [display_width(piece) for piece in pieces]
    at, stop = start - first, min(end, last) - first
    before, marked = sum(cells[:at]), sum(cells[at:stop])
    if first == 0 and last == len(line) and sum(cells) <= width:
        return "".join(pieces), before, marked

    room = width - 2
    shown_from, shown_to = at, at
    used = 0
    while shown_to < len(cells) and used + cells[shown_to] <= room:
        if shown_to >= stop and used >= room * 2 // 3:
            break
        used += cells[shown_to]
        shown_to += 1
    while shown_from > 0 and used + cells[shown_from - 1] <= room:
        shown_from -= 1
        used += cells[shown_from]
    while shown_to < len(cells) and used + cells[shown_to] <= room:
        used += cells[shown_to]
        shown_to += 1
    left = _ELLIPSIS if first + shown_from > 0 else ""
    right = _ELLIPSIS if first + shown_to < len(line) else ""
    text = left + "".join(pieces[shown_from:shown_to]) + right
    offset = len(left) + sum(cells[shown_from:at])
    return text, offset, sum(cells[at : min(stop, shown_to)])


def diagnostics_document(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """Diagnostics as `cnnspec check --format json` prints them, format 1.

    Lines and columns count from 1, ends are exclusive; all are null for a finding without a place.
    """
    return {"format": 1, "diagnostics": [diagnostic_document(d) for d in diagnostics]}


def diagnostic_document(diagnostic: Diagnostic) -> dict[str, Any]:
    """One diagnostic as a JSON object."""
    return {
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        **_place(diagnostic.span),
        "label": diagnostic.label,
        "help": diagnostic.help or None,
        "notes": [{"message": note.message, **_place(note.span)} for note in diagnostic.notes],
    }


def _place(span: Span | None) -> dict[str, Any]:
    if span is None:
        return dict.fromkeys(("file", "line", "column", "end_line", "end_column"))
    return {
        "file": span.source.name,
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
    }


def render_annotations(diagnostics: Iterable[Diagnostic]) -> str:
    """Diagnostics as GitHub workflow commands, one a line; nothing in them can start another."""
    return "".join(_annotation(diagnostic) + "\n" for diagnostic in diagnostics)


def _annotation(diagnostic: Diagnostic) -> str:
    span = diagnostic.span
    properties = {"title": f"{diagnostic.severity}[{diagnostic.code}]"}
    if span is not None:
        place = {"line": span.line, "endLine": span.end_line}
        if span.line == span.end_line:
            # GitHub knows columns of one line only.
            place = {
                "line": span.line,
                "col": span.column,
                "endLine": span.end_line,
                "endColumn": span.end_column,
            }
        lines = {name: str(number) for name, number in place.items()}
        properties = {"file": span.source.name, **lines, **properties}
    parts = [diagnostic.message, diagnostic.label]
    text = "\n".join(
        [": ".join(filter(None, parts))]
        + [f"note: {note.message}" for note in diagnostic.notes]
        + ([f"help: {diagnostic.help}"] if diagnostic.help else [])
    )
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{diagnostic.severity} {written}::{_data(text)}"


def _data(text: str) -> str:
    """Text after the second `::`: line breaks are kept as escapes, other controls made visible."""
    lines = [visible(line) for line in text.replace("%", "%25").split("\n")]
    return "%0A".join(lines)


def _property(text: str) -> str:
    escaped = _data(text)
    return escaped.replace(":", "%3A").replace(",", "%2C")
