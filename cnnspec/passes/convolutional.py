"""A graph whose fully connected head is convolutions, so that it takes any larger input.

A linear layer behind a flattened map is a convolution with a kernel as large as the map, and one
behind it a 1x1 convolution (Long, Shelhamer and Darrell, Fully convolutional networks for semantic
segmentation, 2015; Simonyan and Zisserman, 2015, section 3.2). What an operation becomes is its own
rule (`Op.at_each_position`, `Op.with_fixed_windows`); here flattenings are left out and the graph
is put together again. Weights keep their names and, row by row, their elements.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from cnnspec.diagnostics import EnvironmentFailure, Reject, shape_text
from cnnspec.ir import Graph, Node, Scope
from cnnspec.op import Op, Pointwise, Site
from cnnspec.tensor import Tensor

__all__ = ["Change", "Rewritten", "fully_convolutional"]

_SUFFIX = "_fcn"


class Change(NamedTuple):
    """What became of the entry at `path`: `now` is None where it is left out."""

    path: str
    before: Op
    now: Op | None
    why: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The new graph, flat, and what was changed, in order of execution."""

    graph: Graph
    changes: tuple[Change, ...]


def fully_convolutional(graph: Graph) -> Rewritten:
    """Rewrite what lies behind flattened maps.

    Raises `EnvironmentFailure` where no linear layer reads a flattened map, and naming the layer
    where one behind it has no form that works position by position.
    """
    return _Rewriting(graph).result()


class _Rewriting:
    """One pass over the nodes; `spread` are the new values that were vectors."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.flattening = frozenset(
            node.index for node in graph.nodes if _flattens(node, graph.site(node))
        )
        self.fixed = self._fixed()
        self.values: dict[int, int] = {}
        self.spread: set[int] = set()
        self.tensors: list[Tensor] = []
        self.producers: list[int] = []
        self.nodes: list[Node] = []
        self.places: dict[int, int] = {}
        self.changes: list[Change] = []
        self.turned = False
        self.root = Scope("", graph.name, None, {}, None, graph.root.span)

    def _fixed(self) -> dict[int, Op]:
        """What stands in front of a flattening and has windows that grow, with fixed ones."""
        graph = self.graph
        found: dict[int, Op] = {}
        for index in self.flattening:
            node = self._producer(graph.nodes[index])
            while node is not None and isinstance(node.op, Pointwise):
                node = self._producer(node)
            if node is None:
                continue
            op = node.op.with_fixed_windows(graph.site(node))
            if op is None:
                raise EnvironmentFailure(
                    f"`{node.path}` ({node.op.name}) has windows of several sizes at "
                    f"{shape_text(graph.site(node).x.shape)}, which no sliding window does"
                )
            if op is not node.op:
                found[node.index] = op
        return found

    def _producer(self, node: Node) -> Node | None:
        index = self.graph.producers[node.inputs[0]] if node.inputs else -1
        return self.graph.nodes[index] if index >= 0 else None

    def result(self) -> Rewritten:
        """The graph, after all nodes."""
        graph = self.graph
        for value in graph.inputs.values():
            self._value(value, graph.tensors[value], -1)
        for node in graph.nodes:
            self._node(node)
        if not self.turned:
            raise EnvironmentFailure(
                f"`{graph.name}` has no linear layer that reads a flattened map",
                help="what is left of it takes any size already, or never has positions",
            )
        self.root.members.extend(range(len(self.nodes)))
        rewritten = replace(
            graph,
            name=f"{graph.name}{_SUFFIX}",
            inputs={name: self.values[value] for name, value in graph.inputs.items()},
            tensors=tuple(self.tensors),
            producers=tuple(self.producers),
            nodes=tuple(self.nodes),
            outputs=tuple(
                replace(output, value=self.values[output.value]) for output in graph.outputs
            ),
            root=self.root,
            symbols={},
            size_reads=(),
            size_tests=(),
        )
        return Rewritten(rewritten, tuple(self.changes))

    def _value(self, old: int, tensor: Tensor, producer: int) -> None:
        self.values[old] = len(self.tensors)
        self.tensors.append(tensor)
        self.producers.append(producer)

    def _node(self, node: Node) -> None:
        graph = self.graph
        inputs = [self.values[value] for value in node.inputs]
        if node.index in self.flattening:
            self._leave_out(node, inputs[0], "its input stays a map")
            self.spread.add(inputs[0])
            return
        fixed = self.fixed.get(node.index)
        if fixed is not None and fixed.identity_at_inference:
            shape = shape_text(graph.site(node).y.shape)
            self._leave_out(node, inputs[0], f"changes nothing at {shape}")
            return
        if fixed is not None:
            self._append(node, fixed, inputs)
            self.changes.append(Change(node.path, node.op, fixed, "its windows do not grow"))
            return
        vectors = [graph.tensors[value] for value in node.inputs]
        spread = [
            value in self.spread and self.tensors[value].shape != old.shape
            for value, old in zip(inputs, vectors, strict=True)
        ]
        if any(spread):
            self._turn(node, inputs, all(spread))
        else:
            self._append(node, node.op, inputs)

    def _leave_out(self, node: Node, instead: int, why: str) -> None:
        self.values[node.outputs[0]] = instead
        self.changes.append(Change(node.path, node.op, None, why))

    def _turn(self, node: Node, inputs: list[int], every: bool) -> None:
        """A node that read vectors, and reads maps now."""
        at = self.graph.site(node)
        windows = {self.tensors[value].shape for value in inputs}
        window = self.tensors[inputs[0]].shape
        op = node.op.at_each_position(at, window) if every and len(windows) == 1 else None
        if op is None:
            raise EnvironmentFailure(
                f"`{node.path}` ({node.op.name}) reads a flattened map and has no form that works "
                "position by position",
                help="linear layers, activations and dropout have one; batch norm and softmax "
                "behind a linear layer",
            )
        self.turned |= bool(node.op.weights(at))
        self._append(node, op, inputs)
        self.spread.update(self.values[value] for value in node.outputs)
        if op is not node.op and op != node.op:
            self.changes.append(Change(node.path, node.op, op, ""))

    def _append(self, node: Node, op: Op, inputs: list[int]) -> None:
        """Put a node into the new graph."""
        index = len(self.nodes)
        sources = tuple(self.tensors[value] for value in inputs)
        try:
            outputs = op.infer(sources)
        except Reject as reject:
            raise EnvironmentFailure(
                f"`{node.path}` cannot read the map: {reject.message}"
            ) from None
        for old, tensor in zip(node.outputs, outputs, strict=True):
            self._value(old, tensor, index)
        self.places[node.index] = index
        self.nodes.append(
            replace(
                node,
                index=index,
                op=op,
                inputs=tuple(inputs),
                outputs=tuple(self.values[value] for value in node.outputs),
                scope=self.root,
                share=None if node.share is None else self.places[node.share],
            )
        )


def _flattens(node: Node, at: Site) -> bool:
    """Whether a node makes a vector of a map, all of it in its order."""
    return (
        len(at.inputs) == len(at.outputs) == 1
        and at.y.rank == 1
        and at.x.rank > 1
        and at.x.roles[0].value == "channel"
        and all(role.spatial for role in at.x.roles[1:])
        and at.x.elements == at.y.elements
        and node.op.is_view(at)
    )
