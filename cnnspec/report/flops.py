"""What `cnnspec explain-flops` says: one network as all tools count it, and why they differ.

Layers are grouped by the class or function that torch runs for them, since that is what tools see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cnnspec.diagnostics import shape_text
from cnnspec.lenses import LENSES, Reading, read
from cnnspec.report.markdown import cell, row
from cnnspec.report.model import Report
from cnnspec.report.numbers import exact
from cnnspec.report.panel import Entry, panel
from cnnspec.report.sections.lens import difference_entries, reading_document, signed, total_text
from cnnspec.report.styled import Line, visible

__all__ = ["flops_document", "flops_lines", "flops_markdown", "readings"]

_GAP = "  "
_UNKNOWN = "unknown"


def readings(report: Report) -> tuple[Reading, ...]:
    """A network as every tool counts it."""
    return tuple(read(report.graph, report.facts, lens) for lens in LENSES.values())


def flops_document(report: Report) -> dict[str, Any]:
    """All of it, for programs (format 1)."""
    found = readings(report)
    return {
        "format": 1,
        "name": report.name,
        "inputs": {name: list(shape) for name, shape in report.inputs.items()},
        "macs": found[0].macs,
        "groups": [
            {
                "target": groups[0].target,
                "layers": groups[0].layers,
                "macs": groups[0].macs,
                "counts": {
                    reading.lens.name: group.counted
                    for reading, group in zip(found, groups, strict=True)
                },
            }
            for groups in zip(*(reading.groups for reading in found), strict=True)
        ],
        "tools": {reading.lens.name: reading_document(reading) for reading in found},
    }


def flops_lines(report: Report, width: int) -> Iterator[Line]:
    """A table of groups and tools, then for each tool what it prints and why it differs."""
    found = readings(report)
    yield [(visible(report.name), "bold"), (f"{_GAP}{_inputs(report)}", "dim")]
    yield []
    yield from _table(_cells(found))
    free = _uncounted(found)
    if free:
        yield [(f"counted by none: {free}", "dim")]
    for reading in found:
        lens = reading.lens
        yield []
        yield [(lens.name, "bold"), (f"{_GAP}{lens.tool}: {lens.call}", "dim")]
        prints = Entry("prints", "", "", _printed(reading))
        yield from panel((prints, *difference_entries(reading)), width)


def flops_markdown(report: Report) -> str:
    """The same for documents."""
    found = readings(report)
    header, *body = _cells(found)
    lines = [f"## {cell(report.name)}", "", f"Input {cell(_inputs(report))}.", ""]
    lines += [row(header), row(("---", *("---:" for _ in header[1:])))]
    lines += [
        row((f"`{name}`" if i < len(body) - 1 else f"**{name}**", *figures))
        for i, (name, *figures) in enumerate(body)
    ]
    for reading in found:
        lens = reading.lens
        lines += [
            "",
            f"### {lens.name}",
            "",
            f"{cell(lens.tool)}, `{lens.call}`, prints {cell(_printed(reading))}.",
            "",
            row(("layers", "figure", "why")),
        ]
        lines.append(row(("---", "---:", "---")))
        lines.append(row(("our MACs", exact(reading.macs), "")))
        lines += [
            row((f"`{cause.target}` x{cause.layers}", signed(cause.amount), cell(cause.why)))
            for cause in reading.causes
        ]
        lines.append(row((f"**{lens.name}**", f"**{exact(reading.total)}**", cell(lens.figure))))
        lines += [f"\n{reading.status.capitalize()}: {cell(why)}." for why in reading.unknown]
    return "\n".join(lines) + "\n"


def _inputs(report: Report) -> str:
    return ", ".join(f"{visible(name)} {shape_text(s)}" for name, s in report.inputs.items())


def _printed(reading: Reading) -> str:
    return "; ".join(f"{label}: {text}" for label, text in reading.printed) or "an error"


def _cells(found: Sequence[Reading]) -> list[tuple[str, ...]]:
    """The header, the groups that anyone counts, most first, and the totals."""
    rows = []
    for groups in zip(*(reading.groups for reading in found), strict=True):
        counts = [group.counted for group in groups]
        if groups[0].macs or any(count != 0 for count in counts):
            shown = [_UNKNOWN if count is None else exact(count) for count in counts]
            most = max(groups[0].macs, *(count or 0 for count in counts))
            layers = str(groups[0].layers)
            rows.append((-most, (groups[0].target, layers, exact(groups[0].macs), *shown)))
    rows.sort(key=lambda each: each[0])
    whole = sum(group.layers for group in found[0].groups)
    totals = (str(whole), exact(found[0].macs), *map(total_text, found))
    return [
        ("torch runs", "layers", "ours", *(reading.lens.name for reading in found)),
        *(texts for _, texts in rows),
        ("total", *totals),
    ]


def _uncounted(found: Sequence[Reading]) -> str:
    """The groups that neither we nor any tool counts."""
    free = [
        f"`{groups[0].target}` x{groups[0].layers}"
        for groups in zip(*(reading.groups for reading in found), strict=True)
        if not groups[0].macs and all(group.counted == 0 for group in groups)
    ]
    return ", ".join(free)


def _table(cells: Sequence[Sequence[str]]) -> Iterator[Line]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule: Line = [("─" * (sum(widths) + len(_GAP) * (len(widths) - 1)), "dim")]
    for number, texts in enumerate(cells):
        edge = number in (0, len(cells) - 1)
        if number == len(cells) - 1:
            yield rule
        yield [(_aligned(texts, widths), "bold" if edge else "")]
        if number == 0:
            yield rule


def _aligned(texts: Iterable[str], widths: Sequence[int]) -> str:
    first, *others = texts
    padded = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
    return _GAP.join((first.ljust(widths[0]), *padded))
