"""Fields through graphs: joins, several inputs, permuted and flattened axes, what is global."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from cnnspec.geometry import AxisField, Window
from cnnspec.ir import Graph
from cnnspec.passes import Options, run
from cnnspec.passes.receptive_field import Fields
from cnnspec.passes.sites import Sites
from tests import graphs
from tests.graphs import Dense, Flat, Mean, Net, Plus, Rectify, Turn


def fields_of(graph: Graph, value: int) -> dict[tuple[str, str], AxisField]:
    found = run(graph, Options())[Fields]
    axes = found.axes
    return {
        (axes[track.source].input, axes[track.source].role.value): track.field
        for track in found.values[value]
    }


def vgg(net: Net) -> None:
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            net.add("Conv2d", out_channels=2, kernel_size=3, padding=1)
            net.add(Rectify())
        net.add("MaxPool2d", kernel_size=2, stride=2)


def test_vgg16_at_pool5() -> None:
    net = Net(image=(3, 224, 224))
    vgg(net)
    height, width = fields_of(net.build(), net.last).values()
    assert (height.size, height.stride, height.start) == (212, 32, -90)
    assert width is height


def test_axes_that_differ_are_followed_apart() -> None:
    net = Net(image=(1, 20, 30))
    net.add("Conv2d", out_channels=1, kernel_size=[3, 5], stride=[1, 2])
    net.add(Turn())
    net.add("Conv2d", out_channels=1, kernel_size=[7, 1])
    found = fields_of(net.build(), net.last)
    height, width = found["image", "height"], found["image", "width"]
    assert (height.size, height.stride) == (3, 1)
    assert (width.size, width.stride) == (5 + 6 * 2, 2)


def test_a_join_sees_the_hull_of_its_branches() -> None:
    net = Net(image=(1, 16, 16))
    one = net.add("Conv2d", 0, out_channels=1, kernel_size=3, padding=1)
    other = net.add("Conv2d", 0, out_channels=1, kernel_size=7, padding=3)
    net.add(Plus(), one, other)
    field = fields_of(net.build(), net.last)["image", "height"]
    assert (field.size, field.start, field.aligned) == (7, -3, True)


def test_a_unet_sees_more_or_less_by_position() -> None:
    net = Net(image=(1, 256, 256))

    def double() -> int:
        for _ in range(2):
            net.add("Conv2d", out_channels=1, kernel_size=3, padding=1)
        return net.last

    skips = []
    for _ in range(4):
        skips.append(double())
        net.add("MaxPool2d", kernel_size=2, stride=2)
    double()
    for skip in reversed(skips):
        up = net.add("ConvTranspose2d", out_channels=1, kernel_size=2, stride=2)
        net.add(Plus(), skip, up)
        double()
    field = fields_of(net.build(), net.last)["image", "height"]
    assert (field.size_min, field.size, field.period, field.stride) == (188, 204, 16, 1)


def test_inputs_are_kept_apart() -> None:
    net = Net(a=(1, 16, 16), b=(1, 16, 16))
    left = net.add("Conv2d", net.inputs["a"], out_channels=1, kernel_size=3, padding=1)
    net.add(Plus(), left, net.inputs["b"])
    found = fields_of(net.build(), net.last)
    assert {key: field.size for key, field in found.items()} == {
        ("a", "height"): 3,
        ("a", "width"): 3,
        ("b", "height"): 1,
        ("b", "width"): 1,
    }


def test_what_is_stored_sees_nothing_and_adds_nothing() -> None:
    net = Net(image=(1, 8, 8))
    kept = net.add(graphs.Stored(channels=1, size=8))
    joined = net.add(Plus(), 0, kept)
    graph = net.build()
    assert fields_of(graph, kept) == {}
    assert fields_of(graph, joined)["image", "height"].size == 1


def test_pooling_over_space_is_global_through_its_node() -> None:
    net = Net(image=(1, 8, 8))
    with net.scope("head", "head"):
        net.add(Mean(), name="pool")
    field = fields_of(net.build(), net.last)["image", "height"]
    assert field.globally == "head.pool"


def test_flattening_loses_positions_and_a_linear_layer_sees_all() -> None:
    net = Net(image=(1, 8, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3)
    flat = net.add(Flat())
    net.add(Dense(units=2), name="fc")
    graph = net.build()
    found = fields_of(graph, flat)["image", "width"]
    assert found.flattened
    assert (found.size, found.stride) == (3, None)
    assert fields_of(graph, net.last)["image", "width"].globally == "fc"


def test_an_axis_that_meets_itself_along_another_is_unavailable() -> None:
    net = Net(image=(1, 8, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3, padding=1, name="conv")
    straight = net.last
    net.add(Plus(), straight, net.add(Turn()))
    field = fields_of(net.build(), net.last)["image", "height"]
    assert field.size is None
    assert field.unavailable == "it meets itself along another axis"


@pytest.mark.parametrize("seed", range(25))
def test_against_following_every_position(seed: int) -> None:
    """Random joins of convolutions, position by position through the looks of the ops."""
    random = Random(seed)
    net = Net(sequence=(1, 24))
    values = [0]
    for _ in range(8):
        source = random.choice(values)
        if random.random() < 0.35:
            alike = [v for v in values if net.tensors[v] == net.tensors[source]]
            values.append(net.add(Plus(), source, random.choice(alike)))
            continue
        n = net.tensors[source].shape[1]
        kernel = random.randint(1, min(3, n))
        stride = random.choice((1, 1, 2))
        padding = kernel // 2
        values.append(
            net.add(
                "Conv1d",
                source,
                out_channels=1,
                kernel_size=kernel,
                stride=stride,
                padding=padding,
            )
        )
    graph = net.build({str(value): value for value in values})
    facts = run(graph, Options())

    @cache
    def sees(value: int, position: int) -> tuple[int, int]:
        producer = graph.producers[value]
        if producer < 0:
            return position, position
        looks = facts[Sites].kinds[facts[Sites].of[producer]].looks[0]
        spans = []
        for source, look in zip(graph.nodes[producer].inputs, looks, strict=True):
            assert look is not None
            window = look[1][1]
            assert isinstance(window, Window)
            spans += [
                sees(source, window.stride * position - window.before + window.dilation * tap)
                for tap in range(window.kernel)
            ]
        return min(span[0] for span in spans), max(span[1] for span in spans)

    compared = 0
    for value in values:
        (track,) = facts[Fields].values[value]
        if not track.field.tabled:  # a table drops what lies in the padding
            for position in range(net.tensors[value].shape[1]):
                assert track.field.at(position) == sees(value, position), (value, position)
                compared += 1
    assert compared > 24


def test_what_was_picked_from_an_axis_is_what_all_see() -> None:
    """A row and a column of a square, added: positions of the axis that is gone do not move on."""
    net = Net(image=(2, 8, 8))
    seen = net.add("Conv2d", out_channels=2, kernel_size=3, padding=1)
    row = net.add("Select", seen, dim=2, index=5)
    net.add("Select", seen, dim=3, index=-1)
    graph = net.build()
    found = fields_of(graph, row)
    height, width = found["image", "height"], found["image", "width"]
    assert [height.at(position) for position in (0, 7)] == [(4, 6), (4, 6)]
    assert (height.stride, width.stride) == (None, 1)
    net.add("add", row, net.last)
    found = fields_of(net.build(), net.last)
    height, width = found["image", "height"], found["image", "width"]
    assert [height.at(position) for position in (0, 7)] == [(-1, 6), (4, 8)]
    assert [width.at(position) for position in (0, 7)] == [(-1, 8), (6, 8)]


def test_fields_are_handed_on_not_made_anew() -> None:
    net = Net(image=(1, 8, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3)
    before = net.last
    net.add(Rectify())
    found = run(net.build(), Options())[Fields].values
    assert found[net.last] is found[before]
