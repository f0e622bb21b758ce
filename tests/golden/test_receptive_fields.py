"""Receptive fields of the bundled specs, as papers and tables of receptive fields have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import cnnspec
from cnnspec.report import Report

SPECS = Path(__file__).parents[2] / "specs"
FACTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("facts.json").read_text())


def analyze(spec: str, variant: str | None = None) -> Report:
    return cnnspec.load(SPECS / f"{spec}.yaml", variant=variant).analyze()


def fields(report: Report, path: str) -> list[Any]:
    """What the layer at `path` sees along each axis of the image."""
    axes = report[path].receptive_field
    assert axes is not None
    return [axis.field for axis in axes]


def last_of(report: Report, scope: str) -> str:
    return [layer.path for layer in report.layers if layer.path.startswith(f"{scope}.")][-1]


@pytest.mark.parametrize(
    ("spec", "variant", "pool", "size", "stride"),
    [
        ("alexnet", None, "features.12", 195, 32),
        ("alexnet", "alexnet_paper", "features.14", 195, 32),
        ("vgg16", None, "features.30", 212, 32),
        ("vgg", "vgg11", "features.20", 150, 32),
        ("vgg", "vgg13", "features.24", 156, 32),
        ("vgg", "C", "features.30", 156, 32),
        ("vgg", "vgg19", "features.36", 268, 32),
    ],
)
def test_last_pool(spec: str, variant: str | None, pool: str, size: int, stride: int) -> None:
    for field in fields(analyze(spec, variant), pool):
        assert (field.size, field.size_min, field.stride) == (size, size, stride)


def fact_id(fact: Mapping[str, Any]) -> str:
    return f"{fact['spec']}-{fact['variant'] or 'itself'}"


@pytest.mark.parametrize("fact", [f for f in FACTS if "stages" in f], ids=fact_id)
def test_stages_of_residual_networks(fact: Mapping[str, Any]) -> None:
    """ResNet-50 sees 427 pixels with the stride on its 3x3 convolutions, 483 on the first 1x1."""
    report = analyze(fact["spec"], fact["variant"])
    for stage, row in fact["stages"].items():
        for field in fields(report, last_of(report, stage)):
            assert (field.size, field.stride) == (row["field"], row["stride"])


@pytest.mark.parametrize("fact", [f for f in FACTS if "layers" in f], ids=fact_id)
def test_every_layer_of_a_plain_network(fact: Mapping[str, Any]) -> None:
    report = analyze(fact["spec"], fact["variant"])
    kinds = {"Conv2d", "Linear", "MaxPool2d", "AvgPool2d"}
    layers = [layer for layer in report.layers if layer.op in kinds]
    for layer, row in zip(layers, fact["layers"], strict=True):
        if row["field"] is None:
            continue
        for field in fields(report, layer.path):
            seen = (field.size, field.stride, field.center)
            assert seen == (row["field"], row["stride"], row["center"]), layer.path


@pytest.mark.parametrize("variant", [None, "unet_paper"])
def test_unet_sees_188_or_204_pixels_by_phase(variant: str | None) -> None:
    """Four transposed convolutions make 16 phases; the textbook's recurrence says 200 for all."""
    report = analyze("unet", variant)
    for field in fields(report, "mask"):
        assert (field.size_min, field.size) == (188, 204)
        assert (field.stride, field.period) == (1, 16)


def test_pyramid_branches_of_googlenet() -> None:
    """3x3 kernels where the paper has 5x5 shrink the last field from 715 to 379."""
    report = analyze("googlenet")
    assert {field.size for field in fields(report, last_of(report, "inception5b"))} == {379}
