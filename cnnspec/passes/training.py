"""What one training step takes, in the type, batch and optimiser asked for.

What backward needs is exact for torch's CUDA kernels as far as tensors go (tests compare it with
torch's saved tensors); the peak is that of a step that frees each tensor after its last use.
Temporaries of kernels and what allocators round up are not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph, Node
from cnnspec.op import Saved
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.memory import sizes_of
from cnnspec.passes.options import OPTIMIZERS, DType
from cnnspec.passes.sites import Sites
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
            weights + buffers + state + tracker.peak(gradients),
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
        keeps = [kind.op.saved(kind.at, options.batch) for kind in found.kinds]
        own = [_own(kept, options.numbers) for kept in keeps]
        self._keepers: dict[int, int] = {}
        """For each memory that is kept whole the first node that does; backward frees it there."""
        self._own = [0] * len(graph.nodes)
        self.saved = [0] * len(graph.nodes)
        counts = [0] * len(found.kinds)
        for node in self._running:
            if not any(self._differs[value] for value in node.outputs):
                continue
            number = found.of[node.index]
            kept = keeps[number]
            counts[number] += 1
            self._own[node.index] = total = sum(own[number])
            for positions, values in ((kept.inputs, node.inputs), (kept.outputs, node.outputs)):
                for position in positions:
                    root = self._roots[values[position]]
                    if root not in self._keepers:
                        self._keepers[root] = node.index
                        total += self._sizes[root]
            self.saved[node.index] = total
        weighted = [[count * n for n in sizes] for count, sizes in zip(counts, own, strict=True)]
        self._parts = [sum(part) for part in zip(*weighted, strict=True)]

    def parts(self) -> Parts:
        """What all nodes keep, by kind."""
        tensors = sum([self._sizes[root] for root in self._keepers])
        return Parts(tensors, *(self._parts or (0, 0, 0, 0)))

    def peak(self, gradients: Sequence[int]) -> int:
        """The most bytes of tensors, and of `gradients` of each node's weights, alive at once.

        Forward frees what nobody reads later and nobody keeps. Backward runs the nodes in reverse:
        each makes the gradients of its inputs and weights, then frees those of its outputs and what
        only it still keeps.
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
        steps = zip(reversed(self._running), reversed(reads), reversed(makes), strict=True)
        for node, read, made in steps:
            if not any(roots[value] in started for value in node.outputs):
                continue
            index = node.index
            live += gradients[index]
            for root in read:
                if root not in started and differs[root]:
                    started.add(root)
                    live += sizes[root]
            if live > most:
                most = live
            for root in made:
                if root in started:
                    live -= sizes[root]
            live -= own[index]
            for root in read.union(made):
                if keepers.get(root) == index and root not in stay:
                    live -= sizes[root]
        return most


def _own(kept: Saved, numbers: DType) -> tuple[int, int, int, int]:
    """Bytes of what a node alone keeps: `elements`, `statistics`, `mask`, `indices`."""
    return (
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
