"""Formulas as the report shows them: text, JSON, and the column of the table."""

from __future__ import annotations

import json
from functools import cache

import pytest

import cnnspec
from cnnspec.report import render_table, to_csv
from cnnspec.report.json import to_json
from cnnspec.report.sections.symbolic import SymbolicSection
from cnnspec.report.styled import as_plain, display_width
from tests.report.golden import check


@cache
def section(name: str) -> SymbolicSection:
    return SymbolicSection(cnnspec.load(name).analyze())


@pytest.mark.parametrize("name", ["lenet5", "resnet50", "unet", "vgg16", "vit_b_16"])
def test_text(name: str) -> None:
    check(f"symbolic_{name}.txt", as_plain(section(name).lines(100)))


@pytest.mark.parametrize("name", ["resnet50", "unet", "vgg16"])
def test_document(name: str) -> None:
    text = json.dumps(section(name).to_dict(), indent=1) + "\n"
    check(f"symbolic_{name}.json", text)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_lines_fit(width: int) -> None:
    for name in ("lenet5", "vgg16"):
        for line in section(name).lines(width):
            assert display_width("".join(piece for piece, _ in line)) <= width


def test_terms_add_up() -> None:
    figure = section("vgg16").to_dict()["macs"]
    assert "," not in figure["formula"]
    assert sum(term["coefficient"] for term in figure["terms"] if not term["factors"]) == 123633664
    assert figure["holds_for"] == ["H >= 32", "W >= 32"]
    assert figure["limit"] == "305856"


def test_column_has_shapes_as_formulas() -> None:
    found = section("unet")
    columns = ["output", "formula"]
    table = render_table(found.report, width=160, depth=3, sections=[found], columns=columns)
    assert "output by H, W" in table
    assert "64 x H x W" in table
    assert "512 x H/16 x W/16" in table


def test_layers_in_json_and_csv() -> None:
    found = section("resnet50")
    document = json.loads(to_json(found.report, [found]))
    first = document["layers"][0]
    assert first["output_shape_formula"] == ["64", "ceil(H/2)", "ceil(W/2)"]
    assert first["macs_formula"] == "9408*ceil(H/2)*ceil(W/2)"
    assert document["symbolic"]["input_sizes"][0]["smallest"] == 1
    assert "macs_formula" in to_csv(found.report, sections=[found]).splitlines()[0]


def test_a_network_without_formulas_says_why() -> None:
    net = cnnspec.load(
        text="cnnspec: 1\nname: net\ninputs: {x: [1, L = 8]}\n"
        "layers:\n  - Conv1d: {out_channels: L, kernel_size: 3}\n"
    )
    found = SymbolicSection(net.analyze())
    assert as_plain(found.lines(80)) == (
        "as formulas  here L = 8\n  line 5 asks for `L`, on which layers may depend\n"
    )
    assert found.columns == {}
    assert found.to_dict() == {
        "sizes": {"L": 8},
        "unavailable": "line 5 asks for `L`, on which layers may depend",
        "input_sizes": [],
    }
    assert render_table(found.report, width=80, sections=[found])
