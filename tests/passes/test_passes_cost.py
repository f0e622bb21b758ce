"""Operations and connections: exact figures, and what folding leaves out."""

from __future__ import annotations

import pytest

from cnnspec.ir import Graph
from cnnspec.op import Ops
from cnnspec.passes import Options, run
from cnnspec.passes.connections import Links, Wiring
from cnnspec.passes.cost import Cost
from tests.graphs import Dense, Flat, Net, Norm, Rectify


@pytest.fixture
def graph() -> Graph:
    net = Net(image=(1, 7, 7))
    net.add("Conv2d", out_channels=1, kernel_size=3)
    net.add(Norm())
    net.add(Rectify())
    net.add(Flat())
    net.add(Dense(units=4))
    return net.build()


def test_operations_with_folding(graph: Graph) -> None:
    conv, norm, relu, flat, dense = run(graph, Options())[Cost].nodes
    assert conv == Ops(mac=225, add=25)
    assert conv.flops == 475
    assert norm == Ops()
    assert relu == Ops(cmp=25)
    assert flat == Ops()
    assert dense == Ops(mac=100, add=4)


def test_a_norm_costs_two_an_element_without_folding(graph: Graph) -> None:
    norm = run(graph, Options(fold=False))[Cost].nodes[1]
    assert norm == Ops(add=25, mul=25)
    assert norm.flops == 50


def test_connections_as_the_lectures_count_and_with_biases(graph: Graph) -> None:
    conv, norm, *_, dense = run(graph, Options())[Wiring].nodes
    assert conv == Links(connections=225, with_bias=250, units=25)
    assert norm == Links()
    assert dense == Links(100, 104, 4)


def test_lenet_c1_as_lecun_counts() -> None:
    net = Net(image=(1, 32, 32))
    net.add("Conv2d", out_channels=6, kernel_size=5)
    links = run(net.build(), Options())[Wiring].nodes[0]
    assert links.with_bias == 122_304
