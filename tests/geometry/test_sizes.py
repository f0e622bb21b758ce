"""Output sizes against torch, and what goes unread against the windows themselves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cnnspec.geometry import (
    conv_size,
    kernel_extent,
    pool_size,
    remainder,
    same_padding,
    transposed_size,
    unread,
)

GRID = list(product((1, 2, 5, 8, 13), (1, 2, 3, 5), (1, 2, 3), (1, 2, 3), (0, 1, 2)))


def torch_size(run: Callable[[], torch.Tensor]) -> int:
    """The size torch gives, 0 where it refuses because nothing fits."""
    try:
        return int(run().shape[-1])
    except RuntimeError as error:
        text = str(error)
        assert "too small" in text or "Kernel size can't be greater" in text, text
        return 0


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def test_conv_sizes_are_torchs() -> None:
    for n, kernel, stride, dilation, padding in GRID:
        expected = torch_size(
            partial(
                F.conv1d,
                meta(1, 1, n),
                meta(1, 1, kernel),
                stride=stride,
                padding=padding,
                dilation=dilation,
            )
        )
        found = conv_size(n, kernel, stride, dilation, padding, padding)
        assert found == expected, (n, kernel, stride, dilation, padding)


def test_transposed_sizes_are_torchs() -> None:
    for n, kernel, stride, dilation, padding in GRID:
        for extra in range(max(stride, dilation)):
            expected = torch_size(
                partial(
                    F.conv_transpose1d,
                    meta(1, 1, n),
                    meta(1, 1, kernel),
                    stride=stride,
                    padding=padding,
                    output_padding=extra,
                    dilation=dilation,
                )
            )
            found = transposed_size(n, kernel, stride, padding, extra, dilation)
            assert found == expected, (n, kernel, stride, dilation, padding, extra)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_pool_sizes_are_torchs(ceil_mode: bool) -> None:
    for n, kernel, stride, dilation, padding in GRID:
        if 2 * padding > kernel:
            continue
        expected = torch_size(
            partial(
                F.max_pool2d,
                meta(1, 1, 64, n),
                (1, kernel),
                (1, stride),
                (0, padding),
                (1, dilation),
                ceil_mode,
            )
        )
        found = pool_size(n, kernel, stride, padding, padding, dilation, ceil_mode)
        assert found == expected, (n, kernel, stride, dilation, padding)


def test_a_ceil_mode_window_that_starts_in_the_far_padding_is_dropped() -> None:
    assert pool_size(5, 2, 3, 1, 1, 1, True) == 2
    assert pool_size(4, 1, 3, 0, 2, 1, True) == 2
    assert pool_size(6, 3, 2, 0, 0, 1, True) == 3


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 1), (2, 3), (5, 2)])
def test_same_padding_at_stride_1_is_torchs(kernel: int, dilation: int) -> None:
    x, weight = torch.eye(9)[:, None], torch.arange(1.0, kernel + 1)[None, None]
    padded = F.pad(x, same_padding(9, kernel, 1, dilation))
    same = F.conv1d(x, weight, padding="same", dilation=dilation)
    assert torch.equal(F.conv1d(padded, weight, dilation=dilation), same)


sizes = st.integers(1, 60)
small = st.integers(1, 7)


@given(sizes, small, small, small)
def test_same_padding_rounds_up_with_the_odd_position_after(
    n: int, kernel: int, stride: int, dilation: int
) -> None:
    before, after = same_padding(n, kernel, stride, dilation)
    assert conv_size(n, kernel, stride, dilation, before, after) == -(-n // stride)
    assert 0 <= after - before <= 1
    if after:
        assert conv_size(n, kernel, stride, dilation, before, after - 1) < -(-n // stride)


@given(sizes, small, small, small, st.integers(0, 6), st.integers(0, 6))
def test_unread_counts_the_real_positions_beyond_the_last_window(
    n: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> None:
    extent = kernel_extent(kernel, dilation)
    starts = range(-before, n + after - extent + 1, stride)
    if not starts:
        assert unread(n, kernel, stride, dilation, before, after) == 0
        assert remainder(n, kernel, stride, dilation, before, after) == 0
        return
    end = starts[-1] + extent
    assert remainder(n, kernel, stride, dilation, before, after) == n + after - end
    beyond = len(range(max(end, 0), n))
    skipped_between = len(range(extent, stride))
    expected = beyond if n - end > skipped_between else 0
    assert unread(n, kernel, stride, dilation, before, after) == expected


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        ((224, 7, 2, 1, 3, 3), 0),  # ResNet's stem: the remainder is padding
        ((8, 1, 2, 1, 0, 0), 0),  # a strided 1x1 skips by intent
        ((10, 1, 4, 1, 0, 0), 0),
        ((8, 3, 2, 1, 0, 0), 1),
        ((227, 11, 4, 1, 0, 0), 0),
        ((224, 11, 4, 1, 0, 0), 1),
        ((10, 3, 4, 1, 0, 0), 3),
        ((5, 2, 4, 1, 0, 0), 3),
        ((8, 2, 4, 1, 0, 0), 0),
        ((3, 5, 1, 1, 0, 0), 0),  # does not fit: an error elsewhere
    ],
)
def test_unread_rows_of_known_layers(args: tuple[int, int, int, int, int, int], rows: int) -> None:
    assert unread(*args) == rows
