"""`cnnspec explain-flops` as users run it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.process import cnnspec


def test_text() -> None:
    result = cnnspec("explain-flops", "lenet5", COLUMNS="100")
    assert (result.code, result.err) == (0, "")
    assert "torchinfo 1.8" in result.out
    assert max(len(line) for line in result.out.splitlines()) <= 120


def test_json_of_a_variant_at_another_size() -> None:
    result = cnnspec(
        *("explain-flops", "resnet", "--variant", "resnet18"),
        *("--set", "classes=10", "--input", "image=3x64x64", "--format", "json"),
    )
    document = json.loads(result.out)
    assert (document["name"], document["inputs"]) == ("resnet18", {"image": [3, 64, 64]})
    assert document["tools"]["torchvision"]["total"] == document["macs"]


def test_a_file(tmp_path: Path) -> None:
    written = tmp_path / "flops.md"
    result = cnnspec("explain-flops", "vgg16", "--format", "markdown", "-o", str(written))
    assert (result.code, result.out, result.err) == (0, "", "")
    assert written.read_text(encoding="utf-8").startswith("## vgg16\n")


def test_failures() -> None:
    assert cnnspec("explain-flops", "no_such_network").code == 2
    assert cnnspec("explain-flops", "-", stdin="cnnspec: 1\nlayers: []\n").code == 1
    wrong = cnnspec("explain-flops", "vgg16", "--format", "markdwon")
    assert (wrong.code, "did you mean `markdown`?" in wrong.err) == (2, True)
