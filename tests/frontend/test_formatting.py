"""The formatter: what it makes of texts, that it stays there, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnspec.diagnostics import SpecError
from cnnspec.frontend import formatting, tree
from cnnspec.frontend.formatting import FormattingError, format_text
from cnnspec.frontend.layout import comments
from cnnspec.frontend.reader import read, read_bytes
from cnnspec.source import Source
from tests.frontend.mutants import Mutator

FIXTURES = Path(__file__).with_name("formatting")
CASES = sorted(path.name.removesuffix(".before.yaml") for path in FIXTURES.glob("*.before.yaml"))
ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
INVALID = sorted((ROOT / "tests" / "invalid").rglob("*.yaml"))


def formatted(text: str) -> str:
    return format_text(Source("net.yaml", text))


def said(text: str) -> list[object]:
    """What a text says, read in a way of its own: kinds, keys, scalars and their quotes."""

    def of(node: tree.Node) -> object:
        if isinstance(node, tree.Scalar):
            return node.text, node.plain
        if isinstance(node, tree.Sequence):
            return [of(item) for item in node.items]
        return {"mapping": [(of(key), of(value)) for key, value in node.items]}

    return [of(read(Source("", text))), list(comments(text))]


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    before = (FIXTURES / f"{case}.before.yaml").read_text(encoding="utf-8")
    after = (FIXTURES / f"{case}.after.yaml").read_text(encoding="utf-8")
    result = formatted(before)
    assert result == after, f"{case} is laid out otherwise:\n{result}"
    assert formatted(after) == after, f"{case} does not stay"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1", "a: 1\n"),
        ("a: 1\r\nb: 2\r", "a: 1\nb: 2\n"),
        ("\ufeffa: 1\n", "a: 1\n"),
        ("a:\t1\t# x\t\n", "a: 1  # x\n"),
        ("a: |\n  text", "a: |-\n  text\n"),
        ("a: |+\n  text", "a: |-\n  text\n"),
        ("{a: 1,\n b: 2}", "{a: 1,\n b: 2}\n"),
        ("{\n  a: 1\n }", "{\n  a: 1\n}\n"),
        ("- a\n-\n - b\n", "- a\n- - b\n"),
        ("a: {b: ,c: }\n", "a: {b: , c: }\n"),
        ("a: [1 # x\n , 2]\n", "a: [1  # x\n    , 2]\n"),
        ("a: [1\n , 2]\n", "a: [1,\n    2]\n"),
        ("a: 'it''s'\n", "a: 'it''s'\n"),
        ("--- # x\na: 1\n", "---  # x\na: 1\n"),
        ("a: x\n\n\n\nb: y\n\n\n", "a: x\n\nb: y\n"),
        ("\ufeffa: 1  # x\n", "a: 1  # x\n"),
        ("a: |\n  x\n   ", "a: |-\n  x\n   \n"),
        ("  ---", "  ---\n"),
        ('{"a":1,"b" :[],"c":}', "{a: 1, b: [], c: }\n"),
        (
            'layers: [{"ReLU":{}},{"Conv2d":{"bias":"x"}}]\n',
            "layers: [ReLU, {Conv2d: {bias: x}}]\n",
        ),
        ("layers:\n  - ReLU: {}# x\n", "layers:\n  - ReLU  # x\n"),
    ],
)
def test_small_texts(before: str, after: str) -> None:
    assert formatted(before) == after
    assert formatted(after) == after


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_bundled_specs_are_in_the_layout(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert formatted(text) == text, f"{path.name} changes"


def test_the_layout_does_not_depend_on_how_the_text_was_laid_out() -> None:
    """A spec with four spaces a level, and lists as far left as their keys, becomes itself again.

    A comment beyond the indentation is where the author put it, so only specs without any count.
    """
    for path in SPECS:
        lines = path.read_text(encoding="utf-8").splitlines()
        if any("#" in line for line in lines if not line.startswith("#")):
            continue
        wide = [" " * (len(line) - len(line.lstrip())) + line for line in lines]
        wide = [line.replace("- ", "-   ", 1) if "  - " in line else line for line in wide]
        text = "\n".join(lines) + "\n"
        assert formatted("\n".join(wide)) == text, f"{path.name} changes"


@pytest.mark.parametrize("path", INVALID, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_specs_with_mistakes_keep_them(path: Path) -> None:
    data = path.read_bytes()
    try:
        source = read_bytes(path.name, data)
        before = said(source.text)
    except SpecError:
        return
    result = format_text(source)
    assert format_text(Source(path.name, result)) == result
    assert before[1] == said(result)[1]


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs_written_as_json(path: Path, separators: tuple[str, str]) -> None:
    """Programs write YAML as JSON, whose keys their values may touch."""
    plain = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
    result = formatted(json.dumps(plain, separators=separators))
    assert formatted(result) == result


def test_lines_with_unusual_breaks_stay_whole() -> None:
    text = "r: {a: " + "(" * 100 + "\u2028 (), b: 1}\n"
    assert formatted(text) == text


def test_mutants() -> None:
    mutator = Mutator()
    formed = 0
    for number in range(300):
        try:
            source = read_bytes("mutant", mutator.mutant(number))
            result = format_text(source)
        except SpecError:
            continue
        assert format_text(Source("", result)) == result, f"mutant {number} does not stay"
        formed += 1
    assert formed > 100


SCALARS = st.sampled_from(
    ["a", "1", "x y", "'q'", '"d"', '"a: b"', "'#'", "2*w", "null", "[]", "{}", "a#b", '"\\t"']
)
COMMENTS = st.sampled_from(["", "", "", " # c", "     #c", "\t# [", "#"])
SPACES = st.sampled_from(["", "", " ", "  "])
BLANKS = st.sampled_from(["", "", "\n", "\n \n\n", "# own\n", "       # in\n", "\n# a\n\n  # b\n"])


@st.composite
def texts(draw: st.DrawFn, indent: int = 0, depth: int = 0) -> str:
    """Lines of a block, with spaces, blank lines and comments where they may be."""
    pieces = []
    dashes = draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        head = "-" if dashes else f"k{number}{draw(SPACES)}:"
        margin = " " * indent
        pieces.append(draw(BLANKS))
        comment = draw(COMMENTS)
        comment = f" {comment}" if comment.startswith("#") else comment
        kind = draw(st.integers(0, 3 if depth < 3 else 1))
        if kind == 0:
            value = draw(SCALARS)
        elif kind == 1:
            items = [f"{draw(SPACES)}{draw(SCALARS)}{draw(SPACES)}" for _ in range(3)]
            value = f"[{','.join(items)}]"
            value = f"{{{draw(SPACES)}x: {value} ,y{draw(SPACES)}: 1 }}" if dashes else value
        else:
            inner = draw(texts(indent + draw(st.integers(1, 4)), depth + 1))
            pieces.append(f"{margin}{head}{comment}\n{inner}")
            continue
        pieces.append(f"{margin}{head} {draw(SPACES)}{value}{comment}\n")
    return "".join(pieces)


@settings(max_examples=150, deadline=None)
@given(texts())
def test_random_texts(text: str) -> None:
    try:
        before = said(text)
    except SpecError:
        return
    result = formatted(text)
    assert said(result)[1] == before[1]
    assert formatted(result) == result
    lines = result.splitlines()
    assert all(line == line.rstrip() for line in lines)
    assert "\n\n\n" not in result
    # Outside of entries, nothing but the kind of quotes may change.
    assert said(result)[0] == before[0]


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(SpecError):
        formatted("a: *b\n")
    with pytest.raises(SpecError):
        formatted("a: [\n")


@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text.replace("64", "65"),
        lambda text: text.replace("  # why", ""),
        lambda text: text.replace('"8"', "8"),
        lambda text: text.replace("- Tanh\n", ""),
        lambda text: text.replace("name: net\ncnnspec: 1", "cnnspec: 1\nname: net"),
        lambda text: text + "]",
    ],
)
def test_a_result_that_says_something_else_is_not_handed_out(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'name: net\ncnnspec: 1\nsize: "8"\nlayers:\n  - Tanh\n  - Conv2d: {out: 64}  # why\n'
    assert formatted(text) == text
    assert callable(broken)
    render = formatting.render
    monkeypatch.setattr(formatting, "render", lambda lines: broken(render(lines)))
    with pytest.raises(FormattingError):
        formatted(text)


def test_nesting_as_deep_as_the_reader_takes() -> None:
    deep = "".join(f"{' ' * level}a:\n" for level in range(199)) + " " * 199 + "b\n"
    assert formatted(formatted(deep)) == formatted(deep)
    flow = "a: " + "[" * 199 + "]" * 199
    assert formatted(flow) == flow + "\n"
