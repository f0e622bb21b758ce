"""`cnnspec analyze` with several networks, sorted, limited, on a device."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.cli.process import cnnspec


def rows(text: str) -> list[str]:
    """The rows of a table: what stands between its rules."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("──")]
    return lines[rules[0] + 1 : rules[1] if len(rules) > 1 else None]


def test_sorted_layers() -> None:
    done = cnnspec("analyze", "resnet18", "--sort", "params", "--top", "3")
    assert done.code == 0
    found = rows(done.out)
    assert [row.split()[0] for row in found] == [
        "layer4.0.conv2",
        "layer4.1.conv1",
        "layer4.1.conv2",
        "66",
    ]
    counts = [int(re.findall(r"[\d,]{6,}", row)[0].replace(",", "")) for row in found]
    assert counts[:3] == [2359296] * 3
    assert sum(counts) == 11689512


def test_top_sorts_by_macs() -> None:
    top = cnnspec("analyze", "resnet18", "--top", "2")
    assert top == cnnspec("analyze", "resnet18", "--top", "2", "--sort", "macs")


def test_sorted_blocks() -> None:
    done = cnnspec("analyze", "resnet18", "--depth", "1", "--sort", "params")
    assert [row.split()[0] for row in rows(done.out)][:3] == ["layer4", "layer3", "layer2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sort", "macz"), "there is no column `macz`"),
        (("--sort", "args"), "column `args` has no order"),
        (("--top", "0"), "--top takes a whole number of at least 1, not `0`"),
        (("--sort", "macs", "--format", "json"), "--sort is for tables, and json shows all in"),
        (("--budget", "macs<"), "`macs<` is no limit"),
        (("--device", "abacus"), "there is no device `abacus`"),
        (("--device", "nvidia-t4", "--dtype", "bfloat16"), "NVIDIA T4 has no rate for bfloat16"),
        (("--dtype", "float23"), "--dtype takes "),
        (("--lint", "odd"), "there is no lint rule `odd`"),
        (("vgg16", "--depth", "2"), "--depth is for one network, and several have a row each"),
        (("vgg16", "--sort", "input"), "networks cannot be sorted by `input`"),
        (("vgg16", "--top", "1", "--format", "json"), "--top is for tables, and json shows all in"),
        (
            ("vgg16", "--device", "nvidia-t4", "--format", "csv"),
            "--device adds nothing to the csv of several networks",
        ),
    ],
)
def test_usage(arguments: tuple[str, ...], message: str) -> None:
    done = cnnspec("analyze", "resnet18", *arguments)
    assert done.code == 2
    assert done.out == ""
    assert message in done.err


def test_side_by_side() -> None:
    done = cnnspec("analyze", "lenet5", "resnet18", "vgg16", "--sort", "macs")
    assert done.code == 0
    assert [row.split()[0] for row in rows(done.out)] == ["vgg16", "resnet18", "lenet5"]
    assert "15,470,264,320" in done.out


def test_side_by_side_of_one_name() -> None:
    done = cnnspec("analyze", "lenet5", "lenet5")
    assert [row[:10].strip() for row in rows(done.out)] == ["lenet5", "lenet5 (2)"]


def test_side_by_side_for_programs() -> None:
    document = json.loads(cnnspec("analyze", "lenet5", "resnet18", "--format", "json").out)
    assert [network["name"] for network in document["networks"]] == ["lenet5", "resnet18"]
    table = cnnspec("analyze", "lenet5", "resnet18", "--format", "csv").out
    lenet, resnet = csv.DictReader(io.StringIO(table))
    assert lenet["params"] == "61706"
    assert resnet["macs"] == "1814073344"
    markdown = cnnspec("analyze", "lenet5", "resnet18", "--format", "markdown").out
    assert markdown.splitlines()[2].startswith("| lenet5 | 1x32x32 | 10 |")


def test_a_budget_that_is_kept() -> None:
    done = cnnspec("analyze", "resnet18", "--budget", "macs<2G, params<12M")
    assert done.code == 0
    assert "kept, 90.7% of it" in done.out


def test_a_budget_that_is_not() -> None:
    done = cnnspec("analyze", "resnet18", "--budget", "macs<1G, params<12M")
    assert done.code == 1
    assert "not kept, 181.4% of it; most: conv1 (6.5%)" in done.out
    document = json.loads(
        cnnspec("analyze", "resnet18", "--budget", "macs<1G", "--format", "json").out
    )
    assert document["budget"]["kept"] is False


def test_budgets_of_several() -> None:
    done = cnnspec("analyze", "lenet5", "resnet18", "--budget", "params<1M")
    assert done.code == 1
    assert done.out.count("budget") == 2
    assert done.out.index("lenet5\nbudget") < done.out.index("resnet18\nbudget")


def test_budgets_add_up() -> None:
    done = cnnspec("analyze", "lenet5", "--budget", "macs<1", "--budget", "params<1M")
    assert done.code == 1
    assert "macs<1 " in done.out
    assert "params<1M" in done.out


def test_lists_of_names_add_up() -> None:
    once = cnnspec("analyze", "lenet5", "--columns", "macs,params", "--lint", "odd-channels,all")
    twice = ("--columns", "macs", "--columns", "params", "--lint", "odd-channels", "--lint", "all")
    assert cnnspec("analyze", "lenet5", *twice) == once


def test_a_broken_budget_is_told_where_the_result_does_not_show_it(tmp_path: Path) -> None:
    budget = ("--budget", "macs<1")
    for wanted in (("--format", "csv"), ("--format", "json"), ("-o", str(tmp_path / "out.txt"))):
        done = cnnspec("analyze", "lenet5", *wanted, *budget)
        assert done.code == 1
        assert done.err.startswith("budget of lenet5\nmacs<1  416,520  417 K  not kept"), wanted
    done = cnnspec("analyze", "lenet5", "vgg16", "--format", "csv", "--budget", "params<1M")
    assert done.code == 1
    assert done.err.startswith("budget of vgg16\nparams<1M")
    assert cnnspec("analyze", "lenet5", *budget).err == ""


def test_markdown_of_several_has_their_sections() -> None:
    done = cnnspec("analyze", "lenet5", "vgg16", "--format", "markdown", "--budget", "params<1M")
    assert done.code == 1
    assert done.err == ""
    table, first, second = done.out.split("\n### ")
    assert table.count("\n| ") == 3
    assert first.startswith("lenet5\n\n```text\nbudget\nparams<1M")
    assert second.startswith("vgg16\n\n```text\nbudget\nparams<1M")


def test_a_device_by_file(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("name: my box\nbandwidth: 1e9\npeak: {float32: 1e10}\n")
    done = cnnspec("analyze", "lenet5", "--device", "box.yaml", cwd=tmp_path)
    assert done.code == 0
    assert "on my box" in done.out
    document = json.loads(
        cnnspec("analyze", "lenet5", "--device", "box.yaml", "--format", "json", cwd=tmp_path).out
    )
    assert document["roofline"]["device"] == "my box"
    assert document["layers"][0]["bound"] == "memory"


def test_a_broken_device_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("name: my box\nbandwidth: 1e9\npeak: {fp32: 1e10}\n")
    done = cnnspec("analyze", "lenet5", "--device", "box.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "box.yaml:3:8" in done.err
    missing = cnnspec("analyze", "lenet5", "--device", "bax.yaml", cwd=tmp_path)
    assert missing.code == 2
    assert "there is no file `bax.yaml`" in missing.err


def test_columns_of_sections() -> None:
    done = cnnspec("analyze", "lenet5", "--device", "nvidia-t4", "--columns", "macs,bound")
    assert done.out.splitlines()[2].split() == ["layer", "MACs", "bound", "by"]
    sorted_by = cnnspec("analyze", "resnet18", "--device", "nvidia-t4", "--sort", "floor")
    assert sorted_by.code == 0
