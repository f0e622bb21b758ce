"""What the network stores: parameters and buffers, each tensor once.

Shapes come from the ops; what is shared is charged to one node only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts
from cnnspec.passes.options import DType, Options
from cnnspec.passes.sites import Kind, Sites
from cnnspec.weights import Buffer

__all__ = ["NOTHING_STORED", "Stored", "Weights", "weights"]

_BYTES: Mapping[str, int] = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "float16": 2,
    "bfloat16": 2,
    "int32": 4,
    "float32": 4,
    "int64": 8,
    "float64": 8,
}


class Stored(NamedTuple):
    """Numbers of stored elements, the bytes they take, how many tensors are trained.

    `weights + biases == trainable + frozen`. Buffers are those of the state dict; those of floats
    are in the network's type, as torch's `module.to(dtype)` puts them, the others in their own.
    """

    trainable: int = 0
    frozen: int = 0
    weights: int = 0
    biases: int = 0
    buffers: int = 0
    buffer_bytes: int = 0
    bytes: int = 0
    """Bytes of all parameters."""
    tensors: int = 0
    """Parameters that are trained, as tensors."""

    @property
    def params(self) -> int:
        """Elements of all parameters, trainable and frozen."""
        return self.trainable + self.frozen


NOTHING_STORED = Stored()


@dataclass(frozen=True, slots=True)
class Weights:
    """What each node is charged with.

    Nodes that share weights store them once: the owner is charged, or, where inference runs only
    nodes that borrow from it, the first of those. So sums over any of the two graphs are right.
    """

    nodes: tuple[Stored, ...]
    kinds: tuple[Stored, ...]
    """What an operation of each kind stores, or borrows."""


def weights(graph: Graph, facts: Facts) -> Weights:
    """Count parameters and buffers of every node."""
    found = facts[Sites]
    numbers = facts[Options].numbers
    stored = [_stored(kind, numbers) for kind in found.kinds]
    charged = [stored[kind] for kind in found.of]
    for owner, borrowers in _borrowers(graph).items():
        members = (owner, *borrowers)
        payer = next((index for index in members if index in graph.inference), owner)
        own = charged[owner]
        for index in members:
            charged[index] = own if index == payer else NOTHING_STORED
    return Weights(tuple(charged), tuple(stored))


def _borrowers(graph: Graph) -> dict[int, list[int]]:
    """For each node whose weights others reuse, those others in order."""
    found: dict[int, list[int]] = {}
    for node in graph.nodes:
        owner = node.share
        if owner is None:
            continue
        while (further := graph.nodes[owner].share) is not None:
            owner = further
        found.setdefault(owner, []).append(node.index)
    return found


def _stored(kind: Kind, numbers: DType) -> Stored:
    trainable = frozen = biases = tensors = 0
    for name, weight in kind.op.weights(kind.at).items():
        elements = weight.elements
        if weight.trainable:
            trainable += elements
            tensors += 1
        else:
            frozen += elements
        if "bias" in name.rpartition(".")[2]:
            biases += elements
    buffers = [b for b in kind.op.buffers(kind.at).values() if b.persistent]
    return Stored(
        trainable,
        frozen,
        trainable + frozen - biases,
        biases,
        sum(buffer.elements for buffer in buffers),
        sum(_buffer_bytes(buffer, numbers) for buffer in buffers),
        numbers.bytes * (trainable + frozen - biases) + numbers.bias * biases,
        tensors,
    )


def _buffer_bytes(buffer: Buffer, numbers: DType) -> int:
    follows = numbers.floating and "float" in buffer.dtype
    return buffer.elements * (numbers.bytes if follows else _BYTES[buffer.dtype])
