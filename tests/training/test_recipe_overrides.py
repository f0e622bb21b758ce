"""Changes by dotted path, as the command line gives them."""

from __future__ import annotations

import pytest

from cnnspec.diagnostics import EnvironmentFailure, SpecError
from cnnspec.source import Source
from cnnspec.training.recipe.differing import differences
from cnnspec.training.recipe.model import Data
from cnnspec.training.recipe.overrides import Override, with_overrides
from cnnspec.training.recipe.read import load_recipe

BASE = load_recipe(
    """\
name: base
data: images:flowers
epochs: 90
optimizer: {SGD: {lr: 0.1, momentum: 0.9}}
schedule: {CosineAnnealingLR: {eta_min: 0.001}, warmup: {epochs: 5}}
loss: {CrossEntropyLoss: {label_smoothing: 0.1}}
augment: [RandomHorizontalFlip, {RandomCrop: {size: 32, padding: 4}}]
"""
)
OUTPUTS = load_recipe("loss: {logits: {CrossEntropyLoss: {}, weight: 1}, aux: MSELoss}\n")


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("epochs=30", "epochs: 30"),
        ("optimizer.lr=0.01", "optimizer: {SGD: {lr: 0.01, momentum: 0.9}}"),
        ("optimizer.SGD.lr=0.01", "optimizer: {SGD: {lr: 0.01, momentum: 0.9}}"),
        ("optimizer.nesterov=true", "optimizer: {SGD: {lr: 0.1, momentum: 0.9, nesterov: true}}"),
        ("optimizer=AdamW", "optimizer: AdamW"),
        ("optimizer={AdamW: {lr: 1e-3}}", "optimizer: {AdamW: {lr: 1e-3}}"),
        ("schedule=null", "schedule: null"),
        ("schedule.eta_min=0", "schedule: {CosineAnnealingLR: {eta_min: 0}, warmup: 5}"),
        (
            "schedule.warmup.epochs=2",
            "schedule: {CosineAnnealingLR: {eta_min: 0.001}, warmup: {epochs: 2}}",
        ),
        ("schedule.warmup=2", "schedule: {CosineAnnealingLR: {eta_min: 0.001}, warmup: 2}"),
        ("schedule.warmup=null", "schedule: {CosineAnnealingLR: {eta_min: 0.001}}"),
        (
            "schedule.by=step",
            "schedule: {CosineAnnealingLR: {eta_min: 0.001}, warmup: 5, by: step}",
        ),
        ("loss.label_smoothing=0.2", "loss: {CrossEntropyLoss: {label_smoothing: 0.2}}"),
        ("loss.weight=2", "loss: {CrossEntropyLoss: {label_smoothing: 0.1}, weight: 2}"),
        ("loss=MSELoss", "loss: MSELoss"),
        ("data=digits", "data: digits"),
        ("data.path=trees", "data: images:trees"),
        ("data.workers=3", "data: {source: images, path: flowers, workers: 3}"),
        ("augment=[]", "augment: []"),
        (
            "augment.RandomCrop.padding=2",
            "augment: [RandomHorizontalFlip, {RandomCrop: {size: 32, padding: 2}}]",
        ),
        (
            "augment.RandomHorizontalFlip.p=0.1",
            "augment: [{RandomHorizontalFlip: {p: 0.1}}, {RandomCrop: {size: 32, padding: 4}}]",
        ),
        (
            "augment.RandomCrop={size: 28}",
            "augment: [RandomHorizontalFlip, {RandomCrop: {size: 28}}]",
        ),
        ("clip=1", "clip: {norm: 1}"),
        ("clip.value=1", "clip: {value: 1}"),
        ("early_stop.patience=3", "early_stop: {patience: 3}"),
        ("checkpoint.best=top1", "checkpoint: {best: top1}"),
        ("rates.features.*=0.1", "rates: {features.*: 0.1}"),
        ("freeze=[a, b]", "freeze: [a, b]"),
        ("name= spaced out ", "name: spaced out"),
        ("precision=bf16", "precision: bfloat16"),
    ],
)
def test_one_change(given: str, same: str) -> None:
    key = same.partition(":")[0]
    lines = [line for line in BASE.source.text.splitlines() if not line.startswith(f"{key}:")]
    wanted = load_recipe("\n".join([*lines, same]), "base").recipe
    found = with_overrides(BASE, [given]).recipe
    assert found == wanted
    assert found != BASE.recipe


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("loss.logits.label_smoothing=0.1", "`loss.logits.label_smoothing` is not given"),
        ("loss.logits.weight=2", "`loss.logits.weight` is 1.0 in the run and 2.0 now"),
        ("loss.aux.target=image", "`loss.aux.target` is label in the run and image now"),
        ("loss.aux=L1Loss", "`loss.aux` is MSELoss in the run and L1Loss now"),
        ("loss.more=L1Loss", "`loss.more` is not given in the run"),
    ],
)
def test_losses_by_output(given: str, line: str) -> None:
    (found,) = differences(OUTPUTS.recipe, with_overrides(OUTPUTS, [given]).recipe)
    assert found.startswith(line)


@pytest.mark.parametrize("key", ["optimizer.lr=0.2", "loss.label_smoothing=0.2", "clip.norm=1"])
def test_what_the_recipe_leaves_out_starts_from_its_default(key: str) -> None:
    empty = load_recipe("")
    (line,) = differences(empty.recipe, with_overrides(empty, [key]).recipe)
    assert line.endswith(" now")


def test_several_changes_in_order() -> None:
    found = with_overrides(BASE, ["optimizer=Adam", "optimizer.lr=0.5", "epochs=3", "epochs=4"])
    assert found.recipe.optimizer.name == "Adam"
    assert found.recipe.optimizer.arguments == {"lr": 0.5}
    assert found.recipe.epochs == 4
    assert [w.code for w in found.warnings] == ["never-reached"]
    assert with_overrides(BASE, []) is BASE


def test_options_of_their_own() -> None:
    given = [
        Override("epochs", "12", "--epochs"),
        Override("data", "images:a: b {c}", "--data", literal=True),
    ]
    found = with_overrides(BASE, given).recipe
    assert found.epochs == 12
    assert found.data == Data(source="images", path="a: b {c}")


@pytest.mark.parametrize(
    ("given", "place", "code", "help"),
    [
        ("epoch=3", "--with:1:1", "unknown-key", "did you mean `epochs`?"),
        ("epochs=x", "--with:1:8", "argument-type", ""),
        ("epochs.a=3", "--with:1:8", "unknown-key", ""),
        ("optimizer.lrr=3", "--with:1:11", "unknown-argument", "did you mean `lr`?"),
        ("optimizer.lr.x=3", "--with:1:14", "unknown-key", ""),
        ("optimizer.lr=-1", "--with:1:14", "argument-value", ""),
        ("optimizer=SDG", "--with:1:11", "unknown-optimizer", "did you mean `SGD`?"),
        ("schedule.wramup=3", "--with:1:10", "unknown-argument", "it has `T_max`, `eta_min`"),
        ("schedule.warmup.epoch=3", "--with:1:17", "unknown-key", "did you mean `epochs`?"),
        ("schedule.warmup.epochs.x=3", "--with:1:24", "unknown-key", ""),
        ("augment.RandomCorp.size=3", "--with:1:9", "unknown-key", "did you mean `RandomCrop`?"),
        ("data=digts", "--with:1:6", "unknown-source", "did you mean `digits`?"),
        ("data.paht=x", "--with:1:6", "unknown-key", "did you mean `path`?"),
        ("epochs=[", "--with:1:9", "yaml-syntax", None),
        ("epochs=\t", "--with:1:1", "missing-key", ""),
        ("epochs=", "--with:1:1", "missing-key", ""),
        ("epochs=\x01", "--with:1:8", "control-character", None),
        ("clip.norm.x=1", "--with:1:11", "unknown-key", ""),
        ("a..b=1", "--with:1:1", "unknown-key", None),
        ("epochs.=1", "--with:1:8", "unknown-key", ""),
    ],
)
def test_wrong_changes(given: str, place: str, code: str, help: str | None) -> None:
    with pytest.raises(SpecError) as failure:
        with_overrides(BASE, [given])
    (found,) = failure.value.diagnostics
    assert (str(found.span), found.code) == (place, code)
    assert help is None or found.help == help
    assert found.span is not None
    assert found.span.source.text == given


def test_place_of_an_option_of_its_own() -> None:
    class Given(Source):
        pass

    with pytest.raises(SpecError) as failure:
        with_overrides(BASE, [Override("epochs", "ten", "--epochs")], make_source=Given)
    (found,) = failure.value.diagnostics
    assert found.span is not None
    assert isinstance(found.span.source, Given)
    assert (found.span.source.name, found.span.text) == ("--epochs", "ten")


@pytest.mark.parametrize("given", ["", "epochs", "=3", " =3"])
def test_no_change_at_all(given: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        with_overrides(BASE, [given])
    assert failure.value.message.startswith("--with takes a key and a value, not ")
    assert failure.value.help == "for example --with optimizer.lr=0.01"
