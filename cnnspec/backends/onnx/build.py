"""Graph and arrays to an ONNX model: direct lowering, no tracing.

The same graph, arrays and options give the same bytes. torch and ONNX Runtime may not enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import onnx
from onnx import TensorProto, helper, shape_inference

from cnnspec.backends.onnx.writer import Array, Place, Writer
from cnnspec.ir import Graph, Node
from cnnspec.lower import In, Out, Own
from cnnspec.lower import Node as OnnxNode
from cnnspec.tensor import Tensor

__all__ = ["BATCH", "OLDEST_OPSET", "state_key", "tensor_names", "to_model"]

BATCH = "batch"
"""Name of the dynamic batch axis."""

OLDEST_OPSET = 13
"""The oldest opset the operations lower to."""


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


def to_model(
    graph: Graph,
    arrays: Mapping[str, Array],
    *,
    opset: int = 18,
    batch: int | Literal["dynamic"] = "dynamic",
) -> onnx.ModelProto:
    """The model that computes the inference outputs of `graph`.

    `arrays` holds weights and buffers by state-dict key, in torch's shapes. A dynamic batch axis is
    named `batch`. Outputs that only training needs are left out, and so is everything that no
    output depends on.
    """
    names = dict(tensor_names(graph))
    size = next(iter(graph.inputs), "") if batch == "dynamic" else batch
    writer = Writer(arrays, frozenset(names.values()), opset, size)
    final = {output.name for output in graph.outputs if not output.training}
    for index in sorted(graph.inference):
        node = graph.nodes[index]
        if node.op.identity_at_inference:
            names[node.outputs[0]] = names[node.inputs[0]]
            continue
        _lower(graph, node, writer, names, final, opset)

    opsets = [helper.make_opsetid("", opset)]
    model = onnx.ModelProto(
        ir_version=helper.find_min_ir_version_for(opsets),
        opset_import=opsets,
        producer_name="cnnspec",
    )
    body = model.graph
    body.name = graph.name
    for name, value in graph.inputs.items():
        body.input.append(_declare(name, graph.tensors[value], batch))
    for output in graph.outputs:
        if output.training:
            continue
        name = output.name
        if names[output.value] != name:
            if name in graph.inputs:
                name += ":output"
            writer.identity(names[output.value], name)
        body.output.append(_declare(name, graph.tensors[output.value], batch))
    writer.finish([output.name for output in body.output], body)
    if not all(graph.tensors[each.value].batched for each in graph.outputs if not each.training):
        _settle(body, shape_inference.infer_shapes(model).graph)
    return model


def _lower(
    graph: Graph,
    node: Node,
    writer: Writer,
    names: dict[int, str],
    final: set[str],
    opset: int,
) -> None:
    """Write one op, or only note the name where the op is nothing but another name."""
    site = graph.site(node)
    written = node.op.onnx(site, opset)
    match written:
        case (OnnxNode("Identity", (In(number),), (Out(0),)),):
            source = names[node.inputs[number]]
        case (OnnxNode("Identity", (Own(name) as own,), (Out(0),)),):
            source = writer.initializer(own, state_key(graph, node, name))
        case _:
            source = ""
    if source and names[node.outputs[0]] not in final:
        names[node.outputs[0]] = source
        return
    writer.op(
        written,
        Place(
            node.path,
            tuple(names[value] for value in node.inputs),
            site.inputs,
            tuple(names[value] for value in node.outputs),
            lambda name: state_key(graph, node, name),
        ),
    )


def _declare(name: str, tensor: Tensor, batch: int | str) -> onnx.ValueInfoProto:
    leading = BATCH if batch == "dynamic" else batch
    sizes = [leading, *tensor.shape] if tensor.batched else None
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


def _settle(body: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Give outputs without a batch the shape they turn out to have."""
    for output, found in zip(body.output, inferred.output, strict=True):
        output.CopyFrom(found)
