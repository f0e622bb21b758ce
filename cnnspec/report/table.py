"""The table that `cnnspec analyze` prints: a tree of layers, their figures, totals, warnings.

The layout is made here, for a given width; the rows that end the tree add up to the totals below
them. Columns are declared once, in `COLUMNS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, shape_text
from cnnspec.ir import Scope
from cnnspec.passes.sites import Sites
from cnnspec.report.arguments import arguments_text
from cnnspec.report.fields import field_text
from cnnspec.report.model import Figures, Layer, Report
from cnnspec.report.numbers import binary_size, exact, percent, short
from cnnspec.report.render import count_line, diagnostic_lines
from cnnspec.report.styled import Line, as_plain, as_text, display_width, fit, visible
from cnnspec.report.tree import Row, grow

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["COLUMNS", "MOST_ROWS", "render_table"]

MOST_ROWS = 60
"""Rows that a table without an explicit depth is kept to, where the network's tree allows it."""
_GAP = "  "
_LISTED = 4
_KEPT = ("weights", "gradients", "momentum", "saved for backward")
_LEAST_LAYER = 18
_WIDE = 100
_BAR = 8
_MINOR = "dim"
_HEADING = "bold"


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a row says: its place in the tree and the layers it stands for."""

    report: Report
    row: Row
    layers: Sequence[Layer]

    def sum(self, figure: str) -> int:
        """A figure summed over the layers."""
        return sum(getattr(layer, figure) for layer in self.layers)


class _Column(NamedTuple):
    """A column: its heading, the text of a row, and the text of a row of sums."""

    title: str
    cell: Callable[[_Subject], str]
    total: Callable[[Figures], str] = lambda figures: ""
    left: bool = False
    help: str = ""


def _count(figure: str, title: str, help: str) -> _Column:
    """A column of exact numbers that add up."""
    return _Column(
        title,
        lambda subject: exact(subject.sum(figure)) if subject.sum(figure) else "-",
        lambda figures: exact(getattr(figures, figure)),
        help=help,
    )


def _share(figure: str, title: str, help: str) -> _Column:
    """A column that says which part of the inference graph's total a row is."""

    def cell(subject: _Subject) -> str:
        part = sum(getattr(layer, figure) for layer in subject.layers if not layer.training_only)
        whole = getattr(subject.report.totals, figure)
        if not part or not whole:
            return ""
        return f"{_bar(part, whole)} {percent(part, whole):>6}"

    return _Column(title, cell, left=True, help=help)


def _bar(part: int, whole: int) -> str:
    """A bar of up to `_BAR` cells, in eighths of a cell."""
    eighths = round(8 * _BAR * part / whole)
    full, rest = divmod(eighths, 8)
    return ("█" * full + " ▏▎▍▌▋▊▉"[rest] * (rest > 0)).ljust(_BAR)


def _output(subject: _Subject) -> str:
    value = subject.row.value
    return "" if value is None else shape_text(subject.report.graph.tensors[value].shape)


def _field(subject: _Subject) -> str:
    value = subject.row.value
    return "" if value is None else field_text(subject.report.fields_of(value)) or "-"


def _arguments(subject: _Subject) -> str:
    member = subject.row.member
    if isinstance(member, Scope):
        return arguments_text(member.arguments)
    op = subject.report.graph.nodes[member].op
    return arguments_text(op.arguments(), type(op))


def _inputs(subject: _Subject) -> str:
    member = subject.row.member
    if isinstance(member, Scope):
        return ""
    return ", ".join(subject.report.layers[member].inputs)


def _lines(subject: _Subject) -> str:
    member = subject.row.member
    span = member.span if isinstance(member, Scope) else subject.report.graph.nodes[member].span
    return str(span.line)


def _memory(subject: _Subject) -> str:
    elements = subject.sum("activations")
    return binary_size(4 * elements) if elements else "-"


COLUMNS: Mapping[str, _Column] = {
    "output": _Column("output", _output, left=True, help="shape of the output"),
    "params": _count("params", "params", "parameters, shared ones once"),
    "params%": _share("params", "share", "part of all parameters"),
    "macs": _count("macs", "MACs", "multiply-accumulates"),
    "macs%": _share("macs", "share", "part of all multiply-accumulates"),
    "field": _Column("field/stride", _field, left=True, help="receptive field and its stride"),
    "args": _Column("arguments", _arguments, left=True, help="arguments that are not defaults"),
    "flops": _count("flops", "FLOPs", "two for each multiply-accumulate, one for all else"),
    "weights": _count("weights", "weights", "parameters that are not biases"),
    "biases": _count("biases", "biases", "biases"),
    "buffers": _count("buffers", "buffers", "stored elements that are not learned"),
    "connections": _count("connections", "connections", "links between units, without biases"),
    "units": _count("units", "units", "output elements of layers that have units"),
    "activations": _count("activations", "activations", "output elements"),
    "macts": _count("macts", "macts", "output elements of layers with multiply-accumulates"),
    "memory": _Column("memory", _memory, help="bytes of the outputs in float32"),
    "inputs": _Column("inputs", _inputs, left=True, help="what the layer reads"),
    "line": _Column("line", _lines, help="line of the spec"),
    **{
        name: _Column(
            name,
            lambda subject, name=name: (  # type: ignore[misc]  # binds the loop's name
                exact(n)
                if (n := sum(getattr(layer.ops, name) for layer in subject.layers))
                else "-"
            ),
            lambda figures, name=name: exact(getattr(figures.ops, name)),  # type: ignore[misc]
            help=f"operations of kind {name}",
        )
        for name in ("add", "mul", "cmp", "div", "exp")
    },
}
"""Columns by the name that `--columns` takes; the tree of layers always comes first."""

_NARROW = ("output", "params", "macs", "field")
_BROAD = ("output", "params", "params%", "macs", "macs%", "field")


@overload
def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    colour: Literal[False] = False,
) -> str: ...


@overload
def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    colour: bool,
) -> str | Text: ...


def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    colour: bool = False,
) -> str | Text:
    """The whole report for a terminal of `width` columns.

    `depth` is the number of levels of the tree to show; without it as many as fit in `MOST_ROWS`
    rows. `columns` are names from `COLUMNS`. Plain text, or a rich `Text` with `colour`. A table
    that cannot be squeezed into `width` without losing digits is wider. Raises
    `EnvironmentFailure` for a column or depth that does not exist.
    """
    if depth is not None and depth < 1:
        raise EnvironmentFailure(f"a depth of {depth} shows nothing", help="depths start at 1")
    chosen = _chosen(columns, width)
    lines = [*_title(report), [], *_table(report, chosen, depth, width), []]
    lines.extend(_totals(report, width))
    for warning in report.warnings:
        lines.extend(([], *diagnostic_lines(warning, width)))
    if report.warnings:
        lines.extend(([], [(count_line(report.warnings), "bold yellow")]))
    return as_text(lines) if colour else as_plain(lines)


def _chosen(columns: Sequence[str] | None, width: int) -> list[_Column]:
    names = columns if columns is not None else _BROAD if width >= _WIDE else _NARROW
    for name in names:
        if name not in COLUMNS:
            raise EnvironmentFailure(
                f"there is no column `{name}`",
                help=did_you_mean(name, COLUMNS) or f"columns are {', '.join(COLUMNS)}",
            )
    return [COLUMNS[name] for name in names]


def _title(report: Report) -> Iterator[Line]:
    shapes = [
        ", ".join(
            shape_text(shape) if len(tensors) == 1 else f"{visible(name)} {shape_text(shape)}"
            for name, shape in tensors.items()
        )
        for tensors in (report.inputs, report.outputs)
    ]
    yield [(visible(report.name), _HEADING), (f"  {shapes[0]} -> {shapes[1]}", _MINOR)]


def _table(
    report: Report, columns: Sequence[_Column], depth: int | None, width: int
) -> Iterator[Line]:
    rows = grow(report.graph, report.facts[Sites], depth, MOST_ROWS)
    subjects = [_Subject(report, row, [report.layers[node] for node in row.nodes]) for row in rows]
    body = [[visible(column.cell(subject)) for column in columns] for subject in subjects]
    labels = [_label(subject) for subject in subjects]
    sums = _sums(report)
    feet = [[column.total(figures) for column in columns] for _, figures in sums]

    cells = [[column.title for column in columns], *body, *feet]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    taken = sum(widths) + len(_GAP) * len(widths)
    natural = max(
        display_width("layer"),
        *(display_width(name) for name, _ in sums),
        *(label.width for label in labels),
    )
    first = min(natural, max(width - taken, _LEAST_LAYER))

    def line(label: Line, texts: Sequence[str], style: str) -> Line:
        padding = first - sum(display_width(text) for text, _ in label)
        pieces: Line = [*label, (" " * padding, "")]
        for text, column, taking in zip(texts, columns, widths, strict=True):
            blank = " " * (taking - display_width(text))
            pieces.append((_GAP + (text + blank if column.left else blank + text), style))
        return pieces

    rule: Line = [("─" * (first + taken), _MINOR)]
    yield line([("layer", _HEADING)], [column.title for column in columns], _HEADING)
    yield rule
    for subject, label, texts in zip(subjects, labels, body, strict=True):
        style = "" if subject.row.ends else _MINOR
        yield line(label.squeezed(first), texts, style)
    yield rule
    for (name, _), texts in zip(sums, feet, strict=True):
        yield line([(fit(name, first), _HEADING)], texts, _HEADING)


def _sums(report: Report) -> list[tuple[str, Figures]]:
    """The rows of sums: a second one where training has more layers than inference."""
    totals = report.totals
    if totals.layers == totals.training.layers:
        return [("total", totals)]
    return [("total (inference)", totals), ("total (all layers)", totals.training)]


class _Label(NamedTuple):
    """What the first column says of a row, piece by piece."""

    branch: str
    name: str
    kind: str
    times: str
    mark: str

    @property
    def width(self) -> int:
        """Columns that all of it takes."""
        return sum(map(display_width, self))

    def squeezed(self, width: int) -> Line:
        """All of it in `width` columns: the mark gives way first, then kind, name and branch."""
        branch, name, kind, times, mark = self
        if self.width > width:
            mark = ""
            kind = fit(kind, max(width - display_width(branch + name + times), 0))
            kind = kind if kind.strip(" …") else ""
            name = fit(name, max(width - display_width(branch + kind + times), 1))
            branch = fit(branch, max(width - display_width(name + kind + times), 0))
        style = "" if branch else _HEADING
        return [(branch, _MINOR), (name, style), (kind + times, "cyan"), (mark, _MINOR)]


def _label(subject: _Subject) -> _Label:
    row = subject.row
    guides = "".join("   " if last else "│  " for last in row.last[1:-1])
    branch = guides + ("└─ " if row.last[-1] else "├─ ") if row.level else ""
    mark = ""
    if subject.layers and all(layer.training_only for layer in subject.layers):
        mark = " (unused)" if all(layer.dead for layer in subject.layers) else " (training only)"
    times = f" x{row.count}" if row.count > 1 else ""
    return _Label(branch, visible(row.name), f" {visible(row.kind)}", times, mark)


def _totals(report: Report, width: int) -> Iterator[Line]:
    """The panel below the table: a figure a line, exact and short, with remarks."""
    entries = list(_entries(report))
    names = max(len(entry.name) for entry in entries)
    values = max(len(entry.value) for entry in entries)
    briefs = max(len(entry.brief) for entry in entries)
    indent = names + values + briefs + 3 * len(_GAP)
    for entry in entries:
        remarks = _wrapped(visible(entry.remark), max(width - indent, 24))
        yield [
            (f"{entry.name:<{names}}", _HEADING),
            (f"{_GAP}{entry.value:>{values}}", ""),
            (f"{_GAP}{entry.brief:>{briefs}}", "cyan"),
            (_GAP + remarks[0], _MINOR),
        ]
        for remark in remarks[1:]:
            yield [(" " * indent + remark, _MINOR)]


def _wrapped(text: str, width: int) -> list[str]:
    """`text` broken at spaces into pieces of at most `width` columns; longer words are cut."""
    pieces = [""]
    for word in text.split(" "):
        grown = f"{pieces[-1]} {word}" if pieces[-1] else word
        if display_width(grown) <= width or not pieces[-1]:
            pieces[-1] = fit(grown, width)
        else:
            pieces.append(fit(word, width))
    return pieces


class _Entry(NamedTuple):
    """A line of the panel: a name, the exact figure, the short one, a remark."""

    name: str
    value: str
    brief: str = ""
    remark: str = ""


def _entries(report: Report) -> Iterator[_Entry]:
    """The lines of the panel."""
    totals = report.totals
    trainable = f"{exact(totals.trainable_params)} trainable"
    frozen = f", {exact(totals.frozen_params)} frozen" if totals.frozen_params else ""
    yield _figure("params", totals.params, trainable + frozen)
    if totals.buffers:
        yield _figure("buffers", totals.buffers)
    yield _size("weight bytes", totals.weight_bytes, "params in float32")
    yield _figure("MACs", totals.macs, "of conv, linear, matmul and attention")
    yield _figure("FLOPs", totals.flops, "2 a MAC, 1 for all else")
    if totals.connections:
        with_bias = f"{exact(totals.connections_with_bias)} with biases"
        yield _figure("connections", totals.connections, with_bias)
    multiplied = f"{exact(totals.macts)} of layers with MACs"
    yield _figure("activations", totals.activations, multiplied)
    yield _size("peak memory", totals.peak_activation_bytes, _peak_remark(report))
    yield _training_memory(report)
    local = report.last_local
    if local is not None:
        yield _Entry("receptive field", field_text(local.receptive_field), "", f"at {local.path}")
    status = report.status["receptive_field"]
    if status.status == "partial":
        yield _Entry("", "", "partial", status.why)


def _figure(name: str, number: int, remark: str = "") -> _Entry:
    return _Entry(name, exact(number), short(number), remark)


def _size(name: str, size: int, remark: str) -> _Entry:
    return _Entry(name, exact(size), binary_size(size), remark)


def _peak_remark(report: Report) -> str:
    """What is alive at the peak."""
    names = list(report.peak_tensors)
    listed = ", ".join(names[:_LISTED])
    further = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"activations at batch 1, alive then: {listed}{further}"


def _training_memory(report: Report) -> _Entry:
    """An estimate of a training step, part by part."""
    kept = report.training_memory
    parts = ", ".join(f"{binary_size(size)} {name}" for name, size in zip(_KEPT, kept, strict=True))
    return _size("training memory", sum(kept), f"estimate at batch 1: {parts}")
