"""Activations over the time of one inference: a bar for each layer that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnnspec.report.columns import Column
from cnnspec.report.model import Moment, Report
from cnnspec.report.numbers import binary_size
from cnnspec.report.styled import Line, display_width, fit, visible

__all__ = ["Timeline"]

_MOST_ROWS = 40
_LEAST_BAR = 8
_GAP = "  "


class Timeline:
    """What is alive at each step, as a section of the report; see `Report.timeline`."""

    def __init__(self, report: Report) -> None:
        self._report = report

    @property
    def key(self) -> str:
        """`timeline`."""
        return "timeline"

    @property
    def columns(self) -> Mapping[str, Column]:
        """None: `live` is a column of every report."""
        return {}

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """None: `live_bytes` is a figure of every layer."""
        return {}

    def lines(self, width: int) -> Iterator[Line]:
        """A bar for each layer; of a long network the fullest of each stretch of layers."""
        steps = self._report.timeline
        shown = [max(part, key=_bytes) for part in _parts(steps)]
        most = max(map(_bytes, shown), default=0)
        yield [("activations alive", "bold"), (self._remark(len(shown)), "dim")]
        if not most:
            return
        sizes = [binary_size(step.bytes) for step in shown]
        taken = max(map(len, sizes)) + 2 * len(_GAP)
        names = [visible(step.layer) for step in shown]
        name_width = min(max(map(display_width, names)), max(width - taken - _LEAST_BAR, 12))
        room = max(width - taken - name_width, _LEAST_BAR)
        for name, size, step in zip(names, sizes, shown, strict=True):
            named = fit(name, name_width)
            blank = " " * (name_width - display_width(named))
            style = "bold" if step.bytes == most else ""
            yield [
                (named + blank, style),
                (_GAP + size.rjust(taken - 2 * len(_GAP)) + _GAP, style),
                ("█" * max(1, room * step.bytes // most) if step.bytes else "", "cyan"),
            ]

    def _remark(self, rows: int) -> str:
        options, steps = self._report.options, len(self._report.timeline)
        of = f"the fullest of each {_stride(steps)} layers, " if rows < steps else ""
        return f"{_GAP}{of}at batch {options.batch} in {options.dtype}"

    def to_dict(self) -> dict[str, Any]:
        """The paths of the layers that run, in order, and the bytes alive then."""
        steps = self._report.timeline
        return {"layers": [step.layer for step in steps], "bytes": [step.bytes for step in steps]}


def _bytes(step: Moment) -> int:
    return step.bytes


def _stride(steps: int) -> int:
    """How many steps share a row."""
    return -(-steps // _MOST_ROWS) or 1


def _parts(steps: Sequence[Moment]) -> Iterator[Sequence[Moment]]:
    stride = _stride(len(steps))
    for start in range(0, len(steps), stride):
        yield steps[start : start + stride]
