"""Units and the links between them, as the lectures count, and as LeCun (1998) does with biases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts
from cnnspec.passes.sites import Kind, Sites

__all__ = ["Links", "Wiring", "connections"]


class Links(NamedTuple):
    """Links into the units of a layer. All are 0 for a layer that has no units of its own.

    `connections` is the sum over units of their fan-in; `with_bias` adds one for each unit's bias.
    """

    connections: int = 0
    with_bias: int = 0
    units: int = 0


@dataclass(frozen=True, slots=True)
class Wiring:
    """Units and links of each node."""

    nodes: tuple[Links, ...]


def connections(graph: Graph, facts: Facts) -> Wiring:
    """Count units and connections of every node."""
    found = facts[Sites]
    kinds = [_links(kind) for kind in found.kinds]
    return Wiring(tuple([kinds[kind] for kind in found.of]))


def _links(kind: Kind) -> Links:
    links = kind.op.connections(kind.at)
    if links is None:
        return Links()
    return Links(links.weights, links.weights + links.biases, kind.at.y.elements)
