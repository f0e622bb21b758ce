"""How many bytes each layer moves in inference, in the type and batch asked for.

Every layer reads its inputs and weights and writes its outputs once, each in full: nothing is kept
in registers or caches from one layer to the next, and nothing read twice within one. What inference
folds into a neighbour or leaves out, and what is only another view of its input, moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.sites import Kind, Sites
from cnnspec.passes.weights import Stored, Weights

__all__ = ["Moved", "Traffic", "traffic"]


class Moved(NamedTuple):
    """Bytes that a layer reads (`weights` among them) and writes."""

    read: int = 0
    written: int = 0
    weights: int = 0

    @property
    def bytes(self) -> int:
        """All of them."""
        return self.read + self.written


@dataclass(frozen=True, slots=True)
class Traffic:
    """What each node moves."""

    nodes: tuple[Moved, ...]


def traffic(graph: Graph, facts: Facts) -> Traffic:
    """Count the bytes of every node; layers that share weights read them once each."""
    found, options = facts[Sites], facts[Options]
    stored = facts[Weights].kinds
    kinds = [_moved(kind, own, options) for kind, own in zip(found.kinds, stored, strict=True)]
    return Traffic(tuple([kinds[kind] for kind in found.of]))


def _moved(kind: Kind, stored: Stored, options: Options) -> Moved:
    op, at = kind.op, kind.at
    folded = options.fold and op.channel_affine(at) is not None
    if not at.inputs or folded or op.identity_at_inference or op.is_view(at):
        return Moved()
    width, batch = options.numbers.bytes, options.batch
    weights = stored.bytes + stored.buffer_bytes
    looks = zip(at.inputs, kind.looks[0], strict=True)
    read = sum([x.in_batch(batch) for x, look in looks if look is not None])
    written = sum([y.in_batch(batch) for y in at.outputs])
    return Moved(width * read + weights, width * written, weights)
