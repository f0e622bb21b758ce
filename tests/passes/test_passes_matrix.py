"""Matrices of linear operations: against torch, against what the lectures draw, and refusals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from cnnspec.diagnostics import EnvironmentFailure, Reject
from cnnspec.ops import bind, registry
from cnnspec.passes.matrix import Matrix, Symbol, matrix_of
from cnnspec.passes.matrix.form import CONSTANT, Form, NotAffineError
from cnnspec.tensor import Tensor, default_roles
from tests.ops.harness import Case, Interpreted, alone, cases, randomise, sample

NOT_LINEAR = frozenset(
    """
    AdaptiveMaxPool1d AdaptiveMaxPool2d AdaptiveMaxPool3d BatchNorm1d BatchNorm2d BatchNorm3d CELU
    ELU GELU GLU Gram GroupNorm Hardshrink Hardsigmoid Hardswish Hardtanh InstanceNorm1d
    InstanceNorm2d InstanceNorm3d LPPool1d LPPool2d LPPool3d LayerNorm LayerNorm2d LeakyReLU
    LocalResponseNorm LogSigmoid LogSoftmax MaxPool1d MaxPool2d MaxPool3d Maxout Mish
    MultiheadAttention Normalize PReLU PaperLRN Parameter RBF RMSNorm RReLU ReLU ReLU6 SELU
    ScaledTanh SiLU Sigmoid Softmax Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink
    Threshold matmul maximum mul
    """.split()
)
"""Operations without a matrix; `mul` and `maximum` of one tensor are that tensor."""
MOST_ENTRIES = 60_000


def image(channels: int, height: int, width: int) -> Tensor:
    roles = default_roles(3)
    assert roles is not None
    return Tensor((channels, height, width), roles)


def sequence(channels: int, length: int) -> Tensor:
    roles = default_roles(2)
    assert roles is not None
    return Tensor((channels, length), roles)


def matrix(op: str, x: Tensor, **arguments: object) -> Matrix:
    return matrix_of(bind(registry()[op], arguments), (x,), "layer")


def drawn(found: Matrix) -> list[str]:
    """The matrix as letters, a for the first weight, a dot for zero; single weights only."""
    rows = []
    for row in range(found.rows):
        cells = []
        for column in range(found.columns):
            entry = found.entries.get((row, column))
            if entry is None:
                cells.append(".")
                continue
            (((symbol,), number),) = entry.items()
            assert number == 1
            cells.append("abcdefghijklmnopqrstuvwxyz"[symbol])
        rows.append("".join(cells))
    return rows


# ------------------------------------------------------------------------------ against torch


@pytest.mark.parametrize("case", cases(), ids=str)
def test_the_matrix_times_the_input_is_the_layer(case: Case) -> None:
    op, site = case.bound()
    rows, columns = (sum(t.elements for t in ts) for ts in (site.outputs, site.inputs))
    if op.name in NOT_LINEAR:
        if len(site.inputs) == 1 and op.name.islower():
            return  # a join of one tensor is that tensor
        with pytest.raises(EnvironmentFailure):
            matrix_of(op, site.inputs, "layer")
        return
    if rows * columns > MOST_ENTRIES:
        return  # as the smaller examples of its operation
    found = matrix_of(op, site.inputs, "layer")
    module = Interpreted(alone(op, site.inputs)).double().eval()
    known = (name for name, buffer in op.buffers(site).items() if buffer.values is not None)
    randomise(module, frozenset(f"op.{name}" for name in known))
    state = module.state_dict()

    def value(symbol: Symbol) -> float:
        return float(state[f"op.{symbol.tensor}"][symbol.place])

    entries, offsets = found.numbers(value)
    given = [x.double() for x in sample(site.inputs, 1)]
    with torch.no_grad():
        expected = np.concatenate([y.reshape(-1).numpy() for y in module(*given)])
    flat = np.concatenate([x.reshape(-1).numpy() for x in given])
    assert np.abs(entries @ flat + offsets - expected).max() < 1e-6


def test_every_operation_is_either_linear_or_known_not_to_be() -> None:
    assert registry().keys() >= NOT_LINEAR


# -------------------------------------------------------------------------------- the lectures


def test_a_convolution_of_a_sequence_is_toeplitz() -> None:
    found = matrix("Conv1d", sequence(1, 5), out_channels=1, kernel_size=3, padding=1, bias=False)
    assert drawn(found) == ["bc...", "abc..", ".abc.", "..abc", "...ab"]
    assert (found.weights, found.band, len(found.entries)) == (3, (1, 1), 13)
    assert [(a.role, a.outputs, a.stride, a.wraps) for a in found.repeats] == [
        ("length", 1, 1, False)
    ]


def test_the_full_convolution_has_more_rows_than_columns() -> None:
    found = matrix("Conv1d", sequence(1, 3), out_channels=1, kernel_size=3, padding=2, bias=False)
    assert drawn(found) == ["c..", "bc.", "abc", ".ab", "..a"]


def test_a_locally_connected_layer_shares_nothing() -> None:
    found = matrix(
        "LocallyConnected1d",
        sequence(1, 5),
        out_channels=1,
        kernel_size=3,
        padding=1,
        bias=False,
        padding_weights=False,
    )
    assert drawn(found) == ["ab...", "cde..", ".fgh.", "..ijk", "...lm"]
    assert found.weights == len(found.entries) == 3 * 5 - 2
    assert found.repeats == ()


def test_a_linear_layer_is_dense() -> None:
    found = matrix("Linear", Tensor((3,), default_roles(1) or ()), out_features=2)
    assert drawn(found) == ["abc", "def"]
    assert [dict(entry) for entry in found.offsets] == [{(6,): 1}, {(7,): 1}]


def test_a_stride_moves_the_columns_on() -> None:
    found = matrix("Conv1d", sequence(1, 7), out_channels=1, kernel_size=3, stride=2, bias=False)
    assert drawn(found) == ["abc....", "..abc..", "....abc"]
    assert [(a.outputs, a.stride) for a in found.repeats] == [(1, 2)]


def test_an_image_gives_blocks() -> None:
    found = matrix("Conv2d", image(1, 3, 4), out_channels=1, kernel_size=2, bias=False)
    assert drawn(found) == [
        "ab..cd......",
        ".ab..cd.....",
        "..ab..cd....",
        "....ab..cd..",
        ".....ab..cd.",
        "......ab..cd",
    ]
    assert [axis.role for axis in found.repeats] == ["height", "width"]


def test_circular_padding_is_circulant() -> None:
    found = matrix(
        "Conv1d",
        sequence(1, 5),
        out_channels=1,
        kernel_size=3,
        padding=1,
        padding_mode="circular",
        bias=False,
    )
    assert drawn(found) == ["bc..a", "abc..", ".abc.", "..abc", "c..ab"]
    assert [axis.wraps for axis in found.repeats] == [True]


def test_reflected_padding_breaks_the_pattern() -> None:
    found = matrix(
        "Conv1d",
        sequence(1, 5),
        out_channels=1,
        kernel_size=3,
        padding=1,
        padding_mode="reflect",
        bias=False,
    )
    assert found.entries[0, 1] == {(0,): 1, (2,): 1}
    assert found.repeats == ()


def test_a_transposed_convolution_is_the_transposed_matrix() -> None:
    there = matrix("Conv1d", sequence(1, 7), out_channels=1, kernel_size=3, stride=2, bias=False)
    back = matrix(
        "ConvTranspose1d", sequence(1, 3), out_channels=1, kernel_size=3, stride=2, bias=False
    )
    assert drawn(back) == ["".join(column) for column in zip(*drawn(there), strict=True)]


def test_averages_are_fractions() -> None:
    found = matrix("AvgPool2d", image(1, 3, 3), kernel_size=3)
    assert [dict(entry) for entry in found.entries.values()] == [{(): Fraction(1, 9)}] * 9
    assert found.weights == 0


def test_identities_and_permutations() -> None:
    assert matrix("Flatten", image(2, 2, 2)).identity
    shuffled = matrix("PixelShuffle", image(4, 2, 2), upscale_factor=2)
    assert (shuffled.permutation, shuffled.identity) == (True, False)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("op", ["ReLU", "Softmax2d"])
def test_what_is_not_linear(op: str) -> None:
    with pytest.raises(EnvironmentFailure, match=f"`layer` is `{op}`, which is not linear"):
        matrix(op, image(2, 3, 3))


def test_a_norm_is_diagonal() -> None:
    with pytest.raises(EnvironmentFailure, match="diagonal"):
        matrix("BatchNorm2d", image(2, 3, 3))


def test_a_matrix_that_is_too_large() -> None:
    with pytest.raises(EnvironmentFailure, match="50,176 x 50,176 entries") as caught:
        matrix("Conv2d", image(1, 224, 224), out_channels=1, kernel_size=3, padding=1)
    assert "--at" in caught.value.help


def test_an_input_that_the_layer_does_not_take() -> None:
    with pytest.raises(Reject):
        matrix("Conv2d", image(1, 2, 2), out_channels=1, kernel_size=3)


# --------------------------------------------------------------------------------------- forms


def test_forms_are_affine_in_the_input() -> None:
    x, w = Form({(0, ()): 1}), Form({(CONSTANT, (0,)): 1})
    assert (2 * x * w + 1 - x).terms == {(0, (0,)): 2, (CONSTANT, ()): 1, (0, ()): -1}
    assert (x - x).terms == {}
    assert (x / 4 * 4).terms == x.terms
    assert (w * w).terms == {(CONSTANT, (0, 0)): 1}
    for wrong in (lambda: x * x, lambda: 1 / x, lambda: x**2, lambda: x / w):
        with pytest.raises(NotAffineError):
            wrong()
