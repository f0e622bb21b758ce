"""The report's values and its JSON document."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest

from cnnspec.diagnostics import EnvironmentFailure, SpecError, warning
from cnnspec.ir import Graph
from cnnspec.report import Report, analyze
from cnnspec.report.json import to_json
from tests.graphs import Dense, Net, Plus, Turn
from tests.report.golden import check
from tests.report.networks import lenet, resnet50, two_heads, unfit, vgg16

TOTALS = {
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
}
LAYER = {
    "path",
    "op",
    "inputs",
    "output_shape",
    "params",
    "buffers",
    "macs",
    "flops",
    "connections",
    "activations",
    "receptive_field",
    "line",
}
AXIS = {"size", "size_min", "stride", "period", "start", "center", "aligned", "global"}


@pytest.mark.parametrize(
    ("graph", "params", "macs", "field"),
    [
        pytest.param(lenet(), 61_706, 416_520, (16, 4), id="lenet"),
        pytest.param(vgg16(), 138_357_544, 15_470_264_320, (212, 32), id="vgg16"),
        pytest.param(resnet50(), 25_557_032, 4_089_184_256, (427, 32), id="resnet50"),
    ],
)
def test_figures_of_the_papers(
    graph: Graph, params: int, macs: int, field: tuple[int, int]
) -> None:
    report = analyze(graph)
    assert report.totals.params == params
    assert report.totals.macs == macs
    local = report.last_local
    assert local is not None
    assert local.receptive_field is not None
    for axis in local.receptive_field:
        assert (axis.field.size, axis.field.stride) == field


def test_resnet50_as_torchvision_counts_it() -> None:
    totals = analyze(resnet50()).totals
    assert totals.buffers == 53_120 + 53
    assert totals.macts == 11_114_984
    assert totals.weight_bytes == 102_228_128
    assert totals.layers == 175


@pytest.mark.parametrize("graph", [lenet(), resnet50(), two_heads(), unfit()], ids=lambda g: g.name)
def test_layers_add_up_to_both_totals(graph: Graph) -> None:
    report = analyze(graph)
    for figures, layers in (
        (report.totals, [layer for layer in report.layers if not layer.training_only]),
        (report.totals.training, list(report.layers)),
    ):
        assert figures.layers == len(layers)
        for name in figures.to_dict().keys() - {"layers", "training", "ops", "intensity"}:
            if hasattr(layers[0], name):
                assert getattr(figures, name) == sum(getattr(layer, name) for layer in layers), name
        assert figures.params == figures.weights + figures.biases
        assert figures.params == figures.trainable_params + figures.frozen_params
        assert figures.flops == figures.ops.flops


def test_training_counts_what_inference_leaves_out() -> None:
    report = analyze(two_heads())
    conv, main, aux = 3 * 4 * 9 + 4, 10 * 1024 + 10, 5 * 1024 + 5
    assert report.totals.params == conv + main
    assert report.totals.training.params == conv + main + aux
    assert report["aux.fc"].training_only
    assert dict(report.outputs) == {"logits": (10,)}
    assert dict(report.training_outputs) == {"aux": (5,)}


def test_layers_by_path() -> None:
    report = analyze(vgg16())
    assert report["features.0"].output_shape == (64, 224, 224)
    assert report["features.0"].inputs == ("image",)
    assert report["features.1"].inputs == ("features.0",)
    with pytest.raises(KeyError, match=r"no layer `features\.0O`: did you mean `features\.0`\?"):
        report["features.0O"]


def test_the_document_has_the_stable_keys() -> None:
    document = analyze(two_heads()).to_dict()
    assert document["format"] == 1
    assert document["inputs"] == {"left": [3, 16, 16], "right": [3, 16, 16]}
    assert document["outputs"] == {"logits": [10]}
    assert document["totals"].keys() >= TOTALS | {"training"}
    assert document["totals"]["training"].keys() >= TOTALS
    for layer in document["layers"]:
        assert layer.keys() >= LAYER
        for axis in layer["receptive_field"]:
            assert axis.keys() >= AXIS
    assert document["layers"][2]["inputs"] == ["left", "right"]
    assert document["warnings"] == []
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_the_document_of_a_network_without_space_has_no_fields() -> None:
    net = Net(features=(4,))
    net.add(Dense(units=2))
    document = analyze(net.build()).to_dict()
    assert document["layers"][0]["receptive_field"] is None
    assert document["status"]["receptive_field"] == {
        "status": "unavailable",
        "why": "no input has a spatial axis",
    }
    assert document["status"]["macs"] == {"status": "exact"}


def test_golden_document() -> None:
    text = json.dumps(analyze(unfit()).to_dict(), indent=2) + "\n"
    check("unfit.json", text)


def test_a_field_that_is_lost_makes_the_metric_partial() -> None:
    net = Net(image=(1, 8, 8))
    first = net.add("Conv2d", out_channels=1, kernel_size=3, padding=1)
    net.add(Plus(), first, net.add(Turn()), name="cross")
    status = analyze(net.build()).status["receptive_field"]
    assert status.status == "partial"
    assert status.why == "from `cross` on: it meets itself along another axis"


def test_strict_raises_with_all_findings() -> None:
    with pytest.raises(SpecError) as raised:
        analyze(unfit(), strict=True)
    assert [found.code for found in raised.value.diagnostics] == [
        "does-not-fit",
        "kernel-exceeds-input",
        "dead-entry",
    ]


def test_warnings_about_the_text_come_first() -> None:
    odd = warning("unused-param", "`width` is never used")
    assert analyze(unfit(), warnings=[odd]).warnings[0] is odd


def test_folding_can_be_turned_off() -> None:
    graph = resnet50()
    assert analyze(graph, fold=False).totals.flops > analyze(graph).totals.flops
    assert analyze(graph, fold=False).totals.macs == analyze(graph).totals.macs


def test_peak_and_training_memory() -> None:
    report = analyze(lenet())
    assert report.totals.peak_activation_bytes == 4 * (4704 + 1176)
    assert dict(report.peak_tensors) == {"1": 18816, "2": 4704}
    memory = report.training_memory
    assert memory.weights == memory.gradients == memory.momentum == 4 * 61_706
    assert memory.optimizer_state == memory.momentum
    assert memory.total == 3 * 4 * 61_706 + memory.saved_activations
    assert memory.saved_activations == sum(memory.saved.values()) > 0


def test_bytes_follow_type_and_batch_and_counts_do_not() -> None:
    graph = resnet50()
    one, many = analyze(graph), analyze(graph, dtype="float16", batch=8, optimizer="adamw")
    ours, theirs = one.totals, many.totals
    assert (ours.params, ours.macs, ours.flops) == (theirs.params, theirs.macs, theirs.flops)
    assert ours.activations == theirs.activations
    assert theirs.peak_activation_bytes == 4 * ours.peak_activation_bytes
    assert theirs.weight_bytes == ours.weight_bytes // 2
    assert theirs.buffer_bytes == 2 * 53_120 + 8 * 53
    assert theirs.bytes_written == 4 * ours.bytes_written
    assert theirs.bytes_read < 4 * ours.bytes_read
    assert many.training_memory.optimizer_state == 4 * ours.params + 4 * 161
    assert many.training_memory.saved["statistics"] == one.training_memory.saved["statistics"]
    assert many.to_dict()["options"] == {"dtype": "float16", "batch": 8, "optimizer": "adamw"}


def test_eight_bits_are_for_inference() -> None:
    report = analyze(lenet(), dtype="int8")
    assert report.totals.peak_activation_bytes == 4704 + 1176
    assert report.totals.weight_bytes == report.totals.weights + 4 * report.totals.biases
    assert report.status["training_memory"].status == "unavailable"
    assert report.to_dict()["training_memory"] is None
    with pytest.raises(EnvironmentFailure, match="a network in int8 is not trained"):
        _ = report.training_memory


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float61"}, "there is no type `float61`"),
        ({"optimizer": "adan"}, "there is no optimizer `adan`"),
        ({"batch": 0}, "a batch of 0 has no samples"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        analyze(lenet(), **options)
    assert str(failure.value).startswith(message)


def test_timeline_of_inference() -> None:
    report = analyze(two_heads())
    assert [moment.layer for moment in report.timeline] == [
        layer.path for layer in report.layers if not layer.training_only
    ]
    assert max(moment.bytes for moment in report.timeline) == report.totals.peak_activation_bytes
    assert [layer.live_bytes for layer in report.layers if layer.training_only] == [0, 0, 0, 0][
        : sum(layer.training_only for layer in report.layers)
    ]


def test_repr_is_short_and_html_is_escaped() -> None:
    net = Net("<b>|net", image=(1, 8, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3)
    report = analyze(net.build())
    assert repr(report).startswith("<Report <b>|net: input image 1x8x8; output output 1x6x6;")
    assert "params 10" in repr(report)
    html = report._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;|net" in html


def best_of(report: Any, times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = perf_counter()
        report()
        best = min(best, perf_counter() - started)
    return best


def test_a_whole_report_takes_milliseconds() -> None:
    graph = resnet50()

    def whole() -> Report:
        report = analyze(graph)
        assert report.totals.macs
        assert report.layers
        return report

    assert best_of(whole, 10) < 0.05  # 4 ms where this was written; the rest is for slow machines


def test_json_text_is_the_document_a_layer_a_line() -> None:
    report = analyze(resnet50())
    text = to_json(report)
    assert json.loads(text) == json.loads(json.dumps(report.to_dict()))
    rows = [line for line in text.splitlines() if line.startswith('  {"path"')]
    assert len(rows) == len(report.layers)
