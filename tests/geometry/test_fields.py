"""Receptive fields: known networks, and what a field says at joins, borders and limits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cnnspec.geometry import (
    POINTWISE,
    TABLE_LIMIT,
    AlsoEverything,
    AxisField,
    Bilinear,
    Continued,
    Everything,
    Flattened,
    Nearest,
    Taps,
    Transposed,
    Unknown,
    View,
    Window,
    adaptive_taps,
    apply,
    conv_size,
    empty_field,
    input_field,
    join,
)

LONG = 10_000
"""An extent that no period here exceeds."""


def chain(field: AxisField, views: Iterable[View], n: int = LONG) -> AxisField:
    for view in views:
        field = apply(field, view, n, n, "x")
    return field


def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Window:
    return Window(kernel, stride, dilation, padding)


# --------------------------------------------------------------------------------------------------
# Known networks
# --------------------------------------------------------------------------------------------------


def test_alexnet() -> None:
    views = [
        conv(11, 4, 2),
        conv(3, 2),
        conv(5, 1, 2),
        conv(3, 2),
        *[conv(3, 1, 1)] * 3,
        conv(3, 2),
    ]
    field, n, seen = input_field(224), 224, []
    for view in views:
        after = view.before if view.before else 0
        out = conv_size(n, view.kernel, view.stride, view.dilation, view.before, after)
        field, n = apply(field, view, n, out, "x"), out
        seen.append((field.size, field.stride))
    assert seen == [(11, 4), (19, 8), (51, 8), (67, 16), (99, 16), (131, 16), (163, 16), (195, 32)]
    assert n == 6
    assert field.to_dict() == {
        "size": 195,
        "size_min": 195,
        "stride": 32,
        "period": 1,
        "start": -66,
        "center": 31.0,
        "aligned": True,
        "global": False,
    }


def test_vgg16() -> None:
    views = [view for count in (2, 2, 3, 3, 3) for view in (*[conv(3, 1, 1)] * count, conv(2, 2))]
    field = chain(input_field(224), views)
    assert (field.size, field.stride, field.start, field.center) == (212, 32, -90, 15.5)


@pytest.mark.parametrize(("stride_on_first", "size"), [(False, 427), (True, 483)])
def test_resnet50(stride_on_first: bool, size: int) -> None:
    field = chain(input_field(224), [conv(7, 2, 3), conv(3, 2, 1)])
    for blocks, stage_stride in ((3, 1), (4, 2), (6, 2), (3, 2)):
        for block in range(blocks):
            stride = stage_stride if block == 0 else 1
            first, second = (stride, 1) if stride_on_first else (1, stride)
            branch = chain(field, [conv(1, first), conv(3, second, 1), conv(1)])
            field = join([branch, chain(field, [conv(1, stride)])], LONG)
    assert (field.size, field.size_min, field.stride, field.period) == (size, size, 32, 1)
    assert field.aligned


def test_unet_sees_188_or_204_pixels_by_phase_where_the_recurrence_says_200() -> None:
    """Ronneberger et al. 2015 on its own 572 pixels, down to the 388 of its output."""
    field, n = input_field(572), 572

    def double(field: AxisField, n: int) -> tuple[AxisField, int]:
        field = apply(field, conv(3), n, n - 2, "a")
        return apply(field, conv(3), n - 2, n - 4, "b"), n - 4

    skips = []
    for _ in range(4):
        field, n = double(field, n)
        skips.append((field, n))
        field, n = apply(field, conv(2, 2), n, n // 2, "pool"), n // 2
    field, n = double(field, n)
    for skip, width in reversed(skips):
        up, n = apply(field, Transposed(2, 2), n, 2 * n, "up"), 2 * n
        cropped = apply(skip, Window(before=(n - width) // 2), width, n, "crop")
        field, n = double(join([cropped, up], n), n)
    assert n == 388
    assert (field.size_min, field.size, field.period, field.stride) == (188, 204, 16, 1)
    assert field.start == 0
    assert field.aligned


def test_squeeze_and_excitation_is_local_and_global() -> None:
    trunk = chain(input_field(224), [conv(3, 2, 1), conv(5, 1, 2)])
    pooled = apply(trunk, Everything(), 112, 1, "se.pool")
    gate = apply(pooled, POINTWISE, 1, 1, "se.fc1")
    scaled = join([trunk, apply(gate, Everything(), 1, 112, "se.mul")], 112)
    field = apply(scaled, conv(3, 1, 1), 112, 112, "next")
    assert (field.size, field.stride, field.globally) == (15, 2, "se.pool")
    told = field.to_dict()
    assert (told["global"], told["via"], told["size"]) == (True, "se.pool", 15)


def test_a_small_unet_against_gradients() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        three = torch.ones(1, 1, 3, dtype=torch.float64)
        five = torch.ones(1, 1, 5, dtype=torch.float64)
        top = F.conv1d(x, three)
        low = F.conv1d(F.avg_pool1d(top, 3, 2), three, dilation=2)
        low = F.conv1d(F.avg_pool1d(low, 2), three)
        up = F.conv_transpose1d(low, five, stride=3)
        up = F.interpolate(up, scale_factor=2, mode="linear")
        return F.conv1d(up[..., 1::3], three)

    field, n = input_field(120), 120
    steps: list[tuple[View, int]] = [
        (conv(3), 118),
        (conv(3, 2), 58),
        (conv(3, dilation=2), 54),
        (conv(2, 2), 27),
        (conv(3), 25),
        (Transposed(5, 3), 77),
        (Bilinear(2), 154),
        (Window(1, 3, before=-1), 51),
        (conv(3), 49),
    ]
    for view, out in steps:
        field, n = apply(field, view, n, out, "x"), out
    response = run(torch.eye(120, dtype=torch.float64)[:, None])[:, 0] > 1e-9
    assert response.shape[1] == n
    for output in range(5, n - 5):
        seen = torch.nonzero(response[:, output])[:, 0]
        assert field.at(output) == (int(seen.min()), int(seen.max()))
    assert field.period == 2


# --------------------------------------------------------------------------------------------------
# Joins
# --------------------------------------------------------------------------------------------------


def test_a_displaced_branch_is_a_skew_and_not_an_exception() -> None:
    field = input_field(64)
    shifted = apply(field, Window(before=3), 64, 64, "pad")
    joined = join([field, shifted], 64)
    assert (joined.size, joined.start, joined.skew, joined.aligned) == (4, -3, 3.0, False)
    assert apply(joined, conv(3, 1, 1), 64, 64, "x").skew == 3.0
    assert apply(joined, Everything(), 64, 1, "pool").aligned


def test_upsampling_to_both_sides_by_turns_is_aligned() -> None:
    field = input_field(64)
    halves = apply(field, conv(2, 2), 64, 32, "pool")
    up = apply(halves, Nearest(2), 32, 64, "up")
    assert join([field, up], 64).aligned
    fpn = apply(apply(field, conv(3, 2, 1), 64, 32, "down"), Nearest(2), 32, 64, "up")
    assert join([field, fpn], 64).skew == 0.5


def test_down_and_up_returns_to_period_1_where_the_phases_agree() -> None:
    up = chain(input_field(64), [Nearest(6)])
    assert (up.period, up.stride) == (6, 1 / 6)
    down = chain(up, [conv(1, 2)])
    assert (down.period, down.stride) == (3, 1 / 3)
    back = chain(down, [conv(1, 3)])
    assert (back.period, back.stride, back.size) == (1, 1, 1)


def test_phases_that_agree_in_the_hull_are_one() -> None:
    field = input_field(64)
    wide = apply(field, conv(3, 1, 1), 64, 64, "conv")
    for factor in (2, 3):
        coarse = chain(field, [conv(factor, factor), Nearest(factor)])
        assert coarse.period == factor
        wider = chain(wide, [conv(3, 1, 1)] * (factor - 2))
        joined = join([wider, coarse], LONG)
        assert (joined.spans, joined.period, joined.stride) == (wider.spans, 1, 1)
    spread = apply(apply(field, conv(64), 64, 1, "conv"), Everything(), 1, 5, "broadcast")
    assert chain(spread, [Nearest(4)]).spans == ((0, 63),)


def test_unequal_jumps_become_a_table() -> None:
    field = input_field(8)
    halves = apply(field, conv(2, 2), 8, 4, "pool")
    cropped = apply(field, Window(before=-2), 8, 4, "crop")
    joined = join([halves, cropped], 4)
    assert joined.tabled
    assert joined.spans == ((0, 2), (2, 3), (4, 5), (5, 7))
    assert (joined.stride, joined.period, joined.size, joined.size_min) == (None, None, 3, 2)
    assert joined.skew == 1.5


def test_branches_that_see_nothing_add_nothing() -> None:
    field = chain(input_field(64), [conv(3)])
    parameter = empty_field(64)
    assert join([parameter, field], 64) == field
    assert join([parameter, empty_field(64)], 64).is_empty
    sparse = chain(field, [Transposed(1, 2)])
    assert sparse.spans == ((0, 2), None)
    assert join([sparse, parameter], 64).spans == sparse.spans
    assert (sparse.size, sparse.size_min, sparse.stride) == (3, 3, 0.5)


def test_a_table_of_another_length_is_a_faulty_rule() -> None:
    table = apply(input_field(10), adaptive_taps(10, 3), 10, 3, "pool")
    with pytest.raises(ValueError, match="a table of 3 positions for an axis of 4"):
        join([table, input_field(10)], 4)
    with pytest.raises(ValueError, match="a table of 3 positions for an axis of 4"):
        apply(table, conv(2), 4, 3, "x")
    with pytest.raises(ValueError, match="1 rows of taps for an axis of 2"):
        apply(input_field(10), Taps(((0, 1),)), 10, 2, "x")


# --------------------------------------------------------------------------------------------------
# Everything, flattening, the unknown
# --------------------------------------------------------------------------------------------------


def test_what_sees_the_same_everywhere_sees_no_more_as_a_whole() -> None:
    """The half of an input that one position saw, spread: pooled and normalised it is that half."""
    halves = apply(input_field(20), adaptive_taps(20, 2), 20, 2, "halves")
    one = apply(halves, Window(1, 2), 2, 1, "first")
    spread = apply(one, Everything(), 1, 6, "broadcast")
    assert not apply(spread, AlsoEverything(POINTWISE), 6, 6, "norm").is_global
    assert apply(spread, Everything(), 6, 1, "pool") == spread
    table = apply(input_field(20), Taps(((0, 9), (0, 9))), 20, 2, "table")
    assert table.tabled
    pooled = apply(table, Everything(), 2, 5, "pool")
    assert not pooled.is_global
    assert pooled.at(4) == (0, 9)
    assert not apply(table, AlsoEverything(POINTWISE), 2, 2, "norm").is_global
    uneven = apply(input_field(20), Taps(((0, 9), (0, 8))), 20, 2, "table")
    assert apply(uneven, Everything(), 2, 5, "pool").globally == "pool"


def test_everything_is_global_and_stays_so() -> None:
    field = apply(chain(input_field(32), [conv(3)]), Everything(), 30, 1, "pool")
    assert field.to_dict() == {
        "size": 32,
        "size_min": 32,
        "stride": None,
        "period": None,
        "start": 0,
        "center": 15.5,
        "aligned": True,
        "global": True,
        "via": "pool",
    }
    assert apply(field, conv(3, 2, 1), 1, 1, "x") is field
    assert apply(field, Unknown("no"), 1, 1, "x") is field
    assert apply(field, Everything(), 9, 1, "later").globally == "pool"


def test_everything_of_one_position_is_that_position() -> None:
    field = chain(input_field(32), [conv(32)])
    assert apply(field, Everything(), 1, 1, "pool") is field
    spread = apply(field, Everything(), 1, 7, "broadcast")
    assert (spread.at(0), spread.at(6), spread.stride, spread.size) == ((0, 31), (0, 31), None, 32)
    assert apply(field, AlsoEverything(POINTWISE), 1, 1, "norm") is field
    flat = apply(field, Flattened(), 1, 120, "flatten")
    assert apply(flat, Everything(), 120, 84, "fc").size == 32


def test_also_everything_keeps_the_local_part() -> None:
    field = chain(input_field(32), [conv(3)])
    field = apply(field, AlsoEverything(conv(3, 1, 1)), 30, 30, "norm1")
    field = apply(field, AlsoEverything(POINTWISE), 30, 30, "norm2")
    assert (field.size, field.globally) == (5, "norm1")
    assert join([input_field(32), field], 32).globally == "norm1"
    pooled = apply(field, Everything(), 30, 1, "pool")
    assert (pooled.globally, join([pooled, pooled], 1).size) == ("norm1", 32)


def test_flattening_keeps_sizes_and_loses_positions() -> None:
    field = chain(input_field(32), [conv(5, 2)])
    flat = apply(field, Flattened(), 14, 14 * 14 * 8, "flatten")
    assert (flat.size, flat.stride, flat.period, flat.flattened) == (5, None, None, True)
    assert apply(flat, POINTWISE, 1568, 1568, "relu") is flat
    assert apply(flat, Flattened(), 1568, 1568, "flatten") is flat
    assert join([flat, apply(flat, POINTWISE, 1568, 1568, "x"), flat], 1568) is flat
    other = apply(chain(field, [conv(3, 1, 1)]), Flattened(), 14, 1568, "flatten")
    assert join([flat, other], 1568).size == 9
    assert apply(flat, Everything(), 1568, 10, "fc").globally == "fc"
    lost = apply(flat, conv(3), 1568, 1566, "conv")
    assert lost.unavailable == "positions along this axis were lost when it was flattened"
    assert join([flat, field], 14).unavailable == lost.unavailable


def test_the_unknown_is_told_with_its_reason_until_everything_is_seen() -> None:
    field = apply(input_field(32), AlsoEverything(POINTWISE), 32, 32, "norm")
    field = apply(field, Unknown("depends on the data"), 32, 32, "warp")
    assert field.to_dict() == {
        "size": None,
        "size_min": None,
        "stride": None,
        "period": None,
        "start": None,
        "center": None,
        "aligned": None,
        "global": True,
        "via": "norm",
        "unavailable": "depends on the data",
    }
    assert apply(field, conv(3), 32, 30, "x") is field
    assert join([input_field(32), field], 32).unavailable == "depends on the data"
    plain = apply(input_field(32), Unknown("depends on the data"), 32, 32, "warp")
    assert not plain.is_global
    assert apply(plain, Everything(), 32, 1, "pool").to_dict()["size"] == 32


def test_a_map_continues_into_reflected_padding_as_into_zeros() -> None:
    """So a padding layer in front of a convolution is its padding: sizes are of the interior."""
    image = apply(input_field(20), conv(3, 2, 1), 20, 10, "x")
    padded = apply(image, Continued("reflect", 2, 0, 9), 10, 14, "x")
    assert padded == apply(image, Window(before=2), 10, 14, "x")
    assert apply(padded, conv(5), 14, 10, "x") == apply(image, conv(5, padding=2), 10, 10, "x")


def test_a_table_knows_what_stands_in_reflected_padding() -> None:
    rows = ((0, 1), (1, 3), (3, 4))
    table = apply(input_field(5), Taps(rows), 5, 3, "x")
    for mode, order in (
        ("reflect", (2, 1, 0, 1, 2, 1)),
        ("replicate", (0, 0, 0, 1, 2, 2)),
        ("circular", (1, 2, 0, 1, 2, 0)),
    ):
        padded = apply(table, Continued(mode, 2, 0, 2), 3, 6, "x")
        assert [padded.at(position) for position in range(6)] == [rows[each] for each in order]
        assert padded.stride is None


def test_what_does_not_depend_on_the_input_never_does() -> None:
    field = empty_field(32)
    views: list[View] = [
        conv(3),
        Everything(),
        AlsoEverything(conv(3)),
        Flattened(),
        Unknown("x"),
        Taps(((0, 1),)),
    ]
    for view in views:
        assert apply(field, view, 8, 1, "x") == field
    assert (field.size, field.start, field.is_global) == (0, None, False)
    nowhere = apply(input_field(32), Taps((None,)), 32, 1, "x")
    assert nowhere.is_empty


# --------------------------------------------------------------------------------------------------
# Limits and cost
# --------------------------------------------------------------------------------------------------


def test_a_period_beyond_the_extent_becomes_a_table() -> None:
    up = apply(input_field(3), Nearest(4), 3, 12, "up")
    assert up.period == 4
    cropped = apply(up, Window(before=-5), 12, 3, "crop")
    assert cropped.tabled
    assert cropped.spans == ((1, 1), (1, 1), (1, 1))


def test_absurd_extents_are_unavailable_and_take_no_memory() -> None:
    up = apply(input_field(10**6), Nearest(10**6), 10**6, 10**12, "up")
    assert up.unavailable == "1000000 positions see the input each in its own way"
    assert up.to_dict()["size"] is None
    field = input_field(10**6)
    halves = apply(field, conv(2, 2), 10**6, 10**6, "pool")
    assert join([field, halves], 10**6).unavailable is not None
    widest = apply(input_field(4), Nearest(TABLE_LIMIT), 4, 4 * TABLE_LIMIT, "up")
    assert widest.period == TABLE_LIMIT


def test_a_kernel_of_any_length_costs_its_logarithm() -> None:
    up = chain(input_field(1000), [Nearest(3)])
    field = apply(up, conv(3 * 10**9 + 1, 1, 10**9), LONG, LONG, "x")
    assert field.size_min == 10**9 + 1
    table = apply(input_field(10), adaptive_taps(10, 3), 10, 3, "pool")
    assert apply(table, conv(10**9, 1, 5), 3, 3, "x").spans == ((0, 9),) * 3


def test_fields_are_shared_and_immutable() -> None:
    field = chain(input_field(32), [conv(3)])
    assert apply(field, POINTWISE, 30, 30, "relu") is field
    assert join([field, field], 30) is field
    with pytest.raises(FrozenInstanceError):
        field.skew = 1.0  # type: ignore[misc]
