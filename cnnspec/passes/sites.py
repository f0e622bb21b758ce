"""Which nodes are the same: one operation on tensors of the same description.

A network repeats itself, so rules are asked once for each kind of node, not once for each node.
Equal means equal arguments, input tensors and output tensors; paths and weights play no part.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnspec.ir import Graph
from cnnspec.op import Look, Op, Site
from cnnspec.passes.facts import Facts
from cnnspec.tensor import Tensor

__all__ = ["Kind", "Sites", "sites"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One operation at one site. `looks[output][input]` is how that output looks at that input."""

    op: Op
    at: Site
    looks: tuple[tuple[Look | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Sites:
    """The kind of each node: `kinds[of[node.index]]`."""

    of: tuple[int, ...]
    kinds: tuple[Kind, ...]


def sites(graph: Graph, facts: Facts) -> Sites:
    """Group the nodes of a graph by what they compute."""
    numbers: dict[Tensor, int] = {}
    described = [numbers.setdefault(tensor, len(numbers)) for tensor in graph.tensors]
    found: dict[tuple[Op, tuple[int, ...], tuple[int, ...]], int] = {}
    of: list[int] = []
    kinds: list[Kind] = []
    for node in graph.nodes:
        key = (
            node.op,
            tuple([described[value] for value in node.inputs]),
            tuple([described[value] for value in node.outputs]),
        )
        number = found.get(key)
        if number is None:
            number = found[key] = len(kinds)
            kinds.append(_kind(node.op, graph.site(node)))
        of.append(number)
    return Sites(tuple(of), tuple(kinds))


def _kind(op: Op, at: Site) -> Kind:
    looks = tuple(
        tuple(op.window(at, source, output) for source in range(len(at.inputs)))
        for output in range(len(at.outputs))
    )
    return Kind(op, at, looks)
