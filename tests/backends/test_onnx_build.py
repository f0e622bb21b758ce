"""Models as written: names, weights, constants and sizes of the ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from cnnspec.backends.onnx.build import BATCH, Options, lower, tensor_names, to_model
from cnnspec.backends.onnx.program import program_of
from cnnspec.backends.onnx.session import newest_opset, session
from cnnspec.ir import Graph
from cnnspec.lower import Dim, In, Node, Rest, TorchCode, node, shape
from cnnspec.op import Site
from cnnspec.ops.conv import Conv2d
from cnnspec.ops.fixed_conv import FixedConv2d
from cnnspec.ops.masked_conv import MaskedConv2d
from tests.backends.onnx_networks import (
    Bare,
    Dense,
    Doubled,
    Drop,
    Flat,
    Halves,
    Joined,
    Leaky,
    Plain,
    Plus,
    Same,
    Sum,
    Swapped,
    image,
    made,
    torch_of,
)
from tests.ops.harness import Network, arrays, sample


def convolution(channels: int) -> Conv2d:
    op = made(Conv2d, out_channels=channels, kernel_size=3, padding=1)
    assert isinstance(op, Conv2d)
    return op


def shared() -> Graph:
    """Two convolutions with the same weights, dropout between and behind them."""
    net = Network(image=image(4, 6, 6))
    first = net.add("body.0", convolution(4), 0)
    dropped = net.add("body.1", made(Drop), first)
    second = net.add("body.2", convolution(4), dropped, share=0)
    net.output("features", net.add("body.3", made(Drop), second))
    return net.graph()


def trained_only() -> Graph:
    """A second head that only training has, and a node that nothing reads."""
    net = Network(image=image(3, 6, 6))
    body = net.add("body", convolution(4), 0)
    net.add("unread", convolution(2), body)
    net.output("aux", net.add("aux_head", convolution(2), body), training=True)
    net.output("main", net.add("head", convolution(2), body))
    return net.graph()


def sizes() -> Graph:
    """Reshapes that need the batch, an op of two outputs, and split weights."""
    net = Network(image=image(4, 3, 2))
    low = net.add("halves", made(Halves), 0)
    left = net.add("left", made(Flat), low)
    right = net.add("right", made(Flat), low + 1)
    rows = net.add("rows", made(Swapped), 0)
    net.output(
        "dense", net.add("dense", made(Dense, features=3), net.add("sum", made(Sum), left, right))
    )
    net.output("rows", rows)
    return net.graph()


def unbatched() -> Graph:
    """Parameters that are added, joined and scaled."""
    net = Network(image=image(4, 3, 2))
    token = net.add("token", made(Bare, shape=[2, 3, 2]))
    scaled = net.add("scaled", made(Doubled, shape=[4, 3, 2]))
    net.output("joined", net.add("join", made(Joined), net.add("sum", made(Sum), 0, scaled), token))
    return net.graph()


def same_values() -> Graph:
    """Outputs that are an input, the same value twice, an identity, and names that are taken."""
    net = Network(image=image(4, 3, 2), conv=image(4, 3, 2))
    conv = net.add("conv", convolution(4), 0)
    leaky = net.add("leaky", made(Leaky), conv)
    same = net.add("same", made(Same), leaky)
    net.output("given", 1)
    net.output("first", leaky)
    net.output("second", leaky)
    net.output("third", same)
    net.output("leaky", conv)
    net.output("plus", net.add("plus", made(Plus), net.add("again", made(Same), same)))
    net.output("image", 0)
    return net.graph()


GRAPHS = pytest.mark.parametrize(
    "make", [shared, trained_only, sizes, unbatched, same_values], ids=lambda make: make.__name__
)


def built(graph: Graph, **options: object) -> onnx.ModelProto:
    return to_model(graph, arrays(torch_of(graph)), **options)  # type: ignore[arg-type]


@GRAPHS
@pytest.mark.parametrize("opset", [13, 18, 0])
@pytest.mark.parametrize("fixed", [None, 2])
def test_computes_what_torch_does(make: Callable[[], Graph], opset: int, fixed: int | None) -> None:
    graph = make()
    module = torch_of(graph).eval()
    model = to_model(graph, arrays(module), opset=opset or newest_opset(), batch=fixed or "dynamic")
    onnx.checker.check_model(model, full_check=True)
    runtime = session(
        model.SerializeToString(),
        optimise=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        threads=1,
    )
    for batch in (1, 3) if fixed is None else (fixed,):
        inputs = sample([graph.tensors[value] for value in graph.inputs.values()], batch)
        with torch.no_grad():
            expected = module(*inputs)
        feeds = dict(zip(graph.inputs, (value.numpy() for value in inputs), strict=True))
        for ours, theirs in zip(runtime.run(None, feeds), expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


@GRAPHS
def test_nothing_in_a_model_is_unused_or_named_twice(make: Callable[[], Graph]) -> None:
    body = built(make()).graph
    read = {name for node in body.node for name in node.input}
    written = [name for node in body.node for name in node.output]
    outputs = {output.name for output in body.output}
    assert {tensor.name for tensor in body.initializer} <= read
    assert set(written) <= read | outputs
    given = [value.name for value in (*body.input, *body.initializer)]
    assert max(Counter(written + given).values()) == 1
    assert max(Counter(node.name for node in body.node).values()) == 1


@GRAPHS
def test_bytes_are_the_same_every_time(make: Callable[[], Graph]) -> None:
    first, second = (built(make()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_shared_weights_are_stored_once_and_dropout_is_gone() -> None:
    body = built(shared()).graph
    assert [(node.op_type, node.name) for node in body.node] == [
        ("Conv", "body.0"),
        ("Conv", "body.2"),
    ]
    assert [list(node.input) for node in body.node] == [
        ["image", "body.0.weight", "body.0.bias"],
        ["body.0", "body.0.weight", "body.0.bias"],
    ]
    assert [tensor.name for tensor in body.initializer] == ["body.0.weight", "body.0.bias"]
    assert [output.name for output in body.output] == ["features"]


def test_what_only_training_needs_is_left_out() -> None:
    body = built(trained_only()).graph
    assert [node.name for node in body.node] == ["body", "head"]
    assert [output.name for output in body.output] == ["main"]


def test_equal_constants_are_stored_once() -> None:
    net = Network(x=image(2, 2, 2))
    net.output("y", net.add("b", made(Plus), net.add("a", made(Plus), 0)))
    body = built(net.graph()).graph
    assert [numpy_helper.to_array(tensor).tolist() for tensor in body.initializer] == [1.0]
    assert [node.name for node in body.node] == ["a/once", "a/twice", "a", "b/once", "b/twice", "b"]


def test_a_dynamic_batch_is_read_once_and_a_fixed_one_never() -> None:
    dynamic = built(sizes()).graph
    kinds = Counter(node.op_type for node in dynamic.node)
    assert (kinds["Shape"], kinds["Gather"]) == (1, 1)
    assert dynamic.input[0].type.tensor_type.shape.dim[0].dim_param == BATCH
    assert dynamic.output[0].type.tensor_type.shape.dim[0].dim_param == BATCH
    fixed = built(sizes(), batch=2).graph
    assert not {"Shape", "Gather"} & {node.op_type for node in fixed.node}
    assert fixed.output[0].type.tensor_type.shape.dim[0].dim_value == 2


def test_weights_are_cut_and_turned_before_they_are_stored() -> None:
    graph = sizes()
    module = torch_of(graph)
    body = to_model(graph, arrays(module)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    weight = arrays(module)["dense.weight"]
    np.testing.assert_array_equal(stored["dense.weight:rows_0_3:permute_1_0"], weight[:3].T)
    np.testing.assert_array_equal(stored["dense.weight:rows_3_6:permute_1_0"], weight[3:].T)
    assert "Transpose" not in {node.op_type for node in body.node}


def test_a_parameter_is_its_weight_and_a_changed_one_has_another_name() -> None:
    graph = unbatched()
    module = torch_of(graph)
    body = to_model(graph, arrays(module)).graph
    assert "Mul" not in {node.op_type for node in body.node}
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in body.initializer}
    assert {"token", "scaled:value"} <= found.keys()
    np.testing.assert_array_equal(found["scaled:value"], 2 * arrays(module)["scaled"])


def test_an_output_without_a_batch_is_declared_as_it_is() -> None:
    net = Network(x=image(2, 2, 2))
    net.output("y", net.add("leaky", made(Leaky), 0))
    net.output("token", net.add("token", made(Bare, shape=[5])))
    declared = built(net.graph()).graph.output[1].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in declared] == [1, 5]


def test_names_that_are_taken_get_a_suffix() -> None:
    graph = same_values()
    assert list(tensor_names(graph).values())[:3] == ["image", "conv", "first"]
    assert [output.name for output in built(graph).graph.output] == [
        "given",
        "first",
        "second",
        "third",
        "leaky",
        "plus",
        "image",
    ]


def test_a_whole_number_may_be_given_for_a_float_attribute() -> None:
    net = Network(x=image(2, 2, 2))
    net.output("y", net.add("leaky", made(Leaky), 0))
    attribute = built(net.graph()).graph.node[0].attribute[0]
    assert (attribute.type, attribute.f) == (onnx.AttributeProto.FLOAT, 2.0)


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (15, 8), (18, 8), (19, 9), (21, 10)])
def test_the_ir_version_goes_with_the_opset(opset: int, ir: int) -> None:
    model = built(shared(), opset=opset)
    assert (model.opset_import[0].version, model.ir_version) == (opset, ir)


# ------------------------------------------------------------------------------------ constants


def test_what_follows_from_weights_alone_is_stored() -> None:
    """Kernels repeated for the channels, links written into a dense kernel: no node makes them."""
    net = Network(x=image(3, 8, 8))
    fixed = net.add("fixed", made(FixedConv2d, kernel=[[[1, 2], [3, -1]]] * 2), 0)
    table = [[0], [1, 2]]
    net.output("y", net.add("masked", made(MaskedConv2d, table=table, kernel_size=3), fixed))
    model = built(net.graph())
    assert [node.op_type for node in model.graph.node] == ["Conv", "Conv"]
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    assert stored == {
        "fixed/weight": [6, 1, 2, 2],
        "masked/dense": [2, 6, 3, 3],
        "masked.bias": [2],
    }


def test_what_would_make_the_file_large_is_left_to_the_runtime() -> None:
    """A kernel of 16 bytes: for 70,000 channels it would take more than a megabyte."""
    for channels, kinds in ((7, ["Conv"]), (70_000, ["Tile", "Conv"])):
        net = Network(x=image(channels, 2, 2))
        net.output("y", net.add("fixed", made(FixedConv2d, kernel=[[1, 2], [3, -1]]), 0))
        assert [node.op_type for node in built(net.graph()).graph.node] == kinds


def test_a_constant_that_is_an_output_is_written_by_a_node() -> None:
    net = Network(x=image(2, 2, 2))
    net.output("y", net.add("leaky", made(Leaky), 0))
    net.output("scaled", net.add("doubled", made(Doubled, shape=[5])))
    net.output("token", net.add("bare", made(Bare, shape=[5])))
    model = built(net.graph())
    assert [(node.op_type, node.output[0]) for node in model.graph.node] == [
        ("LeakyRelu", "y"),
        ("Mul", "scaled"),
        ("Identity", "token"),
    ]


def test_an_output_may_have_the_name_of_an_input() -> None:
    net = Network(image=image(2, 5, 5))
    net.output("image", net.add("leaky", made(Leaky), 0))
    body = built(net.graph()).graph
    assert [(node.op_type, list(node.output)) for node in body.node] == [
        ("LeakyRelu", ["image:output"])
    ]
    assert [output.name for output in body.output] == ["image:output"]


def test_an_output_takes_its_name_through_what_only_passes_it_on() -> None:
    net = Network(x=image(2, 2, 2))
    same = net.add("b", made(Same), net.add("a", made(Same), net.add("leaky", made(Leaky), 0)))
    net.output("y", net.add("drop", made(Drop), same))
    body = built(net.graph()).graph
    assert [(node.op_type, list(node.output)) for node in body.node] == [("LeakyRelu", ["y"])]


# ------------------------------------------------------------------------------------ free sizes


class Whole(Plain):
    """Gives a tensor the shape it has, read when the model runs."""

    def torch(self, at: Site) -> TorchCode:
        """The input."""
        return In(0)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape."""
        return (node("Reshape", In(0), shape(Dim(In(0), 0), Rest(In(0), 1))),)


@pytest.mark.parametrize("batch", ["dynamic", 2])
def test_sizes_that_are_free_are_read_when_the_model_runs(batch: Any) -> None:
    net = Network(x=image(3, 6, 5))
    net.output("y", net.add("whole", made(Whole), net.add("leaky", made(Leaky), 0)))
    program = program_of(net.graph(), {})
    free = {0: (3, "height", 5), 1: (3, None, 5), 2: (3, None, 5)}
    model = lower(program, Options(batch=batch, free=free)).with_arrays()
    onnx.checker.check_model(model, full_check=True)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in dims[1:]] == [("", 3), ("height", 0), ("", 5)]
    runtime = onnxruntime.InferenceSession(model.SerializeToString())
    for height in (6, 9):
        x = np.ones((2, 3, height, 5), np.float32)
        assert runtime.run(None, {"x": x})[0].shape == x.shape
    fixed = lower(program, Options(batch=2))
    assert {node.op_type for node in fixed.model.graph.node} == {"LeakyRelu", "Reshape"}
