"""CSV and Markdown."""

from __future__ import annotations

import csv
from io import StringIO

import pytest

from cnnspec.ir import Graph
from cnnspec.report import analyze, to_csv, to_markdown
from tests.graphs import Net, Rectify
from tests.report.golden import check
from tests.report.networks import lenet, resnet50, two_heads, unfit

GRAPHS = [lenet(), resnet50(), two_heads(), unfit()]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_csv_rows_add_up_to_the_row_of_sums(graph: Graph) -> None:
    report = analyze(graph)
    rows = list(csv.DictReader(StringIO(to_csv(report))))
    layers = [row for row in rows if row["op"]]
    assert [row["path"] for row in layers] == [layer.path for layer in report.layers]
    total = next(row for row in rows if row["path"] == "total")
    for column in ("params", "macs", "flops", "activations", "connections", "buffers"):
        inference = [row for row in layers if row["training"] == "no"]
        assert sum(int(row[column]) for row in inference) == int(total[column])
        assert int(rows[-1][column]) == sum(int(row[column]) for row in layers)


def test_csv_without_sums_is_one_row_a_layer() -> None:
    report = analyze(lenet())
    assert len(to_csv(report, totals=False).splitlines()) == 1 + len(report.layers)


def test_golden_files() -> None:
    report = analyze(lenet())
    check("lenet.csv", to_csv(report))
    check("lenet.md", to_markdown(report))


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_markdown_rows_add_up(graph: Graph) -> None:
    report = analyze(graph)
    table = [line for line in to_markdown(report).splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip(" *") for cell in line.strip("|").split(" | ")] for line in table]
    layers = [row for row in cells if row[1]]
    for column in (3, 4):
        printed = sum(int(row[column].replace(",", "")) for row in layers)
        assert printed == int(cells[-1][column].replace(",", ""))


def test_markdown_leaves_no_markup_from_names() -> None:
    net = Net("<script>|*x*\n# y", image=(1, 4, 4))
    net.add(Rectify())
    title = to_markdown(analyze(net.build())).splitlines()[0]
    assert title == "## \\<script\\>\\|\\*x\\*\\\\n\\# y"
