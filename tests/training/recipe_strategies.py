"""Recipes at random, made from the tables of names and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hypothesis import strategies as st

from cnnspec.frontend.problems import Problems
from cnnspec.slots import Nullable, Slot
from cnnspec.source import Source
from cnnspec.training.recipe.checks import check
from cnnspec.training.recipe.keys import SECTIONS, SIMPLE, Key
from cnnspec.training.recipe.kinds import (
    Choice,
    Each,
    Flag,
    Items,
    Number,
    OrWord,
    Range,
    Text,
    Whole,
)
from cnnspec.training.recipe.known import AUGMENTATIONS, LOSSES, OPTIMIZERS, SCHEDULERS, Known
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

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def values(slot: Slot) -> st.SearchStrategy[Any]:
    """Everything a slot accepts, in its final form."""
    match slot:
        case Number():
            low, high = slot.least, slot.most
            return st.floats(
                low if slot.above is None else slot.above,
                high if slot.below is None else slot.below,
                exclude_min=slot.above is not None,
                exclude_max=slot.below is not None,
                allow_nan=False,
                allow_infinity=False,
            )
        case Whole():
            numbers = st.integers(slot.least, min(slot.most, 10**6))
            return numbers.map(lambda n: n | 1) if slot.odd else numbers
        case Flag():
            return st.booleans()
        case Choice():
            return st.sampled_from(slot.choices)
        case Text():
            return TEXTS
        case Items():
            item = values(slot.item)
            lists = [st.tuples(*[item] * count) for count in slot.counts]
            several = st.one_of(lists) if lists else st.lists(item, max_size=4).map(tuple)
            return item | several if slot.single else several
        case Each():
            return st.tuples(*map(values, slot.places))
        case Range():
            item = values(slot.item)
            pairs = st.tuples(item, item).map(sorted).map(tuple)
            return values(slot.single_item or slot.item) | pairs if slot.single else pairs
        case Nullable():
            return st.none() | values(slot.slot)
        case OrWord():
            return st.just(slot.word) | values(slot.slot)
    raise AssertionError(slot)


def arguments(known: Known) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments of a call, the required ones among them."""
    made = {name: values(slot) for name, slot in known.arguments.items()}
    needed = {name: made.pop(name) for name in known.required}
    return st.fixed_dictionaries(needed, optional=made)


def calls(table: Mapping[str, Known]) -> st.SearchStrategy[Call]:
    """Calls of one table."""
    made = {name: arguments(known) for name, known in table.items()}
    return st.sampled_from(sorted(table)).flatmap(
        lambda name: made[name].map(lambda given: Call(name, given))
    )


def _keys(keys: Mapping[str, Key]) -> dict[str, st.SearchStrategy[Any]]:
    return {name: values(key.slot) for name, key in keys.items()}


def _section(name: str, made: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(made, **_keys(SECTIONS[name].keys))


def _schedules() -> st.SearchStrategy[Schedule]:
    warmup = st.none() | _section("warmup", Warmup)
    by_both = st.builds(
        Schedule,
        scheduler=calls(SCHEDULERS),
        by=st.sampled_from(("step", "epoch")),
        warmup=warmup,
    )
    return by_both | st.builds(Schedule, warmup=warmup)


OUTPUT_LOSSES = st.builds(
    OutputLoss,
    loss=calls(LOSSES),
    weight=values(Number(least=0)),
    target=st.sampled_from(("label", "image")),
)


_OUTPUTS = st.dictionaries(
    TEXTS.filter(lambda name: name not in LOSSES), OUTPUT_LOSSES, min_size=1, max_size=3
)
_MIXING = st.just(0.0) | values(Number(least=0))
_FIELDS = st.fixed_dictionaries(
    {
        **_keys(SIMPLE),
        "name": TEXTS,
        "batch_size": st.integers(1, 1000),
        "mixup": _MIXING,
        "cutmix": _MIXING,
        "freeze": st.lists(TEXTS, max_size=3).map(tuple),
        "data": st.none() | _section("data", Data),
        "optimizer": calls(OPTIMIZERS),
        "rates": st.dictionaries(TEXTS, values(Number(least=0)), max_size=3),
        "schedule": st.none() | _schedules(),
        "loss": OUTPUT_LOSSES.map(lambda loss: {"": loss}) | _OUTPUTS,
        "augment": st.lists(calls(AUGMENTATIONS), max_size=4).map(tuple),
        "clip": st.none() | _section("clip", Clip),
        "early_stop": st.none() | _section("early_stop", EarlyStop),
        "checkpoint": _section("checkpoint", Checkpointing),
    }
)


def _recipe(given: dict[str, Any]) -> Recipe:
    return Recipe(**{**given, "batch_size": given["batch_size"] * given["accumulate"]})


def recipes() -> st.SearchStrategy[Recipe]:
    """Recipes without an error."""
    return _FIELDS.map(_recipe).filter(lambda recipe: not conflicting(recipe))


def conflicting(recipe: Recipe) -> bool:
    """Whether keys of a recipe do not go together."""
    problems = Problems()
    span = Source("", "recipe").span(0, 0)
    places = {"": span, **{field.name: span for field in fields(Recipe)}}
    check(recipe, places, (), problems)
    return bool(problems.errors)
