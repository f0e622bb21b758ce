"""What int8 is calibrated with: images, made into inputs as the spec says, or arrays.

What is done with the numbers may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure, listed, quantity, shape_text
from cnnspec.ir import Graph
from cnnspec.metadata import InGraph, Preprocess
from cnnspec.runtime.images import find_images, preprocessed
from cnnspec.runtime.preparing import preparation

__all__ = ["Calibration", "Feeds", "Samples", "samples_of"]

Feeds = Mapping[str, NDArray[Any]]
"""Arrays by the name of the input they go to, the batch first."""

Calibration = str | os.PathLike[str] | Iterable[Feeds]
"""A folder or pattern of images, or batches that are ready."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Batches to calibrate with, read anew each time they are asked for.

    `count` is the number of batches, if all images are of one size. `of` gives them as a file takes
    them that does so much of the preprocessing itself; arrays, which are inputs of the network, are
    None for a file that does any.
    """

    count: int
    of: Callable[[InGraph], Iterator[Feeds] | None]


def samples_of(graph: Graph, given: Calibration, batch: int | Literal["dynamic"]) -> Samples:
    """The batches that `given` is for the network, one image each unless `batch` is fixed.

    Raises `EnvironmentFailure` for images of a network that takes none, for arrays that are not its
    inputs, and where there is nothing.
    """
    if isinstance(given, (str, os.PathLike)):
        return _images(graph, given, 1 if batch == "dynamic" else batch)
    ready = tuple(_inputs(graph, feeds, batch) for feeds in given)
    if not ready:
        raise EnvironmentFailure("there is nothing to calibrate int8 with")
    return Samples(len(ready), lambda in_graph: iter(ready) if in_graph == "none" else None)


def _inputs(graph: Graph, given: Feeds, batch: int | Literal["dynamic"]) -> Feeds:
    """One batch of arrays as the network takes them."""
    if not isinstance(given, Mapping):
        raise EnvironmentFailure("int8 is calibrated with batches of arrays by input name")
    if given.keys() != graph.inputs.keys():
        raise EnvironmentFailure(
            f"int8 is calibrated with inputs {listed(graph.inputs)}, not {listed(given)}"
        )
    found = {name: np.asarray(array) for name, array in given.items()}
    for name, array in found.items():
        shape = graph.tensors[graph.inputs[name]].shape
        if array.shape[1:] != shape or not array.size or array.dtype.kind not in "biuf":
            raise EnvironmentFailure(
                f"int8 is calibrated with batches of {shape_text(shape)} numbers as `{name}`, not "
                f"with {shape_text(array.shape)} of type {array.dtype}"
            )
        if batch not in ("dynamic", len(array)):
            raise EnvironmentFailure(
                f"int8 is calibrated with batches of {batch} here, not of {len(array)}"
            )
        if not np.isfinite(array).all():
            raise EnvironmentFailure(f"int8 is calibrated with finite numbers only as `{name}`")
    return {name: array.astype(np.float32, copy=False) for name, array in found.items()}


def _images(graph: Graph, place: str | os.PathLike[str], batch: int) -> Samples:
    said = graph.metadata.get("preprocess")
    if not said or len(graph.inputs) != 1:
        why = (
            f"it has {quantity(len(graph.inputs), 'input')}"
            if len(graph.inputs) != 1
            else "its spec has no `preprocess`"
        )
        raise EnvironmentFailure(
            f"images cannot become inputs of `{graph.name}`: {why}",
            help="in Python, `to_onnx(..., calibration=...)` takes arrays by input name",
        )
    ((name, value),) = graph.inputs.items()
    sources = find_images([place])
    shape = graph.tensors[value].shape
    wanted = Preprocess.of(said)

    def batches(in_graph: InGraph) -> Iterator[Feeds]:
        taken: tuple[int | None, ...] = (None, *shape)
        if in_graph == "full":
            taken = (None, None, None, shape[0])
        dtype = "uint8" if in_graph == "full" else "float32"
        prepared = preparation(wanted, taken, dtype=dtype, in_graph=in_graph)
        for _, array in preprocessed(sources, prepared, batch):
            # A batch that lacks images has its own once more.
            yield {name: np.resize(array, (batch, *array.shape[1:]))}

    return Samples(-(-len(sources) // batch), batches)
