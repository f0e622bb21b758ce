"""Which layers of two networks are the same: by name, else by what they are and where they stand.

Only pairs are found here; how the two of a pair differ is `changes`'s to say.

Scopes are compared level by level. What its author named is the same where the name is; entries
that are only numbered are the same in order, as lines of a text are: one inserted among them
renames those behind it and changes none. What is left over and has weights is the same as another
left over of the same operation and shapes (it has moved), and what has none follows what it reads.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from cnnspec.ir import Graph, Scope

__all__ = ["Alignment", "align", "common"]

Alignment: TypeAlias = Mapping[int, int]
"""For nodes of the new graph the nodes of the old one that they are."""

_Member: TypeAlias = int | Scope
_Pairs: TypeAlias = list[tuple[_Member, _Member]]

_MOST_EDITS = 1500
"""Most entries of one level that may come and go; beyond, equal names decide."""


def align(old: Graph, new: Graph) -> Alignment:
    """Pair the nodes of two graphs; no node is in two pairs."""
    numbers: dict[Hashable, int] = {}
    sides = _Side(old, numbers), _Side(new, numbers)
    found: dict[int, int] = {}
    pending = [(old.root, new.root)]
    while pending:
        a, b = pending.pop()
        for was, now in _level(*sides, a, b):
            if isinstance(was, Scope) and isinstance(now, Scope):
                pending.append((was, now))
            elif not isinstance(was, Scope) and not isinstance(now, Scope):
                found[now] = was
    _moved(old, new, found)
    return found


class _Side:
    """One of the two graphs, with numbers for what its members are."""

    def __init__(self, graph: Graph, numbers: dict[Hashable, int]) -> None:
        self._graph = graph
        self._numbers = numbers
        self._scopes: dict[int, int] = {}
        order = [graph.root]
        for scope in order:
            order.extend(member for member in scope.members if isinstance(member, Scope))
        for scope in reversed(order):
            parts = tuple(
                (self.named(member), self.built(member)) for member in scope.flat_members()
            )
            self._scopes[id(scope)] = self._number((scope.kind, parts))

    def _number(self, of: Hashable) -> int:
        return self._numbers.setdefault(of, len(self._numbers))

    def named(self, member: _Member) -> str | None:
        """What the author called it; None where it is only numbered."""
        entry = member if isinstance(member, Scope) else self._graph.nodes[member]
        return None if entry.local.isdigit() else entry.local

    def local(self, member: _Member) -> str:
        """Its name within its scope."""
        return member.local if isinstance(member, Scope) else self._graph.nodes[member].local

    def built(self, member: _Member) -> int:
        """Equal for operations with equal arguments, and for scopes of equal members."""
        if isinstance(member, Scope):
            return self._scopes[id(member)]
        return self._number(self._graph.nodes[member].op)

    def kind(self, member: _Member) -> tuple[bool, str]:
        """Equal for operations of one name, and for calls of one block."""
        if isinstance(member, Scope):
            return True, member.kind
        return False, self._graph.nodes[member].op.name


def _level(old: _Side, new: _Side, a: Scope, b: Scope) -> _Pairs:
    """Pairs among the members of two scopes."""
    olds, news = a.flat_members(), b.flat_members()
    by_name = {old.named(member): member for member in olds}
    pairs: _Pairs = []
    for member in news:
        name = new.named(member)
        if name is not None and name in by_name:
            pairs.append((by_name[name], member))
    was = [member for member in olds if old.named(member) is None]
    now = [member for member in news if new.named(member) is None]
    return [*pairs, *_in_order(old, new, was, now)]


def _in_order(old: _Side, new: _Side, was: list[_Member], now: list[_Member]) -> _Pairs:
    """Pairs of numbered members: of what is built alike, then of one kind in the gaps between."""
    a, b = [old.built(member) for member in was], [new.built(member) for member in now]
    found = common(a, b)
    if found is None:
        places = {(old.local(member), old.kind(member)): member for member in was}
        named = ((places.get((new.local(member), new.kind(member))), member) for member in now)
        return [(known, member) for known, member in named if known is not None]
    pairs = [(was[i], now[j]) for i, j in found]
    for (i, j), (i_end, j_end) in pairwise([(-1, -1), *found, (len(a), len(b))]):
        gap_was, gap_now = was[i + 1 : i_end], now[j + 1 : j_end]
        if gap_was and gap_now:
            kinds = [old.kind(member) for member in gap_was], [new.kind(m) for m in gap_now]
            pairs.extend((gap_was[k], gap_now[m]) for k, m in common(*kinds) or ())
    return pairs


def common(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]] | None:
    """Positions of a longest common subsequence; None where more than `_MOST_EDITS` are needed.

    What is equal at the beginning and at the end is the same. In between the greedy algorithm of
    Myers, "An O(ND) difference algorithm and its variations" (1986).
    """
    most = min(len(a), len(b))
    first = next((i for i in range(most) if a[i] != b[i]), most)
    most -= first
    last = next((i for i in range(most) if a[-1 - i] != b[-1 - i]), most)
    inner = _shortest_edit(a[first : len(a) - last], b[first : len(b) - last])
    if inner is None:
        return None
    begin = [(i, i) for i in range(first)]
    end = [(len(a) - last + i, len(b) - last + i) for i in range(last)]
    return [*begin, *((first + i, first + j) for i, j in inner), *end]


def _shortest_edit(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[tuple[int, int]] | None:
    """The pairs that the shortest edit from `a` to `b` keeps.

    Diagonal `k` is where `i - j == k`; `reach[k]` is how far along `a` the edits so far lead on it.
    """
    if not a or not b:
        return []
    n, m = len(a), len(b)
    reach = {1: 0}
    steps: list[dict[int, int]] = []
    for edits in range(min(n + m, _MOST_EDITS) + 1):
        before = dict(reach)
        steps.append(before)
        for k in range(-edits, edits + 1, 2):
            down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
            i = reach[k + 1] if down else reach[k - 1] + 1
            while i < n and i - k < m and a[i] == b[i - k]:
                i += 1
            reach[k] = i
            if i >= n and i - k >= m:
                return _walked_back(steps, n, m)
    return None


def _walked_back(steps: Sequence[Mapping[int, int]], n: int, m: int) -> list[tuple[int, int]]:
    """The pairs on the way that the steps took, from the end to the beginning."""
    found: list[tuple[int, int]] = []
    i, j = n, m
    for edits in range(len(steps) - 1, -1, -1):
        reach, k = steps[edits], i - j
        down = k == -edits or (k != edits and reach[k - 1] < reach[k + 1])
        i_before = reach[k + 1 if down else k - 1] if edits else 0
        j_before = i_before - (k + 1 if down else k - 1) if edits else 0
        while i > i_before and j > j_before:
            i, j = i - 1, j - 1
            found.append((i, j))
        i, j = i_before, j_before
    found.reverse()
    return found


def _moved(old: Graph, new: Graph, found: dict[int, int]) -> None:
    """Pair what is left over of both graphs."""
    taken = set(found.values())
    alike: dict[Hashable, deque[int]] = defaultdict(deque)
    for node in old.nodes:
        if node.index not in taken and _stores(old, node.index):
            for key in _moved_as(old, node.index):
                alike[key].append(node.index)
    for node in new.nodes:
        if node.index in found or not _stores(new, node.index):
            continue
        for key in _moved_as(new, node.index):
            candidates = alike[key]
            while candidates and candidates[0] in taken:
                candidates.popleft()
            if candidates:
                found[node.index] = candidates.popleft()
                taken.add(found[node.index])
                break
    for node in new.nodes:
        if node.index in found or _stores(new, node.index):
            continue
        wanted = tuple(_counterpart(old, new, found, value) for value in node.inputs)
        first = wanted[0] if wanted else None
        for index in old.consumers[first] if first is not None else ():
            other = old.nodes[index]
            if index not in taken and other.op == node.op and other.inputs == wanted:
                found[node.index] = index
                taken.add(index)
                break


def _stores(graph: Graph, index: int) -> bool:
    node = graph.nodes[index]
    at = graph.site(node)
    return bool(node.op.weights(at) or node.op.buffers(at))


def _moved_as(graph: Graph, index: int) -> tuple[Hashable, Hashable]:
    """What is equal for layers that may be one: with the same name too, which counts for more."""
    node = graph.nodes[index]
    at = graph.site(node)
    shapes = tuple(tensor.shape for tensor in (*at.inputs, *at.outputs))
    what = node.op, len(at.inputs), shapes
    return (what, node.local), what


def _counterpart(old: Graph, new: Graph, found: Alignment, value: int) -> int | None:
    """The old graph's value that a new one is, or None."""
    producer = new.producers[value]
    if producer < 0:
        return old.inputs.get(new.value_name(value))
    was = found.get(producer)
    if was is None:
        return None
    position = new.nodes[producer].outputs.index(value)
    outputs = old.nodes[was].outputs
    return outputs[position] if position < len(outputs) else None
