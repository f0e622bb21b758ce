"""Small specs, and what tests of the language ask of them."""

from __future__ import annotations

from textwrap import dedent

import pytest

import cnnspec
from cnnspec import SpecError
from cnnspec.ir import Graph
from cnnspec.op import Op
from cnnspec.weights import Buffer, Weight

__all__ = [
    "built",
    "faults",
    "graph",
    "keys",
    "op",
    "outputs",
    "readers",
    "said",
    "shape",
    "spec",
]

HEAD = "cnnspec: 1\nname: net\n"
INPUTS = "inputs: {x: [3, 8, 8]}\n"


def spec(text: str) -> str:
    """A whole spec, with an image of 3x8x8 as input `x` unless the text has inputs."""
    text = dedent(text)
    return HEAD + ("" if "\ninputs:" in f"\n{text}" else INPUTS) + text


def graph(
    text: str,
    *,
    variant: str | None = None,
    params: dict[str, object] | None = None,
    inputs: dict[str, object] | None = None,
) -> Graph:
    """The network of a small spec."""
    return cnnspec.load(text=spec(text), variant=variant, params=params, inputs=inputs).graph


def built(net: Graph | str) -> dict[str, str]:
    """The operation at each path, in order of execution."""
    net = graph(net) if isinstance(net, str) else net
    return {node.path: node.op.name for node in net.nodes}


def keys(net: Graph | str) -> dict[str, tuple[int, ...]]:
    """The state dict: shapes by key."""
    net = graph(net) if isinstance(net, str) else net
    found: dict[str, tuple[int, ...]] = {}
    for node in net.nodes:
        if node.share is None:
            at = net.site(node)
            stored: dict[str, Weight | Buffer] = {**node.op.weights(at), **node.op.buffers(at)}
            for name, tensor in stored.items():
                found[f"{node.path}.{name}" if name else node.path] = tensor.shape
    return found


def op(net: Graph | str, path: str) -> Op:
    """The operation at a path."""
    net = graph(net) if isinstance(net, str) else net
    return net.by_path[path].op


def outputs(net: Graph | str) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's outputs by name."""
    net = graph(net) if isinstance(net, str) else net
    return {output.name: net.tensors[output.value].shape for output in net.outputs}


def shape(net: Graph | str) -> tuple[int, ...]:
    """The shape of the only output."""
    ((_, found),) = outputs(net).items()
    return found


def readers(net: Graph | str, path: str) -> tuple[str, ...]:
    """The names of what the node at a path reads."""
    net = graph(net) if isinstance(net, str) else net
    return tuple(net.value_name(value) for value in net.by_path[path].inputs)


def faults(text: str, *, variant: str | None = None) -> list[tuple[str, int]]:
    """Codes and lines of what is wrong. Line 1 is the first of `text`, empty after three quotes."""
    whole = spec(text)
    before = whole[: whole.index(dedent(text))].count("\n")
    with pytest.raises(SpecError) as failure:
        cnnspec.load(text=whole, variant=variant)
    return [
        (found.code, found.span.line - before if found.span else 0)
        for found in failure.value.diagnostics
    ]


def said(text: str) -> str:
    """Messages, notes and help of what is wrong."""
    with pytest.raises(SpecError) as failure:
        cnnspec.load(text=spec(text))
    return "\n".join(
        part
        for found in failure.value.diagnostics
        for part in (
            found.message,
            found.label,
            *(note.message for note in found.notes),
            found.help,
        )
        if part
    )
