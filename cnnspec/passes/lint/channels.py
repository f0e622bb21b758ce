"""Channel counts that hardware handles badly."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import warning
from cnnspec.geometry import Everything
from cnnspec.ir import Graph
from cnnspec.passes.cost import Cost
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding
from cnnspec.passes.sites import Kind, Sites
from cnnspec.tensor import Role

__all__ = ["MULTIPLE", "odd_channels"]

MULTIPLE = 8
"""Matrix units want multiples of 8 channels in 16 bits (NVIDIA, "Deep Learning Performance")."""


def odd_channels(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Layers that make a number of channels or features which is no multiple of 8.

    Layers behind which no other multiplies are left alone: the task decides what is put out.
    """
    found, cost = facts[Sites], facts[Cost]
    multiplied: set[int] = set()
    odd = []
    for node in reversed(graph.nodes):
        multiplies = cost.nodes[node.index].mac > 0
        read_on = not multiplied.isdisjoint(node.outputs)
        if multiplies or read_on:
            multiplied.update(node.inputs)
        kind = found.kinds[found.of[node.index]]
        if multiplies and read_on and kind.op.connections(kind.at) and kind.op.weights(kind.at):
            odd.append(node)
    for node in reversed(odd):
        kind = found.kinds[found.of[node.index]]
        axis = _made(kind)
        count, role = kind.at.y.shape[axis], kind.at.y.roles[axis]
        if count % MULTIPLE:
            more = count + MULTIPLE - count % MULTIPLE
            yield Finding(
                warning(
                    "odd-channels",
                    f"`{node.path}` makes {count} {_plural(role)}, no multiple of {MULTIPLE}",
                    help=f"{more} would fill the matrix units of most accelerators",
                ),
                node.path,
                node,
            )


def _made(kind: Kind) -> int:
    """The axis along which each output element is a sum of its own: the first, or the last."""
    for axis, view in kind.looks[0][0] or ():
        if axis is not None and isinstance(view, Everything):
            return axis
    return 0


def _plural(role: Role) -> str:
    return f"{role}s" if role in (Role.CHANNEL, Role.FEATURE) else f"positions along {role}"
