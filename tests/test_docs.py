"""The pages of `docs` are true: their examples run, their tables are complete, their links lead.

What follows the language of a fenced block says what to do with it:

- `yaml`: a spec that `cnnspec check` finds nothing wrong with. `fragment` completes it with a
  header, `file=NAME` is a file that the others of its page may import, `error=CODE` and
  `warning=CODE` are what check finds instead.
- `text layers`: the layers of the last example, with operation and output.
- `text diagnostics`: what check prints about it.
- `json`: a part of its report. `of=NAME` takes a bundled spec in its place, `check` the document of
  `cnnspec check`; `layer=PATH` is one layer, `at=KEYS` a place below.
- `python`: pieces of the one file that the page's tutorial writes.
- `sh`: commands, which are not run.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import cnnspec
import cnnspec.ops
from cnnspec.backends.onnx.build import OLDEST_OPSET
from cnnspec.cli.main import main
from cnnspec.diagnostics import SILENCEABLE, SpecError, shape_text
from cnnspec.frontend import building, evaluation, expand, reader
from cnnspec.frontend.document import CONTROLS
from cnnspec.frontend.expressions import FUNCTION_NAMES
from cnnspec.frontend.metadata import PREPROCESS_KEYS
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.parsing import BLOCK_KEYS, EXPECTABLE, FILE_KEYS
from cnnspec.op import Op
from cnnspec.ops import ContractViolation, registry
from cnnspec.passes import PIPELINE
from cnnspec.slots import LARGEST_INT
from cnnspec.weights import INITIALISERS
from tests.ops import test_example_windows, test_examples
from tests.ops.harness import Case

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in (*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md")))
}
LANGUAGE, CONVENTIONS, TUTORIAL = CHECKED = (
    "docs/language.md",
    "docs/conventions.md",
    "docs/adding-an-op.md",
)
"""The pages whose examples are executed."""

ARCHITECTURE = "docs/architecture.md"

FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")

HEADER = {
    "cnnspec:": "cnnspec: 1\n",
    "name:": "name: example\n",
    "inputs:": "inputs: {image: [3, 32, 32]}\n",
}


@dataclass(frozen=True)
class Fence:
    """A fenced block. `words` are those after its language, `key=value` or a word alone."""

    page: str
    line: int
    language: str
    words: Mapping[str, str]
    text: str

    def __str__(self) -> str:
        return f"{Path(self.page).stem}:{self.line}"


def _fences(page: str) -> Iterator[Fence]:
    text = PAGES[page].read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        words = dict((*word.split("=", 1), "")[:2] for word in found[2].split())
        yield Fence(page, text.count("\n", 0, found.start()) + 1, found[1], words, found[3])


FENCES = [fence for page in CHECKED for fence in _fences(page)]
SPECS = [fence for fence in FENCES if fence.language == "yaml"]


def _about(language: str, kind: str = "") -> list[tuple[Fence, Fence]]:
    """Blocks of a language (and first word), each with the example that it is about."""
    found: list[tuple[Fence, Fence]] = []
    example: Fence | None = None
    for fence in FENCES:
        if fence.language == "yaml":
            example = fence
        elif fence.language == language and (not kind or kind in fence.words):
            assert example is not None
            found.append((fence, example))
    return found


def _complete(fence: Fence) -> str:
    """The whole spec of an example."""
    if "fragment" not in fence.words:
        return fence.text
    lines = fence.text.splitlines()
    missing = [
        text for key, text in HEADER.items() if not any(line.startswith(key) for line in lines)
    ]
    return "".join(missing) + fence.text


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Where an example is written; the files that examples import are beside it."""
    for fence in SPECS:
        if "file" in fence.words:
            (tmp_path / fence.words["file"]).write_text(fence.text, encoding="utf-8")
    return tmp_path / "net.yaml"


def _write(fence: Fence, spec: Path) -> Path:
    spec.write_text(_complete(fence), encoding="utf-8")
    return spec


def _run(*arguments: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output):
        main(list(arguments))
    return output.getvalue()


def _check(spec: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_run("check", "--format", "json", str(spec)))
    return document


# ---------------------------------------------------------------------------------- the examples


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    kinds = {
        "yaml": {"fragment", "file", "error", "warning"},
        "text": {"layers", "diagnostics"},
        "json": {"of", "layer", "at", "check"},
        "python": set(),
        "sh": set(),
    }
    for fence in FENCES:
        assert fence.language in kinds, f"{fence}"
        assert set(fence.words) <= kinds[fence.language], f"{fence}"
    assert len(SPECS) > 25


@pytest.mark.parametrize("fence", [each for each in SPECS if each.page != TUTORIAL], ids=str)
def test_example(fence: Fence, spec: Path) -> None:
    found = _check(_write(fence, spec))["diagnostics"]
    expected = [fence.words[kind] for kind in ("error", "warning") if kind in fence.words]
    if "file" in fence.words:  # nobody calls its blocks here
        found = [each for each in found if each["code"] != "unused-block"]
    assert [each["code"] for each in found] == expected


@pytest.mark.parametrize(("fence", "example"), _about("text", "layers"), ids=str)
def test_layers(fence: Fence, example: Fence, spec: Path) -> None:
    layers = cnnspec.load(_write(example, spec)).analyze().layers
    rows = [[layer.path, layer.op, shape_text(layer.output_shape)] for layer in layers]
    assert [line.split() for line in fence.text.splitlines()] == rows


@pytest.mark.parametrize(("fence", "example"), _about("text", "diagnostics"), ids=str)
def test_diagnostics(
    fence: Fence, example: Fence, spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(_write(example, spec).parent)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    assert _run("check", spec.name) == fence.text


@pytest.mark.parametrize(("fence", "example"), _about("json"), ids=str)
def test_figures(fence: Fence, example: Fence, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_write(example, spec).parent)
    found: Any
    if "check" in fence.words:
        found = _check(Path(spec.name))
    else:
        report = cnnspec.load(fence.words.get("of", spec.name)).analyze()
        layer = fence.words.get("layer")
        found = report[layer].to_dict() if layer else report.to_dict()
    for key in fence.words.get("at", "").split("."):
        if key:
            found = found[int(key) if isinstance(found, list) else key]
    _contains(found, json.loads(fence.text), "")


def _contains(found: Any, said: Any, place: str) -> None:
    """Assert that all that is said is there; objects may have more."""
    if isinstance(said, dict):
        for key, value in said.items():
            _contains(found[key], value, f"{place}.{key}")
    elif isinstance(said, list):
        assert len(found) == len(said), place
        for number, value in enumerate(said):
            _contains(found[number], value, f"{place}.{number}")
    else:
        assert found == said, place


# ------------------------------------------------------------------------------------ the tables


def _section(page: str, heading: str) -> str:
    """The text of a page from a heading to the next one of any level, examples left out."""
    text = FENCE.sub("", PAGES[page].read_text(encoding="utf-8"))
    parts = re.split(r"^#+ (.*)$\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def _rows(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def _listed(page: str, heading: str) -> list[str]:
    """What is written as code in the first column of a section's tables."""
    return [name for row in _rows(_section(page, heading)) for name in CODE.findall(row[0])]


@pytest.mark.parametrize(
    ("heading", "names"),
    [
        ("The file", FILE_KEYS),
        ("Blocks", BLOCK_KEYS),
        ("Entries", CONTROLS),
        ("Params", PARAM_SLOTS),
        ("Expressions", FUNCTION_NAMES),
        ("Defaults, initialisers, preprocessing, labels", ("preprocess", *PREPROCESS_KEYS)),
    ],
)
def test_tables_of_the_language_are_complete(heading: str, names: Sequence[str]) -> None:
    assert sorted(_listed(LANGUAGE, heading)) == sorted(names)


def test_lists_of_the_language_are_complete() -> None:
    def named(heading: str) -> set[str]:
        return set(CODE.findall(_section(LANGUAGE, heading)))

    assert set(EXPECTABLE) <= named("Expectations")
    assert set(INITIALISERS) <= named("Defaults, initialisers, preprocessing, labels")
    assert set(SILENCEABLE) <= named("Padding, and sizes that do not fit")
    joins = _section(LANGUAGE, "Joins").split("`")[1]
    assert set(joins.split()) == {name for name in registry() if name.islower()}


def test_operations_that_are_named_exist() -> None:
    text = FENCE.sub("", PAGES[LANGUAGE].read_text(encoding="utf-8"))
    named = {name for name in CODE.findall(text) if re.fullmatch(r"[A-Z][A-Za-z]+[0-9a-z]*", name)}
    assert "LayerNorm2d" in named
    others = {"Sequential", "CamelCase", "NAME", "TENSOR", "CODE"}
    assert named - others <= set(registry())


LIMITS = {
    "bytes of a file": reader.MAX_BYTES,
    "levels of mappings and lists": reader.MAX_DEPTH,
    "nodes of a file": reader.MAX_NODES,
    "nodes that aliases stand for": reader.MAX_ALIASED_NODES,
    "entries and turns of loops in a network": building.MAX_NODES,
    "calls of blocks within one another": expand.MAX_CALLS,
    "elements of a tensor": building.MAX_ELEMENTS,
    "value of an argument": LARGEST_INT,
    "number in an expression": evaluation.MAX_NUMBER,
    "steps of an expression": evaluation.MAX_STEPS,
    "elements of a list": evaluation.MAX_LIST,
    "characters of an expression or text": evaluation.MAX_TEXT,
}


def test_limits_are_those_of_the_code() -> None:
    def number(text: str) -> int:
        base, _, rest = text.replace(",", "").partition("**")
        exponent, _, less = rest.partition(" - ")
        power: int = int(base) ** int(exponent or 1)
        return power - int(less or 0)

    _, *rows = _rows(_section(LANGUAGE, "Limits"))
    assert {what: number(value) for what, value in rows} == LIMITS


@cache
def _document() -> dict[str, Any]:
    """A report with all of its keys."""
    return cnnspec.load("googlenet").analyze().to_dict()


@pytest.mark.parametrize(
    ("heading", "at"),
    [
        ("The report", ()),
        ("Totals", ("totals",)),
        ("Layers", ("layers", 0)),
        ("Fields", ("layers", 0, "receptive_field", 0)),
    ],
)
def test_tables_of_the_report_are_complete(heading: str, at: Sequence[str | int]) -> None:
    part: Any = _document()
    for key in at:
        part = part[key]
    sometimes = {"via", "unavailable"} if heading == "Fields" else set()
    assert set(_listed(CONVENTIONS, heading)) == set(part) | sometimes


def test_table_of_diagnostics_is_complete(spec: Path) -> None:
    (wrong,) = (fence for fence in SPECS if fence.words.get("error") == "input-rank")
    (found,) = _check(_write(wrong, spec))["diagnostics"]
    assert set(_listed(CONVENTIONS, "The document of check")) == {"format", "diagnostics", *found}


def test_exit_codes_are_those_of_the_command_line() -> None:
    codes = [row[0] for row in _rows(_section("docs/cli.md", "Exit codes"))]
    assert [row[0] for row in _rows(_section(CONVENTIONS, "Exit codes"))] == codes


# ------------------------------------------------------------------------------ the architecture


def test_rooms_and_files_that_are_named_exist() -> None:
    for page, path in PAGES.items():
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for name in CODE.findall(text):
            if re.fullmatch(r"(cnnspec|tests|bench|specs|docs)/[\w./-]*", name):
                assert (ROOT / name).exists(), f"{page} names {name}"


def test_every_room_is_described() -> None:
    listed = _listed(ARCHITECTURE, "The rooms")
    package = ROOT / "cnnspec"
    rooms = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in package.iterdir()
        if path.suffix == ".py"
        or (path / "__init__.py").is_file()
        or path.name in ("devices", "explain")
    }
    assert set(listed) == rooms - {"__init__.py", "__main__.py"}


def test_passes_are_in_order() -> None:
    listed = _listed(ARCHITECTURE, "From a spec to a report")
    assert listed == [step.__name__ for step in PIPELINE]


# --------------------------------------------------------------------------------- the tutorial


WRITTEN = "".join(
    fence.text for fence in FENCES if fence.page == TUTORIAL and fence.language == "python"
)
"""The file that the tutorial writes, piece by piece."""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules belong to the room of the operations, beside those that are there."""
    folder = tmp_path / "ops"
    folder.mkdir()
    monkeypatch.setattr(cnnspec.ops, "__path__", [*cnnspec.ops.__path__, str(folder)])
    registry.cache_clear()
    known = set(sys.modules)
    yield folder
    for name in set(sys.modules) - known:
        if name.startswith("cnnspec.ops."):
            delattr(cnnspec.ops, name.rpartition(".")[2])
            del sys.modules[name]
    registry.cache_clear()


@pytest.fixture
def operation(room: Path) -> type[Op]:
    """The operation of the tutorial, found by dropping its file in."""
    (room / "weighted_pool.py").write_text(WRITTEN, encoding="utf-8")
    return registry()["WeightedPool2d"]


def test_tutorial_keeps_the_contract(operation: type[Op]) -> None:
    for number, example in enumerate(operation.examples):
        case = Case(operation, example, number)
        test_examples.test_figures(case)
        test_examples.test_stored_as_the_rules_say(case)
        test_examples.test_torch_agrees(case)
        for opset in (OLDEST_OPSET, 18):
            test_examples.test_onnx_agrees(case, opset)
        test_example_windows.test_windows_are_what_gradients_show(case)


def test_tutorial_names_what_is_missing(room: Path) -> None:
    text = WRITTEN.replace("def cost(", "def costs(")
    (room / "weighted_pool.py").write_text(text, encoding="utf-8")
    with pytest.raises(ContractViolation) as violation:
        registry()
    assert f"`{violation.value}`" in PAGES[TUTORIAL].read_text(encoding="utf-8")


@pytest.mark.usefixtures("operation")
def test_tutorial_goes_all_the_way(spec: Path) -> None:
    (example,) = (fence for fence in SPECS if fence.page == TUTORIAL)
    network = cnnspec.load(_write(example, spec))
    assert _check(spec)["diagnostics"] == []
    module = network.to_torch().eval()
    output = module(torch.zeros(2, *network.analyze().inputs["image"]))
    assert tuple(output.shape[1:]) == network.analyze().outputs["output"]
    report = network.to_onnx(spec.with_suffix(".onnx"), module)
    assert report.verification is not None
    assert report.verification.close


# ------------------------------------------------------------------------------------- the links


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = FENCE.sub("", PAGES[page].read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("https://", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        path = (PAGES[page].parent / place).resolve() if place else PAGES[page]
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            headings = HEADING.findall(FENCE.sub("", path.read_text(encoding="utf-8")))
            assert anchor in map(_anchor, headings), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_lines_are_short(page: str) -> None:
    for line in FENCE.sub("", PAGES[page].read_text(encoding="utf-8")).splitlines():
        assert len(line) <= 104 or line.startswith("|"), line


def test_a_wrong_example_is_found(tmp_path: Path) -> None:
    wrong = Fence("page", 1, "yaml", {"fragment": ""}, "layers: [Conv2d]\n")
    with pytest.raises(SpecError):
        cnnspec.load(_write(wrong, tmp_path / "net.yaml"))
    with pytest.raises(AssertionError):
        _contains({"a": [1, 2]}, {"a": [1, 3]}, "")
