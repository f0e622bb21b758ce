"""Numbers that are not known: what they compute, and what they note, against plain ints."""

from __future__ import annotations

from collections.abc import Callable
from math import floor, prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.geometry import conv_size, kernel_extent, pool_size, same_padding, transposed_size
from cnnspec.symbolic import Guard, Polynomial, Symbolic, Trail

Rule = Callable[[Any, Any], Any]

SIZES = st.integers(1, 60)


def polynomial(value: object) -> Polynomial:
    return value.polynomial if isinstance(value, Symbolic) else Polynomial.of(int(str(value)))


def rules() -> st.SearchStrategy[Rule]:
    """Functions of two sizes with everything that rules of ops do."""
    leaf: st.SearchStrategy[Rule] = st.one_of(
        st.just(lambda h, w: h),
        st.just(lambda h, w: w),
        st.integers(-9, 9).map(lambda n: lambda h, w: n),
    )

    def grow(inner: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
        divisor = st.sampled_from([-3, -2, 1, 2, 3, 4, 7])
        return st.one_of(
            st.tuples(inner, inner).map(lambda p: lambda h, w: p[0](h, w) + p[1](h, w)),
            st.tuples(inner, inner).map(lambda p: lambda h, w: p[0](h, w) - p[1](h, w)),
            st.tuples(inner, inner).map(lambda p: lambda h, w: p[0](h, w) * p[1](h, w)),
            st.tuples(inner, divisor).map(lambda p: lambda h, w: p[0](h, w) // p[1]),
            st.tuples(inner, divisor).map(lambda p: lambda h, w: p[0](h, w) % p[1]),
            st.tuples(inner, divisor).map(lambda p: lambda h, w: -(-p[0](h, w) // p[1])),
            st.tuples(inner, inner).map(lambda p: lambda h, w: max(p[0](h, w), p[1](h, w))),
            st.tuples(inner, inner).map(lambda p: lambda h, w: min(p[0](h, w), p[1](h, w))),
            st.tuples(inner, inner, inner).map(
                lambda p: lambda h, w: p[2](h, w) if p[0](h, w) == p[1](h, w) else p[1](h, w)
            ),
            st.tuples(inner, inner).map(
                lambda p: (
                    lambda h, w: (
                        p[0](h, w)
                        if (p[0](h, w) == p[1](h, w)) | (p[1](h, w) > 3)
                        else 1 - p[1](h, w)
                    )
                )
            ),
            st.tuples(inner, inner).map(
                lambda p: (
                    lambda h, w: (
                        p[0](h, w) // p[1](h, w) if p[1](h, w) else len(range(abs(int(p[0](h, w)))))
                    )
                )
            ),
        )

    return st.recursive(leaf, grow, max_leaves=7)


@given(rules(), st.tuples(SIZES, SIZES), st.lists(st.tuples(SIZES, SIZES), max_size=8))
def test_a_formula_is_right_wherever_its_guards_hold(
    rule: Rule, at: tuple[int, int], others: list[tuple[int, int]]
) -> None:
    trail = Trail({"H": at[0], "W": at[1]})
    result = rule(trail.size("H"), trail.size("W"))
    found = polynomial(result)
    assert found.at({"H": at[0], "W": at[1]}) == rule(*at)
    for h, w in others:
        sizes = {"H": h, "W": w}
        if all(guard.holds(sizes) for guard in trail.guards):
            assert found.at(sizes) == rule(h, w), f"{found} at {sizes}"


@given(rules(), st.tuples(SIZES, SIZES))
def test_guards_hold_where_they_were_noted(rule: Rule, at: tuple[int, int]) -> None:
    trail = Trail({"H": at[0], "W": at[1]})
    rule(trail.size("H"), trail.size("W"))
    assert all(guard.holds(trail.sizes) for guard in trail.guards)
    assert all(trail.sizes[name] >= least for name, least in trail.least.items())


def test_nested_windows_have_one_rounding() -> None:
    trail = Trail({"H": 224})
    n: Any = trail.size("H")
    for kernel, stride, pad in ((7, 2, 3), (3, 2, 1), (3, 2, 1), (1, 2, 0), (3, 2, 1)):
        n = conv_size(n, kernel, stride, 1, pad, pad)
    assert str(n) == "ceil(H/32)"
    assert not trail.guards


TABLE: list[tuple[str, Callable[[Any], Any]]] = [
    ("floor(H/2)", lambda h: pool_size(h, 2, 2, 0, 0, 1, ceil_mode=False)),
    ("ceil(H/2)", lambda h: pool_size(h, 2, 2, 0, 0, 1, ceil_mode=True)),
    ("ceil(H/2)", lambda h: conv_size(h, 3, 2, 1, *same_padding(h, 3, 2, 1))),
    ("H - 4", lambda h: conv_size(h, 5, 1, 1, 0, 0)),
    ("2*H", lambda h: transposed_size(h, 4, 2, 1, 0, 1)),
    ("H", lambda h: conv_size(h, 3, 1, 2, 2, 2)),
    ("floor(H/4) - 3", lambda h: ((h - 4) // 2 - 4) // 2),
    ("H + floor(H/2)", lambda h: floor(h * 1.5)),
    ("H^2", lambda h: prod((h, 1, h))),
    ("0", lambda h: h % 1),
    ("H - 7*floor(H/7)", lambda h: h % 7),
    ("3*H", lambda h: 3 * h * h // h),
    ("3*floor(H/16)^2 + 1", lambda h: 3 * (h // 16) * (h // 16) + 1),
]


@pytest.mark.parametrize(("text", "rule"), TABLE, ids=[text for text, _ in TABLE])
def test_text(text: str, rule: Callable[[Any], Any]) -> None:
    trail = Trail({"H": 64})
    assert str(polynomial(rule(trail.size("H")))) == text
    assert all(guard.polynomial.symbols == {"H"} for guard in trail.guards)


def test_what_has_no_formula_takes_the_size_at_hand() -> None:
    trail = Trail({"H": 5})
    h = trail.size("H")
    assert list(range(h)) == [0, 1, 2, 3, 4]
    assert [str(guard) for guard in trail.guards] == ["H = 5"]
    assert hash(trail.size("H")) == hash(5)


def test_a_float_that_may_round_takes_the_size_at_hand() -> None:
    trail = Trail({"H": 3})
    assert floor(trail.size("H") * (1 / 3)) == 1  # float64 says 1.0, exact arithmetic 0.99...
    assert [str(guard) for guard in trail.guards] == ["H = 3"]


def test_floats_may_be_put_aside() -> None:
    trail = Trail({"H": 9})
    with trail.floats_aside():
        assert float(trail.size("H")) == 9.0
    assert not trail.guards
    float(trail.size("H"))
    assert trail.guards


def test_what_is_noted_apart_is_forgotten() -> None:
    trail = Trail({"H": 9})
    with trail.apart() as noted:
        assert trail.size("H") > 4
    assert [str(guard) for guard in noted] == ["H >= 5"]
    assert not trail.guards
    assert trail.least == {"H": 1}


def test_equal_formulas_are_asked_nothing() -> None:
    trail = Trail({"H": 9, "W": 9})
    h, w = trail.size("H") // 2, trail.size("W") // 2
    assert (h == h) | (h == 1)
    assert not trail.guards
    assert (h == w) | (h == 1)
    assert [str(guard) for guard in trail.guards] == ["floor(H/2) - floor(W/2) = 0"]


def test_a_product_of_positive_sizes_is_known_to_be_positive() -> None:
    trail = Trail({"H": 32, "W": 32})
    h, w = trail.size("H") // 4 - 7, trail.size("W") // 4 - 7
    assert h >= 1
    assert w >= 1
    before = dict(trail.guards)
    assert h * w
    assert trail.guards == before


def test_a_size_is_no_float_and_no_text() -> None:
    h = Trail({"H": 3}).size("H")
    with pytest.raises(TypeError, match="cannot be compared"):
        assert h < 2.5
    assert h != "3"


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3))
def test_windows_are_their_formula(n: int, kernel: int, stride: int, dilation: int) -> None:
    trail = Trail({"H": 40})
    found = conv_size(trail.size("H"), kernel, stride, dilation, 1, 1)  # type: ignore[arg-type]
    if kernel_extent(kernel, dilation) <= n + 2 and all(g.holds({"H": n}) for g in trail.guards):
        assert polynomial(found).at({"H": n}) == conv_size(n, kernel, stride, dilation, 1, 1)


def test_a_guard_says_what_a_person_would() -> None:
    h, w = Polynomial.symbol("H"), Polynomial.symbol("W")
    assert str(Guard(">=", h - 32)) == "H >= 32"
    assert str(Guard(">=", h * -1 + 32)) == "H <= 32"
    assert str(Guard("==", h * w - 196)) == "H*W = 196"
    assert str(Guard("==", h * w * -1 + 196)) == "H*W = 196"
    assert str(Guard("!=", h.floor_divide(2) - 1)) == "floor(H/2) is not 1"
