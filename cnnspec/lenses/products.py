"""Multiply-accumulates of torch's layers, from the sizes a tool sees. Several tools share them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from cnnspec.lenses.execution import Shape, Step
from cnnspec.lenses.lens import Charge, Rule, Unknown

__all__ = [
    "CONVOLUTIONS",
    "DENSE",
    "FUNCTIONS",
    "MATMUL",
    "TRANSPOSED",
    "attention",
    "convolution",
    "linear",
    "matmul",
    "product",
    "transposed",
]

CONVOLUTIONS = ("nn.Conv1d", "nn.Conv2d", "nn.Conv3d")
TRANSPOSED = ("nn.ConvTranspose1d", "nn.ConvTranspose2d", "nn.ConvTranspose3d")
FUNCTIONS = (
    *("@", "torch.matmul", "torch.bmm", "torch.einsum", "F.linear"),
    *("F.conv1d", "F.conv2d", "F.conv3d"),
    *("F.conv_transpose1d", "F.conv_transpose2d", "F.conv_transpose3d"),
)
"""Calls that are not of modules and compute products, in a trace or as aten runs them."""

_SIZES = "the sizes of its input are not known"


def product(count: Callable[[Step], int | Unknown], why: str) -> Rule:
    """The rule of a tool that counts products in one of the ways below."""

    def rule(step: Step) -> Sequence[Charge] | Unknown:
        found = count(step)
        return found if isinstance(found, Unknown) else (Charge(found, why, True),)

    return rule


def convolution(step: Step) -> int | Unknown:
    """Every weight at every output position."""
    return _at_positions(step, step.output)


def transposed(step: Step) -> int | Unknown:
    """Every weight at every input position."""
    return _at_positions(step, step.x)


def _at_positions(step: Step, shape: Shape | None) -> int | Unknown:
    if shape is None:
        return Unknown(_SIZES)
    return shape[0] * prod(shape[2:]) * prod(step.weights["weight"])


def linear(step: Step) -> int | Unknown:
    """The weight matrix for each row of the input."""
    if step.x is None:
        return Unknown(_SIZES)
    return prod(step.x) * step.weights["weight"][0]


def matmul(step: Step) -> int | Unknown:
    """Elements of the output times the length of a row."""
    if step.output is None or step.x is None:
        return Unknown(_SIZES)
    return prod(step.output) * step.x[-1]


def attention(step: Step) -> int | Unknown:
    """Four projections, the scores of all pairs of tokens, and the mixtures."""
    if step.x is None:
        return Unknown(_SIZES)
    batch, tokens, features = step.x
    return batch * (4 * tokens * features * features + 2 * tokens * tokens * features)


DENSE: Mapping[str, Rule] = {
    **dict.fromkeys(CONVOLUTIONS, product(convolution, "all weights at all output positions")),
    **dict.fromkeys(TRANSPOSED, product(transposed, "all weights at all input positions")),
    "nn.Linear": product(linear, "the whole matrix for each row"),
}
"""Rules of layers whose every weight a tool counts, for padding too."""

MATMUL = product(matmul, "the product of matrices")
"""The rule of a tool that counts products of matrices."""
