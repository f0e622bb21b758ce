"""Views against torch: which inputs an output depends on, found by feeding unit vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Literal

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cnnspec.geometry import (
    POINTWISE,
    TABLE_LIMIT,
    Bicubic,
    Bilinear,
    Continued,
    Everything,
    Nearest,
    PeriodicView,
    Taps,
    Transposed,
    Unknown,
    View,
    Window,
    adaptive_taps,
    bicubic_taps,
    bilinear_taps,
    nearest_taps,
)


def dependencies(run: Callable[[torch.Tensor], torch.Tensor], n: int) -> list[set[int]]:
    """For each output of a linear op on `n` positions, the inputs with a weight other than 0."""
    response = run(torch.eye(n, dtype=torch.float64)[:, None])[:, 0]
    return [
        set(torch.nonzero(response[:, o].abs() > 1e-9)[:, 0].tolist())
        for o in range(response.shape[1])
    ]


def read(view: View, n: int, out: int) -> list[set[int]]:
    """For each output, the inputs a view says it reads, those within the axis."""
    match view:
        case Everything():
            return [set(range(n))] * out
        case Taps(rows):
            assert len(rows) == out
            return [set() if row is None else set(range(row[0], row[1] + 1)) for row in rows]
        case Window() | Transposed() | Nearest() | Bilinear() | Bicubic():
            found = []
            for output in range(out):
                first, count = view.reads(output)
                taps = {first + view.step * tap for tap in range(count)}
                found.append({tap for tap in taps if 0 <= tap < n})
            return found
        case Continued():
            return [{view.source(output)} for output in range(out)]
        case _:
            raise AssertionError(view)


def hulls(sets: list[set[int]]) -> list[tuple[int, int] | None]:
    return [(min(found), max(found)) if found else None for found in sets]


def ones(kernel: int) -> torch.Tensor:
    return torch.ones(1, 1, kernel, dtype=torch.float64)


def cubic(x: torch.Tensor, out: int, align: bool) -> torch.Tensor:
    """Cubic resizing along the last axis; torch has it for images only."""
    image = F.interpolate(x[..., None], (out, 1), mode="bicubic", align_corners=align)
    return image[..., 0]


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_window_is_a_convolution(kernel: int) -> None:
    for stride, dilation, padding in product((1, 2, 3), (1, 2, 3), (0, 1, 4)):
        conv = partial(
            F.conv1d, weight=ones(kernel), stride=stride, padding=padding, dilation=dilation
        )
        sets = dependencies(conv, 17)
        assert read(Window(kernel, stride, dilation, padding), 17, len(sets)) == sets


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
def test_transposed_is_a_transposed_convolution(kernel: int) -> None:
    for stride, dilation, padding in product((1, 2, 3, 4, 6), (1, 2, 3, 4), (0, 1, 2)):
        if dilation * (kernel - 1) + 1 <= 2 * padding:
            continue
        conv = partial(
            F.conv_transpose1d,
            weight=ones(kernel),
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
        sets = dependencies(conv, 9)
        assert read(Transposed(kernel, stride, dilation, padding), 9, len(sets)) == sets


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_continued_is_padding(mode: Literal["reflect", "replicate", "circular"]) -> None:
    for n, before, after in product((1, 2, 5), (-2, 0, 1, 2, 4, 7), (-2, 0, 1, 2, 4, 7)):
        kept = n + min(0, before) + min(0, after)
        most = {"reflect": n - 1, "circular": kept}.get(mode, 7)
        if kept < 1 or max(before, after) > most:
            continue
        sets = dependencies(partial(F.pad, pad=(before, after), mode=mode), n)
        cropped = mode == "circular"
        first = -min(0, before) if cropped else 0
        last = n - 1 + (min(0, after) if cropped else 0)
        assert read(Continued(mode, before, first, last), n, len(sets)) == sets


def test_views_repeat_as_their_cycle_says() -> None:
    views: list[PeriodicView] = [
        Window(3, 2, 2, 5),
        Nearest(3),
        Bilinear(4),
        Bicubic(3),
        Transposed(5, 6, 4, 1),
    ]
    for view in views:
        outputs, inputs = view.cycle
        for output in range(-7, 7):
            first, count = view.reads(output)
            again, recount = view.reads(output + outputs)
            assert count == recount
            assert not count or again == first + inputs


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 12])
def test_resizing_is_torchs(n: int) -> None:
    for out in range(1, 40):
        sets = dependencies(partial(F.adaptive_avg_pool1d, output_size=out), n)
        assert read(adaptive_taps(n, out), n, out) == sets
        sets = dependencies(partial(F.interpolate, size=out), n)
        assert read(nearest_taps(n, out), n, out) == sets
        for align in (False, True):
            linear = partial(F.interpolate, size=out, mode="linear", align_corners=align)
            sets = dependencies(linear, n)
            assert hulls(read(bilinear_taps(n, out, align), n, out)) == hulls(sets)
            sets = dependencies(partial(cubic, out=out, align=align), n)
            assert hulls(read(bicubic_taps(n, out, align), n, out)) == hulls(sets)


def test_whole_ratios_repeat_and_only_others_are_listed() -> None:
    assert adaptive_taps(12, 4) == Window(3, 3)
    assert adaptive_taps(4, 12) == Nearest(3)
    assert adaptive_taps(7, 1) == Everything()
    assert adaptive_taps(1, 1) == nearest_taps(5, 5) == bilinear_taps(5, 5, False) == POINTWISE
    assert nearest_taps(12, 4) == Window(1, 3)
    assert nearest_taps(4, 12) == Nearest(3)
    assert bilinear_taps(4, 12, False) == Bilinear(3)
    assert bilinear_taps(12, 4, False) == Window(1, 3, before=-1)
    assert bicubic_taps(8, 2, False) == Window(4, 4, before=0)
    assert bicubic_taps(2, 8, False) == Bicubic(4)
    assert adaptive_taps(10, 3) == Taps(((0, 3), (3, 6), (6, 9)))
    assert isinstance(bilinear_taps(4, 12, True), Taps)


def test_a_table_beyond_the_limit_is_not_made() -> None:
    out = TABLE_LIMIT + 1
    assert adaptive_taps(3, 10**12 + 1) == Unknown(
        "resizing to 1000000000001 positions has no period and is too long to list"
    )
    assert isinstance(nearest_taps(TABLE_LIMIT + 2, out), Unknown)
    assert isinstance(bilinear_taps(out, out, True), Unknown)
