"""A program to an ONNX model: direct lowering, no tracing.

The same program and options give the same bytes. torch and ONNX Runtime may not enter, nor what
changes the arithmetic: that is done to the program before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx
from onnx import TensorProto, helper, shape_inference

from cnnspec.backends.onnx.folding import fold as folded
from cnnspec.backends.onnx.program import Array, Program, Step, program_of, tensor_names
from cnnspec.backends.onnx.writer import Given, Place, Writer
from cnnspec.ir import Graph
from cnnspec.lower import In, Out, Own
from cnnspec.lower import Node as OnnxNode

__all__ = ["BATCH", "OLDEST_OPSET", "Lowered", "Options", "lower", "tensor_names", "to_model"]

BATCH = "batch"
"""Name of the dynamic batch axis."""

OLDEST_OPSET = 13
"""The oldest opset the operations lower to."""

_SMALL = 1024
"""Bytes that hold all that shapes follow from: sizes and axes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a model is written for.

    `batch` is the size of the batch, or dynamic, when the axis is named `batch`. `free` gives the
    sizes, batch not counted, of values that have some which are known only when the model runs:
    those are names, or None where none is declared.
    """

    opset: int = 18
    batch: int | Literal["dynamic"] = "dynamic"
    free: Mapping[int, tuple[int | str | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A model without its weights, and the weights by name, in order: views of what was given."""

    model: onnx.ModelProto
    initializers: Mapping[str, Array]

    def with_arrays(self) -> onnx.ModelProto:
        """The model with its weights inside, each copied once, straight into the message."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for name, array in self.initializers.items():
            tensor = model.graph.initializer.add()
            tensor.name = name
            tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor.dims.extend(array.shape)
            tensor.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return model


def to_model(
    graph: Graph,
    arrays: Mapping[str, Array],
    *,
    opset: int = 18,
    batch: int | Literal["dynamic"] = "dynamic",
    fold: bool = True,
) -> onnx.ModelProto:
    """The model that computes the inference outputs of `graph`.

    `arrays` holds weights and buffers by state-dict key, in torch's shapes. Outputs that only
    training needs are left out, and so is everything that no output depends on. `fold` says whether
    norms of fixed statistics are folded into the layers beside them.
    """
    program = program_of(graph, arrays)
    return lower(folded(program) if fold else program, Options(opset, batch)).with_arrays()


def lower(program: Program, options: Options) -> Lowered:
    """The nodes of a program and the weights they read, each stored once."""
    return _Lowering(program, options).run()


class _Lowering:
    """One run of `lower`: `names` starts as the program's, and ends as what values came to be."""

    def __init__(self, program: Program, options: Options) -> None:
        self._program = program
        self._options = options
        self._names = dict(program.names)
        batch = next(iter(program.inputs), "") if options.batch == "dynamic" else options.batch
        reserved = (*program.names.values(), *program.outputs)
        self._writer = Writer(program.arrays, reserved, program.outputs, options.opset, batch)

    def run(self) -> Lowered:
        """Write every step, then inputs and outputs."""
        program, options = self._program, self._options
        written = [self._nodes(step) for step in program.steps]
        self._name_outputs(written)
        for step, nodes in zip(program.steps, written, strict=True):
            self._write(step, nodes)
        opsets = [helper.make_opsetid("", options.opset)]
        model = onnx.ModelProto(
            ir_version=helper.find_min_ir_version_for(opsets),
            opset_import=opsets,
            producer_name="cnnspec",
        )
        body = model.graph
        body.name = program.name
        for name, value in program.inputs.items():
            body.input.append(self._declared(name, value))
        for name, value in program.outputs.items():
            target = name if self._names[value] == name else self._target(name)
            if self._names[value] != target:
                self._writer.identity(self._names[value], target)
            body.output.append(self._declared(target, value))
        initializers = self._writer.finish([output.name for output in body.output], body)
        lowered = Lowered(model, initializers)
        if not all(program.tensors[value].batched for value in program.outputs.values()):
            for output, found in zip(body.output, _inferred(lowered), strict=True):
                output.CopyFrom(found)  # what has no batch is declared as it turns out to be
        return lowered

    def _nodes(self, step: Step) -> tuple[OnnxNode, ...]:
        """The ONNX data of a step, by the rule for open sizes where it reads any."""
        site, opset = self._program.site(step), self._options.opset
        if any(value in self._options.free for value in step.inputs):
            return step.op.onnx_open(site, opset)
        return step.op.onnx(site, opset)

    def _name_outputs(self, written: Sequence[tuple[OnnxNode, ...]]) -> None:
        """Give the name of an output to the value it is, behind ops that only pass it on."""
        program, names = self._program, self._names
        same: dict[int, int] = {}
        for step, nodes in zip(program.steps, written, strict=True):
            match nodes:
                case (OnnxNode("Identity", (In(number),), (Out(0),)),):
                    source = step.inputs[number]
                    same[step.outputs[0]] = same.get(source, source)
        inputs = frozenset(program.inputs.values())
        targets = {name: self._target(name) for name in program.outputs}
        for name, value in program.outputs.items():
            source = same.get(value, value)
            if source not in inputs and names[source] not in targets.values():
                names[source] = targets[name]

    def _target(self, name: str) -> str:
        """The tensor of an output: its name, unless an input has that."""
        return f"{name}:output" if name in self._program.inputs else name

    def _write(self, step: Step, nodes: tuple[OnnxNode, ...]) -> None:
        """Write one op, or only note the name where the op is nothing but another name."""
        names = self._names
        match nodes:
            case (OnnxNode("Identity", (In(number),), (Out(0),)),):
                names[step.outputs[0]] = names[step.inputs[number]]
                return
            case (OnnxNode("Identity", (Own(name) as own,), (Out(0),)),):
                names[step.outputs[0]] = self._writer.initializer(own, step.keys[name])
                return
        given = tuple([self._given(value) for value in step.inputs])
        outputs = tuple([names[value] for value in step.outputs])
        self._writer.op(nodes, Place(step.path, given, outputs, step.keys))

    def _given(self, value: int) -> Given:
        tensor = self._program.tensors[value]
        sizes = self._options.free.get(value, tensor.shape)
        known = tuple([size if isinstance(size, int) else None for size in sizes])
        return Given(self._names[value], known, tensor.batched)

    def _declared(self, name: str, value: int) -> onnx.ValueInfoProto:
        tensor = self._program.tensors[value]
        batch = BATCH if self._options.batch == "dynamic" else self._options.batch
        sizes = [batch, *self._options.free.get(value, tensor.shape)] if tensor.batched else None
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


def _inferred(lowered: Lowered) -> Sequence[onnx.ValueInfoProto]:
    """The outputs with the shapes that onnx infers; it reads the values of small arrays alone."""
    small = {name: array for name, array in lowered.initializers.items() if array.nbytes <= _SMALL}
    model = Lowered(lowered.model, small).with_arrays()
    for name, array in lowered.initializers.items():
        if name not in small:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    return list(shape_inference.infer_shapes(model).graph.output)
