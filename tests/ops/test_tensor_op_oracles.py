"""Resizing, cropping and noise against torch and torchvision, over many sizes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.session import session
from cnnspec.op import Op
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.ops.harness import Interpreted, alone


def run(op: Op, *given: torch.Tensor) -> tuple[torch.Tensor, np.ndarray[Any, Any]]:
    """What torch and ONNX Runtime make of `given`, by the op's own data."""
    tensors = []
    for each in given:
        roles = default_roles(each.dim() - 1)
        assert roles is not None
        tensors.append(Tensor(tuple(each.shape[1:]), roles))
    graph = alone(op, tensors)
    model = to_model(graph, {}).SerializeToString()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    feeds = {f"x{number}": each.numpy() for number, each in enumerate(given)}
    (found,) = session(model, optimise=level, threads=1).run(None, feeds)
    (expected,) = Interpreted(graph).eval()(*given)
    return expected, found


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_nearest_neighbours_are_torchs_own(mode: str) -> None:
    """Bit for bit, where the float32 product decides and where a factor was rounded too."""
    for n, out in itertools.product((1, 3, 14, 28), (1, 4, 16, 46)):
        op = bind(registry()["Upsample"], {"size": out, "mode": mode})
        expected, found = run(op, torch.arange(n, dtype=torch.float32).reshape(1, 1, n))
        assert expected.flatten().tolist() == found.flatten().tolist(), (n, out)
    for n, factor in itertools.product((4, 9, 31), (0.3, 0.5, 1.1, 2, 2.3, 3.7, 41, 49)):
        op = bind(registry()["Upsample"], {"scale_factor": factor, "mode": mode})
        expected, found = run(op, torch.arange(n, dtype=torch.float32).reshape(1, 1, n))
        assert expected.flatten().tolist() == found.flatten().tolist(), (n, factor)


def test_sizes_round_down_in_float64_as_torchs_do() -> None:
    """In float32 the products below would reach the next whole number, or miss it."""
    for n, factor in ((25, 1.16), (25, 2.12), (30, 2.1), (45, 1.4), (100, 0.29)):
        op = bind(registry()["Upsample"], {"scale_factor": factor, "mode": "linear"})
        x = torch.linspace(0, 1, n).reshape(1, 1, n)
        expected, found = run(op, x)
        assert expected.shape == found.shape
        assert op.infer((Tensor((1, n), default_roles(2) or ()),))[0].shape == expected.shape[1:]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("like", [False, True])
def test_center_crop_is_torchvisions(like: bool) -> None:
    _schemas = operator_schemas()
    transforms = pytest.importorskip("torchvision.transforms.functional")
    for n, size in itertools.product((4, 5, 8, 9, 11), (1, 2, 3, 4)):
        x = torch.randn(2, 3, n, n + 1)
        if like:
            op = bind(registry()["CenterCrop"], {"like": 1})
            given = (x, torch.zeros(2, 1, size, size))
        else:
            op, given = bind(registry()["CenterCrop"], {"size": size}), (x,)
        expected, found = run(op, *given)
        wanted = transforms.center_crop(x, [size, size])
        assert torch.equal(expected, wanted)
        assert np.array_equal(found, wanted.numpy())


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_draws_as_torchvision_does(mode: str) -> None:
    _schemas = operator_schemas()
    theirs: nn.Module = pytest.importorskip("torchvision.ops").StochasticDepth(0.4, mode)
    roles = default_roles(3) or ()
    op = bind(registry()["StochasticDepth"], {"p": 0.4, "mode": mode})
    ours = Interpreted(alone(op, [Tensor((2, 3, 4), roles)])).train()
    x = torch.randn(16, 2, 3, 4)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = theirs(x)
        torch.manual_seed(seed)
        assert torch.equal(ours(x)[0], expected)
    assert torch.equal(ours.eval()(x)[0], x)


def operator_schemas() -> torch.library.Library | None:
    """Schemas without which a torchvision built for CUDA cannot be imported beside a CPU torch."""
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    schemas = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        schemas.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return schemas
