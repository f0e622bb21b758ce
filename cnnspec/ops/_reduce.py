"""What norms and pools share: statistics as ONNX nodes in each opset's form, cost, weights.

Only what several op files need may be here; no op.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cnnspec.lower import Node, OnnxValue, Out, Own, Tmp, const, node
from cnnspec.op import Ops
from cnnspec.weights import Weight, constant

__all__ = [
    "max_nodes",
    "mean_nodes",
    "norm_cost",
    "per_channel_nodes",
    "scale_and_shift",
    "standardise_nodes",
]


def scale_and_shift(shape: tuple[int, ...], *, bias: bool = True) -> Mapping[str, Weight]:
    """`weight` of ones and, if wanted, `bias` of zeros: the result of a norm stays as it is."""
    found = {"weight": Weight(shape, constant(1.0), decay=False)}
    if bias:
        found["bias"] = Weight(shape, constant(0.0), decay=False)
    return found


def mean_nodes(
    x: OnnxValue, axes: Sequence[int], opset: int, to: Tmp | Out, *, keepdims: bool = True
) -> tuple[Node, ...]:
    """ReduceMean over `axes`."""
    return _reduced("ReduceMean", x, axes, opset, to, keepdims)


def max_nodes(
    x: OnnxValue, axes: Sequence[int], opset: int, to: Tmp | Out, *, keepdims: bool = True
) -> tuple[Node, ...]:
    """ReduceMax over `axes`."""
    return _reduced("ReduceMax", x, axes, opset, to, keepdims)


def _reduced(
    op: str, x: OnnxValue, axes: Sequence[int], opset: int, to: Tmp | Out, keepdims: bool
) -> tuple[Node, ...]:
    """A reduction, whose axes became an input with opset 18."""
    if opset < 18:
        return (node(op, x, to=to, axes=list(axes), keepdims=int(keepdims)),)
    where = const(tuple(axes), "int64")
    return (node(op, x, where, to=to, keepdims=int(keepdims)),)


def standardise_nodes(
    x: OnnxValue, axes: Sequence[int], eps: float, opset: int, to: Tmp | Out
) -> tuple[Node, ...]:
    """`(x - mean) / sqrt(var + eps)` with mean and (biased) variance over `axes`."""
    mean, centred, squared = Tmp("mean"), Tmp("centred"), Tmp("squared")
    variance, safe, deviation = Tmp("variance"), Tmp("safe"), Tmp("deviation")
    return (
        *mean_nodes(x, axes, opset, mean),
        node("Sub", x, mean, to=centred),
        node("Mul", centred, centred, to=squared),
        *mean_nodes(squared, axes, opset, variance),
        node("Add", variance, const(eps), to=safe),
        node("Sqrt", safe, to=deviation),
        node("Div", centred, deviation, to=to),
    )


def per_channel_nodes(
    x: OnnxValue, sizes: Sequence[int], to: Tmp | Out, *, bias: bool
) -> tuple[Node, ...]:
    """`x`, whose sizes without batch are `sizes`, times `weight` and plus `bias` per channel."""
    lying = const((sizes[0], *(1,) * (len(sizes) - 1)), "int64")
    scale = node("Reshape", Own("weight"), lying, to=Tmp("scale"))
    if not bias:
        return scale, node("Mul", x, Tmp("scale"), to=to)
    return (
        scale,
        node("Mul", x, Tmp("scale"), to=Tmp("scaled")),
        node("Reshape", Own("bias"), lying, to=Tmp("shift")),
        node("Add", Tmp("scaled"), Tmp("shift"), to=to),
    )


def norm_cost(elements: int, sets: int, *, scaled: bool, shifted: bool) -> Ops:
    """Cost of standardising `elements` in `sets` of equal statistics, then scale and shift.

    Each set has a mean, a variance (each a sum and a division), an epsilon, a root and its
    reciprocal; each element is centred, squared and multiplied by that reciprocal.
    """
    return Ops(
        add=3 * elements - 2 * sets + sets + elements * shifted,
        mul=2 * elements + elements * scaled,
        div=3 * sets,
        exp=sets,
    )
