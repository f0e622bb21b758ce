"""Every operation that torch.nn has, on a grid of arguments and shapes, against torch's own class.

The class is built from its name and the same arguments, not from the op's lowering. Values come
from the slots, combinations from a generator with a fixed seed; a few hundred for each operation.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from itertools import product
from math import inf, prod
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cnnspec.diagnostics import Reject
from cnnspec.op import INFERRED, Op, Site, slots_of
from cnnspec.ops import bind, registry
from cnnspec.slots import (
    Axes,
    Bool,
    Float,
    Int,
    Ints,
    Margins,
    Nullable,
    Padding,
    PerAxis,
    Size,
    Slot,
    Word,
)
from cnnspec.tensor import Tensor, default_roles

BATCH = 2
DRAWS = 120

SHAPES: Mapping[int, tuple[tuple[int, ...], ...]] = {
    1: ((1,), (6,), (7,), (12,)),
    2: ((1, 1), (4, 9), (6, 7), (3, 16), (12, 2)),
    3: ((1, 1, 1), (4, 7, 9), (6, 8, 5), (3, 1, 12), (12, 6, 6), (2, 11, 4)),
    4: ((1, 1, 1, 1), (4, 5, 7, 3), (6, 4, 4, 4), (2, 1, 6, 9)),
}
"""Shapes without batch: odd and even sizes, single positions, channels of many divisors and few."""

RANKS: Mapping[str, tuple[int, ...]] = {
    "BatchNorm1d": (1, 2),
    "Fold": (2,),
    "MultiheadAttention": (2,),
    "PixelShuffle": (3,),
    "PixelUnshuffle": (3,),
    "Unfold": (3,),
}
"""Ranks of operations whose name does not say them; all others take any."""

TORCH_OPS = sorted(
    name for name in registry() if inspect.isclass(getattr(nn, name, None)) and name != "Parameter"
)
"""Operations that are classes of torch.nn."""

REFUSALS = (
    ArithmeticError,
    AssertionError,
    IndexError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""How torch refuses arguments."""

OURS_ALONE: Mapping[str, frozenset[str]] = {"Upsample": frozenset({"like"})}
"""Arguments that torch's class does not have."""


# ----------------------------------------------------------------------------- argument values


def values(slot: Slot, axes: int, rank: int, draw: Random) -> Any:
    """Some value that the slot takes."""
    match slot:
        case Nullable(inner):
            return None if draw.random() < 0.3 else values(inner, axes, rank, draw)
        case Bool():
            return draw.random() < 0.5
        case Word(choices):
            return draw.choice(choices)
        case Float(least, most):
            low, high = -inf if least is None else least, inf if most is None else most
            fitting = [each for each in (-1.5, 0, 0.25, 0.5, 1, 2, 3) if low <= each <= high]
            return draw.choice(fitting)
        case Int(least):
            if least is None:
                return draw.randint(-rank - 2, rank + 1)
            return least + draw.choice((0, 0, 1, 1, 2, 3, 5, 11))
        case Size(least, nullable):
            return several(axes, draw, lambda: extent(least, nullable, draw))
        case PerAxis(item):
            return several(rank - 1, draw, lambda: values(item, axes, rank, draw))
        case Padding():
            if draw.random() < 0.25:
                return draw.choice(("same", "valid"))
            return several(axes, draw, lambda: draw.choice((0, 1, 1, 2, 3)))
        case Margins():
            if draw.random() < 0.4:
                return draw.choice((0, 1, 2, 3))
            return [draw.choice((-2, -1, 0, 0, 1, 2, 4)) for _ in range(2 * axes)]
        case Axes():
            return draw.randint(-rank - 1, rank)
        case Ints(least, fewest):
            low = 0 if least is None else least
            return [low + draw.randrange(4) for _ in range(max(fewest, draw.randint(1, 3)))]
    raise AssertionError(f"no values for {slot!r}")


def several(axes: int, draw: Random, value: Any) -> Any:
    """One value for all axes, or one for each."""
    if axes < 2 or draw.random() < 0.6:
        return value()
    return [value() for _ in range(axes)]


def extent(least: int, nullable: bool, draw: Random) -> int | None:
    """A small size."""
    if nullable and draw.random() < 0.2:
        return None
    return least + draw.choice((0, 0, 1, 1, 2, 2, 3, 4))


@dataclass(frozen=True, slots=True)
class Draw:
    """One combination: an operation, arguments as a spec writes them, an input shape."""

    op: type[Op]
    arguments: Mapping[str, Any]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.op.name}({dict(self.arguments)}) on {self.shape}"


def draws(name: str) -> Iterator[Draw]:
    """Combinations for an operation, always the same ones."""
    op = registry()[name]
    draw = Random(name)
    ranks = ranks_of(op)
    for number in range(DRAWS):
        rank = ranks[number % len(ranks)]
        shape = draw.choice(SHAPES[rank])
        arguments = {}
        for key, field in slots_of(op).items():
            slot = field.metadata["slot"]
            if slot.refers or (field.default is not MISSING and draw.random() < 0.5):
                continue
            arguments[key] = values(slot, op.axes, rank, draw)
        yield fitting(Draw(op, arguments, shape), draw)


def fitting(found: Draw, draw: Random) -> Draw:
    """Mostly the same; where few combinations mean anything, one that does, two times in three."""
    arguments, shape = dict(found.arguments), found.shape
    if draw.random() < 1 / 3:
        return found
    for key, size in (
        ("groups", shape[0]),
        ("num_groups", shape[0]),
        ("num_heads", shape[-1]),
        ("upscale_factor", shape[0]),
        ("num_parameters", shape[0]),
    ):
        if key in arguments:
            arguments[key] = draw.choice([n for n in range(1, size + 1) if size % n == 0])
    if "groups" in arguments and "out_channels" in arguments:
        arguments["out_channels"] = arguments["groups"] * draw.randint(1, 3)
    if "unflattened_size" in arguments:
        arguments["dim"] = draw.randint(1, len(shape))
        size = shape[arguments["dim"] - 1]
        first = draw.choice([n for n in range(1, size + 1) if size % n == 0])
        arguments["unflattened_size"] = draw.choice(
            ([first, size // first], [-1, first], [first, -1])
        )
    if found.op.name == "Fold":
        shape = folded(arguments, draw)
    return Draw(found.op, arguments, shape)


def folded(arguments: Mapping[str, Any], draw: Random) -> tuple[int, ...]:
    """Values of patches and number of patches, as `Unfold` makes them of `output_size`."""

    def pair(key: str, default: int) -> list[int]:
        return list(np.broadcast_to(arguments.get(key, default), 2))

    fits = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(
            pair("output_size", 1),
            pair("kernel_size", 1),
            pair("dilation", 1),
            pair("padding", 0),
            pair("stride", 1),
            strict=True,
        )
    ]
    return draw.randint(1, 3) * prod(map(int, pair("kernel_size", 1))), max(1, prod(map(int, fits)))


def ranks_of(op: type[Op]) -> Sequence[int]:
    """Ranks of inputs that mean the same in torch: `*2d` takes an image without batch too."""
    if op.name in RANKS:
        return RANKS[op.name]
    return (int(op.name[-2]) + 1,) if op.name[-2:] in ("1d", "2d", "3d") else (1, 2, 3, 4)


# ------------------------------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Found:
    """What is compared."""

    shapes: tuple[tuple[int, ...], ...]
    parameters: Mapping[str, tuple[int, ...]]
    buffers: Mapping[str, tuple[int, ...]]
    macs: int


def ours(draw: Draw) -> Found | Reject:
    """The figures of the op's rules."""
    roles = default_roles(len(draw.shape))
    assert roles is not None
    inputs = (Tensor(draw.shape, roles),) * draw.op.arity.least
    try:
        op = bind(draw.op, draw.arguments)
        site = Site(inputs, op.infer(inputs))
    except Reject as reject:
        return reject
    kept = {name: buffer for name, buffer in op.buffers(site).items() if buffer.persistent}
    return Found(
        tuple(tensor.shape for tensor in site.outputs),
        {name: weight.shape for name, weight in op.weights(site).items()},
        {name: buffer.shape for name, buffer in kept.items()},
        op.cost(site).mac,
    )


def torchs(draw: Draw, device: str) -> Found | Exception:
    """The figures of torch's class on a device, or how it refuses, in training or at inference."""
    target = getattr(nn, draw.op.name)
    try:
        with torch.device(device):
            module = target(**torch_arguments(draw, target))
            x = torch.zeros(BATCH, *draw.shape)
        inputs = (x,) * (3 if draw.op.name == "MultiheadAttention" else draw.op.arity.least)
        with torch.no_grad():
            module.train()(*inputs)
        module.eval()
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            result = module(*inputs)
    except (
        ValueError,
        RuntimeError,
        TypeError,
        IndexError,
        AssertionError,
        ZeroDivisionError,
    ) as error:
        return error
    outputs = result[:1] if isinstance(result, tuple) else (result,)
    if not all(output.numel() for output in outputs):
        return ValueError("torch has empty tensors, cnnspec does not")
    return Found(
        tuple(tuple(output.shape[1:]) for output in outputs),
        {name: tuple(value.shape) for name, value in module.named_parameters()},
        {name: tuple(value.shape) for name, value in module.named_buffers()},
        flops.get_total_flops() // (2 * BATCH),
    )


def torch_arguments(draw: Draw, target: Any) -> dict[str, Any]:
    """The constructor's arguments: those drawn, and what cnnspec infers from the input."""
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in draw.arguments.items()
    }
    wanted = inspect.signature(target).parameters.keys() & INFERRED
    last = {"in_features", "normalized_shape", "embed_dim"}
    given |= {key: draw.shape[-1] if key in last else draw.shape[0] for key in wanted}
    if draw.op.name == "MultiheadAttention":
        given["batch_first"] = True
    return given


def departs(draw: Draw, mine: Found | Reject) -> bool:
    """Whether the two differ on purpose."""
    arguments = draw.arguments
    if isinstance(mine, Reject):
        if mine.code == "batch-axis":
            return True  # torch changes the batch
        if mine.code == "window-in-padding":
            return True  # torch's gradient writes outside of its memory
        if draw.op.name == "Softplus" and not arguments["beta"]:
            return True  # torch divides by zero
        if draw.op.name == "Upsample" and arguments.get("scale_factor") == 0:
            return True  # torch takes 0 for no factor
        if draw.op.name.startswith("CircularPad"):
            # Of a cropped axis torch copies what it has just written, where that does not raise.
            return min(np.ravel(arguments["padding"])) < 0
        return False
    if "output_size" in arguments:
        # torch has null for one of several axes, cnnspec for all.
        return arguments["output_size"] is None
    strides = arguments.get("stride", 1)
    # torch has no `same` with a stride.
    return arguments.get("padding") == "same" and set(np.ravel(strides)) != {1}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCH_OPS)
def test_figures_are_torchs(name: str) -> None:
    """Shapes, parameters, buffers and multiply-accumulates; what one refuses the other does."""
    compared = 0
    wrong = []
    for draw in draws(name):
        mine = ours(draw)
        if departs(draw, mine):
            continue
        theirs = torchs(draw, "meta")
        if isinstance(mine, Reject) is isinstance(theirs, Found):
            # Kernels may refuse what shape functions let pass, and read what these cannot.
            theirs = torchs(draw, "cpu")
        if isinstance(mine, Reject) or isinstance(theirs, Exception):
            if not (isinstance(mine, Reject) and isinstance(theirs, Exception)):
                wrong.append(f"{draw}: {mine!r}, {theirs!r}")
            continue
        compared += 1
        if mine != theirs:
            wrong.append(f"{draw}: {mine}, {theirs}")
    assert not wrong, f"{len(wrong)} of {DRAWS}: {chr(10).join(wrong[:8])}"
    assert compared >= DRAWS // 8


@pytest.mark.parametrize("name", TORCH_OPS)
def test_arguments_are_torchs(name: str) -> None:
    """Names and defaults are those of torch's constructor."""
    theirs = inspect.signature(getattr(nn, name)).parameters
    for key, field in slots_of(registry()[name]).items():
        if key in OURS_ALONE.get(name, ()):
            continue
        assert key in theirs
        default = theirs[key].default
        if field.default is MISSING:
            assert default in (inspect.Parameter.empty, None)
        else:
            assert field.default == default


# ------------------------------------------------------------------- multiply-accumulates, by hand


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "extra"),
    [(5, 3, 1, 0, 1, 0), (4, 3, 2, 1, 1, 1), (3, 2, 3, 0, 2, 2), (6, 5, 2, 3, 1, 0)],
)
def test_transposed_convolution_by_loops(
    size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int, groups: int
) -> None:
    """Each input element is multiplied with each tap, also with those that padding cuts off."""
    products = length = 0
    for i, _, tap in product(range(size), range(6 // groups), range(kernel)):
        products += 4  # input channels
        length = max(length, i * stride + tap * dilation + 1)
    mine = ours(
        Draw(
            registry()["ConvTranspose1d"],
            {
                "out_channels": 6,
                "kernel_size": kernel,
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "output_padding": extra,
                "groups": groups,
            },
            (4, size),
        )
    )
    assert isinstance(mine, Found)
    assert mine.macs == products
    assert mine.shapes == ((6, length - 2 * padding + extra),)


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding", "dilation"),
    [(5, 6, 3, 1, 0, 1), (4, 5, 3, 2, 1, 1), (7, 4, 2, 1, 3, 2), (1, 9, 3, 3, 1, 1)],
)
def test_locally_connected_by_loops(
    height: int, width: int, kernel: int, stride: int, padding: int, dilation: int, trimmed: bool
) -> None:
    """A weight for each output element and each input element in its window, used once."""
    reads: dict[int, list[list[bool]]] = {}
    for size in (height, width):
        starts = range(-padding, size + padding - dilation * (kernel - 1), stride)
        reads[size] = [
            [0 <= start + dilation * tap < size for tap in range(kernel)] for start in starts
        ]
    products = sum(
        not trimmed or (row and column)
        for rows, columns in product(reads[height], reads[width])
        for row, column, _, _ in product(rows, columns, range(3), range(2))
    )
    mine = ours(
        Draw(
            registry()["LocallyConnected2d"],
            {
                "out_channels": 2,
                "kernel_size": kernel,
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "bias": False,
                "padding_weights": not trimmed,
            },
            (3, height, width),
        )
    )
    assert isinstance(mine, Found)
    assert mine.shapes == ((2, len(reads[height]), len(reads[width])),)
    assert mine.macs == prod(mine.parameters["weight"]) == products


def test_masked_convolution_by_loops() -> None:
    """A product for each link, tap and position."""
    table = [[0, 2], [1], [0, 1, 2]]
    links = sum(1 for row, channel in product(range(3), range(3)) if channel in table[row])
    mine = ours(
        Draw(
            registry()["MaskedConv2d"],
            {"table": table, "kernel_size": [3, 2], "stride": 2, "padding": 1},
            (3, 6, 7),
        )
    )
    assert isinstance(mine, Found)
    assert mine.macs == links * 3 * 2 * 3 * 4
