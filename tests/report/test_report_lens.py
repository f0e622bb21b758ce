"""Sections of other tools' figures, and what `cnnspec explain-flops` says."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

import cnnspec
from cnnspec.lenses import LENSES
from cnnspec.report import Report, render_table, to_csv, to_markdown
from cnnspec.report.flops import flops_document, flops_lines, flops_markdown
from cnnspec.report.json import to_json
from cnnspec.report.sections.lens import LensSection
from cnnspec.report.styled import as_plain

THOP = 4_133_742_592
NORMS = 44_455_936
POOL = 102_400


@pytest.fixture(scope="module")
def resnet50() -> Report:
    return cnnspec.load("resnet50").analyze()


def test_the_table_gains_a_column_and_lines(resnet50: Report) -> None:
    text = render_table(resnet50, width=110, depth=1, sections=(LensSection(resnet50, "thop"),))
    (total,) = re.findall(r"^total .*", text, re.MULTILINE)
    assert total.endswith(f"{THOP:,}")
    lines = [line.split("  ") for line in text.splitlines()]
    words = [" ".join(filter(None, line)) for line in lines]
    assert f"nn.BatchNorm2d +{NORMS:,} 4 for each element (53 layers)" in words
    assert "as ultralytics-thop 2.2 counts thop.profile(model, inputs)" in words
    assert f"macs {THOP}.0" in words
    assert f"thop {THOP:,} macs" in words


def test_every_section_sums_to_its_total(resnet50: Report) -> None:
    for name in LENSES:
        section = LensSection(resnet50, name)
        (column,) = section.columns.values()
        (counts,) = section.per_layer.values()
        assert len(counts) == len(resnet50.layers)
        assert column.total(resnet50.totals) == f"{sum(map(int, counts)):,}"
        document = section.to_dict()
        differences = sum(cause["amount"] for cause in document["causes"])
        assert document["macs"] + differences == document["total"]
        assert document["macs"] == resnet50.totals.macs


def test_json_csv_and_markdown_have_it(resnet50: Report) -> None:
    section = LensSection(resnet50, "thop")
    document = json.loads(to_json(resnet50, (section,)))
    assert document["as_thop"]["total"] == THOP
    assert document["as_thop"]["printed"]["macs"] == f"{THOP}.0"
    assert sum(layer["as_thop"] for layer in document["layers"]) == THOP
    rows = list(csv.DictReader(io.StringIO(to_csv(resnet50, totals=False, sections=(section,)))))
    assert sum(int(row["as_thop"]) for row in rows) == THOP
    assert f"{THOP:,}" in to_markdown(resnet50, (section,))


CROP = """\
cnnspec: 1
name: crop
inputs: {image: [3, 9, 9]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: conv
  - CenterCrop: {size: 4}
    name: cut
"""


def test_what_is_not_known_is_said() -> None:
    report = cnnspec.load(text=CROP).analyze()
    section = LensSection(report, "fvcore")
    document = section.to_dict()
    assert document["status"] == "unavailable"
    assert document["printed"] == {}
    assert document["unknown"] == [
        {"why": "`CenterCrop`: it rounds a size, on which tracing fails", "layers": ["cut"]}
    ]
    assert section.per_layer == {"as_fvcore": (5292, None)}
    shown = render_table(report, width=120, sections=(section,))
    assert re.search(r"cut .* unknown$", shown, re.MULTILINE)
    assert "unavailable" in shown
    assert "an error" in as_plain(flops_lines(report, 120))
    json.dumps(flops_document(report))


def test_all_tools_side_by_side(resnet50: Report) -> None:
    text = as_plain(flops_lines(resnet50, 120))
    header = next(line for line in text.splitlines() if line.startswith("torch runs"))
    assert header.split()[4:] == list(LENSES)
    (total,) = re.findall(r"^total +(.*)", text, re.MULTILINE)
    assert total.split() == [
        "175",
        *("4,089,184,256", "4,089,184,256", "4,111,512,576", "4,133,742,592"),
        *("4,089,238,376", "4,111,512,576", "4,132,436,968"),
    ]
    assert "counted by none: `+` x16, `torch.flatten` x1" in text


def test_the_document_of_all_tools(resnet50: Report) -> None:
    document = json.loads(json.dumps(flops_document(resnet50)))
    assert (document["format"], document["macs"]) == (1, resnet50.totals.macs)
    assert list(document["tools"]) == list(LENSES)
    for name, tool in document["tools"].items():
        assert tool["total"] == sum(group["counts"][name] for group in document["groups"])
        assert tool["status"] == "exact"
    norms = next(g for g in document["groups"] if g["target"] == "nn.BatchNorm2d")
    assert (norms["layers"], norms["counts"]["thop"]) == (53, NORMS)


def test_markdown_of_all_tools(resnet50: Report) -> None:
    text = flops_markdown(resnet50)
    widths = {
        line.count(" | ") for line in text.splitlines() if line.startswith("| `nn.Conv2d` | ")
    }
    assert widths == {8}
    assert f"| `nn.AdaptiveAvgPool2d` x1 | +{POOL:,} |" in text
    assert f"| **thop** | **{THOP:,}** | macs |" in text


def test_names_from_a_spec_are_text() -> None:
    odd = CROP.replace("name: crop", 'name: "a|b[/x]*"')
    report = cnnspec.load(text=odd).analyze()
    assert flops_markdown(report).startswith("## a\\|b\\[/x\\]\\*\n")
