"""Weights of another training as a beginning: what comes, what is new, what does not train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from json import dumps
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import cnnspec
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.training.checkpointer import NoCheckpointer
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.distribution.place import find_place, joined
from cnnspec.training.engine import Outcome, train
from cnnspec.training.freezing import freeze
from cnnspec.training.patterns import levels, matches, refuse_unmatched
from cnnspec.training.planning import plan
from cnnspec.training.recipe.model import Call, Data, Recipe
from cnnspec.training.transferring import TransferReport, initialising, weights_in
from cnnspec.training.watching import Silent
from tests.training.made_runs import SMALL, made_run, small, taught


def saved(path: Path, module: nn.Module) -> Path:
    torch.save(module.state_dict(), path)
    return path


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: each.clone() for key, each in module.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    return {key for key in one if torch.equal(one[key], other[key])}


# --------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "key", "meant"),
    [
        ("features", "features.0.weight", True),
        ("features.*", "features.0.weight", True),
        ("features.0", "features.0.weight", True),
        ("features.0", "features.01.weight", False),
        ("feature", "features.0.weight", False),
        ("*.bias", "features.0.bias", True),
        ("*.bias", "features.0.weight", False),
        ("features.[01]", "features.1.weight", True),
        ("features.[01]", "features.2.weight", False),
        ("*", "anything.at.all", True),
        ("Features", "features.0.weight", False),
        ("0.weight", "features.0.weight", False),
    ],
)
def test_a_pattern_means_a_key_or_a_level(pattern: str, key: str, meant: bool) -> None:
    assert matches(pattern, key) is meant


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5))
def test_every_level_means_its_keys(parts: list[str]) -> None:
    key = ".".join(parts)
    assert list(levels(key)) == [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    assert all(matches(level, key) for level in levels(key))


def test_a_pattern_that_means_nothing_is_told() -> None:
    refuse_unmatched("--freeze", ["conv", "*.bias"], ["conv.weight", "conv.bias"])
    with pytest.raises(EnvironmentFailure, match="`cnov` of --freeze matches nothing") as caught:
        refuse_unmatched("--freeze", ["cnov"], ["conv.weight"])
    assert caught.value.help == "did you mean `conv`?"


# --------------------------------------------------------------------------------------- transfer


def test_everything_comes_where_everything_fits(tmp_path: Path) -> None:
    network = small()
    source = network.to_torch(seed=1)
    module = network.to_torch(seed=2)
    report = initialising(network.graph, saved(tmp_path / "w.pt", source))(module)
    assert equal(state(module), state(source)) == set(state(source))
    assert (report.new, report.unused.keys) == ((), ())
    assert report.came.elements == sum(each.numel() for each in source.state_dict().values())


def test_what_is_cut_starts_fresh_although_it_fits(tmp_path: Path) -> None:
    network = small()
    source, fresh = network.to_torch(seed=1), network.to_torch(seed=2)
    module = network.to_torch(seed=2)
    path = saved(tmp_path / "w.pt", source)
    report = initialising(network.graph, path, cut=["head", "hidden.bias"])(module)
    new = {"head.weight", "head.bias", "hidden.bias"}
    assert [(set(part.keys), part.reason) for part in report.new] == [(new, "cut")]
    assert {key for key in new if torch.equal(state(module)[key], state(fresh)[key])} == new
    assert equal(state(module), state(source)) >= set(state(source)) - new
    assert not torch.equal(module.state_dict()["head.weight"], source.state_dict()["head.weight"])


def test_another_number_of_classes_explains_a_new_head(tmp_path: Path) -> None:
    source = small().to_torch(seed=1)
    five = small(classes=5)
    module = five.to_torch(seed=2)
    report = initialising(five.graph, saved(tmp_path / "w.pt", source))(module)
    assert [(part.keys, part.reason) for part in report.new] == [
        (("head.weight", "head.bias"), "5 classes, not 10")
    ]
    assert module.state_dict()["head.weight"].shape == (5, 24)
    assert len(report.came.keys) == len(source.state_dict()) - 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # A layer that is no head.
        ("out_channels: 8", "out_channels: 6", "`conv.weight` is 8x1x3x3 in"),
        # The head has other inputs too: nothing of the old one is of use, and nobody said so.
        ("out_features: 24", "out_features: 12", "`hidden.weight` is 24x128 in"),
        ("name: head", "name: top", "`top.weight` is not in"),
    ],
)
def test_nothing_starts_fresh_unless_somebody_said_so(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    network = cnnspec.load(text=SMALL.replace(old, new))
    path = saved(tmp_path / "w.pt", small().to_torch(seed=1))
    module = network.to_torch(seed=2)
    before = state(module)
    with pytest.raises(EnvironmentFailure) as caught:
        initialising(network.graph, path)(module)
    assert caught.value.message.startswith(said)
    assert "--cut" in caught.value.help or "may be" in caught.value.help
    assert equal(before, state(module)) == set(before)


def test_upper_layers_are_swapped(tmp_path: Path) -> None:
    text = SMALL.replace("name: hidden", "name: mine").replace("name: head", "name: top")
    network = cnnspec.load(text=text)
    path = saved(tmp_path / "w.pt", small().to_torch(seed=1))
    module = network.to_torch(seed=2)
    report = initialising(network.graph, path, cut=["mine", "top"])(module)
    assert set(report.unused.keys) == {
        f"{layer}.{name}" for layer in ("hidden", "head") for name in ("weight", "bias")
    }
    assert {key.partition(".")[0] for key in report.came.keys} == {"conv", "norm"}


def test_a_cut_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pt", small().to_torch(seed=1))
    with pytest.raises(EnvironmentFailure, match="nothing is left to take"):
        initialising(small().graph, path, cut=["*"])(small().to_torch())


def test_weights_of_folders(tmp_path: Path) -> None:
    network = small()
    module = network.to_torch(seed=4)
    run = made_run(tmp_path / "run", network, module)
    network.build(tmp_path / "built", seed=4)
    assert weights_in(run.path) == run.weights
    for folder in ("run", "built"):
        other = network.to_torch(seed=5)
        initialising(network.graph, tmp_path / folder)(other)
        assert equal(state(other), state(module)) == set(state(module))
    unfinished = made_run(tmp_path / "unfinished", network, None)
    with pytest.raises(EnvironmentFailure, match="has no weights") as caught:
        weights_in(unfinished.path)
    assert "training it has not ended" in caught.value.help


# --------------------------------------------------------------------------------------- freezing


def test_what_is_frozen_does_not_change(tmp_path: Path) -> None:
    module = small().to_torch(seed=1)
    frozen = freeze(module, ["conv", "norm"])
    assert set(frozen.keys) == {"conv.weight", "conv.bias", "norm.weight", "norm.bias"}
    before = state(module)
    optimizer = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=0.1)
    for _ in range(3):
        module.train()
        frozen.settle()
        module(torch.randn(8, 1, 8, 8)).sum().backward()
        optimizer.step()
    assert equal(before, state(module)) == {key for key in before if key[:4] in ("conv", "norm")}


def test_without_settling_statistics_move() -> None:
    module = small().to_torch(seed=1)
    freeze(module, ["conv", "norm"])
    before = state(module)
    module.train()(torch.randn(8, 1, 8, 8))
    assert "norm.running_mean" not in equal(before, state(module))


def test_a_norm_whose_bias_alone_is_frozen_still_follows() -> None:
    module = small().to_torch(seed=1)
    assert freeze(module, ["*.bias"]).still == ()


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(EnvironmentFailure, match="nothing trains: `\\*` freeze"):
        freeze(small().to_torch(), ["*"])


# ---------------------------------------------------------------------------------------- reports


def test_the_report_says_where_everything_is_from(tmp_path: Path) -> None:
    network = small(classes=5)
    module = network.to_torch(seed=2)
    path = saved(tmp_path / "w.pt", small().to_torch(seed=1))
    report = initialising(network.graph, path)(module)
    freeze(module, ["conv", "norm"])
    report = report.trained(module)
    assert dumps(report.to_dict())
    assert report.trains is not None
    assert report.frozen is not None
    assert report.trains.elements + report.frozen.elements == sum(
        each.numel() for each in module.parameters()
    )
    first, *lines = report.lines()
    assert first == f"weights of {path}"
    assert [line.split()[0] for line in lines] == ["came", "new", "trains", "frozen"]
    assert lines == [
        "  came    9 tensors          3,209 numbers  conv, norm, hidden",
        "  new     2 tensors            125 numbers  head (5 classes, not 10)",
        "  trains  4 tensors          3,221 numbers  hidden, head",
        "  frozen  4 tensors             96 numbers  conv, norm",
    ]


# ------------------------------------------------------------------------------- the whole recipe


DEEP = """\
cnnspec: 1
name: deep
inputs: {image: [1, 8, 8]}
preprocess: {colour: grey}
layers:
  - Conv2d: {out_channels: 16, kernel_size: 3, padding: 1}
    name: conv
  - ReLU
  - Conv2d: {out_channels: 32, kernel_size: 3, padding: 1}
    name: conv2
  - ReLU
  - MaxPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 5}
    name: head
"""

Init = Callable[[nn.Module], TransferReport]


def class_folders(place: Path, classes: range, count: int) -> Path:
    """Digits as PNG files in folders of their class: some to train with, and some held out."""
    digits = open_dataset(Data(source="digits"), shape=(1, 8, 8), seed=0, classes=10)
    assert digits.held_out is not None
    for part, samples, most in (("train", digits.train, count), ("val", digits.held_out, 25)):
        targets = samples.targets()
        assert targets is not None
        for kind in classes:
            folder = place / part / str(kind)
            folder.mkdir(parents=True)
            for number in [n for n, target in enumerate(targets) if target == kind][:most]:
                samples.read(number, "L")[0].save(folder / f"{number:04}.png")
    return place


def trained(graph: Graph, data: Path, recipe: Recipe, init: Init | None = None) -> Outcome:
    recipe = replace(recipe, data=Data(source="images", path=str(data), workers=0))
    place = find_place("cpu", threads=1)
    with joined(place):
        return train(plan(graph, recipe, place=place, init=init), NoCheckpointer(), Silent())


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 0 to 4."""
    return class_folders(tmp_path_factory.mktemp("low"), range(5), 100)


@pytest.fixture(scope="module")
def high(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 5 to 9, eight of each."""
    return class_folders(tmp_path_factory.mktemp("high"), range(5, 10), 8)


def test_what_was_learned_of_other_classes_helps(tmp_path: Path, low: Path, high: Path) -> None:
    """0 to 4 are learned, then 5 to 9 of eight images each, with the lower layers frozen."""
    graph = cnnspec.load(text=DEEP).graph
    recipe = Recipe(
        name="test", epochs=10, batch_size=32, optimizer=Call("AdamW", {"lr": 0.005}), seed=1
    )
    first = trained(graph, low, recipe)
    path = tmp_path / "low.pt"
    torch.save(dict(first.weights), path)
    short = replace(recipe, epochs=7, batch_size=20, optimizer=Call("AdamW", {"lr": 0.003}))
    scratch = trained(graph, high, short)
    moved = trained(
        graph,
        high,
        replace(short, freeze=("conv*",)),
        initialising(graph, path, cut=["head"]),
    )
    assert first.figures is not None
    assert scratch.figures is not None
    assert moved.figures is not None
    assert first.figures.held_out["top1"] > 0.9
    assert moved.figures.held_out["loss"] < 0.9 * scratch.figures.held_out["loss"]
    lower = {key for key in first.weights if key.startswith("conv")}
    assert len(lower) == 4
    assert equal(first.weights, moved.weights) == lower


def test_frozen_norms_stay_as_they_came(tmp_path: Path, high: Path) -> None:
    network = small(classes=5)
    source = taught(small(), steps=3)
    recipe = Recipe(name="test", epochs=1, batch_size=20, freeze=("conv", "norm"))
    init = initialising(network.graph, saved(tmp_path / "w.pt", source))
    found = trained(network.graph, high, recipe, init)
    same = equal(found.weights, source.state_dict())
    assert same == {key for key in found.weights if key.startswith(("conv", "norm"))}
    assert len(same) == 7
