"""Every operation on a grid of arguments in ONNX Runtime; `bench.onnx_grid` tries more of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

import pytest
import torch

from cnnspec.backends.onnx import newest_opset
from cnnspec.backends.onnx.build import OLDEST_OPSET
from cnnspec.ops import registry
from tests.backends.onnx_grid import combinations, compare, made

MOST = 40
"""Combinations of one operation."""

NAMES = sorted(registry())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def opsets() -> tuple[int, ...]:
    """The oldest, the usual one and the newest that ONNX Runtime loads here."""
    return OLDEST_OPSET, 18, newest_opset()


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_computes_what_torch_does(name: str) -> None:
    opset = opsets()[NAMES.index(name) % 3]
    found = compare(combinations(name, Random(name)), MOST, [opset])
    assert not found.different, "\n".join(found.different[:8])
    assert found.runs
    assert found.unsteady <= found.combinations // 4


DISAGREEMENTS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "ceil_mode divides by the padding": (
        "AvgPool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        (2, 8, 9),
    ),
    "ceil_mode without the padding": (
        "AvgPool2d",
        {
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
            "ceil_mode": True,
            "count_include_pad": False,
        },
        (2, 8, 9),
    ),
    "a last mean that starts in the padding": (
        "AvgPool2d",
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
        (2, 5, 6),
    ),
    "a divisor of its own": (
        "AvgPool2d",
        {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 2},
        (2, 8, 9),
    ),
    "a last maximum that starts in the padding": (
        "MaxPool2d",
        {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
        (2, 5, 6),
    ),
    "a dilated maximum of padding": (
        "MaxPool2d",
        {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 3},
        (2, 5, 5),
    ),
    "a power of negative values": (
        "LPPool2d",
        {"norm_type": 3, "kernel_size": 2, "ceil_mode": True},
        (2, 5, 5),
    ),
    "a power that is no whole number": ("LPPool1d", {"norm_type": 1.5, "kernel_size": 2}, (2, 9)),
    "alpha by the number of channels": ("LocalResponseNorm", {"size": 5, "alpha": 0.5}, (8, 5, 5)),
    "alpha as in the paper": ("PaperLRN", {"n": 5, "alpha": 0.5}, (8, 5, 5)),
    "an even number of channels": ("LocalResponseNorm", {"size": 4, "alpha": 0.5}, (8, 5, 5)),
    "a sum that moves along channels": (
        "LocalResponseNorm",
        {"size": 3, "alpha": 1, "k": 1e-5},
        (9, 5, 5),
    ),
    "nearest by a ratio that float32 rounds": ("Upsample", {"size": [16, 4]}, (3, 14, 28)),
    "nearest from pixel centers": (
        "Upsample",
        {"scale_factor": 2.3, "mode": "nearest-exact"},
        (2, 9, 16),
    ),
    "a factor that is not the ratio of sizes": (
        "Upsample",
        {"scale_factor": 1.7, "mode": "bilinear"},
        (2, 5, 7),
    ),
    "cubic to the same size": (
        "Upsample",
        {"scale_factor": [1.16, 1.5], "mode": "bicubic"},
        (2, 3, 4),
    ),
    "GELU by tanh": ("GELU", {"approximate": "tanh"}, (4, 5)),
    "groups of channels": ("GroupNorm", {"num_groups": 2}, (6, 4, 5)),
    "a large eps": ("BatchNorm2d", {"eps": 0.5}, (4, 5, 5)),
    "circular padding, and less": ("CircularPad2d", {"padding": [2, -1, 1, 2]}, (2, 5, 6)),
    "reflection, and less": ("ReflectionPad2d", {"padding": [2, -1, 1, 2]}, (2, 5, 6)),
    "bins that do not divide": ("AdaptiveAvgPool2d", {"output_size": [3, 4]}, (2, 7, 9)),
    "maxima of bins that do not divide": ("AdaptiveMaxPool2d", {"output_size": [3, 4]}, (2, 7, 9)),
    "output padding as large as the stride": (
        "ConvTranspose2d",
        {"out_channels": 3, "kernel_size": 3, "stride": 2, "dilation": 3, "output_padding": 2},
        (2, 4, 5),
    ),
    "PReLU of a single position": ("PReLU", {"num_parameters": 4}, (4,)),
}
"""Where ONNX, its runtimes and torch mean different things by one name, or runtimes vary."""


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_what_others_mean_is_written_as_torch_means_it(what: str) -> None:
    name, given, shape = DISAGREEMENTS[what]
    found = compare(iter([made(name, given, shape)]), 1, opsets())
    assert not found.different, "\n".join(found.different)
    assert found.runs
