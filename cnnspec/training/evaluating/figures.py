"""What an evaluation says, from what was counted. Arithmetic alone: no torch, no files, no form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnspec.training.evaluating.task import Task

__all__ = ["ClassFigures", "Evaluation", "Tally", "evaluation_of"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """What was counted over all samples.

    `samples` are images, `positions` what is judged one by one: images, or the positions of maps
    that count. `loss` is the sum over positions (over images for `image` tasks). `right` positions
    have the true class first, `right_of_5` among the first five; `odd` ones have scores that are
    no numbers, and are wrong. By class, `given` counts true ones, `chosen` those that the network
    says, `hit` those that are both. `confusion` has true classes in rows and chosen ones in
    columns; None where nobody asked for it.
    """

    loss: float
    samples: int
    positions: int
    right: int
    right_of_5: int
    odd: int
    given: Counts
    chosen: Counts
    hit: Counts
    confusion: Counts | None = None


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: how many there are, the share of them that is found (`recall`), the share of what
    is called so that is (`precision`), and intersection over union; None where nothing divides."""

    index: int
    name: str | None
    samples: int
    recall: float | None
    precision: float | None
    iou: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """How good a network is. Fractions are of 1, `seconds` of wall time.

    `top1` and `top5` are None where there are no classes; of maps `top1` is the share of positions
    (pixel accuracy), `top5` None, and `mean_iou` the mean over classes that occur.
    """

    task: Task
    samples: int
    loss: float
    top1: float | None
    top5: float | None
    mean_iou: float | None
    odd: int
    seconds: float
    classes: tuple[ClassFigures, ...] = field(repr=False)
    confusion: Counts | None = field(default=None, repr=False)

    @property
    def samples_per_second(self) -> float:
        """Throughput, 0 where no time was taken."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    def figures(self) -> dict[str, float]:
        """The figures by which epochs are compared: `loss`, `top1`, `top5`, `mean_iou`."""
        found = {
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "mean_iou": self.mean_iou,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self, *, per_class: bool = False, confusion: bool = False) -> dict[str, Any]:
        """As a JSON object; what is no number is null."""
        found: dict[str, Any] = {
            "top1": _finite(self.top1),
            "top5": _finite(self.top5),
            "loss": _finite(self.loss),
            "samples": self.samples,
        }
        if self.task.kind == "map":
            found["pixel_accuracy"] = _finite(self.top1)
            found["mean_iou"] = _finite(self.mean_iou)
        found |= {
            "loss_is": self.task.loss.name,
            "without_numbers": self.odd,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
        }
        if per_class:
            found["classes"] = [
                {
                    "index": each.index,
                    "name": each.name,
                    "samples": each.samples,
                    "recall": each.recall,
                    "precision": each.precision,
                    "iou": each.iou,
                }
                for each in self.classes
            ]
        if confusion and self.confusion is not None:
            found["confusion"] = self.confusion.tolist()
        return found


def evaluation_of(
    task: Task, tally: Tally, *, seconds: float = 0.0, names: Sequence[str] = ()
) -> Evaluation:
    """What was counted as fractions; `names` are those of the classes, as far as they are known."""
    positions = tally.positions
    union = tally.given + tally.chosen - tally.hit
    there = union > 0
    mean_iou = float((tally.hit[there] / union[there]).mean()) if there.any() else None
    judged = task.kind != "image"
    return Evaluation(
        task=task,
        samples=tally.samples,
        loss=_share(tally.loss, positions if judged else tally.samples, float("nan")),
        top1=_share(tally.right, positions, 0.0) if judged else None,
        top5=_share(tally.right_of_5, positions, 0.0) if task.kind == "classes" else None,
        mean_iou=mean_iou if task.kind == "map" else None,
        odd=tally.odd,
        seconds=seconds,
        classes=tuple(_classes(tally, union, names)),
        confusion=tally.confusion,
    )


def _classes(tally: Tally, union: Counts, names: Sequence[str]) -> list[ClassFigures]:
    return [
        ClassFigures(
            index,
            names[index] if index < len(names) else None,
            int(tally.given[index]),
            _ratio(tally.hit[index], tally.given[index]),
            _ratio(tally.hit[index], tally.chosen[index]),
            _ratio(tally.hit[index], union[index]),
        )
        for index in range(len(tally.given))
    ]


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return int(part) / int(whole) if whole else None


def _share(part: float, whole: int, otherwise: float) -> float:
    return part / whole if whole else otherwise


def _finite(number: float | None) -> float | None:
    return number if number is not None and isfinite(number) else None
