"""Upsample by whole and broken factors, in every mode and rank, against torch's own interpolation.

What torch reads is found by resizing unit vectors along one axis; what ONNX Runtime computes is
compared by value. The sizes are such that factors round to the same and to twice the size too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import floor
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional

from cnnspec.backends.onnx.build import OLDEST_OPSET, to_model
from cnnspec.backends.onnx.session import session
from cnnspec.geometry import POINTWISE, Nearest, Taps
from cnnspec.op import Op, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.ops.harness import Interpreted, alone
from tests.ops.test_example_windows import expected

Shape = tuple[int, ...]

FACTORS = (0.3, 0.5, 0.75, 0.9, 1.0, 1.01, 1.16, 1.3, 1.5, 1.99, 2.0, 2.02, 2.12, 2.5, 3, 3.1, 7)
SIZES = (1, 2, 3, 5, 8)

MODES = [
    ("nearest", 1),
    ("nearest", 2),
    ("nearest", 3),
    ("nearest-exact", 1),
    ("nearest-exact", 2),
    ("nearest-exact", 3),
    ("linear", 1),
    ("bilinear", 2),
    ("bicubic", 2),
    ("trilinear", 3),
]

LEAST = 1e-5
"""A weight below which an input does not count: float32's rest of a zero."""


def resized(factors: tuple[float, ...], mode: str, shape: Shape, **options: Any) -> tuple[Op, Site]:
    roles = default_roles(len(shape))
    assert roles is not None
    x = Tensor(shape, roles)
    op = bind(registry()["Upsample"], {"scale_factor": factors, "mode": mode, **options})
    return op, Site((x,), op.infer((x,)))


def grid(rank: int, mode: str) -> Iterator[tuple[tuple[float, ...], Shape, dict[str, Any]]]:
    """Factors, shape and options: one factor for all axes, and others for the other axes."""
    aligned = [{"align_corners": True}] if "nearest" not in mode else []
    for number, (n, factor) in enumerate(product(SIZES, FACTORS)):
        mixed = (factor, FACTORS[(number * 5) % len(FACTORS)], 2.0)[:rank]
        for factors, shape in {((factor,) * rank, (n,) * rank): 0, (mixed, (n, 6, 3)[:rank]): 0}:
            if all(floor(size * each) for size, each in zip(shape, factors, strict=True)):
                for options in ({}, {"recompute_scale_factor": True}, *aligned):
                    yield factors, (2, *shape), options


def weights(op: Op, site: Site, axis: int) -> list[list[float]]:
    """For each output along `axis` what torch takes of each input, elsewhere all inputs alike."""
    n, rank = site.x.shape[axis], site.x.rank
    units = torch.eye(n).reshape(n, *(n if each == axis else 1 for each in range(rank)))
    sizes = [n, 1, *site.x.shape[1:]]
    with torch.no_grad():
        (result,) = Interpreted(alone(op, site.inputs))(units.expand(sizes).contiguous())
    along: list[list[float]] = result.movedim(axis + 1, 0).flatten(2)[:, :, 0].tolist()
    return along


def onnx_result(op: Op, site: Site, x: torch.Tensor, opset: int) -> np.ndarray[Any, Any]:
    model = to_model(alone(op, site.inputs), {}, opset=opset).SerializeToString()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    (found,) = session(model, optimise=level, threads=1).run(None, {"x0": x.numpy()})
    array: np.ndarray[Any, Any] = found
    return array


@pytest.mark.parametrize(("mode", "rank"), MODES)
def test_windows_are_what_torch_reads(mode: str, rank: int) -> None:
    for factors, shape, options in grid(rank, mode):
        op, site = resized(factors, mode, shape, **options)
        look = op.window(site, 0, 0)
        assert look is not None
        for axis, (_, view) in enumerate(look[1:], start=1):
            for output, row in enumerate(weights(op, site, axis)):
                reads = expected(view, output, shape[axis])
                if reads is None:
                    continue
                found = [tap for tap, weight in enumerate(row) if abs(weight) > LEAST]
                assert (found[0], found[-1]) == (reads[0], reads[-1]), (
                    f"{factors} of {shape} {options}, axis {axis}, output {output}"
                )


@pytest.mark.parametrize(("mode", "rank"), MODES)
def test_onnx_is_what_torch_computes(mode: str, rank: int) -> None:
    generator = torch.Generator().manual_seed(rank)
    for number, (factors, shape, options) in enumerate(grid(rank, mode)):
        op, site = resized(factors, mode, shape, **options)
        x = torch.randn(2, *shape, generator=generator)
        wanted = functional.interpolate(x, scale_factor=factors, mode=mode, **options)
        found = onnx_result(op, site, x, 18 if number % 4 else OLDEST_OPSET)
        assert found.shape == tuple(wanted.shape)
        difference = float(np.abs(found - wanted.numpy()).max())
        assert difference < 1e-4, f"{factors} of {shape} {options}: {difference}"


@pytest.mark.parametrize(
    ("shape", "factors", "pointwise"),
    [
        ((1, 3, 61), (1.3, 2.02), True),  # 3 + 123
        ((1, 3, 61), (1.3, 2.05), True),  # 3 + 125, the most
        ((1, 3, 61), (1.3, 2.07), False),  # 3 + 126
        ((1, 3), (1.3,), False),
        ((1, 3, 3, 3), (1.3, 2.3, 1.0), False),
    ],
)
def test_nearest_ignores_factors_of_small_images_only(
    shape: Shape, factors: tuple[float, ...], pointwise: bool
) -> None:
    op, site = resized(factors, "nearest", shape)
    look = op.window(site, 0, 0)
    assert look is not None
    assert (look[1][1] == POINTWISE) is pointwise
    assert isinstance(look[1][1], Taps) is not pointwise
    x = torch.randn(1, *shape)
    wanted = functional.interpolate(x, scale_factor=factors, mode="nearest")
    assert (onnx_result(op, site, x, 18) == wanted.numpy()).all()


def test_nearest_doubles_a_small_image_whatever_the_factor() -> None:
    op, site = resized((2.12, 2.3), "nearest", (1, 3, 3))
    assert op.window(site, 0, 0) == ((0, POINTWISE), (1, Nearest(2)), (2, Nearest(2)))


def test_cubic_interpolation_to_the_same_size_moves_between_pixels() -> None:
    """By 1.16, output 1 of 3 lies at `1.5 / 1.16 - 0.5`, between two inputs."""
    op, site = resized((1.16, 1.16), "bicubic", (1, 3, 3))
    assert site.y.shape == (1, 3, 3)
    assert [node.op for node in op.onnx(site, 18)] == ["MatMul", "MatMul"]
    look = op.window(site, 0, 0)
    assert look is not None
    assert look[1][1] != POINTWISE


def test_linear_interpolation_to_the_same_size_copies() -> None:
    op, site = resized((1.3, 1.5), "bilinear", (1, 3, 4))
    assert op.window(site, 0, 0)[1] == (1, POINTWISE)  # type: ignore[index]
