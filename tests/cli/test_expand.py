"""`cnnspec expand` as users meet it; what it writes is tested with the flat network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.process import cnnspec


def totals(*arguments: str, stdin: str = "") -> object:
    code, out, err = cnnspec("analyze", *arguments, "--format", "json", stdin=stdin)
    assert (code, err) == (0, "")
    return json.loads(out)["totals"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("resnet18", "--set", "classes=7", "--input", "image=3x64x64"),
        ("specs/deeplabv3.yaml",),
        ("fpn",),
    ],
)
def test_the_result_is_the_same_network(arguments: tuple[str, ...]) -> None:
    code, flat, err = cnnspec("expand", *arguments)
    assert (code, err) == (0, "")
    assert totals("-", stdin=flat) == totals(*arguments)
    code, out, err = cnnspec("check", "-", stdin=flat)
    assert (code, err) == (0, "")
    assert out.endswith("1 spec, 1 network: no errors\n")
    assert cnnspec("fmt", "--check", "-", stdin=flat) == (0, "", "")


def test_a_file(tmp_path: Path) -> None:
    assert cnnspec("expand", "vgg16", "-o", "flat.yaml", cwd=tmp_path) == (0, "", "")
    text = (tmp_path / "flat.yaml").read_text(encoding="utf-8")
    assert text.startswith("# vgg16 of vgg16.yaml, written out\ncnnspec: 1\nname: vgg16\n")
    assert "    name: features.0\n" in text
    assert text.endswith("\nexpect: {params: 138357544, macs: 15470264320}\n")


def test_json() -> None:
    code, out, err = cnnspec("expand", "lenet5", "--variant", "lenet5_table", "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert (document["format"], document["variant"]) == (1, "lenet5_table")
    assert document["entries"][3]["op"] == "MaskedConv2d"
    assert document["entries"][3]["arguments"]["table"][0] == [0, 1, 2]


def test_mistakes() -> None:
    spec = "cnnspec: 1\nname: n\ninputs: {x: [3]}\nlayers: [ReLu]\n"
    code, out, err = cnnspec("expand", "-", stdin=spec)
    assert (code, out) == (1, "")
    assert "error[unknown-operation]" in err
    assert cnnspec("expand", "vgg16", "--format", "xml").code == 2
