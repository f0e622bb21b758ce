"""What was measured, as people and programs read it: lines, JSON, CSV, Markdown.

What is shown was measured before; nothing is here but its form.
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from math import isfinite
from typing import Any

from cnnspec.diagnostics import quantity
from cnnspec.report.markdown import cell, row
from cnnspec.report.numbers import binary_size, duration
from cnnspec.report.styled import Line, display_width, visible
from cnnspec.runtime.measuring import Measured, Row
from cnnspec.runtime.timing import quantile
from cnnspec.version import __version__

__all__ = ["FORMAT", "Plan", "document", "lines", "remarks", "to_csv", "to_markdown"]

FORMAT = 1
"""Number of the JSON document's format."""

_GAP = "  "
_HEADS = ("", "median", "p95", "samples/s", "speed", "file", "peak memory", "ran on", "difference")
_RAN_ON = _HEADS.index("ran on")
_COMPARED = (_HEADS.index("speed"), _HEADS.index("difference"))
_CSV = (
    "contender batch precision engine provider threads runs median_seconds p95_seconds min_seconds "
    "max_seconds samples_per_second speed file_bytes peak_bytes difference same"
).split()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was to be measured: the network or file, runs of each contender, and before them."""

    name: str
    runs: int
    warmup: int
    interrupted: bool = False


def lines(plan: Plan, found: Measured) -> Iterator[Line]:
    """A table for each batch, and below them what its columns mean."""
    places = {_ran_on(each) for each in found.rows}
    everywhere = f", on {next(iter(places))}" if len(places) == 1 else ""
    yield [
        (visible(plan.name), "bold"),
        (f"  {_runs(plan)}, in turns{everywhere}", "dim"),
    ]
    if not found.rows:
        return
    alone = len({each.name for each in found.rows}) == 1
    left_out = {*(_COMPARED if alone else ()), *((_RAN_ON,) if len(places) == 1 else ())}
    kept = [number for number, _ in enumerate(_HEADS) if number not in left_out]
    tables = [
        (batch, [_cells(each) for each in found.rows if each.batch == batch])
        for batch in _batches(found.rows)
    ]
    heads = {batch: (f"batch {batch}", *_HEADS[1:]) for batch, _ in tables}
    every = [*heads.values(), *(cells for _, rows in tables for cells in rows)]
    widths = [max(display_width(cells[number]) for cells in every) for number in range(len(_HEADS))]
    for batch, rows in tables:
        yield []
        yield [(_padded(heads[batch], widths, number), "bold") for number in kept]
        measured = [each for each in found.rows if each.batch == batch]
        for cells, each in zip(rows, measured, strict=True):
            yield [(_padded(cells, widths, number), _style(number, each)) for number in kept]
    yield []
    first = visible(found.rows[0].name)
    below = ["peak memory: of a process that does nothing else, libraries included"]
    if not alone:
        below.insert(0, f"speed: times as fast as {first}, the median over turns")
        below.append(f"difference: of the outputs from those of {first}, by their largest element")
    yield from ([(each, "dim")] for each in below)


def remarks(found: Measured) -> Iterator[tuple[str, str]]:
    """What to know about the table, each with its weight: `warning` or `note`."""
    for missing in found.failed:
        where = "" if missing.batch is None else f" at batch {missing.batch}"
        yield "warning", f"`{missing.name}` was not measured{where}: {missing.reason}"
    for each in found.rows:
        if not each.same:
            first = next(row for row in found.rows if row.batch == each.batch)
            yield (
                "warning",
                f"`{each.name}` at batch {each.batch} computes something else than "
                f"`{first.name}`: their times cannot be compared",
            )
    for remark in found.remarks:
        yield "note", remark


def _runs(plan: Plan) -> str:
    asked = f"{quantity(plan.runs, 'run')} each after {plan.warmup} to warm up"
    return f"interrupted; {asked} were asked for" if plan.interrupted else asked


def _batches(rows: Iterable[Row]) -> list[int]:
    return list(dict.fromkeys(each.batch for each in rows))


def _cells(each: Row) -> tuple[str, ...]:
    return (
        visible(each.name),
        duration(each.timing.median),
        duration(each.timing.p95),
        f"{each.timing.throughput(each.batch):,.1f}",
        f"{each.speed:.2f}x",
        binary_size(each.size),
        "unknown" if each.peak is None else binary_size(each.peak),
        _ran_on(each),
        _difference(each),
    )


def _ran_on(each: Row) -> str:
    return f"cpu, {quantity(each.threads, 'thread')}" if each.provider == "cpu" else each.provider


def _difference(each: Row) -> str:
    if each.difference is None:
        return each.odd or "reference"
    return f"{each.difference:.1e}" if each.difference else "0"


def _padded(cells: Sequence[str], widths: Sequence[int], number: int) -> str:
    text = cells[number]
    blank = " " * (widths[number] - display_width(text))
    return (text + blank if number == 0 else blank + text) + _GAP


def _style(number: int, each: Row) -> str:
    if number == len(_HEADS) - 1:
        return "" if each.same else "bold red"
    return "cyan" if number == 0 else ""


# ------------------------------------------------------------------------------------- documents


def document(plan: Plan, found: Measured) -> dict[str, Any]:
    """The document of `cnnspec bench --format json`, format 1. Seconds and bytes."""
    return {
        "format": FORMAT,
        "name": plan.name,
        "cnnspec": __version__,
        "system": {
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        },
        "runs": plan.runs,
        "warmup": plan.warmup,
        "interrupted": plan.interrupted,
        "rows": [_record(each) for each in found.rows],
        "failed": [
            {"contender": each.name, "batch": each.batch, "reason": each.reason}
            for each in found.failed
        ],
        "remarks": list(found.remarks),
    }


def _record(each: Row) -> dict[str, Any]:
    seconds = each.timing.seconds
    return {
        "contender": each.name,
        "batch": each.batch,
        "precision": each.precision,
        "engine": each.engine,
        "provider": each.provider,
        "threads": each.threads,
        "runs": len(seconds),
        "seconds": {
            "median": each.timing.median,
            "p95": each.timing.p95,
            "min": min(seconds),
            "quartiles": [quantile(seconds, share) for share in (0.25, 0.75)],
            "max": max(seconds),
            "turns": [list(turn) for turn in each.timing.turns],
        },
        "samples_per_second": each.timing.throughput(each.batch),
        "speed": each.speed,
        "file_bytes": each.size,
        "peak_bytes": each.peak,
        "difference": _finite(each.difference),
        "incomparable": each.odd or None,
        "same": each.same,
    }


def _finite(number: float | None) -> float | None:
    return None if number is None or not isfinite(number) else number


def to_csv(found: Measured) -> str:
    """A header and a row for each contender at each batch."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV)
    for each in found.rows:
        seconds = each.timing.seconds
        writer.writerow(
            (
                each.name,
                each.batch,
                each.precision,
                each.engine,
                each.provider,
                each.threads,
                len(seconds),
                each.timing.median,
                each.timing.p95,
                min(seconds),
                max(seconds),
                each.timing.throughput(each.batch),
                each.speed,
                each.size,
                "" if each.peak is None else each.peak,
                "" if each.difference is None else each.difference,
                str(each.same).lower(),
            )
        )
    return out.getvalue()


def to_markdown(plan: Plan, found: Measured) -> str:
    """A section with one table."""
    engines = ", ".join(dict.fromkeys(each.engine for each in found.rows))
    heads = ("contender", "batch", *_HEADS[1:])
    made = [
        f"## {cell(plan.name)}",
        "",
        row(heads),
        row(("---", *["---:"] * (len(heads) - 1))),
        *(
            row([cell(name), str(each.batch), *map(cell, cells)])
            for each in found.rows
            for name, *cells in (_cells(each),)
        ),
        "",
        f"{_runs(plan)}, in turns; {engines}.",
    ]
    return "\n".join(made) + "\n"
