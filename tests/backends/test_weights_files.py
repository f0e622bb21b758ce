"""Weights from files: every wrapping there is, damage, foreign files, and pickles with code."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import cnnspec
from cnnspec import EnvironmentFailure
from cnnspec.backends.torch import WeightsMismatch
from cnnspec.backends.torch.weights import match

TEXT = """\
cnnspec: 1
name: net
params: {classes: int = 5}
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: conv
  - BatchNorm2d:
    name: bn
  - Flatten
  - Linear: {out_features: classes}
    name: fc
"""
NET = cnnspec.load(text=TEXT)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Weights that no seed gives."""
    generator = torch.Generator().manual_seed(1)
    found = {}
    for key, tensor in NET.to_torch(seed=7).state_dict().items():
        counts = tensor.dtype == torch.int64
        found[key] = torch.tensor(3) if counts else torch.rand(tensor.shape, generator=generator)
    return found


def taken(path: Path, **options: Any) -> dict[str, Tensor]:
    return NET.to_torch(path, **options).state_dict()


def remarks(path: Path) -> tuple[str, ...]:
    chosen = NET.build(weights=path, verify=False).chosen
    assert chosen is not None
    return chosen.remarks


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return list(found) == list(wanted) and all(torch.equal(found[k], wanted[k]) for k in wanted)


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "plain": lambda state: state,
    "ordered": OrderedDict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": 0.5},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": lambda state: {"model_state_dict": state, "loss": torch.tensor(1.0)},
    "twice": lambda state: {"state_dict": {"model": state}},
    "averaged": lambda state: {"model_ema": {"n_averaged": torch.tensor(9), **prefixed(state)}},
    "module": lambda state: prefixed(state),
    "compiled": lambda state: {f"_orig_mod.{key}": t for key, t in state.items()},
    "both": lambda state: {f"module._orig_mod.{key}": t for key, t in state.items()},
    "inside": lambda state: {key.replace(".", "._orig_mod.", 1): t for key, t in state.items()},
    "options": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, name="x")},
    "beside": lambda state: {"epoch": 3, **state},
}


def prefixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_training_programs_save(
    wrapping: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(WRAPPINGS[wrapping](state), path)
    assert same(taken(path), state)
    assert bool(remarks(path)) == (wrapping not in ("plain", "ordered"))


def test_an_old_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    assert same(taken(tmp_path / "w.pt"), state)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_safetensors_by_any_name(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / name)
    assert same(taken(tmp_path / name), state)
    save_file(prefixed(state), tmp_path / name)
    assert same(taken(tmp_path / name), state)


def test_a_state_dict(state: dict[str, Tensor]) -> None:
    module = NET.to_torch(state)
    assert same(module.state_dict(), state)
    module.get_parameter("fc.bias").data.zero_()
    assert not torch.equal(state["fc.bias"], torch.zeros(5))


def test_a_network_with_such_names_itself() -> None:
    text = TEXT.replace("name: conv", "name: module.conv").replace("name: bn", "name: module.bn")
    text = text.replace("name: fc", "name: module.fc")
    net = cnnspec.load(text=text)
    state = net.to_torch(seed=4).state_dict()
    assert all(key.startswith("module.") for key in state)
    assert same(net.to_torch(state).state_dict(), state)
    assert same(net.to_torch(prefixed(state)).state_dict(), state)


def test_what_was_done_is_said(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": prefixed(state), "model_ema": prefixed(state), "epoch": 3}, path)
    assert remarks(path) == (
        "taken from `model` of the checkpoint, which also has `model_ema`",
        "`module.` of data parallelism or averaging taken away from 9 keys",
    )
    torch.save({**state, "epoch": 3, "lr": 0.1}, path)
    assert remarks(path) == ("passed over, being no tensors: `epoch`, `lr`",)


# ---------------------------------------------------------------------------- damaged and foreign


def test_a_bit_that_flipped_in_an_archive(state: dict[str, Tensor], tmp_path: Path) -> None:
    """`torch.load` takes such values as they are; the archive has checksums."""
    path = tmp_path / "w.pth"
    torch.save(state, path)
    data = bytearray(path.read_bytes())
    data[data.index(state["fc.weight"].numpy().tobytes()) + 5] ^= 0x40
    path.write_bytes(data)
    torch.load(path, weights_only=True)
    assert "damaged" in refused(path).message


def test_an_archive_without_checksums(state: dict[str, Tensor], tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(taken(tmp_path / "w.pth")["fc.weight"], state["fc.weight"])


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def refused(path: Path) -> EnvironmentFailure:
    with pytest.raises(EnvironmentFailure) as raised:
        NET.to_torch(path)
    message = raised.value.message
    assert f"`{path}`" in message
    assert "\n" not in message
    assert raised.value.__cause__ is None
    return raised.value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["top", "beside", "tensor"])
def test_code_is_never_run(
    zipped: bool, place: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    payload = Payload(ran)
    saved: object = payload
    if place == "beside":
        saved = {"state_dict": state, "callback": payload}
    elif place == "tensor":
        saved = {**state, "fc.bias": payload}
    path = tmp_path / "w.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    message = refused(path).message
    assert "holds more than tensors" in message
    assert ("`posix.mkdir`" in message or "`nt.mkdir`" in message) == zipped
    assert not ran.exists()


def test_a_bare_pickle_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Payload(tmp_path / "ran"), protocol))
        refused(path)
        assert not (tmp_path / "ran").exists()


def test_a_whole_module(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 3), tmp_path / "w.pth")
    failure = refused(tmp_path / "w.pth")
    assert "`torch.nn.modules.linear.Linear`" in failure.message
    assert "torch.save(model.state_dict(), FILE)" in failure.help


KINDS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "safetensors": save_file,
    "zip": torch.save,
    "old": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_end_too_early(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    KINDS[kind](state, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in sorted({9, 10, 100, 400, len(data) // 2, len(data) - 40, len(data) - 1}):
        path = tmp_path / f"w{length}.safetensors"
        path.write_bytes(data[:length])
        assert "damaged" in refused(path).message


@pytest.mark.parametrize("kind", KINDS)
def test_files_with_other_bytes(kind: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    """Whatever a changed byte makes of a file, it is read or refused in one line."""
    KINDS[kind](state, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    path = tmp_path / "w"
    for position in range(0, len(data), max(1, len(data) // 150)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        try:
            NET.to_torch(path)
        except EnvironmentFailure as failure:
            assert "\n" not in failure.message  # noqa: PT017


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    cases: dict[bytes, str] = {
        b"": "is empty",
        b"hello, world, here I am": "is no file of weights",
        b"\x89HDF\r\n\x1a\n" + bytes(100): "is no file of weights",
        b"\xff" * 8 + b"{" + bytes(100): "is no file of weights",
        (300).to_bytes(8, "little") + b"{" + bytes(400): "is damaged",
        b"PK\x03\x04" + bytes(100): "is damaged",
        b"\x80\x02" + bytes(100): "",
    }
    for data, message in cases.items():
        path.write_bytes(data)
        assert message in refused(path).message, data[:10]
    np.savez(tmp_path / "w.npz", weight=np.zeros(3))
    assert "is no file of weights" in refused(tmp_path / "w.npz").message
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("archive/constants.pkl", "")
        archive.writestr("archive/data.pkl", "")
    assert "is a program of TorchScript" in refused(tmp_path / "w.zip").message
    assert "is a folder" in refused(tmp_path).message
    assert "there is no file" in refused(tmp_path / "none").message


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.zeros(3), "holds no weights: it is a single tensor"),
        ([torch.zeros(3)], "holds no weights: it is no mapping of tensors by key"),
        ({}, "holds no weights: it is empty"),
        ({"epoch": 3, "lr": 0.1}, "holds no weights: its keys are `epoch`, `lr`"),
        ({"state_dict": {}}, "holds no weights: its keys are `state_dict`"),
    ],
)
def test_files_without_weights(saved: object, message: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w.pth")
    assert message in refused(tmp_path / "w.pth").message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    path.chmod(0)
    assert "permission denied" in refused(path).message


# --------------------------------------------------------------------------------------- matching


def mismatch(state: dict[str, Tensor], *, partial: bool = False) -> WeightsMismatch:
    with pytest.raises(WeightsMismatch) as raised:
        NET.to_torch(state, partial=partial)
    return raised.value


def test_missing_unexpected_and_misshapen(state: dict[str, Tensor]) -> None:
    state["head.weight"] = state.pop("fc.weight")
    state["bn.bais"] = state.pop("bn.bias")
    state["conv.bias"] = torch.zeros(7)
    state["other"] = torch.zeros(2)
    failure = mismatch(state)
    assert failure.message == (
        "the weights do not fit the network: 2 tensors missing (first `bn.bias`); 3 unexpected "
        "(first `head.weight`); `conv.bias` is 7, not 4"
    )
    assert failure.help == "`bn.bias` of the network may be `bn.bais` in the weights"
    assert list(failure.match.lines()) == [
        "6 of 9 tensors taken",
        "2 tensors missing:",
        "  bn.bias (near: bn.bais)",
        "  fc.weight (near: head.weight)",
        "3 tensors unexpected:",
        "  head.weight",
        "  bn.bais",
        "  other",
        "1 tensor of another shape:",
        "  conv.bias: 7, not 4",
    ]
    assert "bn.bias (near: bn.bais)" in "".join(failure.__notes__)


def test_nothing_is_taken_from_what_does_not_fit(state: dict[str, Tensor]) -> None:
    del state["fc.weight"]
    failure = mismatch(state)
    assert failure.match.missing == ("fc.weight",)
    assert failure.help == "with `partial` what fits is taken: 8 tensors"


def test_other_classes_with_partial(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    net = NET.with_params(classes=2)
    with pytest.raises(WeightsMismatch, match="is 5x144, not 2x144, and 1 more"):
        net.to_torch(tmp_path / "w.safetensors")
    made = net.to_torch(tmp_path / "w.safetensors", partial=True, seed=3).state_dict()
    fresh = net.to_torch(seed=3).state_dict()
    for key, tensor in made.items():
        assert torch.equal(tensor, (fresh if key.startswith("fc.") else state)[key]), key


def test_partial_needs_something(state: dict[str, Tensor]) -> None:
    strange = {f"x.{key}.y": tensor for key, tensor in state.items()}
    assert mismatch(strange, partial=True).match.taken == ()


def test_a_level_too_many(state: dict[str, Tensor]) -> None:
    failure = mismatch({f"backbone.{key}": tensor for key, tensor in state.items()})
    assert failure.help == "without `backbone.` 9 of 9 keys would fit"


def test_many_keys_are_shown_by_level() -> None:
    resnet = cnnspec.load("resnet18").to_torch().state_dict()
    lines = list(mismatch(dict(resnet)).match.lines())
    assert "  layer1.* (24)" in lines
    assert len(lines) < 30
    wanted = {f"layer1.{i}.weight": torch.zeros(2) for i in range(9)} | {"fc.bias": torch.zeros(1)}
    found = match(wanted, {"fc.bias": torch.zeros(1)}, partial=True)
    assert list(found.lines()) == ["1 of 10 tensors taken", "9 tensors missing:", "  layer1.* (9)"]


def test_counters_of_old_checkpoints(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["bn.num_batches_tracked"]
    save_file(state, tmp_path / "w.safetensors")
    made = taken(tmp_path / "w.safetensors")
    assert made["bn.num_batches_tracked"] == 0
    assert torch.equal(made["bn.running_var"], state["bn.running_var"])
    found = match(NET.to_torch().state_dict(), state)
    assert found.complete
    assert list(found.lines()) == [
        "8 of 9 tensors taken",
        "1 counter of batches not given, taken as 0",
    ]
    del state["bn.running_mean"]
    assert mismatch(state).match.missing == ("bn.running_mean", "bn.num_batches_tracked")


def test_types_are_converted_and_that_is_said(state: dict[str, Tensor]) -> None:
    half = {key: tensor.half() for key, tensor in state.items()}
    made = NET.to_torch(half).state_dict()
    assert {t.dtype for t in made.values()} == {torch.float32, torch.int64}
    assert torch.equal(made["fc.weight"], half["fc.weight"].float())
    assert made["bn.num_batches_tracked"] == 3
    found = match(NET.to_torch().state_dict(), half)
    assert list(found.lines())[1:] == [
        "8 tensors converted from float16 to float32",
        "1 tensor converted from float16 to int64",
    ]
    state["bn.num_batches_tracked"] = torch.tensor([4])
    assert NET.to_torch(state).state_dict()["bn.num_batches_tracked"] == 4


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (Tensor.to_sparse, "sparse"),
        (lambda t: t.to(torch.complex64), "complex"),
        (lambda t: t.to("meta"), "without values"),
    ],
)
def test_odd_tensors(
    change: Callable[[Tensor], Tensor], kind: str, state: dict[str, Tensor]
) -> None:
    state["fc.weight"] = change(state["fc.weight"])
    with pytest.raises(EnvironmentFailure, match=f"`fc.weight` is {kind}"):
        NET.to_torch(state)
