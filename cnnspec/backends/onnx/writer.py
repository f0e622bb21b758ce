"""Nodes, constants and weights of one ONNX graph, written from lowering data.

Everything that is about ONNX's form and nothing that is about networks: names, initializers, sizes
read at run time, attribute types. Networks (`cnnspec.ir`) may not enter.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from cnnspec.backends.onnx.constants import computed
from cnnspec.backends.onnx.program import Array
from cnnspec.lower import Const, Dim, In, Node, OnnxValue, Out, Own, Rest, Shape, Tmp

__all__ = ["Array", "Given", "Place", "Writer"]

_KINDS = {
    defs.OpSchema.AttrType.INT: onnx.AttributeProto.INT,
    defs.OpSchema.AttrType.INTS: onnx.AttributeProto.INTS,
    defs.OpSchema.AttrType.FLOAT: onnx.AttributeProto.FLOAT,
    defs.OpSchema.AttrType.FLOATS: onnx.AttributeProto.FLOATS,
    defs.OpSchema.AttrType.STRING: onnx.AttributeProto.STRING,
}
"""Attribute types, so that a whole number given for a float attribute is written as a float."""


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that an op reads: its name, and its sizes without the batch.

    A size is None where it is known only when the model runs.
    """

    name: str
    sizes: tuple[int | None, ...]
    batched: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where the nodes of one op go: its path, what it reads, the names of what it writes.

    `keys` gives the key of each weight and buffer of the op by the op's own name for it.
    """

    path: str
    inputs: tuple[Given, ...]
    outputs: tuple[str, ...]
    keys: Mapping[str, str]


class Writer:
    """Collects the nodes and initializers of one graph.

    `arrays` holds weights and buffers by state-dict key, `reserved` the tensor names that no
    initializer may take, `final` those that nodes have to write. `batch` is the batch size, or the
    name of a network input of which it is read at run time.

    Names: a tensor within an op is `PATH/NAME`, a weight that was changed `KEY:CHANGE`, and what
    belongs to no op starts with a slash, so that none of them can be the name of another.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        reserved: Collection[str],
        final: Collection[str],
        opset: int,
        batch: int | str,
    ) -> None:
        self._arrays = arrays
        self._reserved = frozenset(reserved)
        self._final = frozenset(final)
        self._opset = opset
        self._batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, Array] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._derived: dict[tuple[str, ...], str] = {}
        self._kinds: dict[str, Mapping[str, onnx.AttributeProto.AttributeType]] = {}

    # --------------------------------------------------------------------------------- writing

    def op(self, nodes: Sequence[Node], place: Place) -> None:
        """Write the nodes an op lowers to."""
        for node in nodes:
            outputs = [self._output(output, place) for output in node.outputs]
            inputs = [self._value(value, place) for value in node.inputs]
            while inputs and not inputs[-1]:
                inputs.pop()
            first = node.outputs[0]
            name = place.path if isinstance(first, Out) and not first.index else outputs[0]
            self._node(node.op, inputs, outputs, name, dict(node.attributes))

    def identity(self, source: str, target: str) -> None:
        """Give a tensor a second name."""
        self._node("Identity", [source], [target], target, {})

    def initializer(self, value: Own, key: str) -> str:
        """The name of a weight, cut and permuted as `value` asks."""
        name = f"{key}:weight" if key in self._reserved else key
        array = self._arrays[key]
        if value.rows is not None:
            name += ":rows_{}_{}".format(*value.rows)
            array = array[slice(*value.rows)]
        if value.permute is not None:
            name += ":permute_" + "_".join(map(str, value.permute))
            array = array.transpose(value.permute)
        self._initializers.setdefault(name, array)
        return name

    def finish(self, outputs: Collection[str], body: onnx.GraphProto) -> Mapping[str, Array]:
        """Put into `body` the nodes some of `outputs` depends on; the initializers they read."""
        needed = set(outputs)
        kept = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        body.node.extend(reversed(kept))
        return {name: array for name, array in self._initializers.items() if name in needed}

    # ---------------------------------------------------------------------------------- values

    def _output(self, output: Tmp | Out, place: Place) -> str:
        if isinstance(output, Out):
            return place.outputs[output.index]
        return f"{place.path}/{output.name}"

    def _value(self, value: OnnxValue, place: Place) -> str:
        match value:
            case None:
                return ""
            case In(number):
                return place.inputs[number].name
            case Own(name):
                return self.initializer(value, place.keys[name])
            case Tmp(name):
                return f"{place.path}/{name}"
            case Const(values, dtype, shape):
                array = np.array(values, dtype=dtype)
                return self._constant(array if shape is None else array.reshape(shape))
            case Shape(items):
                return self._sizes(items, place)

    def _constant(self, array: Array) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        name = self._constants.get(key)
        if name is None:
            name = self._constants[key] = f"/constant/{len(self._constants)}"
            self._initializers[name] = array
        return name

    # ----------------------------------------------------------------------------------- sizes

    def _sizes(self, items: tuple[int | Dim | Rest, ...], place: Place) -> str:
        """A vector of sizes: a constant, one tensor's size, or a Concat of both kinds."""
        parts: list[str | list[int]] = []
        for item in items:
            for part in self._size(item, place):
                if isinstance(part, int) and parts and isinstance(parts[-1], list):
                    parts[-1].append(part)
                else:
                    parts.append([part] if isinstance(part, int) else part)
        names = [
            part if isinstance(part, str) else self._constant(np.array(part, np.int64))
            for part in parts
        ]
        if not names:
            return self._constant(np.zeros(0, np.int64))
        return names[0] if len(names) == 1 else self._derive("Concat", *names, axis=0)

    def _size(self, item: int | Dim | Rest, place: Place) -> tuple[int | str, ...]:
        """The sizes an item stands for, as numbers, or names of vectors where not known."""
        if isinstance(item, int):
            return (item,)
        tensor = place.inputs[item.tensor.index]
        rest = isinstance(item, Rest)
        sizes: tuple[int | None, ...] = (None, *tensor.sizes)
        if not tensor.batched:
            if tensor.name not in self._initializers:
                return (self._read(tensor.name, item.axis, rest=rest),)
            sizes = self._initializers[tensor.name].shape
        axes = range(item.axis, len(sizes)) if rest else (item.axis,)
        return tuple([self._known(tensor.name, axis, sizes[axis]) for axis in axes])

    def _known(self, tensor: str, axis: int, size: int | None) -> int | str:
        """A size, or the name of a vector that holds it when the model runs."""
        if size is not None:
            return size
        if axis:
            return self._read(tensor, axis)
        return self._read(self._batch, 0) if isinstance(self._batch, str) else self._batch

    def _read(self, tensor: str, axis: int, *, rest: bool = False) -> str:
        """The size of one axis, or of all from it on, as a vector computed at run time."""
        shape = self._derive("Shape", tensor)
        at = self._constant(np.array([axis], np.int64))
        if not rest:
            return self._derive("Gather", shape, at, axis=0)
        end = self._constant(np.array([np.iinfo(np.int64).max], np.int64))
        return self._derive("Slice", shape, at, end)

    # ----------------------------------------------------------------------------------- nodes

    def _derive(self, op: str, *inputs: str, **attributes: int) -> str:
        """A node that is written once, however often its result is asked for."""
        key = (op, *inputs)
        name = self._derived.get(key)
        if name is None:
            name = self._derived[key] = f"/sizes/{len(self._derived)}"
            self._node(op, inputs, [name], name, attributes)
        return name

    def _node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        name: str,
        attributes: Mapping[str, Any],
    ) -> None:
        node = helper.make_node(op, inputs, outputs, name=name)
        kinds = self._kinds_of(op) if attributes else {}
        for key, value in sorted(attributes.items()):
            kind = kinds[key]
            if kind == onnx.AttributeProto.FLOAT:
                value = float(value)
            elif kind == onnx.AttributeProto.FLOATS:
                value = [float(item) for item in value]
            node.attribute.append(helper.make_attribute(key, value, attr_type=kind))
        if self._final.isdisjoint(outputs):
            found = computed(node, self._initializers, self._opset)
            if found is not None:
                self._initializers.update(found)
                return
        self._nodes.append(node)

    def _kinds_of(self, op: str) -> Mapping[str, onnx.AttributeProto.AttributeType]:
        """The types of an operator's attributes, as far as any op has them."""
        found = self._kinds.get(op)
        if found is None:
            declared = defs.get_schema(op, self._opset).attributes
            found = self._kinds[op] = {
                name: _KINDS[attribute.type]
                for name, attribute in declared.items()
                if attribute.type in _KINDS
            }
        return found
