"""The proof of a model: well-formed, shaped as analysed, and equal to torch when it runs.

Judges a finished model. Nothing that writes or repairs one may enter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import checker, helper, shape_inference
from torch import nn

from cnnspec.backends.onnx.build import BATCH, tensor_names
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.ir import Graph

__all__ = [
    "FAIL_ABOVE",
    "REPORT_ABOVE",
    "Comparison",
    "Verification",
    "VerificationFailure",
    "verify",
]

REPORT_ABOVE = 1e-5
"""Relative difference up to which float32 arithmetic in another order accounts for it."""

FAIL_ABOVE = 1e-4
"""Relative difference above which a model is wrong."""

_SILENT = 1e-30
"""Largest value of a result too small for float32 to be exact about."""

_LEVELS = {
    False: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    True: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


_RUNTIME_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
"""What ONNX Runtime's messages begin with."""


class VerificationFailure(EnvironmentFailure):
    """A model that is not what the graph says. `path` is the first divergent node, where known."""

    def __init__(self, message: str, *, path: str | None = None, help: str = "") -> None:
        self.path = path
        super().__init__(message, help=help)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One output at one batch size: `difference` is max|ours - torch's| / max|torch's|.

    `optimised` says whether ONNX Runtime was free to rewrite the graph.
    """

    output: str
    batch: int
    optimised: bool
    difference: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What was proved of a model; one that fails raises `VerificationFailure` instead."""

    opset: int
    comparisons: tuple[Comparison, ...]

    @property
    def worst(self) -> Comparison:
        """The comparison that came out worst."""
        return max(self.comparisons, key=lambda comparison: comparison.difference)

    @property
    def close(self) -> bool:
        """True if every difference is within what float32 accounts for (1e-5)."""
        return self.worst.difference <= REPORT_ABOVE


def verify(
    model: bytes | str | os.PathLike[str],
    graph: Graph,
    module: nn.Module,
    *,
    batches: Sequence[int] = (1, 3),
    seed: int = 0,
) -> Verification:
    """Prove that `model` computes what `module` does, at float32 on the CPU.

    In order: `onnx.checker`, inferred shapes against `graph`, the checker in full, and ONNX
    Runtime with all and with no optimisations against torch, on random inputs of each batch size
    (only the model's own where that is fixed). Then, without optimisations, every layer: in a deep
    network with fresh weights the outputs hardly depend on the input, and show no mistake.
    `module` takes the inputs in the graph's order and is run in inference mode; it has to be
    float32 on the CPU.

    Raises `VerificationFailure` on the first of these that fails; differences above 1e-4 fail, and
    the message names the first node whose result differs.
    """
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    proto = onnx.load_model_from_string(data)
    _well_formed(proto, full=False)
    _shaped(proto, graph)
    _well_formed(proto, full=True)
    outputs = [output.name for output in proto.graph.output]
    own = _fixed_batch(proto)
    tried = batches if own is None else (own,)
    comparisons: list[Comparison] = []
    with inference_mode(module):
        given = [_inputs(graph, batch, seed) for batch in tried]
        wanted = [_run(module, feeds) for feeds in given]
        for optimised, level in _LEVELS.items():
            with _refusals_told(proto, given[0], optimised):
                runtime = session(data, optimise=level)
                results = [runtime.run(None, feeds) for feeds in given]
            for batch, feeds, expected, found in zip(tried, given, wanted, results, strict=True):
                if len(expected) != len(found):
                    raise VerificationFailure(
                        f"the model has {len(found)} outputs, torch gives {len(expected)}"
                    )
                for name, ours, theirs in zip(outputs, found, expected, strict=True):
                    result = Comparison(name, batch, optimised, _difference(ours, theirs))
                    comparisons.append(result)
                    if not result.difference <= FAIL_ABOVE:
                        _fail(result, proto, graph, module, feeds)
        path = _first_divergent(proto, graph, module, given[-1], optimised=False)
        if path is not None:
            raise VerificationFailure(
                f"`{path}` differs from torch, though too little for the outputs to show", path=path
            )
    return Verification(proto.opset_import[0].version, tuple(comparisons))


# --------------------------------------------------------------------------------------- statics


def _well_formed(model: onnx.ModelProto, *, full: bool) -> None:
    """The checker's opinion; a full one includes strict inference of types and shapes."""
    try:
        checker.check_model(model, full_check=full)
    except (checker.ValidationError, shape_inference.InferenceError) as broken:
        raise VerificationFailure(f"the model is not valid ONNX: {_first_line(broken)}") from broken


def _shaped(model: onnx.ModelProto, graph: Graph) -> None:
    """Every shape that ONNX infers is the analysed one, as far as it can infer it.

    Lenient here, so that a contradiction is found at the node where it starts.
    """
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    for value, name in tensor_names(graph).items():
        tensor = graph.tensors[value]
        info = known.get(name)
        if info is None or not tensor.batched or not info.type.tensor_type.HasField("shape"):
            continue
        sizes = [_size(dim) for dim in info.type.tensor_type.shape.dim]
        agree = len(sizes) == tensor.rank + 1 and all(
            size in (None, wanted) for size, wanted in zip(sizes[1:], tensor.shape, strict=True)
        )
        if not agree:
            found = "x".join("?" if size is None else str(size) for size in sizes[1:])
            raise VerificationFailure(
                f"`{name}` is {shape_text(tensor.shape)} in the analysis and {found} in ONNX",
                path=name,
            )


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") else None


def _fixed_batch(model: onnx.ModelProto) -> int | None:
    for value in model.graph.input:
        first = value.type.tensor_type.shape.dim[0]
        if first.dim_param != BATCH:
            return _size(first)
    return None


def _first_line(broken: Exception) -> str:
    return next((line.strip() for line in str(broken).splitlines() if line.strip()), "no reason")


# ---------------------------------------------------------------------------------------- running


@contextmanager
def inference_mode(module: nn.Module) -> Iterator[None]:
    """Run `module` without gradients and as for inference; every part's mode is put back after."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def _inputs(graph: Graph, batch: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng((seed, batch))
    return {
        name: random.standard_normal((batch, *graph.tensors[value].shape), dtype=np.float32)
        for name, value in graph.inputs.items()
    }


def _run(module: nn.Module, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[torch.Tensor]:
    return _tensors(module(*(torch.from_numpy(value.copy()) for value in feeds.values())))


def _tensors(result: object) -> list[torch.Tensor]:
    """The outputs in order, whether a tensor, a tuple or a mapping of them."""
    match result:
        case torch.Tensor():
            return [result]
        case Mapping():
            return _tensors(tuple(result.values()))
        case tuple() | list():
            return [tensor for part in result for tensor in _tensors(part)]
        case None:
            return []  # attention gives no weights where none are asked for
        case _:
            raise TypeError(f"a network returned {type(result).__name__}")


def _difference(ours: np.ndarray[Any, Any], theirs: torch.Tensor) -> float:
    """max|ours - theirs| / max|theirs|; infinite if shapes differ or only one is not a number."""
    reference = theirs.detach().numpy()
    if ours.shape != reference.shape:
        return float("inf")
    same = (ours == reference) | (np.isnan(ours) & np.isnan(reference))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        largest = np.abs(ours - reference)[~same].max()
        scale = np.abs(reference[np.isfinite(reference)]).max(initial=0.0)
    if not np.isfinite(largest) or not scale:
        return float("inf")
    return float(largest / scale)


# ------------------------------------------------------------------------------------- diagnosis


@contextmanager
def _refusals_told(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]], optimised: bool
) -> Iterator[None]:
    """Whatever ONNX Runtime raises, as a `VerificationFailure` at the first layer it refuses."""
    try:
        yield
    except Exception as refusal:  # its error classes have no public base
        path = _first_refused(model, feeds, optimised)
        place = f" at `{path}`" if path else ""
        when = "with" if optimised else "without"
        raise VerificationFailure(
            f"ONNX Runtime refuses the model{place}, {when} optimisations: {_reason(refusal)}",
            path=path,
        ) from refusal


def _reason(refusal: Exception) -> str:
    """What ONNX Runtime says, without its error codes, source files and C++ conditions."""
    said = _RUNTIME_CODE.sub("", _first_line(refusal))
    for before in ("Status Message: ", " was false. "):
        said = said.rpartition(before)[2]
    return said.rstrip(".")


def _first_refused(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]], optimised: bool
) -> str | None:
    """The layer up to which the model does not run and before which it does, by bisection."""

    def runs(count: int) -> bool:
        part = onnx.ModelProto()
        part.CopyFrom(model)
        del part.graph.node[count:]
        del part.graph.output[:]
        last = part.graph.node[-1].output[0]
        part.graph.output.append(helper.make_empty_tensor_value_info(last))
        try:
            session(part.SerializeToString(), optimise=_LEVELS[optimised]).run(None, dict(feeds))
        except Exception:
            return False
        return True

    works, fails = 0, len(model.graph.node)
    if not fails or runs(fails):
        return None
    while fails - works > 1:
        middle = (works + fails) // 2
        if runs(middle):
            works = middle
        else:
            fails = middle
    return model.graph.node[fails - 1].name.partition("/")[0] or None


def _fail(
    result: Comparison,
    model: onnx.ModelProto,
    graph: Graph,
    module: nn.Module,
    feeds: Mapping[str, np.ndarray[Any, Any]],
) -> None:
    path = _first_divergent(model, graph, module, feeds, result.optimised)
    place = f"; the first layer that differs is `{path}`" if path else ""
    when = "with" if result.optimised else "without"
    raise VerificationFailure(
        f"output `{result.output}` differs from torch by {result.difference:.1e} of its largest "
        f"value at batch {result.batch}, {when} optimisations{place}",
        path=path,
    )


def _first_divergent(
    model: onnx.ModelProto,
    graph: Graph,
    module: nn.Module,
    feeds: Mapping[str, np.ndarray[Any, Any]],
    optimised: bool,
) -> str | None:
    """The first node, of those that are torch modules, whose result differs; None if none does."""
    names = tensor_names(graph)
    written = {output for node in model.graph.node for output in node.output}
    watched = [
        (graph.nodes[index].path, names[graph.nodes[index].outputs[0]])
        for index in sorted(graph.inference)
        if names[graph.nodes[index].outputs[0]] in written
        and not graph.nodes[index].op.identity_at_inference
    ]
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    have = {output.name for output in model.graph.output}
    extra = [name for _, name in watched if name not in have]
    wider.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in extra)
    wanted = [name for _, name in watched]
    if not wanted:
        return None  # asked for nothing, the runtime would give every output
    with _refusals_told(wider, feeds, optimised):
        runtime = session(wider.SerializeToString(), optimise=_LEVELS[optimised])
        found = dict(zip(wanted, runtime.run(wanted, dict(feeds)), strict=True))
    results = _observed(module, graph, feeds)
    for path, name in watched:
        theirs = results.get(path)
        if theirs is None or _silent(found[name], theirs.numpy()):
            continue
        if not _difference(found[name], theirs) <= FAIL_ABOVE:
            return path
    return None


def _silent(*results: np.ndarray[Any, Any]) -> bool:
    return all(bool(np.abs(result).max() < _SILENT) for result in results)


def _observed(
    module: nn.Module, graph: Graph, feeds: Mapping[str, np.ndarray[Any, Any]]
) -> dict[str, torch.Tensor]:
    """The result of each node that is a torch module, by path; shared ones call by call."""
    parts = dict(module.named_modules())
    calls: dict[str, list[torch.Tensor]] = {}
    users: dict[str, list[str]] = {}
    for index in sorted(graph.inference):
        node = owner = graph.nodes[index]
        while owner.share is not None:
            owner = graph.nodes[owner.share]
        if owner.path in parts:
            users.setdefault(owner.path, []).append(node.path)

    def keep(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: object, result: object) -> None:
            calls.setdefault(path, []).append(_tensors(result)[0].clone())

        return hook

    handles = [parts[path].register_forward_hook(keep(path)) for path in users]
    try:
        _run(module, feeds)
    finally:
        for handle in handles:
            handle.remove()
    return {
        path: result
        for owner_path, paths in users.items()
        for path, result in _paired(paths, calls.get(owner_path, []))
    }


def _paired(
    paths: Sequence[str], results: Sequence[torch.Tensor]
) -> Iterable[tuple[str, torch.Tensor]]:
    """Nodes and results in order; none where the module was called another number of times."""
    return zip(paths, results, strict=True) if len(paths) == len(results) else ()
