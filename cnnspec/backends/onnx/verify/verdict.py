"""What a proof found, as values: comparisons, the verdict over them, its record for JSON.

How anything is run or measured may not enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnspec.diagnostics import EnvironmentFailure

__all__ = [
    "FAIL_ABOVE",
    "FORMAT",
    "REPORT_ABOVE",
    "Choices",
    "Comparison",
    "LayerComparison",
    "Level",
    "Shapes",
    "Thorough",
    "Verification",
    "VerificationFailure",
    "sum_of",
]

FORMAT = 1
"""Number of the records' format: it grows when a key changes its meaning or goes."""

REPORT_ABOVE = 1e-5
"""Relative difference up to which float32 arithmetic in another order accounts for it."""

FAIL_ABOVE = 1e-4
"""Relative difference above which a model is wrong."""

Thorough = Literal["quick", "full"]
"""How much is tried."""

Level = Literal["none", "extended", "all"]
"""Which optimisations ONNX Runtime was free to make."""


class VerificationFailure(EnvironmentFailure):
    """A model that is not what the graph says. `path` is the first divergent layer, where known."""

    def __init__(self, message: str, *, path: str | None = None, help: str = "") -> None:
        self.path = path
        super().__init__(message, help=help)


@dataclass(frozen=True, slots=True)
class Choices:
    """Samples whose highest score is at the same place as torch's: `agreeing` of `samples`."""

    agreeing: int
    samples: int

    def to_json(self) -> dict[str, int]:
        """As JSON says it."""
        return {"agreeing": self.agreeing, "samples": self.samples}


def sum_of(choices: Sequence[Choices | None]) -> Choices | None:
    """All of them together; None if there are none."""
    found = [each for each in choices if each is not None]
    if not found:
        return None
    return Choices(sum(each.agreeing for each in found), sum(each.samples for each in found))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output for one batch of inputs.

    `difference` is max|ours - torch's| / max|torch's|, `absolute` its numerator. `inputs` says how
    they were drawn, `size` what they were where they were not the network's own, `reference` in
    which type torch computed. `rounding` is how far torch's own float32 is from its float64,
    relative too, where that was asked. `top1` is for scores: outputs of one axis.
    """

    output: str
    batch: int
    inputs: str
    size: str
    level: Level
    reference: Literal["float32", "float64"]
    difference: float
    absolute: float
    silent: bool
    rounding: float | None
    top1: Choices | None

    @property
    def optimised(self) -> bool:
        """Whether ONNX Runtime was free to rewrite the graph."""
        return self.level != "none"

    def to_json(self) -> dict[str, Any]:
        """As JSON says it."""
        return {
            "output": self.output,
            "batch": self.batch,
            "inputs": self.inputs,
            "size": self.size or None,
            "optimisations": self.level,
            "reference": self.reference,
            "relative": self.difference,
            "absolute": self.absolute,
            "silent": self.silent,
            "rounding": self.rounding,
            "top1": self.top1.to_json() if self.top1 else None,
        }


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """What one layer of the file makes of the file's own tensors, against torch's on the same.

    So every layer stands for itself: differences before it do not count. `limit` is the largest
    relative difference it may have, `along` names layers that the file has no tensor for and that
    are compared with it, as a norm that was folded.
    """

    path: str
    tensor: str
    difference: float
    absolute: float
    limit: float
    along: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether the file computes something else."""
        return not self.difference <= self.limit


@dataclass(frozen=True, slots=True)
class Shapes:
    """Tensors whose shape ONNX infers as analysed, and how many it infers in part only."""

    equal: int
    partial: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What was proved of a model; one that fails raises `VerificationFailure` instead."""

    thorough: Thorough
    opset: int
    shapes: Shapes
    comparisons: tuple[Comparison, ...]
    layers: tuple[LayerComparison, ...]
    layers_batch: int
    seconds: float

    @property
    def worst(self) -> Comparison:
        """The comparison that came out worst."""
        return max(self.comparisons, key=lambda comparison: comparison.difference)

    @property
    def worst_layer(self) -> LayerComparison | None:
        """The layer that came out worst; None where no tensor of the file is a layer's."""
        return max(self.layers, key=lambda layer: layer.difference, default=None)

    @property
    def close(self) -> bool:
        """True if every difference of an output is within what float32 accounts for (1e-5)."""
        return self.worst.difference <= REPORT_ABOVE

    @property
    def top1(self) -> Choices | None:
        """First choices of all outputs that are scores; None where there is none."""
        return sum_of([each.top1 for each in self.comparisons])

    @property
    def remarks(self) -> tuple[str, ...]:
        """What makes the proof say less than it seems to."""
        found = [
            f"output `{name}` is zero throughout"
            for name in dict.fromkeys(each.output for each in self.comparisons)
            if all(each.silent for each in self.comparisons if each.output == name)
        ]
        unsteady = [c for c in self.comparisons if (c.rounding or 0.0) > FAIL_ABOVE]
        for name in dict.fromkeys(each.output for each in unsteady):
            worst = max(each.rounding or 0.0 for each in unsteady if each.output == name)
            found.append(
                f"output `{name}` magnifies rounding: float32 in torch is {worst:.0e} from float64"
            )
        layer = self.worst_layer
        if layer is not None and layer.difference > REPORT_ABOVE:
            found.append(f"layer `{layer.path}` alone differs by {layer.difference:.1e}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """The record of the proof: plain values, and the same ones each time but for `seconds`."""
        worst = self.worst_layer
        return {
            "format": FORMAT,
            "kind": "verification",
            "thorough": self.thorough,
            "precision": "float32",
            "verdict": "equal" if self.close else "close",
            "limits": {"equal": REPORT_ABOVE, "fail": FAIL_ABOVE},
            "opset": self.opset,
            "shapes": {"equal": self.shapes.equal, "partial": self.shapes.partial},
            "relative": self.worst.difference,
            "absolute": max(each.absolute for each in self.comparisons),
            "top1": self.top1.to_json() if self.top1 else None,
            "comparisons": [each.to_json() for each in self.comparisons],
            "layers": {
                "compared": len(self.layers),
                "batch": self.layers_batch,
                "worst": worst.path if worst else None,
                "relative": worst.difference if worst else 0.0,
            },
            "remarks": list(self.remarks),
            "seconds": round(self.seconds, 3),
        }
