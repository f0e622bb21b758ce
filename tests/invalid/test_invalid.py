"""Bad specs, each with what `cnnspec check` has to say about it beside it.

A pair `NAME.yaml` and `NAME.expected` is a test; `UPDATE_GOLDEN=1 pytest tests/invalid` writes the
expectations anew. YAML files in folders named `lib` are what other specs import. An expectation is
one block for each diagnostic:

    error[concat-shape] 7:16-20 cannot concat along channels: height is 56 and 57
      label: `skip` is 32x57x57
      note: `up` is 64x56x56
      help: resize or pad one branch to the same height
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cnnspec.cli.main import main

FOLDER = Path(__file__).parent
SPECS = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*.yaml")
    if "lib" not in path.relative_to(FOLDER).parts
)


@cache
def checked(spec: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of `cnnspec check` and what it found."""
    code, output = _run("check", "--format", "json", spec)
    return code, json.loads(output)["diagnostics"]


def _run(*arguments: str) -> tuple[int, str]:
    output = io.StringIO()
    with chdir(FOLDER), redirect_stdout(output):
        code = main(arguments)
    return code, output.getvalue()


def compact(found: list[dict[str, Any]], spec: str) -> str:
    """Diagnostics in the form of the `.expected` files."""
    return "".join(f"{line}\n" for diagnostic in found for line in _lines(diagnostic, spec))


def _lines(d: dict[str, Any], spec: str) -> Iterator[str]:
    yield f"{d['severity']}[{d['code']}] {_place(d, spec)} {d['message']}"
    if d["label"]:
        yield f"  label: {d['label']}"
    for note in d["notes"]:
        where = "" if note["line"] is None else f" ({_place(note, spec)})"
        yield f"  note: {note['message']}{where}"
    if d["help"]:
        yield f"  help: {d['help']}"


def _place(at: dict[str, Any], spec: str) -> str:
    start = f"{at['line']}:{at['column']}"
    file = "" if at["file"] == spec else f"{at['file']}:"
    if at["end_line"] == at["line"]:
        return f"{file}{start}-{at['end_column']}"
    return f"{file}{start}-{at['end_line']}:{at['end_column']}"


@pytest.mark.parametrize("spec", SPECS)
def test_diagnostics(spec: str) -> None:
    code, found = checked(spec)
    shown = compact(found, spec)
    expected = (FOLDER / spec).with_suffix(".expected")
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(shown, encoding="utf-8", newline="\n")
    assert expected.exists(), "UPDATE_GOLDEN=1 writes the expectation; read it before you keep it"
    assert shown == expected.read_text(encoding="utf-8")
    assert found
    assert code == int(any(d["severity"] == "error" for d in found))


@pytest.mark.parametrize("spec", SPECS)
def test_wording(spec: str) -> None:
    """Messages state facts, in lower case, in words of the spec, without words of the program."""
    for d in checked(spec)[1]:
        texts = [d["message"], d["label"], *(n["message"] for n in d["notes"])]
        for text in texts:
            assert not text.endswith("."), text
            assert "did you mean" not in text, text
            assert not re.match(r"[A-Z][a-z]", text), text
        for text in [*texts, d["help"] or ""]:
            for word in ("NoneType", "Traceback", "object at 0x", "<class", "dict", "tuple("):
                assert word not in text, text
        assert d["line"] is not None
        assert d["line"] >= 1
        assert (d["end_line"], d["end_column"]) >= (d["line"], d["column"])


def test_expectations_have_specs() -> None:
    stems = {path.with_suffix("") for path in FOLDER.rglob("*.yaml")}
    assert [path for path in FOLDER.rglob("*.expected") if path.with_suffix("") not in stems] == []


def test_text_output() -> None:
    """The form people read comes for every spec too, with as many errors and warnings."""
    expected = [p.read_text(encoding="utf-8") for p in FOLDER.rglob("*.expected")]
    code, text = _run("check", *SPECS)
    assert code == 1
    for severity in ("error[", "warning["):
        lines = [line for page in expected for line in page.splitlines()]
        assert sum(line.startswith(severity) for line in text.splitlines()) == sum(
            line.startswith(severity) for line in lines
        )
