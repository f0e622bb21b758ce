"""The layers as a tree of rows, in which equal neighbours are one row.

A row stands for a layer or a scope, or for `count` of them in a row that are built alike: the same
operations on the same shapes under names that count. All of a row's figures are sums over all it
stands for, so at any depth the rows that end the tree add up to the network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import TypeAlias

from cnnspec.ir import Graph, Scope
from cnnspec.passes.sites import Sites

__all__ = ["Row", "ends", "flat", "grow", "rest"]

_Member: TypeAlias = int | Scope


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `level` counts from 0; `last` says for each level whether no sibling follows.

    `nodes` are all operations it stands for. `value` is the tensor it ends with, of the last of
    them and the last of its outputs, None for a scope without one. `member` is the last of them,
    None for a row that stands for whatever is left over.
    `ends` says that the tree does not go on below it.
    """

    name: str
    kind: str
    count: int
    level: int
    last: tuple[bool, ...]
    nodes: tuple[int, ...]
    value: int | None
    ends: bool
    member: _Member | None


def grow(graph: Graph, sites: Sites, depth: int | None, most_rows: int) -> list[Row]:
    """The rows of a graph down to `depth` levels (at least 1).

    Without a depth, down to the deepest level at which there are no more than `most_rows` of them.
    """
    tree = _Tree(graph, sites)
    pending: list[tuple[_Group, tuple[bool, ...]]] = []
    pending.extend(tree.below([graph.root], ()))
    rows: list[Row] = []
    while pending:
        group, last = pending.pop()
        rows.append(tree.row(group, last))
        if depth is None or len(last) < depth:
            scopes = [member for member in group if isinstance(member, Scope)]
            pending.extend(tree.below(scopes, last) if scopes else ())
    shown = _fitting(rows, most_rows) if depth is None else depth
    return [
        replace(row, ends=True) if row.level == shown - 1 else row
        for row in rows
        if row.level < shown
    ]


def flat(graph: Graph) -> list[Row]:
    """A row for each operation alone, under its whole path."""
    return [
        Row(
            name=node.path,
            kind=node.op.name,
            count=1,
            level=0,
            last=(True,),
            nodes=(node.index,),
            value=node.outputs[0],
            ends=True,
            member=node.index,
        )
        for node in graph.nodes
    ]


def ends(rows: Sequence[Row]) -> list[Row]:
    """The rows that end the tree, under their whole paths."""
    found: list[Row] = []
    names: list[str] = []
    for row in rows:
        names[row.level :] = [row.name]
        if row.ends:
            found.append(replace(row, name=".".join(names), level=0, last=(True,)))
    return found


def rest(rows: Sequence[Row]) -> Row:
    """One row for some that are not shown each."""
    return Row(
        name=f"{len(rows):,} more",
        kind="",
        count=1,
        level=0,
        last=(True,),
        nodes=tuple(node for row in rows for node in row.nodes),
        value=None,
        ends=True,
        member=None,
    )


def _fitting(rows: Sequence[Row], most_rows: int) -> int:
    levels = Counter(row.level for row in rows)
    shown = total = 0
    while shown in levels and (shown == 0 or total + levels[shown] <= most_rows):
        total += levels[shown]
        shown += 1
    return max(shown, 1)


_Group: TypeAlias = Sequence[_Member]
"""Members that one row stands for. A row below a folded one has one from each of its scopes."""


class _Tree:
    """Signatures of scopes, and groups of equal members."""

    def __init__(self, graph: Graph, sites: Sites) -> None:
        self._graph = graph
        self._sites = sites
        self._numbers: dict[tuple[object, ...], int] = {}
        self._scopes: dict[int, int] = {}
        order: list[Scope] = [graph.root]
        for scope in order:
            order.extend(member for member in scope.members if isinstance(member, Scope))
        for scope in reversed(order):
            self._sign(scope)

    def _sign(self, scope: Scope) -> None:
        parts: list[object] = [scope.kind, scope.inline]
        for member in scope.members:
            local = "" if isinstance(member, Scope) and member.inline else self._local(member)
            parts.append((self._signature(member), local))
        self._scopes[id(scope)] = self._numbers.setdefault(tuple(parts), len(self._numbers))

    def _signature(self, member: _Member) -> tuple[int, ...]:
        if isinstance(member, Scope):
            return (self._scopes[id(member)],)
        graph = self._graph
        return (self._sites.of[member], int(member in graph.inference), int(member in graph.used))

    def _local(self, member: _Member) -> str:
        return member.local if isinstance(member, Scope) else self._graph.nodes[member].local

    def below(
        self, scopes: Sequence[Scope], last: tuple[bool, ...]
    ) -> list[tuple[_Group, tuple[bool, ...]]]:
        """What the rows directly below scopes that are built alike stand for, last one first."""
        sides = [scope.flat_members() for scope in scopes]
        signed = (
            ((self._signature(member), _stem(self._local(member))), index)
            for index, member in enumerate(sides[0])
        )
        found: list[tuple[_Group, tuple[bool, ...]]] = []
        for _, run in groupby(signed, key=itemgetter(0)):
            indices = [index for _, index in run]
            group = [side[index] for side in sides for index in indices]
            found.append((group, (*last, indices[-1] == len(sides[0]) - 1)))
        found.reverse()
        return found

    def row(self, group: _Group, last: tuple[bool, ...]) -> Row:
        """The row of a group of equal members."""
        graph = self._graph
        end = group[-1]
        if isinstance(end, Scope):
            kind = end.kind
            value = end.outputs[-1][1] if end.outputs else None
            nodes = tuple(
                node for scope in group if isinstance(scope, Scope) for node in scope.nodes()
            )
        else:
            kind = graph.nodes[end].op.name
            value = graph.nodes[end].outputs[0]
            nodes = tuple(node for node in group if not isinstance(node, Scope))
        return Row(
            name=self._name(group),
            kind=kind,
            count=len(group),
            level=len(last) - 1,
            last=last,
            nodes=nodes,
            value=value,
            ends=not isinstance(end, Scope),
            member=end,
        )

    def _name(self, group: _Group) -> str:
        names = list(dict.fromkeys(self._local(member) for member in group))
        if len(names) == 1:
            return names[0]
        return f"{names[0]}..{names[-1].removeprefix(_stem(names[0]))}"


def _stem(name: str) -> str:
    """A name without the number at its end: rows are one only where their names count."""
    return name.rstrip("0123456789")
