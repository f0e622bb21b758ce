"""Which element types the tensors of a model have, and which an operator takes.

Read from ONNX's operator schemas, so that no table of operators has to follow the standard. Numbers
and precisions may not enter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
from onnx import TensorProto, defs

__all__ = ["computed", "element_types", "opset_of", "takes", "variables"]

_BY_NAME = {
    f"tensor({name.lower()})": number
    for name, number in TensorProto.DataType.items()
    if name != "UNDEFINED"
}


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model asks for."""
    return next(int(each.version) for each in model.opset_import if each.domain in ("", "ai.onnx"))


def _formal(
    parameters: Sequence[defs.OpSchema.FormalParameter], count: int
) -> Iterator[defs.OpSchema.FormalParameter]:
    """The parameter that each of `count` arguments is for; the last one may take many."""
    for position in range(count):
        yield parameters[min(position, len(parameters) - 1)]


def variables(node: onnx.NodeProto, opset: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The type variable, or type, that the schema gives each input and each output of `node`."""
    schema = defs.get_schema(node.op_type, opset, node.domain)
    return (
        tuple(each.type_str for each in _formal(schema.inputs, len(node.input))),
        tuple(each.type_str for each in _formal(schema.outputs, len(node.output))),
    )


def takes(node: onnx.NodeProto, opset: int, variable: str, element: int) -> bool:
    """True if `variable` of the node's operator may stand for tensors of `element`."""
    return element in _allowed(node, opset, variable)


def _allowed(node: onnx.NodeProto, opset: int, variable: str) -> tuple[int, ...]:
    if variable in _BY_NAME:
        return (_BY_NAME[variable],)
    schema = defs.get_schema(node.op_type, opset, node.domain)
    for constraint in schema.type_constraints:
        if constraint.type_param_str == variable:
            return tuple(
                _BY_NAME[name] for name in constraint.allowed_type_strs if name in _BY_NAME
            )
    return ()


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every tensor, as a number of `TensorProto.DataType`, by name."""
    opset = opset_of(model)
    found = {each.name: int(each.data_type) for each in model.graph.initializer}
    found.update((each.name, int(each.type.tensor_type.elem_type)) for each in model.graph.input)
    for node in model.graph.node:
        taken, given = variables(node, opset)
        bound = {
            variable: found[name]
            for variable, name in zip(taken, node.input, strict=True)
            if name and variable not in _BY_NAME
        }
        for variable, name in zip(given, node.output, strict=True):
            if name:
                found[name] = bound.get(variable) or _by_itself(node, opset, variable)
    return found


def _by_itself(node: onnx.NodeProto, opset: int, variable: str) -> int:
    """The type of an output that no input tells: said by an attribute, or the only one there is."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype"):
            return int(attribute.i)
        if attribute.name == "value":
            return int(attribute.t.data_type)
    allowed = _allowed(node, opset, variable)
    return allowed[0] if len(allowed) == 1 else TensorProto.FLOAT


def computed(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the tensors that depend on what the network is given, not on its size alone."""
    found = {each.name for each in model.graph.input}
    for node in model.graph.node:
        if node.op_type != "Shape" and found.intersection(node.input):
            found.update(node.output)
    return frozenset(found)
