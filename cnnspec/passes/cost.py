"""How much arithmetic one inference takes, exactly, at batch 1.

Multiply-accumulates are those of convolution, linear, matmul and attention only, as papers count
them; the other operations stand beside them. What inference folds away costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnspec.ir import Graph
from cnnspec.op import Ops
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.sites import Sites

__all__ = ["NO_OPS", "Cost", "cost"]

NO_OPS = Ops()


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of each node, and the multiply-accumulates among them that padding wastes.

    `nodes[i].flops` is 2 for each multiply-accumulate, 1 for others.
    """

    nodes: tuple[Ops, ...]
    padding: tuple[int, ...]


def cost(graph: Graph, facts: Facts) -> Cost:
    """Count the operations of every node, folded ones as 0 unless `Options.fold` is off."""
    found = facts[Sites]
    fold = facts[Options].fold
    kinds = [
        NO_OPS if fold and kind.op.channel_affine(kind.at) is not None else kind.op.cost(kind.at)
        for kind in found.kinds
    ]
    padding = [kind.op.padding_macs(kind.at) for kind in found.kinds]
    return Cost(
        tuple([kinds[kind] for kind in found.of]), tuple([padding[kind] for kind in found.of])
    )
