"""The file: it appears whole, proved, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import pytest
import torch

from cnnspec.backends.onnx import file
from cnnspec.backends.onnx.file import export
from cnnspec.backends.onnx.verify import VerificationFailure
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.ops.conv import Conv2d
from tests.backends.onnx_networks import image, made, torch_of
from tests.ops.harness import Network


def network() -> Graph:
    """One convolution."""
    net = Network(image=image(2, 5, 5))
    op = made(Conv2d, out_channels=3, kernel_size=3)
    net.output("map", net.add("conv", op, 0))
    return net.graph()


def stored(path: Path) -> list[str]:
    return [tensor.name for tensor in onnx.load(path).graph.initializer]


def test_writes_one_proved_file(tmp_path: Path) -> None:
    graph = network()
    path = tmp_path / "net.onnx"
    report = export(graph, path, torch_of(graph))
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert stored(path) == ["conv.weight", "conv.bias"]
    assert (report.path, report.opset, report.size) == (path, 18, path.stat().st_size)
    assert report.verification is not None
    assert report.verification.close


def test_takes_the_place_of_a_file_that_is_there(tmp_path: Path) -> None:
    graph = network()
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    assert export(graph, path, torch_of(graph), verify=False).verification is None
    assert stored(path) == ["conv.weight", "conv.bias"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    graph = network()
    usual = tmp_path / "usual"
    usual.touch()
    report = export(graph, tmp_path / "net.onnx", torch_of(graph), verify=False)
    assert report.path.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("stop", [VerificationFailure("no"), KeyboardInterrupt()])
def test_whatever_stops_it_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(file, "prove", stopped)
    graph = network()
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    with pytest.raises(type(stop)):
        export(graph, path, torch_of(graph))
    assert os.listdir(tmp_path) == ["net.onnx"]
    assert path.read_bytes() == b"old"


def test_paths_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    graph = network()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "none" / "net.onnx", tmp_path / "file" / "net.onnx"):
        with pytest.raises(EnvironmentFailure, match="cannot be written"):
            export(graph, path, torch_of(graph))
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("opset", [12, 1000])
def test_opsets_that_are_not_possible_are_told(tmp_path: Path, opset: int) -> None:
    with pytest.raises(EnvironmentFailure, match=f"opset {opset} is not possible"):
        export(network(), tmp_path / "net.onnx", opset=opset)


def test_half_precision_weights_are_widened_in_a_copy(tmp_path: Path) -> None:
    graph = network()
    module = torch_of(graph).to(torch.bfloat16)
    report = export(graph, tmp_path / "net.onnx", module)
    assert report.verification is not None
    assert report.verification.close
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_a_state_dict_or_nothing_will_do(tmp_path: Path) -> None:
    graph = network()
    path = tmp_path / "net.onnx"
    state = torch_of(graph).state_dict()
    for weights in (state, {key: value.numpy() for key, value in state.items()}):
        export(graph, path, weights)
        assert stored(path) == ["conv.weight", "conv.bias"]
    export(graph, path, seed=1)
    first = path.read_bytes()
    export(graph, path, seed=1)
    assert path.read_bytes() == first


def test_a_state_dict_that_does_not_fit_is_told(tmp_path: Path) -> None:
    graph = network()
    state = dict(torch_of(graph).state_dict())
    state["conv.wieght"] = state.pop("conv.weight")
    state["conv.bias"] = torch.zeros(4)
    with pytest.raises(EnvironmentFailure) as failure:
        export(graph, tmp_path / "net.onnx", state)
    assert failure.value.message == (
        "the weights do not fit the network: 1 tensor missing, first `conv.weight`; "
        "1 tensor too many, first `conv.wieght`; `conv.bias` is 4, the network has 3"
    )
    assert failure.value.help == "`conv.wieght` may be meant as `conv.weight`"
