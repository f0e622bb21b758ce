"""The layers as a Markdown table, for pull requests and papers."""

from __future__ import annotations

from collections.abc import Sequence

from cnnspec.diagnostics import shape_text
from cnnspec.report.fields import field_text
from cnnspec.report.model import Figures, Report
from cnnspec.report.numbers import binary_size, exact, short
from cnnspec.report.section import Section
from cnnspec.report.styled import as_plain, visible

__all__ = ["cell", "fenced", "row", "to_markdown"]

_HEADER = ("layer", "operation", "output", "params", "MACs", "field/stride")
_WIDTH = 100


def to_markdown(report: Report, sections: Sequence[Section] = ()) -> str:
    """A title, the layers with their totals, the figures of the whole network, sections."""
    totals = report.totals
    shapes = ", ".join(f"{name} {shape_text(shape)}" for name, shape in report.inputs.items())
    rows: list[tuple[str, ...]] = [
        (
            f"`{layer.path}`",
            cell(layer.op) + (" (training only)" if layer.training_only else ""),
            shape_text(layer.output_shape),
            exact(layer.params),
            exact(layer.macs),
            cell(field_text(layer.receptive_field)),
        )
        for layer in report.layers
    ]
    rows.append(_sums("total", totals))
    if any(layer.training_only for layer in report.layers):
        rows.append(_sums("total with training outputs", totals.training))
    lines = [
        f"## {cell(report.name)}",
        "",
        row(_HEADER),
        "| --- | --- | --- | ---: | ---: | --- |",
        *map(row, rows),
        "",
        f"Input {cell(shapes)}. "
        f"{short(totals.params)} params ({binary_size(totals.weight_bytes)}), "
        f"{short(totals.macs)} MACs, {short(totals.flops)} FLOPs, "
        f"peak activations {binary_size(totals.peak_activation_bytes)} "
        f"at batch {report.options.batch} in {report.options.dtype}.",
    ]
    for section in sections:
        lines.extend(fenced(section))
    return "\n".join(lines) + "\n"


def fenced(section: Section) -> tuple[str, ...]:
    """The lines of a section as text that keeps its columns."""
    return "", "```text", as_plain(section.lines(_WIDTH)).rstrip(), "```"


def _sums(name: str, figures: Figures) -> tuple[str, ...]:
    return f"**{name}**", "", "", f"**{exact(figures.params)}**", f"**{exact(figures.macs)}**", ""


def row(cells: Sequence[str]) -> str:
    """A row of a table of cells that are safe."""
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&!~$" else c for c in visible(text))
