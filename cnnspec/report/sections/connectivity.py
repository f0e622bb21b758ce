"""The section of a report that compares dense, local and shared weights, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, shape_text
from cnnspec.passes.connectivity import Connectivity, connectivity
from cnnspec.report.columns import Column, Subject
from cnnspec.report.model import Figures, Report
from cnnspec.report.numbers import exact, short
from cnnspec.report.panel import Entry, figure, panel
from cnnspec.report.styled import Line, visible

__all__ = ["ConnectivitySection"]

_FIGURES = {
    "dense": "weights if every unit read every input",
    "local": "weights if no two units shared any: one for each connection, the padding counted",
    "shared": "weights that there are, without biases",
}


@dataclass(frozen=True)
class ConnectivitySection:
    """Weights of layers were they dense or local, beside what they are; `layer` singles one out.

    Raises `EnvironmentFailure` for a layer that does not exist or has no units.
    """

    report: Report
    layer: str | None = None

    key = "connectivity"

    def __post_init__(self) -> None:
        if self.layer is None:
            return
        node = self.report.graph.by_path.get(self.layer)
        if node is None:
            near = did_you_mean(self.layer, self.report.graph.by_path)
            raise EnvironmentFailure(f"there is no layer `{self.layer}`", help=near)
        if self.counts[node.index] is None:
            raise EnvironmentFailure(
                f"`{self.layer}` is `{node.op.name}`, which has no connections of its own"
            )

    @cached_property
    def counts(self) -> tuple[Connectivity | None, ...]:
        """Those of each node."""
        return connectivity(self.report.graph, self.report.facts)

    @property
    def columns(self) -> Mapping[str, Column]:
        """`dense`, `local` and `shared`."""
        return {name: self._column(name, help) for name, help in _FIGURES.items()}

    def _column(self, name: str, help: str) -> Column:
        def of(subject: Subject) -> int:
            return self._sum(name, subject.row.nodes)

        return Column(
            name,
            lambda subject: exact(of(subject)) if of(subject) else "-",
            lambda figures: exact(self._total(name, figures)),
            help=help,
            order=of,
        )

    def _sum(self, name: str, nodes: Sequence[int] | range) -> int:
        found = (self.counts[node] for node in nodes)
        return sum(getattr(counts, name) for counts in found if counts is not None)

    def _total(self, name: str, figures: Figures) -> int:
        graph = self.report.graph
        whole = figures is not self.report.totals
        return self._sum(name, range(len(graph.nodes)) if whole else sorted(graph.inference))

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """Weights of each layer, None where there are no units."""
        names = {
            "dense_weights": "dense",
            "local_weights": "local",
            "local_weights_inside": "inside",
            "shared_weights": "shared",
        }
        return {
            key: [None if counts is None else getattr(counts, name) for counts in self.counts]
            for key, name in names.items()
        }

    def lines(self, width: int) -> Iterator[Line]:
        """Three counts, of the network or of the layer that was named."""
        if self.layer is None:
            yield [("weights of all layers, were they", "bold")]
            yield from panel(self._network(), width)
        else:
            node = self.report.graph.by_path[self.layer]
            at = self.report.graph.site(node)
            yield [
                (f"weights of {visible(self.layer)}, were it", "bold"),
                (
                    f"  {node.op.name}, {shape_text(at.x.shape)} to {shape_text(at.y.shape)}",
                    "dim",
                ),
            ]
            yield from panel(self._one(), width)

    def _network(self) -> Iterator[Entry]:
        totals = self.report.totals
        dense, local, inside, shared = (
            self._total(name, totals) for name in ("dense", "local", "inside", "shared")
        )
        yield figure("dense", dense, "every unit reads every input of its layer: O((HW)^2)")
        padded = f", {exact(local - inside)} of them on padding" if local != inside else ""
        yield figure("local", local, f"a weight for each connection{padded}: O(HW*mn)")
        yield figure("shared", shared, "as they are, biases not counted: O(mn)")
        yield from _ratios(dense, local, shared)

    def _one(self) -> Iterator[Entry]:
        counts = self._named
        each = f"each of {exact(counts.units)} units"
        yield figure("dense", counts.dense, f"{exact(counts.inputs)} inputs for {each}: O((HW)^2)")
        reads = f"{counts.local / counts.units:g} connections a unit, a weight for each"
        padding = counts.local - counts.inside
        padded = f", {exact(padding)} of them on padding" if padding else ""
        yield figure("local", counts.local, f"{reads}{padded}: O(HW*mn)")
        yield figure("shared", counts.shared, "as it is, biases not counted: O(mn)")
        yield from _ratios(counts.dense, counts.local, counts.shared)

    @property
    def _named(self) -> Connectivity:
        assert self.layer is not None  # asked only where a layer is named
        counts = self.counts[self.report.graph.by_path[self.layer].index]
        assert counts is not None  # seen to when the section was made
        return counts

    def to_dict(self) -> dict[str, Any]:
        """The counts of the network, and with `layer` those of that layer."""
        totals = self.report.totals
        found: dict[str, Any] = {
            "dense_weights": self._total("dense", totals),
            "local_weights": self._total("local", totals),
            "local_weights_inside": self._total("inside", totals),
            "shared_weights": self._total("shared", totals),
        }
        if self.layer is not None:
            counts = self._named
            found["layer"] = {
                "path": self.layer,
                "inputs": counts.inputs,
                "units": counts.units,
                "dense_weights": counts.dense,
                "local_weights": counts.local,
                "local_weights_inside": counts.inside,
                "shared_weights": counts.shared,
            }
        return found


def _ratios(dense: int, local: int, shared: int) -> Iterator[Entry]:
    if shared and dense:
        yield Entry(
            "",
            "",
            "",
            f"dense is {_times(dense, local)} local, local is {_times(local, shared)} shared",
        )


def _times(more: int, less: int) -> str:
    """How many times as much."""
    ratio = more / less if less else 0.0
    return f"{short(round(ratio))} x" if ratio >= 100 else f"{ratio:.3g} x"
