"""Which samples a step has and who gets them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.training.data.order import Order, permutation, portion

orders = st.builds(
    dict,
    count=st.integers(1, 60),
    seed=st.integers(0, 2**70),
    batch_size=st.integers(1, 20),
    accumulate=st.integers(1, 4),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)


def steps_of(given: dict[str, int], world: int, epoch: int = 3) -> list[list[list[int]]]:
    """By step and process its samples, its parts put together."""
    found = []
    for rank in range(world):
        order = Order(**given, rank=rank, world=world)  # type: ignore[arg-type]
        numbers = order.numbers(epoch)
        found.append(
            [
                [
                    number
                    for part in range(order.accumulate)
                    for number in order.part(numbers, step, part).tolist()
                ]
                for step in range(order.steps)
            ]
        )
    return [list(each) for each in zip(*found, strict=True)]


@given(orders, st.integers(1, 5))
def test_the_shares_of_a_step_are_its_slice_of_the_permutation(given, world):
    order = Order(**given, rank=0, world=1)
    numbers = order.numbers(3).tolist()
    size = given["batch_size"]
    for step, shares in enumerate(steps_of(given, world)):
        assert [n for share in shares for n in share] == numbers[step * size : (step + 1) * size]
        assert sum(map(len, shares)) == order.size(step)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(orders, st.integers(1, 5))
def test_every_sample_comes_once_an_epoch(given, world):
    seen = sorted(n for step in steps_of(given, world) for share in step for n in share)
    missing = given["count"] % given["batch_size"] if given["drop_last"] else 0
    assert len(seen) == len(set(seen)) == given["count"] - missing


@given(orders, st.integers(1, 5))
def test_parts_are_empty_only_where_there_are_too_few_samples(given, world):
    for rank in range(world):
        order = Order(**given, rank=rank, world=world)
        numbers = order.numbers(0)
        for step in range(order.steps):
            sizes = [len(order.part(numbers, step, part)) for part in range(order.accumulate)]
            assert max(sizes) - min(sizes) <= 1
            if order.size(step) >= world * order.accumulate:
                assert min(sizes) > 0


@given(st.integers(0, 200), st.integers(1, 20))
def test_portions_cover_everything_in_order(count, parts):
    portions = [portion(count, part, parts) for part in range(parts)]
    assert [number for each in portions for number in each] == list(range(count))
    assert sorted(map(len, portions), reverse=True) == [len(each) for each in portions]


def test_an_epoch_has_an_order_of_its_own_and_of_its_seed():
    found = {
        tuple(permutation(seed, epoch, 30).tolist()) for seed in range(4) for epoch in range(4)
    }
    assert len(found) == 16
    assert all(sorted(each) == list(range(30)) for each in found)


def test_the_order_is_the_same_for_ever():
    # Runs are resumed with other versions of numpy.
    assert permutation(0, 0, 10).tolist() == [2, 3, 5, 7, 0, 6, 1, 4, 9, 8]
    assert permutation(7, 3, 6).tolist() == [5, 0, 4, 2, 3, 1]


def test_no_place_is_preferred():
    count = 16
    places = np.zeros((count, count))
    for epoch in range(4000):
        places[np.arange(count), permutation(1, epoch, count)] += 1
    expected = 4000 / count
    statistic = ((places - expected) ** 2 / expected).sum()
    # Chi squared of 15 * 15 degrees of freedom is 225 and spreads by 21.
    assert 225 - 6 * 21 < statistic < 225 + 6 * 21
