"""What one network is measured as: torch in a contender's hands, and the files that are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cnnspec
from cnnspec.backends.contending import contending
from cnnspec.backends.torch.contender import TorchContender, job
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.onnx_contender import OnnxContender
from cnnspec.runtime.serving import sample

SPEC = """\
cnnspec: 1
name: two
inputs: {left: [2, 6, 6], right: [2, 6, 6]}
layers:
  - concat: [left, right]
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: features
  - Flatten
  - Linear: {out_features: 5}
    name: scores
outputs: [scores, features]
"""


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Contenders have processes of their own: what they set for all of it is put back."""
    threads = torch.get_num_threads()
    kept = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    yield
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


@pytest.fixture
def net() -> cnnspec.Network:
    return cnnspec.load(text=SPEC)


def built(net: cnnspec.Network, folder: Path, **changes: Any) -> dict[str, Any]:
    net.build(folder / "two", seed=4, verify=False)
    files = (str(folder / "two" / name) for name in ("spec.yaml", "weights.safetensors"))
    told = {"provider": "cpu", "threads": 1, "compiled": False, **changes}
    return dict(job(*files, 3, **told))


def test_torch_computes_what_the_module_does(net: cnnspec.Network, tmp_path: Path) -> None:
    contender = TorchContender(built(net, tmp_path))
    contender.run()
    given = [torch.from_numpy(sample(number, "float32", (3, 2, 6, 6))) for number in range(2)]
    with torch.no_grad():
        wanted = net.to_torch(seed=4).eval()(*given)
    for found, expected in zip(contender.outputs(), wanted, strict=True):
        assert np.array_equal(found, expected.numpy())
    version = torch.__version__.partition("+")[0]
    assert dict(contender.facts) == {
        "engine": f"torch {version}",
        "provider": "cpu",
        "threads": 1,
        "remarks": [],
        "inputs": [["float32", (3, 2, 6, 6)]] * 2,
    }


def test_compiling_is_asked_for(
    net: cnnspec.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []

    def note(module: Any) -> Any:
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", note)
    TorchContender(built(net, tmp_path)).run()
    assert compiled == []
    TorchContender(built(net, tmp_path, compiled=True)).run()
    assert len(compiled) == 1


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_no_gpu_is_no_cpu(net: cnnspec.Network, tmp_path: Path, provider: str) -> None:
    if torch.cuda.is_available():
        assert TorchContender(built(net, tmp_path, provider=provider)).facts["provider"] == "cuda"
        return
    with pytest.raises(EnvironmentFailure, match=r"CUDA|GPU"):
        TorchContender(built(net, tmp_path, provider=provider))


def made(net: cnnspec.Network, folder: Path, *forms: Any, **changes: Any) -> Any:
    told = {"version": "1", "provider": "cpu", "threads": 1, **changes}
    return contending(net.graph, folder, forms, progress=lambda *_: None, **told)


def test_all_forms_have_the_same_weights(net: cnnspec.Network, tmp_path: Path) -> None:
    found = made(net, tmp_path, "eager", "onnx", "onnx-int8", seed=5)
    assert [entry.name for entry in found.entries] == ["eager", "onnx", "onnx-int8"]
    assert [entry.precision for entry in found.entries] == ["float32", "float32", "int8"]
    assert found.failed == ()
    assert len(found.remarks) == 1
    eager, exact, coarse = (
        make(entry.job(2)).outputs()
        for make, entry in zip(
            (TorchContender, OnnxContender, OnnxContender), found.entries, strict=True
        )
    )
    assert [array.shape for array in exact] == [(2, 5), (2, 4, 4, 4)]
    for one, other, third in zip(eager, exact, coarse, strict=True):
        assert np.allclose(one, other, atol=1e-5)
        assert np.allclose(one, third, atol=0.3)
    for entry in found.entries:
        assert entry.size > 1000


def test_one_that_cannot_be_made_leaves_the_others(
    net: cnnspec.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnspec.backends import contending as room

    export = room.export

    def refusing(*arguments: Any, precision: str, **named: Any) -> Any:
        if precision == "float16":
            raise EnvironmentFailure("no half")
        return export(*arguments, precision=precision, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "export", refusing)
    found = made(net, tmp_path, "onnx", "onnx-fp16")
    assert [entry.name for entry in found.entries] == ["onnx"]
    assert [(each.name, each.batch, each.reason) for each in found.failed] == [
        ("onnx-fp16", None, "no half")
    ]


def test_images_that_cannot_be_used_stop_it(net: cnnspec.Network, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="2 inputs"):
        made(net, tmp_path, "onnx-int8", calibration=tmp_path)
