"""Ops that move values about, or weigh them by fixed kernels, against torch over grids.

torch runs on the CPU on small tensors, so that values count as well as shapes: padding of the meta
device accepts what the kernels refuse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import product
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from cnnspec.backends.onnx.build import OLDEST_OPSET, to_model
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import Reject
from cnnspec.geometry import Continued, Window
from cnnspec.op import Op, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Role, Tensor, default_roles
from tests.golden import oracles
from tests.ops.harness import Interpreted, alone, arrays

# timm imports torchvision, which needs operators that `oracles` declares.
assert oracles.models
BlurPool2d = import_module("timm.layers").BlurPool2d

Arguments = dict[str, Any]

CODES = {
    "crop-too-large",
    "groups-divide",
    "kernel-too-large",
    "padding-too-large",
    "unflatten-size",
}


def tensor(shape: tuple[int, ...]) -> Tensor:
    roles = default_roles(len(shape))
    assert roles is not None
    return Tensor(shape, roles)


def ours(name: str, arguments: Arguments, x: Tensor) -> tuple[Op, Site] | None:
    """The op and its tensors; None if it rejects, for a reason of shapes."""
    op = bind(registry()[name], arguments)
    try:
        return op, Site((x,), op.infer((x,)))
    except Reject as reject:
        refused = reject
    assert refused.code in CODES
    assert refused.at in arguments
    return None


def counting(shape: tuple[int, ...]) -> torch.Tensor:
    """A batch of two whose values are all different."""
    count = 2 * int(np.prod(shape))
    return torch.arange(1.0, count + 1).reshape(2, *shape)


def theirs(module: nn.Module, x: torch.Tensor) -> torch.Tensor | None:
    """What torch gives, None if it raises or nothing is left."""
    try:
        found = module(x)
    except (RuntimeError, ValueError, IndexError):
        return None
    assert isinstance(found, torch.Tensor)
    return found if found.numel() else None


def same(name: str, arguments: Arguments, shape: tuple[int, ...], module: nn.Module) -> bool:
    """Assert that the op rejects, shapes and computes what torch's module does; whether it ran."""
    x = counting(shape)
    expected = theirs(module, x)
    found = ours(name, arguments, tensor(shape))
    assert (found is None) == (expected is None), f"{name} {arguments} {shape}"
    if found is None or expected is None:
        return False
    op, site = found
    assert tuple(expected.shape[1:]) == site.y.shape, f"{name} {arguments} {shape}"
    (computed,) = Interpreted(alone(op, site.inputs))(x)
    assert torch.equal(computed, expected), f"{name} {arguments} {shape}"
    return True


def in_runtime(op: Op, site: Site, x: torch.Tensor, opset: int) -> torch.Tensor:
    """What ONNX Runtime computes, with all optimisations."""
    module = Interpreted(alone(op, site.inputs))
    model = to_model(module.graph, arrays(module), opset=opset)
    onnx.checker.check_model(model, full_check=True)
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    runtime = session(model.SerializeToString(), optimise=level, threads=1)
    (found,) = runtime.run(None, {"x0": x.numpy()})
    return torch.from_numpy(found)


# -------------------------------------------------------------------------------------- padding

KINDS = ("Zero", "Constant", "Reflection", "Replication", "Circular")


def padding_cases(kind: str) -> Iterator[tuple[int, int, int]]:
    """Sizes and sides. Circular padding that torch fills with uninitialised memory is left out."""
    for n, before, after in product((1, 2, 4), range(-5, 6), range(-5, 6)):
        cut = -min(0, before) - min(0, after)
        if kind != "Circular" or n - cut >= max(1, before, after) or not cut:
            yield n, before, after


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_torchs(kind: str) -> None:
    """Along one axis, for all sides from deep crops to more than torch takes."""
    name, ran = f"{kind}Pad1d", Counter[bool]()
    for n, before, after in padding_cases(kind):
        value = (0.5,) if kind == "Constant" else ()
        arguments: Arguments = {"padding": [before, after]}
        if value:
            arguments["value"] = 0.5
        module = getattr(nn, name)((before, after), *value)
        ran[same(name, arguments, (2, n), module)] += 1
    assert ran[True] > 60
    assert ran[False] > 60


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_every_rank(kind: str, axes: int) -> None:
    """Sides are torch's, the last axis first, or pairs, the first axis first."""
    shape = (2, 4, 5, 6)[: axes + 1]
    draw = Random(axes)
    for _ in range(6):
        sides = [draw.randint(-2, 2) for _ in range(2 * axes)]
        pairs = [list(pair) for pair in zip(sides[-2::-2], sides[::-2], strict=True)]
        value = (1.5,) if kind == "Constant" else ()
        named = {"value": 1.5} if value else {}
        module = getattr(nn, f"{kind}Pad{axes}d")(tuple(sides), *value)
        for padding in (sides, pairs):
            assert same(f"{kind}Pad{axes}d", {"padding": padding, **named}, shape, module)
    module = getattr(nn, f"{kind}Pad{axes}d")(1, *value)
    assert same(f"{kind}Pad{axes}d", {"padding": 1, **named}, shape, module)


@pytest.mark.parametrize("kind", ["Reflection", "Replication", "Circular"])
def test_padding_reads_what_its_view_says(kind: str) -> None:
    """At every position, the borders too."""
    for n, before, after in padding_cases(kind):
        found = ours(f"{kind}Pad1d", {"padding": [before, after]}, tensor((1, n)))
        if found is None:
            continue
        op, site = found
        (y,) = Interpreted(alone(op, site.inputs))(torch.arange(float(n)).reshape(1, 1, n))
        look = op.window(site, 0, 0)
        assert look is not None
        view = look[1][1]
        assert isinstance(view, Continued | Window)
        for position, value in enumerate(y.flatten().tolist()):
            source = view.source(position) if isinstance(view, Continued) else position - before
            assert source == value, (n, before, after, position)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 19])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_in_onnx_runtime(kind: str, opset: int) -> None:
    """Crops on one side and padding on the other, on both axes, in both of ONNX's ways."""
    x = counting((1, 4, 5))
    for padding in ([2, -3, -1, 2], [-4, 1, 0, 0], [0, 0, -2, -1], [0, 4, 3, 0], [1, 1, 2, 2]):
        named = {"value": -2.5} if kind == "Constant" else {}
        found = ours(f"{kind}Pad2d", {"padding": padding, **named}, tensor((1, 4, 5)))
        assert found is not None
        (expected,) = Interpreted(alone(found[0], found[1].inputs))(x)
        assert torch.equal(in_runtime(*found, x, opset), expected), padding


REFUSED: list[tuple[str, Arguments, tuple[int, ...], str, str]] = [
    (
        "ReflectionPad2d",
        {"padding": [0, 0, 4, 1]},
        (3, 4, 9),
        "padding-too-large",
        "reflect padding of 4 needs more than the 4 that the input has along height",
    ),
    (
        "CircularPad1d",
        {"padding": [5, 0]},
        (3, 4),
        "padding-too-large",
        "circular padding of 5 needs more than the 4 that the input has along length",
    ),
    (
        "CircularPad1d",
        {"padding": [3, -2]},
        (3, 4),
        "padding-too-large",
        "circular padding of 3 needs more than the 2 that the input has along length",
    ),
    (
        "CircularPad1d",
        {"padding": [2, -4]},
        (3, 4),
        "crop-too-large",
        "length is 4, of which 4 are cut: nothing is left to pad with",
    ),
    (
        "ZeroPad2d",
        {"padding": [-2, -3, 0, 0]},
        (3, 4, 5),
        "crop-too-large",
        "width is 5, from which 5 cannot be cut",
    ),
    (
        "ConstantPad1d",
        {"padding": [-5, 9], "value": 1},
        (3, 4),
        "crop-too-large",
        "length is 4, from which 5 cannot be cut",
    ),
    (
        "PixelShuffle",
        {"upscale_factor": 2},
        (6, 4, 4),
        "groups-divide",
        "6 input channels cannot be laid out as squares of 2x2, which take 4 each",
    ),
    (
        "PixelUnshuffle",
        {"downscale_factor": 2},
        (6, 4, 5),
        "unflatten-size",
        "width is 5, which cannot be split into squares of 2x2",
    ),
    (
        "Fold",
        {"output_size": 4, "kernel_size": [2, 3]},
        (8, 6),
        "unflatten-size",
        "8 cannot be split into patches of 2x3",
    ),
    (
        "Fold",
        {"output_size": 4, "kernel_size": 2},
        (8, 6),
        "unflatten-size",
        "an image of this size has 3x3 patches, the input has 6",
    ),
    (
        "Unfold",
        {"kernel_size": 3, "dilation": 2},
        (2, 9, 4),
        "kernel-too-large",
        "the kernel covers 5 along width, but the input has 4",
    ),
    (
        "FixedConv2d",
        {"kernel": [[1, 2, 1]], "dilation": 2},
        (2, 9, 4),
        "kernel-too-large",
        "the kernel covers 5 along width, but the input has 4",
    ),
    (
        "FixedConv2d",
        {"kernel": [[0, 0]]},
        (2, 9, 4),
        "argument-value",
        "`kernel` has no weight other than 0",
    ),
    (
        "FixedConv2d",
        {"kernel": [[1]], "scale": 0},
        (2, 9, 4),
        "argument-value",
        "`scale` must not be 0",
    ),
    (
        "BlurPool2d",
        {"kernel_size": 7},
        (2, 3, 9),
        "padding-too-large",
        "reflect padding of 3 needs more than the 3 that the input has along height",
    ),
    (
        "LPPool1d",
        {"norm_type": 0, "kernel_size": 2},
        (2, 4),
        "argument-value",
        "`norm_type` must not be 0",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "shape", "code", "message"), REFUSED)
def test_what_is_refused(
    name: str, arguments: Arguments, shape: tuple[int, ...], code: str, message: str
) -> None:
    op = bind(registry()[name], arguments)
    with pytest.raises(Reject) as refused:
        op.infer((tensor(shape),))
    assert (refused.value.code, refused.value.message) == (code, message)
    assert refused.value.at in arguments


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        (
            "ZeroPad2d",
            {"padding": [1, 2, 3]},
            "argument-count",
            "`padding` has 3 values, where 4 are needed, two per axis",
        ),
        (
            "ZeroPad3d",
            {"padding": [[1, 2], [3, 4]]},
            "argument-count",
            "`padding` has 2 pairs, but there are 3 axes",
        ),
        (
            "ZeroPad1d",
            {"padding": [[1, 2, 3]]},
            "argument-count",
            "`padding` has 3 values for one axis, which has two sides",
        ),
        (
            "ZeroPad2d",
            {"padding": [1, 2, [3, 4], 5]},
            "argument-type",
            "`padding` must be an integer, two per axis in torch's order, or a pair per axis, "
            "not [3, 4]",
        ),
        (
            "FixedConv2d",
            {"kernel": [[1, 2], [3]]},
            "argument-count",
            "`kernel` has rows of different lengths",
        ),
        (
            "FixedConv2d",
            {"kernel": [[[1, 2]], [[3]]]},
            "argument-count",
            "`kernel` has kernels of different sizes",
        ),
        (
            "FixedConv2d",
            {"kernel": [1, 2]},
            "argument-type",
            "`kernel` must be a kernel as a list of rows of numbers, or a list of such kernels of "
            "one size, not [1, 2]",
        ),
    ],
)
def test_arguments_that_no_slot_takes(
    name: str, arguments: Arguments, code: str, message: str
) -> None:
    with pytest.raises(Reject) as refused:
        bind(registry()[name], arguments)
    assert (refused.value.code, refused.value.message) == (code, message)


# ------------------------------------------------------------------------- squares and patches


def test_pixels_are_shuffled_as_in_torch() -> None:
    ran = Counter[bool]()
    for factor, shape in product((1, 2, 3), ((4, 4, 6), (9, 3, 6), (36, 6, 6), (1, 1, 1))):
        shuffle, back = nn.PixelShuffle(factor), nn.PixelUnshuffle(factor)
        ran[same("PixelShuffle", {"upscale_factor": factor}, shape, shuffle)] += 1
        ran[same("PixelUnshuffle", {"downscale_factor": factor}, shape, back)] += 1
    assert ran[True] > 8
    assert ran[False] > 4


def patches() -> Iterator[Arguments]:
    """Windows of patches."""
    for values in product((1, 2, [3, 2]), (1, [1, 3]), (0, [2, 1]), (1, 3)):
        yield dict(zip(("kernel_size", "dilation", "padding", "stride"), values, strict=True))


def in_torch(arguments: Arguments) -> Arguments:
    """Lists as the tuples that torch takes."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items()}


def test_images_are_unfolded_as_in_torch() -> None:
    ran = Counter[bool]()
    for arguments, shape in product(patches(), ((2, 5, 6), (1, 2, 4), (3, 1, 1))):
        ran[same("Unfold", arguments, shape, nn.Unfold(**in_torch(arguments)))] += 1
    assert ran[True] > 30
    assert ran[False] > 10


def test_patches_are_folded_as_in_torch() -> None:
    """What Unfold gives, and numbers of patches and values that do not fit."""
    ran = Counter[bool]()
    for arguments, size in product(patches(), ([5, 6], [4, 4], [1, 3])):
        fold = nn.Fold(tuple(size), **in_torch(arguments))
        try:
            shape = tuple(nn.Unfold(**in_torch(arguments))(torch.zeros(1, 2, *size)).shape[1:])
        except RuntimeError:
            shape = (4, 4)
        for values, count in (shape, (shape[0] + 1, shape[1]), (shape[0], shape[1] + 1)):
            full = {"output_size": size, **arguments}
            ran[same("Fold", full, (values, count), fold)] += 1
    assert ran[True] > 40
    assert ran[False] > 40


def test_folded_patches_cost_what_they_add() -> None:
    """A pixel that `m` values reach takes `m - 1` additions; padding takes none."""
    for arguments, size in product(patches(), ([5, 6], [4, 4])):
        try:
            ones = nn.Unfold(**in_torch(arguments))(torch.ones(1, 3, *size))
        except RuntimeError:
            continue
        fold = nn.Fold(tuple(size), **in_torch(arguments))
        met = fold(torch.ones_like(ones))
        found = ours("Fold", {"output_size": size, **arguments}, tensor(tuple(ones.shape[1:])))
        assert found is not None
        op, site = found
        assert op.cost(site).add == int((met - 1).clamp(min=0).sum()), arguments


def test_patches_in_onnx_runtime() -> None:
    for arguments in patches():
        unfold = ours("Unfold", arguments, tensor((2, 5, 6)))
        if unfold is None:
            continue
        image = counting((2, 5, 6))
        (cut,) = Interpreted(alone(unfold[0], unfold[1].inputs))(image)
        assert torch.equal(in_runtime(*unfold, image, 13), cut), arguments
        fold = ours("Fold", {"output_size": [5, 6], **arguments}, unfold[1].y)
        assert fold is not None
        (whole,) = Interpreted(alone(fold[0], fold[1].inputs))(cut)
        torch.testing.assert_close(in_runtime(*fold, cut, 13), whole)


def test_fold_needs_values_first() -> None:
    op = bind(registry()["Fold"], {"output_size": 4, "kernel_size": 2})
    for shape, roles in (
        ((9, 8), (Role.TOKEN, Role.FEATURE)),
        ((8, 3, 3), (Role.CHANNEL, Role.HEIGHT, Role.WIDTH)),
    ):
        with pytest.raises(Reject) as refused:
            op.infer((Tensor(shape, roles),))
        assert (refused.value.code, refused.value.at) == ("input-rank", 0)


# --------------------------------------------------------------------------- fixed and few weights


@pytest.mark.parametrize("mode", ["reflect", "constant", "replicate", "circular"])
@pytest.mark.parametrize("size", range(2, 8))
def test_blur_pool_is_timms(size: int, mode: str) -> None:
    """Values equal to timm's for every size, stride and mode; both refuse the same."""
    ran = Counter[bool]()
    for stride, shape in product((1, 2, 3), ((3, 8, 9), (1, 4, 5), (2, 2, 2))):
        arguments = {
            "kernel_size": size,
            "stride": stride,
            "padding_mode": "zeros" if mode == "constant" else mode,
        }
        x = torch.rand(2, *shape)
        expected = theirs(BlurPool2d(shape[0], size, stride, mode), x)
        found = ours("BlurPool2d", arguments, tensor(shape))
        assert (found is None) == (expected is None), arguments
        ran[found is not None] += 1
        if found is None:
            continue
        (computed,) = Interpreted(alone(found[0], found[1].inputs))(x)
        torch.testing.assert_close(computed, expected)
    assert ran[True] > 2


def test_a_blur_of_one_keeps_every_second_pixel() -> None:
    found = ours("BlurPool2d", {"kernel_size": 1}, tensor((2, 5, 6)))
    assert found is not None
    x = counting((2, 5, 6))
    (computed,) = Interpreted(alone(found[0], found[1].inputs))(x)
    assert torch.equal(computed, x[:, :, ::2, ::2])


def slid(x: np.ndarray[Any, Any], kernel: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """A kernel over one channel, written out."""
    rows, columns = len(kernel), len(kernel[0])
    height, width = x.shape[0] - rows + 1, x.shape[1] - columns + 1
    return np.array(
        [
            [
                sum(x[y + i, z + j] * kernel[i][j] for i in range(rows) for j in range(columns))
                for z in range(width)
            ]
            for y in range(height)
        ]
    )


def test_fixed_kernels_lie_behind_each_channel() -> None:
    """Channel `c*m + i` is kernel `i` over channel `c`, times the scale, not flipped."""
    kernels = [[[-1, 0, 1], [-2, 0, 2]], [[1, 2, 1], [0, 0, 0.5]]]
    found = ours("FixedConv2d", {"kernel": kernels, "scale": 0.5}, tensor((3, 4, 5)))
    assert found is not None
    x = torch.rand(2, 3, 4, 5, dtype=torch.float32)
    (computed,) = Interpreted(alone(found[0], found[1].inputs))(x)
    for sample, channel, number in product(range(2), range(3), range(2)):
        expected = slid(x[sample, channel].numpy(), kernels[number]) * 0.5
        np.testing.assert_allclose(computed[sample, channel * 2 + number], expected, rtol=1e-5)


def test_zeros_around_a_fixed_kernel_are_not_seen() -> None:
    kernel = [[0, 0, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    found = ours("FixedConv2d", {"kernel": kernel, "dilation": 2, "padding": 1}, tensor((1, 9, 9)))
    assert found is not None
    op, site = found
    look = op.window(site, 0, 0)
    assert look is not None
    assert [view for _, view in look[1:]] == [Window(1, 1, 2, -1), Window(3, 1, 2, -1)]


def test_subsampling_is_lenets() -> None:
    """Parameters and connections of S2 and S4 (LeCun et al. 1998, section II.B)."""
    for shape, params, connections in (((6, 28, 28), 12, 5880), ((16, 10, 10), 32, 2000)):
        found = ours("Subsample2d", {"kernel_size": 2}, tensor(shape))
        assert found is not None
        op, site = found
        assert sum(weight.elements for weight in op.weights(site).values()) == params
        counted = op.connections(site)
        assert counted is not None
        assert sum(counted) == connections


def test_subsampling_is_a_depthwise_convolution_of_equal_weights() -> None:
    found = ours("Subsample2d", {"kernel_size": [2, 3], "stride": 2}, tensor((2, 5, 8)))
    assert found is not None
    module = Interpreted(alone(found[0], found[1].inputs))
    weights = dict(module.named_parameters())
    x = torch.rand(2, 2, 5, 8)
    filters = weights["op.weight"][:, None].expand(2, 1, 2, 3)
    expected = F.conv2d(x, filters, weights["op.bias"].flatten(), stride=2, groups=2)
    torch.testing.assert_close(module(x)[0], expected)
