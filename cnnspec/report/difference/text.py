"""Differences for people: as text for a terminal, and as Markdown for a pull request.

What changed is found in `changes`, folded in `rows`; only layout is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, overload

from cnnspec.report.difference.changes import Difference
from cnnspec.report.difference.rows import DifferenceRow, rows_of
from cnnspec.report.numbers import binary_size, exact
from cnnspec.report.styled import Line, as_plain, as_text, display_width, fit, visible

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["change_text", "difference_markdown", "render_difference"]

_MOST_ROWS = 60
_MOST_PRINTED = 400
_OPEN_ROWS = 25
"""Rows of Markdown that are shown at once; more are folded away under a summary."""
_GAP = "  "
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">", "followed": "."}
_STYLES = {
    "added": "green",
    "removed": "red",
    "changed": "yellow",
    "renamed": "cyan",
    "followed": "dim",
    "level": "",
}
_WORDS = {
    "added": "added",
    "removed": "removed",
    "changed": "changed",
    "renamed": "renamed",
    "followed": "only follow",
    "same": "the same",
}
_TOTALS: Sequence[tuple[str, str, Callable[[int], str]]] = (
    ("layers", "layers", exact),
    ("params", "params", exact),
    ("buffers", "buffers", exact),
    ("MACs", "macs", exact),
    ("FLOPs", "flops", exact),
    ("activations", "activations", exact),
    ("peak memory", "peak_activation_bytes", binary_size),
    ("training memory", "training_memory", binary_size),
)
_HEADING = "bold"
_MINOR = "dim"
_LEAST_DETAIL = 40


@overload
def render_difference(
    difference: Difference,
    *,
    width: int,
    depth: int | None = None,
    colour: Literal[False] = False,
) -> str: ...


@overload
def render_difference(
    difference: Difference, *, width: int, depth: int | None = None, colour: bool
) -> str | Text: ...


def render_difference(
    difference: Difference, *, width: int, depth: int | None = None, colour: bool = False
) -> str | Text:
    """What changed, for a terminal of `width` columns: the network, its layers, its totals.

    Layers are folded as the network's tree is, to `depth` levels or to what fits on a few screens.
    Plain text, or a rich `Text` with `colour`.
    """
    lines: list[Line] = [_title(difference)]
    if not difference:
        lines.append([("no difference", _MINOR)])
        return as_text(lines) if colour else as_plain(lines)
    lines.extend([("~ ", "yellow"), (visible(one.text), "")] for one in difference.network)
    if difference.layers:
        lines.extend(([], *_table(difference, depth, width)))
    lines.extend(([], *_totals(difference), [], [(_counted(difference), _HEADING)]))
    return as_text(lines) if colour else as_plain(lines)


def change_text(old: int, new: int) -> str:
    """By how much a figure grew: `+1,024`, `-8`; empty for nothing."""
    return f"{new - old:+,}" if new != old else ""


def _share(old: int, new: int) -> str:
    """The same as a part of what it was: `+4.2%`; empty where it was nothing, or did not change."""
    return f"{100 * (new - old) / old:+.1f}%" if old and new != old else ""


def _names(difference: Difference) -> tuple[str, str]:
    """What the two are called: by their names, with their files where these differ too."""
    sides = difference.old, difference.new
    files = [str(side.graph.metadata.get("spec_name") or "") for side in sides]
    names = [side.name for side in sides]
    if files[0] == files[1] or not all(files):
        shown = names
    elif names[0] == names[1]:
        shown = files
    else:
        shown = [f"{name} ({file})" for name, file in zip(names, files, strict=True)]
    return visible(shown[0]), visible(shown[1])


def _title(difference: Difference) -> Line:
    old, new = _names(difference)
    return [(old, _HEADING), (" -> ", _MINOR), (new, _HEADING)]


def _cells(row: DifferenceRow) -> tuple[str, str, str, str]:
    """Output, params, MACs and field of a row."""
    params, macs = row.delta("params"), row.delta("macs")
    return (
        visible(row.output),
        f"{params:+,}" if params else "",
        f"{macs:+,}" if macs else "",
        visible(row.field),
    )


def _label(row: DifferenceRow) -> str:
    times = f"x{row.count}" if row.count > 1 else ""
    size = f"({row.size})" if row.size else ""
    return " ".join(filter(None, (visible(row.label), visible(row.kind), times, size)))


def _table(difference: Difference, depth: int | None, width: int) -> Iterator[Line]:
    rows = rows_of(difference, depth, _MOST_ROWS)
    shown = rows[:_MOST_PRINTED]
    body = [_cells(row) for row in shown]
    heads = ("output", "params", "MACs", "field")
    seen = [index for index in range(len(heads)) if any(cells[index] for cells in body)]
    labels = ["  " * row.level + _label(row) for row in shown]
    sizes = {
        index: max(display_width(heads[index]), *(display_width(cells[index]) for cells in body))
        for index in seen
    }
    first = max(display_width("layer"), *map(display_width, labels))
    while seen and 2 + first + sum(sizes[index] + len(_GAP) for index in seen) > width:
        if seen[-1] != len(heads) - 1:
            first = max(width - 2 - sum(sizes[index] + len(_GAP) for index in seen), 18)
            break
        seen.pop()

    def line(sign: str, label: str, cells: Sequence[str], style: str) -> Line:
        pieces: Line = [(f"{sign} ", style)]
        label = fit(label, first)
        pieces.append((label + " " * (first - display_width(label)), style))
        for index in seen:
            blank = " " * (sizes[index] - display_width(cells[index]))
            right = heads[index] in ("params", "MACs")
            pieces.append((_GAP + (blank + cells[index] if right else cells[index] + blank), style))
        return pieces

    yield line(" ", "layer", heads, _HEADING)
    for row, label, cells in zip(shown, labels, body, strict=True):
        style = _STYLES[row.mark]
        yield line(_SIGNS.get(row.mark, " "), label, cells, style)
        indent = " " * (4 + 2 * row.level)
        for text in _wrapped(row.details, max(width - len(indent), _LEAST_DETAIL)):
            yield [(indent + text, style or _MINOR)]
    if len(rows) > len(shown):
        yield [(f"  ... {len(rows) - len(shown):,} more rows; JSON has all", _MINOR)]


def _wrapped(texts: Sequence[str], width: int) -> Iterator[str]:
    """Texts with commas between them, broken between texts, each cut to `width` columns."""
    line = ""
    for text in map(visible, texts):
        grown = f"{line}, {text}" if line else text
        if line and display_width(grown) > width:
            yield fit(line + ",", width)
            line = text
        else:
            line = grown
    if line:
        yield fit(line, width)


def _figures(difference: Difference) -> Iterator[tuple[str, str, str, str, str]]:
    """A row for each total: its name, both figures, the change, and its share."""
    for name, key, shown in _TOTALS:
        old, new = difference.totals[key]
        if shown is binary_size:
            change = f"{'+' if new > old else '-'}{binary_size(abs(new - old))}" * (new != old)
            yield name, shown(old), shown(new), change, _share(old, new)
        elif old or new:
            yield name, exact(old), exact(new), change_text(old, new), _share(old, new)
    fields = difference.fields
    if any(fields):
        changed = "changed" if fields[0] != fields[1] else ""
        yield "receptive field", fields[0] or "none", fields[1] or "none", changed, ""


def _totals(difference: Difference) -> Iterator[Line]:
    rows = list(_figures(difference))
    heads = ("total", "old", "new", "change", "")
    widths = [max(map(display_width, cells)) for cells in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str], style: str) -> Line:
        name, *others = cells
        texts = [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
        return [(f"{name:<{widths[0]}}{_GAP}{_GAP.join(texts)}", style)]

    yield line(heads, _HEADING)
    for cells in rows:
        yield line(cells, "" if cells[3] else _MINOR)


def _counted(difference: Difference) -> str:
    """`2 layers added, 3 changed, 40 only follow, 7 the same`."""
    found = [(count, _WORDS[kind]) for kind, count in difference.counts.items() if count]
    texts = [f"{count:,} {word}" for count, word in found]
    if not texts:
        return "no layers"
    noun = "layer" if found[0][0] == 1 else "layers"
    first, _, word = texts[0].partition(" ")
    return ", ".join([f"{first} {noun} {word}", *texts[1:]])


# ------------------------------------------------------------------------------------- Markdown


def difference_markdown(difference: Difference, *, depth: int | None = None) -> str:
    """What changed, as a comment on a pull request: totals first, then layers.

    Many layers are folded away under a summary, which GitHub opens on a click.
    """
    old, new = map(_escaped, _names(difference))
    lines = [f"### {old} → {new}", ""]
    if not difference:
        return "\n".join([*lines, "No difference."]) + "\n"
    lines.extend(f"- {_escaped(one.text)}" for one in difference.network)
    lines.extend(
        (
            *([""] if difference.network else []),
            "| total | old | new | change | |",
            "| --- | ---: | ---: | ---: | ---: |",
        )
    )
    for cells in _figures(difference):
        shown = [_escaped(cell) for cell in cells]
        if cells[3]:
            shown[3] = f"**{shown[3]}**"
        lines.append(f"| {' | '.join(shown)} |")
    lines.extend(("", f"{_escaped(_counted(difference))}."))
    if difference.layers:
        rows = rows_of(difference, depth, _MOST_ROWS)
        lines.extend(("", *_markdown_rows(rows)))
    return "\n".join(lines) + "\n"


def _markdown_rows(rows: Sequence[DifferenceRow]) -> Iterator[str]:
    folded = len(rows) > _OPEN_ROWS
    if folded:
        yield from ("<details><summary>Layers</summary>", "")
    yield "| | layer | output | params | MACs | field | |"
    yield "| --- | --- | --- | ---: | ---: | --- | --- |"
    for row in rows[:_MOST_PRINTED]:
        sign = _SIGNS.get(row.mark, "")
        cells = (
            f"`{sign}`" if sign else "",
            "&emsp;" * row.level + _escaped(_label(row)),
            *map(_escaped, _cells(row)),
            _escaped(", ".join(row.details)),
        )
        yield f"| {' | '.join(cells)} |"
    if len(rows) > _MOST_PRINTED:
        yield from ("", f"{len(rows) - _MOST_PRINTED:,} more rows are left out.")
    if folded:
        yield from ("", "</details>")


def _escaped(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&!~$" else c for c in visible(text))
