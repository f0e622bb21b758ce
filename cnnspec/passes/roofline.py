"""How long a device takes at least: the roofline model (Williams, Waterman, Patterson, 2009).

A layer computes no faster than the device's arithmetic and moves its bytes no faster than the
device's memory; the slower of the two is its floor. Not in the pipeline, as it needs a device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.device import Device
from cnnspec.ir import Graph
from cnnspec.op import Ops
from cnnspec.passes.cost import Cost
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.traffic import Moved, Traffic

__all__ = ["Floor", "Roofline", "roofline"]


class Floor(NamedTuple):
    """The least seconds that a layer computes and moves bytes for a batch."""

    compute: float = 0.0
    memory: float = 0.0

    @property
    def seconds(self) -> float:
        """The least time: the two overlap at best."""
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """What the layer waits for: `compute`, `memory`, or nothing if it does neither."""
        if not self.seconds:
            return ""
        return "compute" if self.compute >= self.memory else "memory"


@dataclass(frozen=True, slots=True)
class Roofline:
    """The floor of each node, those that inference leaves out at 0, and sums over them.

    `seconds` is the sum of the floors, a lower bound if every layer reads and writes memory once.
    `compute` and `memory` are the sums of the two sides. `rate` names the type that products run
    in, `ridge` is the number of operations a byte above which a layer is compute-bound.
    """

    nodes: tuple[Floor, ...]
    seconds: float
    compute: float
    memory: float
    rate: str
    ridge: float


def roofline(graph: Graph, facts: Facts, device: Device) -> Roofline:
    """The floors of all nodes in the type and batch of the analysis.

    Raises `EnvironmentFailure` for a type that the device has no rate for.
    """
    options = facts[Options]
    rate, matrix = device.matrix_rate(options.dtype)
    vector = device.vector_rate(options.dtype)
    inference = graph.inference
    nodes = tuple(
        _floor(ops, moved, matrix, vector, device.bandwidth, options.batch)
        if index in inference
        else Floor()
        for index, (ops, moved) in enumerate(
            zip(facts[Cost].nodes, facts[Traffic].nodes, strict=True)
        )
    )
    return Roofline(
        nodes,
        _sum(floor.seconds for floor in nodes),
        _sum(floor.compute for floor in nodes),
        _sum(floor.memory for floor in nodes),
        rate,
        matrix / device.bandwidth,
    )


def _sum(parts: Iterable[float]) -> float:
    return sum(parts)


def _floor(
    ops: Ops, moved: Moved, matrix: float, vector: float, bandwidth: float, batch: int
) -> Floor:
    """Products and elementwise arithmetic run on units of their own, at once at best."""
    elementwise = ops.flops - 2 * ops.mac
    compute = batch * max(2 * ops.mac / matrix, elementwise / vector)
    return Floor(compute, moved.bytes / bandwidth)
