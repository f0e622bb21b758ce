"""From a graph to facts about it. One pass a file; the pipeline is the tuple below.

A pass is a pure function of the graph and of earlier facts, linear in the number of nodes. It asks
ops their rules and knows none of them by name. Text for users belongs to `cnnspec.report`, except
that of the lint pass, whose findings are diagnostics.
"""

from __future__ import annotations

from collections.abc import Callable

from cnnspec.ir import Graph
from cnnspec.passes.connections import connections
from cnnspec.passes.cost import cost
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.lint import lint
from cnnspec.passes.memory import memory
from cnnspec.passes.receptive_field import receptive_field
from cnnspec.passes.sites import sites
from cnnspec.passes.traffic import traffic
from cnnspec.passes.training import training
from cnnspec.passes.weights import weights

__all__ = ["PIPELINE", "Facts", "Options", "Pass", "run"]

Pass = Callable[[Graph, Facts], object]

PIPELINE: tuple[Pass, ...] = (
    sites,
    weights,
    cost,
    connections,
    receptive_field,
    memory,
    traffic,
    training,
    lint,
)
"""All passes in order; each may read the facts of those before it."""


def run(graph: Graph, options: Options) -> Facts:
    """Every fact about a graph."""
    facts = Facts({Options: options})
    for step in PIPELINE:
        facts = facts.having(step(graph, facts))
    return facts
