"""What changed from one network to another, as values and as a document.

A change of a layer is an *edit*, something its author wrote otherwise (operation, arguments, what
it reads, what it shares), or an *effect*, a figure that follows from edits, its own or others'.
Nothing is laid out here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from cnnspec.diagnostics import shape_text
from cnnspec.ir import Graph, Node
from cnnspec.op import Op
from cnnspec.report.arguments import arguments_text, named_arguments, refers
from cnnspec.report.difference.alignment import Alignment, align
from cnnspec.report.fields import field_text
from cnnspec.report.model import Layer, Report

__all__ = ["Change", "Difference", "LayerDifference", "Status", "compare"]

Status = Literal["added", "removed", "changed", "renamed"]

_FIGURES = ("params", "buffers", "macs")
_METADATA = ("preprocess", "labels")


class Change(NamedTuple):
    """One thing that is no longer what it was; None where there was or is none.

    `text` says it in words, the other two are JSON values.
    """

    what: str
    old: Any
    new: Any
    text: str


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """A layer that is not what it was. `old` is None for an added one, `new` for a removed one.

    `renamed` is one that changed its path and nothing else that its author wrote.
    """

    status: Status
    old: Layer | None
    new: Layer | None
    old_arguments: str
    new_arguments: str
    edits: tuple[Change, ...] = ()
    effects: tuple[Change, ...] = ()

    @property
    def layer(self) -> Layer:
        """The layer as it is, or as it was where it is gone."""
        found = self.new or self.old
        assert found is not None  # a difference has one of them
        return found

    @property
    def follows(self) -> bool:
        """Whether only figures changed, because other layers did."""
        return self.status == "changed" and not self.edits

    def delta(self, figure: str) -> int:
        """By how much a figure grew."""
        new = 0 if self.new is None else getattr(self.new, figure)
        old = 0 if self.old is None else getattr(self.old, figure)
        return int(new - old)

    def to_dict(self) -> dict[str, Any]:
        """As the JSON document shows it."""
        return {
            "status": self.status,
            "path": None if self.new is None else self.new.path,
            "old_path": None if self.old is None else self.old.path,
            "op": None if self.new is None else self.new.op,
            "old_op": None if self.old is None else self.old.op,
            "line": None if self.new is None else self.new.line,
            "old_line": None if self.old is None else self.old.line,
            "edits": _document(self.edits),
            "effects": _document(self.effects),
        }


@dataclass(frozen=True, eq=False)
class Difference:
    """What changed from `old` to `new`: the network itself, its layers, its totals.

    `layers` are those that changed, in order of execution; removed ones stand where they stood.
    """

    old: Report
    new: Report
    network: tuple[Change, ...]
    layers: tuple[LayerDifference, ...]
    same: int
    """Layers that are exactly what they were."""

    def __bool__(self) -> bool:
        """Whether anything changed at all."""
        return bool(self.network or self.layers or any(a != b for a, b in self.totals.values()))

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Layers by what happened to them; `followed` changed by figures only."""
        found = Counter("followed" if one.follows else one.status for one in self.layers)
        kinds = ("added", "removed", "changed", "renamed", "followed")
        return {**{kind: found[kind] for kind in kinds}, "same": self.same}

    @cached_property
    def totals(self) -> Mapping[str, tuple[int, int]]:
        """Old and new figures of the inference graphs, by name, changed or not."""
        old, new = self.old.totals.to_dict(), self.new.totals.to_dict()
        found = {
            name: (old[name], value)
            for name, value in new.items()
            if isinstance(value, int) and isinstance(old.get(name), int)
        }
        memory = self.old.training_memory.total, self.new.training_memory.total
        return {**found, "training_memory": memory}

    @cached_property
    def fields(self) -> tuple[str, str]:
        """The receptive field of the last layer that sees by position, of both."""
        return _last_field(self.old), _last_field(self.new)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document that `cnnspec diff --format json` prints, format 1."""
        return {
            "format": 1,
            "different": bool(self),
            "old": {"spec": self.old.graph.metadata.get("spec_name"), "name": self.old.name},
            "new": {"spec": self.new.graph.metadata.get("spec_name"), "name": self.new.name},
            "network": _document(self.network),
            "totals": {name: {"old": a, "new": b} for name, (a, b) in self.totals.items()},
            "receptive_field": dict(zip(("old", "new"), self.fields, strict=True)),
            "counts": dict(self.counts),
            "layers": [layer.to_dict() for layer in self.layers],
        }


def _last_field(report: Report) -> str:
    return "" if report.last_local is None else field_text(report.last_local.receptive_field)


def _document(changes: tuple[Change, ...]) -> dict[str, Any]:
    return {change.what: {"old": change.old, "new": change.new} for change in changes}


def compare(old: Report, new: Report) -> Difference:
    """What changed from one network to another."""
    pairs = align(old.graph, new.graph)
    layers = tuple(_layers(old, new, pairs))
    same = len(pairs) - sum(one.old is not None and one.new is not None for one in layers)
    return Difference(old, new, tuple(_network(old, new)), layers, same)


def _network(old: Report, new: Report) -> Iterator[Change]:
    """What changed about the network as a whole."""
    for what in ("inputs", "outputs", "training_outputs"):
        was, now = getattr(old, what), getattr(new, what)
        for name in dict.fromkeys((*was, *now)):
            a, b = was.get(name), now.get(name)
            if a != b:
                shown = [("none" if shape is None else shape_text(shape)) for shape in (a, b)]
                kind = what.replace("_", " ").removesuffix("s")
                label = kind if name == kind else f"{kind} {name}"
                text = f"{label} {shown[0]} -> {shown[1]}"
                yield Change(f"{what}.{name}", _plain(a), _plain(b), text)
    for what in _METADATA:
        a, b = old.graph.metadata.get(what), new.graph.metadata.get(what)
        if _plain(a) != _plain(b):
            yield Change(what, _plain(a), _plain(b), f"{what} changed")


def _layers(old: Report, new: Report, pairs: Alignment) -> Iterator[LayerDifference]:
    """The layers that changed, in the new order, removed ones where they stood."""
    comparison = _Comparison(old, new, pairs)
    kept = frozenset(pairs.values())
    reached = 0
    added: list[LayerDifference] = []
    for index in range(len(new.graph.nodes)):
        was = pairs.get(index)
        if was is None:
            added.append(comparison.added(index))
            continue
        yield from comparison.removed(range(reached, was), kept)
        yield from added
        added.clear()
        reached = max(reached, was + 1)
        found = comparison.pair(was, index)
        if found is not None:
            yield found
    yield from comparison.removed(range(reached, len(old.graph.nodes)), kept)
    yield from added


class _Comparison:
    """Two networks whose layers are paired."""

    def __init__(self, old: Report, new: Report, pairs: Alignment) -> None:
        self._old, self._new, self._pairs = old, new, pairs
        self._now = {was: now for now, was in pairs.items()}
        self._texts: dict[Op, str] = {}
        self._operations: dict[tuple[Op, Op], tuple[Change, ...]] = {}

    def added(self, index: int) -> LayerDifference:
        """A layer that only the new network has."""
        arguments = self._arguments(self._new.graph, self._new.graph.nodes[index])
        return LayerDifference("added", None, self._new.layers[index], "", arguments)

    def removed(self, indices: range, kept: frozenset[int]) -> Iterator[LayerDifference]:
        """Those of some layers that only the old network has."""
        for index in indices:
            if index not in kept:
                node = self._old.graph.nodes[index]
                layer = self._old.layers[index]
                arguments = self._arguments(self._old.graph, node)
                yield LayerDifference("removed", layer, None, arguments, "")

    def pair(self, was: int, now: int) -> LayerDifference | None:
        """What changed about a layer that both have; None for nothing."""
        a, b = self._old.graph.nodes[was], self._new.graph.nodes[now]
        old, new = self._old.layers[was], self._new.layers[now]
        edits = (
            *self._operation(a, b),
            *self._wiring(a, b, rewired=True),
            *self._weights(a, b),
        )
        effects = (*self._wiring(a, b, rewired=False), *_figures(old, new))
        if not edits and not effects and a.path == b.path:
            return None
        status: Status = "renamed" if a.path != b.path and not edits else "changed"
        arguments = (
            self._arguments(self._old.graph, a),
            self._arguments(self._new.graph, b),
        )
        return LayerDifference(status, old, new, *arguments, edits, effects)

    def _arguments(self, graph: Graph, node: Node) -> str:
        """The arguments as text, made once for equal operations that name no tensors."""
        op = node.op
        if op not in self._texts:
            found = _arguments(graph, node)
            if refers(type(op)):
                return found
            self._texts[op] = found
        return self._texts[op]

    def _operation(self, a: Node, b: Node) -> tuple[Change, ...]:
        """What is different about two operations, likewise."""
        if a.op == b.op:
            return ()
        if (a.op, b.op) not in self._operations:
            found = tuple(_operation(self._old.graph, a, self._new.graph, b))
            if refers(type(a.op)) or refers(type(b.op)):
                return found
            self._operations[a.op, b.op] = found
        return self._operations[a.op, b.op]

    def _wiring(self, a: Node, b: Node, *, rewired: bool) -> Iterator[Change]:
        """What it reads: an edit, unless a layer came or went there."""
        old, new = self._old.graph, self._new.graph
        counterparts: list[str] = []
        around = False
        for value in a.inputs:
            producer = old.producers[value]
            name = old.value_name(value)
            if producer >= 0:
                now = self._now.get(producer)
                around |= now is None
                if now is not None:
                    name = new.nodes[now].path + name.removeprefix(old.nodes[producer].path)
            counterparts.append(name)
        around |= any(
            new.producers[value] >= 0 and new.producers[value] not in self._pairs
            for value in b.inputs
        )
        reads = [new.value_name(value) for value in b.inputs]
        if counterparts != reads and around is not rewired:
            was = [old.value_name(value) for value in a.inputs]
            text = f"reads {_names(was)} -> {_names(reads)}"
            yield Change("inputs", was, reads, text)

    def _weights(self, a: Node, b: Node) -> Iterator[Change]:
        """Whose weights it uses, and how they start."""
        old, new = self._old.graph, self._new.graph
        was = None if a.share is None else old.nodes[a.share].path
        now = None if b.share is None else new.nodes[b.share].path
        if (None if a.share is None else self._now.get(a.share, -1)) != b.share:
            yield Change("share", was, now, f"shares {was or 'nothing'} -> {now or 'nothing'}")
        if a.init != b.init:
            starts = _starts(a), _starts(b)
            yield Change("init", *starts, f"init {starts[0]} -> {starts[1]}")


def _named(graph: Graph, node: Node) -> dict[str, Any]:
    return named_arguments(node.op, [graph.value_name(value) for value in node.inputs])


def _arguments(graph: Graph, node: Node) -> str:
    return arguments_text(_named(graph, node), type(node.op))


def _operation(old: Graph, a: Node, new: Graph, b: Node) -> Iterator[Change]:
    """Another operation, or other arguments. A tensor that is only called otherwise is none."""
    kind, other = type(a.op), type(b.op)
    if kind is not other:
        shown = [
            " ".join(filter(None, (node.op.name, _arguments(graph, node))))
            for graph, node in ((old, a), (new, b))
        ]
        yield Change("op", a.op.name, b.op.name, f"{shown[0]} -> {shown[1]}")
        return
    before, after = a.op.arguments(), b.op.arguments()
    was, now = _named(old, a), _named(new, b)
    for name, value in now.items():
        if before.get(name) != after[name]:
            shown = [
                arguments_text({name: given}).removeprefix(f"{name}=")
                for given in (was.get(name), value)
            ]
            text = f"{name} {shown[0]} -> {shown[1]}" if all(shown) else f"{name} changed"
            yield Change(f"arguments.{name}", _plain(was.get(name)), _plain(value), text)


def _figures(old: Layer, new: Layer) -> Iterator[Change]:
    """Figures that changed."""
    if old.output_shapes != new.output_shapes:
        shown = [", ".join(map(shape_text, layer.output_shapes)) for layer in (old, new)]
        was, now = _plain(old.output_shapes), _plain(new.output_shapes)
        yield Change("output_shapes", was, now, f"output {shown[0]} -> {shown[1]}")
    for figure in _FIGURES:
        a, b = getattr(old, figure), getattr(new, figure)
        if a != b:
            yield Change(figure, a, b, f"{figure} {a:,} -> {b:,}")
    fields = field_text(old.receptive_field), field_text(new.receptive_field)
    if fields[0] != fields[1]:
        text = f"field {fields[0] or 'none'} -> {fields[1] or 'none'}"
        yield Change("receptive_field", *fields, text)
    if old.training_only != new.training_only:
        text = "for training only" if new.training_only else "no longer for training only"
        yield Change("training_only", old.training_only, new.training_only, text)


def _names(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


def _starts(node: Node) -> str:
    shown = (
        " ".join((name, init.kind, *(f"{key}={value}" for key, value in init.arguments)))
        for name, init in node.init
    )
    return ", ".join(shown) or "as the operation does"


def _plain(value: object) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
