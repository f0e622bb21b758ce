"""Agreement of a model in fewer bits with torch in float32: how near, and whether it is nonsense.

float16 and int8 cannot be equal to float32, so this is another question with limits of its own:

- float16 has 11 significant bits, 4.9e-4 a rounding. Roundings are independent, so a network of n
  layers ends near sqrt(n) of them: 6e-3 for 150 layers. Up to 1e-2 is what float16 costs; above
  5e-2 something overflowed or vanished.
- int8 is chosen for speed, and what it may cost depends on the task. Reported are the
  signal-to-noise ratio and whether first choices stay; refused is what no task can use: results
  that are not finite or do not change with the input, less than 3 dB (the error has half the power
  of the signal), or other first choices for half of the samples that torch is sure of.

How a model is converted may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log10
from time import perf_counter
from typing import Any, Literal

import numpy as np
import onnx
from torch import nn

from cnnspec.backends.onnx.precision.half import rounded
from cnnspec.backends.onnx.session import session
from cnnspec.backends.onnx.verify.difference import AnyArray, first_choices, measured
from cnnspec.backends.onnx.verify.evaluation import Evaluation, stored
from cnnspec.backends.onnx.verify.layers import LayerWise
from cnnspec.backends.onnx.verify.proof import Progress, file_names, say_nothing
from cnnspec.backends.onnx.verify.running import (
    LEVELS,
    Feeds,
    Trial,
    inference_mode,
    refusals_told,
    torch_outputs,
)
from cnnspec.backends.onnx.verify.statics import Model, batch_of, compare_shapes, well_formed
from cnnspec.backends.onnx.verify.verdict import (
    FORMAT,
    Choices,
    Level,
    Shapes,
    VerificationFailure,
)
from cnnspec.ir import Graph

__all__ = ["Agreement", "OutputAgreement", "Precision", "agree"]

Precision = Literal["float16", "int8"]
"""What a model was converted to."""

_USUAL = 1e-2
_FAR = 5e-2
"""Relative differences of float16: what it costs, and what it cannot explain."""

_POOR_DB = 10.0
_NOISE_DB = 3.0
"""Signal-to-noise ratios of int8: below the first the error is a third of the signal, below the
second it has half of its power."""

_SURE = 1e-2
"""By how much of the largest score the first choice has to be ahead for torch to be sure of it."""

_FEWEST = 8
"""Sure samples that it takes to judge by them."""

_LEAST_AGREEING = 0.5
"""Share of the sure samples whose first choice has to stay."""

_VARIES = 0.05
"""Share of the largest value by which outputs have to differ from sample to sample so that one
that never changes is wrong."""

_LAYER_LIMITS: Mapping[Precision, float] = {"float16": _FAR, "int8": 0.5}
"""Relative difference of a single layer above which it is to blame."""


@dataclass(frozen=True, slots=True)
class OutputAgreement:
    """One output over all samples.

    `difference` is max|ours - torch's| / max|torch's|; `decibels` the ratio of the powers of
    torch's output and of the difference, infinite if there is none. `top1` counts all samples and
    `sure` those whose first choice is ahead by a hundredth; both are for scores.
    """

    output: str
    difference: float
    absolute: float
    decibels: float
    top1: Choices | None
    sure: Choices | None

    def to_json(self) -> dict[str, Any]:
        """As JSON says it; decibels are null where nothing differs."""
        return {
            "output": self.output,
            "relative": self.difference,
            "absolute": self.absolute,
            "decibels": round(self.decibels, 2) if isfinite(self.decibels) else None,
            "top1": self.top1.to_json() if self.top1 else None,
            "sure": self.sure.to_json() if self.sure else None,
        }


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near a model is to torch in float32; nonsense raises `VerificationFailure` instead."""

    precision: Precision
    opset: int
    shapes: Shapes
    samples: int
    outputs: tuple[OutputAgreement, ...]
    seconds: float

    @property
    def near(self) -> bool:
        """True if the model is as near as its precision lets one expect."""
        return all(_expected(self.precision, output) for output in self.outputs)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is unusual, and what was too little to judge by."""
        found = []
        for output in self.outputs:
            if not _expected(self.precision, output):
                amount = (
                    f"differs by {output.difference:.1e} of its largest value"
                    if self.precision == "float16"
                    else f"has {output.decibels:.1f} dB of signal to noise"
                )
                found.append(f"output `{output.output}` {amount}")
            if output.sure is not None and output.sure.samples < _FEWEST:
                found.append(
                    f"torch is sure of the first choice of `{output.output}` for "
                    f"{output.sure.samples} of {self.samples} samples: too few to judge by"
                )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The record: plain values."""
        return {
            "format": FORMAT,
            "kind": "agreement",
            "precision": self.precision,
            "verdict": "near" if self.near else "far",
            "limits": (
                {"near": _USUAL, "fail": _FAR}
                if self.precision == "float16"
                else {"near_decibels": _POOR_DB, "fail_decibels": _NOISE_DB}
            ),
            "opset": self.opset,
            "shapes": {"equal": self.shapes.equal, "partial": self.shapes.partial},
            "samples": self.samples,
            "outputs": [output.to_json() for output in self.outputs],
            "remarks": list(self.remarks),
            "seconds": round(self.seconds, 3),
        }


def _expected(precision: Precision, output: OutputAgreement) -> bool:
    if precision == "float16":
        return output.difference <= _USUAL
    return output.decibels >= _POOR_DB


def agree(
    model: bytes | str | os.PathLike[str],
    graph: Graph,
    module: nn.Module,
    *,
    precision: Precision,
    samples: Iterable[Mapping[str, AnyArray]] | None = None,
    seed: int = 0,
    weights: nn.Module | None = None,
    feeds: Feeds | None = None,
    renamed: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Compare `model`, which computes in fewer bits, with `module` in float32 on the CPU.

    `samples` are inputs of the file by name, each a batch, read once; images that int8 was
    calibrated with, for one. Without any they are random. float16 is run with every tensor really
    rounded, which ONNX Runtime's CPU provider leaves out, and as it is as well, where it has to
    load and give finite results. The other arguments are those of `verify`.

    Raises `VerificationFailure` for a model that is no ONNX, has other shapes, does not run, or
    whose results are nonsense by the limits above; the message names the first layer to blame.
    """
    start = perf_counter()
    say = progress or say_nothing
    subject = Model(model)
    names = file_names(graph, renamed or {})
    say("the checker and inferred shapes")
    well_formed(subject, full=False)
    shapes = compare_shapes(subject, graph, names)
    well_formed(subject, full=True)
    if samples is None:
        samples = _random(subject, graph, seed, feeds)
    run, level = subject, _PLAIN
    if precision == "float16":
        say("every float16 tensor rounded")
        whole = onnx.load(subject.path) if subject.path else onnx.load_from_string(subject.read())
        run, level = Model(rounded(whole).SerializeToString()), _ROUNDED
        del whole
    tallies = [_Tally(output.name) for output in subject.outline.graph.output]
    source = weights or module
    with inference_mode(module), inference_mode(source):
        blame = LayerWise(run, graph, Evaluation(graph, stored(source)), names)
        count = 0
        kept: dict[str, AnyArray] = {}
        runtime = None
        for sample in samples:
            given = dict(sample)
            kept = kept or given
            count += len(next(iter(given.values())))
            say(f"{precision} against float32, {count} samples")
            with refusals_told(run, given, level):
                if runtime is None:
                    runtime = session(
                        run.path or run.read(), optimise=LEVELS[level], folder=run.folder
                    )
                results = runtime.run(None, given)
            expected = torch_outputs(module, given)
            if len(expected) != len(results):
                raise VerificationFailure(
                    f"the model has {len(results)} outputs, torch gives {len(expected)}"
                )
            for tally, ours, theirs in zip(tallies, results, expected, strict=True):
                tally.add(ours, theirs)
        if not count:
            raise VerificationFailure("there are no samples to compare with")
        del runtime
        outputs = tuple(tally.result() for tally in tallies)
        for tally, output in zip(tallies, outputs, strict=True):
            wrong = _nonsense(precision, tally, output)
            if wrong:
                _refuse(precision, output.output, wrong, blame, kept, level)
        if precision == "float16":
            _finite(subject, kept, say)
    return Agreement(precision, subject.opset, shapes, count, outputs, perf_counter() - start)


_ROUNDED: Level = "none"
"""Optimisations cancel two casts against each other, and with them the rounding."""

_PLAIN: Level = "all"
"""What users run: quantized nodes become integer kernels here."""


def _random(
    model: Model, graph: Graph, seed: int, feeds: Feeds | None
) -> Iterator[Mapping[str, AnyArray]]:
    own = batch_of(model)
    for batch in (1, 3) if own is None else (own,):
        yield Trial(graph, batch, seed, given=feeds).feeds()
        if feeds is None:
            yield Trial(graph, batch, seed, "uniform").feeds()


def _finite(model: Model, feeds: Mapping[str, AnyArray], say: Progress) -> None:
    """The model as it is loads, runs, and gives numbers."""
    say("ONNX Runtime with optimisations")
    with refusals_told(model, feeds, _PLAIN):
        results = session(model.path or model.read(), optimise=LEVELS[_PLAIN]).run(
            None, dict(feeds)
        )
    for output, result in zip(model.outline.graph.output, results, strict=True):
        if not np.isfinite(result).all():
            raise VerificationFailure(f"output `{output.name}` is not finite, with optimisations")


# -------------------------------------------------------------------------------------- tallying


@dataclass(slots=True)
class _Tally:
    """What is kept of one output while samples go by: sums and extremes, no samples."""

    name: str
    absolute: float = 0.0
    scale: float = 0.0
    signal: float = 0.0
    noise: float = 0.0
    scores: bool = False
    samples: int = 0
    agreeing: int = 0
    sure: int = 0
    sure_agreeing: int = 0
    first: list[AnyArray] = field(default_factory=list)
    moved: float = 0.0
    expected_moved: float = 0.0

    def add(self, ours: AnyArray, theirs: AnyArray) -> None:
        """Take one batch in."""
        found = measured(ours, theirs)
        self.absolute = max(self.absolute, found.absolute)
        self.scale = max(self.scale, found.scale)
        if not found.comparable:
            return
        ours = ours.astype(np.float64)
        theirs = theirs.astype(np.float64)
        with np.errstate(invalid="ignore"):
            self.noise += float(np.square(np.nan_to_num(ours - theirs)).sum())
            self.signal += float(np.square(theirs[np.isfinite(theirs)]).sum())
            self._movement(ours, theirs)
        if theirs.ndim == 2 and theirs.shape[1] > 1:
            self._scores(ours, theirs, found.scale)

    def _movement(self, ours: AnyArray, theirs: AnyArray) -> None:
        """How far outputs went from the very first sample's."""
        if not self.first:
            self.first = [ours[:1].copy(), theirs[:1].copy()]
        one, other = self.first
        self.moved = max(self.moved, float(np.abs(ours - one).max(initial=0.0)))
        self.expected_moved = max(
            self.expected_moved, float(np.abs(theirs - other).max(initial=0.0))
        )

    def _scores(self, ours: AnyArray, theirs: AnyArray, scale: float) -> None:
        self.scores = True
        self.samples += len(theirs)
        self.agreeing += first_choices(ours, theirs, 0.0)
        ordered = np.sort(theirs, axis=1)
        sure = ordered[:, -1] - ordered[:, -2] > _SURE * scale
        self.sure += int(sure.sum())
        if sure.any():
            self.sure_agreeing += first_choices(ours[sure], theirs[sure], 0.0)

    def result(self) -> OutputAgreement:
        """The figures."""
        relative = 0.0
        if self.absolute:
            relative = self.absolute / self.scale if self.scale else inf
        decibels = inf
        if self.noise:
            decibels = 10 * log10(self.signal / self.noise) if self.signal else -inf
        return OutputAgreement(
            self.name,
            relative,
            self.absolute,
            decibels,
            Choices(self.agreeing, self.samples) if self.scores else None,
            Choices(self.sure_agreeing, self.sure) if self.scores else None,
        )


def _nonsense(precision: Precision, tally: _Tally, output: OutputAgreement) -> str:
    """What is wrong with an output, in words; empty where nothing is."""
    if not isfinite(output.absolute):
        return "is not finite, or has another shape"
    if not tally.moved and tally.expected_moved > _VARIES * tally.scale:
        return "is the same for every input"
    if precision == "float16":
        if output.difference > _FAR:
            return f"differs by {output.difference:.1e} of its largest value"
        return ""
    if output.decibels < _NOISE_DB:
        return f"has {output.decibels:.1f} dB of signal to noise"
    sure = output.sure
    if sure and sure.samples >= _FEWEST and sure.agreeing < _LEAST_AGREEING * sure.samples:
        return f"has torch's first choice for {sure.agreeing} of {sure.samples} samples only"
    return ""


def _refuse(
    precision: Precision,
    name: str,
    wrong: str,
    layers: LayerWise,
    feeds: Mapping[str, AnyArray],
    level: Level,
) -> None:
    suspects: Sequence[str] = [
        layer.path
        for layer in layers.compare(feeds, level, _LAYER_LIMITS[precision])
        if layer.fails
    ][:1]
    place = f"; the first layer that is far off is `{suspects[0]}`" if suspects else ""
    raise VerificationFailure(
        f"in {precision}, output `{name}` {wrong}{place}",
        path=suspects[0] if suspects else None,
        help="keep that layer in float32" if suspects else "",
    )
