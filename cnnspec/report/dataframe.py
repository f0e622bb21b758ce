"""The layers as a pandas data frame, where pandas is installed.

pandas is no dependency of cnnspec and is imported nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report.fields import field_text
from cnnspec.report.records import COUNTS

if TYPE_CHECKING:
    from pandas import DataFrame

    from cnnspec.report.model import Layer, Report

__all__ = ["to_dataframe"]

_OPS = ("mac", "add", "mul", "cmp", "div", "exp")
_SUMMED = (*COUNTS, *(f"ops_{kind}" for kind in _OPS))
_COLUMNS = (
    *("op", "inputs", "output_shape", *_SUMMED),
    *("field", "field_size", "field_stride", "line", "training_only", "dead"),
)
_TYPES = {
    "op": "category",
    **dict.fromkeys((*_SUMMED, "line"), "int64"),
    **dict.fromkeys(("field_size", "field_stride"), "float64"),
    **dict.fromkeys(("training_only", "dead"), "bool"),
}


def to_dataframe(report: Report) -> DataFrame:
    """One row for each layer in order of execution, its path as the index.

    Counts are int64, the operation a category. Shapes are tuples, one for each layer and batch not
    counted; `field` is the receptive field as the table writes it, `field_size` and `field_stride`
    are those of its first axis, NaN where there is none or it is not known. The sums over the
    layers of inference are in `attrs["totals"]`, the network's name in `attrs["name"]`.

    Raises:
        EnvironmentFailure: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise EnvironmentFailure(
            "pandas is not installed, and a data frame is made with it",
            help="`pip install pandas`; `to_dict()` and CSV need nothing",
        ) from None
    index = pandas.Index([layer.path for layer in report.layers], name="path", dtype="object")
    rows = map(_row, report.layers)
    frame = pandas.DataFrame(rows, index=index, columns=_COLUMNS).astype(_TYPES)
    frame.attrs["name"] = report.name
    frame.attrs["totals"] = report.totals.to_dict()
    return frame


def _row(layer: Layer) -> dict[str, object]:
    seen = layer.receptive_field
    field = seen[0].field if seen else None
    missing = float("nan")
    return {
        "op": layer.op,
        "inputs": layer.inputs,
        "output_shape": layer.output_shape,
        **{count: getattr(layer, count) for count in COUNTS},
        **{f"ops_{kind}": getattr(layer.ops, kind) for kind in _OPS},
        "field": field_text(seen),
        "field_size": missing if field is None or field.size is None else float(field.size),
        "field_stride": missing if field is None or field.stride is None else float(field.stride),
        "line": layer.line,
        "training_only": layer.training_only,
        "dead": layer.dead,
    }
