"""The YAML reader: spans, literals of YAML 1.2, encodings, hostile and random input."""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnspec.diagnostics import Diagnostic, SpecError
from cnnspec.frontend import reader
from cnnspec.frontend.reader import read, read_bytes
from cnnspec.frontend.tree import Mapping, Node, Scalar, Sequence, literal
from cnnspec.source import Source, Span

SPEC = """\
# yaml-language-server: $schema=...
cnnspec: 1
name: "résumé"
params: {depths: [3, 4], classes: int = 1000}
layers:
  - Conv2d: {out_channels: width, kernel_size: 1, bias: false}
    name: conv1
  - BatchNorm2d:
    name: bn1   # a comment

  - ReLU
  - bottleneck: {width: 64*2**s, stride: 2 if i == 0 and s > 0 else 1}
    for: i in range(depth)
    note: |
      two
      lines
assert: [{that: H % 32 == 0, message: 'it''s'}]
"""


def _read(text: str) -> Node:
    return read(Source("spec.yaml", text))


def _errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        _read(text)
    return caught.value.diagnostics


def _plain(node: Node) -> object:
    """The tree as Python values, all scalars as text."""
    if isinstance(node, Scalar):
        return node.text
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return {key.text: _plain(value) for key, value in node.items}


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _nodes(item)
    elif isinstance(node, Mapping):
        for key, value in node.items:
            yield key
            yield from _nodes(value)


def _at(node: Node, *path: str | int) -> Node:
    for step in path:
        if isinstance(node, Mapping):
            assert isinstance(step, str)
            found = node.get(step)
            assert found is not None
            node = found
        else:
            assert isinstance(node, Sequence)
            assert isinstance(step, int)
            node = node.items[step]
    return node


def _place(span: Span) -> tuple[int, int, int, int]:
    return span.line, span.column, span.end_line, span.end_column


def _assert_inside(span: Span | None, text: str) -> None:
    assert span is not None
    lines = text.split("\n")
    for line, column in ((span.line, span.column), (span.end_line, span.end_column)):
        assert 1 <= line <= len(lines)
        assert 1 <= column <= len(lines[line - 1]) + 1
    assert (span.line, span.column) <= (span.end_line, span.end_column)


# --- the tree ----------------------------------------------------------------------------------


def test_tree_equals_what_yaml_says() -> None:
    assert _plain(_read(SPEC)) == yaml.load(SPEC, yaml.BaseLoader)


def test_spans_cover_what_is_written() -> None:
    root = _read(SPEC)
    written = {
        ("name",): '"résumé"',
        ("params",): "{depths: [3, 4], classes: int = 1000}",
        ("params", "depths"): "[3, 4]",
        ("params", "classes"): "int = 1000",
        ("layers", 1): "BatchNorm2d:\n    name: bn1",
        ("layers", 2): "ReLU",
        ("layers", 3, "bottleneck", "stride"): "2 if i == 0 and s > 0 else 1",
        ("layers", 3, "note"): "|\n      two\n      lines",
        ("assert", 0, "message"): "'it''s'",
    }
    for path, text in written.items():
        assert _at(root, *path).span.text == text
    assert _place(_at(root, "layers").span) == (6, 3, 16, 12)
    assert _place(root.span) == (2, 1, 17, 48)


def test_kinds_of_scalars_and_collections() -> None:
    root = _read(SPEC)
    kinds = {("name",): "quoted", ("params", "classes"): "plain", ("layers", 3, "note"): "block"}
    for path, kind in kinds.items():
        scalar = _at(root, *path)
        assert isinstance(scalar, Scalar)
        assert {k: getattr(scalar, k) for k in ("plain", "quoted", "block")} == {
            k: k == kind for k in ("plain", "quoted", "block")
        }
    for path, flow in {("layers",): False, ("params",): True, ("params", "depths"): True}.items():
        node = _at(root, *path)
        assert isinstance(node, Mapping | Sequence)
        assert node.flow is flow


def test_mapping_lookup() -> None:
    root = _read("a: 1\nb: 2\n")
    assert isinstance(root, Mapping)
    key = root.key("b")
    assert key is not None
    assert _place(key.span) == (2, 1, 2, 2)
    assert root.get("c") is None
    assert root.key("c") is None


@pytest.mark.parametrize(
    ("text", "path", "line", "column"),
    [
        ("- BatchNorm2d:\n  name: bn1\n", (0, "BatchNorm2d"), 1, 15),
        ("- BatchNorm2d : # comment\n  name: bn1\n", (0, "BatchNorm2d"), 1, 16),
        ("{BatchNorm2d: , name: bn1}", ("BatchNorm2d",), 1, 14),
        ("{? BatchNorm2d # c: , d\n :\n, name: bn1}", ("BatchNorm2d",), 2, 3),
        ("{name: bn1, BatchNorm2d: }", ("BatchNorm2d",), 1, 25),
        ("- a\n-\n- b\n", (1,), 2, 2),
        ("- &x\n- b\n", (0,), 1, 5),
    ],
)
def test_absent_values(text: str, path: tuple[str | int, ...], line: int, column: int) -> None:
    node = _at(_read(text), *path)
    assert isinstance(node, Scalar)
    assert node.absent
    assert literal(node) is None
    assert _place(node.span) == (line, column, line, column)


@pytest.mark.parametrize(
    ("text", "start", "end", "column", "end_column"),
    [
        ("a: depths[i]", 7, 8, 11, 12),
        ('a: "depths[i]"', 7, 8, 12, 13),
        ("a: 'depths[i]'", 7, 8, 12, 13),
        ("é: 'ü[i]'", 2, 3, 7, 8),
        ("a: 'it''s x'", 5, 6, 4, 13),
        ('a: "x\\t+ y"', 2, 3, 4, 12),
        ("a: ''", 0, 0, 4, 6),
    ],
)
def test_content_span(text: str, start: int, end: int, column: int, end_column: int) -> None:
    node = _at(_read(text), text[0])
    assert isinstance(node, Scalar)
    assert _place(node.content_span(start, end)) == (1, column, 1, end_column)


@pytest.mark.parametrize("value", ["|\n  x +\n  y", "x +\n  y", '"x +\n  y"'])
def test_content_span_over_several_lines_is_the_whole(value: str) -> None:
    node = _at(_read(f"a: {value}\n"), "a")
    assert isinstance(node, Scalar)
    assert node.content_span(1, 2) == node.span
    assert node.span.text == value


@pytest.mark.parametrize(
    "text",
    [
        "é: [ü, 🐟, b]\nc: ß\n",
        "\ufeffé: [ü, 🐟, b]\r\nc: ß\r\n",
        "a: b\x85c: ß\n",
        "%YAML 1.1\n---\na: ß\n",
        "a: x\u2028c: ß\n",
    ],
)
def test_positions_count_characters(text: str) -> None:
    nodes = list(_nodes(_read(text)))
    scalars = [node for node in nodes if isinstance(node, Scalar)]
    assert [node.span.text for node in scalars] == [node.text for node in scalars]


def test_both_parsers_of_pyyaml_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    with_c = [(_place(node.span), type(node)) for node in _nodes(_read(SPEC))]
    monkeypatch.delattr(yaml, "CBaseLoader")
    assert [(_place(node.span), type(node)) for node in _nodes(_read(SPEC))] == with_c


def test_aliases_are_the_nodes_of_their_anchors() -> None:
    root = _read("a: &x {k: 1}\nb: *x\nc: [*x, *x]\n")
    first = _at(root, "a")
    assert first.span.text == "{k: 1}"
    assert _at(root, "b") is first
    assert _at(root, "c", 1) is first


def test_a_key_by_alias_is_placed_at_the_alias() -> None:
    root = _read("- &x name\n- {*x : 1}\n")
    mapping = _at(root, 1)
    assert isinstance(mapping, Mapping)
    assert mapping.items[0][0].text == "name"
    assert mapping.items[0][0].span.text == "*x"


# --- literals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, None) for text in ("null", "Null", "NULL", "~")),
        *((text, True) for text in ("true", "True", "TRUE")),
        *((text, False) for text in ("false", "False", "FALSE")),
        ("0", 0),
        ("-12", -12),
        ("+7", 7),
        ("010", 10),
        ("0o17", 15),
        ("0xFf", 255),
        ("1" * 60, int("1" * 60)),
        ("0" * 100 + "1", 1),
        ("1e-5", 1e-5),
        (".5", 0.5),
        ("1.", 1.0),
        ("-1.5E+3", -1500.0),
        ("12e3", 12000.0),
        (".inf", math.inf),
        ("+.INF", math.inf),
        ("-.Inf", -math.inf),
        *(
            (text, text)
            for text in ("no", "yes", "on", "Off", "y", "1_000", "3:30", "0b1", "1e", ".", "tRUE")
        ),
        *((text, text) for text in ("-0x1", "0o8", "٣", "nan", "inf", "1 000", "2024-01-01")),
    ],
)
def test_plain_literals(text: str, value: object) -> None:
    node = _at(_read(f"a: {text}\n"), "a")
    assert isinstance(node, Scalar)
    found = literal(node)
    assert found == value
    assert type(found) is type(value)


def test_nan() -> None:
    node = _read(".nan")
    assert isinstance(node, Scalar)
    found = literal(node)
    assert isinstance(found, float)
    assert math.isnan(found)


@pytest.mark.parametrize("text", ['"1"', "'true'", "''", "|\n  1", ">-\n  null"])
def test_quoted_and_block_scalars_are_text(text: str) -> None:
    node = _read(text)
    assert isinstance(node, Scalar)
    assert literal(node) == node.text


@pytest.mark.parametrize("text", ["1" * 61, "-" + "9" * 5000, "0x" + "f" * 61, "1e999", "-1e309"])
def test_numbers_too_large(text: str) -> None:
    node = _at(_read(f"a: {text}"), "a")
    assert isinstance(node, Scalar)
    with pytest.raises(SpecError) as caught:
        literal(node)
    (found,) = caught.value.diagnostics
    assert found.code == "number-too-large"
    assert found.span == node.span


# --- bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        "a: é\n".encode(),
        codecs.BOM_UTF8 + "a: é\n".encode(),
        codecs.BOM_UTF16_LE + "a: é\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a: é\n".encode("utf-16-be"),
    ],
)
def test_encodings(data: bytes) -> None:
    source = read_bytes("spec.yaml", data)
    assert source.name == "spec.yaml"
    assert source.text == "a: é\n"


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b"a: 1\nb: \xe9\n", "not-text", "not UTF-8 text: line 2 holds a byte"),
        (b"\x89PNG\r\n\x1a\n\x00", "not-text", "not UTF-8 text: line 1"),
        (b"PK\x03\x04\x00\x00", "not-text", "it holds NUL bytes"),
        ("a: 1\n".encode("utf-16-le"), "not-text", "it holds NUL bytes"),
        (codecs.BOM_UTF16_LE + b"a", "not-text", "not UTF-16 text"),
        (b"#" * 4_000_001, "file-too-large", "larger than 4 MB"),
    ],
)
def test_bytes_that_are_no_spec(data: bytes, code: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_bytes("spec.yaml", data)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert message in found.message
    assert found.help
    assert found.span is not None
    assert _place(found.span) == (1, 1, 1, 1)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "\ufeff", "%YAML 1.1\n---\n"])
def test_empty_specs(text: str) -> None:
    (found,) = _errors(text)
    assert found.code == "empty-spec"
    assert found.span is not None
    assert _place(found.span) == (1, 1, 1, 1)


# --- hostile input -----------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
HOSTILE = [
    ("bomb", BOMB, "alias-expansion", 5),
    ("flow lists", "[" * 100_000, "too-deep", 1),
    ("flow lists on lines", "[\n" * 100_000, "too-deep", 1),
    ("flow mappings", "{a: " * 100_000, "too-deep", 1),
    ("block lists", "- " * 100_000 + "x", "too-deep", 1),
    ("block mappings", "".join(" " * i + "a:\n" for i in range(2_500)), "too-deep", 1),
    ("question marks", "? " * 100_000, "too-deep", 1),
    ("depth by alias", "- &a " + "[" * 150 + "]" * 150 + "\n- " + "[" * 60 + "*a", "too-deep", 1),
    ("10 MB", "a" * 10_000_000, "file-too-large", 1),
    ("spaces", "a" + " " * 1_000_000 + "b\nc: d", "yaml-colon", 1),
    ("number signs", "{a " + "# " * 500_000 + "}", "yaml-syntax", 1),
    ("one long word", "x" * 1_000_000 + "\ny: z", "yaml-colon", 1),
    ("blank lines", "- x" + " \n" * 200_000 + "  name: y", "entry-needs-colon", 1),
    ("colons", ":" * 1_000_000, "yaml-colon", 1),
    ("parentheses", "[" + "(, " * 20_000 + "x[i]]", "flow-bracket", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "code", "line"), [row[1:] for row in HOSTILE],
                         ids=[row[0] for row in HOSTILE])  # fmt: skip
def test_hostile_texts_are_refused_fast(text: str, code: str, line: int) -> None:
    start = time.process_time()
    (found,) = _errors(text)
    assert time.process_time() - start < 2
    assert found.span is not None
    assert (found.code, found.span.line) == (code, line)
    assert len(found.message) < 200
    assert len(found.help) < 300


def test_depth_and_aliases_up_to_the_limits() -> None:
    _read("[" * 200 + "]" * 200)
    _read("a: &a x\nb: [" + "*a, " * reader.MAX_ALIASED_NODES + "]")
    assert _errors("[" * 201 + "]" * 201)[0].code == "too-deep"


def test_a_too_deep_spec_is_refused_as_a_whole_and_says_where() -> None:
    (found,) = _errors("a:\n  " + "[" * 200)
    assert found.span is not None
    assert _place(found.span) == (1, 1, 1, 1)
    (note,) = found.notes
    assert note.span is not None
    assert (note.span.line, note.span.column) == (2, 202)


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_NODES", 1_000)
    _read("- a\n" * 999)
    (found,) = _errors("- a\n" * 1_000)
    assert found.code == "too-many-nodes"
    assert "1,000" in found.message


def test_errors_are_limited() -> None:
    assert len(_errors("[" + "!a x, " * 100_000 + "]")) == reader.MAX_ERRORS


def test_time_is_linear() -> None:
    def seconds(entries: int) -> float:
        text = "layers:\n" + "- Conv2d: {out_channels: 8}\n  name: x\n" * entries
        start = time.process_time()
        _read(text)
        return time.process_time() - start

    small = min(seconds(500) for _ in range(3))
    assert seconds(10_000) < 20 * small * 4 + 0.2


# --- random input ------------------------------------------------------------------------------


def _outcome(text: str) -> tuple[list[Node], tuple[Diagnostic, ...]]:
    try:
        return list(_nodes(read(Source("spec.yaml", text)))), ()
    except SpecError as failure:
        return [], failure.diagnostics


def _check(text: str) -> None:
    nodes, diagnostics = _outcome(text)
    assert bool(nodes) is not bool(diagnostics)
    for node in nodes:
        _assert_inside(node.span, text)
    for found in diagnostics:
        _assert_inside(found.span, text)
        assert "\n" not in found.message
        for note in found.notes:
            _assert_inside(note.span, text)


TOKENS = st.sampled_from(
    [
        *"{}[]()\"'#&*!|>-?:,%@`\\=<\t\r\n ~.",
        "a",
        "i",
        "8",
        ": ",
        "- ",
        "\n  ",
        "\n",
        " #",
        "é",
        "🐟",
        "---\n",
        "...\n",
        "<<",
        "\x85",
        "\u2028",
        "\ufeff",
        "\0",
        "name: x",
        "- ReLU\n",
        "x[i]",
        "!!int",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(TOKENS, max_size=24).map("".join))
def test_random_texts(text: str) -> None:
    _check(text)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_mutated_specs(data: st.DataObject) -> None:
    text = SPEC
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(TOKENS) + text[at + data.draw(st.integers(0, 4)) :]
    _check(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes(data: bytes) -> None:
    source: Source | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    try:
        source = read_bytes("spec.yaml", data)
    except SpecError as failure:
        diagnostics = failure.diagnostics
    if source is None:
        assert [found.code for found in diagnostics] == ["not-text"]
    else:
        _check(source.text)
