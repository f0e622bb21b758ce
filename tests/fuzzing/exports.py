"""Random networks as ONNX: strict shape inference and ONNX Runtime against torch and the analysis.

Besides the proof that an export brings along, each model is run here once more, on its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch

from cnnspec.api import Network
from cnnspec.backends.onnx import to_model
from cnnspec.backends.torch import named_outputs
from tests.fuzzing.comparison import module_of
from tests.ops.harness import arrays

__all__ = ["export_differences"]

_TOLERANCE = 2e-3
"""Relative to the largest element: random networks divide small numbers by small numbers."""


def export_differences(network: Network, opset: int, seed: int = 0) -> Iterator[str]:
    """Everything in which the ONNX model and torch differ; nothing if all is well."""
    graph = network.graph
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = module_of(graph, "cpu").eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.uniform_(-0.5, 0.7)
        model = to_model(graph, arrays(module), opset=opset)
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        shapes = {
            value.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
            for value in inferred.graph.output
            for dims in [value.type.tensor_type.shape.dim]
        }
        inputs = [torch.rand(2, *graph.tensors[value].shape) for value in graph.inputs.values()]
        with torch.no_grad():
            expected = named_outputs(graph, module(*inputs), training=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            # It makes padding with zeros that of a max pooling, which is with the least number.
            disabled_optimizers=["Pad_Fusion"],
        )
    given = {
        declared.name: tensor.numpy()
        for declared, tensor in zip(model.graph.input, inputs, strict=True)
    }
    given = {each.name: given[each.name] for each in session.get_inputs()}
    found = session.run(None, given)
    for (name, tensor), declared, result in zip(
        expected.items(), model.graph.output, found, strict=True
    ):
        inferred_shape = shapes[declared.name][1:]
        promised = tuple(tensor.shape[1:])
        if any(a is not None and a != b for a, b in zip(inferred_shape, promised, strict=False)):
            yield f"output `{name}` is {promised} in torch, {inferred_shape} by shape inference"
        if result.shape != tuple(tensor.shape):
            yield f"output `{name}` is {tuple(tensor.shape)} in torch, {result.shape} in ONNX"
            continue
        yield from _values(name, tensor.numpy(), result)


Array: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"


def _values(name: str, wanted: Array, found: Array) -> Iterator[str]:
    if not np.isfinite(wanted).all():
        return  # overflown: there is nothing to compare
    scale = max(1.0, float(np.abs(wanted).max()))
    off = float(np.abs(wanted - found).max()) / scale
    if not off <= _TOLERANCE:
        yield f"output `{name}` differs by {off:.1e} of its largest element"
