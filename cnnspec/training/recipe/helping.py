"""What helps against mistakes in recipes: examples, and where a word belongs."""

from __future__ import annotations

from collections.abc import Iterable

from cnnspec.diagnostics import did_you_mean, listed
from cnnspec.training.recipe.keys import KEYS, SECTIONS
from cnnspec.training.recipe.known import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    SCHEDULERS,
    Known,
)

__all__ = [
    "CALL_EXAMPLES",
    "argument_help",
    "example",
    "family_of",
    "key_help",
    "part_of",
    "say_null",
]

_ELSEWHERE = {
    "lr": "the rate is an argument of the optimizer: `optimizer: {SGD: {lr: 0.1}}`",
    "learning_rate": "the rate is an argument of the optimizer: `optimizer: {SGD: {lr: 0.1}}`",
    "momentum": "it is an argument of the optimizer: `optimizer: {SGD: {momentum: 0.9}}`",
    "weight_decay": "it is an argument of the optimizer: `optimizer: {SGD: {weight_decay: 1e-4}}`",
    "scheduler": "did you mean `schedule`?",
    "lr_scheduler": "did you mean `schedule`?",
    "warmup": "it belongs to the schedule: `schedule: {warmup: {epochs: 5}}`",
    "label_smoothing": "it is an argument of the loss: `loss: {CrossEntropyLoss: "
    "{label_smoothing: 0.1}}`",
    "dataset": "did you mean `data`?",
    "criterion": "did you mean `loss`?",
    "transforms": "did you mean `augment`?",
    "dtype": "did you mean `precision`?",
    "amp": "did you mean `precision`?",
    "workers": "it belongs to the data: `data: {source: images, workers: 4}`",
    "patience": "it belongs to `early_stop`",
}
CALL_EXAMPLES = {
    "optimizer": "`{SGD: {lr: 0.1}}`",
    "scheduler": "`{StepLR: {step_size: 30}}`",
    "loss": "`{CrossEntropyLoss: {label_smoothing: 0.1}}`",
    "augmentation": "`{RandomCrop: {size: 32, padding: 4}}`",
}
"""Calls by what messages name them."""


def key_help(key: str) -> str:
    """Help for a key that recipes do not have."""
    help = _ELSEWHERE.get(key) or did_you_mean(key, KEYS)
    if not help and (call := family_of(key)) is not None:
        help = f"`{call}: {key}`"
    return help or f"its keys are {listed(KEYS)}"


def say_null(key: str) -> str:
    """How to say that there is none, for keys that may be null."""
    section = SECTIONS.get(key)
    if key == "schedule" or (section is not None and section.optional):
        return f"`{key}: null` says that there is none"
    return ""


def example(name: str) -> str:
    """A section written right."""
    return {
        "data": "for example `data: digits`, or `data: {source: images, path: flowers}`",
        "clip": "for example `clip: {norm: 1.0}`",
        "early_stop": "for example `early_stop: {patience: 10, metric: top1}`",
        "checkpoint": "for example `checkpoint: {epochs: 1, best: top1}`",
        "warmup": "for example `warmup: {epochs: 5}`",
    }[name]


def family_of(name: str) -> str | None:
    """The key under which a name of torch belongs."""
    tables = {
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULERS,
        "loss": LOSSES,
        "augment": AUGMENTATIONS,
    }
    return next((key for key, table in tables.items() if name in table), None)


def part_of(name: str, table: Iterable[str]) -> str:
    """Help for what is a part of a few names: `MSE`, `Cosine`."""
    found = [known for known in table if len(name) > 2 and name.lower() in known.lower()]
    if not 1 <= len(found) <= 3:
        return ""
    return f"did you mean {' or '.join(f'`{known}`' for known in found)}?"


def argument_help(name: str, known: Known) -> str:
    """Help for an argument that a call does not have."""
    if name in ("reduction", "size_average", "reduce"):
        return "losses are means over the samples of a batch"
    if not known.arguments:
        return "it has no arguments"
    return did_you_mean(name, known.arguments) or f"it has {listed(known.arguments)}"
