"""Entries on which nothing depends."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import Note, quantity, warning
from cnnspec.ir import Graph, Node, Scope
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding
from cnnspec.source import Span

__all__ = ["dead_entries"]


def dead_entries(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """One finding for each connected group of dead nodes, at the entry with which it begins."""
    dead = [node for node in graph.nodes if node.index not in graph.used]
    if not dead:
        return
    group = {node.index: node.index for node in dead}

    def head(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for node in dead:
        for value in node.inputs:
            producer = graph.producers[value]
            if producer in group:
                one, other = sorted((head(node.index), head(producer)))
                group[other] = one
    sizes: dict[int, int] = {}
    for node in dead:
        sizes[head(node.index)] = sizes.get(head(node.index), 0) + 1
    for index, size in sizes.items():
        node = graph.nodes[index]
        path, span, inside = _entry(node, group)
        notes = []
        if size > inside:
            notes.append(Note(f"{quantity(size - inside, 'operation')} after it also lead nowhere"))
        yield Finding(
            warning(
                "dead-entry",
                f"no output depends on `{path}`",
                span,
                notes=notes,
                help="list it under `outputs`, join it to the network, or remove it",
            ),
            path,
            node,
        )


def _entry(node: Node, dead: dict[int, int]) -> tuple[str, Span, int]:
    """The outermost call or Sequential that is dead as a whole and begins with `node`.

    Returns its path, its span, and how many operations it holds.
    """
    entry: tuple[str, Span, int] = (node.path, node.span, 1)
    scope: Scope | None = node.scope
    while scope is not None and scope.parent is not None:
        if next(scope.nodes()) != node.index or not all(index in dead for index in scope.nodes()):
            break
        if not scope.inline:
            entry = (scope.path, scope.span, sum(1 for _ in scope.nodes()))
        scope = scope.parent
    return entry
