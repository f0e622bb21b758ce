"""The section of a report that shows a network as another tool counts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnnspec.diagnostics import quantity
from cnnspec.lenses import LENSES, Reading, read
from cnnspec.report.columns import Column, Subject
from cnnspec.report.model import Report
from cnnspec.report.numbers import exact
from cnnspec.report.panel import Entry, panel
from cnnspec.report.styled import Line

__all__ = ["LensSection", "difference_entries", "reading_document", "signed", "total_text"]

_LISTED = 4


@dataclass(frozen=True)
class LensSection:
    """What the tool called `name` (one of `LENSES`) counts, layer by layer, and prints."""

    report: Report
    name: str

    @property
    def key(self) -> str:
        """`as_thop`."""
        return f"as_{self.name}"

    @cached_property
    def reading(self) -> Reading:
        """The network through the lens."""
        return read(self.report.graph, self.report.facts, LENSES[self.name])

    @property
    def columns(self) -> Mapping[str, Column]:
        """One, named for the tool."""
        reading = self.reading
        return {
            self.name: Column(
                f"as {self.name}",
                self._cell,
                lambda figures: total_text(reading) if figures is self.report.totals else "",
                help=f"what {self.name} counts for the layer",
                order=self._sum,
            )
        }

    def _counts(self, subject: Subject) -> list[int | None]:
        return [self.reading.counts[node] for node in subject.row.nodes]

    def _cell(self, subject: Subject) -> str:
        counts = self._counts(subject)
        if None in counts:
            return "unknown"
        return exact(self._sum(subject)) if any(counts) else "-"

    def _sum(self, subject: Subject) -> int:
        return sum(count for count in self._counts(subject) if count is not None)

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """The tool's count of every layer, None where it is not known."""
        return {self.key: self.reading.counts}

    def lines(self, width: int) -> Iterator[Line]:
        """What the tool prints, and how its count comes from our MACs."""
        lens = self.reading.lens
        yield [(f"as {lens.tool} counts", "bold"), (f"  {lens.call}", "dim")]
        failed = [Entry("prints", "an error")]
        yield from panel([Entry(*line) for line in self.reading.printed] or failed, width)
        yield []
        yield from panel(difference_entries(self.reading), width)

    def to_dict(self) -> dict[str, Any]:
        """As `reading_document` says it."""
        return reading_document(self.reading)


def signed(amount: int) -> str:
    """A difference with its sign."""
    return f"{amount:+,}"


def total_text(reading: Reading) -> str:
    """A tool's count for the network, where it would not fail."""
    return reading.status if reading.fails else exact(reading.total)


def difference_entries(reading: Reading) -> Iterator[Entry]:
    """From our MACs to a tool's count: lines whose figures add up."""
    lens = reading.lens
    yield Entry("our MACs", exact(reading.macs))
    for cause in reading.causes:
        remark = f"{cause.why} ({quantity(cause.layers, 'layer')})"
        yield Entry(cause.target, signed(cause.amount), "", remark)
    yield Entry(lens.name, exact(reading.total), "", lens.figure)
    for why, paths in reading.unknown.items():
        further = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
        yield Entry("", "", reading.status, f"{why}: {', '.join(paths[:_LISTED])}{further}")


def reading_document(reading: Reading) -> dict[str, Any]:
    """A network through a lens, as JSON says it; figures of single layers apart."""
    lens = reading.lens
    return {
        "tool": lens.tool,
        "call": lens.call,
        "figure": lens.figure,
        "status": reading.status,
        "total": reading.total,
        "params": reading.params,
        "macs": reading.macs,
        "printed": {printed.label: printed.text for printed in reading.printed},
        "causes": [cause._asdict() for cause in reading.causes],
        "unknown": [{"why": why, "layers": list(paths)} for why, paths in reading.unknown.items()],
    }
