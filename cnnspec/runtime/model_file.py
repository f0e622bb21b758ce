"""ONNX files from anywhere: looked at and judged before a runtime gets to see them.

A file that is missing, damaged, of another kind or up to no good is one `EnvironmentFailure`.
Sessions may not enter.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import file_digest
from math import prod
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import KEY, ModelMetadata, tensors_hash
from cnnspec.runtime.foreign import kind_of
from cnnspec.runtime.said import first_sentence
from cnnspec.runtime.stored import stored_tensors

__all__ = ["LARGEST_EXTERNAL", "LARGEST_FILE", "ModelFile", "Port", "open_model"]

LARGEST_FILE = 2**31 - 1
"""Bytes of a file: protobuf reads no more. What is larger keeps its weights beside it."""

LARGEST_EXTERNAL = 2**40
"""Bytes of all weights beside a file."""

_HEAD = 512
_PROBABLE = frozenset(("Softmax",))
"""Operators of ONNX that make probabilities."""
_BEHIND = frozenset(("Cast", "Identity", "QuantizeLinear", "DequantizeLinear", "Reshape"))
"""Operators of ONNX that leave them what they are."""
_HALF_BYTE = frozenset((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1))
_TEXT = "string"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: its name, type as numpy calls it, and sizes.

    A free size is its name, or None where it has none; `shape` is None where even the number of
    axes is open. `dtype` is empty for what is no tensor.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    @property
    def rank(self) -> int | None:
        """Its number of axes, if that is known."""
        return None if self.shape is None else len(self.shape)

    def __str__(self) -> str:
        """As people read it: `batch x 3 x 224 x 224`."""
        if self.shape is None:
            return "of any shape"
        return " x ".join("?" if size is None else str(size) for size in self.shape) or "scalar"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a judged ONNX file holds; its weights stay on disk.

    `size` counts the bytes of the file and of `external`, the files beside it. `nodes` counts
    nodes by operator, those of subgraphs too, the most frequent first; operators that are not
    ONNX's own have their domain before them. `stored` are tensors, numbers and bytes of
    the initialisers by type. `metadata` is None for a file that cnnspec did not make.
    `probabilities` are the outputs that a softmax writes.
    """

    path: Path
    size: int
    external: tuple[Path, ...]
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: Mapping[str, int]
    stored: Mapping[str, tuple[int, int, int]]
    metadata: ModelMetadata | None
    properties: Mapping[str, str]
    probabilities: frozenset[str]

    def sha256(self) -> str:
        """The SHA-256 of the file, without what is beside it, in hexadecimal."""
        with _explained(self.path), self.path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()


def open_model(path: str | os.PathLike[str]) -> ModelFile:
    """Look at an ONNX file and judge it.

    Weights of a file that cnnspec made are read, also those beside it, to see that they are those
    that were exported. Raises `EnvironmentFailure` for a file that cannot be read, is larger than
    `LARGEST_FILE`, is no ONNX file or a damaged one, names files outside its folder, or says absurd
    or false things about itself.
    """
    place = Path(path)
    model, size = _read(place)
    name = f"`{os.fspath(path)}`"
    if not model.graph.node and not model.graph.initializer and not model.graph.output:
        raise EnvironmentFailure(f"{name} is no ONNX file, or a damaged one: it has no graph")
    tensors = list(_tensors(model))
    external = _external(place, tensors)
    _check(place, name)
    metadata, properties = _metadata(model, name)
    stored = _stored(model.graph, name)
    if metadata is not None:
        _unchanged(model.graph, place, metadata)
    given = {tensor.name for tensor in model.graph.initializer}
    given |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    return ModelFile(
        path=place,
        size=size + sum(file.stat().st_size for file in external),
        external=external,
        ir_version=model.ir_version,
        opsets={each.domain or "ai.onnx": each.version for each in model.opset_import},
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        name=model.graph.name,
        inputs=tuple(_port(value) for value in model.graph.input if value.name not in given),
        outputs=tuple(_port(value) for value in model.graph.output),
        nodes=_count(model),
        stored=stored,
        metadata=metadata,
        properties=properties,
        probabilities=frozenset(_probabilities(model.graph)),
    )


# ------------------------------------------------------------------------------------ reading it


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the system says about a file into an `EnvironmentFailure`."""
    try:
        yield
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{path}` cannot be read: {reason}") from None
    except ValueError:  # Python's word for a name with a null in it
        raise EnvironmentFailure(f"`{path}` cannot be read: that is no name") from None


def _read(path: Path) -> tuple[ModelProto, int]:
    with _explained(path):
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            raise EnvironmentFailure(
                f"`{path}` is a folder, no ONNX file",
                help="`cnnspec export` makes a file of a run or of what `cnnspec build` made",
            )
        if not stat.S_ISREG(state.st_mode):
            raise EnvironmentFailure(f"`{path}` is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            _sane(path, size, file.read(_HEAD))
            model = ModelProto()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                view = memoryview(data)
                try:
                    model.ParseFromString(view)
                except DecodeError:
                    raise EnvironmentFailure(
                        f"`{path}` is no ONNX file, or a damaged one"
                    ) from None
                finally:
                    view.release()
    return model, size


def _sane(path: Path, size: int, head: bytes) -> None:
    if not size:
        raise EnvironmentFailure(f"`{path}` is empty")
    kind = kind_of(head)
    if kind is not None:
        raise EnvironmentFailure(f"`{path}` is no ONNX file: it is {kind.what}", help=kind.help)
    if size > LARGEST_FILE:
        raise EnvironmentFailure(
            f"`{path}` has {size:,} bytes, and an ONNX file has {LARGEST_FILE:,} at most",
            help="larger networks keep their weights in a file of their own",
        )


def _check(path: Path, name: str) -> None:
    """Whatever onnx itself has against the file."""
    try:
        onnx.checker.check_model(os.fspath(path))
    except Exception as refusal:  # its validation raises several unrelated types
        raise EnvironmentFailure(
            f"{name} is no valid ONNX file: {first_sentence(refusal)}"
        ) from None


# ----------------------------------------------------------------------------- what it refers to


def _graphs(model: ModelProto) -> Iterator[tuple[GraphProto | None, Iterable[NodeProto]]]:
    """Every graph of a file with its nodes, and the nodes of its functions, without recursion."""
    graphs = [model.graph]
    for training in model.training_info:
        graphs += [training.initialization, training.algorithm]
    bodies: deque[tuple[GraphProto | None, Iterable[NodeProto]]]
    bodies = deque((graph, graph.node) for graph in graphs)
    bodies.extend((None, function.node) for function in model.functions)
    while bodies:
        graph, nodes = bodies.popleft()
        yield graph, nodes
        for node in nodes:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                bodies.extend((each, each.node) for each in (*inner, *attribute.graphs))


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor that a file holds or refers to, wherever it is."""
    for graph, nodes in _graphs(model):
        if graph is not None:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in nodes:
            for attribute in node.attribute:
                yield from _attached(attribute)


def _attached(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for each in (*sparse, *attribute.sparse_tensors):
        yield from (each.values, each.indices)


def _external(path: Path, tensors: Iterable[TensorProto]) -> tuple[Path, ...]:
    """The files beside a file that hold its weights, once each.

    Raises `EnvironmentFailure` for one outside its folder or that is no plain file, and for a
    tensor that reaches beyond the end of its file.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in sizes:
            sizes[location] = _external_size(path, location)
        offset, length = (_whole(path, tensor, entries, key) for key in ("offset", "length"))
        needed = _bytes(tensor) if length is None else length
        if (offset or 0) + (needed or 0) > sizes[location]:
            raise EnvironmentFailure(
                f"`{path}` is damaged: `{tensor.name}` reaches beyond the end of `{location}`"
            )
    if sum(sizes.values()) > LARGEST_EXTERNAL:
        raise EnvironmentFailure(
            f"the weights of `{path}` have {sum(sizes.values()):,} bytes, and "
            f"{LARGEST_EXTERNAL:,} is the most that is read"
        )
    return tuple(path.parent / location for location in sizes)


def _external_size(path: Path, location: str) -> int:
    """The size of a file beside `path`, which has to be there and nowhere else."""
    parts = location.replace("\\", "/").split("/")
    strange = not location.isprintable() or ":" in location or location.startswith(("/", "\\"))
    if not location or strange or ".." in parts:
        shown = f"at `{location[:200]}`" if location else "nowhere"
        raise EnvironmentFailure(
            f"`{path}` is refused: it has weights {shown}, which is not in its folder"
        )
    place = path.parent
    for part in filter(None, parts):
        place = place / part
        if place.is_symlink():
            raise EnvironmentFailure(
                f"`{path}` is refused: its weights at `{location}` are a link, which may lead "
                "anywhere"
            )
    try:
        state = place.lstat()
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(
            f"the weights of `{path}`, `{location}`, cannot be read: {reason}",
            help="they belong beside it",
        ) from None
    if not stat.S_ISREG(state.st_mode):
        raise EnvironmentFailure(f"the weights of `{path}`, `{location}`, are no regular file")
    return state.st_size


def _whole(path: Path, tensor: TensorProto, entries: Mapping[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise EnvironmentFailure(f"`{path}` is damaged: `{tensor.name}` has an odd {key}")
    return int(text)


# --------------------------------------------------------------------------------- what it holds


def _metadata(model: ModelProto, name: str) -> tuple[ModelMetadata | None, Mapping[str, str]]:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    text = properties.pop(KEY, None)
    if text is None:
        return None, properties
    try:
        return ModelMetadata.from_json(text), properties
    except EnvironmentFailure as failure:
        raise EnvironmentFailure(f"{name}: {failure.message}", help=failure.help) from None


def _stored(graph: GraphProto, name: str) -> Mapping[str, tuple[int, int, int]]:
    found: dict[str, tuple[int, int, int]] = {}
    for tensor in graph.initializer:
        if any(size < 0 for size in tensor.dims):
            raise EnvironmentFailure(f"{name} is damaged: `{tensor.name}` has a negative size")
        dtype = _dtype(tensor.data_type)
        elements, size = prod(tensor.dims), _bytes(tensor) or 0
        inside = tensor.HasField("raw_data") and tensor.data_location != TensorProto.EXTERNAL
        if inside and dtype != _TEXT and len(tensor.raw_data) != size:
            raise EnvironmentFailure(
                f"{name} is damaged: `{tensor.name}` holds {len(tensor.raw_data):,} bytes where "
                f"its sizes take {size:,}"
            )
        tensors, numbers, taken = found.get(dtype, (0, 0, 0))
        found[dtype] = tensors + 1, numbers + elements, taken + size
    return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def _unchanged(graph: GraphProto, path: Path, metadata: ModelMetadata) -> None:
    """Raise where what is stored is not what was exported."""
    found = None
    with _explained(path), suppress(KeyError, TypeError, ValueError):  # what onnx says of damage
        found = tensors_hash(stored_tensors(graph, path.parent))
    if found != metadata.tensors_sha256:
        raise EnvironmentFailure(
            f"`{path}` is damaged: its weights are not those that it was exported with",
            help="export it again; where a tool changed them on purpose, remove `cnnspec` from its "
            "metadata",
        )


def _bytes(tensor: TensorProto) -> int | None:
    """What the numbers of a tensor take, None where that is not told by their type."""
    elements = int(prod(tensor.dims))
    if tensor.data_type in _HALF_BYTE:
        return (elements + 1) // 2
    try:
        return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except (KeyError, TypeError, ValueError):
        return None


def _dtype(number: int) -> str:
    """A type of ONNX as numpy calls it; empty for one that this onnx does not know."""
    if number == TensorProto.STRING:
        return _TEXT
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, TypeError, ValueError):
        return ""


def _port(value: ValueInfoProto) -> Port:
    if not value.type.HasField("tensor_type"):
        return Port(value.name, "", None)
    tensor = value.type.tensor_type
    shape = tuple(map(_size, tensor.shape.dim)) if tensor.HasField("shape") else None
    return Port(value.name, _dtype(tensor.elem_type), shape)


def _size(dim: Any) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _count(model: ModelProto) -> Mapping[str, int]:
    counted = Counter(
        f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for graph, nodes in _graphs(model)
        if graph is not None
        for node in nodes
    )
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _probabilities(graph: GraphProto) -> Iterator[str]:
    """Outputs that are written by a softmax, whatever is done to their type after it."""
    writers = {output: node for node in graph.node for output in node.output}
    for output in graph.output:
        name = output.name
        # A graph that passed the checker has no cycles.
        while (node := writers.get(name)) is not None and node.op_type in _BEHIND and node.input:
            name = node.input[0]
        if node is not None and node.op_type in _PROBABLE:
            yield output.name
