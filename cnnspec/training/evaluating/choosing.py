"""What is evaluated, and with which samples: what paths and words of the command line mean.

Needs no torch. How figures look may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.ir import Graph
from cnnspec.runtime.preparing import Preparation, preparation
from cnnspec.training.data.samples import Dataset, Samples, Target
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.evaluating.task import Task
from cnnspec.training.recipe.model import Data
from cnnspec.training.runs.run_folder import RunFolder, is_run

__all__ = [
    "Chosen",
    "Split",
    "chosen_samples",
    "disagreement",
    "image_of",
    "kind_of",
    "labels_for",
    "run_of",
]

Split = Literal["held-out", "train", "all"]
Kind = Literal["run", "built", "onnx", "spec"]


def kind_of(given: str) -> Kind:
    """What a word of the command line names: a run, a built network, an ONNX file, or a spec."""
    if os.path.isdir(given):
        return "run" if is_run(Path(given)) else "built"
    return "onnx" if Path(given).suffix.lower() == ".onnx" else "spec"


def run_of(given: str) -> RunFolder:
    """The run in a folder. Raises `EnvironmentFailure`."""
    return RunFolder.open(given)


def image_of(graph: Graph) -> tuple[tuple[int, ...], Preparation]:
    """Channels, height and width of a network's images, and how they are prepared.

    Raises `EnvironmentFailure` for a network that takes no image, or more than that.
    """
    if len(graph.inputs) != 1:
        raise EnvironmentFailure(
            f"`{graph.name}` has {quantity(len(graph.inputs), 'input')}, and only one can be an "
            "image"
        )
    ((name, value),) = graph.inputs.items()
    shape = graph.tensors[value].shape
    try:
        prepared = preparation(graph.metadata.get("preprocess"), (None, *shape))
    except EnvironmentFailure as failure:
        raise EnvironmentFailure(
            f"input `{name}` of `{graph.name}`: {failure.message}", help=failure.help
        ) from None
    return shape, prepared


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples to evaluate with.

    `data` and `dataset` are where they come from, `split` which of them they are. `remarks` is what
    users should know about that choice.
    """

    data: Data
    dataset: Dataset
    split: Split
    samples: Samples
    remarks: tuple[str, ...] = ()


def chosen_samples(
    data: Data,
    split: Split,
    task: Task,
    *,
    shape: tuple[int, ...],
    seed: int,
    run: RunFolder | None = None,
) -> Chosen:
    """The samples of a split. `shape` is that of the images, `run` the one whose data they are.

    Raises `EnvironmentFailure` where there are none, and for classes that the output has not.
    """
    dataset = open_dataset(data, shape=shape, seed=seed, classes=task.classes or None)
    if split == "train":
        samples = dataset.train
    elif dataset.held_out is None:
        if split == "held-out":
            raise EnvironmentFailure(
                f"nothing of {dataset.name} is held out", help="--split train, or --split all"
            )
        samples = dataset.train
    else:
        held_out = dataset.held_out
        samples = held_out if split == "held-out" else _Both((dataset.train, held_out))
    if not len(samples):
        raise EnvironmentFailure(f"there is no sample in this part of {dataset.name}")
    remarks = []
    if task.kind != "image":
        remarks += _class_count(dataset, task)
    trained = run.facts.get("fingerprint") if run is not None else None
    if trained is not None and trained != dataset.fingerprint:
        remarks.append(
            f"{dataset.name} is not what the run was trained with: what is held out here may have "
            "been among that"
        )
    return Chosen(data, dataset, split, samples, tuple(remarks))


def _class_count(dataset: Dataset, task: Task) -> list[str]:
    """What to say about the number of classes. Raises `EnvironmentFailure` for too many."""
    targets = dataset.train.targets()
    named = len(dataset.classes)
    there = named or (max(targets, default=-1) + 1 if targets is not None else 0)
    if there > task.classes:
        raise EnvironmentFailure(
            f"{dataset.name} has {there} classes, and output `{task.output}` tells {task.classes}"
        )
    if named and named < task.classes:
        return [
            f"output `{task.output}` tells {task.classes} classes, and {dataset.name} has {named}"
        ]
    return []


@dataclass(frozen=True, slots=True)
class _Both:
    """Several samples as one."""

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def _place(self, number: int) -> tuple[Samples, int]:
        for part in self.parts:
            if number < len(part):
                return part, number
            number -= len(part)
        raise IndexError(number)

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        part, own = self._place(number)
        return part.read(own, mode)

    def label(self, number: int) -> str:
        """See `Samples`."""
        part, own = self._place(number)
        return part.label(own)

    def targets(self) -> Sequence[int] | None:
        """See `Samples`."""
        found = [part.targets() for part in self.parts]
        return None if None in found else [each for part in found for each in part or ()]


def disagreement(labels: Sequence[str] | None, names: Sequence[str], model: str) -> str | None:
    """What to say where a network and the data call classes otherwise; None where they agree.

    Letter case does not count, nor do names that only one of them has. Numbers in their order are
    no names.
    """
    if not labels or not names or _numbers(labels) or _numbers(names):
        return None
    pairs = list(enumerate(zip(labels, names, strict=False)))
    differing = [(i, own, his) for i, (own, his) in pairs if own.casefold() != his.casefold()]
    if not differing:
        return None
    index, own, theirs = differing[0]
    same = {each.casefold() for each in labels} == {each.casefold() for each in names}
    order = "the same classes in another order" if same else "other names of classes"
    more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
    return f"`{model}` has {order}: {index} is `{own}` there and `{theirs}` in the data{more}"


def labels_for(labels: Sequence[str] | None, names: Sequence[str], count: int) -> list[str] | None:
    """What `count` classes of a network are called once it is trained on data with these names.

    Its own labels stay where the data does not say otherwise (see `disagreement`).
    """
    if len(names) != count or _numbers(names):
        return None if labels is None else list(labels)
    if labels is not None and len(labels) == count and disagreement(labels, names, "") is None:
        return list(labels)
    return list(names)


def _numbers(names: Sequence[str]) -> bool:
    return all(name == str(number) for number, name in enumerate(names))


def source_text(data: Data) -> str:
    """A source as users write it: `digits`, `images:photos`."""
    return data.source if data.path is None else f"{data.source}:{data.path}"


def with_corrupt(data: Data, corrupt: Literal["fail", "skip"] | None) -> Data:
    """The same data with another treatment of unreadable images, where one is asked for."""
    return data if corrupt is None else replace(data, corrupt=corrupt)
