"""The traps of YAML: each text gets one error, at the smallest place, with the way out."""

from __future__ import annotations

import pytest
import yaml

from cnnspec.diagnostics import Diagnostic, SpecError
from cnnspec.frontend.reader import read
from cnnspec.frontend.tree import Node, Scalar, Sequence
from cnnspec.source import Source


def _errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        read(Source("spec.yaml", text))
    return caught.value.diagnostics


def _plain(node: Node) -> object:
    """The tree as Python values, all scalars as text."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return {key.text: _plain(value) for key, value in node.items}


COMMA = "a comma ends a value inside"
MIDDLE = "cannot stand in the middle of a plain value"
SPACE = "no space follows the colon after"

TRAPS = [
    # text, code, line, column, what is marked, part of the message, part of the help
    ("{stride: 1, stride: 2}", "duplicate-key", 1, 13, "stride", "given twice", "keep one"),
    ("a: 1\nb: 2\n'a': 3\n", "duplicate-key", 3, 1, "'a'", "`a` is given twice", "keep one"),
    ("{out: max(8, w), stride: 2}", "flow-comma", 1, 7, "max(8, w)", COMMA, '`out: "max(8, w)"`'),
    ("{p: f(g(a, b), c), q: 1}", "flow-comma", 1, 5, "f(g(a, b), c)", COMMA, "quote the value"),
    ("{p: f(a, b}", "flow-comma", 1, 5, "f(a, b", COMMA, "quote the value"),
    ('{p: f("a", b), q: 1}', "flow-comma", 1, 5, 'f("a", b)', COMMA, "'f(\"a\", b)'"),
    ('{p: f(a, "b"), q: 1}', "flow-comma", 1, 5, 'f(a, "b")', COMMA, "quote the value"),
    ("{kernel_size: (1, 7)}", "flow-comma", 1, 15, "(1, 7)", COMMA, "write a list, `[1, 7]`"),
    ("[max(8, w), 2]", "flow-comma", 1, 2, "max(8, w)", COMMA, '`"max(8, w)"`'),
    ("[a, {b: c}, f(d, e)]", "flow-comma", 1, 13, "f(d, e)", COMMA, "quote the value"),
    ("outputs: {c3, c4}", "flow-comma", 1, 10, "{c3, c4}", "have no values", "`[c3, c4]`"),
    ("name: {i}", "flow-comma", 1, 7, "{i}", "`i` has no value", '`"{i}"`'),
    ("{a: 1, bias}", "flow-comma", 1, 8, "bias", "`bias` has no value", "`bias: VALUE`"),
    ("{k:3}", "yaml-colon", 1, 2, "k:3", SPACE, "put a space after the colon: `k: 3`"),
    ("- Conv2d:{out: 3}", "yaml-colon", 1, 3, "Conv2d:", SPACE, "put a space after the colon"),
    ("- Conv2d:{out: 3, k: 1}", "yaml-colon", 1, 3, "Conv2d:", SPACE, "`Conv2d: {out: 3, k: 1}`"),
    ("name:x\nb: 1", "yaml-colon", 1, 1, "name:x", SPACE, "`name: x`"),
    ("b: 1\nname:x\nc: 1", "yaml-colon", 2, 1, "name:", SPACE, "`name: x`"),
    ("b: 1\nlayers\nc: 1", "yaml-colon", 2, 1, "layers", "no colon follows `layers`", "`layers:`"),
    ("layers\nc: 1", "yaml-colon", 1, 1, "layers", "no colon follows `layers`", "`layers:`"),
    ("{depth: depths[i]}", "flow-bracket", 1, 9, "depths[i]", MIDDLE, '`"depths[i]"`'),
    ("{p: sum(d[:s])}", "flow-bracket", 1, 5, "sum(d[:s])", MIDDLE, '`"sum(d[:s])"`'),
    ("{p: f(a, x[i]), q: 2}", "flow-bracket", 1, 5, "f(a, x[i])", MIDDLE, "lines of its own"),
    ("[u{i}, d{i}]", "flow-bracket", 1, 2, "u{i}", MIDDLE, '`"u{i}"`'),
    ("{a: 1,\n name: conv{i}}", "flow-bracket", 2, 8, "conv{i}", MIDDLE, '`"conv{i}"`'),
    ("{a: [3]*4}", "flow-bracket", 1, 5, "[3]*4", MIDDLE, '`"[3]*4"`'),
    ("a: [3]*4\nb: 1", "flow-bracket", 1, 4, "[3]*4", "closing `]`", '`"[3]*4"`'),
    ("name: {i}.x\nb: 1", "flow-bracket", 1, 7, "{i}.x", "closing `}`", '`"{i}.x"`'),
    ("{out: *width}", "yaml-alias", 1, 7, "*width", "no anchor `&width`", "write `width`"),
    ("a: **kw", "yaml-alias", 1, 4, "**kw", "begins a YAML alias", "quote a text"),
    ("a: &&b", "yaml-alias", 1, 4, "&&b", "begins a YAML anchor", "write `and`"),
    ("&a [*a]", "yaml-alias", 1, 5, "*a", "inside the node that it refers to", "write the value"),
    ("when: !last", "yaml-tag", 1, 7, "!last", "`!last` is a YAML tag", "write `not last`"),
    ("{when: !last, a: 1}", "yaml-tag", 1, 8, "!last", "is a YAML tag", "write `not last`"),
    ("when: !x[0]", "yaml-tag", 1, 7, None, "is a YAML tag", "quote a text"),
    ("a: &q !t b", "yaml-tag", 1, 7, "!t", "`!t` is a YAML tag", "quote a text"),
    (
        "- !!python/object/apply:os.system [ls]",
        "yaml-tag",
        1,
        3,
        None,
        "YAML tag",
        "remove the tag",
    ),
    ("when: >= 8", "yaml-block-indicator", 1, 7, ">=", "`>` at the start", "`x >= 8`"),
    ("when: > 8", "yaml-block-indicator", 1, 7, ">", "`>` at the start", "`x > 8`"),
    ("when: >8\nb: 1", "yaml-block-indicator", 1, 7, ">", "`>` at the start", "quote a text"),
    ("{when: >= 8}", "yaml-block-indicator", 1, 8, ">=", "`>` at the start", "quote a text"),
    ("when: |x|", "yaml-block-indicator", 1, 7, "|", "`|` at the start", "write `or`"),
    ("message: note: x", "yaml-colon", 1, 14, ":", "second colon", '`message: "note: x"`'),
    ("{a: b: c}", "yaml-colon", 1, 6, ":", "second colon", '`"b: c"`'),
    ("a: b\n c: d", "yaml-colon", 2, 2, "c", "inside the value of `a`", "indent it like `a`"),
    ("- ReLU\n  name: x", "entry-needs-colon", 1, 3, "ReLU", "has no colon", "write `- ReLU:`"),
    ("- ReLU # c\n\n  name: x\n- a", "entry-needs-colon", 1, 3, "ReLU", "`name`", "`- ReLU:`"),
    ("a:\n  - r.x\n    from: y", "entry-needs-colon", 2, 5, "r.x", "`from`", "write `- r.x:`"),
    ("a: {<<: b}", "merge-key", 1, 5, "<<", "`<<` merges", "defaults"),
    ("? [a]\n: b", "key-not-text", 1, 3, "[a]", "a list stands where a key must", "quote it"),
    ("{{a: 1}: b}", "key-not-text", 1, 2, "{a: 1}", "a mapping stands where", "quote it"),
    (": b", "key-not-text", 1, 1, ":", "an entry has no key", "before `:`"),
    ("a: 1\n---\nb: 2", "several-documents", 2, 1, "---", "second YAML document", "one document"),
    ("a: 1\n...\nb: 2", "several-documents", 3, 1, "b", "second YAML document", "one document"),
    ("\ta: 1", "tab-indentation", 1, 1, "\t", "a tab stands", "spaces only"),
    ("a:\n  b: 1\n\tc: 2", "tab-indentation", 3, 1, "\t", "a tab stands", "spaces only"),
    ("- ReLU:\n  \tname: x", "tab-indentation", 2, 3, "\t", "a tab stands", "spaces only"),
    ("a: b\x07c", "control-character", 1, 5, "\x07", "control character U+0007", "`\\x07`"),
    ("a:\n- \ufeffb", "control-character", 2, 3, "\ufeff", "byte order mark", "remove it"),
    ("a: \ud800", "control-character", 1, 4, "\ud800", "character U+D800", "remove it"),
    ("é: ü\n'ß': [🐟, x[i]]", "flow-bracket", 2, 10, "x[i]", MIDDLE, "quote the value"),
    ("a: {b: 1", "yaml-syntax", 1, 4, "{", "`{` is never closed", "close it with `}`"),
    ("a: [1, 2\nb: 2\n", "yaml-syntax", 1, 4, "[", "`[` is never closed", "close it with `]`"),
    ('a: "x\nb: 1\n', "yaml-syntax", 1, 4, '"', "quote is never closed", "close it"),
    ('a: "\\d"', "yaml-syntax", 1, 5, "\\d", "`\\d` is no escape", "double the backslash"),
    ('a: "x" == y\nb: 1', "yaml-syntax", 1, 8, "=", "closing quote", "`'\"x\" == y'`"),
    ('{a: "x" if b}', "yaml-syntax", 1, 9, "if", "closing quote", "quote the value"),
    ("a: @x", "yaml-syntax", 1, 4, "@", "cannot begin with `@`", "quote the value"),
    ("{k: - 1}", "yaml-syntax", 1, 5, "-", "begins a list item", "`-1`"),
    ("a: - b", "yaml-syntax", 1, 4, "-", "cannot begin on the line of its key", "`[a, b]`"),
    ("[a, , b]", "yaml-syntax", 1, 5, ",", "a value is missing before `,`", "`null`"),
    ("}", "yaml-syntax", 1, 1, "}", "`}` closes nothing here", ""),
    ("- A: {}\n    name: x", "yaml-syntax", 2, 5, "name", "does not line up", "to column 3"),
    ("- A: {}\n name: x", "yaml-syntax", 2, 2, "name", "does not line up", "to column 3"),
    ("- A: {} name: x", "yaml-syntax", 1, 9, "name", "on the same line", "a line of its own"),
    ("- {a: 1}\n  name: x", "yaml-syntax", 2, 3, "name", "does not line up", "inside the braces"),
    ("a: b\n- c", "yaml-syntax", 2, 1, "-", "does not line up", "indent the list deeper"),
    ("%YAML 3.0\n---\na: 1", "yaml-syntax", 1, 1, None, "incompatible YAML document", ""),
]


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "marked", "message", "help_text"),
    TRAPS,
    ids=[repr(trap[0]) for trap in TRAPS],
)
def test_traps(
    text: str, code: str, line: int, column: int, marked: str | None, message: str, help_text: str
) -> None:
    (found,) = _errors(text)
    assert found.span is not None
    assert (found.code, found.span.line, found.span.column) == (code, line, column)
    assert marked is None or found.span.text == marked
    assert message in found.message
    assert help_text in found.help
    assert found.message[0] in f"`{found.message[0].lower()}"
    assert not found.message.endswith(".")


def test_traps_without_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(yaml, "CBaseLoader")
    for text, code, line, *_ in TRAPS:
        found = _errors(text)[0]
        assert found.span is not None
        assert (text, found.code, found.span.line) == (text, code, line)


@pytest.mark.parametrize(
    ("text", "message", "written"),
    [
        ("{stride: 1, stride: 2}", "`stride` is first given here", "stride"),
        ("- ReLU\n  name: x", "`name` is meant for `ReLU`", "name"),
        ("a: b\n c: d", "the value of `a` starts here", "b"),
        ("- A: {}\n    name: x", "the mapping starts here", "A"),
    ],
)
def test_notes_show_the_other_place(text: str, message: str, written: str) -> None:
    (found,) = _errors(text)
    (note,) = found.notes
    assert note.message == message
    assert note.span is not None
    assert note.span.text == written


def test_all_errors_of_a_text_in_its_order() -> None:
    text = "a: {k:3, s:2}\na: 1\nb: *c\nd: [f(1, 2), g(3, 4)]\ne: {x: y[0]}\n"
    found = [(error.code, error.span and error.span.line) for error in _errors(text)]
    assert found == [
        ("yaml-colon", 1),
        ("yaml-colon", 1),
        ("yaml-alias", 3),
        ("flow-comma", 4),
        ("flow-comma", 4),
        ("flow-bracket", 5),
    ]


def test_one_cause_is_one_error() -> None:
    assert [found.code for found in _errors("{f:(x)}")] == ["yaml-colon"]
    assert [found.code for found in _errors("name: {i}_{j}\n")] == ["flow-bracket"]


def test_pieces_of_a_cut_value_are_not_duplicate_keys() -> None:
    assert [found.code for found in _errors("{a: f(x, 1), b: f(y, 1)}")] == ["flow-comma"] * 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{stride: 2 if i == 0 else 1}", {"stride": "2 if i == 0 else 1"}),
        ("[H = 224, W = 224]", ["H = 224", "W = 224"]),
        ("out: max(8, w)\nname: conv{i}\ndepth: depths[i]", None),
        ('{out: "max(8, w)", name: "conv{i}"}', {"out": "max(8, w)", "name": "conv{i}"}),
        ("{a: , b: x}", {"a": "", "b": "x"}),
        ("- {conv: {out: 48}, name: a, from: input}", None),
        ("[a: 1, b]", [{"a": "1"}, "b"]),
        ("a:\tb\n", {"a": "b"}),
        ("[\n\ta,\n\tb]", ["a", "b"]),
        ("a: x\r\nb:\r\n  - y\r\n", {"a": "x", "b": ["y"]}),
        ("a: >-\nb: |\n", {"a": "", "b": ""}),
        ("skip: []\nnew: {}", {"skip": [], "new": {}}),
        ("'<<': x", {"<<": "x"}),
        ("[f(a, 2]", ["f(a", "2"]),
        ("labels: [':)', \":(\"]", {"labels": [":)", ":("]}),
    ],
)
def test_what_looks_like_a_trap_and_is_none(text: str, value: object) -> None:
    assert _plain(read(Source("spec.yaml", text))) == (value or yaml.load(text, yaml.BaseLoader))
