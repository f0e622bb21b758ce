"""`cnnspec train --resume` where something is not as it was: it goes on exactly, or refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnspec.cli import training_run
from cnnspec.training.runs.checkpoints import read, write
from cnnspec.training.runs.run_folder import RunFolder
from tests.cli.inside import called

SPEC = """\
cnnspec: 1
name: tiny
inputs: {image: [1, 8, 8]}
layers:
  - Flatten
  - Linear: {out_features: 2}
    name: fc
preprocess: {resize: 8, colour: grey}
"""
RECIPE = """\
epochs: 2
batch_size: 8
optimizer: {SGD: {lr: 0.1, momentum: 0.9}}
augment:
  - RandomShift: {pixels: 1}
"""
GIVEN = (
    *("tiny.yaml", "--recipe", "recipe.yaml", "--data", "photos", "--workers", "0"),
    *("--device", "cpu", "--threads", "1", "--no-tensorboard"),
)
LAST = "checkpoints/last.pt"
PREVIOUS = "checkpoints/previous.pt"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run `whole` in it."""
    folder = tmp_path_factory.mktemp("resumed")
    (folder / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    random = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (folder / "photos" / name).mkdir(parents=True)
        for count in range(10):
            pixels = random.integers(100 * number, 100 * number + 150, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{count}.png")
    assert called("train", *GIVEN, "-o", "whole", cwd=folder)[0] == 0
    return folder


@pytest.fixture
def broken(done: Path, tmp_path: Path) -> Path:
    """The same run, as a kill in the second epoch leaves it."""
    folder = tmp_path / "run"
    shutil.copytree(done / "whole", folder)
    (folder / WEIGHTS).unlink()
    shutil.copy(folder / PREVIOUS, folder / LAST)
    return folder


def test_a_run_that_was_moved_goes_on_from_any_folder(done: Path, broken: Path) -> None:
    """Its samples have a path that is relative to another one."""
    code, _, err = called("train", "-o", broken.name, "--resume", cwd=broken.parent)
    assert (code, err) == (0, "")
    assert (broken / WEIGHTS).read_bytes() == (done / "whole" / WEIGHTS).read_bytes()


def test_samples_that_moved_are_named(done: Path, broken: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "photos", tmp_path / "elsewhere")
    given = ("train", "-o", "run", "--resume", "--data", "elsewhere/")
    code, out, err = called(*given, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "images of `elsewhere" in out
    assert (broken / WEIGHTS).read_bytes() == (done / "whole" / WEIGHTS).read_bytes()


def test_a_checkpoint_of_another_run(done: Path, broken: Path) -> None:
    other = ("train", *GIVEN, "--seed", "1", "-o", str(broken.parent / "other"))
    assert called(*other, cwd=done)[0] == 0
    shutil.copy(broken.parent / "other" / LAST, broken / LAST)
    code, _, err = called("train", "-o", str(broken), "--resume", cwd=done)
    assert code == 2
    assert err.startswith(f"error: `{broken / LAST}` is a checkpoint of another run\n")
    assert not (broken / WEIGHTS).exists()


def test_a_checkpoint_of_a_later_version(done: Path, broken: Path) -> None:
    later = {"run": RunFolder.open(broken).identity, "format": 2}
    write(broken / LAST, later)
    code, _, err = called("train", "-o", str(broken), "--resume", cwd=done)
    assert code == 2
    assert err.startswith("error: the checkpoint has format 2, and this version reads 1\n")
    assert read(broken / LAST) == later


def test_a_run_without_a_state_begins_with_the_weights_it_began_with(
    done: Path, broken: Path
) -> None:
    run = broken.parent / "from"
    given = ("train", *GIVEN, "-o", str(run))
    assert called(*given, "--init-from", "whole", cwd=done)[0] == 0
    weights = (run / WEIGHTS).read_bytes()
    for name in (WEIGHTS, LAST, PREVIOUS):
        (run / name).unlink()
    code, _, err = called("train", "-o", str(run), "--resume", cwd=done)
    assert code == 2
    assert err.splitlines() == [
        f"error: `{run}` was begun with other weights, and has stored no state yet",
        "help: give the --init-from and --cut that it was begun with",
    ]
    code, _, err = called(*given, "--init-from", str(done / "whole"), "--resume", cwd=done)
    assert (code, err) == (0, "")
    assert (run / WEIGHTS).read_bytes() == weights


def test_threads_are_not_chosen_by_the_load_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_DYNAMIC", "TRUE")
    training_run._import_torch()
    assert os.environ["OMP_DYNAMIC"] == "FALSE"
