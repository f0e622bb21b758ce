"""The proof: it passes for models that are right, and says what is wrong with the others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.verify import Verification, VerificationFailure, verify
from cnnspec.ir import Graph
from cnnspec.ops.adaptive_max_pool import AdaptiveMaxPool1d
from cnnspec.ops.conv import Conv2d
from cnnspec.ops.max_pool import MaxPool1d
from cnnspec.ops.padding import ZeroPad1d
from cnnspec.tensor import Role, Tensor
from tests.backends.onnx_networks import Drop, Flat, Halves, Leaky, Sum, image, made, torch_of
from tests.ops.harness import Interpreted, Network, arrays


def network() -> Graph:
    """Five layers, one convolution used twice, two outputs."""
    wide = made(Conv2d, out_channels=4, kernel_size=3, padding=1)
    net = Network(image=image(4, 6, 6))
    first = net.add("first", wide, 0)
    second = net.add("second", wide, net.add("act", made(Leaky), first))
    again = net.add("again", wide, net.add("drop", made(Drop), second), share=0)
    halves = net.add("halves", made(Halves), again)
    net.output("flat", net.add("flat", made(Flat), net.add("sum", made(Sum), halves, halves + 1)))
    net.output("map", second)
    return net.graph()


def proved(model: onnx.ModelProto, graph: Graph, module: Interpreted) -> Verification:
    return verify(model.SerializeToString(), graph, module)


def right() -> tuple[Graph, Interpreted, onnx.ModelProto]:
    graph = network()
    module = torch_of(graph)
    return graph, module, to_model(graph, arrays(module))


def scale(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Change one weight of a model."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, name))


def test_a_right_model_passes_at_both_levels_and_batches() -> None:
    graph, module, model = right()
    result = proved(model, graph, module)
    assert result.close
    assert result.opset == 18
    assert [(each.output, each.batch, each.optimised) for each in result.comparisons] == [
        (output, batch, optimised)
        for optimised in (False, True)
        for batch in (1, 3)
        for output in ("flat", "map")
    ]
    assert result.worst.difference == max(each.difference for each in result.comparisons)


def test_a_fixed_batch_is_proved_at_that_size() -> None:
    graph = network()
    module = torch_of(graph)
    result = proved(to_model(graph, arrays(module), batch=2), graph, module)
    assert {each.batch for each in result.comparisons} == {2}


def test_modes_of_the_module_are_put_back() -> None:
    graph, module, model = right()
    module.train()
    module.get_submodule("drop").eval()
    proved(model, graph, module)
    assert module.training
    assert not module.get_submodule("drop").training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("weight", "culprit"), [("first.weight", "first"), ("second.bias", "second")]
)
def test_the_first_layer_that_differs_is_named(weight: str, culprit: str) -> None:
    graph, module, model = right()
    scale(model, weight, 1.01)
    with pytest.raises(VerificationFailure, match=f"`{culprit}`") as failure:
        proved(model, graph, module)
    assert failure.value.path == culprit


def test_one_use_of_a_shared_layer_is_told_from_the_other() -> None:
    graph, module, model = right()
    node = next(node for node in model.graph.node if node.name == "again")
    node.input[1] = "second.weight"
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.path == "again"
    assert "output `flat`" in failure.value.message


def test_a_small_difference_is_reported_and_not_refused() -> None:
    graph, module, model = right()
    scale(model, "second.weight", 1 + 5e-5)
    result = proved(model, graph, module)
    assert not result.close
    assert 1e-5 < result.worst.difference < 1e-4


def test_what_is_not_a_number_fails() -> None:
    graph, module, model = right()
    scale(model, "first.bias", float("nan"))
    with pytest.raises(VerificationFailure, match="`first`"):
        proved(model, graph, module)


def test_a_shape_that_is_not_the_analysed_one_fails() -> None:
    graph, module, model = right()
    node = next(node for node in model.graph.node if node.name == "first")
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.CopyFrom(helper.make_attribute("pads", [0, 0, 0, 0]))
    with pytest.raises(VerificationFailure, match="`first` is 4x6x6 in the analysis and 4x4x4"):
        proved(model, graph, module)


def test_what_is_no_valid_onnx_fails() -> None:
    graph, module, model = right()
    model.graph.node[0].op_type = "Convolute"
    with pytest.raises(VerificationFailure, match="not valid ONNX"):
        proved(model, graph, module)


# ------------------------------------------------------------------------- what the runtime refuses


def padded_pool() -> tuple[Graph, Interpreted, onnx.ModelProto]:
    """Zeros around a sequence, as wide as the windows of the pooling behind them."""
    net = Network(signal=Tensor((2, 5), (Role.CHANNEL, Role.LENGTH)))
    padded = net.add("block.pad", made(ZeroPad1d, padding=2), 0)
    net.output("highest", net.add("block.pool", made(MaxPool1d, kernel_size=2), padded))
    graph = net.graph()
    module = Interpreted(graph).eval()
    return graph, module, to_model(graph, arrays(module))


def test_what_the_runtime_does_not_load_fails_at_the_layer(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Zeros in the plain form go to the pooling, whose padding may not be as wide as a window."""
    graph, module, model = padded_pool()
    assert proved(model, graph, module).close
    pad = next(node for node in model.graph.node if node.op_type == "Pad")
    del pad.input[2:]
    sides = next(each for each in model.graph.initializer if each.name == pad.input[1])
    sides.CopyFrom(numpy_helper.from_array(np.array([0, 0, 2, 0, 0, 2]), sides.name))
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.message == (
        "ONNX Runtime refuses the model at `block.pool`, with optimisations: "
        "Pad should be smaller than kernel"
    )
    assert failure.value.path == "block.pool"
    assert capfd.readouterr().err == ""


def test_what_the_runtime_cannot_run_fails_at_the_layer() -> None:
    """An index beyond the axis is found when the model runs."""
    net = Network(signal=Tensor((2, 7), (Role.CHANNEL, Role.LENGTH)))
    act = net.add("act", made(Leaky), 0)
    pooled = net.add("pooled", made(AdaptiveMaxPool1d, output_size=4), act)
    net.output("last", net.add("last", made(Leaky), pooled))
    graph = net.graph()
    module = Interpreted(graph).eval()
    model = to_model(graph, arrays(module))
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    places = next(each for each in model.graph.initializer if each.name == gather.input[1])
    far = np.full(tuple(places.dims), 99)
    places.CopyFrom(numpy_helper.from_array(far, places.name))
    with pytest.raises(VerificationFailure, match="at `pooled`, without optimisations") as failure:
        proved(model, graph, module)
    assert failure.value.path == "pooled"
    assert "[ONNXRuntimeError]" not in failure.value.message
