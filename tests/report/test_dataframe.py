"""The layers as a pandas data frame."""

from __future__ import annotations

import sys

import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report import analyze
from cnnspec.report.dataframe import to_dataframe
from tests.report.networks import lenet, resnet50, two_heads


def test_a_row_is_a_layer() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    report = analyze(resnet50())
    frame = report.to_dataframe()
    assert list(frame.index) == [layer.path for layer in report.layers]
    assert frame.index.name == "path"
    layer = report["layer4.2.conv2"]
    row = frame.loc[layer.path]
    assert (row["op"], row["output_shape"], row["macs"]) == (
        layer.op,
        layer.output_shape,
        layer.macs,
    )
    assert row["inputs"] == layer.inputs
    assert (row["field"], row["field_size"], row["field_stride"]) == ("427/32", 427.0, 32.0)
    assert frame.attrs["name"] == "resnet50"
    assert frame.attrs["totals"]["macs"] == report.totals.macs


def test_columns_add_up() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    report = analyze(two_heads())
    frame = to_dataframe(report)
    inference = frame[~frame["training_only"]]
    for column in ("params", "buffers", "macs", "flops", "connections", "activations", "macts"):
        assert inference[column].sum() == getattr(report.totals, column)
        assert frame[column].sum() == getattr(report.totals.training, column)
    assert inference["ops_add"].sum() == report.totals.ops.add


def test_types_are_those_to_compute_with() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = to_dataframe(analyze(lenet()))
    assert {str(kind) for kind in frame[["params", "macs", "ops_mac", "line"]].dtypes} == {"int64"}
    assert {str(kind) for kind in frame[["training_only", "dead"]].dtypes} == {"bool"}
    assert str(frame["op"].dtype) == "category"
    assert str(frame["field_size"].dtype) == "float64"


def test_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnvironmentFailure) as failure:
        analyze(lenet()).to_dataframe()
    assert failure.value.message.startswith("pandas is not installed")
    assert "pip install pandas" in failure.value.help
