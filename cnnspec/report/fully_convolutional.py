"""The spec of a network whose fully connected head is convolutions, and remarks on how.

What becomes of which layer is decided in `cnnspec.passes.convolutional`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cnnspec.ir import Graph
from cnnspec.passes.convolutional import Change, fully_convolutional
from cnnspec.report.arguments import arguments_text, short_arguments
from cnnspec.report.flat import FlatNetwork
from cnnspec.report.model import analyze
from cnnspec.report.styled import visible

__all__ = ["ConvolutionalSpec", "convolutional_spec"]


@dataclass(frozen=True, slots=True)
class ConvolutionalSpec:
    """The text of the spec, its name, and a line for each layer that was changed."""

    name: str
    text: str
    remarks: tuple[str, ...]


def convolutional_spec(graph: Graph) -> ConvolutionalSpec:
    """Rewrite a network; it expects the params and MACs that the original has at this size.

    Raises `EnvironmentFailure` where that cannot be done, naming the layer.
    """
    rewritten = fully_convolutional(graph)
    remarks = tuple(map(_remark, rewritten.changes))
    totals = analyze(graph).totals
    text = FlatNetwork(rewritten.graph).spec({"params": totals.params, "macs": totals.macs})
    head, _, rest = text.partition("\n")
    return ConvolutionalSpec(
        rewritten.graph.name, "\n".join((head, *_header(remarks), rest)), remarks
    )


def _header(remarks: tuple[str, ...]) -> Iterator[str]:
    yield "# Its head is convolutions, with the same weights in the same order:"
    for remark in remarks:
        yield f"#   {remark}"


def _remark(change: Change) -> str:
    path = visible(change.path)
    why = f": {change.why}" if change.why else ""
    if change.now is None:
        return f"{path}  {change.before.name} is left out{why}"
    arguments = arguments_text(short_arguments(change.now))
    return f"{path}  {change.before.name} becomes {change.now.name} {arguments}".rstrip() + why
