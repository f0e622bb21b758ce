"""Values and laws of the lectures, computed by generated modules: worked examples and properties.

Sliding windows correlate and do not flip; they commute with shifts; they are multiplications with
(doubly block) Toeplitz matrices, fully connected layers whose weights are tied; backward has the
formulas that the lectures derive; groups are branches side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import cnnspec

Rows = Sequence[Sequence[float]]

IMAGE = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
INTENSITIES = [[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]]
KERNEL = [[0, 1, 2], [2, 2, 0], [0, 1, 2]]
FLAT = [[7] * 5] * 5


def built(layers: str, *shape: int) -> nn.Module:
    """The module of a network of one input, in float64, in evaluation mode."""
    text = f"cnnspec: 1\nname: net\ninputs: {{x: {list(shape)}}}\nlayers: [{layers}]\n"
    return cnnspec.load(text=text).to_torch().double().eval()


def window(kernel: Rows | Sequence[float], size: Sequence[int], extra: str = "") -> nn.Module:
    """A convolution of one channel with a given kernel, without bias unless `extra` says so."""
    weight = torch.tensor(kernel, dtype=torch.float64)
    bias = "" if "bias" in extra else ", bias: false"
    axes = weight.dim()
    sizes = f"out_channels: 1, kernel_size: {list(weight.shape)}{bias}{extra}"
    module = built(f"{{Conv{axes}d: {{{sizes}}}, name: conv}}", 1, *size)
    module.load_state_dict({"conv.weight": weight[None, None]}, strict=not extra.count("bias"))
    return module


def image(values: Rows | Sequence[float]) -> Tensor:
    """A batch of one image, or signal, of one channel."""
    return torch.tensor(values, dtype=torch.float64)[None, None]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(found: Tensor, wanted: Tensor | Rows | Sequence[float], atol: float = 1e-12) -> None:
    torch.testing.assert_close(
        found.squeeze(), torch.as_tensor(wanted, dtype=torch.float64).squeeze(), rtol=0, atol=atol
    )


# ------------------------------------------------------------------------------- worked values


@pytest.mark.parametrize(
    ("signal", "kernel", "wanted"),
    [
        ([1, 2, 3, 4], [1, 0, -1], [-2, -2]),  # flipped it would be 2, 2
        ([1, 1, 1, 0, 0], [1, 0, 1], [2, 1, 1]),
        ([1, 2, 3, 4, 5], [1, 2, 0], [5, 8, 11]),
    ],
)
def test_one_axis_correlates(signal: list[float], kernel: list[float], wanted: list[float]) -> None:
    same(window(kernel, [len(signal)])(image(signal)), wanted)


@pytest.mark.parametrize(
    ("picture", "kernel", "scale", "wanted"),
    [
        # The animated example: the kernel is symmetric, 4 at the top left.
        (IMAGE, [[1, 0, 1], [0, 1, 0], [1, 0, 1]], 1, [[4, 3, 4], [2, 4, 3], [2, 3, 4]]),
        (INTENSITIES, KERNEL, 1, [[12, 12, 17], [10, 17, 19], [9, 6, 14]]),
        # The same kernel flipped: what true convolution with it would give.
        (
            INTENSITIES,
            [[2, 1, 0], [0, 2, 2], [2, 1, 0]],
            1,
            [[18, 20, 19], [10, 9, 17], [11, 8, 14]],
        ),
        (IMAGE, [[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1, [[1, 1, 1], [0, 1, 1], [0, 1, 1]]),
        (IMAGE, [[1, 0, -1], [0, 0, 0], [-1, 0, 1]], 1, [[1, 2, 1], [0, 1, 0], [0, -2, -1]]),
        (IMAGE, [[0, 1, 0], [1, -4, 1], [0, 1, 0]], 1, [[-2, 0, -2], [2, -1, 0], [2, -1, -2]]),
        (IMAGE, [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1, [[3, 1, 3], [-2, 2, 1], [-2, 2, 3]]),
        (IMAGE, [[1, 1, 1]] * 3, 9, [[6, 7, 6], [4, 7, 7], [4, 6, 6]]),
        (IMAGE, [[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16, [[11, 14, 11], [6, 13, 14], [6, 12, 11]]),
        (
            INTENSITIES,
            [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
            1,
            [[-5, -3, 7], [-1, 4, -2], [-3, -4, 4]],
        ),
        (FLAT, [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1, [[7, 7, 7]] * 3),
        (FLAT, [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], 1, [[0, 0, 0]] * 3),
        (FLAT, [[1, 0, -1], [0, 0, 0], [-1, 0, 1]], 1, [[0, 0, 0]] * 3),
    ],
)
def test_two_axes_correlate(picture: Rows, kernel: Rows, scale: float, wanted: Rows) -> None:
    found = window(kernel, [5, 5])(image(picture))
    same(found / scale, torch.tensor(wanted, dtype=torch.float64) / scale)


def test_bias_is_added_to_each_position() -> None:
    module = window(KERNEL, [5, 5], ", bias: true")
    nn.init.ones_(module.get_parameter("conv.bias"))
    same(module(image(INTENSITIES)), [[13, 13, 18], [11, 18, 20], [10, 7, 15]])


def test_true_convolution_flips() -> None:
    """Padded all around, with the kernel turned by 180 degrees, correlation is convolution."""
    full = window([[3, 2], [1, 0]], [2, 2], ", padding: 1")
    same(full(image([[1, 2], [3, 4]])), [[0, 1, 2], [2, 10, 10], [6, 17, 12]])
    turned = window([1, 0, 1], [5], ", padding: 2")
    same(turned(image([1, 1, 1, 0, 0])), [1, 1, 2, 1, 1, 0, 0])


def test_convolution_commutes_and_correlation_does_not() -> None:
    f, g = [1, 2, 3], [0, 1, 0.5]
    for first, second in ((f, g), (g, f)):
        found = window(second[::-1], [3], ", padding: 2")(image(first))
        same(found, [0, 1, 2.5, 4, 1.5])
    one, other = (window(k, [3], ", padding: 2")(image(x)) for x, k in ((f, g), (g, f)))
    assert not torch.equal(one, other)


def test_two_kernels_in_a_row_are_one() -> None:
    same(window([1, 2, 1], [3], ", padding: 2")(image([1, 2, 1])), [1, 4, 6, 4, 1])


def test_one_by_one_weighs_channels() -> None:
    module = built("{Conv1d: {out_channels: 2, kernel_size: 1, bias: false}, name: conv}", 3, 2)
    weight = torch.tensor([[1, 0, 0], [0.5, 0.25, 0.25]], dtype=torch.float64)
    module.load_state_dict({"conv.weight": weight[:, :, None]})
    pixels = torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.float64)
    same(module(pixels[None]), [[1, 2], [2.5, 3.5]])


def test_channels_add_up() -> None:
    module = built("{Conv2d: {out_channels: 1, kernel_size: 3, bias: false}, name: conv}", 3, 6, 6)
    x, weight = noise(1, 3, 6, 6), module.get_parameter("conv.weight").detach()
    alone = [window(weight[0, c].tolist(), [6, 6])(x[:, c : c + 1]) for c in range(3)]
    same(module(x).detach(), sum(alone, torch.zeros(())).detach())


@pytest.mark.parametrize(
    ("values", "wanted", "kept"),
    [
        (
            [[3, 2, 0, 0], [0, 7, 1, 3], [5, 2, 3, 0], [0, 9, 2, 3]],
            [[7, 3], [9, 3]],
            # Of the equal ones in the last window the first one.
            [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]],
        ),
        (
            [[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]],
            [[6, 8], [3, 4]],
            [[0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]],
        ),
    ],
)
def test_max_pooling_and_its_gradient(values: Rows, wanted: Rows, kept: Rows) -> None:
    """Only the position of the maximum gets a gradient, which has the shape of the input."""
    module = built("{MaxPool2d: {kernel_size: 2}}", 1, 4, 4)
    x = image(values).requires_grad_()
    pooled = module(x)
    same(pooled.detach(), wanted)
    pooled.sum().backward()
    assert x.grad is not None
    same(x.grad, kept)


def test_pooling_is_nearly_invariant() -> None:
    """All inputs change, only one of four outputs does."""
    module = built("{MaxPool1d: {kernel_size: 2}}", 1, 8)
    before, after = [9, 1, 8, 2, 7, 3, 6, 4], [10, 9, 1, 8, 2, 7, 3, 6]
    assert all(a != b for a, b in zip(before, after, strict=True))
    same(module(image(before)), [9, 8, 7, 6])
    same(module(image(after)), [10, 8, 7, 6])


def test_means_and_norms_of_a_region() -> None:
    same(built("{AvgPool1d: {kernel_size: 4}}", 1, 4)(image([1, 2, 3, 4])), 2.5)
    norm = built("{LPPool1d: {norm_type: 2, kernel_size: 4}}", 1, 4)
    same(norm(image([1, 2, 3, 4])), 5.477225575051661)


# ------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize(
    ("flow", "of_kernel", "of_bias"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[5, 6, 8], [1, 4, 5], [3, 1, 5]], 3),
        ([[1, 1, 1]] * 3, [[15, 15, 15], [9, 11, 16], [10, 7, 12]], 9),
    ],
)
def test_gradients_of_a_kernel(flow: Rows, of_kernel: Rows, of_bias: float) -> None:
    """dl/dk[i, j] = sum over x, y of dl/dO[x, y] I[x+i, y+j]: I correlated with what comes back."""
    module = window(KERNEL, [5, 5], ", bias: true")
    module(image(INTENSITIES)).backward(image(flow))
    weight, bias = (module.get_parameter(f"conv.{name}").grad for name in ("weight", "bias"))
    assert weight is not None
    assert bias is not None
    same(weight, of_kernel)
    same(bias, of_bias)
    same(window(flow, [5, 5])(image(INTENSITIES)).detach(), of_kernel)


def test_gradient_of_an_input() -> None:
    """dl/dI[x, y] = sum over i, j of dl/dO[x-i, y-j] k[i, j]: a full convolution with k."""
    x = image(INTENSITIES).requires_grad_()
    flow = [[1, 1, 1]] * 3
    window(KERNEL, [5, 5])(x).backward(image(flow))
    assert x.grad is not None
    wanted = [[0, 1, 3, 3, 2], [2, 5, 7, 5, 2], [2, 6, 10, 8, 4], [2, 5, 7, 5, 2], [0, 1, 3, 3, 2]]
    same(x.grad, wanted)
    turned = [row[::-1] for row in KERNEL[::-1]]
    same(window(turned, [3, 3], ", padding: 2")(image(flow)).detach(), wanted)


# ---------------------------------------------------------------------------------- translation


@pytest.mark.parametrize("shift", [(1, 2), (3, 0), (2, 2)])
def test_convolution_commutes_with_shifts(shift: tuple[int, int]) -> None:
    """Exactly, away from the border; pointwise layers do too."""
    down, right = shift
    module = built("{Conv2d: {out_channels: 4, kernel_size: 3}}, Tanh", 2, 9, 9)
    x = noise(1, 2, 9, 9)
    moved = torch.roll(x, shift, dims=(2, 3))
    found = module(moved)[..., down:, right:]
    same(found.detach(), module(x)[..., : 7 - down, : 7 - right].detach())


def test_circular_convolution_commutes_with_all_shifts() -> None:
    arguments = "out_channels: 3, kernel_size: 3, padding: 1, padding_mode: circular"
    module = built(f"{{Conv2d: {{{arguments}}}}}, ReLU", 2, 6, 5)
    x = noise(1, 2, 6, 5)
    for shift in product(range(6), range(5)):
        moved = module(torch.roll(x, shift, dims=(2, 3)))
        same(moved.detach(), torch.roll(module(x), shift, dims=(2, 3)).detach())


@pytest.mark.parametrize(
    "layer", ["Conv1d: {out_channels: 1, kernel_size: 2, stride: 2}", "MaxPool1d: {kernel_size: 2}"]
)
def test_strides_commute_with_their_multiples_only(layer: str) -> None:
    module = built(f"{{{layer}}}", 1, 8)
    x = image([1, 3, 2, 6, 5, 4, 8, 7])

    def after(shift: int) -> Tensor:
        moved: Tensor = module(torch.roll(x, shift, dims=2)).detach()
        return moved

    same(after(2)[..., 1:], after(0)[..., :-1])
    same(after(4)[..., 2:], after(0)[..., :-2])
    assert not any(
        torch.allclose(after(1)[..., lag:], after(0)[..., : 4 - lag]) for lag in (0, 1, 2)
    )


# -------------------------------------------------------------------- matrices and tied weights


def matrix_of(module: nn.Module, *shape: int) -> Tensor:
    """The matrix of a linear module: its answers to each unit vector, as columns."""
    count = torch.Size(shape).numel()
    units = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    with torch.no_grad():
        answers: Tensor = module(units)
    return answers.reshape(count, -1).T


def test_one_axis_is_a_toeplitz_matrix() -> None:
    """The band matrix of the lectures: three numbers, 13 of 25 places, the same on diagonals."""
    a, b, c = 2.0, 3.0, 5.0
    found = matrix_of(window([a, b, c], [5], ", padding: 1"), 1, 5)
    wanted = [[b, c, 0, 0, 0], [a, b, c, 0, 0], [0, a, b, c, 0], [0, 0, a, b, c], [0, 0, 0, a, b]]
    same(found, wanted)
    assert found.count_nonzero() == 3 * 5 - 2
    assert set(found.unique().tolist()) == {0, a, b, c}


def toeplitz(taps: Sequence[float], size: int, padding: int, stride: int, dilation: int) -> Tensor:
    """The matrix of one row of a kernel, written down place by place."""
    reach = dilation * (len(taps) - 1) + 1
    rows = (size + 2 * padding - reach) // stride + 1
    made = torch.zeros(rows, size, dtype=torch.float64)
    for row, (tap, value) in product(range(rows), enumerate(taps)):
        column = row * stride - padding + tap * dilation
        if 0 <= column < size:
            made[row, column] += value
    return made


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_two_axes_are_a_doubly_block_toeplitz_matrix(
    padding: int, stride: int, dilation: int
) -> None:
    """Blocks by rows of the kernel, each a Toeplitz matrix, themselves in Toeplitz order."""
    kernel = noise(3, 2).tolist()
    extra = f", padding: {padding}, stride: {stride}, dilation: {dilation}"
    found = matrix_of(window(kernel, [7, 6], extra), 1, 7, 6)
    wanted = torch.zeros_like(found)
    for tap, taps in enumerate(kernel):
        chosen = toeplitz([float(row == tap) for row in range(3)], 7, padding, stride, dilation)
        wanted += torch.kron(chosen, toeplitz(taps, 6, padding, stride, dilation))
    same(found, wanted)


def test_is_a_fully_connected_layer_with_tied_weights() -> None:
    """Equal outputs; and the gradient of each weight is the sum over the places it is used."""
    conv = built("{Conv2d: {out_channels: 2, kernel_size: 3, padding: 1}, name: conv}", 3, 4, 4)
    full = built("Flatten, {Linear: {out_features: 32}, name: fc}", 3, 4, 4)
    weight, bias = conv.get_parameter("conv.weight"), conv.get_parameter("conv.bias")
    places = {
        (out * 16 + y * 4 + x, channel * 16 + (y + i - 1) * 4 + x + j - 1): (out, channel, i, j)
        for out, y, x, channel, i, j in product(*map(range, (2, 4, 4, 3, 3, 3)))
        if 0 <= y + i - 1 < 4 and 0 <= x + j - 1 < 4
    }
    matrix = torch.zeros(32, 48, dtype=torch.float64)
    for place, tap in places.items():
        matrix[place] = weight[tap].item()
    full.load_state_dict({"fc.weight": matrix, "fc.bias": bias.detach().repeat_interleave(16)})

    given = noise(2, 3, 4, 4)
    found, wanted = conv(given), full(given)
    same(found.detach().flatten(1), wanted.detach())
    (found**2).sum().backward()
    (wanted**2).sum().backward()
    dense, tied = full.get_parameter("fc.weight").grad, torch.zeros_like(weight)
    assert dense is not None
    for place, tap in places.items():
        tied[tap] += dense[place]
    assert weight.grad is not None
    same(weight.grad, tied, 1e-10)


# ------------------------------------------------------------------------- groups and branches


def test_groups_are_convolutions_side_by_side() -> None:
    x = noise(1, 4, 6, 6)
    grouped = built("{Conv2d: {out_channels: 8, kernel_size: 3, groups: 2}, name: conv}", 4, 6, 6)
    halves = []
    for half in range(2):
        part = built("{Conv2d: {out_channels: 4, kernel_size: 3}, name: conv}", 2, 6, 6)
        part.load_state_dict(
            {key: value[4 * half : 4 * half + 4] for key, value in grouped.state_dict().items()}
        )
        halves.append(part(x[:, 2 * half : 2 * half + 2]))
    same(grouped(x).detach(), torch.cat(halves, dim=1).detach())


def resnext(form: str) -> str:
    """One block of ResNeXt of 4 paths of width 2 on 16 channels, in one of the paper's forms."""
    branches = {
        "added": "\n".join(
            f"""      b{i}:
        - {{Conv2d: {{out_channels: 2, kernel_size: 1, bias: false}}, name: reduce{i}}}
        - ReLU
        - {{Conv2d: {{out_channels: 2, kernel_size: 3, padding: 1, bias: false}}, name: conv{i}}}
        - ReLU
        - {{Conv2d: {{out_channels: 16, kernel_size: 1, bias: false}}, name: expand{i}}}"""
            for i in range(4)
        ),
        "joined": "\n".join(
            f"""      b{i}:
        - {{Conv2d: {{out_channels: 2, kernel_size: 1, bias: false}}, name: reduce{i}}}
        - ReLU
        - {{Conv2d: {{out_channels: 2, kernel_size: 3, padding: 1, bias: false}}, name: conv{i}}}
        - ReLU"""
            for i in range(4)
        ),
    }
    match form:
        case "added":
            body = f"  - add:\n{branches['added']}\n    name: out\n"
        case "joined":
            expand = "{Conv2d: {out_channels: 16, kernel_size: 1, bias: false}, name: expand}"
            body = f"  - concat:\n{branches['joined']}\n  - {expand}\n"
            body += "  - {Identity: {}, name: out}\n"
        case _:
            body = """\
  - {Conv2d: {out_channels: 8, kernel_size: 1, bias: false}, name: reduce}
  - ReLU
  - {Conv2d: {out_channels: 8, kernel_size: 3, padding: 1, groups: 4, bias: false}, name: conv}
  - ReLU
  - {Conv2d: {out_channels: 16, kernel_size: 1, bias: false}, name: expand}
  - {Identity: {}, name: out}
"""
    return f"cnnspec: 1\nname: net\ninputs: {{x: [16, 5, 5]}}\nlayers:\n{body}  - add: [out, x]\n"


def test_three_forms_of_resnext_are_one() -> None:
    """Xie et al. (2017), figure 3: paths added up, paths joined, a grouped convolution."""
    grouped, joined, added = (cnnspec.load(text=resnext(f)) for f in ("grouped", "joined", "added"))
    counts = {net.analyze().totals.params for net in (grouped, joined, added)}
    assert len(counts) == 1
    first = grouped.to_torch().double()
    weights = first.state_dict()
    parts = {
        name: list(weights[f"{name}.weight"].split(2, dim=1 if name == "expand" else 0))
        for name in ("reduce", "conv", "expand")
    }
    x = noise(2, 16, 5, 5)
    wanted = first(x).detach()
    for net, together in ((joined, ("expand",)), (added, ())):
        module = net.to_torch().double()
        state = {}
        for key in module.state_dict():
            *_, layer, _ = key.split(".")
            name = layer.rstrip("0123456789")
            whole = name in together
            state[key] = weights[f"{name}.weight"] if whole else parts[name][int(layer[-1])]
        module.load_state_dict(state, strict=True)
        same(module(x).detach(), wanted)


def test_bundled_resnext_is_its_branches() -> None:
    """A block of the bundled ResNeXt, its grouped convolution taken apart into 32 branches."""
    net = cnnspec.load("resnext50_32x4d", inputs={"image": (3, 32, 32)})
    block = net.to_torch().double().eval().get_submodule("layer1.1")
    conv = block.get_submodule("conv2")
    assert isinstance(conv, nn.Conv2d)
    assert conv.groups == 32
    x = noise(1, conv.in_channels, 8, 8)
    width = conv.out_channels // 32
    branches: list[Callable[[Tensor], Tensor]] = []
    for number in range(32):
        branch = nn.Conv2d(width, width, 3, padding=1, bias=False).double()
        branch.weight.data = conv.weight.data[number * width : (number + 1) * width]
        branches.append(branch)
    apart = [branch(part) for branch, part in zip(branches, x.split(width, dim=1), strict=True)]
    same(torch.cat(apart, dim=1).detach(), conv(x).detach())
