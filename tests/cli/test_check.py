"""`check`, `schema` and `explain` as users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from cnnspec.cli import check
from tests.cli.inside import called
from tests.cli.process import ROOT, cnnspec
from tests.zoo.networks import EVERY

GOOD = """\
cnnspec: 1
name: good
inputs: {image: [3, 8, 8]}
layers: [ReLU]
"""
BAD = GOOD.replace("ReLU", "RelU")
ODD = GOOD.replace("inputs", "params: {never: 3}\ninputs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"good": GOOD, "bad": BAD, "odd": ODD}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_specs_without_a_mistake(folder: Path) -> None:
    assert cnnspec("check", "good.yaml", cwd=folder) == (0, "1 spec, 1 network: no errors\n", "")
    code, out, err = cnnspec("check", "good.yaml", "vgg", "vgg16_bn", cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith("3 specs, ")


def test_the_bundled_specs_are_what_they_expect() -> None:
    """All of them, and no warning."""
    files = len([*(ROOT / "specs").glob("*.yaml")])
    assert cnnspec("check", "--all") == (
        0,
        f"{files} specs, {len(EVERY)} networks: no errors\n",
        "",
    )


def test_all_beside_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: folder / f"{name}.yaml" for name in ("good", "odd")}
    monkeypatch.setattr(check, "bundled_specs", lambda: few)
    assert called("check", "--all").out.endswith("\n2 specs, 2 networks: no errors\n")
    code, out, err = called("check", "--all", "bad.yaml", cwd=folder)
    assert (code, err) == (1, "")
    assert out.endswith("\n1 error, 1 warning\n")


@pytest.mark.parametrize("option", ["--variant=wide", "--set=classes=3", "--input=image=3x9x9"])
def test_all_have_no_option_in_common(option: str) -> None:
    code, out, err = cnnspec("check", "--all", option)
    assert (code, out) == (2, "")
    assert err.endswith("is for one spec, and `--all` means many\n")


def test_nothing_to_check() -> None:
    code, out, err = cnnspec("check")
    assert (code, out) == (2, "")
    assert err.startswith("error: there is nothing to check\n")


def test_mistakes_are_on_standard_output(folder: Path) -> None:
    code, out, err = cnnspec("check", "good.yaml", "bad.yaml", cwd=folder)
    assert (code, err) == (1, "")
    assert "error[unknown-operation]: " in out
    assert " --> bad.yaml:4:10" in out
    assert out.endswith("\n1 error\n")


def test_warnings_are_no_errors(folder: Path) -> None:
    code, out, err = cnnspec("check", "odd.yaml", cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith("warning[")
    assert "\n1 warning\n" in out
    assert out.endswith("1 spec, 1 network: no errors\n")


def test_a_spec_that_is_not_there_does_not_hide_the_others(folder: Path) -> None:
    code, out, err = cnnspec("check", "none.yaml", "bad.yaml", "vgg61", cwd=folder)
    assert code == 2
    assert "bad.yaml:4:10" in out
    assert err.count("error: ") == 2
    code, out, err = cnnspec("check", "none.yaml", "good.yaml", "--format", "json", cwd=folder)
    assert code == 2
    assert json.loads(out) == {"format": 1, "diagnostics": []}


def test_expectations(folder: Path) -> None:
    spec = GOOD + "expect: {params: 7}\n"
    code, out, err = cnnspec("check", "-", stdin=spec)
    assert (code, err) == (1, "")
    assert "<stdin>:5:18" in out
    code, out, err = cnnspec("check", "-", "--input", "image=3x9x9", stdin=spec)
    assert code == 0
    assert "`expect`" in err


def test_strict(folder: Path) -> None:
    spec = GOOD.replace("[ReLU]", "[{MaxPool2d: {kernel_size: 3}}]")
    assert cnnspec("check", "-", stdin=spec).code == 0
    assert cnnspec("check", "-", "--strict", stdin=spec).code == 1
    assert cnnspec("analyze", "-", "--strict", stdin=spec).code == 1


def test_annotations(folder: Path) -> None:
    code, out, err = cnnspec("check", "bad.yaml", "--format", "github", cwd=folder)
    assert (code, err) == (1, "")
    assert out.startswith("::error file=bad.yaml,line=4,col=10,")
    assert cnnspec("check", "good.yaml", "--format", "github", cwd=folder) == (0, "", "")


def test_sarif(folder: Path) -> None:
    code, out, err = cnnspec("check", ".", "none.yaml", "--format", "sarif", cwd=folder)
    assert code == 2
    assert err.startswith("error: there is no file `none.yaml`")
    document = json.loads(out)
    (run,) = document["runs"]
    assert [result["level"] for result in run["results"]] == ["error", "warning"]
    uris = [
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for result in run["results"]
    ]
    assert uris == ["bad.yaml", "odd.yaml"]
    assert not run["invocations"][0]["executionSuccessful"]


def test_folders_are_the_specs_in_them(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {}\n", encoding="utf-8")
    (folder / "vgg16").mkdir()
    (folder / "vgg16" / "bad.yaml").write_text(BAD, encoding="utf-8")
    code, out, err = cnnspec("check", ".", cwd=folder)
    assert (code, err) == (1, "")
    assert out.endswith("\n2 errors, 1 warning\n")
    # A bundled network wins over a folder of its name.
    assert cnnspec("check", "vgg16", cwd=folder).out == "1 spec, 1 network: no errors\n"
    assert cnnspec("check", "compose.yaml", cwd=folder).code == 1
    assert cnnspec("check", "--only-specs", "compose.yaml", cwd=folder) == (
        0,
        "0 specs, 0 networks: no errors\n",
        "",
    )


def test_schema(folder: Path) -> None:
    code, out, err = cnnspec("schema")
    assert (code, err) == (0, "")
    schema = json.loads(out)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    assert validator.is_valid(yaml.safe_load(GOOD))
    assert not validator.is_valid(yaml.safe_load(GOOD.replace("layers", "lyers")))
    assert cnnspec("schema", "-o", "net.schema.json", cwd=folder) == (0, "", "")
    assert json.loads((folder / "net.schema.json").read_text(encoding="utf-8")) == schema


def test_schema_of_a_spec_knows_its_blocks() -> None:
    code, out, err = cnnspec("schema", "specs/resnet.yaml")
    assert (code, err) == (0, "")
    jsonschema.Draft7Validator.check_schema(json.loads(out))
    document = yaml.safe_load((ROOT / "specs" / "resnet.yaml").read_text(encoding="utf-8"))
    for block in document["blocks"]:
        assert f'"{block}"' in out


def test_explain(folder: Path) -> None:
    code, listed, err = cnnspec("explain")
    assert (code, err) == (0, "")
    codes = [line.split(" ")[0] for line in listed.splitlines()]
    assert codes == sorted(codes)
    assert "concat-shape" in codes
    page = cnnspec("explain", "concat-shape")
    assert page.code == 0
    assert page.out.startswith("# ")
    assert cnnspec("explain", "error[concat-shape]") == page
    coloured = cnnspec("explain", "concat-shape", FORCE_COLOR="1")
    assert "\x1b[" in coloured.out
