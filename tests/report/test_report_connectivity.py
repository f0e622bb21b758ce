"""Dense, local and shared weights: the lectures' counts, and the matrices themselves."""

from __future__ import annotations

import csv
import json
from io import StringIO

import pytest

import cnnspec
from cnnspec.ops import bind, registry
from cnnspec.passes.connectivity import connectivity
from cnnspec.passes.matrix import matrix_of
from cnnspec.report import Report, analyze, render_table, to_csv, to_markdown
from cnnspec.report.json import to_json
from cnnspec.report.sections.connectivity import ConnectivitySection
from tests.cli.inside import called
from tests.ops.harness import Case, alone, cases


def report(inputs: str, *layers: str) -> Report:
    entries = "".join(f"  - {layer}\n" for layer in layers)
    text = f"cnnspec: 1\nname: net\ninputs: {{x: {inputs}}}\nlayers:\n{entries}"
    return cnnspec.load(text=text).analyze()


def counts(inputs: str, layer: str) -> tuple[int, ...]:
    """Dense, local, inside and shared weights of the only layer."""
    found = report(inputs, layer)
    (only,) = connectivity(found.graph, found.facts)
    assert only is not None
    return only.dense, only.local, only.inside, only.shared


SAME = "out_channels: 1, kernel_size: 3, padding: 1, bias: false"


@pytest.mark.parametrize(
    ("inputs", "layer", "expected"),
    [
        # O((HW)^2), O(HW*mn), O(mn) on 7x7 pixels
        ("[1, 7, 7]", f"Conv2d: {{{SAME}}}", (49**2, 441, 19**2, 9)),
        ("[1, 7, 7]", f"LocallyConnected2d: {{{SAME}}}", (49**2, 441, 19**2, 441)),
        ("[1, 7, 7]", "Conv2d: {out_channels: 1, kernel_size: 3}", (49 * 25, 225, 225, 9)),
        # the band matrix of 3n - 2 weights
        (
            "[1, 5]",
            f"LocallyConnected1d: {{{SAME}, padding_weights: false}}",
            (25, 13, 13, 13),
        ),
        ("[1, 5]", f"Conv1d: {{{SAME}}}", (25, 15, 13, 3)),
        # 200x200 pixels: 400,000 units with fields of 10x10
        (
            "[1, 200, 200]",
            "Conv2d: {out_channels: 10, kernel_size: 10, padding: same, bias: false}",
            (40_000 * 400_000, 40_000_000, 10 * 1975**2, 1000),
        ),
        ("[40000]", "Linear: {out_features: 1000}", (40_000_000,) * 4),
        ("[5, 8]", "Linear: {out_features: 6}", (5 * 8 * 5 * 6, 240, 240, 48)),
        # groups, stride, dilation
        (
            "[4, 9, 9]",
            "Conv2d: {out_channels: 8, kernel_size: 3, stride: 2, groups: 4}",
            (324 * 128, 8 * 16 * 9, 8 * 16 * 9, 72),
        ),
        (
            "[1, 9, 9]",
            "Conv2d: {out_channels: 1, kernel_size: 3, dilation: 2}",
            (81 * 25, 225, 225, 9),
        ),
    ],
)
def test_the_lectures_counts(inputs: str, layer: str, expected: tuple[int, ...]) -> None:
    assert counts(inputs, layer) == expected


LINEAR = [
    case
    for case in cases()
    if case.bound()[0].linear_map(case.bound()[1]) is not None
    and case.bound()[0].arguments().get("padding_mode", "zeros") == "zeros"
    and case.bound()[1].x.elements * case.bound()[1].y.elements <= 100_000
]
"""Examples whose matrix is small and has an entry for each connection."""


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_the_counts_are_those_of_the_matrix(case: Case) -> None:
    op, site = case.bound()
    graph = alone(op, site.inputs)
    (found,) = connectivity(graph, analyze(graph).facts)
    assert found is not None
    matrix = matrix_of(op, site.inputs, "layer")
    assert found.dense == matrix.rows * matrix.columns
    assert found.inside == len(matrix.entries)


def test_layers_without_units_have_none() -> None:
    found = report("[1, 6, 6]", "ReLU", "MaxPool2d: {kernel_size: 2}", "Flatten")
    section = ConnectivitySection(found)
    assert list(section.per_layer["dense_weights"]) == [None] * 3
    assert section.to_dict()["dense_weights"] == 0
    assert "weights of all layers" in render_table(found, width=100, sections=[section])


def test_weights_that_are_shared_count_once() -> None:
    found = report(
        "[4, 5]",
        "Linear: {out_features: 5}\n    name: a",
        "Linear: {out_features: 5}\n    share: a",
    )
    section = ConnectivitySection(found)
    assert list(section.per_layer["shared_weights"]) == [25, 0]
    assert section.to_dict()["local_weights"] == 200


def test_every_format() -> None:
    found = report("[1, 7, 7]", f"Conv2d: {{{SAME}}}\n    name: conv", "ReLU")
    section = ConnectivitySection(found, "conv")
    table = render_table(found, width=100, sections=[section])
    assert table.splitlines()[2].split()[-3:] == ["dense", "local", "shared"]
    row = next(line for line in table.splitlines() if line.startswith("conv"))
    assert row.split()[-3:] == ["2,401", "441", "9"]
    assert "weights of conv, were it  Conv2d, 1x7x7 to 1x7x7" in table
    assert "80 of them on padding" in table
    document = json.loads(to_json(found, [section]))
    assert document["connectivity"]["layer"] == {
        "path": "conv",
        "inputs": 49,
        "units": 49,
        "dense_weights": 2401,
        "local_weights": 441,
        "local_weights_inside": 361,
        "shared_weights": 9,
    }
    assert [layer["local_weights"] for layer in document["layers"]] == [441, None]
    rows = list(csv.DictReader(StringIO(to_csv(found, sections=[section]))))
    assert [row["dense_weights"] for row in rows[:2]] == ["2401", ""]
    assert "weights of conv" in to_markdown(found, [section])


def test_fixed_kernels_are_shared_too() -> None:
    op = bind(registry()["FixedConv2d"], {"kernel": [[[0, 1], [1, 0]]]})
    graph = alone(op, Case(type(op), op.examples[0], 0).bound()[1].inputs)
    (found,) = connectivity(graph, analyze(graph).facts)
    assert found is not None
    assert found.shared == 4


def test_the_command_line() -> None:
    code, out, err = called("analyze", "lenet5", "--compare-connectivity", "--layer", "c1")
    assert (code, err) == (0, "")
    assert "dense   4,816,896  4.82 M  1,024 inputs for each of 4,704 units: O((HW)^2)\n" in out
    for arguments, message in (
        (("--layer", "c1"), "--layer is for --compare-connectivity"),
        (("--compare-connectivity", "--layer", "c2"), "there is no layer `c2`"),
        (("--compare-connectivity", "--layer", "1"), "`1` is `Tanh`, which has no connections"),
    ):
        code, out, err = called("analyze", "lenet5", *arguments)
        assert (code, out) == (2, "")
        assert message in err
