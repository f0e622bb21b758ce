"""Recipes as they are read: defaults, every key, short forms, files and bundled ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cnnspec.diagnostics import EnvironmentFailure, SpecError
from cnnspec.training.recipe.known import SOURCES
from cnnspec.training.recipe.model import (
    Call,
    Checkpointing,
    Clip,
    Data,
    EarlyStop,
    OutputLoss,
    Recipe,
    Schedule,
    Warmup,
)
from cnnspec.training.recipe.read import (
    bundled_recipes,
    data_text,
    default_recipe,
    load_recipe,
    parse_data,
    parse_recipe,
    read_recipe,
)

WHOLE = """\
name: whole
data: {source: images, path: flowers, train: train, held_out: val, corrupt: skip, workers: 4}
epochs: 30
batch_size: 256
accumulate: 4
optimizer: {AdamW: {lr: 1e-3, betas: [0.9, 0.98], weight_decay: 0.05}}
decay: weights
rates:
  features.*: 0.1
  "*.bias": 2
schedule:
  MultiStepLR: {milestones: [10, 20], gamma: .1}
  by: epoch
  warmup: {epochs: 1.5, start: 0}
loss:
  logits: {CrossEntropyLoss: {label_smoothing: 0.1}}
  aux1: {CrossEntropyLoss: , weight: 0.3}
  picture: {MSELoss: {}, target: image, weight: 2}
augment:
  - RandomCrop: {size: [32, 48], padding: 4}
  - RandomHorizontalFlip
  - ColorJitter: {brightness: 0.4, hue: [-0.1, 0.1]}
  - RandomErasing: {value: random}
ema: 0.999
clip: {norm: 1.0}
precision: bf16
channels_last: true
compile: true
device: cuda
sync_batch_norm: true
freeze: features.0
early_stop: {patience: 5, metric: top1, least: 0.001}
checkpoint: {epochs: 2, steps: 500, best: top1}
deterministic: false
seed: 7
"""


def test_every_key() -> None:
    assert parse_recipe(WHOLE) == Recipe(
        name="whole",
        data=Data(
            source="images",
            path="flowers",
            train="train",
            held_out="val",
            corrupt="skip",
            workers=4,
        ),
        epochs=30,
        batch_size=256,
        accumulate=4,
        optimizer=Call("AdamW", {"lr": 0.001, "betas": (0.9, 0.98), "weight_decay": 0.05}),
        decay="weights",
        rates={"features.*": 0.1, "*.bias": 2.0},
        schedule=Schedule(
            scheduler=Call("MultiStepLR", {"milestones": (10, 20), "gamma": 0.1}),
            warmup=Warmup(epochs=1.5, start=0.0),
        ),
        loss={
            "logits": OutputLoss(loss=Call("CrossEntropyLoss", {"label_smoothing": 0.1})),
            "aux1": OutputLoss(loss=Call("CrossEntropyLoss"), weight=0.3),
            "picture": OutputLoss(loss=Call("MSELoss"), weight=2.0, target="image"),
        },
        augment=(
            Call("RandomCrop", {"size": (32, 48), "padding": 4}),
            Call("RandomHorizontalFlip"),
            Call("ColorJitter", {"brightness": 0.4, "hue": (-0.1, 0.1)}),
            Call("RandomErasing", {"value": "random"}),
        ),
        ema=0.999,
        clip=Clip(norm=1.0),
        precision="bfloat16",
        channels_last=True,
        compile=True,
        device="cuda",
        sync_batch_norm=True,
        freeze=("features.0",),
        early_stop=EarlyStop(patience=5, metric="top1", least=0.001),
        checkpoint=Checkpointing(epochs=2, steps=500, best="top1"),
        deterministic=False,
        seed=7,
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "{}", "---\n", "\ufeff"])
def test_everything_has_a_default(text: str) -> None:
    assert parse_recipe(text, "plain.yaml") == Recipe(name="plain")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("optimizer: Adam", "optimizer: {Adam: {}}"),
        ("optimizer: Adam", "optimizer:\n  Adam:\n"),
        ("schedule: CosineAnnealingLR", "schedule: {CosineAnnealingLR: {}, by: epoch}"),
        ("schedule: {OneCycleLR: {max_lr: 1}}", "schedule: {OneCycleLR: {max_lr: 1}, by: step}"),
        ("schedule: {warmup: 5}", "schedule: {warmup: {epochs: 5, start: 0.01}}"),
        ("schedule: null", "schedule: ~"),
        ("loss: MSELoss", "loss: {MSELoss: {}, weight: 1, target: label}"),
        ("loss: {a: L1Loss}", "loss: {a: {L1Loss: {}}}"),
        ("augment: PCAColor", "augment: [{PCAColor: {}}]"),
        ("augment: {PCAColor: {std: 1}}", "augment: [{PCAColor: {std: 1.0}}]"),
        ("augment: null", "augment: []"),
        ("data: digits", "data: {source: digits}"),
        ("data: hf:cifar10", "data: {source: huggingface, path: cifar10}"),
        ("data: images:my/photos", "data: {source: images, path: my/photos}"),
        ("data: my/photos", "data: {source: images, path: my/photos}"),
        ("data: mnist:here", "data: {source: mnist, path: here}"),
        ("data: {source: hf, path: a/b}", "data: {source: huggingface, path: a/b}"),
        ("clip: 2", "clip: {norm: 2.0, value: null}"),
        ("early_stop: 3", "early_stop: {patience: 3, metric: loss}"),
        ("freeze: a.*", "freeze: [a.*]"),
        ("precision: fp16", "precision: float16"),
        ("rates: null", "rates: {}"),
        ("name: 12", 'name: "12"'),
    ],
)
def test_short_forms(short: str, long: str) -> None:
    assert parse_recipe(short) == parse_recipe(long)


def test_losses_of_outputs_that_are_called_like_keys() -> None:
    recipe = parse_recipe("loss: {weight: MSELoss, target: {L1Loss: {}, weight: 2}}")
    assert list(recipe.loss) == ["weight", "target"]
    assert recipe.loss["target"].weight == 2


def test_anchors() -> None:
    recipe = parse_recipe("loss: {a: &l {MSELoss: {}}, b: *l}")
    assert recipe.loss["a"] == recipe.loss["b"]


# ---------------------------------------------------------------------------------- bundled ones


@pytest.mark.parametrize("name", bundled_recipes())
def test_bundled_recipes(name: str) -> None:
    loaded = read_recipe(name)
    assert loaded.warnings == ()
    assert loaded.recipe.name == name
    assert loaded.recipe.data is not None
    assert loaded.source.text.startswith("# ")


def test_bundled_recipes_say_what_papers_say() -> None:
    recipes = {name: read_recipe(name).recipe for name in bundled_recipes()}
    assert set(recipes) == {
        "alexnet",
        "convnetjs-cifar10",
        "digits",
        "lenet5-mnist",
        "resnet-cifar",
        "resnet50-imagenet",
    }
    alexnet = recipes["alexnet"]
    assert alexnet.optimizer.name == "SGD"
    assert dict(alexnet.optimizer.arguments) == {
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 0.0005,
    }
    assert alexnet.batch_size == 128
    assert "PCAColor" in [call.name for call in alexnet.augment]
    assert recipes["convnetjs-cifar10"].optimizer.name == "Adadelta"
    assert recipes["convnetjs-cifar10"].augment[0] == Call("RandomShift", {"pixels": 2})
    # 64,000 steps, the rate divided after 32,000 and 48,000.
    cifar = recipes["resnet-cifar"]
    steps = -(-50_000 // cifar.batch_size)
    assert cifar.schedule is not None
    assert cifar.schedule.scheduler is not None
    milestones = cifar.schedule.scheduler.arguments["milestones"]
    assert [round(steps * epochs, -3) for epochs in (*milestones, cifar.epochs)] == [
        32_000,
        48_000,
        64_000,
    ]
    imagenet = recipes["resnet50-imagenet"]
    assert (imagenet.epochs, imagenet.batch_size, imagenet.precision) == (90, 256, "bfloat16")
    assert imagenet.decay == "weights"
    assert imagenet.channels_last


def test_default_recipes() -> None:
    assert default_recipe("digits").recipe.name == "digits"
    assert default_recipe("mnist").recipe.name == "lenet5-mnist"
    assert default_recipe("cifar100").recipe.name == "resnet-cifar"
    for source in (None, "images", "huggingface", "random"):
        assert default_recipe(source).recipe == Recipe(name="default")


# ----------------------------------------------------------------------------------------- files


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "fast.yaml"
    path.write_text("epochs: 3\n", encoding="utf-8")
    loaded = read_recipe(path)
    assert loaded.recipe == Recipe(name="fast", epochs=3)
    assert loaded.source.name == str(path)


def test_a_file_comes_before_a_bundled_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").write_text("epochs: 3\n", encoding="utf-8")
    assert read_recipe("digits").recipe == Recipe(name="digits", epochs=3)


@pytest.mark.parametrize(
    ("name", "message", "help"),
    [
        ("digit", "there is no recipe `digit`", "did you mean `digits`?"),
        ("mine.yaml", "there is no file `mine.yaml`", ""),
        ("some/where", "there is no file `some/where`", ""),
        (".", "`.` is a folder", "name a recipe in it"),
    ],
)
def test_no_such_recipe(name: str, message: str, help: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        read_recipe(name)
    assert failure.value.message == message
    assert failure.value.help == help


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"epochs: \xff\n")
    with pytest.raises(SpecError) as failure:
        read_recipe(path)
    assert [found.code for found in failure.value.diagnostics] == ["not-text"]


# -------------------------------------------------------------------------------------- `--data`


@pytest.mark.parametrize("source", SOURCES)
def test_data_by_source(source: str) -> None:
    assert parse_data(source) == Data(source=source)


def test_data_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my: photos").mkdir()
    (tmp_path / "digits").mkdir()
    assert data_text("my: photos") == "images:my: photos"
    assert parse_data("my: photos") == Data(source="images", path="my: photos")
    assert parse_data("digits") == Data(source="digits")
    assert parse_data(r"C:\photos") == Data(source="images", path=r"C:\photos")
    assert parse_data("..") == Data(source="images", path="..")


@pytest.mark.parametrize("text", ["", "digts", "images:", "null", "ftp:x", "{source: digits}"])
def test_data_that_is_none(text: str) -> None:
    with pytest.raises(SpecError) as failure:
        parse_data(text)
    (found,) = failure.value.diagnostics
    assert str(found.span) == "--data:1:1"


def test_warnings_are_kept() -> None:
    loaded = load_recipe("epochs: 5\nschedule: {StepLR: {step_size: 30}}\n", "short.yaml")
    assert [(str(found.span), found.code) for found in loaded.warnings] == [
        ("short.yaml:2:32", "never-reached")
    ]


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys; from cnnspec.training.recipe import read, overrides, write, differing, schema;"
        "read.read_recipe('digits'); schema.recipe_schema();"
        "print({'torch', 'numpy', 'onnx', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
