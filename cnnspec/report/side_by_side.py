"""Several networks in one table: a row for each, with its totals."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, shape_text
from cnnspec.report.fields import field_text
from cnnspec.report.markdown import cell, fenced, row
from cnnspec.report.model import Report
from cnnspec.report.numbers import binary_size, exact, short
from cnnspec.report.section import Section
from cnnspec.report.styled import Line, as_plain, as_text, display_width, visible

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["FIGURES", "Figure", "side_by_side", "side_by_side_csv", "side_by_side_markdown"]

_GAP = "  "


class Figure(NamedTuple):
    """A column: its heading, its text for people, its plain value, and what sorts it."""

    title: str
    text: Callable[[Report], str]
    value: Callable[[Report], object]
    order: Callable[[Report], float] | None
    left: bool = False


def _count(title: str, name: str) -> Figure:
    def value(report: Report) -> int:
        number: int = getattr(report.totals, name)
        return number

    return Figure(title, lambda report: exact(value(report)), value, value)


def _short(title: str, name: str) -> Figure:
    counted = _count(title, name)
    return counted._replace(text=lambda report: short(getattr(report.totals, name)))


def _bytes(title: str, name: str) -> Figure:
    counted = _count(title, name)
    return counted._replace(text=lambda report: binary_size(getattr(report.totals, name)))


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(map(shape_text, shapes.values()))


def _field(report: Report) -> str:
    layer = report.last_local
    return field_text(layer.receptive_field) if layer is not None else "-"


def _field_size(report: Report) -> float:
    layer = report.last_local
    seen = (layer.receptive_field if layer is not None else None) or ()
    return max((axis.field.size or 0 for axis in seen), default=0)


def _input(report: Report) -> str:
    return _shapes(report.inputs)


def _output(report: Report) -> str:
    return _shapes(report.outputs)


FIGURES: Mapping[str, Figure] = {
    "input": Figure("input", _input, _input, None, left=True),
    "output": Figure("output", _output, _output, None, left=True),
    "layers": _count("layers", "layers"),
    "params": _count("params", "params"),
    "macs": _count("MACs", "macs"),
    "flops": _short("FLOPs", "flops"),
    "macts": _short("macts", "macts"),
    "weights": _bytes("weights", "weight_bytes"),
    "peak": _bytes("peak", "peak_activation_bytes"),
    "field": Figure("field/stride", _field, _field, _field_size, left=True),
}
"""Figures by the name that sorts by them."""


def _sorted(
    networks: Mapping[str, Report], sort: str | None, top: int | None
) -> list[tuple[str, Report]]:
    found = list(networks.items())
    if sort is not None:
        figure = FIGURES.get(sort)
        if figure is None or figure.order is None:
            sortable = [name for name, known in FIGURES.items() if known.order]
            raise EnvironmentFailure(
                f"networks cannot be sorted by `{sort}`",
                help=did_you_mean(sort, sortable) or f"they can by {', '.join(sortable)}",
            )
        order = figure.order
        found.sort(key=lambda item: order(item[1]), reverse=True)
    return found[:top]


@overload
def side_by_side(
    networks: Mapping[str, Report],
    *,
    sort: str | None = None,
    top: int | None = None,
    sections: Mapping[str, Sequence[Section]] | None = None,
    width: int = 120,
    colour: Literal[False] = False,
) -> str: ...


@overload
def side_by_side(
    networks: Mapping[str, Report],
    *,
    sort: str | None = None,
    top: int | None = None,
    sections: Mapping[str, Sequence[Section]] | None = None,
    width: int = 120,
    colour: bool,
) -> str | Text: ...


def side_by_side(
    networks: Mapping[str, Report],
    *,
    sort: str | None = None,
    top: int | None = None,
    sections: Mapping[str, Sequence[Section]] | None = None,
    width: int = 120,
    colour: bool = False,
) -> str | Text:
    """A table of networks by name; `top` of them, the largest of `sort` first.

    `sections` of networks by name follow it, laid out for `width`.
    """
    chosen = _sorted(networks, sort, top)
    cells = [["network", *(figure.title for figure in FIGURES.values())]]
    for name, report in chosen:
        cells.append([visible(name), *(visible(f.text(report)) for f in FIGURES.values())])
    left = [True, *(figure.left for figure in FIGURES.values())]
    widths = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    lines: list[Line] = []
    for number, texts in enumerate(cells):
        pieces = [
            text + pad if aligned else pad + text
            for text, aligned, pad in zip(texts, left, _padding(texts, widths), strict=True)
        ]
        lines.append([(_GAP.join(pieces), "" if number else "bold")])
        if not number:
            lines.append([("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), "dim")])
    for name, added in (sections or {}).items():
        for section in added:
            lines.extend(([], [(visible(name), "bold")], *section.lines(width)))
    return as_text(lines) if colour else as_plain(lines)


def _padding(texts: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
    return (" " * (w - display_width(text)) for text, w in zip(texts, widths, strict=True))


def side_by_side_csv(
    networks: Mapping[str, Report], *, sort: str | None = None, top: int | None = None
) -> str:
    """The table as comma-separated values, every digit kept."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("network", *FIGURES))
    for name, report in _sorted(networks, sort, top):
        writer.writerow((name, *(figure.value(report) for figure in FIGURES.values())))
    return out.getvalue()


def side_by_side_markdown(
    networks: Mapping[str, Report],
    *,
    sort: str | None = None,
    top: int | None = None,
    sections: Mapping[str, Sequence[Section]] | None = None,
) -> str:
    """The table in Markdown, and `sections` of networks by name below it."""
    titles = ("network", *(figure.title for figure in FIGURES.values()))
    rules = ("---", *("---" if figure.left else "---:" for figure in FIGURES.values()))
    lines = [row(titles), row(rules)]
    for name, report in _sorted(networks, sort, top):
        lines.append(row((cell(name), *(cell(f.text(report)) for f in FIGURES.values()))))
    for name, added in (sections or {}).items():
        for section in added:
            lines.extend(("", f"### {cell(name)}", *fenced(section)))
    return "\n".join(lines) + "\n"
