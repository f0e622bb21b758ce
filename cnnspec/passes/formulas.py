"""What is known of a network as a function of its input's sizes: formulas, and sizes it takes.

Values only, for those who ask and those who show; `cnnspec.passes.symbolic` finds them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.symbolic import Formula, Guard, Simplifier, SizeSet

__all__ = ["Domain", "LayerFormulas", "Refusal", "Shape", "Symbols", "Takes", "sure"]

Shape = tuple[Formula, ...]


@dataclass(frozen=True)
class Domain:
    """Sizes for which a formula holds: a set for each size, and conditions on several at once."""

    sizes: Mapping[str, SizeSet]
    further: tuple[Guard, ...] = ()

    @property
    def simplifier(self) -> Simplifier:
        """What is settled about formulas here."""
        return Simplifier.on(self.sizes, self.further)

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether given sizes are among them."""
        return all(sizes[name] in found for name, found in self.sizes.items()) and all(
            guard.holds(sizes) for guard in self.further
        )


@dataclass(frozen=True, slots=True)
class LayerFormulas:
    """Figures of one layer, as in the report: its outputs' shapes, and counts at batch 1."""

    outputs: tuple[Shape, ...]
    macs: Formula
    flops: Formula
    params: Formula
    activations: Formula


class Refusal(NamedTuple):
    """The layer that stops a size, and why."""

    path: str
    message: str


@dataclass(frozen=True)
class Takes:
    """What becomes of each value of one size.

    `along` are the names that have this value at once, `fixed` the others with theirs. `same` are
    the values for which the weights keep their shapes, `builds` those for which the spec makes a
    network, with other weights perhaps. `fixed_by` is the first layer whose weights change, and
    `refusal` what stops the largest of the sizes below them, if there are any. Above `known`
    nothing was found out; None if all sizes were told.
    """

    along: tuple[str, ...]
    fixed: Mapping[str, int]
    same: SizeSet
    builds: SizeSet
    fixed_by: str | None = None
    refusal: Refusal | None = None
    known: int | None = None

    @property
    def smallest(self) -> int | None:
        """The smallest value for the same weights; None where smaller ones were not told."""
        return sure(self.same, self.known)

    @property
    def smallest_built(self) -> int | None:
        """The smallest value that makes a network; None where smaller ones were not told."""
        return sure(self.builds, self.known)


def sure(sizes: SizeSet, known: int | None) -> int | None:
    """The smallest of sizes found up to `known`; None where smaller ones were not told."""
    smallest = sizes.smallest
    return smallest if known is None or smallest is None or smallest <= known + 1 else None


@dataclass(frozen=True)
class Symbols:
    """Everything about a network as a function of the spatial sizes of its inputs.

    `sizes` are names of sizes and what they are in this graph. Where `unavailable` says why, there
    are no formulas: `outputs`, `layers` and `domains` are empty and `totals` is None. `domains` say
    where formulas hold: those of shapes and `macs` under `macs`; `flops`, `params` likewise.
    """

    sizes: Mapping[str, int]
    unavailable: str | None
    outputs: Mapping[str, Shape]
    layers: tuple[LayerFormulas, ...]
    totals: LayerFormulas | None
    domains: Mapping[str, Domain]
    takes: tuple[Takes, ...]

    @property
    def macs(self) -> Formula:
        """Multiply-accumulates of inference; `ValueError` where there is no formula."""
        if self.totals is None:
            raise ValueError(self.unavailable)
        return self.totals.macs
