"""What a layer would store if it were dense, or local without sharing, beside what it stores.

The lectures' comparison: `O((HW)^2)` weights, `O(HW*mn)`, `O(mn)`. Counts come from the rules of
connections and weights alone, so strides, groups, dilations and tables of connections are in them.
"""

from __future__ import annotations

from typing import NamedTuple

from cnnspec.ir import Graph
from cnnspec.passes.connections import Wiring
from cnnspec.passes.cost import Cost
from cnnspec.passes.facts import Facts
from cnnspec.passes.weights import Stored, Weights

__all__ = ["Connectivity", "connectivity"]


class Connectivity(NamedTuple):
    """Numbers of weights of one layer, biases not counted, if it connected its units otherwise.

    `dense` has one for each pair of an input and a unit, `local` one for each connection there is.
    `inside` are those connections that meet an input, `local` counts the padding as connections
    do. `shared` is what is stored, fixed kernels too; 0 where another layer stores it.
    """

    inputs: int
    units: int
    dense: int
    local: int
    inside: int
    shared: int


def connectivity(graph: Graph, facts: Facts) -> tuple[Connectivity | None, ...]:
    """The counts of each node; None for one that has no units of its own."""
    links, cost, stored = facts[Wiring].nodes, facts[Cost], facts[Weights].nodes
    found: list[Connectivity | None] = []
    for node in graph.nodes:
        wired = links[node.index]
        if not wired.units:
            found.append(None)
            continue
        inputs = sum(graph.tensors[value].elements for value in node.inputs)
        found.append(
            Connectivity(
                inputs,
                wired.units,
                inputs * wired.units,
                wired.connections,
                wired.connections - cost.padding[node.index],
                _kept(stored[node.index]),
            )
        )
    return tuple(found)


def _kept(stored: Stored) -> int:
    """Weights, or where nothing is learned what stands in their place."""
    return stored.weights or (stored.buffers if not stored.params else 0)
