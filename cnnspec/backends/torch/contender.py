"""A network in torch as a contender of `cnnspec bench`, in a process of its own, eager or compiled.

What is measured and how it is compared may not enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cnnspec.backends.torch.module import to_torch
from cnnspec.backends.torch.verify import named_outputs
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import expand, load_named
from cnnspec.runtime.serving import Array, Job, sample, serve

__all__ = ["MODULE", "TorchContender", "job", "main"]

MODULE = "cnnspec.backends.torch.contender"
"""What a process of a network in torch runs."""


def job(spec: str, weights: str, batch: int, *, provider: str, threads: int, compiled: bool) -> Job:
    """What the process of a network is told: files that `cnnspec build` writes."""
    return {
        "spec": spec,
        "weights": weights,
        "batch": batch,
        "provider": provider,
        "threads": threads,
        "compiled": compiled,
    }


class TorchContender:
    """The generated module in inference, float32 in full precision on any device."""

    def __init__(self, told: Job) -> None:
        device = _device(told["provider"])
        torch.set_num_threads(told["threads"])
        # ONNX Runtime is held to float32 too.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        loaded, _ = load_named(told["spec"])
        self._graph = expand(loaded)
        shapes = [
            (told["batch"], *self._graph.tensors[value].shape)
            for value in self._graph.inputs.values()
        ]
        self._given = [
            torch.from_numpy(sample(position, "float32", shape)).to(device)
            for position, shape in enumerate(shapes)
        ]
        module = to_torch(self._graph, weights=told["weights"]).eval().to(device)
        self._module: Any = torch.compile(module) if told["compiled"] else module
        self._wait = torch.cuda.synchronize if device == "cuda" else _done
        self.facts: Mapping[str, object] = {
            "engine": f"torch {torch.__version__.partition('+')[0]}",
            "provider": device,
            "threads": torch.get_num_threads(),
            "remarks": [],
            "inputs": [["float32", shape] for shape in shapes],
        }

    def run(self) -> None:
        """Run once."""
        self._result()
        self._wait()

    def outputs(self) -> Sequence[Array]:
        """Run once, and give what comes out."""
        named = named_outputs(self._graph, self._result(), training=False)
        return [tensor.cpu().numpy() for tensor in named.values()]

    def _result(self) -> Tensor | tuple[Tensor, ...]:
        with torch.inference_mode():
            result: Tensor | tuple[Tensor, ...] = self._module(*self._given)
        return result


def _device(provider: str) -> str:
    if provider == "cpu" or (provider == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        built: Any = torch.version.cuda
        raise EnvironmentFailure(
            "torch finds no GPU that it can use"
            if built
            else "the installed torch was built without CUDA"
        )
    return "cuda"


def _done() -> None:
    """On a CPU what has come back is done."""


def main(told: Job) -> None:
    """Run such a process."""
    serve(told, TorchContender)
