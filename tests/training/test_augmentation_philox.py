"""Random numbers by key: the published generator, and numbers that know nothing of each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.training.augmentation.philox import CUTTING, MIXING, Keys, philox, uniform
from cnnspec.training.augmentation.rectangles import rectangles, whole

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_is_philox(
    counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]
) -> None:
    """The known answers that Random123 is published with."""
    found = philox(tuple(np.array([word], np.uint64) for word in counter), key)  # type: ignore[arg-type]
    assert tuple(int(word[0]) for word in found) == words


@given(
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**48 - 1), min_size=1, max_size=9),
    st.integers(0, 2**16 - 1),
    st.integers(1, 9),
)
def test_a_sample_has_its_numbers_in_any_batch(
    seed: int, epoch: int, samples: list[int], stream: int, count: int
) -> None:
    numbers = np.array(samples)
    keys = Keys(seed, epoch, numbers, stream)
    whole = keys.uniform(count)
    assert whole.shape == (len(samples), count)
    assert (whole > 0).all()
    assert (whole < 1).all()
    for place, sample in enumerate(numbers):
        alone = Keys(seed, epoch, numbers[place : place + 1], stream)
        assert np.array_equal(alone.uniform(count)[0], whole[place])
        assert np.array_equal(alone.normal(count)[0], keys.normal(count)[place])
        assert np.array_equal(alone.beta(0.3)[0], keys.beta(0.3)[place])
        assert np.array_equal(uniform(seed, epoch, sample[None], stream, count)[0], whole[place])
    more = uniform(seed, epoch, numbers, stream, count + 4)
    assert np.array_equal(more[:, :count], whole)
    assert np.array_equal(more[:, 4:], uniform(seed, epoch, numbers, stream, count, first=4))


def test_all_that_is_in_a_key_changes_the_numbers() -> None:
    base = (1, 2, 3, 4)
    others = [(2, 2, 3, 4), (1 + 2**32, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
    others += [(1, 2, 3 + 2**32, 4), (1, 2, 3, MIXING), (1, 2, 3, CUTTING)]
    found = {
        tuple(uniform(seed, epoch, np.array([sample]), stream, 4)[0])
        for seed, epoch, sample, stream in [base, *others]
    }
    assert len(found) == 1 + len(others)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 2.5])
def test_beta(alpha: float) -> None:
    found = Keys(3, 1, np.arange(40000), MIXING).beta(alpha)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(found.mean() - 0.5) < 4 * np.sqrt(variance / 40000)
    assert abs(found.var() / variance - 1) < 0.03
    assert abs(np.mean((found - 0.5) ** 3)) < 0.003


def test_numbers_are_even() -> None:
    found = uniform(0, 0, np.arange(50000), 0, 3)
    for column in found.T:
        counts = np.bincount(whole(column, 10), minlength=10)
        assert counts.sum() == 50000
        assert (abs(counts - 5000) < 350).all()
    assert abs(np.corrcoef(found.T) - np.eye(3)).max() < 0.02


@pytest.mark.parametrize("full", [True, False])
def test_rectangles_fit(full: bool) -> None:
    drawn = uniform(0, 0, np.arange(500), 0, 20).reshape(500, 10, 2)
    found = rectangles(drawn, (9, 30), (0.05, 1.0), (0.5, 2.0), full=full)
    assert (found <= [9 - (not full), 30 - (not full)]).all()
    assert (found[:, 0] > 0).mean() > 0.9
    assert found[:, 0].max() == 9 - (not full)
    none = rectangles(drawn, (2, 300), (0.9, 1.0), (1.0, 1.0), full=full)
    assert not none.any()
