"""The JSON document of a report as text, a layer a line."""

from __future__ import annotations

from json import JSONEncoder, dumps

from cnnspec.report.model import Report

__all__ = ["to_json"]


def to_json(report: Report) -> str:
    """`Report.to_dict` as text.

    Layers are encoded one at a time: the dicts of 100,000 of them would take a gigabyte.
    """
    encode = JSONEncoder().encode
    parts = []
    for key, value in report.document().items():
        if key == "layers":
            rows = ",\n  ".join([encode(layer.to_dict()) for layer in report.layers])
            text = f"[\n  {rows}\n ]"
        else:
            text = dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}"
