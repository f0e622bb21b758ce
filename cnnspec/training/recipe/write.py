"""A recipe as YAML again: every key, in one order, reading back as the same recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from cnnspec.report import spec_text
from cnnspec.report.spec_text import flow_list, flow_mapping, word
from cnnspec.training.recipe.keys import KEYS
from cnnspec.training.recipe.model import Call, OutputLoss, Recipe, Schedule

__all__ = ["to_yaml", "value_text"]


def to_yaml(recipe: Recipe) -> str:
    """The text of a recipe. What a value is by default is written too, null where it is nothing.

    Arguments of calls are those that were given: all others are torch's.
    """
    return "".join(f"{line}\n" for line in _lines(recipe))


def _lines(recipe: Recipe) -> Iterator[str]:
    for key in KEYS:
        value = getattr(recipe, key)
        match value:
            case Schedule():
                yield "schedule:"
                if value.scheduler is not None:
                    yield f"  {value.scheduler.name}: {_arguments(value.scheduler)}"
                    yield f"  by: {value.by}"
                yield f"  warmup: {_made(value.warmup)}"
            case Call():
                yield f"{key}: {{{value.name}: {_arguments(value)}}}"
            case _ if key == "loss":
                yield from _losses(value)
            case _ if key == "augment":
                yield "augment:" if value else "augment: []"
                for call in value:
                    yield f"  - {call.name}: {_arguments(call)}"
            case _ if key == "data" and value is not None:
                yield "data:"
                for name, item in _fields(value):
                    yield f"  {name}: {value_text(item)}"
            case _:
                yield f"{key}: {value_text(value)}"


def _losses(losses: Mapping[str, OutputLoss]) -> Iterator[str]:
    one = losses.keys() == {""}
    yield "loss:"
    for output, loss in losses.items():
        indent = "  " if one else "    "
        if not one:
            yield f"  {word(output)}:"
        yield f"{indent}{loss.loss.name}: {_arguments(loss.loss)}"
        yield f"{indent}weight: {value_text(loss.weight)}"
        yield f"{indent}target: {loss.target}"


def _arguments(call: Call) -> str:
    return value_text(call.arguments)


def _made(value: Any) -> str:
    return "null" if value is None else value_text(dict(_fields(value)))


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, getattr(value, field.name)) for field in fields(value))


def value_text(value: Any) -> str:
    """A value on one line, as YAML; a call by its name and arguments."""
    match value:
        case Call():
            return f"{value.name} {_arguments(value)}" if value.arguments else value.name
        case tuple() | list():
            return flow_list(map(value_text, value))
        case Mapping():
            return flow_mapping((key, value_text(each)) for key, each in value.items())
        case None | bool() | int() | float() | str():
            return spec_text.value_text(value)
        case _:
            return _made(value)
