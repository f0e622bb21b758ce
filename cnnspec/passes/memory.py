"""How much memory activations take in inference, step by step, in the type and batch asked for.

Nodes run in their order; a tensor lives from the node that makes it to the last that reads it.
Weights are no activations, nor is the output of an op without inputs: it is a weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cnnspec.ir import Graph, Node
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.sites import Kind, Sites

__all__ = ["Activations", "Memory", "Peak", "Place", "Run", "memory", "run_in_order", "sizes_of"]


class Activations(NamedTuple):
    """Elements that a layer puts out for one sample.

    `macts` are those that multiply-accumulates make, what timm and fvcore call activations.
    """

    elements: int
    macts: int


class Peak(NamedTuple):
    """The moment when most is alive: bytes, the node that runs then, and the values alive."""

    bytes: int
    node: int | None
    values: tuple[int, ...]


class Run(NamedTuple):
    """The nodes of a run, the bytes alive while each runs, and the fullest moment.

    The moment before the first node, when only network inputs are alive, can be the fullest too.
    """

    nodes: tuple[int, ...]
    live: tuple[int, ...]
    peak: Peak


@dataclass(frozen=True, slots=True)
class Memory:
    """Activations of each node, and the runs of the inference graph and of the whole graph."""

    nodes: tuple[Activations, ...]
    inference: Run
    whole: Run


class Place(Enum):
    """Where a node's outputs lie: in the memory of the first input, there if it dies, or apart."""

    IN_INPUT = 1
    OVER_INPUT = 2
    APART = 3


def memory(graph: Graph, facts: Facts) -> Memory:
    """Count activations, and follow which tensors are alive."""
    found, options = facts[Sites], facts[Options]
    kinds = [_activations(kind) for kind in found.kinds]
    nodes = tuple([kinds[kind] for kind in found.of])
    sizes = sizes_of(graph, options)
    of_kind = [_place(kind, options.fold) for kind in found.kinds]
    places = [of_kind[kind] for kind in found.of]
    running = [node for node in graph.nodes if node.index in graph.inference]
    results = [output.value for output in graph.outputs if not output.training]
    inference = run_in_order(graph, running, results, sizes, places)
    whole = inference
    if len(running) < len(graph.nodes):
        results = [output.value for output in graph.outputs]
        whole = run_in_order(graph, graph.nodes, results, sizes, places)
    return Memory(nodes, inference, whole)


def sizes_of(graph: Graph, options: Options) -> list[int]:
    """Bytes of every value; none for one that is a weight."""
    width, batch = options.numbers.bytes, options.batch
    producers, nodes = graph.producers, graph.nodes
    return [
        0 if producer >= 0 and not nodes[producer].inputs else width * tensor.in_batch(batch)
        for tensor, producer in zip(graph.tensors, producers, strict=True)
    ]


def _activations(kind: Kind) -> Activations:
    if not kind.at.inputs:
        return Activations(0, 0)
    elements = sum(tensor.elements for tensor in kind.at.outputs)
    return Activations(elements, kind.op.macts(kind.at))


def _place(kind: Kind, fold: bool) -> Place:
    """Where inference puts the outputs of a node of this kind."""
    op, at = kind.op, kind.at
    if op.identity_at_inference or op.is_view(at):
        return Place.IN_INPUT
    folds = fold and op.channel_affine(at) is not None
    if (op.inplace_capable or folds) and at.inputs and at.x.elements == at.y.elements:
        return Place.OVER_INPUT
    return Place.APART


@dataclass(slots=True)
class _Buffer:
    """Memory that one value after the other may use: `reads` still to come, steps of its life.

    `tenants` are `(step, value)` in order, parts of it not among them. What is `held` belongs to
    the caller or is a weight.
    """

    bytes: int
    reads: int
    held: bool
    born: int
    tenants: list[tuple[int, int]]
    died: int | None = None


def run_in_order(
    graph: Graph,
    running: Sequence[Node],
    results: Iterable[int],
    sizes: Sequence[int],
    places: Sequence[Place],
) -> Run:
    """Run `running` in order, keep `results` to the end, and say what is alive at each step.

    `sizes` are bytes of values and `places` those of nodes. Memory that belongs to the caller is
    read by nodes and never overwritten; a network input is freed after its last use.
    """
    reads = [0] * len(graph.tensors)
    for node in running:
        for value in node.inputs:
            reads[value] += 1
    for value in results:
        reads[value] += 1

    buffers: list[_Buffer] = []
    home: dict[int, _Buffer] = {}

    def settle(value: int, step: int, *, held: bool = False) -> int:
        buffer = _Buffer(sizes[value], reads[value], held, step, [(step, value)])
        buffers.append(buffer)
        home[value] = buffer
        return buffer.bytes

    given = [value for value in graph.inputs.values() if reads[value]]
    live = sum([settle(value, -1, held=True) for value in given])
    most, at = live, -1
    timeline: list[int] = []
    for step, node in enumerate(running):
        for value in node.inputs:
            home[value].reads -= 1
        first = home[node.inputs[0]] if node.inputs else None
        place = places[node.index]
        if place is Place.OVER_INPUT and (first is None or first.reads or first.held):
            place = Place.APART
        for position, value in enumerate(node.outputs):
            over = place is Place.OVER_INPUT and not position
            if first is not None and (over or place is Place.IN_INPUT):
                first.reads += reads[value]
                if sizes[value] == first.bytes:
                    first.tenants.append((step, value))
                home[value] = first
            else:
                live += settle(value, step, held=first is None)
        timeline.append(live)
        if live > most:
            most, at = live, step
        for value in (*node.inputs, *node.outputs):
            buffer = home[value]
            if not buffer.reads and buffer.died is None:
                buffer.died = step
                live -= buffer.bytes
    alive = [
        max(tenant for tenant in buffer.tenants if tenant[0] <= at)[1]
        for buffer in buffers
        if buffer.bytes and buffer.born <= at and (buffer.died is None or buffer.died >= at)
    ]
    peak = Peak(most, running[at].index if at >= 0 else None, tuple(sorted(alive)))
    return Run(tuple([node.index for node in running]), tuple(timeline), peak)
