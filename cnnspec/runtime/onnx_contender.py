"""An ONNX file as a contender, in a process of its own. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import onnxruntime

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Precision
from cnnspec.runtime.model_file import ModelFile, Port, open_model
from cnnspec.runtime.providers import Settings, Wanted
from cnnspec.runtime.serving import Array, Job, sample, serve
from cnnspec.runtime.session import Session

__all__ = ["MODULE", "OnnxContender", "batch_of", "job", "main", "precision_of", "shapes_of"]

MODULE = "cnnspec.runtime.onnx_contender"
"""What a process of a file runs."""

_LARGEST = 2**33
"""Bytes of an input that make sense."""


def job(
    path: str,
    shapes: Mapping[str, Sequence[int]],
    *,
    provider: Wanted,
    threads: int,
    graph: bool = False,
) -> Job:
    """What the process of a file is told: inputs have these shapes, with the batch."""
    return {
        "path": path,
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "provider": provider,
        "threads": threads,
        "graph": graph,
    }


class OnnxContender:
    """A file in ONNX Runtime. Inputs and outputs stay where it computes."""

    def __init__(self, told: Job) -> None:
        model = open_model(told["path"])
        shapes = told["shapes"]
        session = Session(
            model,
            provider=cast(Wanted, told["provider"]),
            threads=told["threads"],
            sizes=_named_sizes(model, shapes) if told["graph"] else None,
            settings=Settings(graph=told["graph"]),
        )
        self._feeds = {
            port.name: sample(position, port.dtype, shapes[port.name])
            for position, port in enumerate(model.inputs)
        }
        self._bound = session.bound(self._feeds)
        self._order = [port.name for port in model.outputs]
        self.facts: Mapping[str, object] = {
            "engine": f"ONNX Runtime {onnxruntime.__version__}",
            "provider": session.provider,
            "threads": session.threads,
            "remarks": [
                *session.remarks,
                *(["CUDA graphs are recorded and replayed"] if session.graph else []),
            ],
            "inputs": [[port.dtype, shapes[port.name]] for port in model.inputs],
        }

    def run(self) -> None:
        """Run once."""
        self._bound.run()

    def outputs(self) -> Sequence[Array]:
        """Run once, and give what comes out."""
        self._bound.run()
        found = self._bound.results()
        return [found[name] for name in self._order]


def _named_sizes(model: ModelFile, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    return {
        size: shapes[port.name][axis]
        for port in model.inputs
        for axis, size in enumerate(port.shape or ())
        if isinstance(size, str)
    }


# -------------------------------------------------------------------------------- what it is fed


def precision_of(model: ModelFile) -> Precision:
    """What a file computes in: what it says, or what its nodes and weights look like."""
    if model.metadata is not None:
        return model.metadata.precision
    if any("Quantize" in name or "QLinear" in name for name in model.nodes):
        return "int8"
    return "float16" if "float16" in model.stored else "float32"


def batch_of(model: ModelFile) -> int | None:
    """The only batch that a file takes, None where it takes any."""
    first = {port.shape[0] for port in model.inputs if port.shape}
    fixed = [size for size in first if isinstance(size, int)]
    return fixed[0] if fixed else None


def shapes_of(
    model: ModelFile,
    batch: int,
    given: Mapping[str, Sequence[int]] = MappingProxyType({}),
    usual: Sequence[Sequence[int]] = (),
) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs, with the batch, by name.

    Free sizes are those of `given` (without the batch, by name), else those that the file was
    exported at, else those of `usual` at the input's position.

    Raises `EnvironmentFailure` for a size that nobody says, and one that the file does not take.
    """
    if not model.inputs:
        raise EnvironmentFailure(f"`{model.path}` has no input")
    return {
        port.name: _shape(model, port, batch, given.get(port.name), usual[position : position + 1])
        for position, port in enumerate(model.inputs)
    }


def _shape(
    model: ModelFile,
    port: Port,
    batch: int,
    given: Sequence[int] | None,
    usual: Sequence[Sequence[int]],
) -> tuple[int, ...]:
    what = f"input `{port.name}` of `{model.path}`"
    own = port.shape
    if port.dtype in ("", "string"):
        raise EnvironmentFailure(f"{what} takes no numbers")
    if own == ():
        return ()
    known = given or _exported(model, port) or next(iter(usual), None)
    if own is None or any(not isinstance(size, int) for size in own[1:]):
        if known is None:
            raise EnvironmentFailure(
                f"{what} is {port}, which leaves sizes open",
                help=f"--input {port.name}=3x224x224, without the batch, says what to measure",
            )
        own = own or (None,) * (len(known) + 1)
    rest = own[1:] if known is None else tuple(known)
    if len(rest) != len(own) - 1 or not all(map(_takes, own, (batch, *rest))):
        shown = " x ".join(map(str, (batch, *rest)))
        raise EnvironmentFailure(f"{what} is {port}, and does not take {shown}")
    found = (batch, *(size for size in rest if isinstance(size, int)))
    _refuse_absurd(what, found)
    return found


def _exported(model: ModelFile, port: Port) -> tuple[int, ...] | None:
    """The sizes that a file of ours was exported at, without the batch."""
    about = model.metadata
    sizes: Any = about.inputs.get(port.name) if about else None
    if not sizes or not all(isinstance(size, int) for size in sizes):
        return None
    if about is not None and about.in_graph == "full" and len(sizes) == 3:
        return (*sizes[1:], sizes[0])
    return tuple(sizes)


def _takes(declared: int | str | None, size: int | str | None) -> bool:
    return size == declared if isinstance(declared, int) else isinstance(size, int)


def _refuse_absurd(what: str, shape: Sequence[int]) -> None:
    elements = 1
    for size in shape:
        elements *= size
    if elements > _LARGEST // 4 or min(shape) < 1:
        raise EnvironmentFailure(f"{what} would have {elements:,} elements")


def main(told: Job) -> None:
    """Run such a process."""
    serve(told, OnnxContender)
