"""The bytes of a model, made piece by piece, so that its weights are in memory once.

Serializing a message copies every array twice: into the message, then into the bytes. Here the
message has none of them, and each array goes from where it is to the file. The bytes are those that
protobuf would write. What a model means may not enter.

Wire format: a field is a tag (its number times 8, plus 2 for what has a length), a length as a
varint, and as many bytes (protobuf.dev, "Encoding"); numbers of fields are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from cnnspec.backends.onnx.writer import Array
from cnnspec.metadata import tensors_hash
from cnnspec.runtime.stored import stored_tensors

__all__ = ["Outside", "encoded", "hash_of_tensors", "outside"]

Piece = bytes | memoryview

_PAGE = 65536
"""Offsets are multiples of it, so that Windows too can map what begins there (onnx.proto)."""

_SMALL = 1024
"""Bytes below which an array stays in the model: shape inference reads sizes and axes there."""


def encoded(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> Iterator[Piece]:
    """The bytes of `model` with `arrays` as further initializers, by name."""
    graph = model.graph
    tensors = [
        (_tensor(name, array), array.nbytes) for name, array in arrays.items() if array.nbytes
    ]
    empty = [_tensor(name, array) for name, array in arrays.items() if not array.nbytes]
    raw = _tag(TensorProto.RAW_DATA_FIELD_NUMBER)
    heads = [
        head.SerializeToString(deterministic=True) + raw + _varint(size) for head, size in tensors
    ]
    sizes = [len(head) + size for head, (_, size) in zip(heads, tensors, strict=True)]
    field = _tag(graph.INITIALIZER_FIELD_NUMBER)
    lead = [field + _varint(size) for size in sizes]

    first = onnx.GraphProto(name=graph.name)
    first.node.extend(graph.node)
    first.initializer.extend([*graph.initializer, *empty])
    last = onnx.GraphProto()
    last.CopyFrom(graph)
    for name in ("node", "name", "initializer"):
        last.ClearField(name)
    before = first.SerializeToString(deterministic=True)
    after = last.SerializeToString(deterministic=True)
    length = len(before) + len(after) + sum(map(len, lead)) + sum(sizes)

    outer = onnx.ModelProto()
    outer.CopyFrom(_without_graph(model))
    ends = onnx.ModelProto()
    for name in ("opset_import", "metadata_props", "training_info", "functions"):
        getattr(ends, name).extend(getattr(outer, name))
        outer.ClearField(name)
    yield outer.SerializeToString(deterministic=True)
    yield _tag(model.GRAPH_FIELD_NUMBER) + _varint(length)
    yield before
    filled = (array for array in arrays.values() if array.nbytes)
    for start, head, array in zip(lead, heads, filled, strict=True):
        yield start + head
        yield _bytes(array)
    yield after
    yield ends.SerializeToString(deterministic=True)


@dataclass(frozen=True, slots=True)
class Outside:
    """Arrays that go into a file of their own, each with the offset it begins at."""

    arrays: Mapping[str, Array]
    offsets: Mapping[str, int]

    def pieces(self) -> Iterator[Piece]:
        """The bytes of that file."""
        at = 0
        for name, array in self.arrays.items():
            yield bytes(self.offsets[name] - at)
            yield _bytes(array)
            at = self.offsets[name] + array.nbytes

    def digest(self) -> str:
        """The SHA-256 of that file, in hexadecimal."""
        found = sha256()
        for piece in self.pieces():
            found.update(piece)
        return found.hexdigest()

    def tensors(self, location: str) -> Iterator[TensorProto]:
        """The initializers that say where in the file `location` their values are."""
        for name, array in self.arrays.items():
            tensor = _tensor(name, array)
            tensor.data_location = TensorProto.EXTERNAL
            said = {
                "location": location,
                "offset": str(self.offsets[name]),
                "length": str(array.nbytes),
            }
            for key, value in said.items():
                tensor.external_data.add(key=key, value=value)
            yield tensor


def outside(arrays: Mapping[str, Array]) -> Outside:
    """Where in a file of their own the arrays go that are not small."""
    offsets: dict[str, int] = {}
    at = 0
    for name, array in arrays.items():
        if array.nbytes >= _SMALL:
            offsets[name] = at = -(-at // _PAGE) * _PAGE
            at += array.nbytes
    return Outside({name: arrays[name] for name in offsets}, offsets)


def hash_of_tensors(model: onnx.ModelProto, arrays: Mapping[str, Array]) -> str:
    """The `tensors_hash` of `model` with `arrays` as further initializers, by name."""
    further = (
        (name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, _bytes(array))
        for name, array in arrays.items()
    )
    return tensors_hash(chain(stored_tensors(model.graph, Path()), further))


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Everything but the graph, which is not copied on the way."""
    found = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if isinstance(value, (str, int)):
            setattr(found, field.name, value)
        else:
            getattr(found, field.name).extend(value)
    return found


def _tensor(name: str, array: Array) -> TensorProto:
    """An initializer without its values."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return TensorProto(dims=array.shape, data_type=kind, name=name)


def _bytes(array: Array) -> memoryview:
    """The values in the order of the file: little-endian, the last axis fastest."""
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data


def _tag(number: int) -> bytes:
    return _varint(number << 3 | 2)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
