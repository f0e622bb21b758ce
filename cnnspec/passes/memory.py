"""How much memory activations take at batch 1, in float32: 4 bytes an element.

Inference runs nodes in their order; a tensor lives from the node that makes it to the last that
reads it. Weights are no activations, nor is the output of an op without inputs: it is a weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph, Node
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.sites import Kind, Sites

__all__ = ["BYTES_PER_ELEMENT", "Activations", "Memory", "Peak", "memory"]

BYTES_PER_ELEMENT = 4


class Activations(NamedTuple):
    """Elements that a layer puts out.

    `macts` are those of layers with multiply-accumulates, what timm and fvcore call activations;
    `saved_bytes` is what backward keeps of this layer apart from whole tensors (masks, indices).
    """

    elements: int
    macts: int
    saved_bytes: int


class Peak(NamedTuple):
    """The moment when most is alive: bytes, the node that runs then, and the values alive."""

    bytes: int
    node: int | None
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Activations of each node, and the peaks of the inference graph and of the whole graph.

    `saved_bytes` is an estimate of what training keeps for backward at batch 1 over the whole
    graph: each tensor that some op saves, once, with masks and indices.
    """

    nodes: tuple[Activations, ...]
    inference: Peak
    whole: Peak
    saved_bytes: int


def memory(graph: Graph, facts: Facts) -> Memory:
    """Count activations, and follow which tensors are alive."""
    found = facts[Sites]
    kinds = [_activations(kind, kind.op.cost(kind.at).mac > 0) for kind in found.kinds]
    nodes = tuple([kinds[kind] for kind in found.of])
    running = [node for node in graph.nodes if node.index in graph.inference]
    fold = facts[Options].fold
    inference = _peak(graph, running, [o.value for o in graph.outputs if not o.training], fold)
    whole = inference
    if len(running) < len(graph.nodes):
        whole = _peak(graph, graph.nodes, [o.value for o in graph.outputs], fold)
    return Memory(nodes, inference, whole, _saved(graph, found, nodes))


def _activations(kind: Kind, multiplies: bool) -> Activations:
    if not kind.at.inputs:
        return Activations(0, 0, 0)
    elements = sum(tensor.elements for tensor in kind.at.outputs)
    saved = elements * ("mask" in kind.op.saves) + 8 * elements * ("indices" in kind.op.saves)
    return Activations(elements, elements if multiplies else 0, saved)


def _saved(graph: Graph, found: Sites, nodes: Sequence[Activations]) -> int:
    kept: set[int] = set()
    for node in graph.nodes:
        saves = found.kinds[found.of[node.index]].op.saves
        if "input" in saves:
            kept.update(node.inputs)
        if "output" in saves:
            kept.update(node.outputs)
    tensors = BYTES_PER_ELEMENT * sum(
        graph.tensors[value].elements for value in kept if not _is_weight(graph, value)
    )
    return tensors + sum(activations.saved_bytes for activations in nodes)


def _is_weight(graph: Graph, value: int) -> bool:
    producer = graph.producers[value]
    return producer >= 0 and not graph.nodes[producer].inputs


@dataclass(slots=True)
class _Buffer:
    """Memory that one value after the other may use: `reads` still to come, steps of its life.

    `tenants` are `(step, value)` in order. What is `held` belongs to the caller or is a weight.
    """

    bytes: int
    reads: int
    held: bool
    born: int
    tenants: list[tuple[int, int]]
    died: int | None = None


def _peak(graph: Graph, running: Sequence[Node], results: Iterable[int], fold: bool) -> Peak:
    """Run `running` in order, keeping `results` to the end, and find the fullest moment.

    An op that is the identity at inference hands its input on; one that can work in place, or is
    folded into the op before it, does so where its input dies with it. Network inputs are freed
    after their last use, never overwritten.
    """
    reads = [0] * len(graph.tensors)
    for node in running:
        for value in node.inputs:
            reads[value] += 1
    for value in results:
        reads[value] += 1

    buffers: list[_Buffer] = []
    home: dict[int, _Buffer] = {}

    def settle(value: int, step: int, *, weight: bool = False, held: bool = False) -> _Buffer:
        size = 0 if weight else BYTES_PER_ELEMENT * graph.tensors[value].elements
        buffer = _Buffer(size, reads[value], held, step, [(step, value)])
        buffers.append(buffer)
        home[value] = buffer
        return buffer

    given = [value for value in graph.inputs.values() if reads[value]]
    live = sum(settle(value, -1, held=True).bytes for value in given)
    most, at = live, -1
    for step, node in enumerate(running):
        for value in node.inputs:
            home[value].reads -= 1
        first = home[node.inputs[0]] if node.inputs else None
        for position, value in enumerate(node.outputs):
            if position == 0 and first is not None and _reuses(graph, node, first, fold):
                first.reads += reads[value]
                first.tenants.append((step, value))
                home[value] = first
            else:
                live += settle(value, step, weight=not node.inputs, held=not node.inputs).bytes
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
    return Peak(most, running[at].index if at >= 0 else None, tuple(sorted(alive)))


def _reuses(graph: Graph, node: Node, first: _Buffer, fold: bool) -> bool:
    """Whether the first output takes the memory of the first input."""
    if node.op.identity_at_inference:
        return True
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    dies = not first.reads and not first.held
    folds = fold and node.op.channel_affine(graph.site(node)) is not None
    capable = node.op.inplace_capable or folds
    return capable and dies and x.elements == y.elements
