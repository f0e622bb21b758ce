"""What is measured of an export, ours and torch's. Runs in processes of its own.

`python -m bench.exports export WAY NETWORK SIZE PATH` writes one file and says what that took.
`latency NETWORK SIZE BATCH ROUNDS FOLDER` runs the files of all ways and torch itself in turn. One
line of JSON is printed. Nothing is downloaded.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import cnnspec
from bench.export import DYNAMO, EAGER, FILES, OURS, PROVED
from tests.torchvision_networks import difference, enliven, pixels

RUN = {way: name for way, name in FILES.items() if way != PROVED}
"""The files that are run: a verified export writes the same one."""

OPSET = 18
THREADS = (1, 2)
_WARM_UP = 2
_SMALL = "lenet5"
"""Exported before, so that what is imported when it is needed is there."""


def _load(network: str, size: int) -> cnnspec.Network:
    return cnnspec.load(network, inputs={"image": (3, size, size)} if size else None)


def _module(network: str, size: int) -> nn.Module:
    """The module that all export: the generated one, with lively weights, in inference."""
    module = _load(network, size).to_torch().eval()
    enliven(module)
    return module


def _write(way: str, network: str, size: int, module: nn.Module, path: Path) -> None:
    """Export a module the way it is done; ours begins with the name of the network."""
    if way in (OURS, PROVED):
        verify: Literal["quick", "none"] = "quick" if way == PROVED else "none"
        _load(network, size).to_onnx(path, module, verify=verify, opset=OPSET)
        return
    graph = _load(network, size).graph
    (value,) = graph.inputs.values()
    given = (torch.zeros(2, *graph.tensors[value].shape),)
    names: dict[str, Any] = {"input_names": ["image"], "opset_version": OPSET}
    if way == DYNAMO:
        batch = torch.export.Dim("batch")
        torch.onnx.export(
            module, given, path, dynamic_shapes=({0: batch},), external_data=False, **names
        )
    else:
        axes = {"image": {0: "batch"}}
        torch.onnx.export(module, given, path, dynamo=False, dynamic_axes=axes, **names)


def _export(way: str, network: str, size: int, path: Path) -> dict[str, float]:
    """Seconds and bytes from a module to its file, all imports done."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        _write(way, _SMALL, 0, _module(_SMALL, 0), Path(folder) / "small.onnx")
        gc.collect()
        _forget_peak()
        before = _status("VmRSS")
        module = _module(network, size)
        weights = sum(each.nbytes for each in (*module.parameters(), *module.buffers()))
        began, began_cpu = perf_counter(), process_time()
        _write(way, network, size, module, path)
        seconds, cpu_seconds = perf_counter() - began, process_time() - began_cpu
    peak = _status("VmHWM")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "weight_bytes": weights,
        "before_bytes": before,
        "peak_bytes": peak,
        "file_bytes": sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")),
        "nodes": len(onnx.load(path).graph.node),
    }


def _forget_peak() -> None:
    """Make the memory that is resident now the peak."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status(name: str) -> int:
    """A figure of Linux about this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# ------------------------------------------------------------------------------------- latency


def _latency(network: str, size: int, batch: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds of every round by threads and contender, and how far outputs are from torch's."""
    module = _module(network, size)
    graph = _load(network, size).graph
    (value,) = graph.inputs.values()
    given = pixels(batch, *graph.tensors[value].shape)
    with torch.inference_mode():
        wanted = module(given)
    differences: dict[str, float] = {}
    seconds: dict[str, dict[str, list[float]]] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        tasks: dict[str, Callable[[], Any]] = {EAGER: _eager(module, given)}
        for way, name in RUN.items():
            tasks[way] = _session(folder / name, threads, given.numpy())
            found = torch.from_numpy(np.asarray(tasks[way]()[0]))
            differences[way] = max(differences.get(way, 0.0), difference(found, wanted))
        seconds[str(threads)] = _interleaved(tasks, rounds)
    return {"differences": differences, "seconds": seconds}


def _eager(module: nn.Module, given: torch.Tensor) -> Callable[[], Any]:
    def task() -> Any:
        with torch.inference_mode():
            return module(given)

    return task


def _session(path: Path, threads: int, given: np.ndarray) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {session.get_inputs()[0].name: given})


def _interleaved(tasks: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Each goes first in turn, and runs once for nothing before it is timed.

    Threads of the one before it may still wait for work, and its weights are in no cache.
    """
    found: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(_WARM_UP + rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            tasks[name]()
            began = perf_counter()
            tasks[name]()
            if number >= _WARM_UP:
                found[name].append(perf_counter() - began)
    return found


def main(arguments: Sequence[str]) -> int:
    """Run one measurement."""
    what, *rest = arguments
    if what == "export":
        way, network, size, path = rest
        result: dict[str, Any] = _export(way, network, int(size), Path(path))
    else:
        network, *numbers, folder = rest
        result = _latency(network, *map(int, numbers), Path(folder))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
