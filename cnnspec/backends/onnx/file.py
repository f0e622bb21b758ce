"""The file: built, proved, and only then put under its name.

Puts the parts of this room in order. How a model is built, narrowed, stored or proved may not
enter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial as bound
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch import nn

from cnnspec.backends.onnx.build import OLDEST_OPSET, Lowered, Options, lower
from cnnspec.backends.onnx.calibration import Calibration, Feeds, Samples, samples_of
from cnnspec.backends.onnx.dynamic import FreeSizes, free_sizes
from cnnspec.backends.onnx.encoding import hash_of_tensors
from cnnspec.backends.onnx.folding import fold as folding
from cnnspec.backends.onnx.precision import Kept, advice, quantize, to_half
from cnnspec.backends.onnx.preprocessing import Around, around, attach
from cnnspec.backends.onnx.program import program_of
from cnnspec.backends.onnx.proving import Proof
from cnnspec.backends.onnx.reference import Given, hash_of, reference
from cnnspec.backends.onnx.session import newest_opset
from cnnspec.backends.onnx.storing import LARGEST, storing
from cnnspec.backends.onnx.verify import Agreement, Verification, VerificationFailure
from cnnspec.backends.onnx.writer import Array
from cnnspec.backends.torch.module import Chosen
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.metadata import KEY, LARGEST_SIZE, InGraph, ModelMetadata, Precision, Preprocess, Size
from cnnspec.report import analyze
from cnnspec.report.flat import FlatNetwork

__all__ = ["Calibration", "Declared", "ExportReport", "Progress", "Thorough", "export"]

Thorough = Literal["quick", "full", "none"]
"""How much of a file is proved."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is, 0 where nobody knows."""


@dataclass(frozen=True, slots=True)
class Declared:
    """An input or output as the file declares it: its type, and sizes or their names in order."""

    dtype: str
    shape: tuple[int | str, ...]

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return {"dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A file that was written, and what it is.

    `size` is in bytes, with that of `data`, the file of weights beside it where there is one.
    `folded` are the paths of norms that other layers took over, `kept` the layers that stay float32
    in another precision, each with the reason. `around` is what the file does beside the network,
    `free` the sizes that are open in it, if any.
    `chosen` says how given weights fit. `verification` is the proof of a float32 file, `agreement`
    that of another, both None where none was asked for.
    """

    path: Path
    opset: int
    size: int
    data: str | None
    nodes: int
    inputs: Mapping[str, Declared]
    outputs: Mapping[str, Declared]
    params: int
    folded: tuple[str, ...]
    kept: tuple[Kept, ...]
    around: Around
    free: FreeSizes | None
    metadata: ModelMetadata
    chosen: Chosen | None
    verification: Verification | None
    agreement: Agreement | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """The report as JSON has it."""
        proof = self.verification or self.agreement
        fitting = self.chosen.match if self.chosen else None
        about = self.metadata.to_dict()
        for key in ("format", "spec", "labels", "preprocess"):
            del about[key]
        return {
            "format": 1,
            "path": os.fspath(self.path),
            "data": self.data,
            "bytes": self.size,
            "opset": self.opset,
            "nodes": self.nodes,
            "params": self.params,
            "folded": list(self.folded),
            "kept": [asdict(each) for each in self.kept],
            **about,
            "inputs": {name: each.to_dict() for name, each in self.inputs.items()},
            "outputs": {name: each.to_dict() for name, each in self.outputs.items()},
            "free": dict(self.free.names) if self.free else {},
            "softmax": list(self.around.softmax),
            "weights": None
            if fitting is None
            else {
                "taken": len(fitting.taken),
                "missing": list(fitting.missing),
                "unexpected": list(fitting.unexpected),
                "misshapen": [odd.key for odd in fitting.misshapen],
            },
            "proof": None if proof is None else proof.to_json(),
            "warnings": list(self.warnings),
        }


def export(
    graph: Graph,
    path: str | os.PathLike[str],
    weights: Given | None = None,
    *,
    version: str,
    partial: bool = False,
    verify: bool | Thorough = "quick",
    opset: int = 18,
    batch: int | Literal["dynamic"] = "dynamic",
    size: Size = "fixed",
    seed: int = 0,
    fold: bool = True,
    precision: Precision = "float32",
    calibration: Calibration | None = None,
    half_io: bool = False,
    preprocess: InGraph = "none",
    softmax: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write `graph` as an ONNX file at `path`.

    `weights` are a module, a file, or tensors or arrays by key, of which with `partial` something
    has to fit; the rest starts from `seed`. `precision` int8 needs `calibration`: a folder of
    images, or batches by input name. Inputs and outputs stay float32 unless `half_io`. With
    `preprocess` the file takes images (see `ModelMetadata`), with `softmax` it gives probabilities.
    `version` is cnnspec's own, for the metadata.

    The file appears under its name whole, after it was proved equal to torch, `full` at more sizes
    and against float64; whatever stops that leaves what was there. Weights of more than 2 GB are in
    a file beside it.

    Raises `EnvironmentFailure` for a path that cannot be written, weights that do not fit, and what
    the network or ONNX cannot do; `VerificationFailure` for a file that fails its proof.
    """
    thorough: Thorough = verify if isinstance(verify, str) else ("quick" if verify else "none")
    for name, given, kinds in (
        ("verify", thorough, Thorough),
        ("size", size, Size),
        ("precision", precision, Precision),
        ("preprocess", preprocess, InGraph),
    ):
        if given not in get_args(kinds):
            *words, last = get_args(kinds)
            raise EnvironmentFailure(f"`{name}` is {', '.join(words)} or {last}, not `{given}`")
    _refuse(opset, batch, precision, half_io, calibration)
    tell = progress or _silent
    samples = None if calibration is None else samples_of(graph, calibration, batch)
    with storing(path) as draft:
        made = reference(
            graph, weights, seed=seed, partial=partial, progress=bound(tell, "weights")
        )
        free = free_sizes(graph, opset) if size == "dynamic" else None
        options = Options(opset, batch, free.values if free else {})
        model, arrays, folded = _lowered(graph, made.arrays, options, fold)
        chosen = around(graph, model, in_graph=preprocess, softmax=softmax, half=half_io)
        kept: tuple[Kept, ...] = ()
        odd, warning = _not_finite(made.module), None
        if precision != "float32":
            model, kept = _narrowed(model, arrays, graph, precision, half_io, batch, samples, tell)
            arrays = {}
            warning = advice(precision)
        attach(model, chosen)
        params, spec = _written(graph)
        metadata = ModelMetadata(
            name=graph.name,
            spec=spec,
            weights_sha256=hash_of(made.arrays),
            tensors_sha256=hash_of_tensors(model, arrays),
            inputs={name: graph.tensors[value].shape for name, value in graph.inputs.items()},
            outputs={
                output.name: graph.tensors[output.value].shape
                for output in graph.outputs
                if not output.training
            },
            labels=graph.metadata.get("labels") or None,
            preprocess=_said(graph),
            in_graph=preprocess,
            softmax=chosen.probabilities,
            precision=precision,
            batch=batch,
            size=size,
            versions=_versions(version),
        )
        model.metadata_props.add(key=KEY, value=metadata.to_json())
        model.producer_version = version
        nodes = len(model.graph.node)
        inputs, outputs = _declared(model.graph.input), _declared(model.graph.output)
        draft.write(model, arrays)
        del model, arrays
        verification: Verification | None = None
        agreement: Agreement | None = None
        if thorough != "none":
            others = free.others if free else ()
            proof = Proof(
                draft.place, graph, made.module, chosen, others, lambda doing: tell(doing, 0, 0)
            )
            with _blaming(odd):
                if precision == "float32":
                    verification = proof.verification(thorough)
                else:
                    agreement = proof.agreement(precision, samples)
    return ExportReport(
        path=Path(path),
        opset=opset,
        size=draft.size,
        data=draft.data,
        nodes=nodes,
        inputs=inputs,
        outputs=outputs,
        params=params,
        folded=folded,
        kept=kept,
        around=chosen,
        free=free,
        metadata=metadata,
        chosen=made.chosen,
        verification=verification,
        agreement=agreement,
        warnings=tuple(each for each in (odd, warning) if each is not None),
    )


def _not_finite(module: nn.Module) -> str | None:
    """What to say of a weight that is not finite, as after training that diverged."""
    for key, weight in module.named_parameters():
        # The least and the largest value tell, and need no memory.
        if weight.numel() and not torch.stack(weight.detach().aminmax()).isfinite().all():
            return f"weight `{key}` has values that are not finite"
    return None


@contextmanager
def _blaming(reason: str | None) -> Iterator[None]:
    """Give a proof that fails for a known reason as no mistake of the file."""
    try:
        yield
    except VerificationFailure:
        if reason is None:
            raise
        raise EnvironmentFailure(f"nothing can be proved: {reason}") from None


def _refuse(
    opset: int,
    batch: int | Literal["dynamic"],
    precision: Precision,
    half_io: bool,
    calibration: Calibration | None,
) -> None:
    """Raise for options that do not go together, or with what is installed."""
    newest = newest_opset()
    if not OLDEST_OPSET <= opset <= newest:
        raise EnvironmentFailure(
            f"opset {opset} is not possible",
            help=f"the installed onnxruntime and cnnspec agree on {OLDEST_OPSET} to {newest}",
        )
    number = isinstance(batch, int) and not isinstance(batch, bool)
    if batch != "dynamic" and not (number and 0 < batch <= LARGEST_SIZE):
        raise EnvironmentFailure(
            f"a batch has 1 to {LARGEST_SIZE:,} samples, or is dynamic: not `{batch}`"
        )
    if half_io and precision != "float16":
        raise EnvironmentFailure("inputs and outputs are float16 in a float16 file only")
    if precision == "int8" and calibration is None:
        raise EnvironmentFailure(
            "int8 has to be calibrated, and there is nothing to do it with",
            help="some hundred images of the kind that the network is for will do",
        )
    if precision != "int8" and calibration is not None:
        raise EnvironmentFailure("calibration is for int8 only")


def _lowered(
    graph: Graph, arrays: Mapping[str, Array], options: Options, fold: bool
) -> tuple[onnx.ModelProto, Mapping[str, Array], tuple[str, ...]]:
    """The model without its weights, the weights, and the paths of the norms that were folded."""
    program = program_of(graph, arrays)
    if fold:
        program = folding(program)
    lowered = lower(program, options)
    return lowered.model, lowered.initializers, tuple(each.path for each in program.folded)


def _narrowed(
    model: onnx.ModelProto,
    arrays: Mapping[str, Array],
    graph: Graph,
    precision: Literal["float16", "int8"],
    half_io: bool,
    batch: int | Literal["dynamic"],
    samples: Samples | None,
    tell: Progress,
) -> tuple[onnx.ModelProto, tuple[Kept, ...]]:
    """The model in another precision, weights inside, and the layers that stay as they are.

    What float16 cannot hold of a random input stays float32.
    """
    size = sum(array.nbytes for array in arrays.values())
    if size > LARGEST:
        raise EnvironmentFailure(
            f"the weights take {size / 1e9:.1f} GB, more than the 2 GB that can be made "
            f"{precision}",
            help="export float32, and let the runtime that it goes to convert it",
        )
    whole = Lowered(model, arrays).with_arrays()
    if precision == "float16":
        found = to_half(whole, keep_io=not half_io, samples=[_calm(graph, batch)])
    else:
        assert samples is not None  # refused without
        count, inputs = samples.count, samples.of("none")
        assert inputs is not None  # the network itself takes them
        found = quantize(
            whole,
            graph,
            inputs,
            progress=lambda done: tell("calibration", done, count),
        )
    return found.model, found.kept


def _calm(graph: Graph, batch: int | Literal["dynamic"]) -> Feeds:
    """One random batch, as inputs are that are normalised."""
    random = np.random.default_rng(0)
    count = 1 if batch == "dynamic" else batch
    return {
        name: random.standard_normal((count, *graph.tensors[value].shape), np.float32)
        for name, value in graph.inputs.items()
    }


def _written(graph: Graph) -> tuple[int, str]:
    """The number of params of the network, and its flat spec as `cnnspec expand` writes it."""
    totals = analyze(graph).totals
    spec = FlatNetwork(graph).spec({"params": totals.params, "macs": totals.macs})
    return totals.params, spec


def _declared(values: Iterable[onnx.ValueInfoProto]) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    for value in values:
        tensor = value.type.tensor_type
        kind = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        sizes = (size.dim_param or size.dim_value or "?" for size in tensor.shape.dim)
        found[value.name] = Declared(kind, tuple(sizes))
    return found


def _said(graph: Graph) -> Preprocess | None:
    said = graph.metadata.get("preprocess")
    return Preprocess.of(said) if said else None


def _versions(own: str) -> dict[str, str]:
    return {
        "cnnspec": own,
        "onnx": str(onnx.__version__),
        "onnxruntime": str(onnxruntime.__version__),
        "torch": str(torch.__version__).partition("+")[0],
    }


def _silent(what: str, done: int, whole: int) -> None:
    """Progress that nobody watches."""
