"""Statistics of times, by tables and against numpy. Nothing is timed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.runtime.timing import LONGEST_TURN, Timing, order, quantile, ratio, turn_count, turns

SECONDS = st.floats(1e-9, 1e6)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.95, 3.0),
        ([4.0, 1.0], 0.5, 2.5),
        ([5.0, 1.0, 3.0], 0.5, 3.0),
        ([0.0, 1.0, 2.0, 3.0, 4.0], 0.95, 3.8),
        ([0.0, 1.0, 2.0, 3.0, 4.0], 0.0, 0.0),
        ([0.0, 1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
        (list(map(float, range(101))), 0.95, 95.0),
    ],
)
def test_quantiles(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == pytest.approx(expected)


@given(st.lists(SECONDS, min_size=1), st.floats(0, 1))
def test_quantiles_are_numpys(values: list[float], share: float) -> None:
    assert quantile(values, share) == pytest.approx(np.quantile(values, share), rel=1e-9)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_no_quantile(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(values, share)


def test_figures_of_a_timing() -> None:
    timing = Timing(((0.5, 0.25), (0.25,), (1.0,)))
    assert timing.seconds == (0.5, 0.25, 0.25, 1.0)
    assert timing.median == 0.375
    assert timing.p95 == pytest.approx(0.925)
    # All runs count, slow ones too: 4 runs of 3 samples in 2 seconds.
    assert timing.throughput(3) == 6.0


@pytest.mark.parametrize("empty", [(), ((),), ((1.0,), ())])
def test_a_timing_has_runs(empty: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        Timing(empty)


def test_the_ratio_is_taken_within_turns() -> None:
    # The machine is ten times slower in the second turn, for both.
    reference = Timing(((2.0, 2.0), (20.0, 20.0), (2.0, 2.0)))
    twice = Timing(((1.0, 1.0), (10.0, 10.0), (1.0, 1.0)))
    assert ratio(twice, reference) == 2.0
    assert ratio(reference, twice) == 0.5
    assert ratio(reference, reference) == 1.0


def test_the_ratio_is_not_that_of_the_medians() -> None:
    reference, own = Timing(((2.0,), (20.0,), (4.0,))), Timing(((1.0,), (5.0,), (4.0,)))
    assert reference.median == own.median
    assert ratio(own, reference) == 2.0


def test_one_odd_turn_does_not_move_the_ratio() -> None:
    reference = Timing(((2.0,), (2.0,), (2.0,)))
    disturbed = Timing(((1.0,), (500.0,), (1.0,)))
    assert ratio(disturbed, reference) == 2.0


def test_turns_that_one_side_lacks_do_not_count() -> None:
    assert ratio(Timing(((1.0,),)), Timing(((3.0,), (9.0,)))) == 3.0


@given(st.integers(1, 5000))
def test_turns_share_runs_evenly(runs: int) -> None:
    shares = list(turns(runs))
    assert len(shares) == turn_count(runs)
    assert sum(shares) == runs
    assert min(shares) >= 1
    assert max(shares) <= LONGEST_TURN
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.integers(), unique=True, min_size=1, max_size=6), st.integers(0, 50))
def test_all_have_each_turn_and_each_goes_first(contenders: list[int], turn: int) -> None:
    assert sorted(order(contenders, turn)) == sorted(contenders)
    first = Counter(order(contenders, turn + later)[0] for later in range(len(contenders)))
    assert set(first.values()) == {1}


def test_nobody_takes_no_turn() -> None:
    assert order([], 3) == ()
