"""What a run goes on with, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.api import Network
from cnnspec.frontend.load import load_text
from cnnspec.report.flat import FlatNetwork
from cnnspec.training.recipe.model import Data, Recipe
from cnnspec.training.recipe.overrides import with_overrides
from cnnspec.training.recipe.read import read_recipe
from cnnspec.training.runs.resuming import RunChanged, refuse_changes, spec_differences
from cnnspec.training.runs.run_folder import RunFolder, claimed

SPEC = """\
cnnspec: 1
name: net
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - ReLU
  - Flatten
  - Linear: {out_features: 10}
"""
FACTS: Mapping[str, Any] = {
    "fingerprint": "ab",
    "world": 1,
    "threads": 2,
    "device": "cpu",
    "versions": {"torch": "2.13.0", "python": "3.11"},
}


def flat(text: str) -> str:
    return FlatNetwork(Network(load_text(text, "net.yaml")).graph).spec()


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe("digits").recipe


@pytest.fixture
def run(tmp_path: Path, recipe: Recipe) -> RunFolder:
    with claimed(tmp_path / "run"):
        return RunFolder.create(tmp_path / "run", spec=flat(SPEC), recipe=recipe, facts=FACTS)


def test_the_same_goes_on(run: RunFolder, recipe: Recipe) -> None:
    assert refuse_changes(run, spec=flat(SPEC), recipe=recipe, facts=FACTS) == ()
    opened = RunFolder.open(run.path)
    assert refuse_changes(opened, spec=flat(SPEC), recipe=recipe, facts=FACTS) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe: replace(recipe, name="other"),
        lambda recipe: replace(recipe, data=replace(recipe.data, workers=7)),
        lambda recipe: replace(recipe, data=replace(recipe.data, path="/elsewhere")),
        lambda recipe: replace(recipe, checkpoint=replace(recipe.checkpoint, epochs=3, steps=5)),
    ],
)
def test_what_cannot_change_a_weight_may_change(
    change: Callable[[Recipe], Recipe], run: RunFolder, recipe: Recipe
) -> None:
    assert refuse_changes(run, spec=flat(SPEC), recipe=change(recipe), facts=FACTS) == ()


@pytest.mark.parametrize(
    "option",
    [
        "epochs=99",
        "batch_size=7",
        "seed=5",
        "optimizer.lr=0.77",
        "optimizer=RMSprop",
        "precision=bfloat16",
        "device=cuda",
        "compile=true",
        "clip.norm=2.5",
        "ema=0.99",
        "augment=[{RandomErasing: {p: 0.1}}]",
        "data.hold_out=0.35",
        "data.samples=100",
        "checkpoint.best=loss",
    ],
)
def test_a_changed_recipe_is_refused_with_the_difference(option: str, run: RunFolder) -> None:
    changed = with_overrides(read_recipe("digits"), [option]).recipe
    with pytest.raises(RunChanged) as failure:
        refuse_changes(run, spec=flat(SPEC), recipe=changed, facts=FACTS)
    key = option.partition("=")[0].partition(".")[0]
    assert f"`{key}" in failure.value.message
    assert failure.value.message.startswith(f"`{run.path}` was begun with something else")
    assert all(each in failure.value.message for each in failure.value.differences)
    assert "--init-from" in failure.value.help


def test_other_samples_are_refused(run: RunFolder, recipe: Recipe) -> None:
    with pytest.raises(RunChanged, match="the samples of `digits` are not those of the run"):
        refuse_changes(run, spec=flat(SPEC), recipe=recipe, facts={**FACTS, "fingerprint": "cd"})
    other = replace(recipe, data=Data(source="mnist"))
    with pytest.raises(RunChanged, match=r"`data\.source`.*the samples of `mnist`"):
        refuse_changes(run, spec=flat(SPEC), recipe=other, facts={**FACTS, "fingerprint": "cd"})


def test_all_differences_are_told(run: RunFolder) -> None:
    many = ["epochs=99", "seed=9", "batch_size=3", "ema=0.5", "precision=bfloat16", "clip.norm=3"]
    changed = with_overrides(read_recipe("digits"), many).recipe
    spec = flat(SPEC.replace("ReLU", "Tanh"))
    with pytest.raises(RunChanged) as failure:
        refuse_changes(run, spec=spec, recipe=changed, facts={})
    assert len(failure.value.differences) == 7
    assert failure.value.message.endswith("; and 1 more")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"world": 2}, "1 process, now 2"),
        ({"threads": 1}, "2 threads, now 1"),
        ({"device": "cuda (NVIDIA H100)"}, "the device `cpu`, now `cuda (NVIDIA H100)`"),
        ({"versions": {"torch": "2.14.0", "python": "3.11"}}, "torch 2.13.0, now 2.14.0"),
    ],
)
def test_what_changes_rounding_is_said(
    changed: Mapping[str, Any], said: str, run: RunFolder, recipe: Recipe
) -> None:
    notes = refuse_changes(run, spec=flat(SPEC), recipe=recipe, facts={**FACTS, **changed})
    assert notes == (f"the run had {said}: it goes on equal up to rounding, not to the bit",)


# ------------------------------------------------------------------------------------ specs


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ReLU", "Tanh", ["`ReLU:` of the spec is `Tanh:` now"]),
        (
            "out_channels: 4",
            "out_channels: 5",
            [
                "`Conv2d: {out_channels: 4, kernel_size: 3}` of the spec is "
                "`Conv2d: {out_channels: 5, kernel_size: 3}` now"
            ],
        ),
        ("name: net", "name: other", ["`name: net` of the spec is `name: other` now"]),
        (
            "  - Flatten\n",
            "  - Flatten\n  - Dropout: {p: 0.3}\n    name: drop\n",
            ["`Dropout: {p: 0.3}` of the spec is new", "`name: drop` of the spec is new"],
        ),
    ],
)
def test_differences_of_specs(old: str, new: str, said: list[str]) -> None:
    text = SPEC.replace("10}", "10}\n    name: fc")
    found = spec_differences(flat(text), flat(text.replace(old, new)))
    assert found == said


def test_comments_and_places_do_not_count() -> None:
    moved = "# a comment\n\n" + SPEC.replace("  - ReLU", "\n  - ReLU  # here")
    assert flat(moved) != flat(SPEC)
    assert spec_differences(flat(SPEC), flat(moved)) == []


def test_text_that_looks_like_a_comment_counts() -> None:
    label = SPEC.replace("layers:", 'labels: ["a  # b", c, d, e, f, g, h, i, j, k]\nlayers:')
    (said,) = spec_differences(flat(label), flat(label.replace("# b", "# B")))
    assert said.startswith("`labels: ")


def test_a_long_network_of_another_depth() -> None:
    deep = SPEC.replace("  - ReLU\n", "  - ReLU\n" * 600)
    found = spec_differences(flat(SPEC), flat(deep))
    assert found[1] == "more of the network follows"


@given(
    st.lists(st.sampled_from(("ReLU", "Tanh", "Sigmoid")), min_size=1, max_size=6),
    st.lists(st.sampled_from(("ReLU", "Tanh", "Sigmoid")), min_size=1, max_size=6),
)
def test_differences_are_there_where_networks_differ(old: list[str], new: list[str]) -> None:
    def text(layers: list[str]) -> str:
        return "cnnspec: 1\nname: a\nlayers:\n" + "".join(
            f"  - {name}:  # {old}\n" for name in layers
        )

    assert (spec_differences(text(old), text(new)) == []) == (old == new)
