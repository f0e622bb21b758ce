"""The JSON Schema of recipes: valid, fresh in `docs`, of one mind with the parser; and mutants.

`UPDATE_GOLDEN=1 pytest tests/training/test_recipe_schema.py` writes `docs/recipe.schema.json` anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from cnnspec.cli.main import main
from cnnspec.diagnostics import SpecError
from cnnspec.frontend.reader import read_bytes
from cnnspec.frontend.schema import to_json
from cnnspec.training.recipe.keys import KEYS
from cnnspec.training.recipe.known import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    Known,
)
from cnnspec.training.recipe.read import (
    LoadedRecipe,
    bundled_recipes,
    load_recipe,
    parse_recipe,
    read_recipe,
)
from cnnspec.training.recipe.schema import recipe_schema
from cnnspec.training.recipe.write import to_yaml
from tests.frontend.mutants import Mutator, check_place
from tests.training.test_recipe import WHOLE

COPY = Path(__file__).parents[2] / "docs" / "recipe.schema.json"
FAMILIES: tuple[tuple[str, Mapping[str, Known]], ...] = (
    ("optimizer", OPTIMIZERS),
    ("schedule", SCHEDULERS),
    ("loss", LOSSES),
    ("augment", AUGMENTATIONS),
)


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(recipe_schema())


def problems(loaded: LoadedRecipe) -> list[str]:
    plain = to_json(loaded.root)
    return [f"{error.json_path}: {error.message}" for error in validator().iter_errors(plain)]


def _walk(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _walk(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _walk(value)


def test_schema_is_valid_and_has_no_alternatives() -> None:
    schema = recipe_schema()
    Draft7Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema
    for part in _walk(schema):
        assert not {"oneOf", "anyOf", "allOf", "not", "if"} & part.keys()


def test_every_key_is_there_and_described() -> None:
    properties = recipe_schema()["properties"]
    assert set(properties) == set(KEYS)
    assert all(schema["description"] for schema in properties.values())


def test_copy_in_docs_is_fresh() -> None:
    text = json.dumps(recipe_schema(), indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        COPY.write_text(text, encoding="utf-8", newline="\n")
    assert text == COPY.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes the copy anew"


def test_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--recipe"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()


def test_a_spec_has_no_recipe_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--recipe", "lenet5"]) == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes_validate(name: str) -> None:
    loaded = read_recipe(name)
    assert problems(loaded) == []
    assert problems(load_recipe(to_yaml(loaded.recipe))) == []


def test_both_refuse_other_arguments() -> None:
    """For every name: an argument it does not have, and each of its own of no possible kind."""
    for key, table in FAMILIES:
        for name, known in table.items():
            for argument in ("no_such_argument", *known.arguments):
                text = f"{key}: {{{name}: {{{argument}: {{a: 1}}}}}}\n"
                with pytest.raises(SpecError):
                    parse_recipe(text)
                call = {name: {argument: {"a": 1}}}
                assert not validator().is_valid({key: call}), text


def mutator() -> Mutator:
    paths = bundled_recipes().values()
    texts = [path.read_text(encoding="utf-8") for path in paths]
    written = [to_yaml(read_recipe(path).recipe) for path in paths]
    return Mutator([text.encode() for text in (*texts, *written, WHOLE)])


@pytest.mark.parametrize("batch", range(4))
def test_mutants(batch: int) -> None:
    """Whatever is written: a recipe that the schema takes too, or errors in their places."""
    mutants = mutator()
    recipes = 0
    for number in range(500 * batch, 500 * (batch + 1)):
        data = mutants.mutant(number)
        try:
            loaded = load_recipe(read_bytes("<text>", data).text)
        except SpecError as failure:
            for found in failure.diagnostics:
                check_place(found, data)
            continue
        recipes += 1
        for found in loaded.warnings:
            check_place(found, data)
        assert problems(loaded) == [], f"mutant {number}"
        assert parse_recipe(to_yaml(loaded.recipe)) == loaded.recipe, f"mutant {number}"
    assert 50 <= recipes <= 200
