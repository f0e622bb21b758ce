"""What is known of a model before it runs: whether it is ONNX, and the shapes ONNX infers.

Nothing is executed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, checker, helper, shape_inference

from cnnspec.backends.onnx.build import BATCH
from cnnspec.backends.onnx.verify.verdict import Shapes, VerificationFailure
from cnnspec.diagnostics import shape_text
from cnnspec.ir import Graph
from cnnspec.tensor import Tensor

__all__ = ["Model", "batch_of", "compare_shapes", "first_line", "well_formed"]

_SMALL = 1024
"""Elements up to which a constant may be a size that shapes depend on."""


class Model:
    """A serialized model: its bytes, and where its external data lies if it is a file.

    `outline` is the model without the values of large tensors, for whoever only reads it.
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        self.path = None if isinstance(source, bytes) else Path(source)
        self._data = source if isinstance(source, bytes) else None
        self.outline = _outline(self.read())

    def read(self) -> bytes:
        """The bytes, those of external data apart."""
        if self._data is not None:
            return self._data
        assert self.path is not None  # one of both is given
        return self.path.read_bytes()

    @property
    def folder(self) -> Path | None:
        """Where external data is looked for."""
        return self.path.absolute().parent if self.path is not None else None

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next(int(each.version) for each in self.outline.opset_import if not each.domain)

    @cached_property
    def writers(self) -> Mapping[str, str]:
        """The path of the layer whose node makes it, for each tensor that a node makes.

        Empty for nodes that belong to no layer.
        """
        return {
            name: node.name.partition("/")[0]
            for node in self.outline.graph.node
            for name in node.output
            if name
        }


def _outline(data: bytes) -> onnx.ModelProto:
    """The model without the values of large tensors, in memory of its own."""
    whole = onnx.load_model_from_string(data)
    for tensor in whole.graph.initializer:
        if prod(tensor.dims) > _SMALL:
            tensor.CopyFrom(
                TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            )
    return onnx.load_model_from_string(whole.SerializeToString())


def well_formed(model: Model, *, full: bool) -> None:
    """The checker's opinion; a full one includes strict inference of types and shapes.

    Raises `VerificationFailure`.
    """
    try:
        checker.check_model(os.fspath(model.path) if model.path else model.read(), full_check=full)
    except (checker.ValidationError, shape_inference.InferenceError) as broken:
        raise VerificationFailure(f"the model is not valid ONNX: {first_line(broken)}") from broken


def first_line(broken: Exception) -> str:
    """The first line of a message that says anything."""
    return next((line.strip() for line in str(broken).splitlines() if line.strip()), "no reason")


def batch_of(model: Model) -> int | None:
    """The size that every batch has to have; None where it is free."""
    for value in model.outline.graph.input:
        first = _sizes(value)[:1]
        if first and isinstance(first[0], int):
            return first[0]
    return None


# ----------------------------------------------------------------------------------------- shapes


def compare_shapes(model: Model, graph: Graph, names: Mapping[int, str]) -> Shapes:
    """Compare every shape that ONNX infers, and those the model declares, with the analysed ones.

    `names` are the file's names of the graph's values. Where inputs have free sizes the analysed
    ones are put in. Lenient in inference, so that a contradiction is found at the node where it
    starts. Raises `VerificationFailure` that names the tensor.
    """
    batch = batch_of(model)
    free = BATCH if batch is None else batch
    tensors = {names[value]: graph.tensors[value] for value in graph.inputs.values()}
    for index in sorted(graph.inference):
        for value in graph.nodes[index].outputs:
            tensors.setdefault(names[value], graph.tensors[value])
    _compare_outputs(model, graph, free)
    inferred = _inferred(model, graph, names, free)
    equal = partial = 0
    for name, tensor in tensors.items():
        if name not in model.writers or not tensor.batched:
            continue
        found = inferred.get(name)
        if found is not None and not _agree(found, (free, *tensor.shape)):
            raise VerificationFailure(
                f"`{name}` is {shape_text(tensor.shape)} in the analysis and "
                f"{_shown(found, free)} in ONNX",
                path=model.writers.get(name) or None,
            )
        if found is not None and all(isinstance(size, int) for size in found[1:]):
            equal += 1
        else:
            partial += 1
    return Shapes(equal, partial)


def _compare_outputs(model: Model, graph: Graph, free: int | str) -> None:
    """The outputs that the model declares are the network's, in order; free sizes may be so."""
    wanted = [output for output in graph.outputs if not output.training]
    declared = model.outline.graph.output
    if len(wanted) != len(declared):
        raise VerificationFailure(
            f"the model has {len(declared)} outputs, the network has {len(wanted)}"
        )
    for output, value in zip(wanted, declared, strict=True):
        if value.name not in (output.name, f"{output.name}:output"):
            raise VerificationFailure(
                f"output `{output.name}` of the network is `{value.name}` in the model"
            )
        tensor = graph.tensors[output.value]
        sizes = _sizes(value)
        if tensor.batched and not _agree(sizes, (free, *tensor.shape)):
            raise VerificationFailure(
                f"output `{value.name}` is {shape_text(tensor.shape)} in the analysis and declared "
                f"{_shown(sizes, free)}",
                path=graph.value_name(output.value),
            )


def _inferred(
    model: Model, graph: Graph, names: Mapping[int, str], free: int | str
) -> dict[str, list[int | str | None]]:
    """Sizes of every tensor as inferred from the analysed inputs; None for one ONNX cannot tell."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model.outline)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        kind = output.type.tensor_type.elem_type
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, None))
    given = {value.name: value for value in bare.graph.input}
    for number in graph.inputs.values():
        name = names[number]
        tensor: Tensor = graph.tensors[number]
        kind = given[name].type.tensor_type.elem_type if name in given else TensorProto.FLOAT
        info = helper.make_tensor_value_info(name, kind, [free, *tensor.shape])
        if name in given:
            given[name].CopyFrom(info)
        else:
            bare.graph.value_info.append(info)
    try:
        result = shape_inference.infer_shapes(bare, data_prop=True)
    except shape_inference.InferenceError as broken:
        raise VerificationFailure(
            f"ONNX infers no shapes at the analysed size: {first_line(broken)}"
        ) from broken
    return {
        value.name: _sizes(value)
        for value in (*result.graph.value_info, *result.graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _sizes(value: onnx.ValueInfoProto) -> list[int | str | None]:
    """Each size as a number, the name of one that is free, or None."""
    return [
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    ]


def _agree(found: list[int | str | None], wanted: tuple[int | str, ...]) -> bool:
    """Whether sizes are equal as far as they are known; a free batch is no number."""
    if len(found) != len(wanted):
        return False
    batch, free = found[0], wanted[0]
    if isinstance(batch, int) and batch != free:
        return False
    return all(
        size == want
        for size, want in zip(found[1:], wanted[1:], strict=True)
        if isinstance(size, int)
    )


def _shown(sizes: list[int | str | None], free: int | str) -> str:
    """Sizes as the analysis writes them, the batch too where that is the trouble."""
    trouble = bool(sizes) and isinstance(sizes[0], int) and sizes[0] != free
    shown = ["?" if size is None else str(size) for size in sizes[0 if trouble else 1 :]]
    return ("x".join(shown) or "scalar") + (f" with a batch of {sizes[0]}" if trouble else "")
