"""Devices and the floors of time they set: files, arithmetic, errors."""

from __future__ import annotations

import pytest

from cnnspec import load
from cnnspec.device import Device
from cnnspec.diagnostics import EnvironmentFailure, SpecError
from cnnspec.frontend.devices import bundled_devices, device_path, read_device
from cnnspec.passes import Options
from cnnspec.passes.roofline import roofline
from cnnspec.passes.traffic import Traffic
from cnnspec.report.numbers import duration
from cnnspec.report.sections.roofline import RooflineSection
from cnnspec.source import Source

TEXT = """\
cnnspec: 1
name: net
inputs: {x: [16, 32, 32]}
layers:
  - Conv2d: {out_channels: 32, kernel_size: 3, padding: 1, bias: false}
  - ReLU
  - Dropout
"""


def device(**changes: object) -> Device:
    given = {"name": "box", "bandwidth": 1e6, "peak": {"float32": 1e9}, **changes}
    return Device(**given)  # type: ignore[arg-type]


def test_floors_by_hand() -> None:
    report = load(text=TEXT).analyze()
    model = roofline(report.graph, report.facts, device())
    convolution, rectifier, dropout = model.nodes
    macs, inputs, weights, outputs = 32 * 32 * 32 * 9 * 16, 16 * 1024, 32 * 16 * 9, 32 * 1024
    assert convolution.compute == pytest.approx(2 * macs / 1e9)
    assert convolution.memory == pytest.approx(4 * (inputs + weights + outputs) / 1e6)
    assert convolution.bound == "memory"
    assert rectifier.memory == pytest.approx(4 * 2 * outputs / 1e6)
    assert dropout.seconds == 0
    assert dropout.bound == ""
    assert model.seconds == pytest.approx(convolution.seconds + rectifier.seconds)
    assert model.ridge == 1000


def test_a_fast_memory_leaves_the_arithmetic() -> None:
    report = load(text=TEXT).analyze()
    model = roofline(report.graph, report.facts, device(bandwidth=1e15))
    assert [floor.bound for floor in model.nodes] == ["compute", "compute", ""]


def test_elementwise_arithmetic_has_its_own_rate() -> None:
    report = load(text=TEXT).analyze()
    slow = roofline(report.graph, report.facts, device(bandwidth=1e15, vector={"float32": 1e3}))
    assert slow.nodes[1].compute == pytest.approx(32 * 1024 / 1e3)


def test_batch_and_type() -> None:
    report = load(text=TEXT).analyze(dtype="float16", batch=4)
    rates = {"float32": 1e9, "float16": 4e9}
    model = roofline(report.graph, report.facts, device(peak=rates))
    macs, weights = 32 * 32 * 32 * 9 * 16, 32 * 16 * 9
    assert model.nodes[0].compute == pytest.approx(4 * 2 * macs / 4e9)
    assert model.nodes[0].memory == pytest.approx(2 * (4 * 48 * 1024 + weights) / 1e6)
    assert report.facts[Options].batch == 4


def test_products_in_tf32_where_there_is_one() -> None:
    report = load(text=TEXT).analyze()
    fast = device(peak={"float32": 1e9, "tf32": 8e9})
    assert roofline(report.graph, report.facts, fast).rate == "tf32"


def test_a_type_that_a_device_lacks() -> None:
    report = load(text=TEXT).analyze(dtype="int8")
    with pytest.raises(EnvironmentFailure, match="box has no rate for int8"):
        roofline(report.graph, report.facts, device())


@pytest.mark.parametrize("name", bundled_devices())
def test_bundled_devices(name: str) -> None:
    path = device_path(name)
    found = read_device(Source(str(path), path.read_text(encoding="utf-8")))
    assert found.source.startswith("https://")
    assert 1e9 < found.bandwidth < 1e13
    assert found.peak["float32"] <= found.peak["float16"] <= found.peak["int8"]
    assert set(found.vector) <= set(found.peak)
    assert all(found.vector_rate(dtype) <= found.matrix_rate(dtype)[1] for dtype in found.vector)


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_small", "vit_b_16", "unet"])
def test_sections_add_up(name: str) -> None:
    report = load(name).analyze()
    path = device_path("nvidia-a100-sxm-80gb")
    section = RooflineSection(
        report, read_device(Source(str(path), path.read_text(encoding="utf-8")))
    )
    told = section.to_dict()
    floors = section.per_layer["floor_seconds"]
    assert told["floor_seconds"] == pytest.approx(sum(floors))  # type: ignore[arg-type]
    assert told["floor_seconds"] >= max(told["compute_seconds"], told["memory_seconds"])
    moved = report.facts[Traffic].nodes
    running = report.graph.inference
    total = sum(moved[index].bytes for index in running)
    assert told["memory_seconds"] == pytest.approx(total / 2.039e12)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("name: a\nbandwidth: 1e9\npeak: {float32: 1e9}\n", []),
        ("name: a\n", ["`bandwidth`, `peak` are missing"]),
        (
            "name: a\nbandwidth: fast\npeak: {fp32: 1e9, float16: -1}\n",
            [
                "`bandwidth` must be a number of at least 1, not text",
                "`fp32` is no key of `peak`",
                "`float16` must be a number of at least 1, not -1",
            ],
        ),
        ("name: [a]\nbandwidth: 1\npeak: {}\n", ["`name` must be text", "`peak` has no rate"]),
        ("- 1\n", ["a device file must be a mapping, not a list"]),
    ],
)
def test_device_files(text: str, messages: list[str]) -> None:
    source = Source("box.yaml", text)
    if not messages:
        assert read_device(source).peak == {"float32": 1e9}
        return
    with pytest.raises(SpecError) as failure:
        read_device(source)
    found = [diagnostic.message for diagnostic in failure.value.diagnostics]
    assert len(found) == len(messages)
    for message, start in zip(found, messages, strict=True):
        assert message.startswith(start[:40]), message
    assert all(diagnostic.span is not None for diagnostic in failure.value.diagnostics)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(EnvironmentFailure, match="there is no device `nvidia-t5`") as failure:
        device_path("nvidia-t5")
    assert failure.value.help == "did you mean `nvidia-t4`?"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.5, "1.50 s"), (0.0123, "12.3 ms"), (2e-6, "2.00 us"), (3.14e-8, "31.4 ns"), (0, "0.00 ns")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
