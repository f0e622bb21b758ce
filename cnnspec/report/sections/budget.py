"""Budgets: limits on the figures of a network, what exceeds them, and which layers are to blame.

`macs<4.2G, params<26M, peak<8MiB` is read here. K, M, G, T are powers of 1,000; KiB, MiB, GiB
powers of 1,024.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean
from cnnspec.report.columns import Column
from cnnspec.report.model import Layer, Report
from cnnspec.report.numbers import binary_size, exact, percent, plain_number, short
from cnnspec.report.panel import Entry, panel
from cnnspec.report.styled import Line

__all__ = ["FIGURES", "Budget", "Limit", "Outcome", "parse_budget"]

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_UNITS: Mapping[str, int] = {
    "": 1,
    "b": 1,
    **{unit: 1000**power for power, unit in enumerate("kmgt", start=1)},
    **{f"{unit}b": 1000**power for power, unit in enumerate("kmgt", start=1)},
    **{f"{unit}ib": 1024**power for power, unit in enumerate("kmgt", start=1)},
}
_TERM = re.compile(r"\s*(\w+)\s*(<=|>=|==|=|<|>|≤|≥)\s*([0-9][0-9_]*\.?[0-9]*)\s*([A-Za-z]*)\s*")
_SPELLINGS = {"==": "=", "≤": "<=", "≥": ">="}
_CULPRITS = 3


class Figure(NamedTuple):
    """A figure that a budget may limit: its value, the layers' parts of it, and its unit."""

    value: Callable[[Report], float | None]
    part: Callable[[Layer], float] | None = None
    in_bytes: bool = False


def _total(name: str) -> Figure:
    parted = name in Layer.__dataclass_fields__
    return Figure(
        lambda report: getattr(report.totals, name),
        (lambda layer: getattr(layer, name)) if parted else None,
    )


def _field_size(report: Report) -> float | None:
    """The smallest receptive field along any axis at the last layer that has a local one."""
    layer = report.last_local
    sizes = [axis.field.size_min for axis in (layer.receptive_field or ())] if layer else []
    return min((size for size in sizes if size is not None), default=None)


FIGURES: Mapping[str, Figure] = {
    **{
        name: _total(name)
        for name in (
            "params",
            "trainable_params",
            "buffers",
            "macs",
            "flops",
            "connections",
            "units",
            "activations",
            "macts",
            "layers",
        )
    },
    "weights": Figure(
        lambda report: report.totals.weight_bytes, lambda layer: layer.params, in_bytes=True
    ),
    "peak": Figure(lambda report: report.totals.peak_activation_bytes, in_bytes=True),
    "training": Figure(lambda report: report.training_memory.total, in_bytes=True),
    "field": Figure(_field_size),
}
"""What a budget may limit, by name. `weights`, `peak` and `training` are bytes."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One term of a budget, as written and as understood."""

    text: str
    figure: str
    comparison: str
    bound: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a network stands to a limit. `value` is None where the figure is not known.

    `culprits` are the layers with the largest parts of what exceeds the limit, or the tensors alive
    at the peak, with their shares of the whole.
    """

    limit: Limit
    value: float | None
    kept: bool
    culprits: tuple[tuple[str, float], ...]


def parse_budget(text: str) -> tuple[Limit, ...]:
    """The limits of a budget. Raises `EnvironmentFailure` for what is none."""
    return tuple(_limit(term) for term in text.split(",") if term.strip()) or _nothing()


def _nothing() -> tuple[Limit, ...]:
    raise EnvironmentFailure(
        "--budget needs at least one limit", help='for example --budget "macs<4.2G, params<26M"'
    )


def _limit(term: str) -> Limit:
    found = _TERM.fullmatch(term)
    if found is None:
        raise EnvironmentFailure(
            f"`{term.strip()}` is no limit", help='a limit is like "macs<4.2G" or "peak<=8MiB"'
        )
    name, comparison, number, unit = found.groups()
    if name not in FIGURES:
        raise EnvironmentFailure(
            f"a budget knows no figure `{name}`",
            help=did_you_mean(name, FIGURES) or f"figures are {', '.join(FIGURES)}",
        )
    factor = _UNITS.get(unit.lower())
    if factor is None or (unit.lower().endswith("b") and not FIGURES[name].in_bytes):
        units = "K, M, G, T, KiB, MiB, GiB, TiB" if FIGURES[name].in_bytes else "K, M, G, T"
        raise EnvironmentFailure(
            f"`{name}` has no unit `{unit}`", help=f"units of `{name}` are {units}"
        )
    bound = float(number.replace("_", "")) * factor
    return Limit(term.strip(), name, _SPELLINGS.get(comparison, comparison), bound)


@dataclass(frozen=True)
class Budget:
    """A section of a report: limits, and how the network stands to them."""

    report: Report
    limits: Sequence[Limit]

    key = "budget"

    @property
    def columns(self) -> Mapping[str, Column]:
        """None."""
        return {}

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """Nothing."""
        return {}

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """One for each limit, in their order."""
        return tuple(_outcome(self.report, limit) for limit in self.limits)

    @property
    def kept(self) -> bool:
        """Whether all limits are kept."""
        return all(outcome.kept for outcome in self.outcomes)

    def lines(self, width: int) -> Iterator[Line]:
        """A line for each limit, with those to blame."""
        yield [("budget", "bold")]
        yield from panel((_entry(outcome) for outcome in self.outcomes), width)

    def to_dict(self) -> dict[str, Any]:
        """Limits, figures, verdicts and culprits."""
        return {
            "kept": self.kept,
            "limits": [
                {
                    "limit": outcome.limit.text,
                    "figure": outcome.limit.figure,
                    "bound": outcome.limit.bound,
                    "value": outcome.value,
                    "kept": outcome.kept,
                    "culprits": [{"path": p, "share": share} for p, share in outcome.culprits],
                }
                for outcome in self.outcomes
            ],
        }


def _outcome(report: Report, limit: Limit) -> Outcome:
    figure = FIGURES[limit.figure]
    value = figure.value(report)
    kept = value is not None and _COMPARISONS[limit.comparison](value, limit.bound)
    blamed = limit.comparison in ("<", "<=") and not kept
    return Outcome(limit, value, kept, _culprits(report, limit.figure) if blamed else ())


def _culprits(report: Report, name: str) -> tuple[tuple[str, float], ...]:
    figure = FIGURES[name]
    if name == "peak":
        parts: dict[str, float] = dict(report.peak_tensors)
    elif figure.part is not None:
        part = figure.part
        parts = {layer.path: part(layer) for layer in report.layers if not layer.training_only}
    else:
        return ()
    whole = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda item: item[1], reverse=True)
    return tuple((path, value / whole) for path, value in ranked[:_CULPRITS] if value)


def _entry(outcome: Outcome) -> Entry:
    limit, value = outcome.limit, outcome.value
    if value is None:
        return Entry(limit.text, "unknown", "", "not kept: the figure is not known")
    in_bytes = FIGURES[limit.figure].in_bytes
    shown = exact(int(value)) if value == int(value) else plain_number(value)
    brief = binary_size(int(value)) if in_bytes else short(int(value))
    share = percent(int(value), int(limit.bound)) if limit.bound >= 1 else ""
    if outcome.kept:
        return Entry(limit.text, shown, brief, f"kept, {share} of it" if share else "kept")
    blame = ", ".join(f"{path} ({share:.1%})" for path, share in outcome.culprits)
    what = "alive then: " if limit.figure == "peak" else "most: "
    verdict = f"not kept, {share} of it" if share else "not kept"
    return Entry(limit.text, shown, brief, f"{verdict}; {what}{blame}" if blame else verdict)
