"""Receptive fields that do not suit the input: too small at the end, or complete too early."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from cnnspec.diagnostics import Note, warning
from cnnspec.geometry import AlsoEverything, Window
from cnnspec.ir import Graph, Node
from cnnspec.passes.cost import Cost
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding
from cnnspec.passes.receptive_field import Fields, Track
from cnnspec.passes.sites import Kind, Sites
from cnnspec.tensor import Role

__all__ = ["field_outgrown", "field_smaller_than_input"]

_POSITIONS = frozenset(role for role in Role if role.spatial or role is Role.TOKEN)


def field_smaller_than_input(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """A last local feature map whose positions each see only a part of the input.

    Where a global pooling or a linear layer follows, the whole input is seen after all, but only as
    a sum of parts. Where positions exchange what they have seen, as in attention, nothing is found.
    """
    fields = facts[Fields]
    node = _last_local(graph, fields)
    if node is None or _mixed_later(graph, facts, node):
        return
    small = [
        (fields.axes[track.source], track.field.size)
        for track in fields.values[node.outputs[0]]
        if _is_local(track)
        and not track.field.is_global
        and track.field.size is not None
        and track.field.size < fields.axes[track.source].extent
    ]
    if not small:
        return
    told = [f"{size} of {axis.extent} along {axis.role} of `{axis.input}`" for axis, size in small]
    yield Finding(
        warning(
            "field-smaller-than-input",
            f"a position of `{node.path}` sees only {told[0]}",
            label="the last layer whose positions see part of the input each",
            notes=[Note(f"it sees only {part}") for part in told[1:]],
            help="more layers, larger strides, kernels or dilations widen the field",
        ),
        node.path,
        node,
    )


def _last_local(graph: Graph, fields: Fields) -> Node | None:
    for node in reversed(graph.nodes):
        if node.index in graph.inference and any(map(_is_local, fields.values[node.outputs[0]])):
            return node
    return None


def _mixed_later(graph: Graph, facts: Facts, last: Node) -> bool:
    """Whether a layer behind `last` computes more than one position, from all of them."""
    cost = facts[Cost].nodes
    for node in graph.nodes[last.index + 1 :]:
        y = graph.tensors[node.outputs[0]]
        positions = [n for n, role in zip(y.shape, y.roles, strict=True) if role in _POSITIONS]
        if node.index in graph.inference and cost[node.index].mac and prod(positions) > 1:
            return True
    return False


def _is_local(track: Track) -> bool:
    field = track.field
    return bool(field.advance or field.tabled) and not field.flattened


def field_outgrown(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """A field that covers the input when most layers with larger kernels are still to come.

    Richter et al., "Should You Go Deeper? Optimizing Convolutional Neural Network Architectures
    without Training" (2021): layers behind that border hardly add to what is learned.
    """
    fields, found, cost = facts[Fields], facts[Sites], facts[Cost]
    spatial = [
        node
        for node in graph.nodes
        if node.index in graph.inference
        and cost.nodes[node.index].mac
        and _widens(found.kinds[found.of[node.index]])
    ]
    border = next((i for i, node in enumerate(spatial) if _sees_all(fields, node)), None)
    if border is None or 2 * border > len(spatial):
        return
    first = spatial[border]
    behind = [node for node in graph.nodes[first.index :] if node.index in graph.inference]
    macs = sum(cost.nodes[node.index].mac for node in behind)
    whole = sum(cost.nodes[index].mac for index in graph.inference)
    yield Finding(
        warning(
            "field-outgrown",
            f"what `{first.path}` reads already sees the whole input, and "
            f"{len(spatial) - border} of {len(spatial)} layers with larger kernels follow",
            label=f"{macs / whole:.0%} of the MACs from here on",
            help="a larger input, later strides or fewer layers would use them better",
        ),
        first.path,
        first,
    )


def _widens(kind: Kind) -> bool:
    """Whether the layer gathers along a spatial axis."""
    for x, look in zip(kind.at.inputs, kind.looks[0], strict=True):
        for role, (_, view) in zip(x.roles, look or (), strict=False):
            local = view.local if isinstance(view, AlsoEverything) else view
            if role.spatial and isinstance(local, Window) and local.kernel > 1:
                return True
    return False


def _sees_all(fields: Fields, node: Node) -> bool:
    """Whether a position of the first input sees as much as there is along every axis."""
    tracks = fields.values[node.inputs[0]]
    sizes = [(track.field.size_min, fields.axes[track.source].extent) for track in tracks]
    return bool(sizes) and all(size is not None and size >= extent for size, extent in sizes)
