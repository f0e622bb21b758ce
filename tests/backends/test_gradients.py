"""Numerical checks of gradients: right ones pass, wrong ones are found and named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import cnnspec
from cnnspec.backends.torch.gradients import TOLERANCE, check_gradients, smaller_inputs
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.lower import TorchCode, helper
from cnnspec.op import Op, Site
from cnnspec.ops import registry
from tests.cli.inside import called

NET = """
cnnspec: 1
name: net
inputs: {image: [3, 40, 40]}
init: {BatchNorm2d: {weight: 0}}
layers:
  - Conv2d: {out_channels: 6, kernel_size: 3, padding: 1}
    name: first
  - BatchNorm2d
  - Tanh:
    name: squash
  - MaxPool2d: {kernel_size: 2}
  - Dropout: {p: 0.3}
  - Conv2d: {out_channels: 6, kernel_size: 3}
    name: second
  - ReLU
  - Conv2d: {out_channels: 6, kernel_size: 1}
    name: third
  - add: [third, second]
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: 4}
    name: head
  - Linear: {out_features: 2}
    from: second
    name: aux
outputs: {scores: head, aux: {from: aux, training: true}}
"""


DEEP = """
cnnspec: 1
name: deep
inputs: {image: [2, 4, 4]}
blocks:
  residual:
    layers:
      - Conv2d: {out_channels: 2, kernel_size: 1}
      - SiLU:
        name: act
      - add: [act, input]
layers:
  - residual: {}
    repeat: 40
  - Tanh:
    name: squash
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: end
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


TANH = '''\
class Tanh(nn.Module):
    """Right in value, wrong in its gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x) + 0.5 * (x - x.detach())
'''


def wrong_tanh(self: Op, at: Site) -> TorchCode:
    return helper("Tanh", TANH)


def test_gradients_that_are_right() -> None:
    report = cnnspec.load(text=NET).check_gradients()
    assert report.inputs == {"image": (3, 32, 32)}
    assert not report.wrong
    assert not report.to_blame
    assert report.worst < 1e-5
    assert [slope.name for slope in report.slopes] == [
        "first.weight",
        "first.bias",
        "1.weight",
        "1.bias",
        "second.weight",
        "second.bias",
        "third.weight",
        "third.bias",
        "head.weight",
        "head.bias",
        "aux.weight",
        "aux.bias",
        "image",
    ]
    assert report == cnnspec.load(text=NET).check_gradients()


@pytest.mark.parametrize("name", ["lenet5", "lenet5_table", "m5", "mobilenet_v3_small"])
def test_gradients_of_bundled_networks(name: str) -> None:
    report = cnnspec.load(name).check_gradients()
    assert not report.wrong
    assert report.passes < 3 * max(60, len(report.slopes))


def test_a_wrong_gradient_is_found_and_its_layer_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry()["Tanh"], "torch", wrong_tanh)
    report = cnnspec.load(text=NET).check_gradients()
    assert report.to_blame == ("squash",)
    # The layers behind it are right, what is before it is not.
    assert {slope.name for slope in report.wrong} >= {"first.weight", "1.weight", "1.bias", "image"}
    right = {slope.name for slope in report.slopes if slope.right}
    assert right >= {"second.weight", "third.weight", "head.weight", "head.bias", "aux.weight"}
    assert all(slope.error > 10 * TOLERANCE for slope in report.wrong)


def test_a_wrong_gradient_among_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several tensors are changed at once."""
    network = cnnspec.load(text=DEEP)
    report = network.check_gradients()
    assert not report.wrong
    assert report.passes < 2 * len(report.slopes)  # as two passes are for one direction
    monkeypatch.setattr(registry()["Tanh"], "torch", wrong_tanh)
    report = network.check_gradients()
    assert report.to_blame == ("squash",)
    assert {slope.name for slope in report.slopes if slope.right} == {"end.weight", "end.bias"}


def test_gradients_that_vanish_are_not_called_checked() -> None:
    shrink = "  - Conv2d: {out_channels: 2, kernel_size: 1}\n  - Sigmoid\n"
    text = f"cnnspec: 1\nname: deep\ninputs: {{image: [2, 4, 4]}}\nlayers:\n{30 * shrink}"
    report = cnnspec.load(text=text).check_gradients()
    assert not report.wrong
    assert {"0.weight", "image"} <= {slope.name for slope in report.weak}
    assert "58.weight" not in {slope.name for slope in report.weak}


def test_a_gradient_that_is_missing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    detached = TANH.replace("torch.tanh(x) + 0.5 * (x - x.detach())", "torch.tanh(x.detach())")
    monkeypatch.setattr(registry()["Tanh"], "torch", lambda self, at: helper("Tanh", detached))
    report = cnnspec.load(text=NET).check_gradients()
    assert report.to_blame == ("squash",)
    (first,) = (slope for slope in report.slopes if slope.name == "first.weight")
    assert first.error == pytest.approx(1)


def test_outputs_that_are_not_finite() -> None:
    network = cnnspec.load(text="cnnspec: 1\nname: n\ninputs: {x: [3]}\nlayers: [Tanh]")
    with pytest.MonkeyPatch.context() as patch:
        infinite = TANH.replace("torch.tanh(x) + 0.5 * (x - x.detach())", "x / 0")
        patch.setattr(registry()["Tanh"], "torch", lambda self, at: helper("Tanh", infinite))
        with pytest.raises(EnvironmentFailure, match="not finite"):
            network.check_gradients()


def test_sizes_that_are_tried() -> None:
    graph = cnnspec.load("c3d").graph
    assert next(smaller_inputs(graph)) == {"clip": (3, 16, 32, 32)}
    assert not list(smaller_inputs(cnnspec.load("lenet5").graph))
    tokens = cnnspec.load(text="cnnspec: 1\nname: n\ninputs: {x: [500]}\nlayers: [Tanh]").graph
    assert not list(smaller_inputs(tokens))
    assert check_gradients(tokens).worst < 1e-6


# ------------------------------------------------------------------------------ command line


def test_check_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.yaml").write_text(NET, encoding="utf-8")
    code, out, err = called("check", "net.yaml", "--gradients", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert out.startswith("net: gradients for image 3x32x32, batch 3, ")
    assert "13 gradients: all right, the worst off by " in out
    assert out.endswith("1 spec, 1 network: no errors\n")
    monkeypatch.setattr(registry()["Tanh"], "torch", wrong_tanh)
    code, out, err = called("check", "net.yaml", "--gradients", cwd=tmp_path)
    assert (code, err) == (1, "")
    assert (
        "gradients of 13 are wrong\n  layer `squash` (Tanh) has a wrong gradient by itself" in out
    )
    assert "no errors" not in out
    code, out, err = called("check", "net.yaml", "--gradients", "--format", "json", cwd=tmp_path)
    assert code == 1
    assert out.startswith("{")
    assert "squash" in err
