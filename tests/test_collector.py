from __future__ import annotations

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

import cnnspec
from cnnspec.collector import collector_paused


@pytest.fixture(autouse=True)
def _collector_runs() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()


def test_a_block_pauses_and_resumes() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_failures_resume() -> None:
    with pytest.raises(ZeroDivisionError), collector_paused():
        _ = 1 / 0
    assert gc.isenabled()
    with pytest.raises(cnnspec.SpecError):
        cnnspec.load(text="cnnspec: 1")
    assert gc.isenabled()


def test_a_function_can_be_decorated() -> None:
    @collector_paused()
    def running() -> bool:
        return gc.isenabled()

    assert (running(), running(), gc.isenabled()) == (False, False, True)


def test_threads_leave_it_running() -> None:
    def block(turn: int) -> None:
        with collector_paused():
            sleep(1e-5 * (turn % 3))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(block, range(2_000)))
    assert gc.isenabled()
