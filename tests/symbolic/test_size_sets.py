"""Exact sets of sizes against sizes tried one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.symbolic import Guard, Polynomial, SizeSet

H = Polynomial.symbol("H")
TRIED = range(1, 200)


def polynomials() -> st.SearchStrategy[Polynomial]:
    leaf = st.one_of(st.just(H), st.integers(-40, 40).map(Polynomial.of))
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] + pair[1]),
            st.tuples(inner, st.integers(-5, 5)).map(lambda pair: pair[0] * pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] * pair[1]),
            st.tuples(inner, st.sampled_from([2, 3, 4])).map(lambda p: p[0].floor_divide(p[1])),
        ),
        max_leaves=5,
    )


def guards() -> st.SearchStrategy[Guard]:
    made = st.builds(Guard, st.sampled_from([">=", "==", "!="]), polynomials())
    return made.filter(lambda guard: not guard.polynomial.is_constant)


@given(guards())
def test_a_set_has_the_sizes_for_which_its_guard_holds(guard: Guard) -> None:
    found = SizeSet.where(guard)
    if found is None:
        return
    holds = [n for n in TRIED if guard.holds({"H": n})]
    assert [n for n in TRIED if n in found] == holds
    assert found.smallest == holds[0] if holds else (found.smallest or 200) >= 200


@given(guards(), guards())
def test_sets_are_sets(left: Guard, right: Guard) -> None:
    a, b = SizeSet.where(left), SizeSet.where(right)
    if a is None or b is None or a.period * b.period > 500:
        return
    for n in TRIED:
        assert (n in a & b) == (n in a and n in b)
        assert (n in a | b) == (n in a or n in b)
        assert (n in a - b) == (n in a and n not in b)
    assert (a & b) | (a - b) == a
    assert a - a == SizeSet.none()
    assert not a - SizeSet.all()


@given(guards())
def test_patterns_and_common_remainders(guard: Guard) -> None:
    found = SizeSet.where(guard)
    if found is None:
        return
    period, residues, start = found.pattern()
    for n in range(start, start + 150):
        assert (n in found) == (n % period in residues)
    step, rest = found.common
    members = [n for n in TRIED if n in found]
    assert all((n - rest) % step == 0 if step else n == rest for n in members)
    if len(members) > 1:
        assert step


CASES = [
    (SizeSet.all(), "any H"),
    (SizeSet.none(), "no H"),
    (SizeSet.only(224), "H = 224"),
    (SizeSet.only(3) | SizeSet.only(4) | SizeSet.only(9), "H = 3 to 4, 9"),
    (SizeSet.where(Guard(">=", H - 32)), "H >= 32"),
    (SizeSet.where(Guard(">=", H * -1 + 35)), "H = 1 to 35"),
    (SizeSet.where(Guard("==", H - H.floor_divide(16) * 16)), "H a multiple of 16"),
    (SizeSet.where(Guard("==", H - H.floor_divide(2) * 2 - 1)), "H mod 2 = 1"),
    (SizeSet.where(Guard("!=", H.floor_divide(4) - 2)), "H = 1 to 7 or H >= 12"),
    (
        (SizeSet.where(Guard("==", H - H.floor_divide(8) * 8)) or SizeSet.none()) - SizeSet.only(8),
        "H a multiple of 8 from 16",
    ),
]


@pytest.mark.parametrize(("sizes", "text"), CASES, ids=[text for _, text in CASES])
def test_words(sizes: SizeSet, text: str) -> None:
    assert sizes.describe("H") == text


def test_a_period_too_long_is_not_worked_out() -> None:
    assert SizeSet.where(Guard(">=", H.floor_divide(5000) - 2)) is None


def test_a_threshold_may_be_far_away() -> None:
    found = SizeSet.where(Guard(">=", H * H * -3 + 10**30))
    assert found is not None
    assert 577350269189625 in found
    assert 577350269189626 not in found


def test_words_of_a_large_set_with_holes() -> None:
    odd = SizeSet.where(Guard("==", H - H.floor_divide(2) * 2 - 1))
    below = SizeSet.where(Guard(">=", H * -1 + 10**12))
    assert odd is not None
    assert below is not None
    assert (odd & below).describe("H") == "H = 1, 3, 5, 7, 9, 11, ..."
