"""`cnnspec to-fcn` as users meet it; what it computes is tested with the back end."""

from __future__ import annotations

from pathlib import Path

import torch

import cnnspec
from tests.cli.inside import called


def test_a_dense_map_of_answers(tmp_path: Path) -> None:
    made = str(tmp_path / "vgg16_fcn.yaml")
    assert called("to-fcn", "vgg16", "-o", made) == (0, "", "")
    assert called("check", made).code == 0
    assert called("fmt", "--check", made).code == 0
    report = cnnspec.load(made).with_inputs(image=(3, 384, 384)).analyze()
    assert report.outputs == {"output": (1000, 6, 6)}
    assert Path(made).read_text(encoding="utf-8").splitlines()[:7] == [
        "# vgg16_fcn of vgg16.yaml, written out",
        "# Its head is convolutions, with the same weights in the same order:",
        "#   1  AdaptiveAvgPool2d is left out: changes nothing at 512x7x7",
        "#   2  Flatten is left out: its input stays a map",
        "#   classifier.0  Linear becomes Conv2d out_channels=4096 kernel_size=7",
        "#   classifier.3  Linear becomes Conv2d out_channels=4096 kernel_size=1",
        "#   classifier.6  Linear becomes Conv2d out_channels=1000 kernel_size=1",
    ]


def test_weights_are_converted(tmp_path: Path) -> None:
    module = cnnspec.load("lenet5").to_torch().eval()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    folder = tmp_path / "out"
    code, out, err = called(
        "to-fcn", "lenet5", "--weights", str(tmp_path / "w.pth"), "-o", str(folder)
    )
    assert (code, err) == (0, "")
    assert out.startswith(f"built lenet5_fcn in {folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.py",
        "spec.yaml",
        "weights.safetensors",
    ]
    fcn = cnnspec.load(str(folder / "spec.yaml")).to_torch(folder / "weights.safetensors").eval()
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert (fcn(x).flatten(1) - module(x)).abs().max() < 1e-6


def test_mistakes() -> None:
    code, out, err = called("to-fcn", "lenet5", "--variant", "lenet5_1998")
    assert (code, out) == (2, "")
    assert "`output` (RBF) reads a flattened map and has no form" in err
    code, out, err = called("to-fcn", "unet")
    assert (code, out) == (2, "")
    assert "`unet` has no linear layer that reads a flattened map" in err
    assert "--weights needs --output" in called("to-fcn", "lenet5", "--weights", "w.pth").err
