"""The layers as comma-separated values, for spreadsheets and data frames."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

from cnnspec.diagnostics import shape_text
from cnnspec.report.model import Figures, Layer, Report
from cnnspec.report.numbers import plain_number
from cnnspec.report.records import COUNTS
from cnnspec.report.section import Section

__all__ = ["to_csv"]

_BYTES = ("output_bytes", "bytes_read", "bytes_written", "live_bytes", "saved_bytes")
_FIELD = ("field", "stride", "global")
_TOTAL = "total"
_TRAINING_TOTAL = "total with training outputs"


def to_csv(report: Report, *, totals: bool = True, sections: Sequence[Section] = ()) -> str:
    """A header, one row for each layer, and with `totals` a last row of sums.

    Sections add a column for each figure they have of single layers.

    In a row of sums `live_bytes` is the peak. Lines end with a newline alone. A network with
    training-only layers has a second row of sums, which counts them too. Sizes and strides of a
    field are those of its axes joined by `x`.
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    added = {key: values for section in sections for key, values in section.per_layer.items()}
    writer.writerow(
        (
            *("path", "op", "inputs", "output_shape", *COUNTS, *_FIELD, "line", "training"),
            *("padding_macs", *_BYTES, "intensity", *added),
        )
    )
    for position, layer in enumerate(report.layers):
        writer.writerow((*_row(layer), *(values[position] for values in added.values())))
    if totals:
        blank = ("",) * len(added)
        writer.writerow((*_sums(_TOTAL, report.totals), *blank))
        if any(layer.training_only for layer in report.layers):
            writer.writerow((*_sums(_TRAINING_TOTAL, report.totals.training), *blank))
    return out.getvalue()


def _row(layer: Layer) -> tuple[object, ...]:
    fields = [axis.field for axis in layer.receptive_field or ()]
    return (
        layer.path,
        layer.op,
        " ".join(layer.inputs),
        shape_text(layer.output_shape),
        *(getattr(layer, count) for count in COUNTS),
        _joined(field.size for field in fields),
        _joined(field.stride for field in fields),
        "yes" if any(field.is_global for field in fields) else "no",
        layer.line,
        "yes" if layer.training_only else "no",
        layer.padding_macs,
        *(getattr(layer, count) for count in _BYTES),
        layer.intensity,
    )


def _joined(values: Iterable[float | None]) -> str:
    return "x".join("?" if value is None else plain_number(value) for value in values)


def _sums(name: str, figures: Figures) -> tuple[object, ...]:
    counts = (getattr(figures, count) for count in COUNTS)
    sizes = (
        *("", figures.bytes_read, figures.bytes_written),
        *(figures.peak_activation_bytes, figures.saved_bytes),
    )
    return (
        *(name, "", "", "", *counts, "", "", "", "", ""),
        *(figures.padding_macs, *sizes, figures.intensity),
    )
