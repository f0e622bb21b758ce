"""Networks for the lenses: facts without a report, and modules without started weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import cnnspec
from cnnspec.backends.torch.emit import write
from cnnspec.ir import Graph
from cnnspec.lenses import LENSES, Reading, read
from cnnspec.passes import Options, run

__all__ = ["inputs_of", "module_of", "readings_of", "text_of"]


def readings_of(graph: Graph) -> Mapping[str, Reading]:
    """A network through every lens."""
    facts = run(graph, Options())
    return {name: read(graph, facts, lens) for name, lens in LENSES.items()}


def module_of(graph: Graph, device: str = "cpu") -> nn.Module:
    """The module, its weights whatever the memory holds: what tools count does not depend on it."""
    source = write(graph)
    namespace: dict[str, Any] = {"__name__": "written"}
    exec(compile(source.text, "<written>", "exec"), namespace)
    with torch.device("meta"):
        module: nn.Module = namespace[source.network]().eval()
    if device == "meta":
        return module
    module.to_empty(device=device)
    for buffer in module.buffers():
        buffer.zero_()  # indices must be some
    return module


def inputs_of(graph: Graph, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Zeros with a batch of 1, by the name of the input."""
    return {
        name: torch.zeros(1, *graph.tensors[value].shape, device=device)
        for name, value in graph.inputs.items()
    }


def text_of(text: str) -> Graph:
    """The graph of a spec's text."""
    return cnnspec.load(text=text).graph
