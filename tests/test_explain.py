"""Every diagnostic code has a page, and the examples on the pages are true.

A page's `yaml wrong` example gives the page's code, its `yaml right` example gives no diagnostic at
all. What follows the word is given to `cnnspec check`, but for `recipe`: the example is a recipe.
Codes that no small spec can show have `text` examples, and a reason here.
"""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cnnspec
from cnnspec.cli.main import main
from cnnspec.diagnostics import SpecError
from cnnspec.ops import registry
from cnnspec.training.recipe.read import load_recipe

PACKAGE = Path(cnnspec.__file__).parent
PAGES = {page.stem: page for page in sorted((PACKAGE / "explain").glob("*.md"))}
CODE = re.compile(r"[a-z]+(-[a-z]+)*")
FENCE = re.compile(r"^```(\w+) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

NOT_SHOWN = {
    "file-too-large": "needs a file of 4 MB",
    "import-cycle": "needs several files",
    "import-no-folder": "needs a spec that is no file",
    "import-outside": "needs files outside a folder",
    "import-shadows": "needs several files",
    "not-a-network": "not an error of `check`, which takes such a file",
    "not-text": "needs bytes that are no text",
    "schema": "a disagreement within cnnspec, which no spec should bring out",
    "too-deep": "needs 200 levels",
    "too-many-nodes": "needs a million nodes",
    "control-character": "a page cannot hold the character",
}
"""Codes whose pages have no `wrong` example that can be executed, and why."""


@dataclass(frozen=True)
class Source:
    """A place in the program that names a code."""

    code: str
    place: str


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def _code_positions() -> dict[str, int]:
    """Functions and classes with a parameter named `code`, and its position in a call."""
    found: dict[str, int] = {}
    for _, module in _modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                fields = [
                    s.target.id
                    for s in node.body
                    if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
                ]
                if "code" in fields:
                    found[node.name] = fields.index("code")
                methods = [s for s in node.body if isinstance(s, ast.FunctionDef)]
                for method in methods:
                    names = [a.arg for a in method.args.args[1:]]
                    if "code" in names:
                        name = node.name if method.name == "__init__" else method.name
                        found[name] = names.index("code")
            elif isinstance(node, ast.FunctionDef):
                names = [a.arg for a in node.args.args]
                if "code" in names and names[0] != "self":
                    found.setdefault(node.name, names.index("code"))
    return found


def _sources() -> list[Source]:
    positions = _code_positions()
    found: list[Source] = []
    for path, module in _modules():
        for node in ast.walk(module):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            given: list[ast.expr] = [k.value for k in node.keywords if k.arg == "code"]
            if name in positions and len(node.args) > positions[name]:
                given.append(node.args[positions[name]])
            if name not in positions and name != "replace":
                continue
            for value in given:
                found.extend(Source(code, f"{path}:{node.lineno}") for code in _codes(value))
    return found


def _codes(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _codes(value.body)
        yield from _codes(value.orelse)
    elif isinstance(value, ast.JoinedStr):
        # The one computed code: elementwise joins say `add-shape`, `mul-shape` and so on.
        assert ast.unparse(value) == "f'{join}-shape'"
        joins = (name for name in registry() if name.islower())
        yield from (f"{name}-shape" for name in joins if name not in ("concat", "matmul"))


SOURCES = _sources()


def test_codes_are_collected() -> None:
    codes = {source.code for source in SOURCES}
    assert {"concat-shape", "unread-rows", "duplicate-key", "import-cycle", "add-shape"} <= codes
    assert {code for code in codes if not CODE.fullmatch(code)} == set()


def test_every_code_has_a_page() -> None:
    missing = sorted({(s.code, s.place) for s in SOURCES if s.code not in PAGES})
    assert missing == []


def test_every_page_has_a_code() -> None:
    assert sorted(set(PAGES) - {source.code for source in SOURCES}) == []
    assert set(NOT_SHOWN) <= set(PAGES)


def _examples(code: str) -> list[tuple[str, str, str]]:
    """The fenced examples of a page: language, words after it, text."""
    text = PAGES[code].read_text(encoding="utf-8")
    return [(m[1], m[2], m[3]) for m in FENCE.finditer(text)]


def _check(text: str, arguments: str, folder: Path) -> list[dict[str, Any]]:
    spec = folder / "net.yaml"
    spec.write_text(text, encoding="utf-8", newline="")
    output = io.StringIO()
    with redirect_stdout(output):
        main(["check", "--format", "json", str(spec), *arguments.split()])
    diagnostics: list[dict[str, Any]] = json.loads(output.getvalue())["diagnostics"]
    return diagnostics


def _recipe_codes(text: str) -> list[str]:
    try:
        return [found.code for found in load_recipe(text).warnings]
    except SpecError as failure:
        return [found.code for found in failure.diagnostics]


@pytest.mark.parametrize("code", PAGES)
def test_page(code: str, tmp_path: Path) -> None:
    text = PAGES[code].read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("# ")
    assert lines[1] == ""
    assert re.match(r"# [A-Z`]", lines[0])
    assert not lines[0].endswith(".")
    assert max(map(len, lines)) <= 100
    prose = FENCE.sub("", "\n".join(lines[2:]))
    assert len(prose.split()) >= 15, "say what it means, why, and how to mend it"
    kinds = [words.split()[0] for language, words, _ in _examples(code) if language == "yaml"]
    assert kinds == (["right"] if code in NOT_SHOWN else ["wrong", "right"]) or (
        code in NOT_SHOWN and kinds == []
    )
    for language, words, example in _examples(code):
        if language == "text":
            assert code in NOT_SHOWN
            continue
        kind, _, arguments = words.partition(" ")
        if arguments == "recipe":
            codes = _recipe_codes(example)
        else:
            codes = [d["code"] for d in _check(example, arguments, tmp_path)]
        if kind == "wrong":
            assert code in codes
        else:
            assert codes == []
