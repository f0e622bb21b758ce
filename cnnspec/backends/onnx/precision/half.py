"""Half precision: a float32 model to one that computes in float16 where float16 can.

A layer goes over as a whole or stays as it is. Casts stand where the two meet and are named after
what they cast: `conv1/float16` is `conv1`, cast. ONNX Runtime's own converter is not used: its
models fail onnx's checker (casts stand behind what reads them), it changes the model it is given,
renames outputs, and cuts weights off at 65504 without a word.

Networks enter as a model and as paths only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cnnspec.backends.onnx.precision.kept import Converted, Kept
from cnnspec.backends.onnx.precision.rewriting import (
    Names,
    add_array,
    blank,
    layer_of,
    named_for,
    writers,
)
from cnnspec.backends.onnx.precision.running import Feeds, observed
from cnnspec.backends.onnx.precision.types import (
    computed,
    element_types,
    opset_of,
    takes,
    variables,
)

__all__ = ["LARGEST", "rounded", "to_half"]

LARGEST = float(np.finfo(np.float16).max)
"""The largest finite float16: 65504."""

_MARGIN = 2.0
"""How far below 65504 measured values have to stay: other inputs may give larger ones."""

_LOST = 1e-3
"""Share of the Euclidean norm of a constant that rounding may take. Rounding takes at most 2^-11
(4.9e-4) of a normal number; more means that subnormals or zeros came out."""

_CHUNK = 1 << 20

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_SUFFIX = {_FLOAT: "float32", _HALF: "float16"}

_SENSITIVE: Mapping[str, str] = {
    **dict.fromkeys(
        ("ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd"),
        "its sums may pass 65504 and lose small terms",
    ),
    **dict.fromkeys(
        ("Pow", "LpPool", "GlobalLpPool", "LRN"), "its powers may pass 65504 and vanish below 6e-8"
    ),
    **dict.fromkeys(("Exp", "Softplus", "Mish"), "its exponentials pass 65504 at inputs above 11"),
    "InstanceNormalization": "its variance may pass 65504 and vanish below 6e-8",
}
"""Operators of which ONNX does not promise that they sum in float32, as torch's autocast keeps in
float32 too. LayerNormalization and RMSNormalization do promise it (`stash_type`), and Softmax
subtracts the largest first."""

_ADDED = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""The input that is added to a product."""


def to_half(
    model: onnx.ModelProto,
    *,
    keep_io: bool = True,
    keep: Collection[str] = (),
    samples: Iterable[Feeds] = (),
) -> Converted:
    """`model` in float16, with its names; the one given is not changed.

    Inputs and outputs stay float32 with `keep_io`. These layers stay float32: those in `keep` (by
    path), those whose sums leave float16 easily, those with constants that float16 cannot hold,
    and those that read or write values above half of 65504 on any of `samples`. What depends on
    sizes alone (positions, scales) stays as it is and is not told.
    """
    types, varying = element_types(model), computed(model)
    constants = {each.name: each for each in model.graph.initializer}
    largest = _largest(model, types, varying, samples)
    kept: dict[str, Kept] = {}
    for node in model.graph.node:
        path = layer_of(node)
        if path in kept or not varying.intersection(node.output):
            continue
        asked = "it was asked for" if path in keep else ""
        reason = asked or _reason(node, opset_of(model), types, constants, largest)
        if reason:
            kept[path] = Kept(path, node.op_type, reason)
    moved = [
        bool(varying.intersection(node.output)) and layer_of(node) not in kept
        for node in model.graph.node
    ]
    return Converted(_Rewriting(model, types, moved).result(keep_io=keep_io), tuple(kept.values()))


# ------------------------------------------------------------------------------------ what stays


def _largest(
    model: onnx.ModelProto,
    types: Mapping[str, int],
    varying: Collection[str],
    samples: Iterable[Feeds],
) -> Mapping[str, float]:
    """The largest absolute value of every float32 tensor over `samples`; empty without any."""
    samples = tuple(samples)
    if not samples:
        return {}
    written = [
        *(each.name for each in model.graph.input),
        *(name for node in model.graph.node for name in node.output if name),
    ]
    names = [name for name in written if types[name] == _FLOAT and name in varying]
    found = dict.fromkeys(names, 0.0)
    for name, value in observed(model, names, samples):
        found[name] = max(found[name], float(np.abs(value).max(initial=0.0)))
    return found


def _reason(
    node: onnx.NodeProto,
    opset: int,
    types: Mapping[str, int],
    constants: Mapping[str, onnx.TensorProto],
    largest: Mapping[str, float],
) -> str:
    """Why the layer of `node` stays float32; nothing where this node is no reason."""
    if not any(types[name] == _FLOAT for name in (*node.input, *node.output) if name):
        return ""
    if node.op_type == "Mul" and node.input[0] == node.input[1]:
        return "its squares may pass 65504 and vanish below 6e-8"
    if node.op_type in _SENSITIVE:
        return _SENSITIVE[node.op_type]
    taken, given = variables(node, opset)
    main = next(
        variable
        for variable, name in zip((*given, *taken), (*node.output, *node.input), strict=True)
        if name and types[name] == _FLOAT
    )
    if node.op_type != "Cast" and not takes(node, opset, main, _HALF):
        return f"ONNX has no {node.op_type} in float16 at opset {opset}"
    for name in (*node.input, *node.output):
        if largest.get(name, 0.0) > LARGEST / _MARGIN:
            return f"its values reach {largest[name]:.2g}, float16 ends at 65504"
    for position, (variable, name) in enumerate(zip(taken, node.input, strict=True)):
        if name in constants and types[name] == _FLOAT and takes(node, opset, variable, _HALF):
            array = numpy_helper.to_array(constants[name])
            many = node.op_type == "Add" and array.size > 1
            reason = _misfit(array, added=many or _ADDED.get(node.op_type) == position)
            if reason:
                return reason
    return ""


def _misfit(array: NDArray[np.float32], *, added: bool) -> str:
    """How float16 cannot hold `array`; small numbers that are only added may vanish."""
    flat = array.reshape(-1)
    if not np.isfinite(flat).all():
        flat = flat[np.isfinite(flat)]  # float16 has infinities and NaN
    largest = float(np.abs(flat).max(initial=0.0))
    if largest > LARGEST:
        return f"its constants reach {largest:.2g}, float16 ends at 65504"
    if added or _lost(flat) <= _LOST**2 * _squared(flat):
        return ""
    return f"its constants of at most {largest:.2g} vanish in float16 or nearly so"


def _squared(flat: NDArray[np.float32]) -> float:
    """The sum of squares, in float64."""
    parts = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return float(sum(np.square(part.astype(np.float64)).sum() for part in parts))


def _lost(flat: NDArray[np.float32]) -> float:
    """The sum of squares of what rounding takes; a bound of it where that is small enough.

    Normal numbers lose at most 2^-11 of themselves and subnormal ones at most 2^-25, which settles
    all but small or nearly empty arrays without rounding them.
    """
    whole = _squared(flat)
    bound = 2.0**-22 * whole + 2.0**-50 * flat.size
    if bound <= _LOST**2 * whole:
        return bound
    return _squared(flat - flat.astype(np.float16).astype(np.float32))


# --------------------------------------------------------------------------------------- writing


class _Rewriting:
    """Writes the nodes again with casts between float16 and float32."""

    def __init__(self, model: onnx.ModelProto, types: Mapping[str, int], moved: list[bool]) -> None:
        self._model = model
        self._moved = moved
        self._opset = opset_of(model)
        self._types = types
        self._names = Names(model.graph)
        self._layers = writers(model)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._now = dict(types)
        """The element type that each tensor has in the model being written."""
        self._casts: dict[tuple[str, int], str] = {}
        self._arrays: dict[str, tuple[str, int]] = {}
        """Initializers by their new name: the old name, and the element type."""
        self._renamed: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def result(self, *, keep_io: bool) -> onnx.ModelProto:
        """The model, with inputs and outputs as they were or in float16."""
        written = blank(self._model)
        body = written.graph
        if not keep_io:
            for value in (*body.input, *body.output):
                if value.type.tensor_type.elem_type == _FLOAT:
                    value.type.tensor_type.elem_type = _HALF
            for value in body.input:
                self._now[value.name] = int(value.type.tensor_type.elem_type)
        declared = {each.name: int(each.type.tensor_type.elem_type) for each in body.output}
        for node, moved in zip(self._model.graph.node, self._moved, strict=True):
            self._write(node, declared, moved=moved)
        body.node.extend(self._nodes)
        for name, (source, element) in self._arrays.items():
            array = numpy_helper.to_array(self._constants[source])
            half = element == _HALF and array.dtype == np.float32
            add_array(body, name, array.astype(np.float16) if half else array)
        return written

    def _write(self, node: onnx.NodeProto, declared: Mapping[str, int], *, moved: bool) -> None:
        taken, given = variables(node, self._opset)
        bound = {
            variable: self._element(node, variable, name, moved=moved)
            for variable, name in zip(taken, node.input, strict=True)
            if name
        }
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        for position, (variable, name) in enumerate(zip(taken, node.input, strict=True)):
            if name:
                copied.input[position] = self._read(name, bound[variable])
        self._nodes.append(copied)
        for position, (variable, name) in enumerate(zip(given, node.output, strict=True)):
            if not name:
                continue
            element = self._types[name]
            if element == _FLOAT and node.op_type != "Cast":
                element = bound.get(variable, element)
            self._now[name] = element
            if declared.get(name, element) != element:
                inner = self._names.new(f"{name}/{_SUFFIX[element]}")
                copied.output[position] = inner
                self._renamed[name] = inner
                self._cast(inner, name, name, declared[name])

    def _element(self, node: onnx.NodeProto, variable: str, name: str, *, moved: bool) -> int:
        """The element type that `node` gets for an input that was `name`."""
        if self._types[name] != _FLOAT:
            return self._types[name]
        return _HALF if moved and takes(node, self._opset, variable, _HALF) else _FLOAT

    def _read(self, name: str, element: int) -> str:
        """The name under which tensor `name` is found as `element`, cast where it is not."""
        if name in self._constants:
            return self._constant(name, element)
        source = self._renamed.get(name, name)
        if self._now[name] == element:
            return source
        key = (name, element)
        if key not in self._casts:
            cast = self._names.new(f"{name}/{_SUFFIX[element]}")
            self._casts[key] = cast
            self._cast(source, cast, name, element)
        return self._casts[key]

    def _cast(self, source: str, to: str, tensor: str, element: int) -> None:
        """Cast `source`, which is `tensor` in one type, to another."""
        longer = max(source, to, key=len)
        name = named_for(self._layers.get(tensor, tensor), longer)
        self._nodes.append(helper.make_node("Cast", [source], [to], name=name, to=element))

    def _constant(self, name: str, element: int) -> str:
        """An initializer: under its own name in the type it is first read in."""
        if self._arrays.setdefault(name, (name, element)) == (name, element):
            return name
        key = (name, element)
        if key not in self._casts:
            self._casts[key] = self._names.new(f"{name}/{_SUFFIX[element]}")
            self._arrays[self._casts[key]] = (name, element)
        return self._casts[key]


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` such that a CPU really rounds every float16 tensor, without optimisations.

    ONNX Runtime's CPU provider computes most of float16 in float32 and takes out casts to float16
    between two nodes, with optimisations disabled too: what a GPU overflows at, it never sees. It
    has an Identity for float16, around which casts remain; one alone among float32 kernels it
    would compute in float32, so there are two.
    """
    types = element_types(model)
    names = Names(model.graph)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    body = result.graph
    del body.node[:]
    held: dict[str, str] = {}

    def hold(written: Iterable[str]) -> Iterator[onnx.NodeProto]:
        for name in written:
            if name and types[name] == _HALF:
                first, held[name] = (names.new(f"{name}/held") for _ in range(2))
                yield helper.make_node("Identity", [name], [first], name=first)
                yield helper.make_node("Identity", [first], [held[name]], name=held[name])

    body.node.extend(hold(each.name for each in body.input))
    for node in model.graph.node:
        copied = body.node.add()
        copied.CopyFrom(node)
        copied.input[:] = [held.get(name, name) for name in node.input]
        body.node.extend(hold(node.output))
    return result
