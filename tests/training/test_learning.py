"""That networks learn what they are given, and only that: proofs that luck does not pass.

Bounds on accuracies are chances of guessing as well: sums of the binomial distribution.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import comb, log
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from cnnspec.api import load
from cnnspec.training import planning
from cnnspec.training.data.digits_source import open_digits
from cnnspec.training.data.in_memory import ArraySamples
from cnnspec.training.data.samples import Dataset
from cnnspec.training.engine import Outcome
from cnnspec.training.recipe.known import OPTIMIZERS
from cnnspec.training.recipe.read import parse_recipe
from tests.cli.inside import called
from tests.training.runs import Noting, run

SPEC = """\
cnnspec: 1
name: learner
params:
  classes: int = 10
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 16, kernel_size: 3, padding: 1}
  - ReLU
  - MaxPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 128}
  - ReLU:
    name: features
  - Linear: {out_features: classes}
    name: head
"""
ZERO = SPEC + "    init: {weight: 0, bias: 0}\n"
ASIDE = (
    ZERO
    + """\
  - Linear: {out_features: 10}
    name: aside
    from: features
    init: {weight: 0, bias: 0}
outputs:
  main: head
  extra: {from: aside, training: true, weight: 0.4}
"""
)

DIGITS = "data: digits\nbatch_size: 64\noptimizer: {AdamW: {lr: 0.01}}\n"


def luck(right: float, count: int, chance: float) -> float:
    """How likely it is to guess a share of `right` or more of `count`, each with `chance`."""
    return sum(
        comb(count, k) * chance**k * (1 - chance) ** (count - k)
        for k in range(round(right * count), count + 1)
    )


def trained(spec: str, recipe: str, **params: object) -> tuple[Outcome, Noting, dict[str, float]]:
    """A run, what it noted, and its last figures of held-out samples."""
    outcome, noted, _ = run(load(text=spec, params=params).graph, parse_recipe(recipe))
    assert outcome.figures is not None
    return outcome, noted, dict(outcome.figures.held_out)


def given(monkeypatch: pytest.MonkeyPatch, train: ArraySamples, held_out: ArraySamples) -> None:
    """Have the next runs find these samples."""
    found = Dataset("given", train, held_out, tuple("0123456789"), "", "")
    monkeypatch.setattr(planning, "open_dataset", lambda *_, **__: found)


def digits() -> tuple[ArraySamples, ArraySamples]:
    """To train with, and held out."""
    found = open_digits()
    assert isinstance(found.train, ArraySamples)
    assert isinstance(found.held_out, ArraySamples)
    return found.train, found.held_out


# ------------------------------------------------------------------------------------- the start


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_first_loss_of_a_head_of_zeros_is_the_logarithm_of_the_classes(classes: int) -> None:
    recipe = "data: {source: random, samples: 128, hold_out: 0}\nepochs: 1\n"
    _, noted, _ = trained(ZERO, recipe, classes=classes)
    assert noted.losses[0] == pytest.approx(log(classes), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_the_first_loss_is_close_to_the_logarithm_of_the_classes(classes: int) -> None:
    recipe = "data: {source: random, samples: 128, hold_out: 0}\nepochs: 1\n"
    _, noted, _ = trained(SPEC, recipe, classes=classes)
    assert noted.losses[0] == pytest.approx(log(classes), abs=0.1)


# ------------------------------------------------------------------------------------ by heart


def test_a_few_samples_are_learned_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    few = digits()[0].taken(np.arange(64))
    given(monkeypatch, few, few)
    _, _, found = trained(SPEC, DIGITS + "epochs: 60\n")
    assert found["top1"] == 1.0
    assert found["loss"] < 1e-3


def test_classes_at_random_are_learned_by_heart_and_tell_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = DIGITS + "epochs: 120\n"
    train, held_out = digits()
    train = train.taken(np.arange(256))
    shuffled = np.random.default_rng(7).permutation(train.classes)
    false = ArraySamples(train.images, shuffled, train.file, train.places)

    given(monkeypatch, false, held_out)
    outcome, _, found = trained(SPEC, recipe)
    assert outcome.figures is not None
    assert outcome.figures.train_top1 == 1.0
    # No better than guessing, by far: the same with true classes is.
    assert luck(found["top1"], 360, 0.1) > 1e-3
    given(monkeypatch, train, held_out)
    _, _, found = trained(SPEC, recipe.replace("120", "10"))
    assert luck(found["top1"], 360, 0.1) < 1e-100


# -------------------------------------------------------------------------- losses and outputs


@pytest.mark.parametrize(
    "loss",
    [
        "MultiMarginLoss",
        "{MultiMarginLoss: {p: 2, margin: 0.5}}",
        "BCEWithLogitsLoss",
        "MSELoss",
        "{CrossEntropyLoss: {label_smoothing: 0.1}}",
    ],
)
def test_other_losses_learn(loss: str) -> None:
    _, _, found = trained(SPEC, DIGITS + f"epochs: 4\nloss: {loss}\n")
    assert found["top1"] > 0.8, found


def test_an_autoencoder_learns_to_restore() -> None:
    spec = """\
cnnspec: 1
name: restorer
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 4, stride: 4}
  - ReLU
  - ConvTranspose2d: {out_channels: 1, kernel_size: 4, stride: 4}
  - Sigmoid:
    name: restored
"""
    loss = "loss: {output: {MSELoss: {}, target: image}}\n"
    _, _, found = trained(spec, DIGITS + "epochs: 10\n" + loss)
    assert set(found) == {"loss"}
    train, held_out = digits()
    # What the mean image would do, which knows nothing of the one that it restores.
    apart = (held_out.images / 255 - train.images.mean(axis=0) / 255) ** 2
    assert found["loss"] < 0.5 * apart.mean()


def test_a_map_of_classes_is_learned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    seen = []
    for number in range(40):
        mask = np.zeros((16, 16), np.uint8)
        top, left = random.integers(1, 8, 2)
        mask[top : top + 7, left : left + 7] = 1
        pixels = np.clip(90 + 70 * mask + random.normal(0, 40, mask.shape), 0, 255)
        seen += [((pixels > threshold) == mask) for threshold in (110, 120, 125, 130, 140)]
        mask[:, 0] = 255
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    spec = """\
cnnspec: 1
name: segmenter
inputs: {image: [1, 16, 16]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 5, padding: 2}
  - ReLU
  - Conv2d: {out_channels: 2, kernel_size: 3, padding: 1}
"""
    data = f"data: {{source: images, path: '{tmp_path}', masks: masks}}\nbatch_size: 8\n"
    _, _, found = trained(spec, data + "epochs: 20\noptimizer: {AdamW: {lr: 0.01}}\n")
    # Noise hides the square from single pixels.
    by_threshold = np.reshape(seen, (40, 5, -1)).mean(axis=(0, 2)).max()
    assert 0.75 < by_threshold < 0.9 < found["top1"]
    assert found["mean_iou"] > 0.7


def test_an_output_for_training_alone_counts_by_its_weight() -> None:
    one_step = "data: digits\nepochs: 1\nbatch_size: 1437\noptimizer: {SGD: {lr: 0.1}}\n"
    half = ASIDE.replace("weight: 0.4", "weight: 0.2")
    without = "loss: {main: CrossEntropyLoss}\n"
    whole, noted, found = trained(ASIDE, one_step)
    halved, _, _ = trained(half, one_step)
    alone, alone_noted, _ = trained(ASIDE, one_step + without)
    assert noted.losses == [pytest.approx(1.4 * log(10), abs=1e-5)]
    assert alone_noted.losses == [pytest.approx(log(10), abs=1e-6)]
    # What is measured is the output that inference has.
    assert found["loss"] < log(10)
    torch.testing.assert_close(whole.weights["aside.weight"], 2 * halved.weights["aside.weight"])
    torch.testing.assert_close(whole.weights["head.weight"], alone.weights["head.weight"])
    assert torch.count_nonzero(whole.weights["aside.weight"])
    assert not torch.count_nonzero(alone.weights["aside.weight"])


# ---------------------------------------------------------------------------------- optimisers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_goes_down(name: str) -> None:
    recipe = f"data: digits\nepochs: 6\nbatch_size: 1437\noptimizer: {name}\n"
    outcome, noted, _ = trained(SPEC, recipe)
    assert outcome.steps == 6
    assert noted.losses[5] < noted.losses[0]


# ----------------------------------------------------------------- from the command to the drawing

Stroke = tuple[str, tuple[float, ...]]

DRAWINGS: Mapping[str, tuple[Stroke, ...]] = {
    "zero": (("ellipse", (7, 3, 25, 29)),),
    "one": (("line", (16, 4, 16, 28)),),
    "two": (("arc", (9, 4, 23, 16, 180, 30)), ("line", (22, 13, 10, 27, 24, 27))),
    "three": (("arc", (9, 4, 22, 16, 200, 90)), ("arc", (9, 15, 23, 28, 270, 160))),
    "four": (("line", (15, 3, 7, 18, 24, 18)), ("line", (17, 13, 17, 29))),
    "five": (("line", (22, 5, 11, 5, 11, 14)), ("arc", (8, 13, 23, 28, 250, 150))),
    "six": (("line", (18, 3, 11, 13, 9, 20)), ("ellipse", (8, 15, 23, 29))),
    "seven": (("line", (8, 5, 24, 5, 14, 28)), ("line", (10, 17, 23, 17))),
    "eight": (("ellipse", (9, 2, 22, 15)), ("ellipse", (8, 14, 23, 30))),
    "nine": (("ellipse", (8, 3, 22, 17)), ("line", (21, 10, 20, 19, 15, 29))),
}
"""Digits on 32x32: ellipses and arcs by their boxes (and degrees), lines by their points."""


def drawn(strokes: tuple[Stroke, ...]) -> Image.Image:
    image = Image.new("L", (32, 32))
    pen = ImageDraw.Draw(image)
    for kind, numbers in strokes:
        if kind == "ellipse":
            pen.ellipse(numbers, outline=255, width=4)
        elif kind == "arc":
            pen.arc(numbers[:4], numbers[4], numbers[5], fill=255, width=4)
        else:
            pen.line(numbers, fill=255, width=4, joint="curve")
    return image


def done(*arguments: str) -> str:
    result = called(*arguments)
    assert result.code == 0, result.err
    return result.out


def measured(*arguments: str) -> dict[str, float]:
    found: dict[str, float] = json.loads(
        done("eval", *arguments, "--data", "digits", "--format", "json")
    )
    return found


def prove_the_way(folder: Path, least: float, *options: str) -> None:
    """Train LeNet-5 on digits, evaluate, export and evaluate again, and read drawn digits."""
    trained_run, exported = str(folder / "run"), str(folder / "lenet5.onnx")
    done("train", "lenet5", "--data", "digits", "--threads", "1", "-o", trained_run, *options)
    done("export", trained_run, "-o", exported)
    by_torch, by_onnx = measured(trained_run), measured(exported)
    assert by_torch["samples"] == by_onnx["samples"] == 360
    assert by_torch["top1"] >= least
    assert by_onnx["top1"] == by_torch["top1"]
    assert by_onnx["top5"] == by_torch["top5"]
    assert by_onnx["loss"] == pytest.approx(by_torch["loss"], rel=1e-4)
    rows = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["held_out_top1"] == by_torch["top1"]

    from_library = folder / "library.onnx"
    load("lenet5").to_onnx(from_library, folder / "run" / "model.safetensors")
    assert measured(str(from_library))["top1"] == by_torch["top1"]

    for name, strokes in DRAWINGS.items():
        drawn(strokes).save(folder / f"{name}.png")
    images = [str(folder / f"{name}.png") for name in DRAWINGS]
    found = json.loads(done("predict", exported, *images, "--format", "json"))
    read = [image["top"][0]["label"] for image in found["predictions"]]
    right = [said == name for said, name in zip(read, DRAWINGS, strict=True)]
    assert luck(sum(right) / 10, 10, 0.1) < 1e-6


def test_lenet_learns_digits_and_reads_drawn_ones(tmp_path: Path) -> None:
    # Other processors round otherwise: seeds 0 to 5 end at 98.06 to 98.89 %.
    prove_the_way(tmp_path, 0.97, "--epochs", "18")


@pytest.mark.slow
def test_the_recipe_of_digits_holds_what_it_says(tmp_path: Path) -> None:
    # Seeds 0 to 7: 98.89 to 99.44 %.
    prove_the_way(tmp_path, 0.98)
