"""Writing a model anew from another: names that are free, nodes by layer, tensors from arrays.

What is written where belongs to the precisions; this is about ONNX's form only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

__all__ = ["Names", "add_array", "attributes_of", "blank", "layer_of", "named_for", "writers"]


class Names:
    """Gives out tensor names that a model does not have yet."""

    def __init__(self, body: onnx.GraphProto) -> None:
        self._taken = {each.name for each in (*body.input, *body.initializer)}
        for node in body.node:
            self._taken.update(node.output)

    def new(self, wanted: str) -> str:
        """`wanted`, with `:2`, `:3` behind it where that is taken; it is taken from then on."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}:{number}"
        self._taken.add(name)
        return name


def layer_of(node: onnx.NodeProto) -> str:
    """The path of the layer that a node belongs to; its own name where it belongs to none."""
    name: str = node.name
    return name.partition("/")[0] or name


def writers(model: onnx.ModelProto) -> dict[str, str]:
    """The layer that writes each tensor, by name."""
    return {name: layer_of(node) for node in model.graph.node for name in node.output}


def named_for(layer: str, tensor: str) -> str:
    """The name of a new node of `layer` that writes `tensor`: it begins with the layer's path."""
    return tensor if tensor.partition("/")[0] == layer else f"{layer}/{tensor}"


def attributes_of(node: onnx.NodeProto) -> Mapping[str, object]:
    """The attributes of a node as Python values."""
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def blank(model: onnx.ModelProto) -> onnx.ModelProto:
    """What `model` says about itself, its inputs and its outputs, without nodes and weights."""
    result = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(result, field.name).extend(value)
        else:
            setattr(result, field.name, value)
    body = model.graph
    result.graph.name = body.name
    result.graph.doc_string = body.doc_string
    result.graph.input.extend(body.input)
    result.graph.output.extend(body.output)
    return result


def add_array(body: onnx.GraphProto, name: str, array: NDArray[np.generic]) -> None:
    """Put an initializer into `body`; the array is copied once."""
    tensor = body.initializer.add()
    tensor.name = name
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor.dims.extend(array.shape)
    tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
