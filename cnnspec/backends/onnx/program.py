"""What inference computes: the graph's ops in order, each with the names of its weights.

Between the graph and the nodes of a file. Dropout, identities and what only training needs are gone
from it, and passes that change the arithmetic (`folding`) or add to it rewrite it. onnx may not
enter: how an op is written is for `build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cnnspec.ir import Graph, Node
from cnnspec.op import Op, Site
from cnnspec.tensor import Tensor

__all__ = ["Array", "Folded", "Program", "Step", "program_of", "state_key", "tensor_names"]

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Step:
    """One op at its path. `inputs` and `outputs` are value numbers, those of the graph.

    `keys` gives the key in `Program.arrays` of each weight and buffer by the op's own name for it.
    """

    path: str
    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Folded:
    """A layer that is no step any more: `into` are the paths of the steps that do its work."""

    path: str
    into: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """The steps of inference in order, and what they read.

    `inputs` and `outputs` give values by the names of the file, `tensors` and `names` say what each
    value is and what it is called; there may be more of them than steps compute. `arrays` holds
    weights and buffers by key, in torch's shapes. `folded` are the layers that folding took away.
    """

    name: str
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    tensors: Mapping[int, Tensor]
    names: Mapping[int, str]
    steps: tuple[Step, ...]
    arrays: Mapping[str, Array]
    folded: tuple[Folded, ...] = ()

    def site(self, step: Step) -> Site:
        """The tensors that go into and come out of a step."""
        tensors = self.tensors
        return Site(
            tuple([tensors[value] for value in step.inputs]),
            tuple([tensors[value] for value in step.outputs]),
        )

    def readers(self) -> Mapping[int, tuple[int, ...]]:
        """For each value the positions of the steps that read it, once for each time they do."""
        found: dict[int, list[int]] = {}
        for position, step in enumerate(self.steps):
            for value in step.inputs:
                found.setdefault(value, []).append(position)
        return {value: tuple(positions) for value, positions in found.items()}


def program_of(graph: Graph, arrays: Mapping[str, Array]) -> Program:
    """What the inference outputs of `graph` need, with weights and buffers by state-dict key."""
    through = _passed_on(graph)
    steps = []
    for index in sorted(graph.inference):
        node = graph.nodes[index]
        if node.op.identity_at_inference:
            continue
        site = graph.site(node)
        own = (*node.op.weights(site), *node.op.buffers(site))
        steps.append(
            Step(
                node.path,
                node.op,
                tuple([through.get(value, value) for value in node.inputs]),
                node.outputs,
                {name: state_key(graph, node, name) for name in own},
            )
        )
    return Program(
        graph.name,
        graph.inputs,
        {
            output.name: through.get(output.value, output.value)
            for output in graph.outputs
            if not output.training
        },
        dict(enumerate(graph.tensors)),
        tensor_names(graph),
        tuple(steps),
        arrays,
    )


def state_key(graph: Graph, node: Node, name: str) -> str:
    """The state-dict key of a weight or buffer of `node`, which may be another node's."""
    while node.share is not None:
        node = graph.nodes[node.share]
    return f"{node.path}.{name}" if name else node.path


def tensor_names(graph: Graph) -> Mapping[int, str]:
    """The ONNX name of each value that inference computes.

    Network inputs and outputs have the names the spec gives them, the others the path of their
    node. A path that an input, an output or a weight already has gets `:value` behind it. A value
    that an op only passes on (dropout) has the name of the one it is.
    """
    through = _passed_on(graph)
    names = {value: name for name, value in graph.inputs.items()}
    taken = set(names.values())
    for output in graph.outputs:
        value = through.get(output.value, output.value)
        if not output.training and value not in names and output.name not in taken:
            names[value] = output.name
            taken.add(output.name)
    for index in sorted(graph.inference):
        node = graph.nodes[index]
        own_place = "" in node.op.weights(graph.site(node))
        for value in node.outputs:
            if value in names or value in through:
                continue
            name = graph.value_name(value)
            while name in taken or (own_place and name == node.path):
                name += ":value"
            names[value] = name
            taken.add(name)
    names.update({value: names[source] for value, source in through.items()})
    return names


def _passed_on(graph: Graph) -> Mapping[int, int]:
    """For each output of an op that inference leaves out, the value it is equal to."""
    through: dict[int, int] = {}
    for index in sorted(graph.inference):
        node = graph.nodes[index]
        if node.op.identity_at_inference:
            source = node.inputs[0]
            through[node.outputs[0]] = through.get(source, source)
    return through
