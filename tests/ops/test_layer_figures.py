"""Figures that examples do not show: connections and costs of papers, unread rows, starts."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

from cnnspec.op import ChannelAffine, LinearMap, Ops
from cnnspec.ops import bind, registry
from cnnspec.tensor import Role, Tensor
from tests.ops.sites import at

C3 = [
    *([i, (i + 1) % 6, (i + 2) % 6] for i in range(6)),
    *([i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6] for i in range(6)),
    [0, 1, 3, 4],
    [1, 2, 4, 5],
    [0, 2, 3, 5],
    [0, 1, 2, 3, 4, 5],
]


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "params", "with_biases"),
    [
        ("Conv2d", {"out_channels": 6, "kernel_size": 5}, (1, 32, 32), 156, 122_304),
        ("MaskedConv2d", {"table": C3, "kernel_size": 5}, (6, 14, 14), 1_516, 151_600),
        ("Conv2d", {"out_channels": 120, "kernel_size": 5}, (16, 5, 5), 48_120, 48_120),
        ("Linear", {"out_features": 84}, (120,), 10_164, 10_164),
    ],
    ids=["C1", "C3", "C5", "F6"],
)
def test_lenet_counts_as_its_paper(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], params: int, with_biases: int
) -> None:
    """LeCun et al. (1998), section II-B."""
    op, site = at(name, shape, **arguments)
    assert sum(weight.elements for weight in op.weights(site).values()) == params
    links = op.connections(site)
    assert links is not None
    assert links.weights + links.biases == with_biases
    assert links.biases == site.y.elements
    assert op.cost(site).mac == links.weights


def test_connections_of_the_lectures() -> None:
    """A 3x3 filter on 7x7 has 25 outputs of 9 links; the bias is not counted among them."""
    op, site = at("Conv2d", (1, 7, 7), out_channels=1, kernel_size=3)
    assert op.connections(site) == (225, 25)


def test_transposed_convolution_costs_as_much_as_the_convolution_it_reverses() -> None:
    op, site = at("ConvTranspose2d", (16, 5, 6), out_channels=8, kernel_size=4, stride=2, padding=1)
    back, there = at("Conv2d", site.y.shape, out_channels=16, kernel_size=4, stride=2, padding=1)
    assert there.y.shape == site.x.shape
    assert op.cost(site).mac == back.cost(there).mac == 5 * 6 * 16 * 8 * 4 * 4


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "cost"),
    [
        ("MaxPool2d", {"kernel_size": 3}, (2, 6, 6), Ops(cmp=8 * 8)),
        ("AvgPool2d", {"kernel_size": 3}, (2, 6, 6), Ops(add=8 * 8, div=8)),
        ("AdaptiveAvgPool2d", {"output_size": 1}, (2, 6, 6), Ops(add=2 * 35, div=2)),
        ("BatchNorm2d", {}, (2, 3, 3), Ops(add=18, mul=18)),
        ("Linear", {"out_features": 4}, (5, 3), Ops(mac=60, add=20)),
        ("Gram", {"normalize": True}, (3, 4, 4), Ops(mac=144, div=9)),
        (
            "LayerNorm",
            {"elementwise_affine": False},
            (5, 8),
            Ops(add=3 * 40 - 5, mul=2 * 40, div=15, exp=5),
        ),
        (
            "LocalResponseNorm",
            {"size": 5},
            (4, 2, 2),
            Ops(add=5 * 16, mul=2 * 16, div=2 * 16, exp=16),
        ),
        (
            "MultiheadAttention",
            {"num_heads": 2, "bias": False},
            (3, 4),
            Ops(mac=4 * 48 + 2 * 36, add=6 * 5, mul=12, cmp=6 * 2, div=18, exp=18),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_are_counted(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], cost: Ops
) -> None:
    op, site = at(name, shape, **arguments)
    assert op.cost(site) == cost
    if cost.mac == 0:
        assert op.connections(site) is None


def test_unread_rows() -> None:
    """`(axis, rows of input, remainder)`; none where ceil_mode reads on."""
    conv, site = at("Conv2d", (1, 8, 7), out_channels=1, kernel_size=3, stride=2)
    assert conv.unread(site) == ((1, 1, 1),)
    padded, site = at("Conv2d", (1, 8, 7), out_channels=1, kernel_size=3, stride=2, padding=1)
    assert padded.unread(site) == ((1, 0, 1),)
    floored, site = at("MaxPool2d", (1, 7, 8), kernel_size=2)
    assert floored.unread(site) == ((1, 1, 1),)
    ceiled, site = at("MaxPool2d", (1, 7, 8), kernel_size=2, ceil_mode=True)
    assert ceiled.unread(site) == ()


def test_where_a_batch_norm_folds() -> None:
    """Into filters and Linear on features, not Linear on tokens; not without statistics."""
    conv, site = at("Conv2d", (4, 5, 5), out_channels=4, kernel_size=1, bias=False)
    assert conv.linear_map(site) == LinearMap("weight", None, 0, 1, 1, keeps_shifts=True)
    up, site = at("ConvTranspose2d", (4, 5, 5), out_channels=4, kernel_size=2, groups=2)
    assert up.linear_map(site) == LinearMap("weight", "bias", 1, 2, 0)
    features, site = at("Linear", (4,), out_features=3)
    assert features.linear_map(site) == LinearMap("weight", "bias", 0, 1, 1, keeps_shifts=True)
    tokens, site = at("Linear", (5, 4), out_features=3)
    assert tokens.linear_map(site) is None
    norm, site = at("BatchNorm2d", (4, 5, 5), eps=0.5, affine=False)
    assert norm.channel_affine(site) == ChannelAffine(
        "running_mean", "running_var", None, None, 0.5
    )
    untracked, site = at("BatchNorm2d", (4, 5, 5), track_running_stats=False)
    assert untracked.channel_affine(site) is None


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("Conv2d", {"out_channels": 64, "kernel_size": 3, "groups": 4}, (32, 8, 8)),
        ("ConvTranspose2d", {"out_channels": 32, "kernel_size": 3, "groups": 2}, (64, 8, 8)),
        ("Linear", {"out_features": 200}, (100,)),
        ("MultiheadAttention", {"num_heads": 2}, (4, 64)),
    ],
)
def test_weights_start_as_torch_starts_them(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> None:
    """torch's own constructors fill the interval that the initialiser names, to its ends."""
    op, site = at(name, shape, **arguments)
    torch.manual_seed(0)
    given = shape[:1] if name != "MultiheadAttention" else shape[1:]
    module = getattr(nn, name)(*given, **arguments)
    parameters = dict(module.named_parameters())
    assert list(parameters) == list(op.weights(site))
    for key, weight in op.weights(site).items():
        values = parameters[key].detach()
        settings = dict(weight.init.arguments)
        match weight.init.kind:
            case "uniform":
                bound = float(settings["b"])
            case "xavier_uniform":
                bound = sqrt(6 / sum(weight.shape))
            case kind:
                assert kind == "constant"
                assert torch.all(values == settings["val"])
                continue
        assert 0.8 * bound < values.abs().max() <= bound
        assert abs(values.mean()) < 0.3 * bound


def test_roles_survive() -> None:
    """Linear keeps what axes mean; a Gram matrix has channels on both sides."""
    image = Tensor((7, 7, 8), (Role.HEIGHT, Role.WIDTH, Role.CHANNEL))
    (out,) = bind(registry()["Linear"], {"out_features": 3}).infer((image,))
    assert (out.shape, out.roles) == ((7, 7, 3), image.roles)
    _, site = at("Gram", (4, 5, 5))
    assert site.y.roles == (Role.CHANNEL, Role.CHANNEL)
    (embedding,) = bind(registry()["Parameter"], {"shape": [5, 8]}).infer(())
    assert embedding.roles == (Role.TOKEN, Role.FEATURE)
    assert not embedding.batched
