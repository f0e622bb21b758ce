"""The section of a report that has figures as formulas of the input's size, and sizes it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cnnspec.passes.symbolic import Domain, Expand, Symbols, Takes, symbols
from cnnspec.report.columns import Column, Subject
from cnnspec.report.model import Report
from cnnspec.report.styled import Line, visible
from cnnspec.symbolic import Formula

__all__ = ["SymbolicSection", "symbolic_document"]

_FIGURES = {"macs": "MACs", "flops": "FLOPs", "params": "params", "activations": "activations"}
_MOST_TERMS = 12
_GAP = "  "


@dataclass(frozen=True)
class SymbolicSection:
    """Formulas of a network. `expand` makes the network of other input shapes, None if it cannot.

    It is asked only where the layers themselves depend on the size.
    """

    report: Report
    expand: Expand | None = None
    key: str = "symbolic"

    @cached_property
    def symbols(self) -> Symbols:
        """The network as a function of its input's size."""
        return symbols(self.report.graph, self.expand)

    @property
    def columns(self) -> Mapping[str, Column]:
        """One, with the shapes of outputs as formulas; none where there are no formulas."""
        if self.symbols.totals is None:
            return {}
        title = f"output by {', '.join(self.symbols.sizes)}"
        return {
            "formula": Column(title, self._cell, left=True, help="the output's shape as formulas")
        }

    def _cell(self, subject: Subject) -> str:
        value = subject.row.value
        graph = self.report.graph
        if value is None or graph.producers[value] < 0:
            return ""
        node = graph.nodes[graph.producers[value]]
        return _shape(self.symbols.layers[node.index].outputs[node.outputs.index(value)])

    @property
    def per_layer(self) -> Mapping[str, Sequence[object]]:
        """Shapes of first outputs and MACs, as text."""
        layers = self.symbols.layers
        if not layers:
            return {}
        return {
            "output_shape_formula": [
                [size.plain for shape in layer.outputs[:1] for size in shape] for layer in layers
            ],
            "macs_formula": [layer.macs.plain for layer in layers],
        }

    def lines(self, width: int) -> Iterator[Line]:
        """Totals as formulas, where they hold, and the input sizes that the network takes."""
        found = self.symbols
        here = ", ".join(f"{name} = {size}" for name, size in found.sizes.items())
        yield [("as formulas", "bold"), (f"{_GAP}here {here}" if here else "", "dim")]
        entries = [*_formula_entries(found), *_size_entries(found)]
        names = max(len(name) for name, _ in entries)
        for name, pieces in entries:
            room = max(width - names - len(_GAP), 24)
            for number, text in enumerate(_filled(map(visible, pieces), room)):
                yield [(f"{'' if number else name:<{names}}", "bold"), (_GAP + text, "")]

    def to_dict(self) -> dict[str, Any]:
        """As `symbolic_document` says it."""
        return symbolic_document(self.symbols)


def symbolic_document(found: Symbols) -> dict[str, Any]:
    """A network as a function of its input's size, as JSON says it; layers apart."""
    document: dict[str, Any] = {"sizes": dict(found.sizes)}
    if found.totals is None:
        document["unavailable"] = found.unavailable
    else:
        document["outputs"] = {
            name: [size.plain for size in shape] for name, shape in found.outputs.items()
        }
        for figure in _FIGURES:
            formula: Formula = getattr(found.totals, figure)
            limit = formula.limit
            document[figure] = {
                **formula.to_dict(),
                "holds_for": _conditions(found.domains[figure]),
                "limit": None if limit is None else str(limit[0]),
            }
    document["input_sizes"] = [
        {
            "along": list(takes.along),
            "fixed": dict(takes.fixed),
            "smallest": takes.smallest,
            "same_weights": takes.same.describe(takes.along[0]),
            "smallest_of_any_weights": takes.smallest_built,
            "any_weights": takes.builds.describe(takes.along[0]),
            "fixed_by": takes.fixed_by,
            "refusal": None if takes.refusal is None else takes.refusal._asdict(),
            "known_to": takes.known,
        }
        for takes in found.takes
    ]
    return document


Entry = tuple[str, list[str]]
"""A name, and pieces of text between which a line may end."""


def _formula_entries(found: Symbols) -> Iterator[Entry]:
    if found.totals is None:
        yield "", (found.unavailable or "").split(" ")
        return
    for name, shape in found.outputs.items():
        yield name, [_shape(shape) or "scalar"]
    usual = found.domains["macs"]
    for figure, label in _FIGURES.items():
        formula: Formula = getattr(found.totals, figure)
        pieces = formula.pieces
        if len(pieces) > _MOST_TERMS:
            pieces = [*pieces[:_MOST_TERMS], f"+ {len(pieces) - _MOST_TERMS} further terms"]
        yield label, pieces
        limit = formula.limit
        if figure == "macs" and limit is not None:
            number, names = limit
            each = names[0] if len(names) == 1 else f"({'*'.join(names)})"
            shown = f"{float(number):,.1f}" if number.denominator > 1 else f"{number.numerator:,}"
            yield "", [f"MACs/{each}", f"tends to {shown}", "as sizes grow"]
        if _conditions(found.domains[figure]) != _conditions(usual):
            yield "", ["for", *_joined(_conditions(found.domains[figure]))]
    yield "hold for", _joined(_conditions(usual)) or ["all sizes"]


def _conditions(domain: Domain) -> list[str]:
    """The conditions that some sizes fail."""
    told = [sizes.describe(name) for name, sizes in domain.sizes.items() if not sizes.is_all]
    return [*told, *map(str, domain.further)]


def _joined(conditions: Sequence[str]) -> list[str]:
    return [f"{text}," for text in conditions[:-1]] + list(conditions[-1:])


def _size_entries(found: Symbols) -> Iterator[Entry]:
    takes = found.takes
    first = takes[0] if takes else None
    alike = first is not None and all(
        (each.same, each.builds, each.known) == (first.same, first.builds, first.known)
        for each in takes
    )
    for number, each in enumerate(takes[:1] if alike else takes):
        subject = " = ".join(each.along)
        if each.fixed:
            subject += " with " + ", ".join(f"{name} = {size}" for name, size in each.fixed.items())
        elif alike and len(takes) > 1:
            subject += ", or either alone" if len(each.along) == 2 else ", or any alone"
        for part, pieces in enumerate(_size_lines(subject, each)):
            yield ("" if number or part else "input sizes"), pieces


def _size_lines(subject: str, takes: Takes) -> Iterator[list[str]]:
    """What becomes of sizes in one direction: each line in pieces."""
    if takes.same.is_all:
        yield [f"{subject}: all"]
        return
    name = takes.along[0]
    text = f"{subject}: {takes.same.describe(name)}"
    if takes.smallest is not None:
        text += f"; the smallest is {takes.smallest}"
    if takes.known is not None:
        text += f"; others are known to {takes.known}"
    yield text.split(" ")
    if takes.fixed_by is not None:
        with_others = takes.builds.describe(name)
        yield f"with other weights from `{takes.fixed_by}` on: {with_others}".split(" ")
    if takes.refusal is not None:
        at = f"`{takes.refusal.path}`: " if takes.refusal.path else ""
        yield f"below {takes.smallest_built}: {at}{takes.refusal.message}".split(" ")


def _shape(shape: Iterable[Formula]) -> str:
    sizes = [size.plain for size in shape]
    return " x ".join(f"({size})" if " " in size else size for size in sizes)


def _filled(pieces: Iterable[str], width: int) -> list[str]:
    """Pieces put into lines of at most `width` columns where that is possible."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + 1 + len(piece) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(piece)
    return lines
