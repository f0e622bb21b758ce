"""What one training step takes, in the type, batch and optimiser asked for.

What backward needs is exact for torch's CUDA kernels as far as tensors go (tests compare it with
torch's saved tensors); the peak is that of a step that frees each tensor after its last use.
Temporaries of kernels and what allocators round up are not in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph, Node
from cnnspec.op import Saved
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.memory import sizes_of
from cnnspec.passes.options import OPTIMIZERS, DType
from cnnspec.passes.sites import Kind, Sites
from cnnspec.passes.weights import Weights

__all__ = ["Parts", "Step", "Training", "training"]


class Parts(NamedTuple):
    """Bytes that layers keep for backward, by what they are."""

    tensors: int
    """Inputs and outputs of layers, each once."""
    elements: int
    statistics: int
    mask: int
    indices: int


class Step(NamedTuple):
    """Bytes of a training step over the whole graph.

    `saved` says of each node what it keeps that no node before it does; `parts` is their sum by
    kind. `peak` is the most that is alive at once in a step behind the first one, weights, buffers
    and the optimiser's state included, in the forward or the backward pass.
    """

    weights: int
    buffers: int
    gradients: int
    momentum: int
    """State of SGD with momentum, whatever the optimiser is."""
    state: int
    saved: tuple[int, ...]
    parts: Parts
    peak: int


@dataclass(frozen=True, slots=True)
class Training:
    """A training step; None for a type that cannot be trained."""

    step: Step | None


def training(graph: Graph, facts: Facts) -> Training:
    """Follow a step through the graph."""
    options = facts[Options]
    if not options.numbers.floating:
        return Training(None)
    stored = facts[Weights].nodes
    optimizer = OPTIMIZERS[options.optimizer]
    gradients = [options.numbers.bytes * s.trainable for s in stored]
    state = optimizer.copies * sum(gradients)
    state += 4 * optimizer.numbers * sum([s.tensors for s in stored])
    weights, buffers = sum([s.bytes for s in stored]), sum([s.buffer_bytes for s in stored])
    tracker = _Tracker(graph, facts)
    return Training(
        Step(
            weights,
            buffers,
            sum(gradients),
            sum(gradients),
            state,
            tuple(tracker.saved),
            tracker.parts(),
            weights + buffers + state + tracker.peak(),
        )
    )


class _Tracker:
    """Who needs gradients, what is kept, how much is alive when. All by memory: see `_roots`."""

    def __init__(self, graph: Graph, facts: Facts) -> None:
        options, found = facts[Options], facts[Sites]
        self._graph = graph
        self._sizes = sizes_of(graph, options)
        self._running = [node for node in graph.nodes if node.index in graph.used]
        self._roots = _roots(graph, found)
        self._differs = _differing(graph, self._running, found, facts[Weights])
        learned = [options.numbers.bytes * stored.trainable for stored in facts[Weights].kinds]
        self._gradients = [learned[kind] for kind in found.of]
        """Of the weights that each node uses, its own or those of another."""
        self._keepers: dict[int, int] = {}
        """For each memory that is kept whole the first node that does; backward frees it there."""
        self._own = [0] * len(graph.nodes)
        self.saved = [0] * len(graph.nodes)
        asked: dict[tuple[int, tuple[bool, ...]], tuple[Saved, _Own, int]] = {}
        times: Counter[_Own] = Counter()
        for node in self._running:
            if not any(self._differs[value] for value in node.outputs):
                continue
            key = found.of[node.index], tuple([self._differs[value] for value in node.inputs])
            if key not in asked:
                kept = _kept(found.kinds[key[0]], options.batch, key[1])
                own = _own(kept, options.numbers)
                asked[key] = kept, own, sum(own)
            kept, own, total = asked[key]
            times[own] += 1
            self._own[node.index] = total
            for positions, values in ((kept.inputs, node.inputs), (kept.outputs, node.outputs)):
                for position in positions:
                    root = self._roots[values[position]]
                    if root not in self._keepers:
                        self._keepers[root] = node.index
                        total += self._sizes[root]
            self.saved[node.index] = total
        kinds = range(len(_Own._fields))
        self._parts = [sum([own[n] * times[own] for own in times]) for n in kinds]

    def parts(self) -> Parts:
        """What all nodes keep, by kind."""
        tensors = sum([self._sizes[root] for root in self._keepers])
        return Parts(tensors, *self._parts)

    def peak(self) -> int:
        """The most bytes of tensors, and of gradients of weights, alive at once.

        Forward frees what nobody reads later and nobody keeps. Backward runs the nodes in reverse:
        each makes the gradients of its inputs and weights, then frees those of its outputs and what
        only it still keeps. Gradients of weights that are shared are added up: for a moment there
        are the sum so far, what is added, and the new sum.
        """
        graph, sizes, roots, own = self._graph, self._sizes, self._roots, self._own
        keepers, differs = self._keepers, self._differs
        results = {roots[output.value] for output in graph.outputs}
        stay = {roots[value] for value in graph.inputs.values()} | results
        reads = [{roots[value] for value in node.inputs} for node in self._running]
        makes = [[v for v in node.outputs if roots[v] == v] for node in self._running]
        to_come = [0] * len(sizes)
        for read in reads:
            for root in read:
                to_come[root] += 1
        live = most = sum([sizes[root] for root in {*graph.inputs.values()}])
        for node, read, made in zip(self._running, reads, makes, strict=True):
            for root in made:
                live += sizes[root]
            live += own[node.index]
            if live > most:
                most = live
            for root in read:
                to_come[root] -= 1
                if not to_come[root] and root not in keepers and root not in stay:
                    live -= sizes[root]
        live += sum([sizes[root] for root in results])
        most = max(most, live)
        started = set(results)
        summed: set[int] = set()
        steps = zip(reversed(self._running), reversed(reads), reversed(makes), strict=True)
        for node, read, made in steps:
            if not any(roots[value] in started for value in node.outputs):
                continue
            index, owner = node.index, _owner(graph, node)
            gradients = self._gradients[index]
            adding = 2 * gradients if owner in summed else 0
            if owner not in summed:
                summed.add(owner)
                live += gradients
            for root in read:
                if root in started:
                    adding = max(adding, 2 * sizes[root])
                elif differs[root]:
                    started.add(root)
                    live += sizes[root]
            most = max(most, live + adding)
            for root in made:
                if root in started:
                    live -= sizes[root]
            live -= own[index]
            for root in read.union(made):
                if keepers.get(root) == index and root not in stay:
                    live -= sizes[root]
        return most


def _owner(graph: Graph, node: Node) -> int:
    """The node whose weights a node uses."""
    while node.share is not None:
        node = graph.nodes[node.share]
    return node.index


def _kept(kind: Kind, batch: int, needs: tuple[bool, ...]) -> Saved:
    if all(needs):
        return kind.op.saved(kind.at, batch)
    return kind.op.saved_for(kind.at, batch, needs)


class _Own(NamedTuple):
    """Bytes of what a node alone keeps, by kind."""

    elements: int = 0
    statistics: int = 0
    mask: int = 0
    indices: int = 0


def _own(kept: Saved, numbers: DType) -> _Own:
    return _Own(
        numbers.bytes * kept.elements,
        numbers.statistic * kept.statistics,
        kept.mask,
        8 * kept.indices,
    )


def _roots(graph: Graph, found: Sites) -> Sequence[int]:
    """The value in whose memory each value lies, through views."""
    views = [kind.op.is_view(kind.at) for kind in found.kinds]
    roots = list(range(len(graph.tensors)))
    for node in graph.nodes:
        if views[found.of[node.index]]:
            for value in node.outputs:
                roots[value] = roots[node.inputs[0]]
    return roots


def _differing(
    graph: Graph, running: Sequence[Node], found: Sites, stored: Weights
) -> Sequence[bool]:
    """Whether each value depends on something that is trained."""
    learns = [bool(kind.trainable) for kind in stored.kinds]
    differs = [False] * len(graph.tensors)
    for node in running:
        if learns[found.of[node.index]] or any(differs[value] for value in node.inputs):
            for value in node.outputs:
                differs[value] = True
    return differs
