"""`cnnspec check --gradients`: what a check of gradients found, as lines.

The work is done by `cnnspec.backends.torch.gradients`.
"""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.api import Network
from cnnspec.backends.torch.gradients import GradientReport, Slope
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import quantity

__all__ = ["gradients_right"]

_SHOWN = 8


def gradients_right(network: Network, terminal: Terminal) -> bool:
    """Check the gradients of a network, say what came of it, and whether all are right."""
    report = network.check_gradients()
    terminal.write("\n".join(_lines(network, report)))
    return not report.wrong


def _lines(network: Network, report: GradientReport) -> Iterator[str]:
    sizes = ", ".join(
        f"{name} {'x'.join(map(str, shape))}" for name, shape in report.inputs.items()
    )
    yield (
        f"{network.name}: gradients for {sizes}, batch {report.batch}, "
        f"{quantity(report.passes, 'evaluation')} in float64"
    )
    yield from _table(sorted(report.slopes, key=lambda slope: -slope.error))
    if report.weak:
        yield f"  {quantity(len(report.weak), 'gradient')} too small to be told from rounding"
    if not report.wrong:
        checked = quantity(len(report.slopes), "gradient")
        yield f"{checked}: all right, the worst off by {report.worst:.1e}"
        return
    wrong = quantity(len(report.wrong), "gradient")
    yield f"error: {wrong} of {len(report.slopes)} {_are(len(report.wrong))} wrong"
    for path in report.to_blame:
        op = network.graph.by_path[path].op.name
        yield f"  layer `{path}` ({op}) has a wrong gradient by itself"
    if not report.to_blame:
        yield "  every layer by itself has the right one: what is wrong lies between layers"


def _table(slopes: list[Slope]) -> Iterator[str]:
    """The worst, all that are wrong among them."""
    count = max(_SHOWN, sum(not slope.right for slope in slopes))
    rows = [("weight or input", "layer", "shape", "error")]
    rows += [
        (slope.name, slope.op, "x".join(map(str, slope.shape)) or "1", f"{slope.error:.1e}")
        for slope in slopes[:count]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
    if len(slopes) > count:
        yield f"  and {len(slopes) - count} more, each off by at most {slopes[count].error:.1e}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
