"""The JSON Schema: valid, free of what editors report badly, fresh in `docs`, and of one mind with
the parser.

`UPDATE_GOLDEN=1 pytest tests/frontend/test_schema.py` writes `docs/cnnspec.schema.json` anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from cnnspec.cli.main import main
from cnnspec.diagnostics import SpecError
from cnnspec.frontend import tree
from cnnspec.frontend.load import bundled_specs, expand, load_file, load_text
from cnnspec.frontend.reader import read, read_bytes
from cnnspec.frontend.schema import schema_of, to_json
from cnnspec.op import slots_of
from cnnspec.ops import registry
from tests.frontend.mutants import Mutator

TESTS = Path(__file__).parents[1]
COPY = TESTS.parent / "docs" / "cnnspec.schema.json"
INVALID = TESTS / "invalid"

STRUCTURAL = {
    "control-inside",
    "missing-version",
    "not-a-spec",
    "unknown-control",
    "unknown-key",
    "unknown-version",
    "wrong-kind",
}
"""Codes that a schema can find too: about keys and kinds, not about values or other parts."""

NOT_BY_SCHEMA = {
    "expect/unknown-metric.yaml": "metrics stand beside variants, whose names only the file knows",
    "expect/unknown-variant.yaml": "likewise",
    "file/version-float.yaml": "to a schema 1.0 is 1",
    "joins/no-branches.yaml": "an entry that is text may be any operation",
    "operations/two-operations.yaml": "to count operations needs alternatives (oneOf)",
}
"""Specs that the schema takes although the error is about structure, and why."""


@cache
def validator() -> Draft7Validator:
    return Draft7Validator(schema_of())


def refused(data: bytes) -> bool:
    """Whether the parser refuses a spec, in its own form or in a variant."""
    try:
        loaded = load_text(data)
        for name in (loaded.document.name, *loaded.document.variants):
            expand(loaded, variant=name)
    except SpecError:
        return True
    return False


def _walk(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _walk(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _walk(value)


def test_schema_is_valid_and_has_no_alternatives() -> None:
    for document in (None, load_file(bundled_specs()["resnet"]).document):
        schema = schema_of(document)
        Draft7Validator.check_schema(schema)
        assert json.loads(json.dumps(schema, allow_nan=False)) == schema
        for part in _walk(schema):
            assert not {"oneOf", "anyOf", "allOf", "not", "if"} & part.keys()


def test_every_argument_is_there_and_described() -> None:
    entry = schema_of()["definitions"]["entry"]["properties"]
    for op in registry().values():
        assert entry[op.name]["description"]
        if op.name[0].isupper():
            assert set(entry[op.name]["properties"]) == set(slots_of(op))
            for name, argument in entry[op.name]["properties"].items():
                assert argument["description"], f"{op.name}.{name}"


def test_copy_in_docs_is_fresh() -> None:
    text = json.dumps(schema_of(), indent=1) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        COPY.write_text(text, encoding="utf-8", newline="\n")
    assert text == COPY.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes the copy anew"


def test_command_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema_of()


@pytest.mark.parametrize("name", bundled_specs())
def test_bundled_specs_validate(name: str) -> None:
    loaded = load_file(bundled_specs()[name])
    plain = to_json(read(loaded.document.source))
    own = Draft7Validator(schema_of(loaded.document))
    for schema in (validator(), own):
        assert [error.message for error in schema.iter_errors(plain)] == []


def test_schema_of_a_file_completes_its_own_blocks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "net.yaml"
    spec.write_text(
        "cnnspec: 1\nname: net\ninputs: {x: [3, 8, 8]}\nparams: {classes: int = 4}\n"
        "blocks:\n  conv:\n    params: {out: int, stride: int = 1}\n    layers:\n"
        "      - Conv2d: {out_channels: out, kernel_size: 1, stride: stride}\n"
        "layers:\n  - conv: {out: classes}\nvariants:\n  big: {classes: 8}\n",
        encoding="utf-8",
    )
    assert main(["schema", str(spec)]) == 0
    schema = json.loads(capsys.readouterr().out)
    call = schema["definitions"]["entry"]["properties"]["conv"]
    assert set(call["properties"]) == {"out", "stride"}
    assert call["required"] == ["out"]
    text = spec.read_text(encoding="utf-8")
    for wrong in (
        text.replace("- conv: {out: classes}", "- conv: {otu: classes}"),
        text.replace("- conv: {out: classes}", "- conv: {}"),
        text.replace("big: {classes: 8}", "big: {clases: 8}"),
    ):
        assert wrong != text
        plain = to_json(read(read_bytes("net.yaml", wrong.encode())))
        assert not Draft7Validator(schema).is_valid(plain)
        assert refused(wrong.encode())


# ---------------------------------------------------------------------------------- agreement


def _invalid() -> Iterator[tuple[str, set[str]]]:
    """Invalid specs that are YAML, with the codes of their errors."""
    for path in sorted(INVALID.rglob("*.expected")):
        lines = path.read_text(encoding="utf-8").splitlines()
        codes = {line[6 : line.index("]")] for line in lines if line.startswith("error[")}
        if codes and path.parent.name != "yaml":
            yield path.relative_to(INVALID).with_suffix(".yaml").as_posix(), codes


@pytest.mark.parametrize(
    "spec", [spec for spec, codes in _invalid() if codes & STRUCTURAL], ids=str
)
def test_schema_refuses_wrong_structure(spec: str) -> None:
    source = read_bytes(spec, (INVALID / spec).read_bytes())
    assert validator().is_valid(to_json(read(source))) == (spec in NOT_BY_SCHEMA)


def test_structural_specs_are_many() -> None:
    assert sum(bool(codes & STRUCTURAL) for _, codes in _invalid()) >= 25


def test_arguments_are_refused_by_both() -> None:
    """For every operation: an argument of another name, and every argument of no possible kind."""
    for op in registry().values():
        if op.name[0].islower():
            continue
        for arguments in ("{no_such_argument: 1}", *(f"{{{a}: {{a: 1}}}}" for a in slots_of(op))):
            text = (
                "cnnspec: 1\nname: net\ninputs: {x: [3, 8, 8]}\n"
                f"layers:\n  - {op.name}: {arguments}\n"
            )
            assert not validator().is_valid(to_json(read(read_bytes("", text.encode())))), text
            assert refused(text.encode()), text


@pytest.mark.parametrize("batch", range(6))
def test_parser_refuses_whatever_the_schema_refuses(batch: int) -> None:
    """What is left over for the schema alone would be told in the words of JSON Schema."""
    mutator = Mutator()
    count = 0
    for number in range(5000 + 60 * batch, 5000 + 60 * (batch + 1)):
        data = mutator.mutant(number)
        try:
            plain = to_json(read(read_bytes("<text>", data)))
        except SpecError:
            continue
        problems = [f"{e.json_path}: {e.message}" for e in validator().iter_errors(plain)]
        if not problems:
            continue
        count += 1
        assert refused(data), f"mutant {number}: {problems[:3]}"
    assert count >= 5


def test_references_by_position() -> None:
    """Positions are names too, and plain integers."""
    text = (
        "cnnspec: 1\nname: net\ninputs: {x: [3, 8, 8]}\nlayers:\n  - ReLU\n  - Tanh:\n"
        "    from: 0\n  - add: [0, 1]\n  - add: {a: 0, b: [ReLU], c: []}\n"
        "outputs: [2, 4]\n"
    )
    loaded = load_text(text)
    expand(loaded)
    root = read(loaded.document.source)
    assert isinstance(root, tree.Mapping)
    assert [e.message for e in validator().iter_errors(to_json(root))] == []
