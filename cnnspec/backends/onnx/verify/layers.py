"""Layer by layer: what each layer of a file makes of the file's own tensors, against torch.

Every layer is fed what the file itself computed before it. So the layer that is wrong is the one
that differs, whatever follows, and what an average or a softmax at the end hides is seen. A tensor
that the file lacks (a convolution before a norm that was folded into it) is computed in torch on
the way to the next one it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnspec.backends.onnx.session import session
from cnnspec.backends.onnx.verify.difference import AnyArray, Difference, measured
from cnnspec.backends.onnx.verify.evaluation import Evaluation
from cnnspec.backends.onnx.verify.running import LEVELS, refusals_told, widened
from cnnspec.backends.onnx.verify.statics import Model
from cnnspec.backends.onnx.verify.verdict import LayerComparison, Level
from cnnspec.ir import Graph, Node

__all__ = ["ROUNDINGS", "LayerWise", "activation_bytes"]

ROUNDINGS = 10
"""How many times torch's own error in float32 a difference may be, whatever its size."""

_AT_ONCE = 1 << 29
"""Bytes of tensors that are asked of one session."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A layer that the file has tensors of: what they are, what runs for them, from which values.

    `nodes` are those that torch runs, the layer itself the last.
    """

    node: Node
    values: tuple[int, ...]
    nodes: tuple[int, ...]
    reads: tuple[int, ...]


def activation_bytes(graph: Graph, batch: int) -> int:
    """Bytes that all tensors of inference take together in float32."""
    return sum(
        4 * graph.tensors[value].in_batch(batch)
        for index in graph.inference
        for value in graph.nodes[index].outputs
    )


class LayerWise:
    """Compares the layers of one file. `names` are the file's names of the graph's values."""

    def __init__(
        self, model: Model, graph: Graph, evaluation: Evaluation, names: Mapping[int, str]
    ) -> None:
        self._model = model
        self._graph = graph
        self._evaluation = evaluation
        self._names = names
        self._known = frozenset(graph.inputs.values()) | frozenset(
            value for value, name in names.items() if name in model.writers
        )
        self._steps = tuple(self._plan())

    def _plan(self) -> Iterator[_Step]:
        graph, evaluation = self._graph, self._evaluation
        for index in sorted(graph.inference):
            node = graph.nodes[index]
            values = tuple(value for value in node.outputs if value in self._known)
            if not values or node.op.identity_at_inference:
                continue
            nodes = evaluation.between(values, self._known)
            made = {value for each in nodes for value in graph.nodes[each].outputs}
            reads = {
                value
                for each in nodes
                for value in graph.nodes[each].inputs
                if value in self._known or value not in made
            }
            yield _Step(node, values, nodes, tuple(sorted(reads)))

    def compare(
        self, feeds: Mapping[str, AnyArray], level: Level, limit: float
    ) -> Iterator[LayerComparison]:
        """Every layer in the graph's order, each allowed `limit` or ten roundings of its own."""
        last: dict[int, int] = {}
        for position, step in enumerate(self._steps):
            last.update(dict.fromkeys(step.reads, position))
        batch = next((len(value) for value in feeds.values()), 1)
        held: dict[int, Tensor] = {
            value: torch.from_numpy(feeds[self._names[value]].copy())
            for value in self._graph.inputs.values()
            if self._names[value] in feeds
        }
        position = 0
        for group in self._groups(batch):
            wanted = [value for step in group for value in step.values]
            wanted += [v for step in group for v in step.reads if v not in held]
            found = self._fetch(list(dict.fromkeys(wanted)), feeds, level)
            held.update(found)
            for step in group:
                yield self._compared(step, held, limit)
                for value in (*step.reads, *step.values):
                    if last.get(value, position) <= position:
                        held.pop(value, None)
                position += 1

    def _groups(self, batch: int) -> Iterator[list[_Step]]:
        """Layers whose tensors are fetched together."""
        group: list[_Step] = []
        size = 0
        for step in self._steps:
            own = sum(4 * self._graph.tensors[value].in_batch(batch) for value in step.values)
            if group and size + own > _AT_ONCE:
                yield group
                group, size = [], 0
            group.append(step)
            size += own
        if group:
            yield group

    def _fetch(
        self, values: Sequence[int], feeds: Mapping[str, AnyArray], level: Level
    ) -> dict[int, Tensor]:
        """Tensors of the file, by value."""
        names = list(dict.fromkeys(self._names[value] for value in values))
        with refusals_told(self._model, feeds, level):
            runtime = session(
                widened(self._model, names), optimise=LEVELS[level], folder=self._model.folder
            )
            found = dict(zip(names, runtime.run(names, dict(feeds)), strict=True))
        return {value: torch.from_numpy(found[self._names[value]]) for value in values}

    def _compared(self, step: _Step, held: Mapping[int, Tensor], limit: float) -> LayerComparison:
        """The worst of the layer's tensors."""
        worst: LayerComparison | None = None
        known = {value: held[value] for value in step.reads}
        single = self._evaluation.run(step.nodes, known, torch.float32)
        exact: dict[int, Tensor] = {}
        for value in step.values:
            ours, theirs = held[value].numpy(), single[value].numpy()
            found = measured(ours, theirs)
            allowed = limit
            if found.comparable and found.relative > limit:
                exact = exact or self._evaluation.run(step.nodes, known, torch.float64)
                found = measured(ours, exact[value].numpy())
                allowed = max(limit, _rounding(theirs, exact[value].numpy()))
            name = self._names[value]
            path = self._model.writers[name] or step.node.path
            along = [self._graph.nodes[index].path for index in step.nodes]
            compared = LayerComparison(
                path,
                name,
                found.relative,
                found.absolute,
                allowed,
                tuple(each for each in along if each != path),
            )
            if worst is None or compared.fails or compared.difference > worst.difference:
                worst = compared
            if compared.fails:
                break
        assert worst is not None  # a step has values
        return worst


def _rounding(single: AnyArray, exact: AnyArray) -> float:
    """The relative difference that ten times the error of torch's own float32 makes."""
    found: Difference = measured(single, exact)
    return ROUNDINGS * found.relative if found.comparable else 0.0
