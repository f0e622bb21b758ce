"""What int8 is calibrated with: images, made into inputs as the spec says, or arrays.

What is done with the numbers may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure, listed, quantity
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

    `count` is the number of batches. `of` gives them as a file takes them that does so much of the
    preprocessing itself.
    """

    count: int
    of: Callable[[InGraph], Iterator[Feeds]]


def samples_of(graph: Graph, given: Calibration, batch: int | Literal["dynamic"]) -> Samples:
    """The batches that `given` is for the network, one image each unless `batch` is fixed.

    Raises `EnvironmentFailure` for images of a network that takes none, and where there are none.
    """
    if isinstance(given, (str, os.PathLike)):
        return _images(graph, given, 1 if batch == "dynamic" else batch)
    ready = tuple(given)
    if not ready:
        raise EnvironmentFailure("there is nothing to calibrate int8 with")
    for feeds in ready:
        if feeds.keys() != graph.inputs.keys():
            raise EnvironmentFailure(
                f"int8 is calibrated with inputs {listed(graph.inputs)}, not {listed(feeds)}"
            )
    return Samples(len(ready), lambda _: iter(ready))


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
    count = len(sources) // batch
    if not count:
        raise EnvironmentFailure(
            f"there are {quantity(len(sources), 'image')} in `{os.fspath(place)}`, fewer than "
            f"a batch of {batch}"
        )
    shape = graph.tensors[value].shape
    wanted = Preprocess.of(said)

    def batches(in_graph: InGraph) -> Iterator[Feeds]:
        taken: tuple[int | None, ...] = (None, *shape)
        if in_graph == "full":
            taken = (None, None, None, shape[0])
        dtype = "uint8" if in_graph == "full" else "float32"
        prepared = preparation(wanted, taken, dtype=dtype, in_graph=in_graph)
        for _, array in preprocessed(sources, prepared, batch):
            if len(array) == batch:
                yield {name: array}

    return Samples(count, batches)
