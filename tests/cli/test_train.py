"""`cnnspec train`: what it refuses, what it plans, and real runs on digits."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from cnnspec.training.distribution.launching import Launched
from cnnspec.training.runs.proving_resume import Compared, Kill, Verdict
from tests.cli.inside import called
from tests.cli.process import COMMAND, ROOT, cnnspec, environment

SPEC = """\
cnnspec: 1
name: tiny
params: {classes: int = 10}
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: conv
  - ReLU
  - Flatten
  - Linear: {out_features: classes}
    name: fc
preprocess: {resize: 8, mean: [0.5], std: [0.5]}
"""
RECIPE = """\
name: quick
data: digits
epochs: 12
batch_size: 64
optimizer: {SGD: {lr: 0.05, momentum: 0.9}}
decay: weights
schedule: {StepLR: {step_size: 2}}
seed: 3
"""
SHORT = ("--recipe", "quick.yaml", "--device", "cpu", "--threads", "1", "--no-tensorboard")

WRONG: dict[str, tuple[str, str]] = {
    "": ("SPEC is missing", "`cnnspec train --help` shows how"),
    "tiny.yaml": ("there is no data to train with", "name it: `--data digits`, or a folder"),
    "tiny.yaml --data digits --resume": (
        "--resume goes on with a run, and none is named",
        "name its folder: -o RUN",
    ),
    "-o none --resume": ("`none` holds no run to go on with, and no SPEC is named", ""),
    "tiny.yaml --data digits --cut fc": ("--cut is about --init-from, which is not given", ""),
    "tiny.yaml --data digits --with epochs": (
        "--with takes a key and a value, not `epochs`",
        "for example --with optimizer.lr=0.01",
    ),
    "tiny.yaml --data digits --precision fp8": (
        "--precision takes float32, bfloat16, float16, bf16 or fp16, not `fp8`",
        "",
    ),
    "tiny.yaml --recipe digts": ("there is no recipe `digts`", "did you mean `digits`?"),
    "tiny.yaml --data digits --nproc 0": (
        "--nproc takes a whole number of at least 1, not `0`",
        "",
    ),
    "tiny.yaml --data digits --verify-resume -o run": (
        "--verify-resume trains in folders of its own: leave --output away",
        "",
    ),
    "- --data digits --nproc 2": (
        "several processes cannot read standard input: name a file",
        "",
    ),
    "tiny.yaml --data digits --epoch 3": (
        "`cnnspec train` has no option `--epoch`",
        "did you mean `--epochs`?",
    ),
    "tiny.yaml --data digits -o taken": (
        "`taken` holds a run already",
        "--resume goes on with it; another folder begins anew",
    ),
}
PLACED: dict[str, tuple[str, str, str]] = {
    "--data digitz": ("unknown-source", "--data:1:1", "did you mean `digits`?"),
    "--data digits --epochs 0": ("argument-value", "--epochs:1:1", ""),
    "--data digits --lr fast": ("argument-type", "--lr:1:1", ""),
    "--data digits --with optimizr.lr=3": ("unknown-key", "--with:1:1", "`optimizer`?"),
    "--data digits --with optimizer=Adm": ("unknown-optimizer", "--with:1:11", "`Adam`?"),
    "--data digits --with epochs=[1": ("", "--with:1:8", ""),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "quick.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.fixture(autouse=True, scope="module")
def _alone() -> Iterator[None]:
    """Nothing in the tests' own environment says where a process stands among others."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "CNNSPEC_LAUNCHED"):
            patched.delenv(name, raising=False)
        yield


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage(typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message, help = WRONG[typed]
    if typed.startswith("- "):
        from io import BytesIO, TextIOWrapper

        monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(SPEC.encode())))
    code, out, err = called("train", *typed.split(), cwd=folder)
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"error: {message}", *([f"help: {help}"] if help else [])]


@pytest.mark.parametrize("typed", PLACED)
def test_wrong_values_are_shown_in_their_options(typed: str, folder: Path) -> None:
    named, place, help = PLACED[typed]
    code, out, err = called("train", "tiny.yaml", *typed.split(), cwd=folder)
    assert (code, out) == (2, "")
    assert f"error[{named}" in err
    assert f"--> {place}\n" in err
    assert help in err


def test_under_torchrun_one_folder_has_to_be_named(folder: Path) -> None:
    given = ("train", "tiny.yaml", "--data", "digits")
    code, _, err = called(*given, cwd=folder, RANK="0", WORLD_SIZE="2")
    assert (code, err.splitlines()[0]) == (
        2,
        "error: processes that torchrun starts need one folder for all: name it with -o",
    )
    code, _, err = called(*given, "--nproc", "2", cwd=folder, RANK="0", WORLD_SIZE="2")
    assert (code, err.splitlines()[0]) == (
        2,
        "error: --nproc starts processes, and torchrun has started them",
    )


def test_tensorboard_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnspec.training.runs.tensorboard.find_spec", lambda name: None)
    code, out, err = called("train", "tiny.yaml", "--data", "digits", "--tensorboard", cwd=folder)
    assert (code, out) == (2, "")
    assert err == (
        "error: TensorBoard is not installed\nhelp: pip install 'cnnspec[tensorboard]'\n"
    )


def test_wrong_usage_imports_no_torch(folder: Path) -> None:
    program = """\
import sys
from cnnspec.__main__ import main
sys.argv = ["cnnspec", "train", "tiny.yaml", "--data", "digits", "--with", "optimizer=Adm"]
code = main()
print([name for name in ("torch", "matplotlib", "kornia", "rich") if name in sys.modules])
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "[]\n")


# ------------------------------------------------------------------------------------- the plan


PLAN = """\
tiny  1x8x8 -> 10  1,490 params
  data     handwritten digits of the UCI repository, 8x8, every fifth held out, 10 classes
           1,437 samples to train with, 360 held out
  recipe   quick; SGD (lr 0.1, momentum 0.9); StepLR (step_size 2); seed 7
  augment  RandomShift (pixels 1)
  steps    48: 4 epochs of 12 steps, batches of 128, 2 parts each
  loss     output (10): CrossEntropyLoss (label_smoothing 0.1)
  trains   1,450 of 1,490 params
           1,440 in 1 tensor: lr 0.1
           10 in 1 tensor: lr 0.1, no weight decay
           frozen: `conv.weight`, `conv.bias`
"""


def test_the_plan_is_shown_and_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    given = (
        "--epochs=4",
        "--batch-size=128",
        "--seed=7",
        "--freeze=conv",
        "--with=optimizer={SGD: {lr: 0.1, momentum: 0.9}}",
        "--with=augment=[RandomShift: {pixels: 1}]",
        "--with=loss.label_smoothing=0.1",
        "--with=accumulate=2",
        "--dry-run",
    )
    code, out, err = called("train", "tiny.yaml", *SHORT, *given, cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith(PLAN), "another plan"
    rest = out.removeprefix(PLAN).splitlines()
    assert rest[0] == "  device   CPU, 1 thread, float32"
    assert rest[1].startswith("  memory   about ")
    assert rest[1].endswith(" KiB a step, by the analyzer")
    assert rest[2].startswith("           weights 5.8 KiB, state of SGD 5.8 KiB, activations and ")
    assert rest[3:] == ["  run      runs/tiny-1, which is not made now"]
    assert sorted(folder.rglob("*")) == before


def test_the_plan_for_programs(folder: Path) -> None:
    given = ("--nproc", "2", "--lr", "0.5", "--dry-run", "--format", "json", "-o", "taken")
    code, out, err = called("train", "tiny.yaml", *SHORT, *given, cwd=folder)
    assert (code, err) == (0, "")
    plan = json.loads(out)
    assert plan["network"] == {
        "name": "tiny",
        "input": [1, 8, 8],
        "outputs": [{"name": "output", "shape": [10], "loss": "CrossEntropyLoss", "weight": 1.0}],
    }
    assert plan["format"] == 1
    assert plan["steps"]["all"] == plan["steps"]["epoch"] * plan["recipe"]["epochs"]
    assert (plan["processes"], plan["threads"], plan["run"]) == (2, 1, "taken")
    assert plan["params"]["all"] == plan["params"]["training"] == 1490
    assert {group["rate"] for group in plan["params"]["groups"]} == {0.5}
    assert plan["memory"]["step"] == sum(
        plan["memory"][part] for part in ("weights", "state", "average", "working")
    )
    assert (plan["data"]["train"], plan["data"]["held_out"]) == (1437, 360)
    assert len(plan["data"]["fingerprint"]) == 64


def test_a_network_for_other_classes(folder: Path) -> None:
    given = ("tiny.yaml", *SHORT, "--set", "classes=4", "--dry-run")
    code, out, err = called("train", *given, cwd=folder)
    assert (code, out) == (2, "")
    assert "10 classes" in err
    assert "`--set classes=10` makes it fit" in err


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"int = 10": "int = 7"}, "`--set classes=10` makes it fit"),
        ({"classes": "kinds", "int = 10": "int = 7"}, "`--set kinds=10` makes it fit"),
        (
            {"params: {classes: int = 10}\n": "", "features: classes": "features: 7"},
            "give the last layer 10 features in the spec",
        ),
    ],
    ids=["default", "other name", "none"],
)
def test_the_param_of_the_classes_is_named(
    changed: dict[str, str], said: str, folder: Path
) -> None:
    text = SPEC
    for old, new in changed.items():
        text = text.replace(old, new)
    (folder / "other.yaml").write_text(text, encoding="utf-8")
    code, out, err = called("train", "other.yaml", *SHORT, "--dry-run", cwd=folder)
    assert (code, out) == (2, "")
    assert said in err


def test_a_map_is_refused_where_data_has_classes(folder: Path) -> None:
    text = SPEC.partition("  - ReLU")[0].replace("params: {classes: int = 10}\n", "")
    (folder / "map.yaml").write_text(text, encoding="utf-8")
    code, out, err = called("train", "map.yaml", *SHORT, "--dry-run", cwd=folder)
    assert (code, out) == (2, "")
    assert "output `output` tells something of each position" in err


def test_a_folder_of_images_names_the_classes_and_a_failed_start_leaves_nothing(
    folder: Path,
) -> None:
    for name in ("ant", "bee"):
        (folder / "insects" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 30 * number).save(folder / "insects" / name / f"{number}.png")
    odd = folder / "insects" / "ant" / "odd.png"
    odd.write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    given = ("--data", "insects", "--set", "classes=2", "--epochs", "2", "--workers", "0")
    words = ("tiny.yaml", *SHORT, *given, "--with", "data.hold_out=0")
    code, _, err = called("train", *words, "--with", "schedule=null", "-o", "run", cwd=folder)
    assert code == 2
    assert "odd.png` cannot be used" in err
    assert "help: `--with data.corrupt=skip` leaves such images out" in err
    assert not (folder / "run").exists()
    odd.unlink()
    code, _, err = called("train", *words, "--with", "schedule=null", "-o", "run", cwd=folder)
    assert (code, err) == (0, "")
    assert "labels: [ant, bee]" in (folder / "run" / "spec.yaml").read_text(encoding="utf-8")
    again = ("--with", "schedule=null", "-o", "run", "--resume")
    code, out, err = called("train", *words, *again, cwd=folder)
    assert (code, err) == (0, "")
    assert "finished before" in out


# ------------------------------------------------------------------------------------- real runs


RUN = ("tiny.yaml", *SHORT)
"""A run of a second or two, most of which is importing."""

PATIENCE = 300
"""Seconds after which something hangs; a busy machine may be slow."""

posix = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a run in it that nothing broke, and what it said."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "quick.yaml").write_text(RECIPE, encoding="utf-8")
    code, out, err = cnnspec("train", *RUN, cwd=folder)
    assert (code, err) == (0, "")
    return folder, out


def figures(path: Path) -> list[list[str]]:
    """The rows of `metrics.csv`, without what depends on the clock and the machine."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row[:9] for row in csv.reader(file)]


def test_a_run_says_what_it_does_and_what_lies_where(trained: tuple[Path, str]) -> None:
    folder, out = trained
    run = folder / "runs" / "tiny-1"
    heading, table, result = out.split("\n\n", 2)
    assert heading.startswith("tiny  1x8x8 -> 10  1,490 params\n  data ")
    assert heading.endswith("\n  run      runs/tiny-1")
    rows = [row.split() for row in table.splitlines()]
    assert rows[0][:4] == ["epoch", "loss", "top1", "held-out"]
    assert [row[0] for row in rows[1:]] == [f"{number}/12" for number in range(1, 13)]
    last = figures(run / "metrics.csv")[-1]
    assert rows[-1][3] == f"{float(last[6]):.4f}"
    assert f"held out loss {float(last[6]):.4f}, top1 {100 * float(last[7]):.2f}%" in result
    assert result.startswith("trained 12 epochs in ")
    listed = [line.split()[0] for line in result.split("\n\n")[1].splitlines()[1:]]
    assert "model.safetensors" in listed
    for name in listed:
        assert (run / name).exists(), name
    assert not (run / "tensorboard").exists()
    assert result.endswith(
        "next\n  cnnspec eval runs/tiny-1\n  cnnspec export runs/tiny-1 -o tiny-1.onnx\n"
    )


def test_the_folder_knows_how_the_run_was_made(trained: tuple[Path, str]) -> None:
    run = trained[0] / "runs" / "tiny-1"
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (facts["seed"], facts["threads"], facts["world"]) == (3, 1, 1)
    assert facts["samples"] == {"train": 1437, "held_out": 360}
    assert facts["command"][0] == "train"
    assert set(facts["versions"]) == {"cnnspec", "torch", "python"}


def test_a_run_that_is_finished_is_shown_without_torch(trained: tuple[Path, str]) -> None:
    folder, out = trained
    program = """\
import sys
from cnnspec.__main__ import main
sys.argv = ["cnnspec", "train", "-o", "runs/tiny-1", "--resume"]
code = main()
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert done.stdout.startswith("finished before: 12 epochs in ")
    assert done.stdout.split("\n\n")[1:] == out.split("\n\n")[3:]


def test_the_result_for_programs_is_alone_on_standard_output(trained: tuple[Path, str]) -> None:
    code, out, err = called("train", *RUN, "-o", "again", "--format", "json", cwd=trained[0])
    assert code == 0
    found = json.loads(out)
    assert (found["format"], found["run"]) == (1, "again")
    assert (found["epochs"], found["stopped_early"]) == (12, False)
    assert found["steps"] == found["last"]["step"]
    assert err.startswith("tiny  1x8x8 -> 10")
    assert figures(trained[0] / "again" / "metrics.csv") == figures(
        trained[0] / "runs" / "tiny-1" / "metrics.csv"
    )


def test_a_resume_with_another_recipe_is_refused(trained: tuple[Path, str]) -> None:
    given = (*RUN, "--epochs=14", "-o", "runs/tiny-1", "--resume")
    code, out, err = called("train", *given, cwd=trained[0])
    assert (code, out) == (2, "")
    assert "`epochs` is 12 in the run and 14 now" in err


def until_rows(path: Path, count: int, process: subprocess.Popen[str]) -> None:
    ends = time.monotonic() + PATIENCE
    while not path.exists() or path.read_text(encoding="utf-8").count("\n") <= count:
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < ends, "it never came so far"
        time.sleep(0.01)


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """A list of processes that do not outlive the test."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        process.kill()
        process.communicate()


HELD = """\
import time
from cnnspec.training.interrupting import Interruption
from cnnspec.training.runs.metrics import MetricsFiles

ended, note, noted = MetricsFiles.epoch_ended, Interruption.note, []

def noting(self, number, frame):
    noted.append(number)
    note(self, number, frame)

def waiting(self, figures):
    ended(self, figures)
    while figures.epoch and not noted:
        time.sleep(0.01)

MetricsFiles.epoch_ended, Interruption.note = waiting, noting
"""
"""A `sitecustomize` with which a run waits behind its second epoch until it is interrupted."""


def start(
    folder: Path, hold: Path, started: list[subprocess.Popen[str]], *words: str
) -> subprocess.Popen[str]:
    """A run that can be interrupted, however busy the machine is."""
    hold.mkdir()
    (hold / "sitecustomize.py").write_text(HELD, encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "train", *words],
        cwd=folder,
        env=environment(PYTHONPATH=os.pathsep.join((str(hold), str(ROOT)))),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    return process


def processes_in(folder: Path) -> list[str]:
    """Processes whose command line names a folder; none where the system does not say."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found


def interrupted(process: subprocess.Popen[str], run: Path, number: signal.Signals) -> list[str]:
    """What a run says to type to go on with it, interrupted behind its first epoch."""
    until_rows(run / "metrics.csv", 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + number, "")
    assert "\ninterrupted in epoch " in out
    assert processes_in(run) == []
    program, *words = shlex.split(out.splitlines()[-1].removeprefix("go on: "))
    assert program == "cnnspec"
    assert words == ["train", "-o", str(run), "--resume"]
    return words


@posix
@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on_and_ends_as_it_would_have(
    trained: tuple[Path, str], tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    folder, _ = trained
    run, whole = tmp_path / "a run", folder / "runs" / "tiny-1"
    process = start(folder, tmp_path / "hold", started, *RUN, "-o", str(run))
    code, out, err = called(*interrupted(process, run, signal.SIGTERM), cwd=folder)
    assert (code, err) == (0, "")
    assert "\n  resumed  " in out
    assert figures(run / "metrics.csv") == figures(whole / "metrics.csv")
    weights = "model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


@posix
def test_several_processes_say_once_what_is_wrong(folder: Path) -> None:
    (folder / "photos").mkdir()
    given = ("tiny.yaml", *SHORT, "--data", "photos", "--nproc", "2")
    code, out, err = cnnspec("train", *given, cwd=folder)
    assert (code, out) == (2, "")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert not (folder / "runs" / "tiny-1").exists()


@posix
@pytest.mark.slow
def test_several_processes_are_interrupted_and_torchrun_goes_on_with_them(
    folder: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    run = folder / "run"
    given = (*RUN, "--nproc", "2", "-o", str(run))
    process = start(folder, tmp_path / "hold", started, *given)
    words = interrupted(process, run, signal.SIGINT)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "cnnspec", *words),
        ],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 12 epochs") == 1
    assert "2 processes, each CPU, 1 thread" in done.stdout
    assert "\n  resumed  " in done.stdout
    assert len(figures(run / "metrics.csv")) == 13


def test_a_run_goes_on_with_as_many_processes(
    trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "runs" / "tiny-1", run)
    (run / "model.safetensors").unlink()
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**facts, "world": 3}), encoding="utf-8")
    launched: list[tuple[list[str], int, int]] = []

    def launch(words: list[str], *, processes: int, threads: int) -> Launched:
        launched.append((words, processes, threads))
        return Launched(7, None)

    monkeypatch.setattr("cnnspec.cli.train.launch", launch)
    assert called("train", "-o", str(run), "--resume").code == 7
    ((words, processes, threads),) = launched
    assert words[:3] == ["train", f"--output={run}", "--resume"]
    assert (processes, threads) == (3, 1)


@pytest.mark.parametrize("equal", [True, False])
def test_a_proof_of_resuming_is_of_the_same_training(
    equal: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it proves is in `tests/training/test_crash.py`."""
    proved: list[Sequence[str]] = []

    def prove(words: Sequence[str], *, said: Callable[[str], None]) -> Verdict:
        proved.append(words)
        said("a line of progress")
        return Verdict((Kill(1.0, 2, 3),), Compared(4, 5, () if equal else ("fc.bias",)), True)

    monkeypatch.setattr("cnnspec.training.runs.proving_resume.prove_resume", prove)
    given = ("tiny.yaml", *SHORT, "--nproc", "2", "--epochs", "4", "--verify-resume")
    code, out, err = called("train", *given, cwd=folder)
    assert (code, err) == (0 if equal else 1, "a line of progress\n")
    assert ("equal to the bit" in out) is equal
    assert proved == [
        [
            *("--nproc=2", "--threads=1", "--recipe=quick.yaml", "--device=cpu", "--epochs=4"),
            *("--no-tensorboard", "--format=table", "tiny.yaml"),
        ]
    ]
    assert not (folder / "runs").exists()
