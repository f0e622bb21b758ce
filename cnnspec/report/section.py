"""A section of a report: figures that were asked for besides those that every report has.

What another tool would print, how long a device takes at least, formulas in the input's size: each
is a `Section`, and the table, JSON, CSV and Markdown show any of them without knowing which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from cnnspec.report.columns import Column
from cnnspec.report.styled import Line

__all__ = ["Section"]


class Section(Protocol):
    """Further figures of one network."""

    @property
    def key(self) -> str:
        """The key of the section in JSON; no other section or part of the report has it."""

    @property
    def columns(self) -> Mapping[str, Column]:
        """Columns that the table gains, by the names that `--columns` takes."""

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """Plain values of every layer in the report's order, for JSON and CSV, by key."""

    def lines(self, width: int) -> Iterable[Line]:
        """What stands below the totals: a heading, then lines."""

    def to_dict(self) -> dict[str, Any]:
        """What JSON says under `key`, figures of single layers apart."""
