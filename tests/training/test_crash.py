"""Real runs, killed by SIGKILL and resumed: what they end with is what they would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs.checkpoints import write_weights
from cnnspec.training.runs.proving_resume import (
    Compared,
    Kill,
    Verdict,
    below,
    compare_figures,
    compare_weights,
    kill_tree,
    prove_resume,
)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")

SPEC = """\
cnnspec: 1
name: small
inputs: {image: [1, 8, 8]}
preprocess: {resize: 8, colour: grey}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, bias: false}
  - BatchNorm2d
  - ReLU
  - Flatten
  - Dropout: {p: 0.3}
  - Linear: {out_features: 10}
"""

RECIPE = """\
data: {source: digits, workers: 1}
epochs: 4
batch_size: 128
optimizer: {AdamW: {lr: 2.0e-3}}
schedule: {CosineAnnealingLR: {}}
augment:
  - RandomShift: {pixels: 1}
ema: 0.9
checkpoint: {steps: 2, best: top1}
"""


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "small.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return [
        str(tmp_path / "small.yaml"),
        "--recipe",
        str(tmp_path / "recipe.yaml"),
        "--threads",
        "1",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_ends_as_one_that_is_not(processes: int, arguments: list[str]) -> None:
    said: list[str] = []
    given = [*arguments, "--nproc", str(processes)]
    verdict = prove_resume(given, seed=processes, said=said.append)
    assert verdict.equal, "\n".join(verdict.lines())
    assert len(verdict.kills) == 1
    assert len(said) == 3


def test_a_run_that_fails_by_itself(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match=r"the run ended with code 2: .*none\.yaml"):
        prove_resume([str(tmp_path / "none.yaml"), "--data", "digits"])


# ------------------------------------------------------------------------------------ comparison


def test_weights_are_compared_by_their_bits(tmp_path: Path) -> None:
    tensors = {
        "a": torch.tensor([0.0, float("nan"), 1.0]),
        "b": torch.ones(2, 2).bfloat16(),
        "c": torch.tensor(3),
    }
    write_weights(tmp_path / "one", tensors, {"x": "1"})
    write_weights(tmp_path / "two", tensors, {"x": "2"})
    assert compare_weights(tmp_path / "one", tmp_path / "two") == Compared(3, 8, ())
    for name, other in (
        ("a", torch.tensor([-0.0, float("nan"), 1.0])),
        ("b", torch.ones(2, 2).half()),
        ("b", torch.ones(4).bfloat16()),
        ("c", torch.tensor(4)),
        ("d", torch.tensor(4)),
    ):
        write_weights(tmp_path / "two", {**tensors, name: other}, {})
        assert compare_weights(tmp_path / "one", tmp_path / "two").different == (name,)


def test_figures_are_compared_but_for_times(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text('{"epoch": 1, "train_loss": 0.5, "seconds": 1, "memory": 5}\n')
    two.write_text('{"epoch": 1, "train_loss": 0.5, "seconds": 2, "memory": 6}\n')
    assert compare_figures(one, two)
    two.write_text('{"epoch": 1, "train_loss": 0.5000000000000001, "seconds": 1}\n')
    assert not compare_figures(one, two)
    two.write_text("")
    assert not compare_figures(one, two)


def test_verdicts_in_words() -> None:
    whole = Compared(3, 1234, ())
    proved = Verdict((Kill(1.25, 2, 7), Kill(0.5, 3, 1)), whole, figures=True)
    assert proved.equal
    assert list(proved.lines()) == [
        "killed 1.2 s behind a first checkpoint, went on from epoch 2, step 7",
        "killed 0.5 s behind a first checkpoint, went on from epoch 3, step 1",
        "the final weights are equal to the bit: 1,234 numbers in 3 tensors",
        "the figures of the epochs are equal",
    ]
    never = Verdict((), whole, figures=True)
    assert not never.equal
    assert "nothing is proved" in next(never.lines())
    differs = Verdict((Kill(1.0, 1, 1),), Compared(3, 1234, ("a", "b")), figures=False)
    assert not differs.equal
    assert list(differs.lines())[1:] == [
        "the final weights differ, in 2 of 3 tensors: `a`, `b`",
        "the figures of the epochs are different",
    ]


# ------------------------------------------------------------------------------------ killing

FAMILY = """
import subprocess, sys, time
if int(sys.argv[1]):
    command = [sys.executable, "-c", sys.argv[2], str(int(sys.argv[1]) - 1), sys.argv[2]]
    subprocess.Popen(command, start_new_session=True)
else:
    print("all are there", flush=True)
time.sleep(60)
"""


def test_a_whole_family_is_killed() -> None:
    """Also those in sessions of their own, as torchrun starts them."""
    command = [sys.executable, "-c", FAMILY, "2", FAMILY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"all are there\n"
        family = below(process.pid)
        assert len(family) == 2
        kill_tree(process.pid)
        assert process.wait() == -signal.SIGKILL
        # Nobody has the pipe open any more.
        assert process.stdout.read() == b""
        for member in family:
            assert member not in below(os.getpid())


def test_processes_as_ps_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    listing = subprocess.CompletedProcess(
        [], 0, "  7     1 Ss+\n  9     7 S\n 12     9 Z\n 13 9 R\n"
    )
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: listing)
    assert below(7) == [9, 13]
