"""The section of a report that holds a network against a device: floors of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnnspec.device import Device
from cnnspec.passes import Options
from cnnspec.passes.roofline import Roofline, roofline
from cnnspec.report.columns import Column, Subject
from cnnspec.report.model import Report
from cnnspec.report.numbers import duration, percent, short
from cnnspec.report.panel import Entry, panel
from cnnspec.report.styled import Line, visible

__all__ = ["RooflineSection"]


@dataclass(frozen=True)
class RooflineSection:
    """What a device takes at least for each layer, and what each layer waits for."""

    report: Report
    device: Device

    key = "roofline"

    @cached_property
    def model(self) -> Roofline:
        """The floors. Raises `EnvironmentFailure` for a type the device has no rate for."""
        return roofline(self.report.graph, self.report.facts, self.device)

    @property
    def columns(self) -> Mapping[str, Column]:
        """`floor`, its share of the whole, and `bound`."""
        return {
            "floor": Column(
                "time floor",
                lambda subject: duration(seconds) if (seconds := self._floor(subject)) else "-",
                lambda figures: duration(self.model.seconds) if figures is self._totals else "",
                help="least time on the device of --device",
                order=self._floor,
            ),
            "bound": Column(
                "bound by", self._bound, left=True, help="what the layer waits for on that device"
            ),
        }

    @property
    def _totals(self) -> object:
        return self.report.totals

    def _floor(self, subject: Subject) -> float:
        return sum(self.model.nodes[node].seconds for node in subject.row.nodes)

    def _bound(self, subject: Subject) -> str:
        """What all or, with a share, most of the time of a row is spent on."""
        whole = self._floor(subject)
        if not whole:
            return ""
        floors = [self.model.nodes[node] for node in subject.row.nodes]
        computing = sum(floor.seconds for floor in floors if floor.bound == "compute")
        name, part = ("compute", computing) if 2 * computing >= whole else ("memory", whole)
        part = part if name == "compute" else whole - computing
        return name if part >= 0.9995 * whole else f"{name} {part / whole:.0%}"

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """Seconds of each layer, and what it waits for."""
        return {
            "floor_seconds": [floor.seconds for floor in self.model.nodes],
            "bound": [floor.bound or None for floor in self.model.nodes],
        }

    def lines(self, width: int) -> Iterator[Line]:
        """The device, the least time, and what it is spent on."""
        yield [(f"on {visible(self.device.name)}", "bold")]
        yield from panel(self._entries(), width)

    def _entries(self) -> Iterator[Entry]:
        model, options = self.model, self.report.facts[Options]
        batch = f"batch {options.batch}"
        yield Entry(
            "time floor",
            duration(model.seconds),
            "",
            f"a lower bound at {batch} in {options.dtype}: every layer at the data sheet's rates, "
            "reading its inputs and weights from memory and writing its output once; launches and "
            "real kernels take longer, only fusion and caches take less",
        )
        yield (
            Entry(
                "at most",
                f"{short(round(options.batch / model.seconds))}/s",
                "",
                "samples a second",
            )
            if model.seconds
            else Entry("at most", "-", "", "nothing is computed")
        )
        yield Entry(
            "arithmetic",
            duration(model.compute),
            "",
            f"alone, at {short(round(self.device.peak[model.rate]))}op/s in {model.rate}",
        )
        yield Entry(
            "memory",
            duration(model.memory),
            "",
            f"alone, at {short(round(self.device.bandwidth))}B/s; above {model.ridge:,.0f} "
            f"operations a byte a layer is bound by compute, "
            f"{self._bound_share()} of the time is",
        )

    def _bound_share(self) -> str:
        floors = self.model.nodes
        computing = sum(floor.seconds for floor in floors if floor.bound == "compute")
        return percent(round(1e12 * computing), round(1e12 * self.model.seconds)) or "none"

    def to_dict(self) -> dict[str, Any]:
        """The device, sums in seconds, and how sure they are."""
        model, options = self.model, self.report.facts[Options]
        return {
            "device": self.device.name,
            "source": self.device.source,
            "dtype": options.dtype,
            "rate": model.rate,
            "operations_per_second": self.device.peak[model.rate],
            "bytes_per_second": self.device.bandwidth,
            "batch": options.batch,
            "floor_seconds": model.seconds,
            "compute_seconds": model.compute,
            "memory_seconds": model.memory,
            "ridge": model.ridge,
            "status": "lower bound if each layer moves its tensors through memory once",
        }
