"""Bad recipes, each with what is said of it beside it, in the form of `tests/invalid`.

`UPDATE_GOLDEN=1 pytest tests/training/test_recipe_invalid.py` writes the expectations anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from cnnspec.diagnostics import Diagnostic, SpecError
from cnnspec.frontend.reader import read
from cnnspec.frontend.schema import to_json
from cnnspec.source import Source, Span
from cnnspec.training.recipe.read import load_recipe
from cnnspec.training.recipe.schema import recipe_schema

FOLDER = Path(__file__).parent / "invalid_recipes"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
STRUCTURAL = {
    "argument-count",
    "argument-type",
    "argument-value",
    "missing-argument",
    "unknown-argument",
    "unknown-augmentation",
    "unknown-key",
    "unknown-loss",
    "unknown-optimizer",
    "unknown-scheduler",
    "wrong-kind",
}
"""Codes of errors that a schema finds too: about keys, kinds and values, each by itself."""

NOT_BY_SCHEMA = {
    "data-colon": "what stands behind the colon is text to a schema",
    "never-reached": "only a warning",
    "two-schedulers": "to count schedulers needs alternatives (oneOf)",
}
"""Recipes that the schema takes although they are wrong in such a way, and why."""


@cache
def found_in(name: str) -> tuple[Diagnostic, ...]:
    """What is said of a recipe, errors or warnings."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return load_recipe(text, f"{name}.yaml").warnings
    except SpecError as failure:
        return failure.diagnostics


def _place(span: Span | None) -> str:
    assert span is not None
    end = (
        f"{span.end_column}" if span.end_line == span.line else f"{span.end_line}:{span.end_column}"
    )
    return f"{span.line}:{span.column}-{end}"


def _lines(name: str) -> Iterator[str]:
    for d in found_in(name):
        yield f"{d.severity}[{d.code}] {_place(d.span)} {d.message}"
        for note in d.notes:
            yield f"  note: {note.message}" + (f" ({_place(note.span)})" if note.span else "")
        if d.help:
            yield f"  help: {d.help}"


@pytest.mark.parametrize("name", RECIPES)
def test_diagnostics(name: str) -> None:
    shown = "".join(f"{line}\n" for line in _lines(name))
    expected = FOLDER / f"{name}.expected"
    if os.environ.get("UPDATE_GOLDEN"):
        expected.write_text(shown, encoding="utf-8", newline="\n")
    assert shown
    assert shown == expected.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("name", RECIPES)
def test_wording(name: str) -> None:
    """Messages state facts, in lower case, without words of the program."""
    for d in found_in(name):
        for text in (d.message, *(note.message for note in d.notes)):
            assert not text.endswith("."), text
            assert "did you mean" not in text, text
            assert not re.match(r"[A-Z][a-z]", text), text
            for word in ("None", "Traceback", "object at 0x", "<class", "dict", "tuple", "  "):
                assert word not in text, text


def test_expectations_have_recipes() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.expected")) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_schema_refuses_wrong_structure(name: str) -> None:
    if not {found.code for found in found_in(name)} & STRUCTURAL:
        return
    source = Source(name, (FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    try:
        plain = to_json(read(source))
    except SpecError:
        return  # not YAML
    assert Draft7Validator(recipe_schema()).is_valid(plain) == (name in NOT_BY_SCHEMA)
