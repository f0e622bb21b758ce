"""Constant padding in front of other layers, in ONNX Runtime with all its rewriting.

Its rule `Pad_Fusion` once turned zeros into the padding of the pooling behind them: minus infinity
for a maximum, and a model that did not load where they were as wide as a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from cnnspec.backends.onnx.build import OLDEST_OPSET, to_model
from cnnspec.backends.onnx.session import newest_opset, session
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.ops.harness import Interpreted, Network, alone, arrays, randomise

PADDINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ZeroPad{}d", {"padding": 1}),
    ("ZeroPad{}d", {"padding": 2}),
    ("ConstantPad{}d", {"padding": 2, "value": 0.0}),
    ("ConstantPad{}d", {"padding": 1, "value": -0.5}),
)

LAYERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("MaxPool{}d", {"kernel_size": 2}),
    ("MaxPool{}d", {"kernel_size": 3, "padding": 1, "stride": 2}),
    ("AvgPool{}d", {"kernel_size": 2}),
    ("AvgPool{}d", {"kernel_size": 3, "padding": 1, "count_include_pad": False}),
    ("AvgPool{}d", {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ("AdaptiveMaxPool{}d", {"output_size": 3}),
    ("AdaptiveAvgPool{}d", {"output_size": 3}),
    ("Conv{}d", {"out_channels": 3, "kernel_size": 3, "padding": 1}),
)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, 0], ids=["oldest", "default", "newest"])
def test_constants_stay_what_they_are(opset: int, axes: int) -> None:
    shape = (2, 5, 6, 5)[: axes + 1]
    for padding, layer in ((padding, layer) for padding in PADDINGS for layer in LAYERS):
        ours, theirs = both(shape, axes, (padding, layer), opset or newest_opset())
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=f"{padding} {layer}")


def both(
    shape: tuple[int, ...], axes: int, layers: Sequence[tuple[str, dict[str, Any]]], opset: int
) -> tuple[Any, Any]:
    """What a chain of layers gives for negative inputs, in ONNX Runtime and in torch."""
    roles = default_roles(len(shape))
    assert roles is not None
    net = Network(x=Tensor(shape, roles))
    value = 0
    for number, (name, arguments) in enumerate(layers):
        value = net.add(f"layer{number}", bind(registry()[name.format(axes)], arguments), value)
    net.output("y", value)
    module = Interpreted(net.graph()).eval()
    randomise(module)
    x = -1 - torch.rand(2, *shape, generator=torch.Generator().manual_seed(axes))
    model = to_model(module.graph, arrays(module), opset=opset).SerializeToString()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    (ours,) = session(model, optimise=level, threads=1).run(None, {"x": x.numpy()})
    with torch.no_grad():
        (theirs,) = module(x)
    return ours, theirs.numpy()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Conv2d", {"out_channels": 3, "kernel_size": 3, "padding": [[0, 1], [2, 0]]}),
        ("Conv2d", {"out_channels": 3, "kernel_size": 4, "padding": "same"}),
        ("BlurPool2d", {"padding_mode": "zeros"}),
    ],
)
def test_zeros_of_convolutions_are_their_own(name: str, arguments: dict[str, Any]) -> None:
    """No Pad, which would be an extra pass over the input."""
    roles = default_roles(3)
    assert roles is not None
    graph = alone(bind(registry()[name], arguments), (Tensor((2, 6, 7), roles),))
    module = Interpreted(graph)
    assert [node.op_type for node in to_model(graph, arrays(module)).graph.node] == ["Conv"]
