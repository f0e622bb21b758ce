"""The columns of the table of layers: what each says of a row, and of a row of sums.

Declared once, in `COLUMNS`; a `Section` may bring more. Layout is made in `table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.diagnostics import shape_text
from cnnspec.ir import Scope
from cnnspec.report.arguments import arguments_text, named_arguments
from cnnspec.report.fields import field_text
from cnnspec.report.model import Figures, Layer, Report, intensity
from cnnspec.report.numbers import binary_size, exact, percent
from cnnspec.report.tree import Row

__all__ = ["COLUMNS", "Column", "Subject"]

_BAR = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """What a row says: its place in the tree and the layers it stands for."""

    report: Report
    row: Row
    layers: Sequence[Layer]

    def sum(self, figure: str) -> int:
        """A figure summed over the layers."""
        return sum(getattr(layer, figure) for layer in self.layers)


class Column(NamedTuple):
    """A column: its heading, the text of a row, and the text of a row of sums."""

    title: str
    cell: Callable[[Subject], str]
    total: Callable[[Figures], str] = lambda figures: ""
    left: bool = False
    help: str = ""
    order: Callable[[Subject], float] | None = None
    """What `--sort` puts the largest of first; None where a column has no order."""


def _count(figure: str, title: str, help: str) -> Column:
    """A column of exact numbers that add up."""
    return Column(
        title,
        lambda subject: exact(subject.sum(figure)) if subject.sum(figure) else "-",
        lambda figures: exact(getattr(figures, figure)),
        help=help,
        order=lambda subject: subject.sum(figure),
    )


def _share(figure: str, title: str, help: str) -> Column:
    """A column that says which part of the inference graph's total a row is."""

    def cell(subject: Subject) -> str:
        part = sum(getattr(layer, figure) for layer in subject.layers if not layer.training_only)
        whole = getattr(subject.report.totals, figure)
        if not part or not whole:
            return ""
        return f"{_bar(part, whole)} {percent(part, whole):>6}"

    return Column(title, cell, left=True, help=help, order=lambda subject: subject.sum(figure))


def _bar(part: int, whole: int) -> str:
    """A bar of up to `_BAR` cells, in eighths of a cell."""
    eighths = round(8 * _BAR * part / whole)
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)).ljust(_BAR)


def _output(subject: Subject) -> str:
    value = subject.row.value
    return "" if value is None else shape_text(subject.report.graph.tensors[value].shape)


def _field(subject: Subject) -> str:
    value = subject.row.value
    return "" if value is None else field_text(subject.report.fields_of(value)) or "-"


def _elements(subject: Subject) -> float:
    value = subject.row.value
    return 0 if value is None else subject.report.graph.tensors[value].elements


def _field_size(subject: Subject) -> float:
    value = subject.row.value
    fields = (subject.report.fields_of(value) if value is not None else None) or ()
    return max((field.field.size or 0 for field in fields), default=0)


def _arguments(subject: Subject) -> str:
    member = subject.row.member
    if member is None:
        return ""
    if isinstance(member, Scope):
        return arguments_text(member.arguments)
    graph = subject.report.graph
    node = graph.nodes[member]
    reads = [graph.value_name(value) for value in node.inputs]
    return arguments_text(named_arguments(node.op, reads), type(node.op))


def _inputs(subject: Subject) -> str:
    member = subject.row.member
    if not isinstance(member, int):
        return ""
    return ", ".join(subject.report.layers[member].inputs)


def _lines(subject: Subject) -> str:
    member = subject.row.member
    if member is None:
        return ""
    span = member.span if isinstance(member, Scope) else subject.report.graph.nodes[member].span
    return str(span.line)


def _size(figure: str, title: str, help: str) -> Column:
    """A column of bytes that add up, where there is a figure of the whole with its sum."""

    def total(figures: Figures) -> str:
        whole = getattr(figures, figure, None)
        return "" if whole is None else binary_size(whole)

    return Column(
        title,
        lambda subject: binary_size(n) if (n := subject.sum(figure)) else "-",
        total,
        help=help,
        order=lambda subject: subject.sum(figure),
    )


def _moved(subject: Subject) -> int:
    return subject.sum("bytes_read") + subject.sum("bytes_written")


def _intensity(subject: Subject) -> float | None:
    flops = subject.sum("flops") * subject.report.options.batch
    return intensity(flops, _moved(subject))


def _per_byte(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:,.1f}"


def _live(subject: Subject) -> int:
    return max((layer.live_bytes for layer in subject.layers), default=0)


COLUMNS: Mapping[str, Column] = {
    "output": Column("output", _output, left=True, help="shape of the output", order=_elements),
    "params": _count("params", "params", "parameters, shared ones once"),
    "params%": _share("params", "share", "part of all parameters"),
    "macs": _count("macs", "MACs", "multiply-accumulates"),
    "macs%": _share("macs", "share", "part of all multiply-accumulates"),
    "field": Column(
        "field/stride",
        _field,
        left=True,
        help="receptive field and its stride",
        order=_field_size,
    ),
    "args": Column("arguments", _arguments, left=True, help="arguments that are not defaults"),
    "flops": _count("flops", "FLOPs", "two for each multiply-accumulate, one for all else"),
    "weights": _count("weights", "weights", "parameters that are not biases"),
    "biases": _count("biases", "biases", "biases"),
    "buffers": _count("buffers", "buffers", "stored elements that are not learned"),
    "connections": _count("connections", "connections", "links between units, without biases"),
    "units": _count("units", "units", "output elements of layers that have units"),
    "activations": _count("activations", "activations", "output elements"),
    "macts": _count("macts", "macts", "output elements of layers with multiply-accumulates"),
    "padding_macs": _count("padding_macs", "on padding", "multiply-accumulates with padding"),
    "memory": _size("output_bytes", "memory", "bytes of the outputs"),
    "live": Column(
        "alive",
        lambda subject: binary_size(_live(subject)) if _live(subject) else "-",
        lambda figures: binary_size(figures.peak_activation_bytes),
        help="bytes of activations alive while the layer runs",
        order=_live,
    ),
    "saved": _size("saved_bytes", "saved", "bytes kept for backward and by no layer before"),
    "bytes": Column(
        "moved",
        lambda subject: binary_size(_moved(subject)) if _moved(subject) else "-",
        lambda figures: binary_size(figures.bytes_read + figures.bytes_written),
        help="bytes read and written, weights among them",
        order=_moved,
    ),
    "intensity": Column(
        "FLOP/byte",
        lambda subject: _per_byte(_intensity(subject)),
        lambda figures: _per_byte(figures.intensity),
        help="FLOPs for each byte moved",
        order=lambda subject: _intensity(subject) or 0,
    ),
    "inputs": Column("inputs", _inputs, left=True, help="what the layer reads"),
    "line": Column("line", _lines, help="line of the spec"),
    **{
        name: Column(
            name,
            lambda subject, name=name: (  # type: ignore[misc]  # binds the loop's name
                exact(n)
                if (n := sum(getattr(layer.ops, name) for layer in subject.layers))
                else "-"
            ),
            lambda figures, name=name: exact(getattr(figures.ops, name)),  # type: ignore[misc]
            help=f"operations of kind {name}",
            order=lambda subject, name=name: sum(  # type: ignore[misc]
                getattr(layer.ops, name) for layer in subject.layers
            ),
        )
        for name in ("add", "mul", "cmp", "div", "exp")
    },
}
"""Columns by the name that `--columns` takes; the tree of layers always comes first."""
