"""Work grows in step with the network: calls of functions are counted, which no load disturbs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

import cnnspec
from bench.networks import WAYS
from cnnspec.report import render_table, to_csv, to_markdown


def _analyze(text: str) -> int:
    report = cnnspec.load(text=text).analyze()
    assert report.totals.layers == len(report.layers)
    render_table(report, width=100)
    to_csv(report)
    to_markdown(report)
    report.to_dict()
    return len(report.layers)


def _calls(run: Callable[[], int]) -> tuple[int, int]:
    """The result of a function, and how many calls, of builtins too, it makes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        result = run()
    finally:
        sys.setprofile(None)
    return result, count


@pytest.mark.parametrize("way", WAYS)
def test_work_is_linear_in_the_number_of_entries(way: str) -> None:
    _analyze("".join(WAYS[way](70)))  # imports and first uses
    few, small = _calls(lambda: _analyze("".join(WAYS[way](280))))
    many, large = _calls(lambda: _analyze("".join(WAYS[way](2_800))))
    assert many > 9 * few
    assert large / many < 1.05 * small / few
