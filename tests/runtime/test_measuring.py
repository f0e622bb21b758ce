"""Contenders in processes of their own: rows, what fails, what is interrupted. Nothing is timed."""

from __future__ import annotations

import os
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnspec.metadata import Precision
from cnnspec.runtime.measuring import Entry, Measured, difference, measure
from cnnspec.runtime.workers import Worker
from tests.runtime.contenders import MODULE


def entry(name: str, precision: Precision = "float32", **told: Any) -> Entry:
    return Entry(name, precision, 10, MODULE, lambda batch: told)


def silent(doing: str, done: int, whole: int) -> None:
    """Nobody watches."""


def measured(folder: Path, *entries: Entry, batches: tuple[int, ...] = (1,)) -> Measured:
    found = Measured()
    measure(entries, batches, found, runs=12, warmup=2, folder=folder, progress=silent)
    return found


def test_rows_by_batch_and_contender(tmp_path: Path) -> None:
    found = measured(tmp_path, entry("a"), entry("b", outputs=[[1.0, 2.00001]]), batches=(1, 4))
    assert [(row.batch, row.name) for row in found.rows] == [(1, "a"), (1, "b"), (4, "a"), (4, "b")]
    assert found.failed == found.remarks == []
    first, second = found.rows[:2]
    assert [len(turn) for turn in first.timing.turns] == [4, 4, 4]
    assert (first.engine, first.provider, first.threads, first.size) == ("fake 1", "cpu", 1, 10)
    assert first.peak is None or first.peak > 1_000_000
    assert (first.difference, first.odd, first.same, first.speed) == (None, "", True, 1.0)
    assert second.difference == pytest.approx(5e-6, rel=0.1)
    assert second.same


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"refuses": "there is no such device"}, "there is no such device"),
        ({"raises": "no kernel"}, "no kernel"),
        ({"exits": True}, "its process ended with code 1: a last word"),
        ({"fails": 2}, "out of luck"),
        ({"dies": 5}, "its process was killed, which systems do when memory runs out"),
    ],
)
def test_one_that_fails_leaves_the_others(
    tmp_path: Path, told: dict[str, Any], reason: str
) -> None:
    found = measured(tmp_path, entry("a", **told), entry("b"))
    assert [row.name for row in found.rows] == ["b"]
    assert [(each.name, each.batch, each.reason) for each in found.failed] == [("a", 1, reason)]


def test_all_may_fail(tmp_path: Path) -> None:
    found = measured(tmp_path, entry("a", raises="no"), entry("b", raises="never"))
    assert found.rows == []
    assert [each.reason for each in found.failed] == ["no", "never"]


@pytest.mark.parametrize(
    ("precision", "other", "same"),
    [
        ("float32", [[1.0, 2.0001]], True),
        ("float32", [[1.0, 2.01]], False),
        ("float16", [[1.0, 2.01]], True),
        ("float16", [[1.0, 2.5]], False),
        ("int8", [[1.0, 0.0]], True),
        ("int8", [[1.0, nan]], True),
        ("float32", [[1.0, nan]], False),
    ],
)
def test_who_computes_something_else(
    tmp_path: Path, precision: Precision, other: list[list[float]], same: bool
) -> None:
    found = measured(tmp_path, entry("a"), entry("b", precision, outputs=other))
    assert [row.same for row in found.rows] == [True, same]


@pytest.mark.parametrize(
    ("told", "odd"),
    [
        ({"inputs": [["float16", [1, 2]]]}, ""),
        ({"inputs": [["uint8", [1, 2]]]}, "other inputs"),
        ({"inputs": [["float32", [1, 3]]]}, "other inputs"),
        ({"outputs": [[1.0, 2.0, 3.0]]}, "other outputs"),
        ({"outputs": [[1.0, 2.0], [1.0]]}, "other outputs"),
    ],
)
def test_what_cannot_be_compared(tmp_path: Path, told: dict[str, Any], odd: str) -> None:
    found = measured(tmp_path, entry("a"), entry("b", **told))
    assert (found.rows[1].odd, found.rows[1].difference) == (odd, None if odd else 0.0)
    assert found.rows[1].same


def test_remarks_are_made_once(tmp_path: Path) -> None:
    found = measured(tmp_path, entry("a", remarks=["careful"]), batches=(1, 2))
    assert found.remarks == ["`a`: careful"]


def test_float16_on_a_cpu_is_remarked_upon(tmp_path: Path) -> None:
    assert "float16" in " ".join(measured(tmp_path, entry("a", "float16")).remarks)
    elsewhere = measured(tmp_path, entry("a", "float16", provider="cuda"))
    assert elsewhere.remarks == []


@pytest.mark.parametrize(("stop", "runs"), [(0, 0), (1, 4), (2, 8)])
def test_what_was_measured_before_an_interrupt_stays(tmp_path: Path, stop: int, runs: int) -> None:
    def interrupting(doing: str, done: int, whole: int) -> None:
        if whole == 3 and done == stop:
            raise KeyboardInterrupt

    found = Measured()
    with pytest.raises(KeyboardInterrupt):
        measure(
            [entry("a")], [1, 2], found, runs=12, warmup=0, folder=tmp_path, progress=interrupting
        )
    assert [len(row.timing.seconds) for row in found.rows] == ([runs] if runs else [])


def test_processes_end_with_the_block() -> None:
    with Worker(MODULE, {"remarks": "pid"}) as worker:
        (pid,) = worker.start()["remarks"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_of_torch_loads_no_onnx_runtime() -> None:
    """Its peak memory would not be its own."""
    with Worker(MODULE, {"remarks": "modules"}) as worker:
        assert not {"torch", "onnx", "onnxruntime", "PIL"} & set(worker.start()["remarks"])


@pytest.mark.parametrize(
    ("found", "reference", "expected"),
    [
        ([[1.0, -4.0]], [[1.0, -4.0]], 0.0),
        ([[1.0, -3.0]], [[1.0, -4.0]], 0.25),
        ([[0.0]], [[0.0]], 0.0),
        ([[1.0]], [[0.0]], inf),
        ([[inf, 1.0]], [[inf, 1.0]], 0.0),
        ([[inf, 1.0]], [[1.0, 1.0]], inf),
        ([[]], [[]], 0.0),
        ([[1.0], [2.2]], [[1.0], [2.0]], 0.1),
    ],
)
def test_differences(
    found: list[list[float]], reference: list[list[float]], expected: float
) -> None:
    arrays = ([np.asarray(each) for each in side] for side in (found, reference))
    assert difference(*arrays) == pytest.approx(expected)
