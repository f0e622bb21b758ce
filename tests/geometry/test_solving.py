"""Windows that fit: the lectures' questions, and every answer against the size formula."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.geometry import conv_size, pool_size
from cnnspec.geometry.solving import Fit, Question, fits


def found(**known: object) -> list[tuple[int, ...]]:
    """Input, kernel, stride, padding before and after, output of each answer."""
    return [
        (fit.size, fit.kernel, fit.stride, fit.before, fit.after, fit.out)
        for fit in fits(Question(**known))  # type: ignore[arg-type]
    ]


def test_whatever_fits() -> None:
    """F = 5, S = 2, P = ? on 32: no even padding fits, `same` is uneven and gives 16."""
    answers = list(fits(Question(sizes=(32,), kernels=(5,), strides=(2,))))
    exact = {(fit.before, fit.after): fit.out for fit in answers if fit.exact}
    assert exact == {(0, 1): 15, (1, 2): 16, (2, 3): 17, (3, 4): 18}
    assert [(fit.before, fit.after) for fit in answers if fit.same] == [(1, 2)]
    rounded = {fit.before: (fit.out, fit.left) for fit in answers if not fit.exact}
    assert rounded == {0: (14, 1), 1: (15, 1), 2: (16, 1), 3: (17, 1), 4: (18, 1)}


def test_an_odd_input_takes_any_padding() -> None:
    answers = fits(Question(sizes=(33,), kernels=(5,), strides=(2,)))
    assert all(fit.exact for fit in answers if fit.symmetric)


@pytest.mark.parametrize(
    ("known", "answer"),
    [
        ({"sizes": (227,), "kernels": (11,), "strides": (4,), "paddings": ((0, 0),)}, {55}),
        ({"sizes": (7,), "kernels": (3,), "strides": (3,), "paddings": ((0, 0),)}, {2}),
        ({"sizes": (32,), "kernels": (5,), "strides": (1,), "paddings": ((2, 2),)}, {32}),
        ({"sizes": (512,), "kernels": (3,), "strides": (2,), "paddings": ("same",)}, {256}),
        ({"sizes": (2,), "kernels": (5,), "strides": (1,), "paddings": ((1, 1),)}, set()),
    ],
)
def test_the_output(known: dict[str, object], answer: set[int]) -> None:
    assert {row[-1] for row in found(**known)} == answer


def test_the_input_is_known_up_to_rounding() -> None:
    known = {"kernels": (11,), "strides": (4,), "paddings": ((2, 2),), "outs": (55,)}
    assert [row[0] for row in found(**known)] == [223, 224, 225, 226]
    assert [row[0] for row in found(kernels=(3,), strides=(2,), paddings=("same",), outs=(4,))] == [
        7,
        8,
    ]


def test_the_kernel_and_the_stride() -> None:
    known = {"sizes": (28,), "paddings": ((0, 0),), "outs": (24,)}
    assert found(**known, strides=(1,)) == [(28, 5, 1, 0, 0, 24)]
    assert {row[2] for row in found(sizes=(12,), kernels=(4,), paddings=((0, 0),), outs=(5,))} == {
        2
    }


def test_pooling_rounds_up_and_drops_windows_in_the_padding() -> None:
    known = {"sizes": (5,), "kernels": (2,), "strides": (3,), "pool": True, "ceil": True}
    answers = list(fits(Question(**known)))  # type: ignore[arg-type]
    assert [(fit.before, fit.out, fit.clipped) for fit in answers] == [(0, 2, False), (1, 2, True)]


sizes = st.integers(1, 40)
small = st.integers(1, 6)


@given(sizes, small, small, small, st.integers(0, 8), st.integers(0, 8))
def test_a_window_is_found_from_its_output(
    n: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> None:
    out = conv_size(n, kernel, stride, dilation, before, after)
    if not out:
        return
    known = {
        "kernels": (kernel,),
        "strides": (stride,),
        "dilations": (dilation,),
        "paddings": ((before, after),),
        "outs": (out,),
    }
    answers = list(fits(Question(**known)))  # type: ignore[arg-type]
    assert Fit(n, kernel, stride, dilation, before, after, out) in answers
    expected = [
        m for m in range(1, 200) if conv_size(m, kernel, stride, dilation, before, after) == out
    ]
    assert [fit.size for fit in answers] == expected


@pytest.mark.parametrize("ceil", [False, True])
def test_every_answer_of_a_pooling_is_one(ceil: bool) -> None:
    question = Question(
        sizes=range(1, 9), kernels=(2, 3, 5), strides=(1, 2, 3), pool=True, ceil=ceil
    )
    answers = {(f.size, f.kernel, f.stride, f.before): f.out for f in fits(question)}
    for n, kernel, stride in product(range(1, 9), (2, 3, 5), (1, 2, 3)):
        for side in range(kernel // 2 + 1):
            out = pool_size(n, kernel, stride, side, side, 1, ceil)
            assert answers.get((n, kernel, stride, side), 0) == out


def test_rounding_up_keeps_a_window_larger_than_the_padded_input() -> None:
    known = {"kernels": (5,), "strides": (4,), "paddings": ((0, 0),), "pool": True, "ceil": True}
    [fit] = fits(Question(sizes=(4,), **known))  # type: ignore[arg-type]
    assert (fit.out, fit.exact, fit.left, fit.short, fit.clipped) == (1, False, 4, 1, False)
    answers = fits(Question(outs=(1,), **known))  # type: ignore[arg-type]
    assert [fit.size for fit in answers] == [2, 3, 4, 5]
