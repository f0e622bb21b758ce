"""What inference engines do not run, or only in floating point.

TensorRT is asked about the ONNX nodes that an op becomes, never about the op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from cnnspec.diagnostics import Diagnostic, warning
from cnnspec.ir import Graph
from cnnspec.lower import Node
from cnnspec.passes.facts import Facts
from cnnspec.passes.lint.finding import Finding, by_kind
from cnnspec.passes.sites import Kind, Sites

__all__ = ["TENSORRT", "not_quantizable", "not_tensorrt"]

TENSORRT = "10.1"
"""The release of onnx-tensorrt that is meant: operators by its docs/operators.md, forms of them by
what its parser refuses, which is less: it takes pooling along one axis and cubic resizing."""
_OPSET = 18

_UNSUPPORTED = frozenset(
    """
    AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow
    CenterCropPad Col2Im Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear
    HammingWindow HannWindow ImageDecoder MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix
    Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement QLinearConv
    QLinearMatMul RegexFullMatch STFT SequenceAt SequenceConstruct SequenceEmpty SequenceErase
    SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
    StringNormalizer StringSplit TfIdfVectorizer Unique
    """.split()
)
"""ONNX operators that TensorRT does not have."""

_Attributes = Mapping[str, object]


def _pooling(attributes: _Attributes) -> str:
    return "with dilations" if set(_numbers(attributes.get("dilations"))) - {1} else ""


def _resize(attributes: _Attributes) -> str:
    return "with antialiasing" if attributes.get("antialias") else ""


def _numbers(value: object) -> Sequence[object]:
    return value if isinstance(value, tuple | list) else ()


_RESTRICTED: Mapping[str, Callable[[_Attributes], str]] = {
    "AveragePool": _pooling,
    "MaxPool": _pooling,
    "LpPool": _pooling,
    "Resize": _resize,
}
"""How TensorRT does not run operators that it has otherwise."""


def _in_inference(
    graph: Graph, facts: Facts, check: Callable[[Kind], Diagnostic | None]
) -> Iterator[Finding]:
    """What `check` finds of the entries that inference runs."""
    inference = graph.inference
    for finding in by_kind(graph, facts[Sites], check):
        if finding.node.index in inference:
            yield finding


def not_tensorrt(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Entries whose ONNX form TensorRT does not run."""
    return _in_inference(graph, facts, _not_tensorrt)


def _not_tensorrt(kind: Kind) -> Diagnostic | None:
    refused = dict.fromkeys(filter(None, map(_refused, kind.op.onnx(kind.at, _OPSET))))
    if not refused:
        return None
    return warning(
        "not-tensorrt",
        f"TensorRT {TENSORRT} does not run ONNX's {', '.join(refused)}, to which this is exported",
        help="another operation, or a plugin of TensorRT's, would be needed",
    )


def _refused(node: Node) -> str:
    """How a node is called that TensorRT does not run; nothing where it does."""
    if node.op in _UNSUPPORTED:
        return f"`{node.op}`"
    how = _RESTRICTED[node.op](dict(node.attributes)) if node.op in _RESTRICTED else ""
    return f"`{node.op}` {how}" if how else ""


def not_quantizable(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Entries that int8 inference by ONNX Runtime on the CPU has to run in floating point."""
    return _in_inference(graph, facts, _not_quantizable)


def _not_quantizable(kind: Kind) -> Diagnostic | None:
    op, at = kind.op, kind.at
    harmless = op.quantizable or op.identity_at_inference or not at.inputs
    if harmless or op.channel_affine(at) is not None:
        return None
    return warning(
        "not-quantizable",
        f"ONNX Runtime has no int8 form of `{op.name}` and runs it in floating point",
        label=f"{at.y.elements:,} elements are converted there and back",
        help="an operation with an int8 form, such as ReLU for an activation, avoids that",
    )
