"""What nodes are charged with: biases apart, buffers as torch counts them, shared weights once."""

from __future__ import annotations

from cnnspec.ir import Graph
from cnnspec.passes import Options, run
from cnnspec.passes.weights import NOTHING_STORED, Stored, Weights
from tests import graphs
from tests.graphs import Dense, Net, Norm, Rectify


def stored(graph: Graph) -> tuple[Stored, ...]:
    return run(graph, Options())[Weights].nodes


def test_weights_and_biases_are_told_apart() -> None:
    net = Net(image=(3, 8, 8))
    net.add("Conv2d", out_channels=10, kernel_size=5)
    net.add(Norm())
    net.add(Rectify())
    conv, norm, relu = stored(net.build())
    assert conv == Stored(trainable=760, weights=750, biases=10, bytes=4 * 760, tensors=2)
    assert norm == Stored(20, 0, 10, 10, buffers=21, buffer_bytes=88, bytes=80, tensors=2)
    assert norm.params == 20
    assert relu == NOTHING_STORED


def test_fixed_parameters_are_frozen() -> None:
    net = Net(image=(3, 8, 8))
    kept = net.add(graphs.Stored(channels=3, size=8))
    net.add(graphs.Plus(), kept, net.inputs["image"])
    assert stored(net.build())[0] == Stored(frozen=192, weights=192, bytes=768)


def test_shared_weights_are_charged_to_the_owner_through_any_number_of_steps() -> None:
    net = Net(a=(4,), b=(4,), c=(4,))
    ends = []
    for number, value in enumerate(net.inputs.values()):
        ends.append(net.add(Dense(units=2), value, share=number - 1 if number else None))
    graph = net.build({str(end): end for end in ends})
    assert [entry.params for entry in stored(graph)] == [10, 0, 0]


def test_a_borrower_pays_where_inference_does_not_run_the_owner() -> None:
    net = Net(a=(4,), b=(4,))
    owner = net.add(Dense(units=2), net.inputs["a"])
    borrower = net.add(Dense(units=2), net.inputs["b"], share=0)
    graph = net.build({"y": borrower}, training={"aux": owner})
    assert [entry.params for entry in stored(graph)] == [0, 10]
