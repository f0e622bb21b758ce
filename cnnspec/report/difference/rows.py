"""Differences of layers as a tree of rows, folded: what people read has no 170 equal lines.

A row is a layer, or a level of the network of which all came or went, or several in a row that
changed alike under names that count, or a run of layers that only follow. A level has rows below it
where there is more to say. Text and Markdown are made of the same rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from cnnspec.diagnostics import quantity, shape_text
from cnnspec.report.difference.changes import Difference, LayerDifference
from cnnspec.report.fields import field_text

__all__ = ["DifferenceRow", "Mark", "rows_of"]

_COLUMNS = ("output_shapes", "params", "buffers", "macs", "receptive_field")
"""Effects that a row shows anyway."""

Mark = Literal["added", "removed", "changed", "renamed", "followed", "level"]


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One row.

    `label` is a path from the row above on, `kind` the operation or block, `count` how many equal
    ones it stands for, `layers` the differences of which it sums up. A `level` has rows below.
    """

    mark: Mark
    label: str
    kind: str
    count: int
    level: int
    layers: tuple[LayerDifference, ...]
    details: tuple[str, ...]
    """What was edited, in words."""

    def delta(self, figure: str) -> int:
        """By how much a figure of all of them grew."""
        return sum(layer.delta(figure) for layer in self.layers)

    @property
    def size(self) -> str:
        """`170 layers`, where it stands for more than its count says."""
        return quantity(len(self.layers), "layer") if len(self.layers) > self.count else ""

    @property
    def output(self) -> str:
        """The shape of the last of them: `64x56x56`, or what it was and is."""
        last = self.layers[-1]
        shapes = [
            shape_text(layer.output_shape) for layer in (last.old, last.new) if layer is not None
        ]
        return " -> ".join(dict.fromkeys(shapes))

    @property
    def field(self) -> str:
        """The receptive field of the last of them, likewise."""
        last = self.layers[-1]
        fields = [
            field_text(layer.receptive_field) for layer in (last.old, last.new) if layer is not None
        ]
        return " -> ".join(text for text in dict.fromkeys(fields) if text)


def rows_of(difference: Difference, depth: int | None, most: int) -> list[DifferenceRow]:
    """The rows down to `depth` levels; without one, as deep as `most` rows allow, at least one.

    Of a flat network whose every layer changed in its own way there are more.
    """
    root = _Branch("", "")
    for one in difference.layers:
        root.add(one)
    folded = list(_fold(root, _Levels(difference)))
    if depth is None:
        deepest = max((row.level for row in _walk(folded)), default=0)
        shown = (list(_walk(folded, levels)) for levels in range(deepest + 1, 0, -1))
        return next((rows for rows in shown if len(rows) <= most), list(_walk(folded, 1)))
    return list(_walk(folded, depth))


class _Levels:
    """What is known of the levels of both networks by path: kinds, and how many layers they have.

    Of each the newer counts, where both have one.
    """

    def __init__(self, difference: Difference) -> None:
        self.kinds: dict[str, str] = {}
        self._sizes: dict[Mark, Counter[str]] = {}
        marks: tuple[Mark, Mark] = ("removed", "added")
        for mark, report in zip(marks, (difference.old, difference.new), strict=True):
            sizes = self._sizes[mark] = Counter()
            for layer in report.layers:
                path = layer.path
                while path := path.rpartition(".")[0]:
                    sizes[path] += 1
            pending = [report.graph.root]
            for scope in pending:
                self.kinds[scope.path] = scope.kind
                pending.extend(member for member in scope.members if not isinstance(member, int))

    def whole(self, mark: Mark, path: str, layers: int) -> bool:
        """Whether so many layers that all came, or all went, are all of the level."""
        sizes = self._sizes.get(mark)
        return sizes is None or sizes[path] == layers


@dataclass(slots=True)
class _Branch:
    """A level of paths: what changed directly in it, and the levels below, in order."""

    path: str
    name: str
    below: list[_Branch | LayerDifference] = field(default_factory=list)

    def add(self, one: LayerDifference) -> None:
        """Put a layer where its path says."""
        branch = self
        *scopes, _ = one.layer.path.split(".")
        for name in scopes:
            last = branch.below[-1] if branch.below else None
            if not isinstance(last, _Branch) or last.name != name:
                path = f"{branch.path}.{name}" if branch.path else name
                last = _Branch(path, name)
                branch.below.append(last)
            branch = last
        branch.below.append(one)

    def layers(self) -> Iterator[LayerDifference]:
        """All layers, at any depth."""
        stack: list[Iterator[_Branch | LayerDifference]] = [iter(self.below)]
        while stack:
            for member in stack[-1]:
                if isinstance(member, _Branch):
                    stack.append(iter(member.below))
                    break
                yield member
            else:
                stack.pop()


@dataclass(frozen=True, slots=True)
class _Folded:
    """A row and those below it. `last` is the label of the last that it stands for."""

    row: DifferenceRow
    first: str
    last: str
    below: tuple[_Folded, ...]
    alike: tuple[object, ...]
    """Equal for rows that say the same but for their names."""


def _walk(folded: Sequence[_Folded], depth: int | None = None) -> Iterator[DifferenceRow]:
    """Rows from the top down to a depth; what is below it is summed up in words."""
    stack = [iter(folded)]
    while stack:
        for one in stack[-1]:
            cut = depth is not None and len(stack) >= depth
            if one.below and cut:
                yield replace(one.row, mark="changed", details=(_summary(one.row.layers),))
            else:
                yield one.row
            if one.below and not cut:
                stack.append(iter(one.below))
                break
        else:
            stack.pop()


def _summary(layers: Sequence[LayerDifference]) -> str:
    kinds = ["followed" if one.follows else one.status for one in layers]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def _fold(branch: _Branch, levels: _Levels, level: int = 0) -> Iterator[_Folded]:
    """The rows of one level."""
    members = [_row(member, levels, level) for member in branch.below]
    runs = groupby(members, key=lambda one: (one.alike, _stem(one.first)))
    joined = [_joined(list(run)) for _, run in runs]
    for mark, group in groupby(joined, key=lambda one: one.row.mark):
        if mark in ("followed", "renamed"):
            yield _joined(list(group))
        else:
            yield from group


def _row(member: _Branch | LayerDifference, levels: _Levels, level: int) -> _Folded:
    if isinstance(member, LayerDifference):
        return _leaf(member, member.layer.path.rpartition(".")[2], level)
    name = member.name
    while len(member.below) == 1:
        (only,) = member.below
        if isinstance(only, LayerDifference):
            return _leaf(only, f"{name}.{only.layer.path.rpartition('.')[2]}", level)
        name, member = f"{name}.{only.name}", only
    layers = tuple(member.layers())
    kind = levels.kinds.get(member.path, "")
    mark, *others = {_mark(one) for one in layers}
    alike = not others and mark != "changed"
    if alike and levels.whole(mark, member.path, len(layers)):
        row = DifferenceRow(mark, name, kind, 1, level, layers, ())
        return _Folded(row, name, name, (), (mark, kind, *(_alike(one) for one in layers)))
    below = tuple(_fold(member, levels, level + 1))
    row = DifferenceRow("level", name, kind, 1, level, layers, ())
    inner = tuple((one.first, one.last, one.alike) for one in below)
    return _Folded(row, name, name, below, ("level", kind, inner))


def _leaf(one: LayerDifference, label: str, level: int) -> _Folded:
    shown = one.effects if one.follows else one.edits
    details = tuple(
        change.text for change in shown if not one.follows or change.what not in _COLUMNS
    )
    if one.status in ("added", "removed"):
        written = one.new_arguments or one.old_arguments
        details = (written,) if written else ()
    elif one.old is not None and one.new is not None and one.old.path != one.new.path:
        details = (f"was {one.old.path}", *details)
    row = DifferenceRow(_mark(one), label, one.layer.op, 1, level, (one,), details)
    return _Folded(row, label, label, (), (row.mark, _alike(one)))


def _mark(one: LayerDifference) -> Mark:
    return "followed" if one.follows else one.status


def _alike(one: LayerDifference) -> object:
    """Equal for layers that changed in the same way."""
    if one.follows or one.status == "renamed":
        return one.status, one.layer.op
    edits = tuple(change.text for change in one.edits if change.what != "inputs")
    return one.status, one.layer.op, one.new_arguments, one.old_arguments, edits


def _joined(run: Sequence[_Folded]) -> _Folded:
    """One row for several; what the first says holds for all."""
    if len(run) == 1:
        return run[0]
    first, last = run[0].first, run[-1].last
    row = run[0].row
    layers = tuple(layer for one in run for layer in one.row.layers)
    details = tuple(text for text in row.details if not text.startswith("reads "))
    if row.mark == "renamed":
        ends = [layer.old.path for layer in (layers[0], layers[-1]) if layer.old is not None]
        details = (f"was {_range(ends[0], ends[-1])}",)
    kinds = {one.row.kind for one in run}
    counted = len(kinds) == 1
    row = replace(
        row,
        label=_range(first, last),
        kind=row.kind if counted else "",
        count=sum(one.row.count for one in run) if counted else 1,
        layers=layers,
        details=details,
    )
    alike = all(len(one.below) == len(run[0].below) for one in run)
    sides = zip(*(one.below for one in run), strict=True) if alike else ()
    below = tuple(_joined(side) for side in sides)
    return _Folded(row, first, last, below, run[0].alike)


def _range(first: str, last: str) -> str:
    """Names from one to another: `layer1..4` where they count, `bn1 .. 9` where they do not."""
    if first == last:
        return first
    stem = _stem(first)
    if _stem(last) != stem:
        return f"{first} .. {last}"
    return f"{first}..{last.removeprefix(stem)}"


def _stem(label: str) -> str:
    """A label without the number at its end."""
    return label.rstrip("0123456789")
