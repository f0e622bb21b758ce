"""What is asked of an evaluation, and what is ready to be evaluated, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.images import ImageFailure
from cnnspec.runtime.preparing import Preparation
from cnnspec.training.evaluating.choosing import Chosen, Split, disagreement
from cnnspec.training.evaluating.figures import Evaluation
from cnnspec.training.evaluating.reading import SampleReader
from cnnspec.training.evaluating.running import Engine, evaluate
from cnnspec.training.evaluating.task import Task
from cnnspec.training.evaluating.views import Views
from cnnspec.training.recipe.model import Data
from cnnspec.training.runs.run_folder import RunFolder

__all__ = ["ASSUMED", "MOST_CONFUSED", "USUAL_BATCH", "Prepared", "Request", "agreed", "used"]

USUAL_BATCH = 64

MOST_CONFUSED = 4096
"""Classes of which there is a matrix: it holds the square of that many numbers."""

ASSUMED = "nothing says how images are prepared: they are resized, and scaled to 0..1"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    `run` is the one whose samples `data` are, where they are those of one. `batch` and `threads`
    are None where nobody said.
    """

    data: Data
    split: Split
    seed: int = 0
    run: RunFolder | None = None
    views: Views = field(default=Views())
    batch: int | None = None
    threads: int | None = None
    confusion: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """Networks and samples that are found, fit together, and wait.

    `where` is what computes, as users call it. `labels` are what each network calls its classes, by
    its name. `masks` is how maps follow their images, where not as the first preparation says.
    """

    engine: Engine
    task: Task
    chosen: Chosen
    preparations: Sequence[Preparation]
    views: Views
    batch: int
    threads: int
    where: str
    labels: Sequence[tuple[str, Sequence[str] | None]]
    remarks: tuple[str, ...] = ()
    masks: Preparation | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What users should know before they believe the figures."""
        names = self.chosen.dataset.classes
        found = (disagreement(own, names, model) for model, own in self.labels)
        return (
            *self.remarks,
            *([ASSUMED] if any(each.assumed for each in self.preparations) else []),
            *self.chosen.remarks,
            *(said for said in found if said is not None),
        )

    @property
    def names(self) -> Sequence[str]:
        """Names of classes: those of the data, else those of the first network that has any."""
        own = next((each for _, each in self.labels if each), None)
        return self.chosen.dataset.classes or own or ()

    def evaluation(
        self,
        progress: Callable[[int, int], None] | None = None,
        failed: Callable[[ImageFailure], None] | None = None,
    ) -> Evaluation:
        """Every sample once. `failed` is told of those that are skipped."""
        reader = SampleReader(
            samples=self.chosen.samples,
            preparations=self.preparations,
            views=self.views,
            batch=self.batch,
            threads=self.threads,
            corrupt=self.chosen.data.corrupt,
            masks=self.masks,
            failed=failed,
        )
        return evaluate(self.engine, reader, names=self.names, progress=progress)


def used(preparations: Sequence[Preparation]) -> tuple[list[int], list[Preparation]]:
    """For each preparation the number of the first that is equal, and those that are left."""
    distinct: list[Any] = []
    for each in preparations:
        if each not in distinct:
            distinct.append(each)
    return [distinct.index(each) for each in preparations], distinct


def agreed(
    request: Request,
    tasks: Sequence[Task],
    names: Sequence[str],
    preparations: Sequence[Preparation],
) -> Task:
    """What is measured of all, where what is asked for can be had.

    Raises `EnvironmentFailure` for networks that cannot answer together, and for views and a matrix
    that make no sense.
    """
    first, views = tasks[0], request.views
    for task, name in zip(tasks, names, strict=True):
        if (task.kind, task.classes) != (first.kind, first.classes):
            raise EnvironmentFailure(
                f"`{names[0]}` and `{name}` cannot answer together: {_told(first)} and "
                f"{_told(task)}"
            )
    if request.confusion and not 0 < first.classes <= MOST_CONFUSED:
        raise EnvironmentFailure(
            f"--confusion is for 1 to {MOST_CONFUSED:,} classes, not for {_told(first)}"
        )
    if first.kind == "map" and views.ten:
        raise EnvironmentFailure("--ten-crop is for classes of whole images, not for maps")
    if first.kind == "image" and len(tasks) * len(views.mirrored) > 1:
        raise EnvironmentFailure("images that come out are not averaged")
    for each in preparations:
        views.check(each)
    return first


def _told(task: Task) -> str:
    if task.kind == "image":
        return "an image"
    return f"{'maps of ' if task.kind == 'map' else ''}{task.classes:,} classes"
