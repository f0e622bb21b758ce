"""What an export is given: weights in any form, and samples to calibrate fewer bits with."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import cnnspec
from cnnspec.backends.onnx import proving
from cnnspec.backends.onnx.verify import VerificationFailure
from cnnspec.backends.torch import WeightsMismatch
from cnnspec.diagnostics import EnvironmentFailure
from tests.backends.test_onnx_export import TEXT, metadata, raises


@pytest.fixture(scope="module")
def net() -> cnnspec.Network:
    return cnnspec.load(text=TEXT)


@pytest.fixture(scope="module")
def module(net: cnnspec.Network) -> nn.Module:
    made = net.to_torch(seed=3).eval()
    with torch.no_grad():
        made.bn.running_mean.uniform_(-1, 1)
        made.bn.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


# ----------------------------------------------------------------------------------- the weights


@pytest.mark.parametrize("form", ["module", "tensors", "arrays", "read-only arrays", "file"])
def test_weights_come_in_every_form(
    form: str, net: cnnspec.Network, module: nn.Module, tmp_path: Path
) -> None:
    state = module.state_dict()
    weights: object = module
    if form == "tensors":
        weights = state
    elif form == "file":
        weights = tmp_path / "weights.safetensors"
        save_file(state, weights)
    elif form != "module":
        arrays = {key: value.numpy().copy() for key, value in state.items()}
        for array in arrays.values():
            array.flags.writeable = form == "arrays"
        weights = arrays
    net.to_onnx(tmp_path / "a.onnx", weights, verify=False)  # type: ignore[arg-type]
    net.to_onnx(tmp_path / "b.onnx", module, verify=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_arrays_are_taken_whatever_their_layout(
    net: cnnspec.Network, module: nn.Module, tmp_path: Path
) -> None:
    arrays = {key: value.numpy() for key, value in module.state_dict().items()}
    net.to_onnx(tmp_path / "a.onnx", module, verify=False)
    for change in (
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.flip(np.flip(array).copy()),
        lambda array: array.tolist(),
    ):
        changed = {key: change(array) for key, array in arrays.items()}
        net.to_onnx(tmp_path / "b.onnx", changed, verify=False)
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_nothing_of_the_callers_torch_matters_or_changes(net: cnnspec.Network, path: Path) -> None:
    module = net.to_torch().train()
    module.fc.weight.requires_grad_(False)
    module.conv.weight.grad = torch.ones_like(module.conv.weight)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    random = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = net.to_onnx(path, module, verify="full")
        assert torch.is_autocast_enabled("cpu")
    assert report.verification is not None
    assert all(part.training and not part._forward_hooks for part in module.modules())
    assert (module.fc.weight.requires_grad, module.conv.weight.requires_grad) == (False, True)
    assert torch.equal(module.conv.weight.grad, torch.ones_like(module.conv.weight))
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_without_weights_the_seed_decides(net: cnnspec.Network, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        net.to_onnx(tmp_path / name, seed=seed, verify=False)
    first, second, third = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second != third


def test_half_precision_weights_are_widened_in_a_copy(net: cnnspec.Network, path: Path) -> None:
    module = net.to_torch().to(torch.bfloat16)
    report = net.to_onnx(path, module)
    assert report.verification is not None
    assert report.verification.close
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_the_module_inside_another_is_found(
    net: cnnspec.Network, module: nn.Module, tmp_path: Path
) -> None:
    net.to_onnx(tmp_path / "a.onnx", nn.DataParallel(module))
    net.to_onnx(tmp_path / "b.onnx", module, verify=False)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_weights_that_do_not_fit_are_told_and_partial_takes_the_rest(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    state = dict(module.state_dict())
    state["fc.wieght"] = state.pop("fc.weight")
    for weights in (state, {key: value.numpy() for key, value in state.items()}):
        with pytest.raises(WeightsMismatch) as failure:
            net.to_onnx(path, weights)
        assert "1 tensor missing (`fc.weight`); 1 unexpected (`fc.wieght`)" in str(failure.value)
        assert failure.value.help == "`fc.weight` of the network may be `fc.wieght` in the weights"
    assert not path.exists()
    report = net.to_onnx(path, state, partial=True, verify=False)
    assert report.chosen is not None
    assert report.chosen.match.missing == ("fc.weight",)
    with pytest.raises(WeightsMismatch):
        net.to_onnx(path, cnnspec.load("lenet5").to_torch())


def test_weights_that_are_not_finite_are_told_and_no_bug(
    net: cnnspec.Network, module: nn.Module, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state["fc.weight"][0, 0] = torch.nan
    (warning,) = net.to_onnx(path, state, verify=False).warnings
    assert warning == "weight `fc.weight` has values that are not finite"
    path.unlink()
    monkeypatch.setattr(proving, "verify", raises(VerificationFailure("no")))
    with pytest.raises(EnvironmentFailure, match="nothing can be proved") as found:
        net.to_onnx(path, state)
    assert not isinstance(found.value, VerificationFailure)
    assert not path.exists()


# -------------------------------------------------------------------------------- in fewer bits


def test_float16_and_int8_are_compared_and_explained(
    net: cnnspec.Network, module: nn.Module, tmp_path: Path
) -> None:
    half = net.to_onnx(tmp_path / "half.onnx", module, precision="float16")
    samples = [{"image": np.random.default_rng(i).random((4, 3, 12, 12), "f4")} for i in range(4)]
    told: list[tuple[str, int, int]] = []
    eighth = net.to_onnx(
        tmp_path / "int8.onnx",
        module,
        precision="int8",
        calibration=samples,
        progress=lambda *doing: told.append(doing),
    )
    for report in (half, eighth):
        assert report.verification is None
        assert report.agreement is not None
        assert report.inputs["image"].dtype == report.outputs["output"].dtype == "float32"
        assert metadata(report.path).precision == report.metadata.precision
    assert ("calibration", 4, 4) in told
    assert eighth.agreement is not None
    assert eighth.agreement.samples == 16
    assert half.size < 0.8 * net.to_onnx(tmp_path / "whole.onnx", module, verify=False).size


@pytest.mark.parametrize("preprocess", ["none", "normalize", "full"])
def test_arrays_calibrate_whatever_the_file_takes(
    net: cnnspec.Network, module: nn.Module, path: Path, preprocess: str
) -> None:
    samples = [{"image": np.random.default_rng(i).normal(size=(2, 3, 12, 12))} for i in range(4)]
    report = net.to_onnx(
        path,
        module,
        precision="int8",
        calibration=samples,
        preprocess=preprocess,  # type: ignore[arg-type]
    )
    assert report.agreement is not None
    assert (report.agreement.samples == 8) == (preprocess == "none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image": np.zeros((1, 3, 12, 12))}, "batches of arrays by input name"),
        ([np.zeros((1, 3, 12, 12))], "batches of arrays by input name"),
        ([{"image": np.zeros((3, 12, 12))}], "batches of 3x12x12 numbers as `image`, not with 3x"),
        ([{"image": np.zeros((0, 3, 12, 12))}], "not with 0x3x12x12 of type float64"),
        ([{"image": np.full((1, 3, 12, 12), "a")}], "not with 1x3x12x12 of type <U1"),
        ([{"image": np.full((2, 3, 12, 12), np.nan)}], "finite numbers only as `image`"),
        ([{"image": np.zeros((3, 3, 12, 12))}], "batches of 2 here, not of 3"),
    ],
)
def test_arrays_that_calibrate_nothing_are_told(
    net: cnnspec.Network, path: Path, given: object, message: str
) -> None:
    with pytest.raises(EnvironmentFailure, match=re.escape(message)):
        net.to_onnx(path, precision="int8", calibration=given, batch=2)  # type: ignore[arg-type]
    assert os.listdir(path.parent) == []


def test_images_of_any_size_and_number_fill_a_fixed_batch(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    """Not a multiple of the batch, nor of one size."""
    photos = path.parent / "photos"
    photos.mkdir()
    for number in range(5):
        size = (20 + 7 * number, 30)
        Image.effect_noise(size, 90).save(photos / f"{number}.png")
    report = net.to_onnx(
        path, module, precision="int8", calibration=photos, batch=3, preprocess="full"
    )
    assert report.agreement is not None
    assert report.agreement.samples == 15
    report = net.to_onnx(path, module, batch=3, preprocess="full")
    assert report.verification is not None
    assert report.inputs["image"].shape == (3, "height", "width", 3)


def test_float16_inputs_and_outputs_where_asked(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    for preprocess, taken in (("none", "float16"), ("normalize", "float16"), ("full", "uint8")):
        report = net.to_onnx(
            path, module, precision="float16", half_io=True, preprocess=preprocess, softmax=True
        )
        assert report.inputs["image"].dtype == taken
        assert report.outputs["output"].dtype == "float16"


def test_layers_that_overflow_stay_float32_and_are_named(
    net: cnnspec.Network, module: nn.Module, path: Path
) -> None:
    state = {key: value.clone() for key, value in module.state_dict().items()}
    state["bn.weight"] *= 1e6
    state["fc.weight"] /= 1e6
    report = net.to_onnx(path, state, precision="float16")
    assert report.kept
    assert report.agreement is not None
    assert report.to_dict()["kept"] == [
        {"path": each.path, "op": each.op, "reason": each.reason} for each in report.kept
    ]
