"""Running a model on calibration inputs and looking at every tensor in between.

No precision is decided here. Memory holds one sample's tensors at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["Array", "Feeds", "Progress", "observed", "with_outputs"]

_LARGEST = 2**31 - 2**24
"""Bytes of weights in one message: protobuf ends at 2 GiB, with room left for the nodes."""

Array = NDArray[np.generic]

Feeds = Mapping[str, Array]
"""What a model is given, by input name."""

Progress = Callable[[int], None]
"""Called behind every sample with the number of samples so far."""


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of `model` that also gives out the tensors of those names."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    have = {output.name for output in model.graph.output}
    wider.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in have
    )
    return wider


def observed(
    model: onnx.ModelProto,
    names: Sequence[str],
    samples: Iterable[Feeds],
    progress: Progress | None = None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Each tensor of `names` for each sample, as ONNX Runtime computes it on the CPU.

    Graph inputs among the names are given back as they came. Raises `EnvironmentFailure` for a
    value that is not finite, for no samples at all, and for weights above 2 GB.
    """
    size = sum(len(each.raw_data) for each in model.graph.initializer)
    if size > _LARGEST:
        raise EnvironmentFailure(
            f"the weights take {size / 1e9:.1f} GB, more than the 2 GB one ONNX file holds",
            help="calibration runs the model from memory, without files beside it",
        )
    inputs = {each.name for each in model.graph.input}
    inner = [name for name in names if name not in inputs]
    runtime = session(
        with_outputs(model, inner).SerializeToString(),
        optimise=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    )
    count = 0
    for count, feeds in enumerate(samples, start=1):
        for name, value in zip(
            inner, runtime.run(inner, dict(feeds)) if inner else (), strict=True
        ):
            yield name, _finite(name, value)
        for name in names:
            if name in inputs:
                yield name, _finite(name, np.asarray(feeds[name]))
        if progress is not None:
            progress(count)
    if not count:
        raise EnvironmentFailure(
            "there is nothing to calibrate with", help="some ten to hundred inputs are needed"
        )


def _finite(name: str, value: Array) -> NDArray[np.float32]:
    array = value.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise EnvironmentFailure(f"`{name}` has values that are not finite, in float32 already")
    return array
