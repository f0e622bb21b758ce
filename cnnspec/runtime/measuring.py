"""Contenders measured against one another: who is started when, and what is made of the times.

Each has a process of its own, and they take turns, another one first each time, so that whatever
else the machine does hits all alike. How a contender runs may not enter, nor how tables look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cnnspec.metadata import Precision
from cnnspec.runtime.advice import advice
from cnnspec.runtime.serving import Array, Job
from cnnspec.runtime.timing import Timing, order, ratio, turn_count, turns
from cnnspec.runtime.workers import Worker, WorkerFailure

__all__ = [
    "ALLOWED",
    "FORMS",
    "Entry",
    "Failed",
    "Form",
    "Measured",
    "Progress",
    "Row",
    "difference",
    "measure",
]

Form = Literal["eager", "compile", "onnx", "onnx-fp16", "onnx-int8"]

FORMS: tuple[Form, ...] = get_args(Form)
"""What a network can be measured as, in the order of the table."""

ALLOWED: Mapping[Precision, float] = {"float32": 1e-4, "float16": 5e-2, "int8": inf}
"""The most by which outputs may differ, relative to the largest, so that it is the same function.
What 8 bits leave of one depends on the weights."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is, 0 where nobody knows."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender: `job(batch)` is what its process is told, `module` what the process runs.

    `size` counts the bytes of the files that it is loaded from.
    """

    name: str
    precision: Precision
    size: int
    module: str
    job: Callable[[int], Job]


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender took at one batch.

    `speed` is how many times as fast as the first one it is, `peak` memory in bytes, None where the
    system does not say. `difference` is the largest of the outputs' from those of the first, by the
    largest of these; None for the first itself, and where they cannot be compared, which `odd`
    says. `same` is false where the contender computes something else.
    """

    name: str
    batch: int
    precision: Precision
    engine: str
    provider: str
    threads: int
    timing: Timing
    speed: float
    size: int
    peak: int | None
    difference: float | None
    odd: str
    same: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """A contender that could not be made or run, and why. `batch` is None for all."""

    name: str
    batch: int | None
    reason: str


@dataclass(slots=True)
class Measured:
    """What has been measured so far."""

    rows: list[Row] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def remark(self, text: str) -> None:
        """Note something about all of it, once."""
        if text not in self.remarks:
            self.remarks.append(text)


def measure(
    entries: Sequence[Entry],
    batches: Sequence[int],
    into: Measured,
    *,
    runs: int,
    warmup: int,
    folder: Path,
    progress: Progress,
) -> None:
    """Measure all entries at each batch, into `into`; what fails is noted, and the others go on.

    `folder` is for outputs. Stopped by Ctrl-C, the turns that all have had by then are rows.
    """
    for batch in batches:
        with ExitStack() as stack:
            lap = _Lap(batch, into, folder, progress)
            lap.start(entries, stack)
            try:
                lap.run(runs, warmup)
            finally:
                lap.finish()


@dataclass(slots=True)
class _Standing:
    """A contender that runs."""

    entry: Entry
    worker: Worker
    facts: Mapping[str, Any]
    turns: list[tuple[float, ...]] = field(default_factory=list)
    peak: int | None = None
    difference: float | None = None
    odd: str = ""


class _Lap:
    """One batch."""

    def __init__(self, batch: int, into: Measured, folder: Path, progress: Progress) -> None:
        self._batch = batch
        self._into = into
        self._folder = folder
        self._progress = progress
        self._standing: list[_Standing] = []

    def start(self, entries: Sequence[Entry], stack: ExitStack) -> None:
        """Start the processes, and compare what comes out of them with the first one's."""
        reference: list[Array] = []
        for number, entry in enumerate(entries):
            self._tell(f"starting {entry.name}", number, len(entries))
            try:
                worker = stack.enter_context(Worker(entry.module, entry.job(self._batch)))
                standing = _Standing(entry, worker, worker.start())
                found = self._outputs(worker)
            except WorkerFailure as failure:
                self._failed(entry, failure)
                continue
            for remark in standing.facts["remarks"]:
                self._into.remark(f"`{entry.name}`: {remark}")
            if self._standing:
                first = self._standing[0]
                standing.odd = _incomparable(standing.facts, first.facts, found, reference)
                if not standing.odd:
                    standing.difference = difference(found, reference)
            else:
                reference = found
            self._standing.append(standing)

    def _outputs(self, worker: Worker) -> list[Array]:
        path = self._folder / "outputs.npz"
        worker.outputs(str(path))
        with np.load(path) as found:
            return [found[name] for name in found.files]

    def run(self, runs: int, warmup: int) -> None:
        """Warm all up, then run them in turns."""
        for each in list(self._standing):
            self._tell(f"warming up {each.entry.name}", 0, 0)
            self._attempt(each, warmup)
        whole = turn_count(runs)
        for turn, count in enumerate(turns(runs)):
            for each in order(list(self._standing), turn):
                self._tell(each.entry.name, turn, whole)
                seconds = self._attempt(each, count)
                if seconds:
                    each.turns.append(seconds)

    def _attempt(self, each: _Standing, count: int) -> tuple[float, ...]:
        try:
            seconds, each.peak = each.worker.run(count)
        except WorkerFailure as failure:
            self._failed(each.entry, failure)
            self._standing.remove(each)
            return ()
        return tuple(seconds)

    def finish(self) -> None:
        """Make rows of those that have had a turn."""
        timed = [each for each in self._standing if each.turns]
        for each in timed:
            facts, entry = each.facts, each.entry
            timing = Timing(tuple(each.turns))
            if facts["provider"] == "cpu" and entry.precision != "float32":
                slower = advice(entry.precision)
                if slower is not None:
                    self._into.remark(f"`{entry.name}`: {slower}")
            allowed = max(ALLOWED[entry.precision], ALLOWED[timed[0].entry.precision])
            self._into.rows.append(
                Row(
                    name=entry.name,
                    batch=self._batch,
                    precision=entry.precision,
                    engine=facts["engine"],
                    provider=facts["provider"],
                    threads=facts["threads"],
                    timing=timing,
                    speed=ratio(timing, Timing(tuple(timed[0].turns))),
                    size=entry.size,
                    peak=each.peak,
                    difference=each.difference,
                    odd=each.odd,
                    same=each.difference is None or each.difference <= allowed,
                )
            )

    def _failed(self, entry: Entry, failure: WorkerFailure) -> None:
        self._into.failed.append(Failed(entry.name, self._batch, failure.message))

    def _tell(self, doing: str, done: int, whole: int) -> None:
        self._progress(f"batch {self._batch}: {doing}", done, whole)


def _incomparable(
    own: Mapping[str, Any],
    first: Mapping[str, Any],
    found: Sequence[Array],
    reference: Sequence[Array],
) -> str:
    """Why outputs cannot be compared with those of the first; nothing where they can."""
    if [_fed(*each) for each in own["inputs"]] != [_fed(*each) for each in first["inputs"]]:
        return "other inputs"
    if [array.shape for array in found] != [array.shape for array in reference]:
        return "other outputs"
    return ""


def _fed(dtype: str, shape: Sequence[int]) -> tuple[object, ...]:
    """What numbers an input gets, but for their rounding."""
    return ("float" if dtype.startswith("float") else dtype), tuple(shape)


def difference(found: Sequence[Array], reference: Sequence[Array]) -> float:
    """The largest absolute difference of an output, by the largest element of the reference's.

    The most of all outputs; infinite where one has what is no number and the other does not.
    """
    most = 0.0
    for ours, theirs in zip(found, reference, strict=True):
        own, other = ours.astype(np.float64), theirs.astype(np.float64)
        if not np.array_equal(np.isfinite(own), np.isfinite(other)):
            return inf
        finite = np.isfinite(other)
        if not finite.any():
            continue
        largest = float(np.abs(own[finite] - other[finite]).max())
        scale = float(np.abs(other[finite]).max())
        most = max(most, largest / scale if scale else (inf if largest else 0.0))
    return most
