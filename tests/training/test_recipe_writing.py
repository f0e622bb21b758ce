"""Recipes written, read back, and compared."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cnnspec.frontend.schema import to_json
from cnnspec.training.recipe.differing import differences
from cnnspec.training.recipe.model import (
    Call,
    Checkpointing,
    Clip,
    Data,
    OutputLoss,
    Recipe,
    Schedule,
    Warmup,
)
from cnnspec.training.recipe.read import load_recipe, parse_recipe
from cnnspec.training.recipe.schema import recipe_schema
from cnnspec.training.recipe.write import to_yaml
from tests.training.recipe_strategies import recipes

VALIDATOR = Draft7Validator(recipe_schema())
BASE = Recipe(name="base", data=Data(source="digits"))
SLOW = [HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(recipes())
def test_round_trip(recipe: Recipe) -> None:
    text = to_yaml(recipe)
    loaded = load_recipe(text)
    assert loaded.recipe == recipe
    assert to_yaml(loaded.recipe) == text
    assert differences(recipe, loaded.recipe) == []
    assert [error.message for error in VALIDATOR.iter_errors(to_json(loaded.root))] == []


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(recipes(), recipes())
def test_whatever_differs_is_said(one: Recipe, other: Recipe) -> None:
    lines = differences(one, other)
    assert bool(lines) == (one != other)
    assert all(line.startswith("`") and line.endswith(" now") for line in lines)
    assert len(lines) == len(differences(other, one))


@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
@given(recipes())
def test_recipes_travel_between_processes(recipe: Recipe) -> None:
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert json.loads(json.dumps(asdict(recipe)))["seed"] == recipe.seed


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_any_name(name: str) -> None:
    assert parse_recipe(to_yaml(replace(BASE, name=name))).name == name


@pytest.mark.parametrize("word", ["null", "true", "12", "1e3", "~", "", ".inf", "a: b", "- a", "#"])
def test_text_that_yaml_takes_for_something_else(word: str) -> None:
    recipe = replace(BASE, name=word, rates={word or "x": 1.0}, freeze=(word or "x",))
    assert parse_recipe(to_yaml(recipe)) == recipe


def test_every_key_is_written() -> None:
    text = to_yaml(Recipe(name="plain"))
    assert text == (
        "name: plain\ndata: null\nepochs: 10\nbatch_size: 64\naccumulate: 1\n"
        "optimizer: {SGD: {lr: 0.1, momentum: 0.9}}\ndecay: all\nrates: {}\nschedule: null\n"
        "loss:\n  CrossEntropyLoss: {}\n  weight: 1.0\n  target: label\naugment: []\nmixup: 0.0\n"
        "cutmix: 0.0\nema: null\nclip: null\nprecision: float32\nchannels_last: false\n"
        "compile: false\ndevice: auto\nsync_batch_norm: false\nfreeze: []\nearly_stop: null\n"
        "checkpoint: {epochs: 1, steps: null, best: null}\ndeterministic: true\nseed: 0\n"
    )


def changed(**keys: object) -> Recipe:
    return replace(BASE, **keys)


@pytest.mark.parametrize(
    ("run", "now", "lines"),
    [
        (BASE, changed(epochs=20), ["`epochs` is 10 in the run and 20 now"]),
        (
            BASE,
            changed(optimizer=Call("SGD", {"lr": 0.01, "nesterov": True})),
            [
                "`optimizer.lr` is 0.1 in the run and 0.01 now",
                "`optimizer.momentum` is 0.9 in the run and not given now",
                "`optimizer.nesterov` is not given in the run and true now",
            ],
        ),
        (
            BASE,
            changed(optimizer=Call("Adam")),
            ["`optimizer` is SGD {lr: 0.1, momentum: 0.9} in the run and Adam now"],
        ),
        (
            changed(schedule=Schedule(scheduler=Call("StepLR", {"step_size": 3}))),
            changed(
                schedule=Schedule(
                    scheduler=Call("StepLR", {"step_size": 4}), warmup=Warmup(epochs=2.0)
                )
            ),
            [
                "`schedule.step_size` is 3 in the run and 4 now",
                "`schedule.warmup` is nothing in the run and {epochs: 2.0, start: 0.01} now",
            ],
        ),
        (
            BASE,
            changed(loss={"": OutputLoss(loss=Call("CrossEntropyLoss"), weight=2.0)}),
            ["`loss.weight` is 1.0 in the run and 2.0 now"],
        ),
        (
            changed(augment=(Call("RandomCrop", {"size": 32}), Call("PCAColor"))),
            changed(augment=(Call("RandomCrop", {"size": 28}), Call("PCAColor"))),
            ["`augment.RandomCrop.size` is 32 in the run and 28 now"],
        ),
        (
            changed(augment=(Call("PCAColor"),)),
            BASE,
            ["`augment` is [PCAColor] in the run and [] now"],
        ),
        (
            BASE,
            changed(data=Data(source="digits", hold_out=0.1)),
            ["`data.hold_out` is 0.2 in the run and 0.1 now"],
        ),
        (
            BASE,
            changed(clip=Clip(norm=1.0), checkpoint=Checkpointing(best="loss")),
            [
                "`clip` is nothing in the run and {norm: 1.0, value: null} now",
                "`checkpoint.best` is nothing in the run and loss now",
            ],
        ),
        (
            changed(rates={"features.*": 0.1}),
            BASE,
            ["`rates.features.*` is 0.1 in the run and not given now"],
        ),
    ],
)
def test_differences(run: Recipe, now: Recipe, lines: list[str]) -> None:
    assert differences(run, now) == lines


def test_order_of_rates_counts() -> None:
    """The last pattern that matches wins, so their order is part of the recipe."""
    one, other = changed(rates={"a": 1.0, "b": 2.0}), changed(rates={"b": 2.0, "a": 1.0})
    assert differences(one, other) == [
        "`rates` is {a: 1.0, b: 2.0} in the run and {b: 2.0, a: 1.0} now"
    ]
