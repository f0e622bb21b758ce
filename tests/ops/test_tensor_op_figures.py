"""Roles, costs and views of activations, joins and ops that move data, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from cnnspec.geometry import AlsoEverything, Everything, Flattened, Taps, Unknown, Window
from cnnspec.op import Look, Op, Ops, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Role, Tensor
from tests.ops.sites import usual

C, D, H, W = Role.CHANNEL, Role.DEPTH, Role.HEIGHT, Role.WIDTH
L, F, T = Role.LENGTH, Role.FEATURE, Role.TOKEN

SAME = Window()


def placed(name: str, arguments: dict[str, Any], *inputs: Tensor) -> tuple[Op, Site]:
    op = bind(registry()[name], arguments)
    return op, Site(inputs, op.infer(inputs))


@pytest.mark.parametrize(
    ("name", "arguments", "inputs", "roles"),
    [
        ("Flatten", {}, [usual(3, 4, 5)], (F,)),
        ("Flatten", {}, [usual(3, 4)], (F,)),
        ("Flatten", {"start_dim": 2}, [usual(3, 4, 5)], (C, T)),
        ("Flatten", {"start_dim": 2, "end_dim": 3}, [usual(2, 3, 4, 5)], (C, T, W)),
        ("Flatten", {"end_dim": 2}, [usual(3, 4, 5)], (C, W)),
        ("Flatten", {"end_dim": 2}, [Tensor((2, 3, 4, 5), (T, C, H, W))], (C, H, W)),
        ("Flatten", {"start_dim": 2}, [Tensor((4, 2, 3), (H, W, C))], (H, F)),
        ("Flatten", {"start_dim": 3}, [usual(3, 4, 5)], (C, H, W)),
        ("Unflatten", {"dim": 1, "unflattened_size": [3, 4, 5]}, [usual(60)], (C, H, W)),
        ("Unflatten", {"dim": 1, "unflattened_size": [3, 20]}, [usual(60)], (C, L)),
        ("Unflatten", {"dim": 1, "unflattened_size": [1, 3, 4, 5]}, [usual(60)], (C, D, H, W)),
        ("Unflatten", {"dim": 2, "unflattened_size": [4, 5]}, [Tensor((3, 20), (C, T))], (C, H, W)),
        ("Unflatten", {"dim": 1, "unflattened_size": [2, 3]}, [usual(6, 4, 5)], (T, C, H, W)),
        ("Permute", {"dims": [0, 2, 3, 1]}, [usual(3, 4, 5)], (H, W, C)),
        ("Stack", {"dim": 2}, [usual(3, 4, 5)] * 2, (C, D, H, W)),
        ("Stack", {"dim": 1}, [usual(7)] * 2, (T, F)),
        ("Stack", {"dim": 4}, [usual(3, 4, 5)] * 2, (C, H, W, T)),
        ("matmul", {}, [Tensor((6, 4), (T, F)), Tensor((4, 9), (C, L))], (T, L)),
        ("concat", {}, [Tensor((4, 5, 3), (H, W, C)), Tensor((4, 5, 1), (H, W, C))], (H, W, C)),
        ("Concat", {"dim": 1}, [Tensor((1, 8), (C, L), False), Tensor((9, 8), (T, F))], (T, F)),
        ("mul", {}, [Tensor((3, 1, 1), (C, H, W), False), Tensor((3, 4, 5), (H, W, C))], (H, W, C)),
        ("Slice", {"dim": 1, "stop": 1}, [Tensor((9, 8), (T, F))], (T, F)),
        ("Select", {"dim": 1, "index": 0}, [Tensor((9, 8), (T, F))], (F,)),
        ("Select", {"dim": 2, "index": 0}, [usual(3, 9)], (F,)),
        ("Select", {"dim": 1, "index": 0}, [usual(3, 4, 5)], (H, W)),
        ("Select", {"dim": -2, "index": 0}, [usual(3, 4, 5)], (C, W)),
    ],
)
def test_axes_keep_their_meaning(
    name: str, arguments: dict[str, Any], inputs: list[Tensor], roles: tuple[Role, ...]
) -> None:
    assert placed(name, arguments, *inputs)[1].y.roles == roles


def test_columns_of_an_image_are_a_sequence_with_channels() -> None:
    """As recurrent and 1-D convolutional networks on spectrograms read them."""
    _, columns = placed("Flatten", {"end_dim": 2}, usual(2, 9, 7))
    _, slid = placed("Conv1d", {"out_channels": 3, "kernel_size": 3}, columns.y)
    assert slid.y.shape == (3, 5)


def test_concat_finds_channels_wherever_they_are() -> None:
    last = Tensor((4, 5, 3), (H, W, C))
    tokens = Tensor((9, 8), (T, F))
    assert placed("concat", {}, last, last)[1].y.shape == (4, 5, 6)
    assert placed("concat", {}, tokens, tokens)[1].y.shape == (9, 16)


@pytest.mark.parametrize(
    ("name", "arguments", "batched"),
    [
        ("add", {}, (True, False)),
        ("concat", {}, (False, True)),
        ("Stack", {"dim": 1}, (False, False)),
        ("matmul", {}, (False, False)),
    ],
)
def test_a_result_has_a_batch_if_any_input_has(
    name: str, arguments: dict[str, Any], batched: tuple[bool, ...]
) -> None:
    inputs = (Tensor((4, 4), (C, L), each) for each in batched)
    assert placed(name, arguments, *inputs)[1].y.batched is any(batched)


@pytest.mark.parametrize(
    ("name", "arguments", "shapes", "cost"),
    [
        ("ReLU", {}, [(2, 3)], Ops(cmp=6)),
        ("Sigmoid", {}, [(2, 3)], Ops(exp=6, add=6, div=6)),
        ("GELU", {}, [(2, 3)], Ops(exp=6, add=6, mul=12, div=6)),
        ("GELU", {"approximate": "tanh"}, [(2,)], Ops(exp=2, add=8, mul=14, div=2)),
        ("Softmax", {"dim": 1}, [(10,)], Ops(cmp=9, add=19, exp=10, div=10)),
        ("Softmax", {"dim": 2}, [(2, 5)], Ops(cmp=8, add=18, exp=10, div=10)),
        ("LogSoftmax", {"dim": 1}, [(10,)], Ops(cmp=9, add=29, exp=11)),
        ("GLU", {"dim": 1}, [(4, 3)], Ops(exp=6, add=6, div=6, mul=6)),
        ("Dropout", {}, [(2, 3)], Ops()),
        ("add", {}, [(2, 3), (2, 3), (2, 1)], Ops(add=12)),
        ("mul", {}, [(2, 1, 1), (2, 3, 4)], Ops(mul=24)),
        ("mean", {}, [(2, 3), (2, 3)], Ops(add=6, div=6)),
        ("maximum", {}, [(2, 3), (2, 3)], Ops(cmp=6)),
        ("add", {}, [(2, 3)], Ops()),
        ("matmul", {}, [(2, 3, 4), (2, 4, 5)], Ops(mac=2 * 3 * 4 * 5)),
        ("concat", {}, [(2, 3), (2, 3)], Ops()),
        ("Upsample", {"scale_factor": 2}, [(1, 2, 2)], Ops()),
        ("Upsample", {"size": 5, "mode": "linear"}, [(1, 2)], Ops(mul=10, add=5)),
        ("Upsample", {"scale_factor": 2, "mode": "bilinear"}, [(1, 2, 2)], Ops(mul=64, add=48)),
        ("Upsample", {"size": 1, "mode": "bicubic"}, [(1, 2, 2)], Ops(mul=16, add=15)),
    ],
)
def test_costs(
    name: str, arguments: dict[str, Any], shapes: list[tuple[int, ...]], cost: Ops
) -> None:
    op, site = placed(name, arguments, *(usual(*shape) for shape in shapes))
    assert op.cost(site) == cost


@pytest.mark.parametrize(
    ("name", "arguments", "shapes", "looks"),
    [
        ("mul", {}, [(3, 1, 1), (3, 4, 1)],
         [((0, SAME), (1, Everything()), (2, SAME)), ((0, SAME), (1, SAME), (2, SAME))]),
        ("matmul", {}, [(1, 4, 5), (3, 5, 2)],
         [((0, Everything()), (1, SAME), (None, Everything())),
          ((0, SAME), (None, Everything()), (2, SAME))]),
        ("concat", {}, [(2, 4), (3, 4)],
         [((0, SAME), (1, SAME)), ((0, Window(before=2)), (1, SAME))]),
        ("Concat", {"dim": 2}, [(2, 2), (2, 1)],
         [((0, SAME), (1, Taps(((0, 0), (1, 1), None)))),
          ((0, SAME), (1, Taps((None, None, (0, 0)))))]),
        ("Stack", {"dim": 2}, [(2, 4), (2, 4)], [((0, SAME), (2, SAME))] * 2),
        ("Softmax", {"dim": 2}, [(2, 4)], [((0, SAME), (1, AlsoEverything(SAME)))]),
        ("GLU", {"dim": 1}, [(6, 4)], [((0, Window(2, dilation=3)), (1, SAME))]),
        ("Slice", {"dim": -1, "start": -3, "step": 2}, [(2, 8)],
         [((0, SAME), (1, Window(stride=2, before=-5)))]),
        ("Select", {"dim": 2, "index": -3}, [(2, 8, 4)],
         [((0, SAME), (None, Window(before=-5)), (1, SAME))]),
        ("PadChannels", {"before": 2}, [(2, 8)], [((0, Window(before=2)), (1, SAME))]),
        ("Permute", {"dims": [0, 3, 1, 2]}, [(2, 3, 4)], [((1, SAME), (2, SAME), (0, SAME))]),
        ("Flatten", {}, [(2, 3)], [((0, Flattened()), (0, Flattened()))]),
        ("Flatten", {}, [(5, 1, 1)], [((0, SAME), (0, Flattened()), (0, Flattened()))]),
        ("Flatten", {"end_dim": 2}, [(5, 2, 3)],
         [((0, Flattened()), (0, Flattened()), (1, SAME))]),
        ("Unflatten", {"dim": 1, "unflattened_size": [1, 6, 1]}, [(6,)], [((1, SAME),)]),
        ("Unflatten", {"dim": 1, "unflattened_size": [2, 3]}, [(6, 4)],
         [((None, Unknown("the axis was split into several")), (2, SAME))]),
        ("CenterCrop", {"like": 1}, [(2, 9), (2, 4)], [((0, SAME), (1, Window(before=-2))), None]),
        ("Upsample", {"like": 1}, [(2, 1), (2, 4)], [((0, SAME), (1, Everything())), None]),
    ],
)  # fmt: skip
def test_views(
    name: str,
    arguments: dict[str, Any],
    shapes: list[tuple[int, ...]],
    looks: list[Look | None],
) -> None:
    op, site = placed(name, arguments, *(usual(*shape) for shape in shapes))
    assert [op.window(site, number, 0) for number in range(len(shapes))] == looks


def test_chunks_lie_one_after_the_other() -> None:
    op, site = placed("Chunk", {"chunks": 3, "dim": 1}, usual(8, 4))
    assert [part.shape for part in site.outputs] == [(3, 4), (3, 4), (2, 4)]
    assert [op.window(site, 0, part) for part in range(3)] == [
        ((0, Window(before=-start)), (1, SAME)) for start in (0, 3, 6)
    ]


def test_slopes_are_not_decayed() -> None:
    op, site = placed("PReLU", {"num_parameters": 3, "init": 0.1}, usual(3, 4))
    weight = op.weights(site)["weight"]
    assert not weight.decay
    assert weight.init.arguments == (("val", 0.1),)
