"""Every worked case of the lectures, each quoting what it checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import cnnspec
from cnnspec.diagnostics import SpecError
from tests.textbook import counts, layers, learning
from tests.textbook.cases import CASES, FIGURES, Case

ROOMS = (counts, layers, learning)


def agrees(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether numbers are as near as a case asks, and all else is equal."""
    if isinstance(wanted, Mapping):
        return found.keys() == wanted.keys() and all(
            agrees(found[key], wanted[key], tolerance) for key in wanted
        )
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return len(found) == len(wanted) and all(
            agrees(one, other, tolerance) for one, other in zip(found, wanted, strict=True)
        )
    if isinstance(wanted, float):
        return abs(found - wanted) <= max(tolerance, 1e-12)
    return bool(found == wanted) or (
        isinstance(wanted, int) and tolerance > 0 and abs(found - wanted) <= tolerance
    )


def of_network(case: Case) -> dict[str, Any]:
    report = case.report()
    return {key: FIGURES[key](case, report) for key in case.expect if key != "error"}


def named(case: Case) -> dict[str, Any]:
    (check,) = (vars(room)[case.check] for room in ROOMS if case.check in vars(room))
    found = check(**case.given)
    return found if isinstance(found, dict) else {"value": found}


def refusals(case: Case) -> list[str]:
    """The codes of what a strict analysis of a case's network refuses."""
    with pytest.raises(SpecError) as refused:
        cnnspec.load(text=case.text).analyze(strict=True)
    return [found.code for found in refused.value.diagnostics if found.severity == "error"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    wanted = {key: value for key, value in case.expect.items() if key != "error"}
    if code := case.expect.get("error"):
        assert set(refusals(case)) == {code}
    if wanted:
        found = named(case) if case.check else of_network(case)
        assert agrees(found, wanted, case.tolerance), f"{found}, not {wanted}: {case.quote}"


# ---------------------------------------------------------------------------- that none is missing


def test_every_case_is_there_once() -> None:
    assert len(CASES) == 183
    assert len({case.id for case in CASES}) == 183
    by_lecture = Counter(case.id[:2] for case in CASES)
    assert by_lecture == {"s0": 26, "s1": 33, "s2": 20, "s3": 55, "s4": 49}
    assert sum(bool(case.check) for case in CASES) == 93
    assert sum(case.stated for case in CASES) == 36


def test_every_case_quotes_and_expects() -> None:
    for case in CASES:
        assert case.quote, case.id
        assert case.expect, case.id
        assert bool(case.layers) + bool(case.network) + bool(case.check) == 1, case.id


def test_no_figure_goes_unused() -> None:
    asked = {key for case in CASES if not case.check for key in case.expect}
    assert asked == {*FIGURES, "error"}


def test_a_wrong_answer_is_found() -> None:
    assert not agrees({"out": [1, 5, 5]}, {"out": [1, 5, 6]}, 0)
    assert not agrees({"a": 1}, {"a": 1, "b": 2}, 0)
    assert not agrees([1.0], [1.1], 1e-3)
    assert agrees([1.0], [1.0005], 1e-3)
