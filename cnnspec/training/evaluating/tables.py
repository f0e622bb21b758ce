"""An evaluation as lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.report.numbers import duration, exact
from cnnspec.report.styled import Line, display_width, fit, visible
from cnnspec.training.evaluating.figures import ClassFigures, Counts, Evaluation

__all__ = ["class_lines", "confusion_lines", "figure_rows"]

_WIDEST_NAME = 24


def figure_rows(found: Evaluation) -> Iterator[tuple[str, str]]:
    """Each figure by its name."""
    if found.task.kind == "map":
        yield "pixels right", _percent(found.top1)
        yield "mean IoU", _percent(found.mean_iou)
    elif found.top1 is not None:
        yield "top-1", f"{_percent(found.top1)}  {exact(_count(found))} of {exact(found.samples)}"
        if found.task.classes > _FIVE and found.top5 is not None:
            yield "top-5", _percent(found.top5)
    yield "loss", f"{found.loss:.4f}  {_LOSSES.get(found.task.loss.name, found.task.loss.name)}"
    if found.odd:
        yield "no numbers", f"{exact(found.odd)} of what is judged has scores that are none"
    yield "speed", f"{found.samples_per_second:,.0f} samples/s, {duration(found.seconds)} in all"


_FIVE = 5
_LOSSES = {"CrossEntropyLoss": "cross-entropy"}


def _count(found: Evaluation) -> int:
    return round((found.top1 or 0.0) * found.samples)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def class_lines(found: Evaluation) -> Iterator[Line]:
    """A row for each class that occurs or is said."""
    maps = found.task.kind == "map"
    heads: tuple[str, ...] = ("class", "samples", "recall", "precision")
    if maps:
        heads = ("class", "pixels", "recall", "precision", "IoU")
    rows = [
        _class_row(each, maps=maps)
        for each in found.classes
        if each.samples or each.precision is not None
    ]
    widths = [max(display_width(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    yield [(_padded(heads, widths), "bold")]
    yield from ([(_padded(row, widths), "")] for row in rows)


def _class_row(each: ClassFigures, *, maps: bool) -> tuple[str, ...]:
    cells = (
        fit(_name(each), _WIDEST_NAME),
        exact(each.samples),
        _percent(each.recall),
        _percent(each.precision),
    )
    return (*cells, _percent(each.iou)) if maps else cells


def _name(each: ClassFigures) -> str:
    return str(each.index) if each.name is None else visible(each.name)


def _padded(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *others = (
        " " * (width - display_width(cell)) for cell, width in zip(cells, widths, strict=True)
    )
    rest = "".join(f"  {blank}{cell}" for cell, blank in zip(cells[1:], others, strict=True))
    return f"{cells[0]}{first}{rest}"


def confusion_lines(found: Evaluation, confusion: Counts) -> Iterator[Line]:
    """True classes in rows, what the network says in columns; those that never occur are left out.

    Zeros beside the diagonal are dots.
    """
    numbers = [i for i in range(len(confusion)) if confusion[i].any() or confusion[:, i].any()]
    names = [fit(_name(found.classes[i]), _WIDEST_NAME) for i in numbers]
    cells = [[_cell(int(confusion[i, j]), i == j) for j in numbers] for i in numbers]
    heads = [str(i) for i in numbers]
    left = max(map(display_width, ["true", *names]), default=0)
    width = max(map(len, [*heads, *(cell for row in cells for cell in row)]), default=1)
    yield [
        (f"{'true':<{left}}", "bold"),
        ("".join(f"  {head:>{width}}" for head in heads), "bold"),
    ]
    for place, (name, row) in enumerate(zip(names, cells, strict=True)):
        line: Line = [(f"{name}{' ' * (left - display_width(name))}", "")]
        for column, cell in enumerate(row):
            style = "green" if column == place else "red" if cell != _NONE else "dim"
            line.append((f"  {cell:>{width}}", style))
        yield line


_NONE = "."


def _cell(count: int, diagonal: bool) -> str:
    return str(count) if count or diagonal else _NONE
