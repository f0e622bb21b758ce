"""The lectures' worked cases, as they lie in `lecture0.yaml` to `lecture4.yaml`.

A case quotes what it checks. Most are small networks (`input` and `layers`) or bundled ones
(`network`), and `FIGURES` says how each figure that is expected is found; the others name a
function (`check`) of `counts`, `layers` or `learning`, which gets what is `given`. `stated` are
those whose answer a lecture gives itself; the others it leaves open, or to a figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import yaml

import cnnspec
from cnnspec.geometry import remainder, same_padding
from cnnspec.report import Report

LECTURES = 5
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Case:
    """One worked case, with the fields of its file."""

    id: str
    quote: str
    expect: Mapping[str, Any]
    stated: bool = False
    input: Sequence[int] = ()
    layers: Sequence[Any] = ()
    network: str = ""
    check: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        return self.id

    @property
    def text(self) -> str:
        """The spec of a small network."""
        document = {"name": "net", "inputs": {"x": list(self.input)}, "layers": list(self.layers)}
        return yaml.safe_dump({"cnnspec": 1, **document}, sort_keys=False)

    def report(self) -> Report:
        """The analysis of its network."""
        if self.network:
            return bundled(self.network)
        return cnnspec.load(text=self.text).analyze()


@cache
def bundled(name: str) -> Report:
    """The analysis of a bundled network."""
    return cnnspec.load(name).analyze()


def read(lecture: int) -> list[Case]:
    """The cases of one lecture."""
    path = Path(__file__).with_name(f"lecture{lecture}.yaml")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Case(**case) for case in document["cases"]]


CASES = [case for lecture in range(LECTURES) for case in read(lecture)]


# --------------------------------------------------------------------------- figures of networks


def output(report: Report) -> list[int]:
    """The shape of the only output."""
    (shape,) = report.outputs.values()
    return list(shape)


def field_of(report: Report, path: str = "") -> list[tuple[int, int] | None]:
    """Size and stride along each axis of a layer, or the last one; None if all is seen."""
    layer = report[path] if path else report.layers[-1]
    return [
        None if axis.field.is_global else (axis.field.size, int(axis.field.stride or 0))
        for axis in layer.receptive_field or ()
    ]


def _same(values: Sequence[Any]) -> Any:
    first, *others = values
    assert all(value == first for value in others)
    return first


def _windows(report: Report) -> list[str]:
    """Paths of the layers that see by position."""
    return [layer.path for layer in report.layers if None not in field_of(report, layer.path)]


def _field(report: Report, part: int) -> Any:
    last = report.last_local
    if last is None:
        assert set(field_of(report)) == {None}
        return "whole_input"
    return _same(field_of(report, last.path))[part]


def weighted(report: Report, *operations: str) -> list[int]:
    """Params of the layers of some operations."""
    return [layer.params for layer in report.layers if layer.op in operations]


def _quoted_numbers(case: Case) -> list[int]:
    return [int(part.replace(",", "")) for part in re.findall(r"\d[\d,]*", case.quote)]


def _choice(case: Case, report: Report) -> str:
    """The letter of the option in the quote that the network's own figure is."""
    options = dict(re.findall(r"\((\w)\) (\d+(?:x\d+)*)", case.quote.replace(TIMES, "x")))
    found = {
        "feature map": "x".join(map(str, output(report)[1:])),
        "each *filter*": str(_filter_weights(report)),
        "in the bank": str(output(report)[0]),
    }
    (answer,) = (value for asked, value in found.items() if asked in case.quote)
    (letter,) = (letter for letter, option in options.items() if option == answer)
    return letter


def _filter_weights(report: Report) -> int:
    first = report.layers[0]
    return first.weights // first.output_shape[0]


def _filter_params(report: Report) -> int:
    first = report.layers[0]
    return first.params // first.output_shape[0]


def _exact_size(case: Case, report: Report) -> Fraction:
    """What the formula gives before it is rounded: (N - F + 2P) / S + 1."""
    ((arguments,),) = (layer.values() for layer in case.layers)
    kernel, stride = arguments["kernel_size"], arguments["stride"]
    padding = arguments.get("padding", 0)
    left = remainder(case.input[1], kernel, stride, 1, padding, padding)
    return output(report)[1] + Fraction(left, stride)


def _keeping(case: Case) -> int:
    """The padding under which a map has the size of its input."""
    before, after = same_padding(case.input[1], case.layers[0]["Conv2d"]["kernel_size"], 1, 1)
    assert before == after
    return before


def _dense_inputs(report: Report) -> list[int]:
    """Channels that each convolution reads: its weights tell."""
    return [layer.weights // (layer.output_shape[0] * 9) for layer in convolutions(report)]


def convolutions(report: Report) -> list[Any]:
    """The layers that are convolutions."""
    return [layer for layer in report.layers if layer.op == "Conv2d"]


def _maps_read(report: Report) -> int:
    """How many earlier outputs all layers of a dense block read together."""
    before, growth = _dense_inputs(report)[0], report.layers[0].output_shape[0]
    return sum((channels - before) // growth + 1 for channels in _dense_inputs(report))


def _odd_one(case: Case, report: Report) -> int:
    """Where the caption differs from what the network has."""
    pairs = enumerate(zip(_units(report), _quoted_numbers(case), strict=True))
    (place,) = [place for place, (found, said) in pairs if found != said]
    return place


def _units(report: Report) -> list[int]:
    return [layer.units for layer in report.layers if layer.units]


def _last_pool(report: Report) -> list[int]:
    *_, last = (layer for layer in report.layers if layer.op == "MaxPool2d")
    return list(last.output_shape)


FIGURES: Mapping[str, Callable[[Case, Report], Any]] = {
    "out": lambda _, report: output(report),
    "floor_out": lambda _, report: output(report),
    "shapes": lambda _, report: [list(layer.output_shape) for layer in report.layers],
    "feature_out": lambda _, report: _last_pool(report),
    "params": lambda _, report: report.totals.params,
    "weights": lambda _, report: report.totals.weights,
    "bias": lambda _, report: report.totals.biases,
    "params_per_layer": lambda _, report: [one.params for one in report.layers if one.params],
    "params_conv": lambda _, report: weighted(report, "Conv2d"),
    "params_fc": lambda _, report: weighted(report, "Linear"),
    "weight_layers": lambda _, report: len(weighted(report, "Conv2d", "Linear")),
    "params_per_filter": lambda _, report: _filter_params(report),
    "weights_per_filter": lambda _, report: _filter_weights(report),
    "filters": lambda _, report: report.layers[0].output_shape[0],
    "units": lambda _, report: report.totals.units,
    "units_conv_fc": lambda _, report: _units(report),
    "input_units": lambda _, report: prod(_same(list(report.inputs.values()))),
    "connections": lambda _, report: report.totals.connections,
    "macs": lambda _, report: report.totals.macs,
    "flops_2x": lambda _, report: 2 * report.totals.macs,
    "rf": lambda _, report: _field(report, 0),
    "jump": lambda _, report: _field(report, 1),
    "rf_per_layer": lambda _, report: [
        _same(field_of(report, path))[0] for path in _windows(report)
    ],
    "jump_per_layer": lambda _, report: [
        _same(field_of(report, path))[1] for path in _windows(report)
    ],
    "in_channels": lambda _, report: _dense_inputs(report),
    "pairwise_connections": lambda _, report: _maps_read(report),
    "p": lambda case, _: _keeping(case),
    "choice": _choice,
    "caption": lambda case, _: _quoted_numbers(case),
    "erratum_index": _odd_one,
    "exact_size": _exact_size,
    "warnings": lambda _, report: [warning.code for warning in report.warnings],
}
"""How what a case expects of a network is found."""
