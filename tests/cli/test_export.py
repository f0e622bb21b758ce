"""`cnnspec export`: files, processes and signals as users have them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from json import loads
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import cnnspec
from cnnspec.backends.onnx import VerificationFailure, proving
from cnnspec.backends.torch import artifact
from tests.cli.inside import called
from tests.cli.process import COMMAND, environment
from tests.cli.process import cnnspec as process

TEXT = """\
cnnspec: 1
name: tiny
params: {classes: int = 5}
inputs: {image: [3, 12, 12]}
preprocess: {resize: 14, crop: 12, mean: 0.5, std: [0.2, 0.3, 0.4]}
labels: [cat, dog, owl, pig, yak]
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, bias: false}
    name: conv
  - BatchNorm2d:
    name: bn
  - ReLU
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: classes}
    name: fc
variants:
  wide: {classes: 9}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path


def photographs(folder: Path, count: int = 4) -> None:
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(count):
        pixels = random.integers(0, 256, (16, 20 + number, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")


def rows(out: str) -> dict[str, str]:
    """The lines of the first part, by what they are about."""
    lines = out.split("\n\n")[0].splitlines()[1:]
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


# ------------------------------------------------------------------------------------ what is made


def test_what_is_written_and_said(folder: Path) -> None:
    done = called("export", "tiny.yaml", "-o", "tiny.onnx", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert sorted(os.listdir(folder)) == ["tiny.onnx", "tiny.yaml"]
    size = (folder / "tiny.onnx").stat().st_size
    assert done.out.splitlines()[0] == "exported tiny to tiny.onnx"
    assert rows(done.out) == {
        "file": f"{size / 1024:.1f} KiB, 5 nodes, opset 18",
        "weights": "277 params, random from seed 0",
        "folded": "1 norm into the layers beside them",
        "input": "image: float32, batch x 3 x 12 x 12",
        "output": "output: float32, batch x 5",
    }
    assert "\nverified (quick, " in done.out
    assert "equal to torch" in done.out
    assert done.out.endswith("\nnext: cnnspec predict tiny.onnx IMAGE\n")
    assert "\x1b" not in done.out


def test_the_next_command_runs(folder: Path) -> None:
    photographs(folder, 1)
    for preprocess in ("none", "normalize", "full"):
        done = called(
            "export", "tiny.yaml", "-o", "tiny.onnx", "--preprocess", preprocess, cwd=folder
        )
        command = done.out.rpartition("next: cnnspec ")[2].replace("IMAGE", "photos/0.png").split()
        shown = called(*command, cwd=folder)
        assert shown.code == 0, shown.err
        assert "owl" in shown.out


def test_every_option_reaches_the_file(folder: Path) -> None:
    done = called(
        *"export tiny.yaml -o tiny.onnx --variant wide --input image=3x16x16 --seed 3".split(),
        *"--opset 19 --batch 2 --preprocess normalize --softmax --no-fold".split(),
        *"--verify full --format json".split(),
        cwd=folder,
    )
    assert (done.code, done.err) == (0, "")
    said = loads(done.out)
    assert said["outputs"] == {"output": {"dtype": "float32", "shape": [2, 9]}}
    assert said["inputs"] == {"image": {"dtype": "float32", "shape": [2, 3, 16, 16]}}
    assert (said["opset"], said["folded"], said["softmax"]) == (19, [], ["output"])
    assert (said["proof"]["thorough"], said["in_graph"]) == ("full", "normalize")
    model = onnx.load(folder / "tiny.onnx")
    assert model.opset_import[0].version == 19
    assert "BatchNormalization" in {node.op_type for node in model.graph.node}
    state = cnnspec.load(text=TEXT, variant="wide", inputs={"image": (3, 16, 16)})
    weight = state.to_torch(seed=3).state_dict()["conv.weight"].numpy()
    (stored,) = (t for t in model.graph.initializer if t.name == "conv.weight")
    assert np.array_equal(onnx.numpy_helper.to_array(stored), weight)


def test_open_sizes_and_no_proof_are_said(folder: Path) -> None:
    done = called(*"export tiny.yaml -o tiny.onnx --size dynamic --verify none".split(), cwd=folder)
    assert "  open     height >= 3\n  open     width >= 3\n" in done.out
    assert "input    image: float32, batch x 3 x height x width\n" in done.out
    assert "\nnot verified: nothing was run\n" in done.out


@pytest.mark.parametrize("options", [["--fp16"], ["--int8", "photos"]])
def test_fewer_bits_are_compared_and_warned_about(folder: Path, options: list[str]) -> None:
    photographs(folder)
    done = called("export", "tiny.yaml", "-o", "tiny.onnx", *options, cwd=folder)
    assert done.code == 0, done.err
    name = "int8" if "--int8" in options else "float16"
    assert rows(done.out)["precision"].startswith(name)
    assert f"\ncompared ({name}, " in done.out
    if name == "float16":
        assert done.err.startswith("warning: on a CPU float16 is slower") or not done.err
    runtime = onnxruntime.InferenceSession(folder / "tiny.onnx", providers=["CPUExecutionProvider"])
    (found,) = runtime.run(None, {"image": np.zeros((1, 3, 12, 12), np.float32)})
    assert np.isfinite(found).all()


# ------------------------------------------------------------------------------------- the weights


def test_weights_are_taken_and_named(folder: Path) -> None:
    state = cnnspec.load(text=TEXT).to_torch(seed=5).state_dict()
    torch.save({"state_dict": state}, folder / "w.pth")
    done = called("export", "tiny.yaml", "-o", "a.onnx", "--weights", "w.pth", cwd=folder)
    assert rows(done.out)["weights"] == "277 params, of w.pth"
    called("export", "tiny.yaml", "-o", "b.onnx", "--seed", "5", cwd=folder)
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_weights_that_do_not_fit_are_listed(folder: Path) -> None:
    state = cnnspec.load(text=TEXT).to_torch().state_dict()
    del state["fc.bias"]
    save_file(state, folder / "w.safetensors")
    arguments = ("export", "tiny.yaml", "-o", "a.onnx", "--weights", "w.safetensors")
    done = called(*arguments, cwd=folder)
    assert done.code == 2
    assert "1 tensor missing (`fc.bias`)" in done.err
    assert "7 of 8 tensors taken\n1 tensor missing:\n  fc.bias\n" in done.err
    assert not (folder / "a.onnx").exists()
    done = called(*arguments, "--partial", cwd=folder)
    assert done.code == 0
    assert rows(done.out)["weights"].endswith("in part of w.safetensors, the others from seed 0")
    assert "weights of w.safetensors\n  7 of 8 tensors taken\n" in done.out


# ------------------------------------------------------------------------------- folders of `build`


def test_a_folder_that_was_built_is_exported_with_its_weights(folder: Path) -> None:
    called("build", "tiny.yaml", "-o", "out", "--set", "classes=7", "--seed", "4", cwd=folder)
    done = called("export", "out", "-o", "tiny.onnx", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert rows(done.out)["output"] == "output: float32, batch x 7"
    assert rows(done.out)["weights"].endswith("of out/weights.safetensors")
    weight = load_file(folder / "out" / "weights.safetensors")["fc.weight"].numpy()
    stored = {t.name: t for t in onnx.load(folder / "tiny.onnx").graph.initializer}
    assert np.array_equal(onnx.numpy_helper.to_array(stored["fc.weight"]), weight)


def _changed(name: str) -> Callable[[Path], None]:
    def change(built: Path) -> None:
        with (built / name).open("a", encoding="utf-8") as file:
            file.write("# by hand\n")

    return change


def _foreign(built: Path) -> None:
    save_file(load_file(built / artifact.WEIGHTS), built / artifact.WEIGHTS)


@pytest.mark.parametrize(
    ("change", "message", "help"),
    [
        (_changed("model.py"), "`out/model.py` was changed since", "name them apart"),
        (_changed("spec.yaml"), "`out/spec.yaml` was changed since", "name them apart"),
        (lambda built: (built / "spec.yaml").unlink(), "has no `spec.yaml`", "build SPEC -o out"),
        (_foreign, "`weights.safetensors` does not say what it belongs to", "name them apart"),
    ],
)
def test_a_folder_that_was_changed_is_not(
    folder: Path, change: Callable[[Path], None], message: str, help: str
) -> None:
    called("build", "tiny.yaml", "-o", "out", cwd=folder)
    change(folder / "out")
    done = called("export", "out", "-o", "tiny.onnx", cwd=folder)
    error, advice = done.err.splitlines()
    assert (done.code, done.out) == (2, "")
    assert message in error
    assert help in advice
    if "apart" in help and (folder / "out" / "spec.yaml").exists():
        apart = advice.partition("`")[2].removesuffix("`").split()
        assert called("export", *apart, "-o", "tiny.onnx", cwd=folder).code == 0


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tiny.yaml", "there is nowhere to export to"),
        ("tiny.yaml -o -", "an ONNX file is not written to standard output"),
        ("tiny.yaml -o t.onnx --partial", "--partial is about --weights"),
        ("tiny.yaml -o t.onnx --half-io", "--half-io is about --fp16"),
        ("tiny.yaml -o t.onnx --fp16 --int8 photos", "in float16 or in int8"),
        ("tiny.yaml -o t.onnx --int8 photos", "there is no image `photos`"),
        ("tiny.yaml -o t.onnx --batch some", "--batch takes a whole number"),
        ("tiny.yaml -o t.onnx --opset 99", "opset 99 is not possible"),
        ("tiny.yaml -o t.onnx --verify yes", "--verify takes quick, full or none"),
        ("tiny.yaml -o tiny.yaml", "`tiny.yaml` cannot be written: the network is read from it"),
        ("./tiny.yaml -o tiny.yaml", "the network is read from it"),
        ("tiny.yaml -o none/t.onnx", "`none/t.onnx` cannot be written"),
        ("nowhere -o t.onnx", "nowhere"),
        ("tiny.yaml -o t.onnx --weights none.pth", "there is no file `none.pth`"),
    ],
)
def test_what_cannot_be_done_is_one_error(folder: Path, arguments: str, message: str) -> None:
    done = called("export", *arguments.split(), cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert message in done.err
    assert os.listdir(folder) == ["tiny.yaml"]
    assert (folder / "tiny.yaml").read_text(encoding="utf-8") == TEXT


def test_a_wrong_spec_is_1(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(TEXT.replace("ReLU", "Rleu"), encoding="utf-8")
    done = called("export", "tiny.yaml", "-o", "tiny.onnx", cwd=folder)
    assert done.code == 1
    assert "did you mean `ReLU`?" in done.err


def test_standard_input_is_a_spec(folder: Path) -> None:
    done = process("export", "-", "-o", "t.onnx", "--verify", "none", stdin=TEXT, cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert (folder / "t.onnx").exists()


def test_a_file_that_fails_its_proof_is_a_bug_and_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise VerificationFailure("`conv` differs from torch by 1.0e-02", path="conv")

    monkeypatch.setattr(proving, "verify", fails)
    monkeypatch.setattr(proving, "agree", fails)
    done = called("export", "tiny.yaml", "-o", "tiny.onnx", cwd=folder)
    assert (done.code, done.out) == (70, "")
    assert "error: `conv` differs from torch" in done.err
    assert "help: this is a bug in cnnspec" in done.err
    done = called("export", "tiny.yaml", "-o", "tiny.onnx", "--fp16", cwd=folder)
    assert done.code == 2, "what float16 cannot hold is nobody's mistake"
    assert os.listdir(folder) == ["tiny.yaml"]


# -------------------------------------------------------------------------------- whatever stops it


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_what_was_there(folder: Path, number: signal.Signals, code: int) -> None:
    (folder / "out").mkdir()
    target = folder / "out" / "net.onnx"
    target.write_bytes(b"old")
    running = subprocess.Popen(
        [*COMMAND, "export", "vgg16", "-o", "out/net.onnx", "--verify", "full"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 60
    while len(os.listdir(folder / "out")) == 1 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(os.listdir(folder / "out")) == 2, "there is no draft"
    time.sleep(0.2)
    running.send_signal(number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert b"Traceback" not in err
    assert out == b""
    assert os.listdir(folder / "out") == ["net.onnx"]
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o500)
    done = called("export", "tiny.yaml", "-o", "locked/t.onnx", cwd=folder)
    assert done.code == 2
    assert "`locked/t.onnx` cannot be written: permission denied" in done.err


def test_a_disk_that_is_full_is_told(folder: Path) -> None:
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from cnnspec.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "export", "tiny.yaml", "-o", "t.onnx"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: `t.onnx` cannot be written: file too large\n"
    assert os.listdir(folder) == ["tiny.yaml"]
