"""Random networks as ONNX: strict shape inference and ONNX Runtime against torch and the analysis.

Weights and running statistics are random, norms are folded. Where sizes can stay open the file is
run at another size too. What float32 cannot tell in torch itself is passed over.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnxruntime import GraphOptimizationLevel

from cnnspec.api import Network
from cnnspec.backends.onnx.build import Options, lower
from cnnspec.backends.onnx.dynamic import free_sizes
from cnnspec.backends.onnx.folding import fold
from cnnspec.backends.onnx.program import program_of
from cnnspec.backends.onnx.session import session
from cnnspec.backends.torch import named_outputs
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from tests.fuzzing.comparison import module_of
from tests.ops.harness import arrays

__all__ = ["export_differences"]

_TOLERANCE = 2e-3
"""Relative to the largest element: random networks divide small numbers by small numbers."""

_LEVELS = (GraphOptimizationLevel.ORT_DISABLE_ALL, GraphOptimizationLevel.ORT_ENABLE_ALL)
_BATCH = 2

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.floating[Any]]]"
Shapes: TypeAlias = "Mapping[str, tuple[int, ...]]"


def export_differences(network: Network, opset: int, seed: int = 0) -> Iterator[str]:
    """Everything in which the ONNX model and torch differ; nothing if all is well."""
    graph = network.graph
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument; the question is what it computes.
        warnings.simplefilter("ignore")
        module = module_of(graph, "cpu").eval()
        _randomise(graph, module)
        program = fold(program_of(graph, arrays(module)))
        model = lower(program, Options(opset)).with_arrays()
        onnx.checker.check_model(model, full_check=True)
        usual = {name: graph.tensors[value].shape for name, value in graph.inputs.items()}
        yield from _shaped(graph, model)
        yield from _run(module, graph, model, usual)
        try:
            free = free_sizes(graph, opset)
        except EnvironmentFailure:
            return
        model = lower(program, Options(opset, free=free.values)).with_arrays()
        onnx.checker.check_model(model, full_check=True)
        for shapes in (usual, *free.others):
            yield from (f"open: {what}" for what in _run(module, graph, model, shapes))


def _randomise(graph: Graph, module: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-0.5, 0.7)
        buffers = dict(module.named_buffers())
        for node in graph.nodes:
            for name, buffer in node.op.buffers(graph.site(node)).items():
                found = buffers.get(f"{node.path}.{name}")
                if found is None or buffer.values is not None or buffer.dtype != "float32":
                    continue
                # Means start at 0 and variances at 1.
                found.uniform_(-0.5, 0.5).add_(2 * buffer.fill)


def _shaped(graph: Graph, model: onnx.ModelProto) -> Iterator[str]:
    """Sizes of outputs by shape inference that are not those of the analysis."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    wanted = [output for output in graph.outputs if not output.training]
    for output, value in zip(wanted, inferred.graph.output, strict=True):
        promised = graph.tensors[output.value].shape
        dims = value.type.tensor_type.shape.dim[-len(promised) :] if promised else ()
        found = [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
        if any(a is not None and a != b for a, b in zip(found, promised, strict=True)):
            yield f"output `{output.name}` is {promised}, {found} by shape inference"


def _run(
    module: torch.nn.Module, graph: Graph, model: onnx.ModelProto, shapes: Shapes
) -> Iterator[str]:
    """Differences of values at given shapes of the inputs."""
    inputs = {name: torch.rand(_BATCH, *shape) for name, shape in shapes.items()}
    expected = _outputs(module, graph, inputs)
    for level in _LEVELS:
        runtime = session(model.SerializeToString(), optimise=level, threads=1)
        given = {each.name: inputs[each.name].numpy() for each in runtime.get_inputs()}
        found = runtime.run(None, given)
        for (name, wanted), result in zip(expected.items(), found, strict=True):
            if result.shape != wanted.shape:
                yield f"output `{name}` is {wanted.shape} in torch, {result.shape} in ONNX"
                continue
            off = _apart(wanted, result)
            if off <= _TOLERANCE:
                continue
            exact = {key: value.double() for key, value in inputs.items()}
            precise = _outputs(copy.deepcopy(module).double(), graph, exact)[name]
            if _apart(precise, wanted) <= _TOLERANCE / 3:
                yield f"output `{name}` differs by {off:.1e} of its largest element"


def _outputs(
    module: torch.nn.Module, graph: Graph, inputs: Mapping[str, torch.Tensor]
) -> dict[str, Array]:
    with torch.no_grad():
        found = named_outputs(graph, module(*inputs.values()), training=False)
    return {name: tensor.numpy() for name, tensor in found.items()}


def _apart(wanted: Array, found: Array) -> float:
    """The largest difference, of the largest element; 0 if that overflowed."""
    if not np.isfinite(wanted).all():
        return 0.0
    return float(np.abs(wanted - found).max()) / max(1.0, float(np.abs(wanted).max()))
