"""Tables of measurements: for the terminal by rich, for files as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ["Table", "markdown", "mb", "seconds", "show", "spread", "times"]


@dataclass
class Table:
    """Rows of text under a title. All columns but the first are figures."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    note: str = ""


def seconds(value: float) -> str:
    """A time: `1.23 s`, `45.6 ms`."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def spread(values: Sequence[float]) -> str:
    """The median of times, with the least and the most."""
    if len(values) == 1:
        return seconds(values[0])
    return f"{seconds(median(values))} ({seconds(min(values))} to {seconds(max(values))})"


def mb(value: float) -> str:
    """Bytes in MB of 10^6."""
    return f"{value / 1e6:,.0f} MB"


def times(ratio: float) -> str:
    """A ratio."""
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2f}x"


def markdown(tables: Iterable[Table]) -> str:
    """All tables as sections of a Markdown page."""
    parts = []
    for table in tables:
        lines = [f"## {table.title}", ""]
        if table.note:
            lines += [table.note, ""]
        marks = ["---", *["---:"] * (len(table.columns) - 1)]
        lines += [f"| {' | '.join(cells)} |" for cells in (table.columns, marks, *table.rows)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def show(tables: Iterable[Table]) -> None:
    """Print the tables. Imports rich, so only after everything is measured."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    for table in tables:
        drawn = RichTable(title=table.title, title_justify="left", caption_justify="left")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            drawn.add_row(*row)
        drawn.caption = table.note
        console.print(drawn)
