"""The panel below the table: a figure a line, exact and short, with remarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cnnspec.report.fields import field_text
from cnnspec.report.model import Report
from cnnspec.report.numbers import binary_size, exact, short
from cnnspec.report.styled import Line, display_width, fit, visible

__all__ = ["Entry", "figure", "panel", "size", "total_entries"]

_GAP = "  "
_LISTED = 4
_MINOR = "dim"
_HEADING = "bold"


class Entry(NamedTuple):
    """A line of the panel: a name, the exact figure, the short one, a remark."""

    name: str
    value: str
    brief: str = ""
    remark: str = ""


def figure(name: str, number: int, remark: str = "") -> Entry:
    """A line that states a number."""
    return Entry(name, exact(number), short(number), remark)


def size(name: str, count: int, remark: str) -> Entry:
    """A line that states a number of bytes."""
    return Entry(name, exact(count), binary_size(count), remark)


def panel(entries: Iterable[Entry], width: int) -> Iterator[Line]:
    """Entries in columns, their remarks wrapped to `width`."""
    entries = list(entries)
    names = max(len(entry.name) for entry in entries)
    values = max(len(entry.value) for entry in entries)
    briefs = max(len(entry.brief) for entry in entries)
    indent = names + values + briefs + 3 * len(_GAP)
    for entry in entries:
        remarks = _wrapped(visible(entry.remark), max(width - indent, 24))
        yield [
            (f"{entry.name:<{names}}", _HEADING),
            (f"{_GAP}{entry.value:>{values}}", ""),
            (f"{_GAP}{entry.brief:>{briefs}}", "cyan"),
            (_GAP + remarks[0], _MINOR),
        ]
        for remark in remarks[1:]:
            yield [(" " * indent + remark, _MINOR)]


def _wrapped(text: str, width: int) -> list[str]:
    """`text` broken at spaces into pieces of at most `width` columns; longer words are cut."""
    pieces = [""]
    for word in text.split(" "):
        grown = f"{pieces[-1]} {word}" if pieces[-1] else word
        if display_width(grown) <= width or not pieces[-1]:
            pieces[-1] = fit(grown, width)
        else:
            pieces.append(fit(word, width))
    return pieces


def total_entries(report: Report) -> Iterator[Entry]:
    """What the panel says of every network."""
    totals = report.totals
    trainable = f"{exact(totals.trainable_params)} trainable"
    frozen = f", {exact(totals.frozen_params)} frozen" if totals.frozen_params else ""
    yield figure("params", totals.params, trainable + frozen)
    if totals.buffers:
        yield figure("buffers", totals.buffers)
    yield size("weight bytes", totals.weight_bytes, f"params in {report.options.dtype}")
    yield figure("MACs", totals.macs, "of conv, linear, matmul and attention")
    yield figure("FLOPs", totals.flops, "2 a MAC, 1 for all else")
    if totals.connections:
        with_bias = f"{exact(totals.connections_with_bias)} with biases"
        yield figure("connections", totals.connections, with_bias)
    multiplied = f"{exact(totals.macts)} of layers with MACs"
    yield figure("activations", totals.activations, multiplied)
    yield size("peak memory", totals.peak_activation_bytes, _peak_remark(report))
    if report.is_trainable:
        yield _training_memory(report)
    local = report.last_local
    if local is not None:
        yield Entry("receptive field", field_text(local.receptive_field), "", f"at {local.path}")
    status = report.status["receptive_field"]
    if status.status == "partial":
        yield Entry("", "", "partial", status.why)


def _peak_remark(report: Report) -> str:
    """What is alive at the peak."""
    names = list(report.peak_tensors)
    listed = ", ".join(names[:_LISTED])
    further = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"activations {_at(report)}, alive then: {listed}{further}"


def _at(report: Report) -> str:
    """Of what a figure in bytes is: the type is said where it is not the usual one."""
    dtype = report.options.dtype
    return f"at batch {report.options.batch}" + (f" in {dtype}" if dtype != "float32" else "")


def _training_memory(report: Report) -> Entry:
    """An estimate of a training step, part by part."""
    kept = report.training_memory
    parts = {
        "weights": kept.weights,
        "gradients": kept.gradients,
        kept.optimizer: kept.optimizer_state,
        "saved for backward": kept.saved_activations,
    }
    if not any(parts.values()):
        parts = {"buffers": kept.buffers}
    listed = ", ".join(f"{binary_size(part)} {name}" for name, part in parts.items() if part)
    remark = f"estimate {_at(report)}"
    return size("training memory", kept.total, f"{remark}: {listed}" if listed else remark)
