"""Networks whose proof has little to look at: no weights, no modules, attention."""

from __future__ import annotations

from pathlib import Path

import pytest

import cnnspec


@pytest.mark.parametrize(
    "layers",
    [
        "[{MultiheadAttention: {num_heads: 2}}, LayerNorm]",
        "[Identity]",
        "[Dropout]",
        "[ReLU]",
        "[{Permute: {dims: [0, 2, 1]}}]",
    ],
)
def test_is_exported_and_proved(layers: str, tmp_path: Path) -> None:
    text = f"cnnspec: 1\nname: net\ninputs: {{x: [6, 4]}}\nlayers: {layers}\n"
    report = cnnspec.load(text=text).to_onnx(tmp_path / "net.onnx")
    assert report.verification is not None
    assert report.verification.close


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = cnnspec.load(
        text="cnnspec: 1\nname: net\ninputs: {x: [4]}\nlayers: [{Linear: {out_features: 2}}]\n"
    )
    net = cnnspec.load(
        text="cnnspec: 1\nname: net\ninputs: {x: [4]}\nlayers: [{Linear: {out_features: 3}}]\n"
    )
    with pytest.raises(cnnspec.EnvironmentFailure, match="do not fit the network"):
        net.to_onnx(tmp_path / "net.onnx", other.to_torch())
    assert not list(tmp_path.iterdir())
