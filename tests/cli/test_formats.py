"""JSON, CSV and Markdown of `analyze`: what other programs read stays as it is."""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from typing import Any

import jsonschema
import pytest

from tests.cli.process import cnnspec
from tests.zoo.networks import FILES

COUNT = {"type": "integer", "minimum": 0}
SIZES = {"type": "array", "items": {"type": "integer", "minimum": 1}}
SHAPES = {"type": "object", "additionalProperties": SIZES}
TEXT = {"type": "string"}
COUNT_OR_NULL = {"type": ["integer", "null"]}
NUMBER_OR_NULL = {"type": ["number", "null"]}


def record(**keys: Any) -> dict[str, Any]:
    """An object that has at least these keys."""
    return {"type": "object", "properties": keys, "required": list(keys)}


FIGURES = dict.fromkeys(
    (
        "params",
        "trainable_params",
        "buffers",
        "macs",
        "flops",
        "connections",
        "connections_with_bias",
        "activations",
        "peak_activation_bytes",
        "weight_bytes",
        "layers",
    ),
    COUNT,
)
FIELD = record(
    size=COUNT_OR_NULL,
    size_min=COUNT_OR_NULL,
    stride=NUMBER_OR_NULL,
    period=COUNT_OR_NULL,
    start=COUNT_OR_NULL,
    center=NUMBER_OR_NULL,
    aligned={"type": ["boolean", "null"]},
    **{"global": {"type": "boolean"}},
)
LAYER = record(
    path=TEXT,
    op=TEXT,
    inputs={"type": "array", "items": TEXT},
    output_shape=SIZES,
    params=COUNT,
    buffers=COUNT,
    macs=COUNT,
    flops=COUNT,
    connections=COUNT,
    activations=COUNT,
    receptive_field={"type": ["array", "null"], "items": FIELD},
    line={"type": "integer", "minimum": 1},
)
PLACE = {
    "file": {"type": ["string", "null"]},
    **{
        name: {"type": ["integer", "null"], "minimum": 1}
        for name in ("line", "column", "end_line", "end_column")
    },
}
DIAGNOSTIC = record(
    severity={"enum": ["error", "warning"]},
    code={"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"},
    message=TEXT,
    **PLACE,
    help={"type": ["string", "null"]},
    notes={"type": "array", "items": record(message=TEXT)},
)
ANALYSIS = record(
    format={"const": 1},
    name=TEXT,
    inputs=SHAPES,
    outputs=SHAPES,
    totals=record(**FIGURES, training=record(**FIGURES)),
    layers={"type": "array", "items": LAYER},
    warnings={"type": "array", "items": DIAGNOSTIC},
)
CHECK = record(format={"const": 1}, diagnostics={"type": "array", "items": DIAGNOSTIC})


@cache
def analysis(network: str) -> dict[str, Any]:
    code, out, err = cnnspec("analyze", network, "--format", "json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.mark.parametrize("network", FILES)
def test_json_of_analyze(network: str) -> None:
    document = analysis(network)
    jsonschema.validate(document, ANALYSIS)
    layers, totals = document["layers"], document["totals"]
    whole = totals["training"]
    for figure in ("params", "buffers", "macs", "flops", "connections", "activations"):
        assert sum(layer[figure] for layer in layers) == whole[figure]
        inference = [layer for layer in layers if not layer["training_only"]]
        assert sum(layer[figure] for layer in inference) == totals[figure]
    assert len(layers) == whole["layers"]
    paths = [layer["path"] for layer in layers]
    assert len(set(paths)) == len(paths)
    known = {*paths, *document["inputs"]}
    for layer in layers:
        for source in (each.partition(":")[0] for each in layer["inputs"]):
            owner, _, number = source.rpartition(".")
            assert source in known or (owner in known and number.isdecimal())  # one of several


def test_figures_of_json() -> None:
    totals = analysis("vgg16")["totals"]
    assert totals["params"] == 138_357_544
    assert totals["macs"] == 15_470_264_320
    assert totals["weight_bytes"] == 4 * 138_357_544
    first = analysis("vgg16")["layers"][0]
    assert first["path"] == "features.0"
    assert first["inputs"] == ["image"]
    assert first["output_shape"] == [64, 224, 224]
    assert [axis["size"] for axis in first["receptive_field"]] == [3, 3]
    lenet = analysis("lenet5")["totals"]
    assert lenet["connections_with_bias"] - lenet["connections"] > 0
    google = analysis("googlenet")["totals"]
    assert google["params"] == 6_624_904
    assert google["training"]["params"] == 13_004_888


def test_csv() -> None:
    code, out, err = cnnspec("analyze", "resnet50", "--format", "csv")
    assert (code, err) == (0, "")
    layers = analysis("resnet50")["layers"]
    table = list(csv.DictReader(io.StringIO(out)))
    assert [row["path"] for row in table if row["path"]][: len(layers)] == [
        layer["path"] for layer in layers
    ]
    assert [int(row["params"]) for row in table[: len(layers)]] == [
        layer["params"] for layer in layers
    ]


def test_markdown() -> None:
    code, out, err = cnnspec("analyze", "resnet50", "--format", "markdown")
    assert (code, err) == (0, "")
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:10]}) == 1
    assert "25,557,032" in out


WARNED = """\
cnnspec: 1
name: warned
params: {never: 3}
inputs: {image: [3, 8, 8]}
layers: [ReLU]
"""


def test_warnings_are_where_they_are_read() -> None:
    code, out, err = cnnspec("analyze", "-", stdin=WARNED)
    assert (code, err) == (0, "")
    assert "warning[" in out
    code, out, err = cnnspec("analyze", "-", "--format", "json", stdin=WARNED)
    assert (code, err) == (0, "")
    jsonschema.validate(json.loads(out), ANALYSIS)
    assert json.loads(out)["warnings"]
    for kind in ("csv", "markdown"):
        code, out, err = cnnspec("analyze", "-", "--format", kind, stdin=WARNED)
        assert code == 0
        assert err.startswith("warning[")


def test_json_of_check() -> None:
    code, out, err = cnnspec("check", "-", "--format", "json", stdin=WARNED + "expct: 1\n")
    assert (code, err) == (1, "")
    document = json.loads(out)
    jsonschema.validate(document, CHECK)
    (mistake,) = [d for d in document["diagnostics"] if d["severity"] == "error"]
    assert (mistake["file"], mistake["line"], mistake["column"]) == ("<stdin>", 6, 1)
    assert (mistake["end_line"], mistake["end_column"]) == (6, 6)
    assert mistake["help"] == "did you mean `expect`?"
