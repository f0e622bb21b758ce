"""Layers that torch.nn lacks: figures of papers and lectures, values against independent code."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from math import prod, tanh
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cnnspec.geometry import Window
from cnnspec.lower import Helper
from cnnspec.op import ChannelAffine, Op, Ops, Site
from cnnspec.ops import bind, registry
from tests.ops.harness import Interpreted, alone, cases, randomise, sample
from tests.ops.sites import at, refusal


def params(op: Op, site: Site) -> int:
    """Learned elements."""
    return sum(weight.elements for weight in op.weights(site).values())


def computed(name: str, shape: tuple[int, ...], **arguments: Any) -> tuple[Interpreted, Any, Any]:
    """A module with random weights, an input of two samples and its output."""
    op, site = at(name, shape, **arguments)
    module = Interpreted(alone(op, site.inputs)).eval()
    fixed = (name for name, buffer in op.buffers(site).items() if buffer.values is not None)
    randomise(module, frozenset(f"op.{name}" for name in fixed))
    (x,) = sample(site.inputs, 2)
    with torch.no_grad():
        (y,) = module(x)
    return module, x, y


# ------------------------------------------------------------------------------ figures of others


def test_lenet_output_has_840_fixed_weights() -> None:
    """LeCun et al. (1998): ten centres of 84 components -1 or 1 are connections, not parameters."""
    bitmaps = [[1 if (row * column) % 3 else -1 for column in range(84)] for row in range(10)]
    op, site = at("RBF", (84,), out_features=10, centers=bitmaps)
    assert params(op, site) == 0
    assert sum(buffer.elements for buffer in op.buffers(site).values()) == 840
    assert op.connections(site) == (840, 0)
    learned, site = at("RBF", (84,), out_features=10)
    assert params(learned, site) == 840
    assert not learned.buffers(site)


def test_connections_of_lenet_add_up() -> None:
    """LeCun et al. (1998), section II-B, counts 340,908 with biases and the output layer."""
    _, site = at("RBF", (84,), out_features=10)
    output = registry()["RBF"]
    links = bind(output, {"out_features": 10}).connections(site)
    assert links is not None
    assert 122_304 + 5_880 + 151_600 + 2_000 + 48_120 + 10_164 + links.weights == 340_908


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "expected"),
    [
        # 400,000 hidden units with 10x10 fields on 200x200 pixels.
        (
            "LocallyConnected2d",
            (1, 200, 200),
            {"out_channels": 10, "kernel_size": 10, "padding": "same", "bias": False},
            40_000_000,
        ),
        # A 3x3 filter for each of 7x7 pixels.
        (
            "LocallyConnected2d",
            (1, 7, 7),
            {"out_channels": 1, "kernel_size": 3, "padding": "same", "bias": False},
            441,
        ),
        # Three neighbours on a line of five: the band matrix has 3n-2 entries, padded 3n.
        (
            "LocallyConnected1d",
            (1, 5),
            {
                "out_channels": 1,
                "kernel_size": 3,
                "padding": 1,
                "bias": False,
                "padding_weights": False,
            },
            13,
        ),
        (
            "LocallyConnected1d",
            (1, 5),
            {"out_channels": 1, "kernel_size": 3, "padding": 1, "bias": False},
            15,
        ),
        # darknet's yolov1.cfg: 3x3, 256 filters, a bias for every output element.
        (
            "LocallyConnected2d",
            (1024, 7, 7),
            {"out_channels": 256, "kernel_size": 3, "padding": 1},
            115_618_048,
        ),
    ],
    ids=["40 million", "7x7", "band", "padded", "yolov1"],
)
def test_locally_connected_figures(
    name: str, shape: tuple[int, ...], arguments: dict[str, Any], expected: int
) -> None:
    op, site = at(name, shape, **arguments)
    assert params(op, site) == expected
    links = op.connections(site)
    assert links is not None
    assert links.weights + links.biases == expected
    assert op.cost(site) == Ops(mac=links.weights, add=links.biases)


def test_padding_of_locally_connected_layers() -> None:
    """Two weights of fifteen meet padding; without them none does."""
    op, site = at("LocallyConnected1d", (1, 5), out_channels=1, kernel_size=3, padding=1)
    assert op.padding_macs(site) == 2
    op, site = at(
        "LocallyConnected1d",
        (1, 5),
        out_channels=1,
        kernel_size=3,
        padding=1,
        padding_weights=False,
    )
    assert op.padding_macs(site) == 0


def test_channel_pooling_of_the_lectures() -> None:
    """Pooling 64 channels by four."""
    op, site = at("Maxout", (64, 14, 14), num_pieces=4)
    assert site.y.shape == (16, 14, 14)
    assert params(op, site) == 0
    assert op.cost(site) == Ops(cmp=3 * 16 * 14 * 14)


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "cost"),
    [
        ("ScaledTanh", {}, (2, 3), Ops(add=12, mul=18, div=6, exp=6)),
        ("RBF", {"out_features": 2}, (3,), Ops(add=10, mul=6)),
        ("PaperLRN", {"n": 4}, (4, 2, 2), Ops(add=5 * 16, mul=32, div=16, exp=16)),
        ("RMSNorm", {}, (5, 8), Ops(add=40, mul=120, div=10, exp=5)),
        ("RMSNorm", {"elementwise_affine": False}, (8,), Ops(add=8, mul=16, div=2, exp=1)),
        ("Normalize", {}, (4, 2, 3), Ops(add=18, mul=24, cmp=6, div=24, exp=6)),
        ("Normalize", {"p": 1}, (4,), Ops(add=3, cmp=5, div=4)),
        ("Normalize", {"p": 3}, (4,), Ops(add=3, cmp=5, div=4, exp=5)),
        (
            "InstanceNorm2d",
            {"affine": True, "bias": False},
            (2, 3, 4),
            Ops(add=3 * 24 - 2, mul=3 * 24, div=6, exp=2),
        ),
        ("InstanceNorm2d", {"track_running_stats": True}, (2, 3, 4), Ops(add=24, mul=24)),
        (
            "GroupNorm",
            {"num_groups": 1, "bias": False},
            (2, 3, 4),
            Ops(add=3 * 24 - 1, mul=3 * 24, div=3, exp=1),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_operations_are_counted(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], cost: Ops
) -> None:
    op, site = at(name, shape, **arguments)
    assert op.cost(site) == cost


# ------------------------------------------------------------------------------------------ values


def test_response_norm_of_the_paper() -> None:
    """Five channels 1 to 5 with AlexNet's constants; computed by hand in double precision."""
    op, site = at("PaperLRN", (5, 1))
    (y,) = Interpreted(alone(op, site.inputs))(torch.arange(1.0, 6).view(1, 5, 1))
    np.testing.assert_allclose(
        y.flatten(),
        [
            0.5942915817132711,
            1.1878710105259485,
            1.7801403935901126,
            2.3736092915813667,
            2.9674555452942113,
        ],
        rtol=1e-6,
    )


@pytest.mark.parametrize("n", range(1, 8))
def test_response_norm_reads_as_far_as_the_formula(n: int) -> None:
    """The sum runs from i - n/2 to i + n/2: an even n reads n + 1 channels."""
    _, x, y = computed("PaperLRN", (6, 4), n=n, k=1.5, alpha=0.7, beta=0.6)
    values = x.double().numpy()
    expected = np.empty_like(values)
    for i in range(6):
        near = values[:, max(0, i - n // 2) : min(5, i + n // 2) + 1]
        expected[:, i] = values[:, i] / (1.5 + 0.7 * (near**2).sum(1)) ** 0.6
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    op, site = at("PaperLRN", (6, 4), n=n)
    look = op.window(site, 0, 0)
    assert look is not None
    assert look[0][1] == Window(2 * (n // 2) + 1, before=n // 2)


def test_scaled_tanh_keeps_one() -> None:
    """LeCun et al. (1998), appendix A: f(1) = 1 and f(-1) = -1."""
    op, site = at("ScaledTanh", (3,))
    (y,) = Interpreted(alone(op, site.inputs))(torch.tensor([[1.0, -1.0, 0.3]]))
    np.testing.assert_allclose(y[0, :2], [1, -1], atol=1e-4)
    assert y[0, 2].item() == pytest.approx(1.7159 * tanh(0.2), rel=1e-6)


def test_rbf_is_the_squared_distance() -> None:
    module, x, y = computed("RBF", (5, 3), out_features=4)
    centers = module.state_dict()["op.weight"].numpy()
    expected = ((x.numpy()[:, :, None, :] - centers) ** 2).sum(-1)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    module, x, y = computed("RBF", (2,), out_features=2, centers=[[1, -1], [0.5, 2]])
    expected = ((x.numpy()[:, None] - [[1, -1], [0.5, 2]]) ** 2).sum(-1)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize(("dim", "shape"), [(1, (6, 2, 3)), (-1, (2, 6)), (2, (2, 6, 3))])
def test_maxout_takes_neighbours(dim: int, shape: tuple[int, ...]) -> None:
    _, x, y = computed("Maxout", shape, num_pieces=3, dim=dim)
    pieces = np.moveaxis(x.numpy(), dim, 0)
    expected = np.stack([pieces[0:3].max(0), pieces[3:6].max(0)])
    np.testing.assert_array_equal(np.moveaxis(y.numpy(), dim, 0), expected)


@pytest.mark.parametrize(("p", "dim"), [(1, 1), (2, -1), (2.5, 2)])
def test_normalize_makes_unit_vectors(p: float, dim: int) -> None:
    _, _, y = computed("Normalize", (3, 4), p=p, dim=dim)
    np.testing.assert_allclose(np.linalg.norm(y.numpy(), p, dim), 1, rtol=1e-5)


LOCAL: list[dict[str, Any]] = [
    {"kernel_size": 3},
    {"kernel_size": [2, 3], "stride": [2, 1], "padding": [[1, 0], [2, 1]]},
    {"kernel_size": 3, "stride": 2, "padding": "same", "dilation": 2, "bias": False},
    {"kernel_size": 2, "padding": 1, "padding_mode": "replicate"},
]


@pytest.mark.parametrize("arguments", LOCAL)
def test_locally_connected_with_equal_filters_is_a_convolution(arguments: dict[str, Any]) -> None:
    """What Keras and torch both mean by unshared weights: shared ones give the convolution."""
    local, x, _ = computed("LocallyConnected2d", (3, 6, 7), out_channels=2, **arguments)
    conv, _, _ = computed("Conv2d", (3, 6, 7), out_channels=2, **arguments)
    weights = conv.state_dict()
    state = dict(local.state_dict())
    positions = state["op.weight"].shape[0] // 2
    state["op.weight"] = weights["op.weight"].repeat(positions, 1, 1, 1)
    if "op.bias" in state:
        state["op.bias"] = weights["op.bias"][:, None, None].expand_as(state["op.bias"])
    local.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(local(x), conv(x))


def test_locally_connected_positions_have_their_own_filters() -> None:
    """Filter by filter, in the order that the state dict documents."""
    module, x, y = computed("LocallyConnected2d", (3, 5, 6), out_channels=2, kernel_size=[2, 3])
    state = module.state_dict()
    filters = state["op.weight"].unflatten(0, (4, 4, 2))
    for row, column in product(range(4), range(4)):
        patch = x[:, :, row : row + 2, column : column + 3]
        expected = functional.conv2d(patch, filters[row, column])[..., 0, 0]
        expected = expected + state["op.bias"][:, row, column]
        torch.testing.assert_close(y[:, :, row, column], expected)


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": [3, 2], "stride": [2, 3], "padding": [[2, 0], [0, 3]], "bias": False},
        {"kernel_size": 2, "dilation": 3, "padding": 3},
    ],
)
def test_weights_for_padding_change_nothing(arguments: dict[str, Any]) -> None:
    """The layer without them computes what the other does, weight for weight."""
    trimmed, x, y = computed(
        "LocallyConnected2d", (2, 4, 5), out_channels=3, padding_weights=False, **arguments
    )
    dense, _, _ = computed("LocallyConnected2d", (2, 4, 5), out_channels=3, **arguments)
    rows, columns = dict(trimmed.named_buffers()).values()
    short = dict(trimmed.state_dict())
    whole = dict(dense.state_dict())
    shape = (*rows.shape, *columns.shape)
    filters = torch.zeros(shape[0], shape[2], 3, 2, shape[1], shape[3])
    for r, i, c, j in product(*map(range, shape)):
        if rows[r, i] >= 0 and columns[c, j] >= 0:
            filters[r, c, :, :, i, j] = short["op.weight"][:, :, rows[r, i], columns[c, j]]
    whole["op.weight"] = filters.flatten(0, 2)
    if "op.bias" in short:
        whole["op.bias"] = short["op.bias"]
    dense.load_state_dict(whole)
    with torch.no_grad():
        torch.testing.assert_close(dense(x)[0], y)
    assert int(rows.max() + 1) * int(columns.max() + 1) == prod(short["op.weight"].shape[2:])


# -------------------------------------------------------------------------------- folding, refusals


def test_tracked_instance_norms_fold() -> None:
    norm, site = at("InstanceNorm2d", (4, 5, 5), track_running_stats=True, affine=True, bias=False)
    assert norm.channel_affine(site) == ChannelAffine(
        "running_mean", "running_var", "weight", None, 1e-5
    )
    norm, site = at("InstanceNorm2d", (4, 5, 5))
    assert norm.channel_affine(site) is None


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "code", "message", "blamed"),
    [
        (
            "InstanceNorm1d",
            {},
            (8,),
            "input-rank",
            "`InstanceNorm1d` needs 2 axes, its input is 8",
            0,
        ),
        (
            "InstanceNorm2d",
            {"track_running_stats": True},
            (8, 1, 1),
            "one-position",
            "`InstanceNorm2d` has no variance over one position, its input is 8x1x1",
            0,
        ),
        ("BatchNorm1d", {"eps": 0}, (8,), "argument-value", "`eps` must be more than 0", "eps"),
        (
            "RMSNorm",
            {},
            (),
            "input-rank",
            "`RMSNorm` needs an axis of features, its input is scalar",
            0,
        ),
        (
            "Normalize",
            {"dim": 0},
            (8,),
            "batch-axis",
            "axis 0 is the batch, which no operation changes",
            "dim",
        ),
        (
            "Maxout",
            {"num_pieces": 4},
            (6, 2, 2),
            "groups-divide",
            "6 channels cannot be split into 4 groups",
            "num_pieces",
        ),
        (
            "RBF",
            {"out_features": 2, "centers": [[1, 2]]},
            (2,),
            "argument-count",
            "`centers` has 1 row, but `out_features` is 2",
            "centers",
        ),
        (
            "RBF",
            {"out_features": 1, "centers": [[1, 2]]},
            (3,),
            "argument-count",
            "a row of `centers` has 2 numbers, but the input has 3 features",
            "centers",
        ),
        (
            "RBF",
            {"out_features": 2, "centers": [[1, 2], [3]]},
            (2,),
            "argument-count",
            "`centers` has rows of different lengths",
            "centers",
        ),
        (
            "PaperLRN",
            {},
            (5,),
            "input-rank",
            "`PaperLRN` needs channels and at least one further axis, its input is 5",
            0,
        ),
        (
            "LocallyConnected1d",
            {"out_channels": 1, "kernel_size": 4},
            (1, 3),
            "kernel-too-large",
            "the kernel covers 4 along length, but the input has 3",
            "kernel_size",
        ),
        (
            "LocallyConnected1d",
            {
                "out_channels": 1,
                "kernel_size": 3,
                "padding": 1,
                "padding_mode": "reflect",
                "padding_weights": False,
            },
            (1, 8),
            "argument-conflict",
            "reflect padding is multiplied with weights, which `padding_weights: false` leaves out",
            "padding_weights",
        ),
    ],
)
def test_refusals(
    name: str,
    arguments: dict[str, Any],
    shape: tuple[int, ...],
    code: str,
    message: str,
    blamed: str | int,
) -> None:
    assert refusal(name, arguments, shape) == (code, message, blamed)


# ------------------------------------------------------------------------------------------- texts


def test_classes_that_torch_lacks_are_clean(tmp_path: Path) -> None:
    """The text of every helper class passes ruff, and is as ruff would format it."""
    texts = {}
    for case in cases():
        op, site = case.bound()
        code = op.torch(site)
        if isinstance(code, Helper):
            texts[code.name] = code.source
    assert {"LocallyConnected2d", "TrimmedLocallyConnected2d", "RBF"} <= texts.keys()
    head = '"""Classes."""\n\nimport math\n\nimport torch\nimport torch.nn.functional as F\n'
    path = tmp_path / "helpers.py"
    path.write_text(head + "from torch import nn\n\n\n" + "\n\n".join(texts.values()))
    ruff = [sys.executable, "-m", "ruff"]
    rules = "E,F,B,UP,SIM,RUF,C4,PIE,RET,PERF"
    options = ["--isolated", "--line-length=100", "--target-version=py311", "--no-cache"]
    for command in (["check", f"--select={rules}"], ["format", "--diff"]):
        done = subprocess.run(
            [*ruff, *command, *options, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
