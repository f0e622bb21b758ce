"""Four networks all the way: figures, source, module, ONNX file, and each the same network.

LeNet-5, ResNet-18, GoogLeNet and U-Net, at small inputs and with lively weights.
"""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import cnnspec
from cnnspec.backends.onnx import VerificationFailure, file
from cnnspec.backends.onnx.build import Lowered, Options
from cnnspec.backends.onnx.program import Program
from cnnspec.backends.onnx.session import newest_opset
from cnnspec.backends.torch import named_outputs
from tests.torchvision_networks import difference, enliven, lively, pixels, reference

SHAPES: Mapping[str, tuple[int, ...]] = {
    "lenet5": (1, 32, 32),
    "lenet5_table": (1, 32, 32),
    "resnet18": (3, 64, 64),
    "googlenet": (3, 64, 64),
    "unet": (3, 32, 32),
}
"""The input of each: small where the network lets it be."""

HEADS = ("aux1", "aux2")
"""What GoogLeNet has in training only."""

each_network = pytest.mark.parametrize("name", SHAPES)


@cache
def network(name: str) -> cnnspec.Network:
    return cnnspec.load(name, inputs={"image": SHAPES[name]})


@cache
def module(name: str) -> nn.Module:
    """The network's own module, in evaluation mode; shared, so not to be changed."""
    made = network(name).to_torch().eval()
    enliven(made)
    return made


def image(name: str, batch: int = 2) -> torch.Tensor:
    return pixels(batch, *SHAPES[name])


@cache
def result(name: str) -> torch.Tensor:
    """What the module says of `image(name)`."""
    with torch.no_grad():
        found = module(name)(image(name))
    assert isinstance(found, torch.Tensor)
    assert lively(found)
    return found


def run(path: Path, given: torch.Tensor) -> torch.Tensor:
    """The first output of an ONNX file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found, *_) = session.run(None, {"image": given.numpy()})
    return torch.from_numpy(found)


# ----------------------------------------------------------------------- analysis against module


@each_network
def test_totals_are_the_modules_own(name: str) -> None:
    totals = network(name).analyze().totals
    own = module(name)
    assert totals.training.params == sum(p.numel() for p in own.parameters())
    assert totals.training.trainable_params == sum(
        p.numel() for p in own.parameters() if p.requires_grad
    )
    learned = dict(own.named_parameters())
    buffers = [tensor for key, tensor in own.state_dict().items() if key not in learned]
    assert totals.training.buffers == sum(b.numel() for b in buffers)
    assert totals.training.buffer_bytes == sum(b.nbytes for b in buffers)
    kept = [p for key, p in own.named_parameters() if not key.startswith(HEADS)]
    assert totals.params == sum(p.numel() for p in kept)


@each_network
def test_every_tensor_is_counted_at_its_layer(name: str) -> None:
    stored: dict[str, int] = {}
    for key, tensor in module(name).state_dict().items():
        owner = key.rpartition(".")[0]
        stored[owner] = stored.get(owner, 0) + tensor.numel()
    layers = network(name).analyze().layers
    counted = {layer.path: layer.params + layer.buffers for layer in layers}
    assert {path: count for path, count in counted.items() if count} == stored


@each_network
def test_shapes_are_those_that_were_analyzed(name: str) -> None:
    """Of every layer and every output, in both modes."""
    net = network(name)
    report = net.analyze()
    own = net.to_torch()
    seen: dict[str, tuple[int, ...]] = {}
    for path, part in own.named_modules():
        part.register_forward_hook(
            lambda _part, _given, out, path=path: seen.__setitem__(path, tuple(out[0].shape))
        )
    for training, shapes in (
        (True, {**report.outputs, **report.training_outputs}),
        (False, report.outputs),
    ):
        seen.clear()
        with torch.no_grad():
            found = named_outputs(net.graph, own.train(training)(image(name)), training)
        assert {key: tuple(value.shape[1:]) for key, value in found.items()} == shapes
        run = [layer for layer in report.layers if training or not layer.training_only]
        compared = {layer.path: layer.output_shape for layer in run if layer.path in seen}
        assert compared == {path: seen[path] for path in compared}
        assert compared.keys() >= {layer.path for layer in run if layer.params}
    assert tuple(report.training_outputs) == (HEADS if name == "googlenet" else ())


# -------------------------------------------------------------------------- source is the module


@each_network
def test_the_module_is_its_source(name: str, tmp_path: Path) -> None:
    """What `source` prints is what runs: seen by Python's tools, and the same from a file."""
    own, text = module(name), network(name).source()
    assert inspect.getsource(type(own)) in text
    shown = inspect.getsourcefile(type(own))
    assert shown is not None
    assert "".join(linecache.getlines(shown)) == text

    path = tmp_path / "model.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("model_of_a_user", path)
    assert spec is not None
    assert spec.loader is not None
    imported = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    again = getattr(imported, type(own).__name__)().eval()
    again.load_state_dict(own.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(again(image(name)), result(name))


@each_network
def test_a_traceback_shows_the_source(name: str) -> None:
    with pytest.raises(RuntimeError) as failure:
        module(name)(torch.zeros(2, 7, 32, 32))
    frames = traceback.extract_tb(failure.value.__traceback__)
    lines = [frame.line for frame in frames if frame.filename.startswith("<cnnspec ")]
    assert lines
    assert all(line and line in network(name).source() for line in lines)


def test_sources_are_clean_and_formatted(tmp_path: Path) -> None:
    for name in SHAPES:
        (tmp_path / f"{name}.py").write_text(network(name).source(), encoding="utf-8")
    options = ["--isolated", "--line-length=100", "--target-version=py311", "--no-cache"]
    rules = "E,F,W,I,B,UP,SIM,RUF,C4,PIE,RET,PERF,D1"
    spoken = "D102,D107"  # `forward` and `__init__` are what their class is
    for command in (["check", f"--select={rules}", f"--ignore={spoken}"], ["format", "--diff"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_sources_need_nothing_but_torch() -> None:
    for name in SHAPES:
        imported = [
            line
            for line in network(name).source().splitlines()
            if line.startswith(("import ", "from "))
        ]
        roots = {line.split()[1].split(".")[0] for line in imported}
        assert roots <= {"__future__", "typing", "collections", "math", "torch"}


# --------------------------------------------------------------------------- against torchvision


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_computes_what_torchvision_does(name: str) -> None:
    theirs = reference(name)
    ours = network(name).to_torch().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        wanted = theirs(image(name))
        assert lively(wanted)
        assert difference(ours(image(name)), wanted) <= 1e-6


# --------------------------------------------------------------------------------- the ONNX file


@each_network
def test_the_file_is_valid_and_equal_to_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    report = network(name).to_onnx(path, module(name))
    assert report.verification is not None
    assert report.verification.close
    assert os.listdir(tmp_path) == ["net.onnx"]
    onnx.checker.check_model(path, full_check=True)
    assert difference(run(path, image(name)), result(name)) <= 1e-5
    assert difference(run(path, image(name)[:1]), result(name)[:1]) <= 1e-5
    model = onnx.load(path)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == list(network(name).analyze().outputs)
    held = {tensor.name for tensor in model.graph.initializer}
    assert not any(key.startswith(HEADS) for key in held)


@pytest.mark.parametrize("form", [dict, lambda state: {k: v.numpy() for k, v in state.items()}])
def test_the_file_has_the_weights_it_was_given(
    form: Callable[[object], Mapping[str, torch.Tensor]], tmp_path: Path
) -> None:
    """A state dict of tensors or of arrays."""
    path = tmp_path / "net.onnx"
    network("resnet18").to_onnx(path, form(module("resnet18").state_dict()), verify=False)
    assert difference(run(path, image("resnet18")), result("resnet18")) <= 1e-5


@each_network
@pytest.mark.parametrize("opset", [13, None], ids=["oldest", "newest"])
def test_other_opsets_load_and_compute_the_same(
    name: str, opset: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "net.onnx"
    chosen = opset or newest_opset()
    report = network(name).to_onnx(path, module(name), verify=False, opset=chosen)
    assert report.opset == chosen
    assert report.verification is None
    assert difference(run(path, image(name)), result(name)) <= 1e-5


@pytest.mark.parametrize("name", ["lenet5", "resnet18"])
def test_weights_by_default_are_those_of_a_fresh_module(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    report = network(name).to_onnx(path, fold=False)
    assert report.verification is not None
    assert report.verification.close
    state = network(name).to_torch().state_dict()
    tensors = onnx.load(path).graph.initializer
    held = {t.name: numpy_helper.to_array(t) for t in tensors if t.name in state}
    assert held.keys() >= {
        key for key in state if key.endswith("weight") and not key.startswith(HEADS)
    }
    for key, array in held.items():
        assert np.array_equal(array, state[key].numpy()), key


# ---------------------------------------------------------------------------------- sabotage


def _weight(model: onnx.ModelProto, key: str) -> None:
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == key]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, key))


def _operation(model: onnx.ModelProto, key: str) -> None:
    before, after = key.split(" -> ")
    node = [node for node in model.graph.node if node.op_type == before][-1]
    node.op_type = after
    del node.attribute[:]


def _attribute(model: onnx.ModelProto, key: str) -> None:
    node = next(node for node in model.graph.node if any(a.name == key for a in node.attribute))
    attribute = next(attribute for attribute in node.attribute if attribute.name == key)
    attribute.ints[:] = [size + 1 for size in attribute.ints]


Damage = Callable[[onnx.ModelProto, str], None]


def sabotage(monkeypatch: pytest.MonkeyPatch, damage: Damage, place: str) -> None:
    """Do damage to every model that is built."""
    honest = file.lower

    def damaged(program: Program, options: Options) -> Lowered:
        model = honest(program, options).with_arrays()
        damage(model, place)
        return Lowered(model, {})

    monkeypatch.setattr(file, "lower", damaged)


@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize(
    ("name", "damage", "place"),
    [
        ("lenet5", _operation, "Tanh -> Sigmoid"),
        ("lenet5_table", _weight, "c3/dense"),
        ("resnet18", _operation, "Relu -> Sigmoid"),
        ("resnet18", _attribute, "pads"),
    ],
)
def test_a_wrong_model_is_not_written(
    name: str,
    damage: Damage,
    place: str,
    there: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left of it, and nothing happens to a file that was there."""
    sabotage(monkeypatch, damage, place)
    path = tmp_path / "net.onnx"
    if there:
        path.write_bytes(b"what was there")
    with pytest.raises(VerificationFailure):
        network(name).to_onnx(path, module(name))
    assert os.listdir(tmp_path) == (["net.onnx"] if there else [])
    assert not there or path.read_bytes() == b"what was there"


@pytest.mark.parametrize(
    ("name", "layer"), [("googlenet", "inception4c.branch3.1.conv"), ("unet", "down4.0")]
)
def test_faint_signals_are_compared_too(
    name: str, layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fresh weights the outputs of a deep network hardly depend on some of its layers."""
    sabotage(monkeypatch, _weight, f"{layer}.weight")
    with pytest.raises(VerificationFailure) as failure:
        network(name).to_onnx(tmp_path / "net.onnx")
    assert failure.value.path == layer
    assert os.listdir(tmp_path) == []


def test_verification_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    own = network("resnet18").to_torch().train()
    own.get_submodule("layer4").eval()
    before = {key: value.clone() for key, value in own.state_dict().items()}
    network("resnet18").to_onnx(tmp_path / "net.onnx", own)
    assert own.training
    assert not own.get_submodule("layer4").training
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
