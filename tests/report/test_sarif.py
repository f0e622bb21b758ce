"""Diagnostics as SARIF 2.1.0: the parts of the standard that code scanning reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import cnnspec
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, Note, error, warning
from cnnspec.report.sarif import artifact_uri, sarif_document
from cnnspec.source import Source, Span

UNET = Source(
    "specs/unet 2.yaml", "\n" * 6 + "    from: [up, skip]\n" + "\n" * 23 + "  - decoder\n"
)
PAGES = Path(cnnspec.__file__).parent / "explain"


def concat() -> Diagnostic:
    return error(
        "concat-shape",
        "height is 56 and 57, as in [figure](1)",
        Span(UNET, 7, 16, 7, 20),
        label="`skip` is 32x57x57",
        notes=[
            Note("`up` is 64x56x56"),
            Note("in `decoder`", Span(UNET, 31, 5, 31, 12)),
            Note("\x1b[31mred", Span(UNET, 31, 5, 32, 1)),
        ],
        help="resize or pad one",
    )


def log(*found: Diagnostic, failures: tuple[EnvironmentFailure, ...] = ()) -> dict[str, Any]:
    made = sarif_document(found, failures, version="1.2.3")
    document: dict[str, Any] = json.loads(json.dumps(made))
    return document


def run_of(document: dict[str, Any]) -> dict[str, Any]:
    (run,) = document["runs"]
    assert isinstance(run, dict)
    return run


def test_the_whole_of_a_result() -> None:
    document = log(concat())
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("/sarif-schema-2.1.0.json")
    assert run_of(document)["columnKind"] == "unicodeCodePoints"
    assert run_of(document)["results"] == [
        {
            "ruleId": "concat-shape",
            "ruleIndex": 0,
            "level": "error",
            "message": {
                "text": "height is 56 and 57, as in \\[figure\\](1): `skip` is 32x57x57\n"
                "note: `up` is 64x56x56\nhelp: resize or pad one"
            },
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {
                            "uri": "specs/unet%202.yaml",
                            "uriBaseId": "%SRCROOT%",
                        },
                        "region": {
                            "startLine": 7,
                            "startColumn": 16,
                            "endLine": 7,
                            "endColumn": 20,
                        },
                    }
                }
            ],
            "relatedLocations": [
                {
                    "id": 1,
                    "message": {"text": "in `decoder`"},
                    "physicalLocation": {
                        "artifactLocation": {
                            "uri": "specs/unet%202.yaml",
                            "uriBaseId": "%SRCROOT%",
                        },
                        "region": {
                            "startLine": 31,
                            "startColumn": 5,
                            "endLine": 31,
                            "endColumn": 12,
                        },
                    },
                },
                {
                    "id": 2,
                    "message": {"text": "\\x1b[31mred"},
                    "physicalLocation": {
                        "artifactLocation": {
                            "uri": "specs/unet%202.yaml",
                            "uriBaseId": "%SRCROOT%",
                        },
                        "region": {
                            "startLine": 31,
                            "startColumn": 5,
                            "endLine": 32,
                            "endColumn": 1,
                        },
                    },
                },
            ],
        }
    ]


def test_rules_are_the_codes_that_were_met_and_their_help_the_pages() -> None:
    unused = warning("unused-param", "never used", Span(UNET, 7, 5, 7, 9))
    run = run_of(log(concat(), unused, concat()))
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["semanticVersion"]) == ("cnnspec", "1.2.3")
    rules = driver["rules"]
    assert [rule["id"] for rule in rules] == ["concat-shape", "unused-param"]
    assert [rule["defaultConfiguration"]["level"] for rule in rules] == ["error", "warning"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    page = (PAGES / "concat-shape.md").read_text(encoding="utf-8")
    assert rules[0]["help"]["markdown"] == page
    assert rules[0]["shortDescription"] == {"text": "Tensors cannot be concatenated"}
    assert rules[0]["fullDescription"]["text"].startswith("`concat` puts tensors behind each other")
    assert "\n" not in rules[0]["fullDescription"]["text"]


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_every_page_makes_a_rule(page: Path) -> None:
    (rule,) = run_of(log(error(page.stem, "x")))["tool"]["driver"]["rules"]
    assert not rule["shortDescription"]["text"].startswith("#")
    assert rule["shortDescription"]["text"]
    assert rule["fullDescription"]["text"]


def test_a_finding_without_a_place_has_no_location() -> None:
    (result,) = run_of(log(warning("unused-param", "m")))["results"]
    assert result["locations"] == []
    assert "relatedLocations" not in result


def test_what_could_not_be_checked_is_told() -> None:
    run = run_of(log(failures=(EnvironmentFailure("there is no file `x`", help="name one"),)))
    assert run["results"] == []
    assert run["invocations"] == [
        {
            "executionSuccessful": False,
            "toolExecutionNotifications": [
                {
                    "level": "error",
                    "message": {"text": "there is no file `x`\nhelp: name one"},
                }
            ],
        }
    ]
    assert run_of(log())["invocations"][0]["executionSuccessful"] is True


def test_files_are_relative_where_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {"uri": "a%23b.yaml", "uriBaseId": "%SRCROOT%"}
    assert artifact_uri("a#b.yaml") == relative
    assert artifact_uri(str(tmp_path / "a#b.yaml")) == relative
    assert artifact_uri("<stdin>") == {"uri": "%3Cstdin%3E", "uriBaseId": "%SRCROOT%"}
    outside = artifact_uri(str(tmp_path.parent / "x.yaml"))
    assert outside["uri"].startswith("file:///")
    assert "uriBaseId" not in outside
    assert artifact_uri("../x.yaml") == outside
    assert artifact_uri("deep/../a#b.yaml") == relative


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_a_file_whose_name_is_no_text() -> None:
    assert artifact_uri(os.fsdecode(b"a\xff.yaml"))["uri"] == "a%FF.yaml"
