"""What layers refuse: the code, the words, and what is to blame."""

from __future__ import annotations

from typing import Any

import pytest

from cnnspec.diagnostics import Reject
from cnnspec.ops import bind, registry
from cnnspec.tensor import Role, Tensor
from tests.ops.sites import refusal

CASES: list[tuple[str, dict[str, Any], tuple[int, ...], str, str, str | int]] = [
    (
        "Conv2d",
        {"out_channels": 4, "kernel_size": 3},
        (3, 8),
        "input-rank",
        "`Conv2d` needs channels and 2 spatial axes, its input is 3x8",
        0,
    ),
    (
        "Conv2d",
        {"out_channels": 4, "kernel_size": 3, "groups": 2},
        (3, 8, 8),
        "groups-divide",
        "3 input channels cannot be split into 2 groups",
        "groups",
    ),
    (
        "Conv2d",
        {"out_channels": 3, "kernel_size": 3, "groups": 2},
        (4, 8, 8),
        "groups-divide",
        "3 output channels cannot be split into 2 groups",
        "groups",
    ),
    (
        "Conv2d",
        {"out_channels": 4, "kernel_size": [3, 5], "dilation": 2, "padding": 1},
        (3, 8, 6),
        "kernel-too-large",
        "the kernel covers 9 along width, but the input has 6 and 2 of padding",
        "kernel_size",
    ),
    (
        "Conv2d",
        {"out_channels": 4, "kernel_size": 3, "padding": 4, "padding_mode": "reflect"},
        (3, 4, 8),
        "padding-too-large",
        "reflect padding of 4 needs more than the 4 that the input has along height",
        "padding",
    ),
    (
        "MaskedConv2d",
        {"table": [[0], [1, 3]], "kernel_size": 3},
        (3, 8, 8),
        "connection-table",
        "row 1 of `table` reads input channel 3, but the input has 3 channels, counted from 0",
        "table",
    ),
    (
        "MaskedConv2d",
        {"table": [[0, 1, 0]], "kernel_size": 3},
        (3, 8, 8),
        "connection-table",
        "row 0 of `table` reads input channel 0 more than once",
        "table",
    ),
    (
        "MaskedConv2d",
        {"table": [[0]], "kernel_size": 9},
        (3, 8, 8),
        "kernel-too-large",
        "the kernel covers 9 along height, but the input has 8",
        "kernel_size",
    ),
    (
        "ConvTranspose2d",
        {"out_channels": 4, "kernel_size": 3, "stride": 2, "output_padding": [0, 2]},
        (3, 8, 8),
        "output-padding-too-large",
        "output padding of 2 along width is not below the stride of 2 or the dilation of 1",
        "output_padding",
    ),
    (
        "ConvTranspose2d",
        {"out_channels": 4, "kernel_size": 3, "padding": 2},
        (3, 2, 2),
        "padding-too-large",
        "padding of 2 cuts 4 off the 4 that the output has along height, and leaves nothing",
        "padding",
    ),
    (
        "ConvTranspose2d",
        {"out_channels": 4, "kernel_size": 3, "groups": 2},
        (3, 8, 8),
        "groups-divide",
        "3 input channels cannot be split into 2 groups",
        "groups",
    ),
    (
        "MaxPool2d",
        {"kernel_size": [4, 3], "padding": 2},
        (3, 8, 8),
        "padding-too-large",
        "padding of 2 is more than half of the kernel's 3 along width",
        "padding",
    ),
    (
        "MaxPool1d",
        {"kernel_size": 3, "dilation": 4},
        (3, 8),
        "kernel-too-large",
        "the kernel covers 9 along length, but the input has 8",
        "kernel_size",
    ),
    (
        "AvgPool3d",
        {"kernel_size": 3, "padding": 1},
        (3, 2, 4, 4),
        "kernel-too-large",
        "the kernel covers 3 along depth, but the input has 2",
        "kernel_size",
    ),
    (
        "AdaptiveAvgPool2d",
        {"output_size": 1},
        (8,),
        "input-rank",
        "`AdaptiveAvgPool2d` needs channels and 2 spatial axes, its input is 8",
        0,
    ),
    (
        "Linear",
        {"out_features": 3},
        (),
        "input-rank",
        "`Linear` needs an axis of features, its input is scalar",
        0,
    ),
    (
        "BatchNorm2d",
        {},
        (8,),
        "input-rank",
        "`BatchNorm2d` needs 3 axes, its input is 8",
        0,
    ),
    (
        "BatchNorm1d",
        {},
        (8, 4, 4),
        "input-rank",
        "`BatchNorm1d` needs one or two axes, its input is 8x4x4",
        0,
    ),
    (
        "LayerNorm",
        {},
        (),
        "input-rank",
        "`LayerNorm` needs an axis of features, its input is scalar",
        0,
    ),
    (
        "LayerNorm2d",
        {},
        (8, 4),
        "input-rank",
        "`LayerNorm2d` needs channels and 2 spatial axes, its input is 8x4",
        0,
    ),
    (
        "GroupNorm",
        {"num_groups": 3},
        (8, 4, 4),
        "groups-divide",
        "8 channels cannot be split into 3 groups",
        "num_groups",
    ),
    (
        "LocalResponseNorm",
        {"size": 5},
        (8,),
        "input-rank",
        "`LocalResponseNorm` needs channels and at least one further axis, its input is 8",
        0,
    ),
    (
        "Gram",
        {},
        (8,),
        "input-rank",
        "`Gram` needs channels and at least one further axis, its input is 8",
        0,
    ),
    (
        "MultiheadAttention",
        {"num_heads": 2},
        (8, 4, 4),
        "input-rank",
        "`MultiheadAttention` needs tokens x features, its input is 8x4x4",
        0,
    ),
    (
        "MultiheadAttention",
        {"num_heads": 3},
        (5, 8),
        "heads-divide",
        "8 features cannot be split into 3 heads",
        "num_heads",
    ),
]


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "code", "message", "blamed"),
    CASES,
    ids=[f"{case[0]}-{case[3]}-{number}" for number, case in enumerate(CASES)],
)
def test_inputs_are_refused(
    name: str,
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    code: str,
    message: str,
    blamed: str | int,
) -> None:
    assert refusal(name, arguments, shape) == (code, message, blamed)


def test_channels_last_is_refused_with_its_order() -> None:
    image = Tensor((8, 8, 3), (Role.HEIGHT, Role.WIDTH, Role.CHANNEL))
    with pytest.raises(Reject) as raised:
        bind(registry()["MaxPool2d"], {"kernel_size": 2}).infer((image,))
    assert raised.value.message == (
        "`MaxPool2d` needs channels and 2 spatial axes, its input is 8x8x3, "
        "in the order height, width, channel"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message", "blamed"),
    [
        (
            {"shape": [3], "value": 1, "std": 0.1},
            "argument-conflict",
            "`Parameter` starts either at `value` or with `std`, not both",
            "std",
        ),
        (
            {"shape": [1, 2, 3, 4, 5]},
            "argument-value",
            "`shape` has 5 axes, at most 4 have a meaning",
            "shape",
        ),
    ],
)
def test_parameters_are_refused(
    arguments: dict[str, Any], code: str, message: str, blamed: str
) -> None:
    assert refusal("Parameter", arguments) == (code, message, blamed)
