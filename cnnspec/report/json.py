"""The JSON document of a report as text, a layer a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from json import JSONEncoder, dumps
from typing import Any

from cnnspec.report.model import Report
from cnnspec.report.section import Section

__all__ = ["several_to_json", "to_json"]


def to_json(report: Report, sections: Sequence[Section] = ()) -> str:
    """`Report.to_dict` as text, with what sections add.

    Layers are encoded one at a time: the dicts of 100,000 of them would take a gigabyte.
    """
    encode = JSONEncoder().encode
    parts = []
    for key, value in report.document().items():
        if key == "layers":
            rows = ",\n  ".join(map(encode, _layers(report, sections)))
            text = f"[\n  {rows}\n ]"
        else:
            text = dumps(value, indent=1).replace("\n", "\n ")
        parts.append(f' "{key}": {text}')
    for section in sections:
        text = dumps(section.to_dict(), indent=1).replace("\n", "\n ")
        parts.append(f' "{section.key}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}"


def several_to_json(reports: Iterable[tuple[Report, Sequence[Section]]]) -> str:
    """Several documents as one: `{"format": 1, "networks": [...]}`."""
    documents = (to_json(report, sections) for report, sections in reports)
    return '{"format": 1, "networks": [\n' + ",\n".join(documents) + "\n]}"


def _layers(report: Report, sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    added = [column for section in sections for column in section.per_layer.items()]
    for position, layer in enumerate(report.layers):
        yield {**layer.to_dict(), **{key: values[position] for key, values in added}}
