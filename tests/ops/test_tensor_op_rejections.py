"""What activations, joins and ops that move data refuse: the code, the words, what is to blame."""

from __future__ import annotations

from typing import Any

import pytest

from cnnspec.diagnostics import Reject
from cnnspec.ops import bind, registry
from cnnspec.tensor import Role, Tensor
from tests.ops.sites import refusal

Shapes = tuple[tuple[int, ...], ...]

IMAGE, WIDE = (3, 4, 6), (3, 8, 6)

CASES: list[tuple[str, dict[str, Any], Shapes, str, str, str | int | None]] = [
    # joins
    ("add", {}, ((64, 56, 56), (32, 57, 56)), "add-shape",
     "cannot add: channels are 64 and 32", 1),
    ("add", {}, ((64, 56, 56), (64, 57, 56)), "add-shape",
     "cannot add: height is 56 and 57", 1),
    ("mul", {}, ((8, 1, 1), (8, 4, 4), (8, 4, 5)), "mul-shape",
     "cannot mul: width is 4 and 5", 2),
    ("sub", {}, ((3, 8), (3, 9)), "sub-shape", "cannot sub: length is 8 and 9", 1),
    ("mean", {}, ((10,), (11,)), "mean-shape", "cannot mean: features are 10 and 11", 1),
    ("maximum", {}, (IMAGE, (3,)), "maximum-shape",
     "cannot maximum: inputs have 3 and 1 axes", 1),
    ("concat", {}, ((64, 56, 56), (32, 57, 56)), "concat-shape",
     "cannot concat along channels: height is 56 and 57", 1),
    ("concat", {}, (IMAGE, IMAGE, (3, 4)), "concat-shape",
     "cannot concat along channels: inputs have 3 and 2 axes", 2),
    ("concat", {}, (IMAGE, (1, 1, 1)), "concat-shape",
     "cannot concat along channels: height is 4 and 1", 1),
    ("Concat", {"dim": 2}, (IMAGE, (4, 4, 6)), "concat-shape",
     "cannot concat along height: channels are 3 and 4", 1),
    ("Concat", {"dim": 4}, (IMAGE, IMAGE), "axis-range",
     "there is no axis 4: 3x4x6 with its batch has 4 axes", "dim"),
    ("Stack", {"dim": 1}, (IMAGE, WIDE), "stack-shape",
     "cannot stack: inputs are 3x4x6 and 3x8x6", 1),
    ("Stack", {"dim": 0}, (IMAGE, IMAGE), "batch-axis",
     "axis 0 is the batch, which no operation changes", "dim"),
    ("matmul", {}, ((4, 5), (4, 5)), "matmul-shape",
     "cannot matmul: rows of the first have 5 elements, columns of the second have 4", 1),
    ("matmul", {}, ((2, 4, 5), (3, 5, 4)), "matmul-shape",
     "cannot matmul: channels are 2 and 3", 1),
    ("matmul", {}, ((5,), (5,)), "matmul-shape",
     "cannot matmul: an input has 1 axis, a matrix has 2", 0),
    ("matmul", {}, ((5, 4), (4,)), "matmul-shape",
     "cannot matmul: an input has 1 axis, a matrix has 2", 1),
    # activations
    ("PReLU", {"num_parameters": 4}, (IMAGE,), "argument-value",
     "`num_parameters` must be 1 or the number of channels, not 4", "num_parameters"),
    ("Hardtanh", {"min_val": 1, "max_val": 1}, (IMAGE,), "argument-value",
     "`max_val` must be more than `min_val`, which is 1, not 1", "max_val"),
    ("RReLU", {"lower": 0.5}, (IMAGE,), "argument-value",
     "`upper` must be at least `lower`, which is 0.5, not 0.3333333333333333", "upper"),
    ("CELU", {"alpha": 0}, (IMAGE,), "argument-value", "`alpha` must not be 0", "alpha"),
    ("Softplus", {"beta": 0}, (IMAGE,), "argument-value", "`beta` must not be 0", "beta"),
    ("Softshrink", {"lambd": -1}, (IMAGE,), "argument-value",
     "`lambd` must be a number of at least 0, not -1", "lambd"),
    ("Threshold", {"threshold": 1}, (IMAGE,), "missing-argument",
     "`Threshold` needs `value`", None),
    ("GELU", {"approximate": "tan"}, (IMAGE,), "argument-value",
     '`approximate` must be `none` or `tanh`, not "tan"', "approximate"),
    ("GLU", {"dim": 1}, (IMAGE,), "odd-size", "3 along channel cannot be halved", "dim"),
    ("Softmax", {}, (IMAGE,), "missing-argument", "`Softmax` needs `dim`", None),
    ("Softmax", {"dim": 0}, (IMAGE,), "batch-axis",
     "axis 0 is the batch, which no operation changes", "dim"),
    ("LogSoftmax", {"dim": -4}, (IMAGE,), "batch-axis",
     "axis -4 is the batch, which no operation changes", "dim"),
    ("Softmin", {"dim": -5}, (IMAGE,), "axis-range",
     "there is no axis -5: 3x4x6 with its batch has 4 axes", "dim"),
    ("Softmax2d", {}, ((3, 4),), "input-rank",
     "`Softmax2d` needs channels and 2 spatial axes, its input is 3x4", 0),
    ("Dropout", {"p": 1.5}, (IMAGE,), "argument-value",
     "`p` must be a number from 0 to 1, not 1.5", "p"),
    ("Dropout2d", {}, ((7,),), "input-rank",
     "`Dropout2d` needs channels and 2 spatial axes, its input is 7", 0),
    ("StochasticDepth", {"p": 0.1, "mode": "column"}, (IMAGE,), "argument-value",
     '`mode` must be `row` or `batch`, not "column"', "mode"),
    # moving data
    ("Slice", {"dim": 2, "start": 4}, (IMAGE,), "empty-slice",
     "nothing is left of the 4 positions along height", "start"),
    ("Slice", {"dim": 1, "start": 2, "stop": -1}, (IMAGE,), "empty-slice",
     "nothing is left of the 3 positions along channel", "stop"),
    ("Slice", {"dim": 1, "step": 0}, (IMAGE,), "argument-value",
     "`step` must be an integer of at least 1, not 0", "step"),
    ("Select", {"dim": 2, "index": 4}, (IMAGE,), "index-out-of-range",
     "there is no position 4 among the 4 along height", "index"),
    ("Select", {"dim": 2, "index": -5}, (IMAGE,), "index-out-of-range",
     "there is no position -5 among the 4 along height", "index"),
    ("Select", {"dim": 0, "index": 1}, (IMAGE,), "batch-axis",
     "axis 0 is the batch, which no operation changes", "dim"),
    ("Chunk", {"chunks": 2, "dim": 9}, (IMAGE,), "axis-range",
     "there is no axis 9: 3x4x6 with its batch has 4 axes", "dim"),
    ("Permute", {"dims": [0, 1, 2]}, (IMAGE,), "permute-dims",
     "`dims` must name each axis from 0 to 3 once", "dims"),
    ("Permute", {"dims": [0, 1, 1, 3]}, (IMAGE,), "permute-dims",
     "`dims` must name each axis from 0 to 3 once", "dims"),
    ("Permute", {"dims": [1, 0, 2, 3]}, (IMAGE,), "batch-axis",
     "axis 0 is the batch, which stays first", "dims"),
    ("Flatten", {"start_dim": 3, "end_dim": 1}, (IMAGE,), "axis-order",
     "`end_dim` is axis 1, before `start_dim`, which is axis 3", "end_dim"),
    ("Flatten", {"start_dim": 0}, (IMAGE,), "batch-axis",
     "axis 0 is the batch, which no operation changes", "start_dim"),
    ("Flatten", {}, ((),), "axis-range",
     "there is no axis 1: scalar with its batch has 1 axis", "start_dim"),
    ("Unflatten", {"dim": 1, "unflattened_size": [2, 2]}, (IMAGE,), "unflatten-size",
     "3 cannot be split into 2x2", "unflattened_size"),
    ("Unflatten", {"dim": 1, "unflattened_size": [2, -1]}, (IMAGE,), "unflatten-size",
     "3 cannot be split into 2x?", "unflattened_size"),
    ("Unflatten", {"dim": 1, "unflattened_size": [-1, -1]}, (IMAGE,), "argument-value",
     "`unflattened_size` must be sizes of at least 1, and at most one -1", "unflattened_size"),
    ("ChannelShuffle", {"groups": 2}, (IMAGE,), "groups-divide",
     "3 input channels cannot be split into 2 groups", "groups"),
    ("ChannelShuffle", {"groups": 1}, ((3,),), "input-rank",
     "`ChannelShuffle` needs channels and at least one more axis, its input is 3", 0),
    ("CenterCrop", {"size": 5}, (IMAGE,), "crop-too-large",
     "height is 4, from which 5 cannot be cut", "size"),
    ("CenterCrop", {"like": 1}, (IMAGE, WIDE), "crop-too-large",
     "height is 4, from which 8 cannot be cut", "like"),
    ("CenterCrop", {"size": [1, 2, 3]}, (IMAGE,), "argument-count",
     "`size` has 3 values, but the input has 2 spatial axes", "size"),
    ("CenterCrop", {}, (IMAGE,), "missing-argument", "`CenterCrop` needs `size` or `like`", None),
    ("CenterCrop", {"size": 1, "like": 1}, (IMAGE, IMAGE), "argument-conflict",
     "`size` and `like` both say how large the result is", "like"),
    # resizing
    ("Upsample", {}, (IMAGE,), "missing-argument",
     "`Upsample` needs `size`, `scale_factor` or `like`", None),
    ("Upsample", {"size": 8, "scale_factor": 2}, (IMAGE,), "argument-conflict",
     "`size` and `scale_factor` both say how large the result is", "scale_factor"),
    ("Upsample", {"size": 8}, ((7,),), "input-rank",
     "`Upsample` needs channels and 1 to 3 spatial axes, its input is 7", 0),
    ("Upsample", {"size": 8, "mode": "linear"}, (IMAGE,), "upsample-mode",
     "`linear` resizes 1 spatial axis, the input is 3x4x6", "mode"),
    ("Upsample", {"size": 8, "align_corners": False}, (IMAGE,), "argument-conflict",
     "`align_corners` means nothing to `nearest`, which does not interpolate", "align_corners"),
    ("Upsample", {"size": 8, "recompute_scale_factor": True}, (IMAGE,), "argument-conflict",
     "`recompute_scale_factor` needs `scale_factor`", "recompute_scale_factor"),
    ("Upsample", {"scale_factor": 0.2}, (IMAGE,), "argument-value",
     "`scale_factor` makes 0.8 of 4, which is no size", "scale_factor"),
    ("Upsample", {"scale_factor": -1}, (IMAGE,), "argument-value",
     "`scale_factor` makes -4 of 4, which is no size", "scale_factor"),
    ("Upsample", {"scale_factor": 1e308}, (IMAGE,), "argument-value",
     "`scale_factor` makes inf of 4, which is no size", "scale_factor"),
    ("Upsample", {"like": 1}, (IMAGE, (3, 4)), "like-rank",
     "the input is 3x4x6, which cannot take its size from 3x4", "like"),
    ("Upsample", {"size": [1, 2, 3, 4]}, (IMAGE,), "argument-count",
     "`size` has 4 values, where 1 to 3 are possible", "size"),
    ("Upsample", {"size": "large"}, (IMAGE,), "argument-type",
     '`size` must be an integer of at least 1, not "large"', "size"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "shapes", "code", "message", "at"), CASES)
def test_refused(
    name: str,
    arguments: dict[str, Any],
    shapes: Shapes,
    code: str,
    message: str,
    at: str | int | None,
) -> None:
    assert refusal(name, arguments, *shapes) == (code, message, at)


def test_a_concat_of_unlike_sizes_shows_both_and_says_what_helps() -> None:
    roles = (Role.CHANNEL, Role.HEIGHT, Role.WIDTH)
    with pytest.raises(Reject) as caught:
        bind(registry()["concat"], {}).infer(
            (Tensor((64, 56, 56), roles), Tensor((32, 57, 56), roles))
        )
    assert caught.value.label == "this is 32x57x56"
    assert caught.value.notes == ("the first input is 64x56x56",)
    assert caught.value.help == "resize or pad one branch to the same height"


def test_a_broadcast_names_the_input_that_set_the_size() -> None:
    roles = (Role.CHANNEL, Role.HEIGHT, Role.WIDTH)
    shapes = ((8, 1, 1), (8, 4, 4), (8, 4, 5))
    with pytest.raises(Reject) as caught:
        bind(registry()["mul"], {}).infer(tuple(Tensor(shape, roles) for shape in shapes))
    assert caught.value.label == "this is 8x4x5"
    assert caught.value.notes == ("the other is 8x4x4",)
    assert caught.value.help == "give both branches the same width"


def test_concat_needs_channels_or_features() -> None:
    grid = Tensor((4, 5), (Role.HEIGHT, Role.WIDTH))
    with pytest.raises(Reject) as caught:
        bind(registry()["concat"], {}).infer((grid, grid))
    assert caught.value.code == "concat-axis"
    assert caught.value.message == "4x5 has neither channels nor features"
    assert caught.value.at == 0


def test_upsample_names_the_modes_that_fit() -> None:
    volume = Tensor((1, 2, 3, 4), (Role.CHANNEL, Role.DEPTH, Role.HEIGHT, Role.WIDTH))
    with pytest.raises(Reject) as caught:
        bind(registry()["Upsample"], {"size": 8, "mode": "bicubic"}).infer((volume,))
    assert caught.value.help == "`trilinear` would fit, and `nearest` always does"
