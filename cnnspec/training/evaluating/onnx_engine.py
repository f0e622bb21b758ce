"""ONNX files under evaluation, in ONNX Runtime. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.model_file import ModelFile
from cnnspec.runtime.predicting import Reading, profiles, read_as
from cnnspec.runtime.preparing import Array
from cnnspec.runtime.providers import Settings, Wanted
from cnnspec.runtime.session import Session
from cnnspec.training.evaluating.figures import Evaluation
from cnnspec.training.evaluating.numpy_counting import NumpyCounting, log_probabilities
from cnnspec.training.evaluating.running import averaged_task
from cnnspec.training.evaluating.task import Task, task_of_file

__all__ = ["OnnxEngine", "OnnxSubject", "onnx_subject"]


@dataclass(frozen=True, slots=True)
class OnnxSubject:
    """A file, how it is fed and read, and what is measured of it."""

    model: ModelFile
    reading: Reading
    task: Task

    @property
    def shape(self) -> tuple[int, ...]:
        """Channels, height and width of its images; those at which it was made where it takes any.

        Raises `EnvironmentFailure` where nothing tells.
        """
        prepare, about = self.reading.prepare, self.model.metadata
        said = about.inputs.get(self.reading.input.name, ()) if about is not None else ()
        height, width = prepare.size
        if len(said) == 3:
            return (prepare.channels, said[1], said[2])
        if height is None or width is None:
            raise EnvironmentFailure(
                f"`{self.model.path}` takes images of any size and does not say of which: batches "
                "need one"
            )
        return (prepare.channels, height, width)


def onnx_subject(model: ModelFile) -> OnnxSubject:
    """A judged file as something to evaluate. Raises `EnvironmentFailure` where that cannot be."""
    reading = read_as(model)
    return OnnxSubject(model, reading, task_of_file(reading, str(model.path)))


class OnnxEngine:
    """Files that answer together."""

    def __init__(
        self,
        subjects: Sequence[OnnxSubject],
        uses: Sequence[int],
        *,
        batch: int,
        averaging: bool,
        provider: Wanted = "auto",
        threads: int | None = None,
        confusion: bool = False,
    ) -> None:
        """`averaging` where there are several files or views.

        Raises `EnvironmentFailure` as `Session` does.
        """
        self.uses = uses
        self._subjects = subjects
        self.sessions = [
            Session(
                each.model,
                provider=provider,
                threads=threads,
                settings=Settings(profiles=profiles(each.reading, batch)),
            )
            for each in subjects
        ]
        task = subjects[0].task
        self._averaging = averaging
        self._counting = NumpyCounting(
            averaged_task(task) if averaging else task, confusion=confusion
        )

    def add(
        self,
        images: Sequence[Sequence[Array]],
        targets: NDArray[np.int64],
        mirrored: Sequence[bool],
    ) -> None:
        """See `Engine`."""
        if not self._averaging:
            (single,) = images[self.uses[0]]
            self._counting.add(self._run(0, single), targets, single)
            return
        self._counting.add(self._averaged(images, mirrored), targets)

    def _averaged(self, images: Sequence[Sequence[Array]], mirrored: Sequence[bool]) -> Array:
        """Logarithms of the mean probabilities over files and views."""
        whole: Array | None = None
        for number, use in enumerate(self.uses):
            probabilities = self._subjects[number].task.probabilities
            for view, mirror in zip(images[use], mirrored, strict=True):
                logs = log_probabilities(self._run(number, view), probabilities=probabilities)
                if mirror and logs.ndim == 4:
                    logs = logs[..., ::-1]
                whole = logs if whole is None else np.logaddexp(whole, logs)
        assert whole is not None  # there is a file, and a view
        return whole - np.float32(math.log(len(self.uses) * len(mirrored)))

    def _run(self, number: int, images: Array) -> Array:
        subject = self._subjects[number]
        fixed, count = subject.reading.batch, len(images)
        if fixed is not None and count < fixed:
            padding = np.zeros((fixed - count, *images.shape[1:]), images.dtype)
            images = np.concatenate([images, padding])
        outputs = self.sessions[number].run({subject.reading.input.name: images})
        found = outputs[subject.reading.output.name]
        if found.ndim == 0 or len(found) != len(images):
            raise EnvironmentFailure(
                f"output `{subject.reading.output.name}` of `{subject.model.path}` has no entry "
                "for each image"
            )
        return found[:count]

    def evaluation(self, *, seconds: float, names: Sequence[str]) -> Evaluation:
        """See `Engine`."""
        return self._counting.evaluation(seconds=seconds, names=names)
