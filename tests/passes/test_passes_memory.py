"""Activations and the fullest moment of inference."""

from __future__ import annotations

from cnnspec.passes import Options, run
from cnnspec.passes.memory import Activations, Memory
from tests import graphs
from tests.graphs import Dense, Drop, Flat, Net, Norm, Plus, Rectify

MAP = 16 * 8 * 8 * 4
"""Bytes of the feature map that most of these tests use."""


def block(net: Net) -> int:
    return net.add("Conv2d", out_channels=16, kernel_size=3, padding=1)


def memory(net: Net, fold: bool = True, **outputs: int) -> Memory:
    return run(net.build(outputs or None), Options(fold=fold))[Memory]


def test_elements_and_those_of_layers_that_multiply() -> None:
    net = Net(image=(3, 8, 8))
    block(net)
    net.add(Rectify())
    net.add(Drop())
    assert memory(net).nodes == (
        Activations(1024, 1024, 0),
        Activations(1024, 0, 0),
        Activations(1024, 0, 1024),
    )


def test_a_chain_holds_two_tensors() -> None:
    net = Net(image=(16, 8, 8))
    first = block(net)
    second = block(net)
    block(net)
    peak = memory(net).inference
    assert peak.bytes == 2 * MAP
    assert peak.values == (0, first)
    assert peak.node == 0
    assert second not in peak.values


def test_work_in_place_is_counted_once() -> None:
    net = Net(image=(1, 2, 2))
    block_out = net.add("Conv2d", out_channels=16, kernel_size=1)
    rectified = net.add(Rectify())
    net.add(Drop())
    net.add(Rectify())
    peak = memory(net).inference
    assert peak.bytes == 4 * 4 + 16 * 4 * 4
    assert peak.values == (0, block_out)
    assert rectified not in peak.values


def test_not_in_place_where_the_input_is_read_again() -> None:
    net = Net(image=(16, 8, 8))
    made = block(net)
    rectified = net.add(Rectify())
    net.add(Plus(), rectified, made)
    peak = memory(net).inference
    assert peak.bytes == 2 * MAP
    assert memory(net, y=rectified, kept=made).inference.values == (0, made)


def test_a_network_input_is_never_overwritten() -> None:
    net = Net(image=(16, 8, 8))
    net.add(Rectify())
    assert memory(net).inference.bytes == 2 * MAP


def test_the_same_tensor_twice_may_be_overwritten() -> None:
    net = Net(image=(1, 8, 8))
    made = block(net)
    net.add(Plus(), made, made)
    assert memory(net).inference.bytes == MAP + 256


def test_an_output_lives_to_the_end() -> None:
    net = Net(image=(16, 8, 8))
    kept = block(net)
    for _ in range(3):
        block(net)
    assert memory(net, y=net.last, kept=kept).inference.bytes == 3 * MAP


def test_a_folded_op_takes_no_memory_of_its_own() -> None:
    net = Net(image=(1, 8, 8))
    block(net)
    net.add(Norm())
    assert memory(net).inference.bytes == MAP + 256
    assert memory(net, fold=False).inference.bytes == 2 * MAP


def test_a_stored_tensor_is_a_weight() -> None:
    net = Net(image=(16, 8, 8))
    kept = net.add(graphs.Stored(channels=16, size=8))
    net.add(Plus(), kept, 0)
    found = memory(net)
    assert found.nodes[0].elements == 0
    assert found.inference.bytes == 2 * MAP


def test_training_runs_more_than_inference() -> None:
    net = Net(image=(1, 2, 2))
    trunk = net.add(Flat())
    head = net.add(Dense(units=100), trunk)
    main = net.add(Dense(units=1), trunk)
    found = run(net.build({"y": main}, training={"aux": head}), Options())[Memory]
    assert found.inference.bytes == 4 * (4 + 4)
    assert found.whole.bytes == 4 * (4 + 100 + 1)


def test_what_backward_keeps() -> None:
    net = Net(image=(16, 8, 8))
    block(net)
    net.add(Rectify())
    net.add(Drop())
    # the convolution keeps its input, the activation its output, dropout one byte an element
    assert memory(net).saved_bytes == MAP + MAP + 1024
