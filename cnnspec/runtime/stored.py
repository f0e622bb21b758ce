"""The initializers of an ONNX file as bytes, wherever they are.

Files that are read here have been judged before. What the values mean may not enter.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import GraphProto, TensorProto, numpy_helper

__all__ = ["Stored", "stored_tensors"]

Stored = tuple[str, int, tuple[int, ...], bytes | memoryview]
"""Name, ONNX's number of the type, sizes, and values as `cnnspec.metadata.tensors_hash` has them.
"""


def stored_tensors(graph: GraphProto, folder: Path) -> Iterator[Stored]:
    """The initializers of `graph`, one after another; `folder` is where those beside it are.

    Values are there until the next one is asked for. Raises `OSError` for a file that cannot be
    read, and `ValueError` for one that is too short and for values that do not fill the sizes.
    """
    for tensor in graph.initializer:
        sizes = tuple(tensor.dims)
        if tensor.data_location == TensorProto.EXTERNAL:
            with _beside(tensor, folder) as values:
                yield tensor.name, tensor.data_type, sizes, values
        else:
            yield tensor.name, tensor.data_type, sizes, _inside(tensor)


def _inside(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    array = numpy_helper.to_array(tensor)
    if array.dtype == object:
        return b"".join(len(text).to_bytes(8, "little") + text for text in tensor.string_data)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _beside(tensor: TensorProto, folder: Path) -> memoryview:
    """The part of the file beside it that holds `tensor`."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    start = int(said.get("offset", 0))
    with (folder / said["location"]).open("rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    end = start + int(said["length"]) if "length" in said else len(whole)
    if end > len(whole):
        raise ValueError("the file is too short")
    return memoryview(whole)[start:end]
