"""What stands between a linear op and the norm behind it, which inference would fold into it."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import quantity, warning
from cnnspec.ir import Graph, Node
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding
from cnnspec.passes.sites import Kind, Sites

__all__ = ["bias_before_norm", "unfoldable_norm"]


def bias_before_norm(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Biases that the norm behind them takes away again, by subtracting the mean."""
    found = facts[Sites]
    norms = [kind.op.forgets_shifts(kind.at) for kind in found.kinds]
    biases = [_bias(kind) for kind in found.kinds] if any(norms) else []
    if not any(biases):
        return
    shared = {node.share for node in graph.nodes if node.share is not None}
    kept = {output.value for output in graph.outputs}
    for node in graph.nodes:
        elements = biases[found.of[node.index]]
        if not elements or node.share is not None or node.index in shared:
            continue
        readers = graph.consumers[node.outputs[0]]
        folds = all(norms[found.of[reader]] for reader in readers)
        if not readers or not folds or node.outputs[0] in kept:
            continue
        norm = graph.nodes[readers[0]]
        help = "say `bias: false`: what the network computes stays the same"
        if "bias" not in node.op.arguments():
            help = "say `allow: [bias-before-norm]`, as the layer always has a bias"
        yield Finding(
            warning(
                "bias-before-norm",
                f"the bias of `{node.path}` has no effect: `{norm.path}` subtracts the mean",
                label=f"{quantity(elements, 'parameter')} for nothing",
                help=help,
            ),
            node.path,
            node,
        )


def _bias(kind: Kind) -> int:
    """Elements of the bias of a linear op; 0 where there is none."""
    linear = kind.op.linear_map(kind.at)
    if linear is None or linear.bias is None:
        return 0
    return kind.op.weights(kind.at)[linear.bias].elements


def unfoldable_norm(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Norms of fixed statistics that do not fold into what stands before them."""
    found = facts[Sites]
    for node in graph.nodes:
        kind = found.kinds[found.of[node.index]]
        if kind.op.channel_affine(kind.at) is None or node.index not in graph.inference:
            continue
        reason = _obstacle(graph, found, node)
        if reason:
            yield Finding(
                warning(
                    "unfoldable-norm",
                    f"`{node.path}` does not fold into the layer before it: {reason}",
                    label=f"{kind.at.y.elements:,} elements to scale and shift at inference",
                    help="put it directly behind a convolution or linear layer that nothing else "
                    "reads, or say `allow: [unfoldable-norm]`",
                ),
                node.path,
                node,
            )


def _obstacle(graph: Graph, found: Sites, norm: Node) -> str:
    """Why a norm does not fold into its producer; nothing where it does."""
    source = norm.inputs[0]
    producer = graph.producers[source]
    if producer < 0:
        return "it reads the network's input"
    before = graph.nodes[producer]
    kind: Kind = found.kinds[found.of[producer]]
    if kind.op.linear_map(kind.at) is None:
        return f"`{before.path}` is no linear map"
    readers = len(graph.consumers[source])
    if readers > 1:
        return f"{readers} entries read `{before.path}`"
    if any(output.value == source for output in graph.outputs):
        return f"`{before.path}` is an output of the network"
    return ""
