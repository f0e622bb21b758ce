"""Channel counts that hardware handles badly."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import warning
from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding
from cnnspec.passes.sites import Sites
from cnnspec.tensor import Role

__all__ = ["MULTIPLE", "odd_channels"]

MULTIPLE = 8
"""Matrix units want multiples of 8 channels in 16 bits (NVIDIA, "Deep Learning Performance")."""


def odd_channels(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Layers that make a number of channels or features which is no multiple of 8.

    What the network puts out is left alone: the task decides its size.
    """
    found = facts[Sites]
    results = {output.value for output in graph.outputs}
    for node in graph.nodes:
        kind = found.kinds[found.of[node.index]]
        linear = kind.op.linear_map(kind.at)
        if linear is None or results.intersection(node.outputs):
            continue
        roles = [r for r in kind.at.y.roles if r in (Role.CHANNEL, Role.FEATURE)]
        count = kind.at.y.size(roles[0]) if roles else None
        if count is not None and count % MULTIPLE:
            more = count + MULTIPLE - count % MULTIPLE
            yield Finding(
                warning(
                    "odd-channels",
                    f"`{node.path}` makes {count} {roles[0]}s, no multiple of {MULTIPLE}",
                    help=f"{more} would fill the matrix units of most accelerators",
                ),
                node.path,
                node,
            )
