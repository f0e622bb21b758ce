"""Columns of a laid out text: values and comments that were written below one another stay so.

A column is one where lines were padded to reach it: two neighbours whose parts before it differ in
width start there, or end there, all the same. One such pair makes a column of all lines of a run,
so that a table stays one when a row is added. Spaces without such a purpose are gone already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

from cnnspec.frontend.layout import Line, Part

__all__ = ["align"]

_COMMENT_GAP = 2
"""Least spaces between a line's text and its comment."""


def align(lines: list[Line]) -> None:
    """Bring values and comments into the columns they were in."""
    for run in _runs(lines):
        _align_values(run)
        for _, table in groupby(run, key=_signature):
            _align_cells(list(table))
    _align_comments(lines)


@dataclass(slots=True)
class _Cell:
    """A stretch of a line that may be padded: its first part, its width, and where it stood."""

    first: Part
    width: int
    start: int
    end: int


def _cells(line: Line, starts: Iterable[int]) -> list[_Cell]:
    """The stretches of a line that begin at the parts `starts`."""
    bounds = [*starts, len(line.parts)]
    cells = []
    for begin, end in pairwise(bounds):
        parts = line.parts[begin:end]
        width = sum(p.gap + p.pad + len(p.text) for p in parts) - parts[0].gap - parts[0].pad
        stop = parts[-1].column + len(parts[-1].text)
        cells.append(_Cell(parts[0], width, parts[0].column, stop))
    return cells


def _runs(lines: list[Line]) -> Iterator[list[Line]]:
    """Neighbouring lines of one block, each an item of it, with nothing between them."""
    run: list[Line] = []
    for line in lines:
        if run and (line.frame is not run[0].frame or line.blank):
            yield run
            run = []
        if line.frame is not None:
            run.append(line)
    if run:
        yield run


def _value(line: Line) -> int | None:
    """The index of the part where the value of a line starts, if it has one."""
    if line.frame is None or line.frame.kind != "map":
        return line.key if line.key < len(line.parts) else None
    colon = next((n for n in range(line.key, len(line.parts)) if line.parts[n].kind == ":"), None)
    return None if colon is None or colon + 1 == len(line.parts) else colon + 1


def _align_values(run: list[Line]) -> None:
    rows = []
    for line in run:
        value = _value(line)
        if value is not None and value > line.key:
            rows.append(_cells(line, (line.key, value)))
    _pad(rows, 1)


def _signature(line: Line) -> tuple[str, ...]:
    """What makes neighbouring lines rows of one table: a flow with the same keys, or as long."""
    starts = _items(line)
    if not starts:
        return ()
    parts = line.parts
    bracket = parts[starts[0] - 1].text
    if bracket == "[":
        return bracket, str(len(starts))
    return bracket, *(parts[n].text for n in starts)


def _items(line: Line) -> list[int]:
    """Where the items start of a flow that is the whole value of a line."""
    value = _value(line)
    if value is None or line.parts[value].kind not in ("{", "["):
        return []
    depth = 0
    starts: list[int] = []
    for number in range(value, len(line.parts)):
        kind = line.parts[number].kind
        if depth == 1 and line.parts[number - 1].kind in (",", "{", "[") and kind not in ("}", "]"):
            starts.append(number)
        depth += (kind in ("{", "[")) - (kind in ("}", "]"))
        if depth == 0:
            return starts if number + 1 == len(line.parts) else []
    return []


def _align_cells(table: list[Line]) -> None:
    if len(table) < 2 or not _signature(table[0]):
        return
    rows = []
    for line in table:
        items = _items(line)
        pairs = []
        for number in items:
            after = number + 2
            pair = after < len(line.parts) and line.parts[number + 1].kind == ":"
            pairs.extend([number, after] if pair else [number])
        value = _value(line)
        assert value is not None  # it has items
        rows.append(_cells(line, (value, *pairs)))
    if len({len(row) for row in rows}) == 1:
        for number in range(1, len(rows[0])):
            _pad(rows, number)


def _pad(rows: list[list[_Cell]], number: int) -> None:
    """Bring a cell of all rows into one column, if some of them were in one on purpose."""
    if len(rows) < 2:
        return
    starts: set[tuple[int, int, int]] = set()
    ends: set[tuple[int, int, int]] = set()
    for row in rows:
        before, cell = row[number - 1], row[number]
        starts.add((before.start, cell.start, before.width))
        ends.add((before.end, cell.end, cell.width))
    if len({key[:2] for key in starts}) < len(starts):
        _shift(rows, number, right=False)
    elif len({key[:2] for key in ends}) < len(ends):
        _shift(rows, number, right=True)


def _shift(rows: list[list[_Cell]], number: int, *, right: bool) -> None:
    places = []
    for row in rows:
        place = sum(c.first.pad + c.width for c in row[1:number]) + row[0].width
        place += sum(c.first.gap for c in row[1 : number + 1])
        places.append(place + (row[number].width if right else 0))
    most = max(places)
    for row, place in zip(rows, places, strict=True):
        row[number].first.pad = most - place


def _align_comments(lines: list[Line]) -> None:
    """Keep comments in their columns, those of neighbouring lines together where they moved."""
    ends = [line.place() for line in lines]
    number = 0
    while number < len(lines):
        first = lines[number]
        stop = number + 1
        if first.comment:
            while (
                stop < len(lines)
                and lines[stop].comment
                and not lines[stop].blank
                and lines[stop].comment_column == first.comment_column
            ):
                stop += 1
            least = max(ends[number:stop]) + _COMMENT_GAP
            for line in lines[number:stop]:
                line.comment_column = max(line.comment_column, least)
        number = stop
