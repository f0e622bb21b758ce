"""The table that `cnnspec analyze` prints: a tree of layers, their figures, totals, warnings.

The layout is made here, for a given width; the rows that end the tree add up to the totals below
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, shape_text
from cnnspec.passes.sites import Sites
from cnnspec.report.columns import COLUMNS, Column, Subject
from cnnspec.report.model import Figures, Report
from cnnspec.report.panel import panel, total_entries
from cnnspec.report.render import count_line, diagnostic_lines
from cnnspec.report.section import Section
from cnnspec.report.styled import Line, as_plain, as_text, display_width, fit, visible
from cnnspec.report.tree import Row, ends, flat, grow, rest

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["MOST_ROWS", "render_table"]

MOST_ROWS = 60
"""Rows that a table without an explicit depth is kept to, where the network's tree allows it."""
_GAP = "  "
_LEAST_LAYER = 18
_WIDE = 100
_MINOR = "dim"
_HEADING = "bold"


_NARROW = ("output", "params", "macs", "field")
_BROAD = ("output", "params", "params%", "macs", "macs%", "field")


@overload
def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    top: int | None = None,
    sections: Sequence[Section] = (),
    colour: Literal[False] = False,
) -> str: ...


@overload
def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    top: int | None = None,
    sections: Sequence[Section] = (),
    colour: bool,
) -> str | Text: ...


def render_table(
    report: Report,
    *,
    width: int,
    depth: int | None = None,
    columns: Sequence[str] | None = None,
    sort: str | None = None,
    top: int | None = None,
    sections: Sequence[Section] = (),
    colour: bool = False,
) -> str | Text:
    """The whole report for a terminal of `width` columns.

    `depth` is the number of levels of the tree to show; without it as many as fit in `MOST_ROWS`
    rows. `columns` are names from `COLUMNS`, or of columns that one of `sections` brings; what
    sections have to say of the whole follows the totals. With `sort`, a column's name, there is no
    tree: single layers stand in the order of that column, largest first, or with a depth what ends
    the tree there; `top` of them, and a row for the rest. Plain text, or a rich `Text` with
    `colour`. A table that cannot be squeezed into `width` without losing digits is wider. Raises
    `EnvironmentFailure` for a column or depth that does not exist.
    """
    if depth is not None and depth < 1:
        raise EnvironmentFailure(f"a depth of {depth} shows nothing", help="depths start at 1")
    known = {**COLUMNS, **{name: c for section in sections for name, c in section.columns.items()}}
    chosen = [_known(name, known) for name in _names(columns, sections, sort, width)]
    rows = grow(report.graph, report.facts[Sites], depth, MOST_ROWS)
    if sort is not None:
        rows = flat(report.graph) if depth is None else ends(rows)
        rows = _ranked(report, rows, sort, known, top)
    lines = [*_title(report), [], *_table(report, chosen, rows, width), []]
    lines.extend(panel(total_entries(report), width))
    for section in sections:
        lines.extend(([], *section.lines(width)))
    for warning in report.warnings:
        lines.extend(([], *diagnostic_lines(warning, width)))
    if report.warnings:
        lines.extend(([], [(count_line(report.warnings), "bold yellow")]))
    return as_text(lines) if colour else as_plain(lines)


def _names(
    columns: Sequence[str] | None, sections: Sequence[Section], sort: str | None, width: int
) -> list[str]:
    """The columns asked for; else the usual ones, those of the sections and the one sorted by."""
    if columns is not None:
        return list(columns)
    names = list(_BROAD if width >= _WIDE and not sections else _NARROW)
    names.extend(name for section in sections for name in section.columns)
    return names if sort is None or sort in names else [*names, sort]


def _known(name: str, known: Mapping[str, Column]) -> Column:
    if name not in known:
        raise EnvironmentFailure(
            f"there is no column `{name}`",
            help=did_you_mean(name, known) or f"columns are {', '.join(known)}",
        )
    return known[name]


def _ranked(
    report: Report, rows: Sequence[Row], by: str, known: Mapping[str, Column], top: int | None
) -> list[Row]:
    """Rows in the order of a column, the largest first, and one row for all but the `top`."""
    order = _known(by, known).order
    if order is None:
        sortable = ", ".join(name for name, column in known.items() if column.order)
        raise EnvironmentFailure(
            f"column `{by}` has no order", help=f"columns that have one are {sortable}"
        )
    ranked = sorted(rows, key=lambda row: order(_subject(report, row)), reverse=True)
    if top is None or len(ranked) <= top:
        return ranked
    return [*ranked[:top], rest(ranked[top:])]


def _subject(report: Report, row: Row) -> Subject:
    return Subject(report, row, [report.layers[node] for node in row.nodes])


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
    report: Report, columns: Sequence[Column], rows: Sequence[Row], width: int
) -> Iterator[Line]:
    subjects = [_subject(report, row) for row in rows]
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


def _label(subject: Subject) -> _Label:
    row = subject.row
    guides = "".join("   " if last else "│  " for last in row.last[1:-1])
    branch = guides + ("└─ " if row.last[-1] else "├─ ") if row.level else ""
    mark = ""
    if subject.layers and all(layer.training_only for layer in subject.layers):
        mark = " (unused)" if all(layer.dead for layer in subject.layers) else " (training only)"
    times = f" x{row.count}" if row.count > 1 else ""
    return _Label(
        branch, visible(row.name), f" {visible(row.kind)}" if row.kind else "", times, mark
    )
