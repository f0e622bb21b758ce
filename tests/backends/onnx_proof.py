"""What a file of a whole network has to be, by rules of its own and by running it.

Weights and running statistics are random: fresh statistics hide mistakes of folding. What folds is
found here from the graph alone, in its simplest case, not by what folds it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnxruntime import GraphOptimizationLevel
from torch import nn

from cnnspec.backends.onnx.build import Options, lower
from cnnspec.backends.onnx.dynamic import free_sizes
from cnnspec.backends.onnx.folding import fold
from cnnspec.backends.onnx.program import Array, Program, program_of
from cnnspec.backends.onnx.session import session
from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph, Node
from cnnspec.report import Report
from tests.ops.harness import arrays, randomise, sample

__all__ = ["CLOSE", "LEVELS", "Proof", "prove"]

CLOSE = 1e-5
"""Largest difference from torch, of an output's largest element."""

LEVELS = (
    GraphOptimizationLevel.ORT_DISABLE_ALL,
    GraphOptimizationLevel.ORT_ENABLE_BASIC,
    GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    GraphOptimizationLevel.ORT_ENABLE_ALL,
)

_GONE = ("Dropout", "Identity")


class Proof(NamedTuple):
    """Figures of one file.

    `norms` are those of the network and those left in the file, `free` are the sizes that can stay
    open, or why none can, and `open_difference` what a file with them differs by at another size.
    """

    nodes: int
    initializers: int
    size: int
    norms: tuple[int, int]
    difference: float
    free: str
    open_difference: float | None


def prove(
    report: Report,
    *,
    opset: int = 18,
    opsets: Sequence[int] = (),
    levels: Sequence[GraphOptimizationLevel] = LEVELS,
    batches: Sequence[int] = (1, 2),
    others: int = 1,
) -> Proof:
    """Export the network of a report twice and run it; AssertionError for what is not as it should.

    It is run at `opset`, at every level and batch, and loaded at the other opsets. With open sizes
    it is run at so many `others`.
    """
    graph = report.graph
    module = to_torch(graph).eval()
    randomise(module, _fixed(graph))
    program = fold(program_of(graph, arrays(module)))
    model, data = _file(program, Options(opset))
    again = fold(program_of(graph, arrays(module)))
    assert sha256(data).digest() == sha256(_file(again, Options(opset))[1]).digest()

    found = [node.op_type for node in model.graph.node]
    left = found.count("BatchNormalization")
    assert not set(found) & set(_GONE), "the file has layers that do nothing"
    norms = [node for node in _layers(graph) if node.op.channel_affine(graph.site(node))]
    foldable = [node for node in norms if _follows_a_linear_map(graph, node)]
    assert left <= len(norms) - len(foldable), "norms are left that fold"
    gone = {folded.path for folded in program.folded}
    assert {node.path for node in foldable} <= gone
    assert left == len(norms) - len(gone)
    sizes = {tensor.name: prod(tensor.dims) for tensor in model.graph.initializer}
    stored = sum(size for name, size in sizes.items() if "/" not in name)
    assert stored == _expected_elements(report, program, arrays(module), sizes.keys())

    difference = 0.0
    for level in levels:
        difference = max(difference, _difference(data, level, graph, module, {}, batches))
    for other in opsets:
        session(_file(program, Options(other))[1], optimise=LEVELS[-1])
    free, apart = _open(graph, program, module, opset, others)
    nodes, initializers = len(model.graph.node), len(model.graph.initializer)
    norm_counts = len(norms), left
    return Proof(nodes, initializers, len(data), norm_counts, difference, free, apart)


def _fixed(graph: Graph) -> frozenset[str]:
    """Buffers whose values are part of the operation."""
    return frozenset(
        f"{node.path}.{name}"
        for node in graph.nodes
        for name, buffer in node.op.buffers(graph.site(node)).items()
        if buffer.values is not None or not buffer.persistent
    )


def _file(program: Program, options: Options) -> tuple[onnx.ModelProto, bytes]:
    model = lower(program, options).with_arrays()
    return model, model.SerializeToString()


def _layers(graph: Graph) -> list[Node]:
    return [graph.nodes[index] for index in sorted(graph.inference)]


def _follows_a_linear_map(graph: Graph, norm: Node) -> bool:
    """Whether the input is a convolution or the like that nothing else reads at inference."""
    (value,) = norm.inputs
    producer = graph.producers[value]
    if producer < 0 or any(output.value == value for output in graph.outputs):
        return False
    before = graph.nodes[producer]
    readers = [index for index in graph.consumers[value] if index in graph.inference]
    return before.op.linear_map(graph.site(before)) is not None and readers == [norm.index]


def _expected_elements(
    report: Report, program: Program, given: Mapping[str, Array], stored: Collection[str]
) -> int:
    """Parameters and buffers of inference without those of folded norms, and what these made.

    Numbers of batches, of which there is one in every norm, are not stored, nor is what only went
    into a constant (`PATH/NAME`).
    """
    graph, totals = report.graph, report.totals
    expected = totals.params + totals.buffers
    for node in _layers(graph):
        if node.share is None:
            buffers = node.op.buffers(graph.site(node)).values()
            expected -= sum(b.persistent and not b.shape for b in buffers)
    for folded in program.folded:
        layer = report[folded.path]
        expected -= layer.params + max(0, layer.buffers - 1)
    derived = {name.partition("/")[0] for name in stored}
    for step in program.steps:
        if step.path in derived:
            passing = step.op.buffers(program.site(step))
            spent = [
                key
                for name, key in step.keys.items()
                if key not in stored and (name not in passing or passing[name].persistent)
            ]
            expected -= sum(given[key].size for key in spent)
    used = {key for step in program.steps for key in step.keys.values()}
    return expected + sum(program.arrays[key].size for key in used - given.keys())


def _difference(
    data: bytes,
    level: GraphOptimizationLevel,
    graph: Graph,
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    batches: Sequence[int],
) -> float:
    """The largest difference of any output from torch's, of its largest element."""
    runtime = session(data, optimise=level)
    worst = 0.0
    for batch in batches:
        tensors = [
            graph.tensors[value].with_shape(*shapes.get(name, graph.tensors[value].shape))
            for name, value in graph.inputs.items()
        ]
        inputs = sample(tensors, batch, seed=batch)
        with torch.no_grad():
            wanted = named_outputs(graph, module(*inputs), training=False)
        feeds = dict(zip(graph.inputs, (each.numpy() for each in inputs), strict=True))
        for ours, theirs in zip(runtime.run(None, feeds), wanted.values(), strict=True):
            assert ours.shape == tuple(theirs.shape)
            scale = float(theirs.abs().max())
            assert np.isfinite(ours).all()
            worst = max(worst, float(np.abs(ours - theirs.numpy()).max()) / scale)
    assert worst <= CLOSE, f"{worst:.1e} of the largest element, {level.name}"
    return worst


def _open(
    graph: Graph, program: Program, module: nn.Module, opset: int, others: int
) -> tuple[str, float | None]:
    """Sizes that can stay open, and the difference from torch at other sizes."""
    try:
        free = free_sizes(graph, opset)
    except EnvironmentFailure as refusal:
        return refusal.message.partition(": ")[2], None
    data = _file(program, Options(opset, free=free.values))[1]
    worst = 0.0
    for shapes in free.others[:others]:
        apart = _difference(data, LEVELS[-1], graph, module, shapes, (1,))
        worst = max(worst, apart)
    return ", ".join(free.names.values()), worst
