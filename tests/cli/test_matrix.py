"""`cnnspec matrix` as users meet it; the matrices themselves are tested with the pass."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

import cnnspec
from tests.cli.inside import called
from tests.cli.process import ROOT, environment

SPEC = """\
cnnspec: 1
name: net
inputs: {image: [1, 4, 4]}
layers:
  - Conv2d: {out_channels: 2, kernel_size: 3, padding: 1}
    name: conv
  - ReLU:
    name: relu
  - Conv2d: {out_channels: 2, kernel_size: 3, padding: 1}
    name: deep
  - MaxPool2d: {kernel_size: 2}
    name: pool
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "net.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return str(path)


def test_the_table(spec: str) -> None:
    code, out, err = called("matrix", spec, "conv", "--at", "1x2x2")
    assert (code, err) == (0, "")
    assert (
        out
        == """\
conv  Conv2d, 1x2x2 to 2x2x2: 8 x 4
2 x 1 blocks, each doubly block Toeplitz; dense
32 of 32 entries are not zero (100.0%), 18 of them different
18 weights stand there
y = matrix x + the column behind the bar

          x0,0    x0,1 │   x1,0    x1,1
y0,0,0  w0,1,1  w0,1,2 │ w0,2,1  w0,2,2 ║ b0
y0,0,1  w0,1,0  w0,1,1 │ w0,2,0  w0,2,1 ║ b0

y0,1,0  w0,0,1  w0,0,2 │ w0,1,1  w0,1,2 ║ b0
y0,1,1  w0,0,0  w0,0,1 │ w0,1,0  w0,1,1 ║ b0

y1,0,0  w1,1,1  w1,1,2 │ w1,2,1  w1,2,2 ║ b1
y1,0,1  w1,1,0  w1,1,1 │ w1,2,0  w1,2,1 ║ b1

y1,1,0  w1,0,1  w1,0,2 │ w1,1,1  w1,1,2 ║ b1
y1,1,1  w1,0,0  w1,0,1 │ w1,1,0  w1,1,1 ║ b1
"""
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lenet5", "s2", "--at", "1x4x4"), "repeats along height (1 output, 2 inputs on)"),
        (("lenet5", "c1", "--at", "1x6x6"), "6 x 1 blocks, each doubly block Toeplitz"),
        (("lenet5", "f6"), "dense; every weight stands in one place: nothing is shared"),
        (("lenet5", "8"), "the identity"),
    ],
)
def test_what_it_is(arguments: tuple[str, ...], said: str) -> None:
    code, out, err = called("matrix", *arguments)
    assert (code, err) == (0, "")
    assert said in out


def test_csv_and_json_say_the_same(spec: str) -> None:
    arguments = ("matrix", spec, "conv", "--at", "1x3x3")
    rows = list(csv.reader(StringIO(called(*arguments, "--format", "csv").out)))
    document = json.loads(called(*arguments, "--format", "json").out)
    assert (document["rows"], document["columns"]) == (len(rows) - 1, len(rows[0]) - 2)
    assert rows[0][-1] == "bias"
    cells = {(r, c): text for r, c, text in document["entries"]}
    assert cells == {
        (r, c): text
        for r, row in enumerate(rows[1:])
        for c, text in enumerate(row[1:-1])
        if text != "0"
    }
    assert document["bias"] == [row[-1] for row in rows[1:]]


def test_the_values_are_those_of_the_module(spec: str, tmp_path: Path) -> None:
    module = cnnspec.load(spec).to_torch(seed=3).eval()
    torch.save(module.state_dict(), tmp_path / "w.pth")
    made = tmp_path / "m.npy"
    arguments = ("matrix", spec, "conv", "--format", "npy", "-o", str(made))
    code, out, err = called(*arguments, "--weights", str(tmp_path / "w.pth"))
    assert (code, out, err) == (0, "", "")
    matrix = np.load(made)
    assert called(*arguments, "--values", "--seed", "3").code == 0
    assert np.array_equal(np.load(made), matrix)
    x = torch.randn(1, 1, 4, 4)
    with torch.no_grad():
        expected = module.get_submodule("conv")(x).reshape(-1).numpy()
    assert matrix.shape == (32, 17)
    found = matrix[:, :-1] @ x.reshape(-1).numpy() + matrix[:, -1]
    assert np.abs(found - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("relu", "`relu` is `ReLU`, which is not linear: it has no matrix"),
        ("pool", "`pool` is `MaxPool2d`, which is not linear: it has no matrix"),
        ("cnov", "`net` has no layer `cnov`"),
        ("conv --at 4x4", "--at 4x4 is no input of `conv`, which reads 1x4x4"),
        ("pool --at 1x1x1", "`pool` cannot read 1x1x1: "),
        ("conv --at 1x400x400", "entries, and 4,000,000 is the most"),
        ("conv --at 1x20x20", "too large for a table"),
        ("conv --at 1,4", "--at needs sizes, not `1,4`"),
        ("conv --at 0x4x4", "--at needs sizes, not `0x4x4`"),
        ("conv --at 2x4x4 --values", "has other weights than in the network: `weight`"),
        ("conv --format npy", "an npy file holds numbers"),
    ],
)
def test_mistakes(spec: str, arguments: str, message: str) -> None:
    code, out, err = called("matrix", spec, *arguments.split())
    assert (code, out) == (2, "")
    assert message in err


def test_weights_by_name_need_no_torch() -> None:
    program = (
        "import sys\n"
        "from cnnspec.cli.main import main\n"
        "code = main(['matrix', 'lenet5', 's2', '--at', '1x2x2'])\n"
        "sys.exit(code or 'torch' in sys.modules or 'onnx' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_block_is_no_layer() -> None:
    code, out, err = called("matrix", "vgg16", "classifier")
    assert (code, out) == (2, "")
    assert "`classifier` is several layers" in err
    assert "help: for example `classifier.0`" in err


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ("vgg16 features.0", "1x6x6"),
        ("vgg16 classifier.0", "6"),
        ("alexnet features.0", "1x12x12"),
        ("alexnet_paper features.4", "2x6x6"),
        ("mobilenet_v2 features.1.conv.0.0", "32x6x6"),
        ("m5 stem.0", "1x6"),
    ],
)
def test_the_size_that_it_advises_works(arguments: str, sizes: str) -> None:
    advised = f"help: give the layer a small input of its own: --at {sizes}\n"
    assert called("matrix", *arguments.split()).err.endswith(advised)
    code, _, err = called("matrix", *arguments.split(), "--at", sizes, "--format", "csv")
    assert (code, err) == (0, "")
