"""Diagnostics as text, JSON and annotations."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from cnnspec.diagnostics import Diagnostic, Note, error, warning
from cnnspec.report import diagnostics_document, render_annotations, render_diagnostics
from cnnspec.report.render import count_line
from cnnspec.report.styled import display_width, visible
from cnnspec.source import Source, Span

UNET = Source(
    "specs/unet.yaml",
    "\n" * 6 + "    from: [up, skip]\n" + "\n" * 23 + "  - decoder:\n    repeat: 4\n",
)


def concat() -> Diagnostic:
    call = Span(UNET, 31, 5, 31, 12)
    return error(
        "concat-shape",
        "cannot concat along channels: height is 56 and 57",
        Span(UNET, 7, 16, 7, 20),
        label="`skip` is 32x57x57",
        notes=[
            Note("`up` is 64x56x56"),
            Note("in `decoder`, called at specs/unet.yaml:31:5, i = 2", call),
        ],
        help="resize or pad one branch to the same height",
    )


def test_the_whole_form() -> None:
    assert render_diagnostics([concat()], width=80) == (
        """\
error[concat-shape]: cannot concat along channels: height is 56 and 57
 --> specs/unet.yaml:7:16
  |
7 |     from: [up, skip]
  |                ^^^^ `skip` is 32x57x57
note: `up` is 64x56x56
help: resize or pad one branch to the same height
note: in `decoder`, called at specs/unet.yaml:31:5, i = 2

1 error
"""
    )


def test_a_note_with_a_place_shows_it_in_a_gutter_of_one_width() -> None:
    found = error(
        "duplicate-key",
        "`stride` is given twice",
        Span(UNET, 31, 5, 31, 12),
        notes=[Note("`stride` is first given here", Span(UNET, 7, 5, 7, 9))],
    )
    assert render_diagnostics([found], width=80) == (
        """\
error[duplicate-key]: `stride` is given twice
  --> specs/unet.yaml:31:5
   |
31 |   - decoder:
   |     ^^^^^^^
note: `stride` is first given here
  --> specs/unet.yaml:7:5
   |
 7 |     from: [up, skip]
   |     ----

1 error
"""
    )


def excerpt(line: str, column: int, end: int, width: int = 80) -> tuple[str, str]:
    """The line of source as shown, and the line of marks, without their margins."""
    source = Source("s.yaml", line + "\n")
    text = render_diagnostics([error("x", "x", Span(source, 1, column, 1, end))], width=width)
    shown, marks = text.splitlines()[3:5]
    assert shown.startswith("1 | ")
    assert marks.startswith("  | ")
    return shown[4:], marks[4:]


def marked(line: str, column: int, end: int, width: int = 80) -> str:
    """What the marks stand under, by display columns."""
    shown, marks = excerpt(line, column, end, width)
    first, last = marks.index("^"), marks.rindex("^") + 1
    at, found = 0, ""
    for character in shown:
        if first <= at < last:
            found += character
        at += display_width(character)
    return found


def test_tabs_and_control_characters_keep_marks_in_line() -> None:
    assert excerpt("\ta: \x1b[31m, b", 5, 8) == ("    a: \\x1b[31m, b", "       ^^^^^^")
    assert marked("\t\tkey:\tvalue", 8, 13) == "value"
    assert marked("a\u202eb\u200bc: d", 8, 9) == "d"


def test_wide_and_combining_characters() -> None:
    assert excerpt("名前: 値", 5, 6) == ("名前: 値", "      ^^")
    assert marked("e\u0301a: x", 6, 7) == "x"


def test_a_line_longer_than_the_terminal_is_cut_around_the_marks() -> None:
    line = "x" * 500 + "HERE" + "y" * 500
    shown, _ = excerpt(line, 501, 505, width=60)
    assert shown.startswith("…x")
    assert shown.endswith("y…")
    assert display_width(shown) <= 60 - 4
    assert marked(line, 501, 505, width=60) == "HERE"
    assert marked("HERE" + "y" * 500, 1, 5, width=60) == "HERE"
    assert marked("x" * 500 + "HERE", 501, 505, width=60) == "HERE"


def test_a_marked_part_longer_than_the_terminal() -> None:
    shown, marks = excerpt("a" * 3 + "b" * 300, 4, 304, width=60)
    assert display_width(marks) <= display_width(shown) <= 56
    assert set(marks.strip()) == {"^"}


def test_a_line_of_millions_is_quick() -> None:
    assert marked("x" * 2_000_000 + "HERE" + "y" * 2_000_000, 2_000_001, 2_000_005) == "HERE"


@given(
    st.text(st.characters(exclude_characters="\n\r"), max_size=120),
    st.integers(0, 130),
    st.integers(0, 40),
    st.integers(10, 90),
)
def test_marks_lie_below_the_line_whatever_it_holds(
    line: str, start: int, length: int, width: int
) -> None:
    shown, marks = excerpt(line + "z", start + 1, start + 1 + length, width)
    assert visible(shown) == shown
    assert display_width(shown) <= max(width - 4, 20)
    assert display_width(marks.rstrip()) <= display_width(shown) + 1
    assert "^" in marks


def test_spans_beyond_the_end_and_over_several_lines() -> None:
    assert excerpt("key:", 5, 5) == ("key:", "    ^")
    source = Source("s.yaml", "key:\n  - a\n  - b\n")
    text = render_diagnostics([error("x", "x", Span(source, 2, 3, 3, 6))], width=80)
    assert text.splitlines()[3:5] == ["2 |   - a", "  |   ^^^"]


def test_a_finding_without_a_place() -> None:
    assert render_diagnostics([error("no-such-variant", "there is no variant `x`")], width=80) == (
        "error[no-such-variant]: there is no variant `x`\n\n1 error\n"
    )


def test_text_from_a_spec_cannot_act() -> None:
    source = Source("a\x1b[31m.yaml", "name: '[/x] [red]'\n")
    found = error(
        "bad-name",
        "`[/x]\x1b[2J\n::error::` is no name",
        Span(source, 1, 7, 1, 19),
        label="[bold]\x07",
        help="[link=x]y[/link]\r",
    )
    plain = render_diagnostics([found], width=80)
    assert "\x1b" not in plain
    assert plain.startswith("error[bad-name]: `[/x]\\x1b[2J\\n::error::` is no name\n")
    assert " --> a\\x1b[31m.yaml:1:7\n" in plain
    rich = render_diagnostics([found], width=80, colour=True)
    assert isinstance(rich, Text)
    out = StringIO()
    Console(file=out, width=80, color_system=None).print(rich, end="", soft_wrap=True)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == plain.splitlines()


@pytest.mark.parametrize(
    ("errors", "warnings", "text"),
    [(2, 1, "2 errors, 1 warning"), (1, 0, "1 error"), (0, 2, "2 warnings"), (0, 0, "")],
)
def test_the_count_line(errors: int, warnings: int, text: str) -> None:
    found = [error("x", "x")] * errors + [warning("x", "x")] * warnings
    assert count_line(found) == text
    assert render_diagnostics(found, width=80).splitlines()[-1:] == ([text] if text else [])


def test_document() -> None:
    document = diagnostics_document([concat(), warning("w", "about nothing")])
    assert json.loads(json.dumps(document)) == document
    assert document["format"] == 1
    first, second = document["diagnostics"]
    assert first == {
        "severity": "error",
        "code": "concat-shape",
        "message": "cannot concat along channels: height is 56 and 57",
        "file": "specs/unet.yaml",
        "line": 7,
        "column": 16,
        "end_line": 7,
        "end_column": 20,
        "label": "`skip` is 32x57x57",
        "help": "resize or pad one branch to the same height",
        "notes": [
            {
                "message": "`up` is 64x56x56",
                "file": None,
                "line": None,
                "column": None,
                "end_line": None,
                "end_column": None,
            },
            {
                "message": "in `decoder`, called at specs/unet.yaml:31:5, i = 2",
                "file": "specs/unet.yaml",
                "line": 31,
                "column": 5,
                "end_line": 31,
                "end_column": 12,
            },
        ],
    }
    assert second["file"] is None
    assert second["help"] is None


def test_annotations_of_several_lines_have_no_columns() -> None:
    found = error("bad", "m", Span(UNET, 7, 5, 9, 1))
    expected = "::error file=specs/unet.yaml,line=7,endLine=9,title=error[bad]::m\n"
    assert render_annotations([found]) == expected


def test_annotations_are_one_line_each_and_start_no_other() -> None:
    source = Source("a,b:c.yaml", "x\n")
    found = error("bad", "50% of\n::warning::it", Span(source, 1, 1, 1, 2), help="try\rthis")
    assert render_annotations([found, warning("w", "m")]) == (
        "::error file=a%2Cb%3Ac.yaml,line=1,col=1,endLine=1,endColumn=2,title=error[bad]"
        "::50%25 of%0A::warning::it%0Ahelp: try\\rthis\n"
        "::warning title=warning[w]::m\n"
    )
