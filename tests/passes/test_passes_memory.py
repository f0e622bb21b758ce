"""Activations and the fullest moment of inference."""

from __future__ import annotations

import cnnspec
from cnnspec.passes import Options, run
from cnnspec.passes.memory import Activations, Memory, Peak
from cnnspec.passes.training import Parts, Training
from tests import graphs
from tests.graphs import Dense, Drop, Flat, Net, Norm, Plus, Rectify

MAP = 16 * 8 * 8 * 4
"""Bytes of the feature map that most of these tests use."""


def block(net: Net) -> int:
    return net.add("Conv2d", out_channels=16, kernel_size=3, padding=1)


def memory(net: Net, fold: bool = True, **outputs: int) -> Memory:
    return run(net.build(outputs or None), Options(fold=fold))[Memory]


def peak_of(net: Net, fold: bool = True, **outputs: int) -> Peak:
    return memory(net, fold, **outputs).inference.peak


def test_elements_and_those_of_layers_that_multiply() -> None:
    net = Net(image=(3, 8, 8))
    block(net)
    net.add(Rectify())
    net.add(Drop())
    assert memory(net).nodes == (
        Activations(1024, 1024),
        Activations(1024, 0),
        Activations(1024, 0),
    )


def test_a_chain_holds_two_tensors() -> None:
    net = Net(image=(16, 8, 8))
    first = block(net)
    second = block(net)
    block(net)
    peak = peak_of(net)
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
    peak = peak_of(net)
    assert peak.bytes == 4 * 4 + 16 * 4 * 4
    assert peak.values == (0, block_out)
    assert rectified not in peak.values


def test_not_in_place_where_the_input_is_read_again() -> None:
    net = Net(image=(16, 8, 8))
    made = block(net)
    rectified = net.add(Rectify())
    net.add(Plus(), rectified, made)
    peak = peak_of(net)
    assert peak.bytes == 2 * MAP
    assert peak_of(net, y=rectified, kept=made).values == (0, made)


def test_a_network_input_is_never_overwritten() -> None:
    net = Net(image=(16, 8, 8))
    net.add(Rectify())
    assert peak_of(net).bytes == 2 * MAP


def test_the_same_tensor_twice_may_be_overwritten() -> None:
    net = Net(image=(1, 8, 8))
    made = block(net)
    net.add(Plus(), made, made)
    assert peak_of(net).bytes == MAP + 256


def test_an_output_lives_to_the_end() -> None:
    net = Net(image=(16, 8, 8))
    kept = block(net)
    for _ in range(3):
        block(net)
    assert peak_of(net, y=net.last, kept=kept).bytes == 3 * MAP


def test_a_folded_op_takes_no_memory_of_its_own() -> None:
    net = Net(image=(1, 8, 8))
    block(net)
    net.add(Norm())
    assert peak_of(net).bytes == MAP + 256
    assert peak_of(net, fold=False).bytes == 2 * MAP


def test_a_stored_tensor_is_a_weight() -> None:
    net = Net(image=(16, 8, 8))
    kept = net.add(graphs.Stored(channels=16, size=8))
    net.add(Plus(), kept, 0)
    found = memory(net)
    assert found.nodes[0].elements == 0
    assert found.inference.peak.bytes == 2 * MAP


def test_training_runs_more_than_inference() -> None:
    net = Net(image=(1, 2, 2))
    trunk = net.add(Flat())
    head = net.add(Dense(units=100), trunk)
    main = net.add(Dense(units=1), trunk)
    found = run(net.build({"y": main}, training={"aux": head}), Options())[Memory]
    assert found.inference.peak.bytes == 4 * (4 + 4)
    assert found.whole.peak.bytes == 4 * (4 + 100 + 1)


def test_what_is_alive_step_by_step() -> None:
    net = Net(image=(16, 8, 8))
    kept = block(net)
    block(net)
    net.add(Rectify())
    net.add(Plus(), net.last, kept)
    found = memory(net).inference
    assert found.nodes == (0, 1, 2, 3)
    assert found.live == (2 * MAP, 2 * MAP, 2 * MAP, 2 * MAP)


def test_a_view_keeps_the_whole_alive_and_takes_nothing() -> None:
    net = Net(image=(1, 8, 8))
    whole = block(net)
    part = net.add("Slice", whole, dim=1, start=0, stop=4)
    net.add("Conv2d", part, out_channels=4, kernel_size=1)
    found = memory(net).inference
    assert found.live == (256 + MAP, MAP, MAP + 4 * 64 * 4)
    assert found.peak.values == (whole, net.last)


def test_type_and_batch() -> None:
    net = Net(image=(16, 8, 8))
    block(net)
    found = run(net.build(), Options(dtype="bfloat16", batch=3))[Memory]
    assert found.inference.peak.bytes == 2 * MAP * 3 // 2
    assert found.nodes == (Activations(1024, 1024),)


def kept(net: Net, **options: int | str) -> tuple[tuple[int, ...], Parts]:
    step = run(net.build(), Options(**options))[Training].step  # type: ignore[arg-type]  # a table
    assert step is not None
    return step.saved, step.parts


def test_what_backward_keeps() -> None:
    net = Net(image=(16, 8, 8))
    block(net)
    net.add(Rectify())
    net.add(Drop())
    # the convolution keeps its input, the activation its output, dropout one byte an element
    assert kept(net) == ((MAP, MAP, 1024), Parts(2 * MAP, 0, 0, 1024, 0))
    assert kept(net, batch=2, dtype="float16") == (
        (MAP, MAP, 2048),
        Parts(2 * MAP, 0, 0, 2048, 0),
    )


def test_a_tensor_is_charged_to_the_first_that_keeps_it() -> None:
    net = Net(image=(1, 8, 8))
    made = block(net)
    for _ in range(2):
        net.add("Conv2d", made, out_channels=2, kernel_size=1)
    assert kept(net)[0] == (256, 0, MAP)  # the one between is dead
    both = net.build({"a": net.last, "b": net.last - 1})
    step = run(both, Options())[Training].step
    assert step is not None
    assert step.saved == (256, MAP, 0)


def test_what_depends_on_no_weight_keeps_nothing() -> None:
    net = Net(image=(16, 8, 8))
    net.add(Rectify())
    block(net)
    assert kept(net)[0] == (0, MAP)


def test_statistics_do_not_shrink_with_the_type() -> None:
    net = Net(image=(1, 8, 8))
    block(net)
    net.add("BatchNorm2d")
    assert kept(net, dtype="float16")[1] == Parts(128 + MAP // 2, 0, 4 * 2 * 16, 0, 0)
    assert kept(net, dtype="float64")[1] == Parts(512 + MAP * 2, 0, 8 * 2 * 16, 0, 0)


def test_the_peak_of_a_step_is_at_the_start_of_backward_or_later() -> None:
    net = Net(image=(1, 2, 2))
    net.add("Flatten")
    net.add(Dense(units=3))
    step = run(net.build(), Options(optimizer="adam"))[Training].step
    assert step is not None
    params = 4 * 15
    assert (step.weights, step.gradients, step.state) == (params, params, 2 * params + 2 * 4)
    # input, output and its gradient, and the gradients of the weights while they are made
    assert step.peak == 3 * params + 8 + 4 * (4 + 3 + 3) + params


def test_gradients_of_shared_weights_are_added_up() -> None:
    """Each use makes a gradient; at an addition there are three of them at once."""
    text = "cnnspec: 1\nname: net\ninputs: {{a: [64], b: [64]}}\nlayers:\n"
    text += "  - Linear: {{out_features: 64, bias: false}}\n    from: a\n    name: one\n"
    text += "  - Linear: {{out_features: 64, bias: false}}\n    from: b\n    name: two\n{}"
    text += "outputs: [one, two]\n"
    weight = 4 * 64 * 64
    shared = cnnspec.load(text=text.format("    share: one\n")).analyze().training_memory
    assert shared.gradients == shared.weights == shared.optimizer_state == weight
    # two inputs, two outputs, the gradient of one; weights, state and three gradients of weights
    assert shared.peak == (2 + 3) * weight + 4 * 64 * (2 + 2 + 1)
    apart = cnnspec.load(text=text.format("")).analyze().training_memory
    assert apart.peak == (4 + 2) * weight + 4 * 64 * (2 + 2 + 1)
