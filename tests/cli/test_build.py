"""`cnnspec build`: files, processes and signals as users have them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from json import loads
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import cnnspec
from cnnspec.backends.torch import artifact
from cnnspec.backends.torch.verify import ModuleMismatchError
from cnnspec.op import Site
from cnnspec.ops.conv import Conv2d
from tests.cli.inside import called
from tests.cli.process import COMMAND, environment
from tests.cli.process import cnnspec as process

FILES = ["model.py", "spec.yaml", "weights.safetensors"]
TEXT = """\
cnnspec: 1
name: tiny
params: {classes: int = 5}
inputs: {image: [3, 8, 8]}
blocks:
  unit:
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1, bias: false}
        name: conv
      - BatchNorm2d:
        name: bn
        init: {weight: 0.5}
      - ReLU
layers:
  - unit:
    repeat: 2
    name: body
  - Dropout
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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def about(folder: Path) -> dict[str, object]:
    with safe_open(folder / "weights.safetensors", "pt") as file:
        found: dict[str, object] = loads(file.metadata()["cnnspec"])
    return found


# ------------------------------------------------------------------------------------ what is made


def test_what_is_written_and_said(folder: Path) -> None:
    done = called("build", "tiny.yaml", "-o", "out", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert [path.name for path in sorted((folder / "out").iterdir())] == FILES
    lines = done.out.splitlines()
    assert lines[0] == "built tiny in out"
    for file, end in (
        ("model.py", "class Tiny"),
        ("weights.safetensors", "1,553 params, 18 buffered, float32, seed 0"),
        ("spec.yaml", "9 layers, written out"),
    ):
        (line,) = (line for line in lines if line.startswith(f"  {file} "))
        digest = sha256((folder / "out" / file).read_bytes()).hexdigest()
        assert f"  sha256 {digest[:12]}  " in line
        assert line.endswith(end)
    assert "verified: 14 stored tensors" in done.out
    assert "\x1b" not in done.out


def test_the_next_command_runs(folder: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        done = called("build", "tiny.yaml", "-o", dtype, "--dtype", dtype, cwd=folder)
        _, _, program = done.out.partition("then in python\n")
        program = "\n".join(line[2:] for line in program.splitlines())
        program += "\nimage = next(network.parameters()).new_zeros(2, 3, 8, 8)"
        program += "\nprint(network(image).shape)"
        shown = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder / dtype,
            env={k: v for k, v in environment().items() if k != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert shown.stdout == "torch.Size([2, 5])\n"


def test_the_source_is_that_of_the_library_and_prints(folder: Path) -> None:
    called("build", "tiny.yaml", "-o", "out", cwd=folder)
    source = (folder / "out" / "model.py").read_text(encoding="utf-8")
    assert cnnspec.load(text=TEXT).source() == source
    for arguments in (["--print"], ["-o", "-"], ["--print", "-o", "-"]):
        done = called("build", "tiny.yaml", *arguments, cwd=folder)
        assert (done.code, done.out, done.err) == (0, source, "")
    assert "cnnspec" not in source.partition("\n")[2]


def test_equal_to_the_byte_in_two_processes_and_folders(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "tiny.yaml").write_text(TEXT, encoding="utf-8")
    one = process("build", "tiny.yaml", "-o", "one", "--seed", "3", cwd=folder)
    other = process(
        "build",
        str(folder / "elsewhere" / "tiny.yaml"),
        "--seed=3",
        "-o",
        "two",
        cwd=folder,
        PYTHONHASHSEED="7",
    )
    assert one.code == other.code == 0
    assert contents(folder / "one") == contents(folder / "two")
    called("build", "tiny.yaml", "-o", "three", cwd=folder)
    assert contents(folder / "one")["model.py"] == contents(folder / "three")["model.py"]
    assert about(folder / "one")["seed"] == 3
    weights = [contents(folder / name)["weights.safetensors"] for name in ("one", "three")]
    assert weights[0] != weights[1]


def test_the_resolved_spec_is_the_same_network(folder: Path) -> None:
    called(
        "build", "tiny.yaml", "--variant", "wide", "-o", "out", "--input", "image=3x6x6", cwd=folder
    )
    original = cnnspec.load(folder / "tiny.yaml", variant="wide", inputs={"image": (3, 6, 6)})
    again = cnnspec.load(folder / "out" / "spec.yaml")
    assert again.analyze().totals == original.analyze().totals
    assert called("check", str(folder / "out" / "spec.yaml")).code == 0
    called("build", "out/spec.yaml", "-o", "again", cwd=folder)
    one, other = (load_file(folder / name / "weights.safetensors") for name in ("out", "again"))
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)
    image = torch.rand(2, 3, 6, 6)
    module = original.to_torch(one).eval()
    assert torch.equal(module(image), again.to_torch(other).eval()(image))


def test_what_weights_say_of_themselves(folder: Path) -> None:
    called("build", "tiny.yaml", "-o", "out", "--set", "classes=2", cwd=folder)
    told = about(folder / "out")
    assert told == {
        "class": "Tiny",
        "cnnspec": cnnspec.__version__,
        "dtype": "float32",
        "model.py": sha256((folder / "out" / "model.py").read_bytes()).hexdigest(),
        "network": "tiny",
        "seed": 0,
        "spec.yaml": sha256((folder / "out" / "spec.yaml").read_bytes()).hexdigest(),
        "torch": torch.__version__.partition("+")[0],
        "weights": None,
    }


def test_shared_weights_are_stored_once(folder: Path) -> None:
    text = """\
cnnspec: 1
name: siamese
inputs: {left: [3, 8, 8], right: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: a
    from: left
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: b
    from: right
    share: a
  - sub: [a, b]
"""
    (folder / "siamese.yaml").write_text(text, encoding="utf-8")
    assert called("build", "siamese.yaml", "-o", "out", cwd=folder).code == 0
    stored = load_file(folder / "out" / "weights.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in stored.items()} == {
        "a.weight": (4, 3, 3, 3),
        "a.bias": (4,),
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types(dtype: str, folder: Path) -> None:
    done = called("build", "tiny.yaml", "-o", "out", "--dtype", dtype, cwd=folder)
    assert f"18 buffered, {dtype}, seed 0" in done.out
    stored = load_file(folder / "out" / "weights.safetensors")
    assert {str(tensor.dtype) for tensor in stored.values()} == {f"torch.{dtype}", "torch.int64"}


# ------------------------------------------------------------------------------------------ weights


def test_weights_of_elsewhere(folder: Path) -> None:
    state = cnnspec.load(text=TEXT).to_torch(seed=9).state_dict()
    torch.save({"model": {f"module.{k}": t.half() for k, t in state.items()}}, folder / "w.pth")
    done = called("build", "tiny.yaml", "--weights", "w.pth", "-o", "out", cwd=folder)
    assert done.code == 0
    assert "weights of w.pth\n  taken from `model` of the checkpoint\n" in done.out
    assert "  14 of 14 tensors taken\n" in done.out
    assert "float16 to float32" in done.out
    assert "seed 0" not in done.out
    stored = load_file(folder / "out" / "weights.safetensors")
    assert all(torch.equal(t, state[key].half().to(t.dtype)) for key, t in stored.items())
    origin = about(folder / "out")["weights"]
    digest = sha256((folder / "w.pth").read_bytes()).hexdigest()
    assert origin == {"file": "w.pth", "sha256": digest, "tensors": 14}


def test_a_round_trip_changes_nothing(folder: Path) -> None:
    called("build", "tiny.yaml", "-o", "out", "--dtype", "float64", "--seed", "5", cwd=folder)
    weights = str(folder / "out" / "weights.safetensors")
    before = load_file(weights)
    done = called(
        "build", "tiny.yaml", "--dtype=float64", "--weights", weights, "-o", "out", cwd=folder
    )
    assert done.code == 0
    after = load_file(weights)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_weights_that_do_not_fit(folder: Path) -> None:
    state = cnnspec.load(text=TEXT).to_torch(seed=9).state_dict()
    state["head.weight"] = state.pop("fc.weight")
    save_file(state, folder / "w.safetensors")
    arguments = ["build", "tiny.yaml", "--weights", "w.safetensors", "-o", "out"]
    done = called(*arguments, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        "error: the weights do not fit the network: 1 tensor missing (`fc.weight`); 1 unexpected "
        "(`head.weight`)",
        "help: `fc.weight` of the network may be `head.weight` in the weights",
        "13 of 14 tensors taken",
        "1 tensor missing:",
        "  fc.weight (near: head.weight)",
        "1 tensor unexpected:",
        "  head.weight",
    ]
    assert not (folder / "out").exists()
    done = called(*arguments, "--partial", "--seed", "4", cwd=folder)
    assert done.code == 0
    assert "  13 of 14 tensors taken\n  1 tensor missing:\n" in done.out
    assert "seed 4" in done.out


def test_weights_that_would_run_code(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(folder / "ran"),)

    torch.save({"state_dict": Payload()}, folder / "w.pth")
    done = process("build", "tiny.yaml", "--weights", "w.pth", "-o", "out", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert "holds more than tensors" in done.err
    assert len(done.err.splitlines()) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["tiny.yaml", "w.pth"]


# --------------------------------------------------------------------------------------- the folder


def refused(folder: Path, *arguments: str, code: int = 2) -> str:
    before = sorted(folder.rglob("*"))
    done = called("build", "tiny.yaml", *arguments, cwd=folder)
    assert (done.code, done.out) == (code, "")
    assert sorted(folder.rglob("*")) == before
    return done.err


def test_a_folder_of_an_earlier_build(folder: Path) -> None:
    called("build", "tiny.yaml", "-o", "out", cwd=folder)
    (folder / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    (folder / "out" / "model.py").chmod(0o640)
    assert called("build", "tiny.yaml", "-o", "out", "--set", "classes=3", cwd=folder).code == 0
    assert sorted(contents(folder / "out")) == sorted([*FILES, "notes.txt"])
    assert load_file(folder / "out" / "weights.safetensors")["fc.bias"].shape == (3,)
    if os.name != "nt":
        assert (folder / "out" / "model.py").stat().st_mode & 0o777 == 0o640
    (folder / "out" / "model.py").write_text("# by hand\n", encoding="utf-8")
    assert "`out/model.py` was changed since it was built" in refused(folder, "-o", "out")
    assert called("build", "tiny.yaml", "-o", "out", "--force", cwd=folder).code == 0
    assert called("build", "tiny.yaml", "-o", "out", cwd=folder).code == 0


def test_folders_of_others(folder: Path) -> None:
    (folder / "out").mkdir()
    assert called("build", "tiny.yaml", "-o", "out", cwd=folder).code == 0
    (folder / "other").mkdir()
    (folder / "other" / "model.py").write_text("# by hand\n", encoding="utf-8")
    assert "`other` is not empty, and was not built by cnnspec" in refused(folder, "-o", "other")
    save_file({"a": torch.zeros(1)}, folder / "other" / "weights.safetensors")
    assert "was not built by cnnspec" in refused(folder, "-o", "other")
    assert "was not built by cnnspec" in refused(folder, "-o", ".")
    assert called("build", "tiny.yaml", "-o", "other", "--force", cwd=folder).code == 0
    assert (folder / "other" / "model.py").read_text(encoding="utf-8") != "# by hand\n"


def test_places_where_no_folder_can_be(folder: Path) -> None:
    (folder / "file").write_text("", encoding="utf-8")
    (folder / "odd" / "model.py").mkdir(parents=True)
    assert "`file` cannot be written: it is no folder" in refused(folder, "-o", "file")
    message = refused(folder, "-o", "none/out")
    assert "`none/out` cannot be written: there is no folder `none`" in message
    message = refused(folder, "-o", "odd", "--force")
    assert "`odd/model.py` cannot be written: it is no regular file" in message


def test_usage(folder: Path) -> None:
    assert "there is nowhere to build to" in refused(folder)
    assert "--print writes nothing" in refused(folder, "--print", "-o", "out")
    assert "--partial is about --weights" in refused(folder, "--partial", "-o", "out")
    assert "did you mean `bfloat16`?" in refused(folder, "-o", "out", "--dtype", "bfloat")
    assert "--seed takes a whole number" in refused(folder, "-o", "out", "--seed", "-1")
    assert "there is no file `none.pth`" in refused(folder, "-o", "out", "--weights", "none.pth")
    (folder / "tiny.yaml").write_text(TEXT.replace("Flatten", "Flaten"), encoding="utf-8")
    assert "unknown-operation" in refused(folder, "-o", "out", code=1)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_a_full_disk(folder: Path) -> None:
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

    done = subprocess.run(
        [*COMMAND, "build", "tiny.yaml", "-o", "out"],
        cwd=folder,
        env=environment(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: `out/weights.safetensors` cannot be written: file too large\n"
    assert [path.name for path in folder.iterdir()] == ["tiny.yaml"]


# --------------------------------------------------------------------------------------- interrupts

LARGE = """\
cnnspec: 1
name: large
inputs: {x: [5000]}
layers:
  - Linear: {out_features: 3000}
    name: fc
    init: {weight: 0, bias: 0}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_an_interrupt_leaves_all_or_nothing(
    sent: signal.Signals, code: int, there: bool, folder: Path
) -> None:
    (folder / "large.yaml").write_text(LARGE, encoding="utf-8")
    before = {}
    if there:
        called("build", "tiny.yaml", "-o", "out", cwd=folder)
        before = contents(folder / "out")
    running = subprocess.Popen(
        [*COMMAND, "build", "large.yaml", "-o", "out", "--no-verify"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # The draft of the weights is there, so that the process is in the middle of writing.
    while running.poll() is None and not any(folder.rglob(".*.tmp/weights.safetensors")):
        time.sleep(0.001)
    running.send_signal(sent)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code
    assert (out, err) == (b"", b"")
    left = sorted(path.name for path in folder.rglob("*") if path.is_dir())
    if sent is signal.SIGKILL:
        left = [name for name in left if not name.endswith(".tmp")]
    assert left == (["out"] if there else [])
    if there:
        files = {n: b for n, b in before.items() if (folder / "out" / n).read_bytes() == b}
        assert files == before
    assert called("build", "tiny.yaml", "-o", "out", cwd=folder).code == 0


IMPORTING = """\
import signal, sys

class Library:
    heard = False

    def find_spec(self, name, *_):
        if name == "torch.storage" and not self.heard:
            self.heard = True
            try:
                signal.raise_signal(signal.SIGINT)
            except BaseException:
                pass

sys.meta_path.insert(0, Library())
from cnnspec.__main__ import main
sys.argv = ["cnnspec", "build", "tiny.yaml", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.parametrize("options", [("-o", "out"), ("--print",)])
def test_an_interrupt_while_libraries_are_loaded(options: tuple[str, ...], folder: Path) -> None:
    """Libraries that torch imports take any exception for one of theirs, and go on."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, *options],
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
    assert not (folder / "out").exists()


def test_an_interrupt_waits_for_the_last_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two files of a folder that is there, Ctrl-C comes when all have their places."""
    called("build", "tiny.yaml", "-o", "out", cwd=folder)
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        called("build", "tiny.yaml", "-o", "out", "--set", "classes=3", cwd=folder)
    monkeypatch.undo()
    assert sorted(contents(folder / "out")) == FILES
    told = about(folder / "out")
    for name in ("model.py", "spec.yaml"):
        assert told[name] == sha256((folder / "out" / name).read_bytes()).hexdigest()
    assert "classes" not in told
    assert load_file(folder / "out" / "weights.safetensors")["fc.bias"].shape == (3,)


# --------------------------------------------------------------------------------------------- bugs


def test_a_module_that_is_not_what_was_analyzed(folder: Path) -> None:
    lowering = Conv2d.torch

    def wrong(self: Conv2d, at: Site) -> object:
        code = lowering(self, at)
        kwargs = tuple((k, v) for k, v in code.kwargs if k != "padding")
        return type(code)(code.target, code.args, kwargs)

    with patch.object(Conv2d, "torch", wrong):
        error = refused(folder, "-o", "out", code=70)
    assert "inference with a batch of 1 fails: " in error
    assert "this is a bug in cnnspec" in error
    cut = TEXT.partition("  - Dropout")[0]
    (folder / "tiny.yaml").write_text(cut, encoding="utf-8")
    with patch.object(Conv2d, "torch", wrong):
        error = refused(folder, "-o", "out", code=70)
    assert "in inference with a batch of 1, `body.0.conv` gives 1x4x6x6, not 1x4x8x8" in error
    with patch.object(Conv2d, "torch", wrong):
        assert called("build", "tiny.yaml", "-o", "out", "--no-verify", cwd=folder).code == 0


def test_counts_that_are_not_the_reports(folder: Path) -> None:
    net = cnnspec.load(text=TEXT)
    with (
        patch.object(artifact, "analyze", lambda graph: cnnspec.load("lenet5").analyze()),
        pytest.raises(ModuleMismatchError, match="it has 1,553 params, not 61,706"),
    ):
        net.build(folder / "out")
    assert not (folder / "out").exists()


# ------------------------------------------------------------------------------------- the library


def test_the_library(folder: Path) -> None:
    built = cnnspec.build(folder / "tiny.yaml", params={"classes": 3}, seed=2)
    assert (built.folder, built.files) == (None, ())
    assert built.network == type(built.module).__name__ == "Tiny"
    assert built.source == cnnspec.load(folder / "tiny.yaml", params={"classes": 3}).source()
    assert built.verification is not None
    assert built.verification.batches == (1, 2)
    written = cnnspec.load(folder / "tiny.yaml").build(folder / "out", weights=None)
    assert [file.name for file in written.files] == ["model.py", "weights.safetensors", "spec.yaml"]
    called("build", "tiny.yaml", "-o", "command", cwd=folder)
    assert contents(folder / "out") == contents(folder / "command")
    with pytest.raises(cnnspec.EnvironmentFailure, match="there is no type `int8`"):
        cnnspec.build(folder / "tiny.yaml", dtype="int8")
