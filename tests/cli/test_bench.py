"""`cnnspec bench`: files, processes and streams as users have them. No time is asserted."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from io import StringIO
from json import loads
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from PIL import Image

import cnnspec
from tests.cli.inside import called
from tests.cli.process import COMMAND, environment
from tests.runtime.models import classifier, metadata, put

CPU = ("--provider", "cpu", "--threads", "1", "--warmup", "0")
SPEC = """\
cnnspec: 1
name: tiny
params: {classes: int = 3}
inputs: {image: [3, 8, 8]}
preprocess: {resize: 8, crop: 8}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, bias: false}
  - BatchNorm2d
  - ReLU
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: classes}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    put(classifier(metadata()), tmp_path / "net.onnx")
    put(classifier(), tmp_path / "foreign.onnx")
    put(classifier(scale=9.0), tmp_path / "other.onnx")
    put(classifier(shape=(2, 3, 8, 8)), tmp_path / "pairs.onnx")
    put(classifier(shape=("N", 3, "H", "W")), tmp_path / "free.onnx")
    return tmp_path


def document(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    done = called("bench", *arguments, *CPU, "--format", "json", cwd=cwd)
    assert (done.code, done.err) == (code, "")
    found: dict[str, Any] = loads(done.out)
    return found


def test_files_need_no_torch(folder: Path) -> None:
    # Whoever imports torch, in whichever process, gets this.
    (folder / "poison").mkdir()
    (folder / "poison" / "torch.py").write_text("raise SystemExit('torch is imported')\n")
    program = (
        "import sys; sys.path.insert(0, 'poison'); from cnnspec.cli.main import main; "
        f"sys.exit(main(['bench', 'net.onnx', 'foreign.onnx', *{CPU!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "net.onnx, foreign.onnx  50 runs each after 0 to warm up, in turns, on cpu, 1 thread"
    )
    assert lines[2].split() == (
        "batch 1 median p95 samples/s speed file peak memory difference".split()
    )
    assert [line.split()[0] for line in lines[3:5]] == ["net.onnx", "foreign.onnx"]
    assert lines[3].endswith("reference")
    assert lines[4].endswith("  0")


def test_all_contenders_of_a_spec(folder: Path) -> None:
    arguments = ("tiny.yaml", "--batch", "3", "--fp16", "--int8", "--set", "classes=5")
    found = document(*arguments, "--seed", "2", "--runs", "51", cwd=folder)
    rows = found["rows"]
    names = ["eager", "onnx", "onnx-fp16", "onnx-int8"]
    assert [(row["batch"], row["contender"]) for row in rows] == [(3, name) for name in names]
    assert [row["precision"] for row in rows] == ["float32", "float32", "float16", "int8"]
    for row in rows:
        seconds = row["seconds"]
        assert row["runs"] == 51 == sum(map(len, seconds["turns"]))
        assert seconds["min"] <= seconds["median"] <= seconds["p95"] <= seconds["max"]
        assert row["samples_per_second"] == pytest.approx(
            row["batch"] * 51 / sum(map(sum, seconds["turns"]))
        )
        assert (row["provider"], row["threads"], row["same"]) == ("cpu", 1, True)
        assert row["file_bytes"] > 100
        assert row["peak_bytes"] is None or row["peak_bytes"] > 1_000_000
    assert rows[0]["difference"] is None
    assert 0 <= rows[1]["difference"] < 1e-5
    assert 0 < rows[2]["difference"] < 5e-2
    assert rows[3]["difference"] > 0
    engines = [row["engine"].rpartition(" ")[0] for row in rows]
    assert engines == ["torch", *["ONNX Runtime"] * 3]
    assert found["failed"] == []
    assert "`onnx-int8` is calibrated with random numbers" in found["remarks"][0]
    assert any("float16" in remark for remark in found["remarks"])
    known = {name: found[name] for name in ("format", "name", "runs", "warmup", "interrupted")}
    assert known == {"format": 1, "name": "tiny", "runs": 51, "warmup": 0, "interrupted": False}


def test_weights_images_and_a_built_folder(folder: Path) -> None:
    cnnspec.build(folder / "tiny.yaml", folder / "built", seed=7, verify=False)
    (folder / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (9 * number, 50, 200)).save(folder / "photos" / f"{number}.png")
    net = cnnspec.load(folder / "tiny.yaml")
    weights = folder / "built" / "weights.safetensors"
    net.to_onnx(folder / "tiny.onnx", weights, verify=False)
    asked = ("--only", "onnx-int8,onnx", "--calibration", "photos")
    found = document("built", "tiny.onnx", *asked, cwd=folder)
    # The file was made of the folder's weights: it computes the same.
    names = [row["contender"] for row in found["rows"]]
    assert names == ["onnx", "onnx-int8", "tiny.onnx"]
    assert found["rows"][2]["difference"] == 0
    assert not any("random" in remark for remark in found["remarks"])
    given = ("tiny.yaml", "--weights", str(weights), "--only", "onnx")
    assert document(*given, "tiny.onnx", cwd=folder)["rows"][1]["difference"] == 0
    other = document("tiny.yaml", "tiny.onnx", "--only", "onnx", cwd=folder, code=1)
    assert [row["same"] for row in other["rows"]] == [True, False]


def test_who_computes_something_else_is_told(folder: Path) -> None:
    done = called("bench", "net.onnx", "other.onnx", *CPU, cwd=folder)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[-1] == (
        "warning: `other.onnx` at batch 1 computes something else than `net.onnx`: "
        "their times cannot be compared"
    )


def test_csv_and_markdown(folder: Path) -> None:
    done = called(
        "bench", "net.onnx", "other.onnx", *CPU, "--format=csv", "-o", "t.csv", cwd=folder
    )
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("warning: `other.onnx` at batch 1 computes something else")
    header, *rows = csv.reader(StringIO((folder / "t.csv").read_text(encoding="utf-8")))
    assert [dict(zip(header, row, strict=True))["same"] for row in rows] == ["true", "false"]
    done = called("bench", "net.onnx", *CPU, "--format=md", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("## net.onnx\n\n| contender | batch | median |")


def test_batches_and_sizes_of_files(folder: Path) -> None:
    rows = document("pairs.onnx", "foreign.onnx", cwd=folder)["rows"]
    assert [row["batch"] for row in rows] == [2, 2]
    rows = document("net.onnx", "--batch", "4,1", cwd=folder)["rows"]
    assert [row["batch"] for row in rows] == [4, 1]
    free = ("free.onnx", "--input", "image=3x5x6", "--batch", "3")
    assert document(*free, cwd=folder)["rows"][0]["batch"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("free.onnx", "input `image` of `free.onnx` is N x 3 x H x W, which leaves sizes open"),
        ("pairs.onnx --batch 3", "is 2 x 3 x 8 x 8, and does not take 3 x 3 x 8 x 8"),
        ("net.onnx --input imag=3x8x8", "did you mean `image`?"),
        ("net.onnx --fp16", "--fp16 is about a spec, and an ONNX file is none"),
        ("net.onnx --only onnx", "--only is about a spec"),
        ("net.onnx --set a=1", "--set is about a spec"),
        ("net.onnx --runs 49", "--runs takes a whole number of at least 50, not `49`"),
        ("net.onnx --batch 1,0", "--batch takes a whole number of at least 1, not `0`"),
        ("missing.onnx", "`missing.onnx` cannot be read: no such file or directory"),
        ("tiny.yaml resnet18", "one spec is measured at a time"),
        ("tiny.yaml --only eeger", "did you mean `eager`?"),
        ("tiny.yaml --calibration photos", "--calibration is about int8, which is not asked for"),
        ("tiny.yaml --int8 --calibration photos", "photos"),
        ("tiny.yaml --weights gone.pth", "gone.pth"),
        ("net.onnx --provider cuda", "nothing could be measured: `net.onnx`: CUDA"),
    ],
)
def test_usage(folder: Path, arguments: str, said: str) -> None:
    if "cuda" in arguments:
        from cnnspec.runtime.providers import driver

        if driver().devices:
            pytest.skip("this machine has a GPU")
    done = called("bench", *arguments.split(), cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped"])
def test_hostile_files(folder: Path, damage: str) -> None:
    whole = (folder / "net.onnx").read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "text": b"cnnspec: 1\n",
        "empty": b"",
        "flipped": whole.replace(b"GlobalAveragePool", b"GlobalAveragePoll"),
    }
    (folder / "bad.onnx").write_bytes(broken[damage])
    done = called("bench", "net.onnx", "bad.onnx", *CPU, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: `bad.onnx` ")
    assert done.err.count("error") == 1


def test_ctrl_c_shows_what_was_measured(folder: Path) -> None:
    drafts = folder / "drafts"
    drafts.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "bench", "net.onnx", "foreign.onnx", *CPU, "--runs", "9000000"],
        cwd=folder,
        env=environment(TMPDIR=str(drafts)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(drafts.glob("*/outputs.npz")) and process.poll() is None:
            sleep(0.05)
        sleep(2)  # until the first turns are over
        os.killpg(process.pid, signal.SIGINT)  # a terminal tells the whole group
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    lines = out.splitlines()
    assert lines[0].startswith("net.onnx, foreign.onnx  interrupted; 9000000 runs each")
    assert [line.split()[0] for line in lines[3:5]] == ["net.onnx", "foreign.onnx"]
    assert list(drafts.glob("cnnspec-*")) == []
