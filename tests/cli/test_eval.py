"""`cnnspec eval`: a run and its ONNX file say the same, and what cannot be done is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cnnspec.api import Network, load
from cnnspec.training.recipe.model import Call, Data, OutputLoss, Recipe
from tests.cli.inside import called
from tests.cli.process import ROOT, cnnspec, environment
from tests.training.made_runs import SMALL, digits_arrays, made_run, small, taught


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, another, one that has not ended, and the first as ONNX files of three kinds."""
    place = tmp_path_factory.mktemp("eval")
    network = small()
    made_run(place / "run", network, taught(network))
    made_run(place / "other", network, taught(network, seed=1))
    made_run(place / "unfinished", network, None)
    exports = {
        "plain": [],
        "normalize": ["--preprocess", "normalize"],
        "full": ["--preprocess", "full", "--softmax"],
        "three": ["--batch", "7"],
    }
    for name, options in exports.items():
        done = called("export", "run", "-o", f"{name}.onnx", *options, cwd=place)
        assert done.code == 0, done.err
        assert "of run/model.safetensors" in done.out
    return place


def document(folder: Path, *arguments: str) -> dict[str, Any]:
    done = called("eval", *arguments, "--format", "json", cwd=folder)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------------------------- same figures


def test_a_run_says_what_its_network_does(folder: Path) -> None:
    found = document(folder, "run")
    network = small()
    module = network.to_torch(folder / "run" / "model.safetensors").eval()
    images, targets = digits_arrays(network, held_out=True)
    with torch.no_grad():
        scores = module(images)
    assert found["samples"] == 360
    assert round(found["top1"] * 360) == int((scores.argmax(1) == targets).sum())
    wanted = torch.nn.functional.cross_entropy(scores, targets).item()
    assert found["loss"] == pytest.approx(wanted, rel=1e-5)
    assert (found["data"], found["split"]) == ("digits", "held-out")
    assert (found["skipped"], found["warnings"], found["without_numbers"]) == ([], [], 0)


@pytest.mark.parametrize("name", ["plain", "normalize", "full", "three"])
@pytest.mark.parametrize("views", [(), ("--flip",)])
def test_the_exported_file_says_the_same(folder: Path, name: str, views: tuple[str, ...]) -> None:
    ours = document(folder, "run", "--per-class", "--confusion", *views)
    theirs = document(folder, f"{name}.onnx", "--data", "run", "--per-class", "--confusion", *views)
    for key in ("top1", "top5", "samples", "classes", "confusion"):
        assert ours[key] == theirs[key], key
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-4)
    assert sum(map(sum, ours["confusion"])) == 360


def test_several_answer_together_in_torch_and_in_onnx(folder: Path) -> None:
    assert called("export", "other", "-o", "other.onnx", cwd=folder).code == 0
    ours = document(folder, "run", "other")
    theirs = document(folder, "plain.onnx", "other.onnx", "--data", "run")
    assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    alone = document(folder, "run")
    assert ours["loss"] != alone["loss"]
    averaged = document(folder, "run", "other", "--average", "weights")
    assert averaged["loss"] not in (ours["loss"], alone["loss"])


def test_weights_of_a_spec(folder: Path) -> None:
    spec, weights = folder / "run" / "spec.yaml", folder / "run" / "model.safetensors"
    found = document(folder, str(spec), "--weights", str(weights), "--data", "digits")
    assert found["top1"] == document(folder, "run")["top1"]
    both = document(folder, "run", "--weights", str(weights), "--weights", str(weights))
    assert both["top1"] == found["top1"]


def test_a_built_folder(folder: Path) -> None:
    small().build(folder / "built", weights=folder / "run" / "model.safetensors")
    found = document(folder, "built", "--data", "digits")
    assert found["top1"] == document(folder, "run")["top1"]


def test_the_loss_is_that_of_the_recipe(folder: Path) -> None:
    network = small()
    recipe = Recipe(
        name="svm",
        data=Data(source="digits"),
        loss={"": OutputLoss(loss=Call("MultiMarginLoss", {"margin": 2.0}))},
    )
    module = network.to_torch(folder / "run" / "model.safetensors").eval()
    made_run(folder / "svm", network, module, recipe)
    found = document(folder, "svm")
    images, targets = digits_arrays(network, held_out=True)
    with torch.no_grad():
        wanted = torch.nn.functional.multi_margin_loss(module(images), targets, margin=2.0)
    assert found["loss_is"] == "MultiMarginLoss"
    assert found["loss"] == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize(("split", "count"), [("train", 1437), ("all", 1797)])
def test_splits(folder: Path, split: str, count: int) -> None:
    assert document(folder, "run", "--split", split)["samples"] == count


def test_batches_and_threads_change_nothing(folder: Path) -> None:
    one = document(folder, "run", "--batch-size", "1", "--threads", "1")
    other = document(folder, "run", "--batch-size", "360", "--threads", "3")
    assert (one["top1"], one["top5"]) == (other["top1"], other["top5"])
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


# ---------------------------------------------------------------------------------------- own data


def class_folders(place: Path, names: tuple[str, ...]) -> Path:
    """Two images of each class in a folder of class folders, and a damaged one."""
    for number, name in enumerate(names):
        (place / name).mkdir(parents=True)
        for copy in range(2):
            Image.new("L", (8, 8), 20 * number + copy).save(place / name / f"{copy}.png")
    (place / names[0] / "z.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return place


def test_damaged_images_and_names_that_disagree(folder: Path, tmp_path: Path) -> None:
    images = class_folders(tmp_path / "photos", ("cat", "cow"))
    network = _named(("dog", "cat", "cow"))
    made_run(tmp_path / "run", network, network.to_torch())
    arguments = ("eval", "run", "--data", "photos", "--split", "all", "--format", "json")
    done = called(*arguments, cwd=tmp_path)
    assert done.code == 2
    assert "z.png` cannot be used" in done.err
    assert "`--corrupt skip` leaves such images out" in done.err
    done = called(*arguments, "--corrupt", "skip", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["samples"] == 4
    assert [Path(each["image"]).name for each in found["skipped"]] == ["z.png"]
    assert len(list(images.rglob("*.png"))) == 5
    assert found["warnings"] == [
        "output `output` tells 3 classes, and photos has 2",
        "`run` has other names of classes: 0 is `dog` there and `cat` in the data, "
        "and 1 more differ",
    ]
    assert "warning: " in done.err


def _named(labels: tuple[str, ...]) -> Network:
    return load(text=f"{SMALL}labels: [{', '.join(labels)}]\n").with_params(classes=len(labels))


# ------------------------------------------------------------------------------------------- form


def test_the_table(folder: Path) -> None:
    done = called("eval", "run", "--per-class", "--confusion", cwd=folder)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "run  torch on cpu, digits held-out"
    assert [line.split()[0] for line in lines[1:6]] == [
        "samples",
        "top-1",
        "top-5",
        "loss",
        "speed",
    ]
    assert lines[1] == "  samples  360"
    assert lines[2].endswith("of 360")
    heads = [number for number, line in enumerate(lines) if line.startswith(("class", "true"))]
    assert [lines[number].split() for number in heads] == [
        ["class", "samples", "recall", "precision"],
        ["true", *map(str, range(10))],
    ]
    found = document(folder, "run", "--confusion")["confusion"]
    shown = [line.split()[1:] for line in lines[heads[1] + 1 :]]
    assert [[0 if cell == "." else int(cell) for cell in row] for row in shown] == found


def test_an_onnx_file_needs_no_torch(folder: Path) -> None:
    program = """\
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "kornia"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from cnnspec.cli.main import main
sys.exit(main(["eval", "plain.onnx", "--data", "run", "--flip", "--per-class"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ONNX Runtime on cpu, digits held-out" in done.stdout
    assert str(ROOT) not in done.stdout


# ------------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plain.onnx"], "there is no data to evaluate with"),
        (["plain.onnx", "run"], "ONNX files and others cannot be evaluated together"),
        (["plain.onnx", "--data", "run", "--device", "cpu"], "an ONNX file takes no --device"),
        (["plain.onnx", "--data", "run", "--weights", "x"], "an ONNX file takes no --weights"),
        (
            ["plain.onnx", "plain.onnx", "--data", "run", "--average", "weights"],
            "weights of ONNX files are not averaged",
        ),
        (["three.onnx", "--data", "run", "--batch-size", "8"], "batches of 7 only"),
        (["run", "--provider", "cpu"], "--provider is for ONNX files"),
        (["run", "--average", "weights"], "--average is about several models"),
        (["run", "other", "--weights", "x"], "--weights is about one model"),
        (["run", "--ten-crop", "--flip"], "--ten-crop has mirror images already"),
        (["run", "--ten-crop"], "--ten-crop needs to know the size"),
        (["full.onnx", "--data", "run", "--ten-crop"], "this file does so too"),
        (["run", "--data", "digitz"], "digitz"),
        (["run", "--split", "test"], "--split takes held-out, train or all"),
        (["unfinished"], "its training has not ended"),
        (["lenet5"], "`lenet5` has no weights to evaluate"),
        (["run/model.safetensors"], "`run/model.safetensors` holds weights, and no network"),
        (["no-such-thing"], "no-such-thing"),
        (["run", "--weights", "no.pt"], "there is no file `no.pt`"),
        (["no.onnx", "--data", "run"], "`no.onnx` cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told(folder: Path, arguments: list[str], said: str) -> None:
    done = called("eval", *arguments, cwd=folder)
    assert done.code == 2
    assert said in done.err
    assert done.out == ""


def test_an_unfinished_run_is_not_exported(folder: Path) -> None:
    done = called("export", "unfinished", "-o", "x.onnx", cwd=folder)
    assert done.code == 2
    assert "its training has not ended" in done.err
    assert not (folder / "x.onnx").exists()


def test_train_eval_export_eval_predict(tmp_path: Path) -> None:
    """What training says, the run says, and its ONNX file, to the digit."""
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    done = cnnspec(
        *("train", "small.yaml", "--data", "digits", "-o", "run"),
        *("--epochs", "1", "--workers", "0"),
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    ours = document(tmp_path, "run")
    assert ours["top1"] == last["held_out_top1"]
    assert ours["loss"] == pytest.approx(last["held_out_loss"], rel=1e-5)
    assert called("export", "run", "-o", "run.onnx", cwd=tmp_path).code == 0
    theirs = document(tmp_path, "run.onnx", "--data", "run")
    assert (theirs["top1"], theirs["top5"]) == (ours["top1"], ours["top5"])
    Image.new("L", (300, 300)).save(tmp_path / "drawn.png")
    assert called("predict", "run.onnx", "drawn.png", cwd=tmp_path).code == 0
