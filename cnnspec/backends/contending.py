"""The contenders that one network makes: torch eager and compiled, and ONNX files of it.

All are made here from the same weights, into a folder. What is measured may not enter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from cnnspec.backends.onnx import export
from cnnspec.backends.onnx.calibration import Calibration, samples_of
from cnnspec.backends.torch import build
from cnnspec.backends.torch import contender as in_torch
from cnnspec.backends.torch.artifact import SPEC, WEIGHTS
from cnnspec.backends.torch.module import Given
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.metadata import Precision
from cnnspec.runtime import onnx_contender as in_onnx
from cnnspec.runtime.measuring import Entry, Failed, Form, Progress
from cnnspec.runtime.model_file import open_model
from cnnspec.runtime.providers import Wanted
from cnnspec.runtime.serving import Job, sample

__all__ = ["Contending", "contending"]

_PRECISIONS: dict[Form, Precision] = {
    "onnx": "float32",
    "onnx-fp16": "float16",
    "onnx-int8": "int8",
}
_RANDOM_SAMPLES = 4
"""Batches that int8 is calibrated with where there are no images: its times do not depend on it."""


@dataclass(frozen=True, slots=True)
class Contending:
    """The contenders there are, those that could not be made, and what to know about them."""

    entries: tuple[Entry, ...]
    failed: tuple[Failed, ...]
    remarks: tuple[str, ...]


def contending(
    graph: Graph,
    folder: Path,
    forms: Sequence[Form],
    *,
    version: str,
    weights: Given | None = None,
    seed: int = 0,
    calibration: Calibration | None = None,
    provider: Wanted = "auto",
    threads: int,
    cuda_graph: bool = False,
    progress: Progress,
) -> Contending:
    """Make the contenders of `graph` that `forms` names, with files in `folder`.

    Without `weights` they have random ones from `seed`, without `calibration` int8 is calibrated
    with random numbers. `version` is cnnspec's own, for metadata.

    Raises `EnvironmentFailure` for weights that cannot be read or do not fit, and for images that
    cannot be calibrated with.
    """
    if calibration is not None:
        samples_of(graph, calibration, "dynamic")  # raises before anything has been measured
    progress("making the module", 0, len(forms))
    place = folder / "module"
    built = build(graph, place, version=version, weights=weights, seed=seed, verify=False)
    entries: list[Entry] = []
    failed: list[Failed] = []
    remarks: list[str] = []
    for number, form in enumerate(forms):
        if form in ("eager", "compile"):
            told = partial(
                _torch_job, place, provider=provider, threads=threads, compiled=form == "compile"
            )
            size = sum(file.size for file in built.files if file.name == WEIGHTS)
            entries.append(Entry(form, "float32", size, in_torch.MODULE, told))
            continue
        precision = _PRECISIONS[form]
        path = folder / f"{form}.onnx"
        progress(f"exporting {form}", number, len(forms))
        samples = calibration
        if precision == "int8" and calibration is None:
            samples = _random_samples(graph)
            remarks.append(
                f"`{form}` is calibrated with random numbers: its times count, its outputs do not"
            )
        try:
            export(
                graph,
                path,
                built.module,
                version=version,
                verify="none",  # outputs of all contenders are compared
                precision=precision,
                calibration=samples if precision == "int8" else None,
                progress=_scaled(progress, form, number, len(forms)),
            )
        except EnvironmentFailure as failure:
            failed.append(Failed(form, None, failure.message))
            continue
        job = partial(_onnx_job, path, provider=provider, threads=threads, graph=cuda_graph)
        entries.append(Entry(form, precision, open_model(path).size, in_onnx.MODULE, job))
    return Contending(tuple(entries), tuple(failed), tuple(remarks))


def _torch_job(place: Path, batch: int, *, provider: Wanted, threads: int, compiled: bool) -> Job:
    return in_torch.job(
        str(place / SPEC),
        str(place / WEIGHTS),
        batch,
        provider=provider,
        threads=threads,
        compiled=compiled,
    )


def _onnx_job(path: Path, batch: int, *, provider: Wanted, threads: int, graph: bool) -> Job:
    shapes = in_onnx.shapes_of(open_model(path), batch)
    return in_onnx.job(str(path), shapes, provider=provider, threads=threads, graph=graph)


def _random_samples(graph: Graph) -> list[dict[str, np.ndarray]]:
    return [
        {
            name: sample(number * len(graph.inputs) + position, "float32", (1, *shape))
            for position, (name, shape) in enumerate(
                (name, graph.tensors[value].shape) for name, value in graph.inputs.items()
            )
        }
        for number in range(_RANDOM_SAMPLES)
    ]


def _scaled(
    progress: Progress, form: Form, number: int, whole: int
) -> Callable[[str, int, int], None]:
    """Tells of a part of an export as of a part of all."""

    def tell(doing: str, done: int, of: int) -> None:
        progress(f"exporting {form}: {doing}", number, whole)

    return tell
