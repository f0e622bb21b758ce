"""The pipeline as a whole: order, purity, growth."""

from __future__ import annotations

import tracemalloc
from time import perf_counter

import pytest

from cnnspec.ir import Graph
from cnnspec.passes import PIPELINE, Facts, Options, run
from cnnspec.passes.cost import Cost
from cnnspec.passes.sites import Sites
from tests.graphs import Net, Norm, Plus, Rectify


def deep(units: int) -> Graph:
    net = Net(image=(8, 16, 16))
    for _ in range(units):
        before = net.last
        with net.scope("unit"):
            net.add("Conv2d", out_channels=8, kernel_size=3, padding=1)
            net.add(Norm())
            net.add(Rectify())
            net.add(Plus(), net.last, before)
    return net.build()


def test_each_pass_finds_one_fact_of_its_own() -> None:
    facts = run(deep(2), Options())
    found = [type(step(deep(2), facts)) for step in PIPELINE]
    assert len(set(found)) == len(PIPELINE)
    for kind in found:
        assert isinstance(facts[kind], kind)


def test_a_fact_that_is_not_there_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Facts({})[Cost]


def test_equal_nodes_are_one_kind() -> None:
    facts = run(deep(50), Options())
    assert len(facts[Sites].of) == 200
    assert len(facts[Sites].kinds) == 4


def test_an_analysis_leaves_nothing_behind() -> None:
    graph = deep(10)
    assert run(graph, Options(fold=False))[Cost].nodes != run(graph, Options())[Cost].nodes
    assert run(graph, Options())[Cost].nodes == run(graph, Options())[Cost].nodes


def test_time_and_memory_grow_linearly() -> None:
    def timed(units: int) -> float:
        graph = deep(units)
        best = float("inf")
        for _ in range(3):
            started = perf_counter()
            run(graph, Options())
            best = min(best, perf_counter() - started)
        return best / units

    assert timed(2500) < 4 * timed(250)
    graph = deep(2500)
    tracemalloc.start()
    run(graph, Options())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / len(graph.nodes) < 3000
