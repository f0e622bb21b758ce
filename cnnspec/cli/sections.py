"""Options of `analyze` that add a section to the report: a budget, a device, a lens, formulas."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import OneOf, text
from cnnspec.cli.spec_arguments import given_device
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report import Report, Section

if TYPE_CHECKING:
    from cnnspec.device import Device
    from cnnspec.passes.symbolic import Expand
    from cnnspec.report.sections.budget import Budget, Limit

__all__ = ["Asked", "add_sections"]


def add_sections(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--budget",
        type=text("--budget"),
        action="append",
        default=[],
        metavar="LIMITS",
        help='exit with 1 unless "macs<4.2G, params<26M, peak<8MiB" holds',
    )
    parser.add_argument(
        "--device",
        type=text("--device"),
        metavar="FILE|DEVICE",
        help="least time that a device takes; `nvidia-t4` and others are bundled",
    )
    parser.add_argument(
        "--as",
        dest="tool",
        type=OneOf("--as", _tools),
        metavar="TOOL",
        help="what another tool would print, such as thop or fvcore",
    )
    parser.add_argument(
        "--symbolic",
        action="store_true",
        help="formulas in the input's size, and the sizes that the network takes",
    )
    parser.add_argument(
        "--timeline", action="store_true", help="bytes of activations alive at each layer"
    )
    parser.add_argument(
        "--compare-connectivity",
        dest="connectivity",
        action="store_true",
        help="weights of layers were they dense or local, beside what they are",
    )
    parser.add_argument(
        "--layer",
        type=text("--layer"),
        metavar="PATH",
        help="the layer that --compare-connectivity is about",
    )


def _tools() -> Iterable[str]:
    from cnnspec.lenses import LENSES

    return LENSES


def _limits(given: Iterable[str]) -> Sequence[Limit]:
    from cnnspec.report.sections.budget import parse_budget

    return [limit for text in given for limit in parse_budget(text)]


@dataclass(frozen=True)
class Asked:
    """What the options ask for, read once for all networks."""

    limits: Sequence[Limit]
    device: Device | None
    tool: str | None
    symbolic: bool
    timeline: bool
    connectivity: bool
    layer: str | None

    @classmethod
    def by(cls, options: argparse.Namespace) -> Asked:
        """What `options` ask for. Raises `EnvironmentFailure` for what cannot be read."""
        if options.layer is not None and not options.connectivity:
            raise EnvironmentFailure("--layer is for --compare-connectivity")
        return cls(
            limits=_limits(options.budget) if options.budget else (),
            device=None if options.device is None else given_device(options.device),
            tool=options.tool,
            symbolic=options.symbolic,
            timeline=options.timeline,
            connectivity=options.connectivity,
            layer=options.layer,
        )

    def sections(self, report: Report, resized: Expand) -> list[Section]:
        """The sections of one network, but for the budget."""
        found: list[Section] = []
        if self.tool is not None:
            from cnnspec.report.sections.lens import LensSection

            found.append(LensSection(report, self.tool))
        if self.symbolic:
            from cnnspec.report.sections.symbolic import SymbolicSection

            found.append(SymbolicSection(report, resized))
        if self.timeline:
            from cnnspec.report.sections.timeline import Timeline

            found.append(Timeline(report))
        if self.connectivity:
            from cnnspec.report.sections.connectivity import ConnectivitySection

            found.append(ConnectivitySection(report, self.layer))
        if self.device is not None:
            from cnnspec.report.sections.roofline import RooflineSection

            found.append(RooflineSection(report, self.device))
        return found

    def budget(self, report: Report) -> Budget | None:
        """How one network stands to the limits, if there are any."""
        if not self.limits:
            return None
        from cnnspec.report.sections.budget import Budget

        return Budget(report, self.limits)
