"""What was proved of an exported model, in lines: from its record to a terminal or a pipe.

Records are those that the back end gives (`Verification.to_json`, `Agreement.to_json`), so that
what is printed and what is in the JSON cannot differ. How anything was proved may not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnspec.diagnostics import quantity
from cnnspec.report.numbers import duration
from cnnspec.report.styled import Line, visible

__all__ = ["proof_lines"]

_WORDS = {"none": "no optimisations", "all": "all optimisations"}

_VERDICTS = {"equal": "green", "close": "yellow", "near": "green", "far": "yellow"}
"""A style for each verdict."""


def proof_lines(record: Mapping[str, Any]) -> Iterator[Line]:
    """The lines of a record of format 1: a verdict, what was compared, what to be aware of."""
    lines = _agreement(record) if record["kind"] == "agreement" else _verification(record)
    yield from lines
    for remark in record["remarks"]:
        yield [("  note  ", "yellow"), (visible(remark), "")]


def _verification(record: Mapping[str, Any]) -> Iterator[Line]:
    close = "equal to" if record["verdict"] == "equal" else "close to"
    yield [
        ("verified", "bold"),
        (f" ({record['thorough']}, {duration(record['seconds'])}): ", ""),
        (close, _VERDICTS[record["verdict"]]),
        (
            f" torch, largest difference {_power(record['relative'])} relative, "
            f"{_power(record['absolute'])} absolute",
            "",
        ),
    ]
    rows = [("checker", f"full, opset {record['opset']}"), ("shapes", _shapes(record["shapes"]))]
    rows += _comparison_rows(record["comparisons"])
    layers = record["layers"]
    if layers["compared"]:
        worst = visible(str(layers["worst"]))
        rows.append(
            (
                "layers",
                f"{layers['compared']} by themselves, batch {layers['batch']}: "
                f"{_power(layers['relative'])} at most, at {worst}",
            )
        )
    if record["top1"]:
        rows.append(("first choices", _choices(record["top1"])))
    yield from _table(rows)


def _comparison_rows(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """One row for each level of optimisation and type of the reference."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in comparisons:
        groups.setdefault((each["optimisations"], each["reference"]), []).append(each)
    for (level, reference), found in groups.items():
        batches = sorted({each["batch"] for each in found})
        tried = f"batch {_and(batches)}"
        drawn = dict.fromkeys(each["inputs"] for each in found if each["inputs"] != "normal")
        sizes = dict.fromkeys(each["size"] for each in found if each["size"])
        for more in (*drawn, *sizes):
            tried += f", {visible(more)}"
        worst = max(each["relative"] for each in found)
        words = _WORDS.get(level, f"{level} optimisations")
        yield words, f"{_power(worst)} of {reference}; {tried}"


def _agreement(record: Mapping[str, Any]) -> Iterator[Line]:
    near = "near" if record["verdict"] == "near" else "not very near"
    yield [
        ("compared", "bold"),
        (f" ({record['precision']}, {duration(record['seconds'])}): ", ""),
        (near, _VERDICTS[record["verdict"]]),
        (f" to float32, {quantity(record['samples'], 'sample')}", ""),
    ]
    rows = [("checker", f"full, opset {record['opset']}"), ("shapes", _shapes(record["shapes"]))]
    for output in record["outputs"]:
        decibels = output["decibels"]
        ratio = "no noise" if decibels is None else f"{decibels:.1f} dB signal to noise"
        text = f"{ratio}, largest difference {_power(output['relative'])}"
        if output["top1"]:
            text += f", first choice kept for {_choices(output['top1'])}"
            sure = output["sure"]
            if sure["samples"] not in (0, output["top1"]["samples"]):
                text += f" ({_choices(sure)} sure ones)"
        rows.append((visible(output["output"]), text))
    yield from _table(rows)


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[Line]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        yield [(f"  {name:<{width}}  ", "dim"), (text, "")]


def _shapes(shapes: Mapping[str, int]) -> str:
    text = f"{quantity(shapes['equal'], 'tensor')} as analysed"
    if shapes["partial"]:
        text += f", {shapes['partial']} that ONNX infers in part only"
    return text


def _choices(choices: Mapping[str, int]) -> str:
    return f"{choices['agreeing']} of {choices['samples']}"


def _power(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _and(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
