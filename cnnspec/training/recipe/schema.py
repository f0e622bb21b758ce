"""JSON Schema (draft-07) of recipes, made from the tables that the parser uses.

Like that of the language it uses neither oneOf nor anyOf, which editors report badly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnnspec.slots import Schema
from cnnspec.training.recipe.keys import BESIDE_LOSS, BESIDE_SCHEDULE, SECTIONS, SIMPLE, Key
from cnnspec.training.recipe.known import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    SOURCES,
    Known,
)

__all__ = ["recipe_schema"]


def recipe_schema() -> Schema:
    """The schema of all recipes."""
    loss = _call(LOSSES, "The loss of one output.", _keys(BESIDE_LOSS), alone=False)
    augmentation = _call(AUGMENTATIONS, "An augmentation.")
    schedule = _call(
        SCHEDULERS,
        "How the learning rate changes: a scheduler of torch, and a warm-up.",
        {**_keys(BESIDE_SCHEDULE), "warmup": _section("warmup")},
        null=True,
    )
    properties: dict[str, Any] = {
        "name": {"type": ["string", "number", "boolean"], "description": "The recipe's name."},
        "data": _section("data"),
        "optimizer": _call(OPTIMIZERS, "An optimiser of torch, with its arguments."),
        "rates": {
            "type": ["object", "null"],
            "description": "Factors of the learning rate by pattern of paths; the last that "
            "matches wins.",
            "additionalProperties": {"type": "number", "minimum": 0},
        },
        "schedule": schedule,
        "loss": _losses(),
        "augment": {
            **augmentation,
            "type": ["array", "string", "object", "null"],
            "description": "What is done to images of training, in this order.",
            "items": augmentation,
        },
        **{name: _section(name) for name in ("clip", "early_stop", "checkpoint")},
        **_keys(SIMPLE),
    }
    properties["freeze"]["type"] = ["array", "string"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cnnspec recipe",
        "description": "How a network is trained.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "definitions": {"loss": loss},
    }


def _losses() -> Schema:
    """One loss, or losses by the names of outputs, which may be any but those of losses."""
    one = _call(LOSSES, "What is minimised: one loss, or a loss by the name of each output.", {})
    beside: dict[str, Any] = _keys(BESIDE_LOSS)
    # An output may be called `weight` or `target`, too.
    beside["weight"]["type"] = ["number", "string", "object"]
    beside["target"] = {"type": ["string", "object"], "examples": beside["target"]["enum"]}
    one["properties"] |= beside
    del one["maxProperties"]
    return {**one, "additionalProperties": {"$ref": "#/definitions/loss"}}


def _keys(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {name: _key(key) for name, key in keys.items()}


def _key(key: Key) -> Schema:
    schema = key.slot.schema(1)
    return {**schema, "description": key.about} if key.about else schema


def _section(name: str) -> Schema:
    section = SECTIONS[name]
    short = section.keys[section.short].slot.schema(1) if section.short else {}
    types = short.get("type", [])
    own = [types] if isinstance(types, str) else [kind for kind in types if kind != "null"]
    schema: Schema = {
        **{key: value for key, value in short.items() if key != "enum"},
        "type": [*own, "object", *(["null"] if section.optional else [])],
        "description": section.about,
        "properties": _keys(section.keys),
        "additionalProperties": False,
    }
    if name == "data":
        schema["properties"]["source"]["description"] = _sources()
        schema["examples"] = list(SOURCES)
    if section.required:
        schema["required"] = list(section.required)
    return schema


def _sources() -> str:
    return "; ".join(f"{name}: {about}" for name, about in SOURCES.items())


def _call(
    table: Mapping[str, Known],
    about: str,
    beside: Mapping[str, Schema] | None = None,
    *,
    null: bool = False,
    alone: bool = True,
) -> Schema:
    """A name, or one with its arguments; `beside` are keys that may stand beside it."""
    schema: Schema = {
        "type": ["string", "object", *(["null"] if null else [])],
        "description": about,
        "pattern": f"^({'|'.join(_words(table))})$",
        "properties": {
            **{name: _arguments(known) for name, known in table.items()},
            **(beside or {}),
        },
        "additionalProperties": False,
    }
    if not beside:
        schema |= {"minProperties": 1, "maxProperties": 1}
    elif not alone:
        schema["minProperties"] = 1
    return schema


def _words(table: Mapping[str, Known]) -> list[str]:
    """Names that may stand alone."""
    return [name for name, known in table.items() if not known.required]


def _arguments(known: Known) -> Schema:
    schema: Schema = {
        "type": ["object", "null"],
        "description": known.about,
        "properties": {name: slot.schema(1) for name, slot in known.arguments.items()},
        "additionalProperties": False,
    }
    if known.required:
        schema["type"] = "object"
        schema["required"] = list(known.required)
    return schema
