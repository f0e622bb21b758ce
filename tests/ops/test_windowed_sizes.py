"""Pools and convolutions, transposed ones too, against torch itself over grids of arguments.

torch runs on the meta device: it checks and shapes, but computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import Reject
from cnnspec.op import Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.ops.harness import Interpreted, alone, arrays, randomise, sample

Arguments = dict[str, Any]


def ours(name: str, arguments: Arguments, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The output shape that the op infers, None if it rejects."""
    roles = default_roles(len(shape))
    assert roles is not None
    try:
        return bind(registry()[name], arguments).infer((Tensor(shape, roles),))[0].shape
    except Reject as reject:
        refused = reject
    assert refused.code in {
        "groups-divide",
        "kernel-too-large",
        "output-padding-too-large",
        "padding-too-large",
        "window-in-padding",
    }
    assert refused.at in arguments
    return None


def theirs(name: str, arguments: Arguments, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The output shape of torch's module on a batch, None if torch raises or has nothing left.

    The meta device does not check the output padding of a transposed convolution, so that one runs;
    so does a maximum, which must not be that of padding alone.
    """
    device = "cpu" if "Transpose" in name or "MaxPool" in name else "meta"
    x = torch.ones(2, *shape, device=device)
    given = (shape[0],) if "Conv" in name else ()
    try:
        module = getattr(nn, name)(*given, **arguments, **({"device": device} if given else {}))
        with torch.no_grad():
            result = module(x)
    except (RuntimeError, ValueError, IndexError):
        return None
    found = tuple(result.shape[1:])
    lost = device == "cpu" and bool(result.isneginf().any())
    return None if lost or 0 in found else found


def grid(**choices: tuple[Any, ...]) -> Iterator[Arguments]:
    """Every combination of the choices."""
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def compare(name: str, axes: int, sizes: tuple[int, ...], arguments: Arguments) -> bool:
    """Assert that the op says what torch says on each size; whether both took some."""
    taken = False
    for size in sizes:
        shape = (4, *(size + axis for axis in range(axes)))
        expected = theirs(name, arguments, shape)
        assert ours(name, arguments, shape) == expected, (arguments, shape)
        taken = taken or expected is not None
    return taken


AXES = pytest.mark.parametrize("axes", [1, 2, 3])


@AXES
def test_max_pools(axes: int) -> None:
    found = [
        compare(f"MaxPool{axes}d", axes, (1, 2, 5, 6, 7), arguments)
        for arguments in grid(
            kernel_size=(1, 2, 3),
            stride=(1, 2, 4),
            padding=(0, 1, 2),
            dilation=(1, 2),
            ceil_mode=(False, True),
        )
    ]
    assert any(found)
    assert not all(found)


@AXES
def test_average_pools(axes: int) -> None:
    found = [
        compare(f"AvgPool{axes}d", axes, (1, 2, 5, 6, 7), arguments)
        for arguments in grid(
            kernel_size=(1, 2, 3, 4),
            stride=(None, 1, 2, 5),
            padding=(0, 1, 2),
            ceil_mode=(False, True),
        )
    ]
    assert any(found)
    assert not all(found)


@AXES
def test_power_average_pools(axes: int) -> None:
    found = [
        compare(f"LPPool{axes}d", axes, (1, 2, 5, 6, 7), arguments)
        for arguments in grid(
            norm_type=(1, 2),
            kernel_size=(1, 2, 3, 4),
            stride=(None, 1, 2, 5),
            ceil_mode=(False, True),
        )
    ]
    assert all(found)


@AXES
def test_adaptive_max_pools(axes: int) -> None:
    several = ((None, 4, 1)[:axes], (2, None, 7)[:axes]) if axes > 1 else ()
    for arguments in grid(output_size=(1, 2, 3, 7, *several)):
        assert compare(f"AdaptiveMaxPool{axes}d", axes, (1, 2, 5, 6), arguments)


@AXES
def test_convolutions(axes: int) -> None:
    found = [
        compare(f"Conv{axes}d", axes, (1, 2, 5, 6), arguments)
        for arguments in grid(
            out_channels=(6,),
            kernel_size=(1, 2, 3),
            stride=(1, 2, 3),
            padding=(0, 1, 3),
            dilation=(1, 2),
            groups=(1, 2, 3),
        )
    ]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_convolutions_with_other_padding(mode: str) -> None:
    for arguments in grid(
        out_channels=(3,), kernel_size=(1, 3), padding=(0, 1, 2, 3), padding_mode=(mode,)
    ):
        compare("Conv2d", 2, (1, 2, 3, 4), arguments)


@AXES
def test_transposed_convolutions(axes: int) -> None:
    found = [
        compare(f"ConvTranspose{axes}d", axes, (1, 4), arguments)
        for arguments in grid(
            out_channels=(4,),
            kernel_size=(1, 2, 3),
            stride=(1, 2, 3),
            padding=(0, 1, 3),
            output_padding=(0, 1, 2),
            dilation=(1, 2),
            groups=(2,),
        )
    ]
    assert any(found)
    assert not all(found)


WINDOWED = [
    *(
        ("MaxPool2d", arguments)
        for arguments in grid(
            kernel_size=(1, 2, 3),
            stride=(1, 2, 4),
            padding=(0, 1),
            dilation=(1, 3),
            ceil_mode=(False, True),
        )
    ),
    *(
        ("AvgPool2d", arguments)
        for arguments in grid(
            kernel_size=(1, 2, 3),
            stride=(1, 2, 4),
            padding=(0, 1),
            ceil_mode=(False, True),
            count_include_pad=(False, True),
            divisor_override=(None, 3),
        )
    ),
    *(
        ("LPPool2d", arguments)
        for arguments in grid(
            norm_type=(1, 2, 3),
            kernel_size=(1, 2, 3),
            stride=(1, 2, 4),
            ceil_mode=(False, True),
        )
    ),
    *(
        ("AdaptiveMaxPool2d", arguments)
        for arguments in grid(output_size=(*product((1, 2, 3, None, 7), (1, 2, 4, 5, 9)),))
    ),
    *(
        ("ConvTranspose2d", arguments)
        for arguments in grid(
            out_channels=(2,),
            kernel_size=(1, 2, 3),
            stride=(1, 3),
            padding=(0, 1),
            output_padding=(0, 1, 2),
            dilation=(1, 3),
        )
    ),
]


@pytest.mark.parametrize("name", sorted({name for name, _ in WINDOWED}))
@pytest.mark.parametrize("shape", [(1, 4, 7), (1, 2, 5)], ids=str)
def test_edges_in_onnx_runtime(name: str, shape: tuple[int, ...]) -> None:
    """ONNX Runtime's windows, divisors and minus infinities are torch's, at every edge."""
    roles = default_roles(3)
    assert roles is not None
    x = Tensor(shape, roles)
    compared = 0
    for arguments in (arguments for other, arguments in WINDOWED if other == name):
        if ours(name, arguments, shape) is None:
            continue
        op = bind(registry()[name], arguments)
        module = Interpreted(alone(op, (x,)))
        randomise(module)
        model = to_model(module.graph, arrays(module), opset=18)
        onnx.checker.check_model(model, full_check=True)
        runtime = session(
            model.SerializeToString(),
            optimise=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
            threads=1,
        )
        inputs = sample((x,), 2)
        (found,) = runtime.run(None, {"x0": inputs[0].numpy()})
        with torch.no_grad():
            (expected,) = module(*inputs)
        np.testing.assert_allclose(
            found, expected.numpy(), rtol=1e-5, atol=1e-6, err_msg=f"{name} {arguments}"
        )
        compared += 1
    assert compared > 20


def test_what_runtimes_disagree_on_is_written_out() -> None:
    """AveragePool has no padding of its own where ceil_mode and counted padding meet."""
    roles = default_roles(3)
    assert roles is not None
    inputs = (Tensor((2, 8, 9), roles),)
    arguments = {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}
    op = bind(registry()["AvgPool2d"], arguments)
    pad, pool = op.onnx(Site(inputs, op.infer(inputs)), 18)
    assert (pad.op, pool.op) == ("Pad", "AveragePool")
    attributes = dict(pool.attributes)
    assert attributes["pads"] == [0, 0, 0, 0]
    assert attributes["count_include_pad"] == 0


@pytest.mark.parametrize(
    ("n", "out"), [(n, out) for n in (1, 2, 5, 6, 7) for out in (1, 2, 3, 4, 7)]
)
def test_adaptive_pools_read_what_torch_reads(n: int, out: int) -> None:
    """Bins follow torch's: each output is the mean of the positions its gradient reaches."""
    roles = default_roles(2)
    assert roles is not None
    inputs = (Tensor((1, n), roles),)
    op = bind(registry()["AdaptiveAvgPool1d"], {"output_size": out})
    site = Site(inputs, op.infer(inputs))
    x = torch.zeros(1, 1, n, requires_grad=True)
    y = nn.AdaptiveAvgPool1d(out)(x)
    read = 0
    for position in range(out):
        (gradient,) = torch.autograd.grad(y[0, 0, position], x, retain_graph=True)
        read += int((gradient != 0).sum())
    assert op.cost(site).add == read - out
    assert op.cost(site).div == out
    assert bind(registry()["AdaptiveMaxPool1d"], {"output_size": out}).cost(site).cmp == read - out
