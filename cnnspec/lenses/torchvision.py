"""torchvision: the `_ops` of its weights and the GFLOPS column of its model tables.

Multiply-accumulates of convolutions and products of matrices as aten runs them, in units of 10^9
and called flops: its script `get_ops` (test/common_extended_utils.py) counts mm, addmm, bmm and
convolution. Attention counts with its two products, as in the published figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cnnspec.lenses.execution import Step
from cnnspec.lenses.lens import Charge, Lens, Printed, Rule, Seen, Unknown, remaining
from cnnspec.lenses.products import DENSE, FUNCTIONS, MATMUL, attention, product

__all__ = ["TORCHVISION"]


_RULES: Mapping[str, Rule] = {
    **DENSE,
    "nn.MultiheadAttention": product(attention, "projections and the products of tokens"),
    **dict.fromkeys(("@", "torch.matmul", "torch.bmm"), MATMUL),
}

_PRODUCTS = (*FUNCTIONS, ".matmul", ".bmm")


def _charges(step: Step) -> Sequence[Charge] | Unknown:
    if step.target in _RULES:
        return _RULES[step.target](step)
    return remaining(step, _PRODUCTS, (), "the dense product that torch computes")


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    yield Printed("_ops", str(round(seen.total / 1e9, 3)))
    yield Printed("GFLOPS", f"{round(seen.total / 1e9, 3):.2f}")
    yield Printed("num_params", str(params))


TORCHVISION = Lens(
    name="torchvision",
    tool="torchvision 0.15 to 0.29",
    call='weights.meta["_ops"]',
    figure="GFLOPS, each a multiply-accumulate",
    blind="no product of matrices that aten runs",
    rule=_charges,
    trainable_only=False,
    say=_say,
)
"""torchvision's published figures."""
