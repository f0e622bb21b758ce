"""Laws of the lectures, beyond their worked cases: properties of generated modules, and refusals.

Sliding windows correlate and do not flip; they commute with shifts; they are multiplications with
(doubly block) Toeplitz matrices, fully connected layers whose weights are tied; groups are branches
side by side; what the lectures call impossible has a diagnostic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cnnspec
from cnnspec.diagnostics import SpecError
from tests.cli.inside import called
from tests.textbook.layers import Row, Rows, built, exact, image, matrix_of, noise, window

IMAGE = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 0, 0]]
INTENSITIES = [[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]]


def same(found: Tensor, wanted: Tensor | Rows | Row, atol: float = 1e-12) -> None:
    torch.testing.assert_close(
        found.squeeze(), torch.as_tensor(wanted, dtype=torch.float64).squeeze(), rtol=0, atol=atol
    )


@pytest.mark.parametrize(
    ("signal", "kernel", "wanted"),
    [([1, 1, 1, 0, 0], [1, 0, 1], [2, 1, 1]), ([1, 2, 3, 4, 5], [1, 2, 0], [5, 8, 11])],
)
def test_one_axis_correlates(signal: Row, kernel: Row, wanted: Row) -> None:
    same(window(kernel, [len(signal)])(image(signal)), wanted)


@pytest.mark.parametrize(
    ("picture", "kernel", "wanted"),
    [
        # The animated example, whose first value, 4, is one of the cases.
        (IMAGE, [[1, 0, 1], [0, 1, 0], [1, 0, 1]], [[4, 3, 4], [2, 4, 3], [2, 3, 4]]),
        (INTENSITIES, [[0, 1, 2], [2, 2, 0], [0, 1, 2]], [[12, 12, 17], [10, 17, 19], [9, 6, 14]]),
    ],
)
def test_two_axes_correlate(picture: Rows, kernel: Rows, wanted: Rows) -> None:
    same(window(kernel, [5, 5])(image(picture)), wanted)


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


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("layers", "shape", "code"),
    [
        # Lecture 4: `in_channels` and `out_channels` must both be divisible by `groups`.
        ("Conv2d: {out_channels: 8, kernel_size: 3, groups: 2}", (3, 8, 8), "groups-divide"),
        ("Conv2d: {out_channels: 9, kernel_size: 3, groups: 2}", (4, 8, 8), "groups-divide"),
        # Lecture 1: no 5x5 filter has a place on 4x4 pixels.
        ("Conv2d: {out_channels: 1, kernel_size: 5}", (1, 4, 4), "kernel-too-large"),
        # Lecture 2: DenseNet joins maps of one size; its blocks stand between the poolings.
        ("concat: {a: [], b: {MaxPool2d: {kernel_size: 2}}}", (4, 8, 8), "concat-shape"),
        # Lecture 0: a block whose output has another size needs a projection.
        ("add: {a: [], b: {Conv2d: {out_channels: 4, kernel_size: 1}}}", (3, 8, 8), "add-shape"),
    ],
)
def test_what_cannot_be_built_is_named(layers: str, shape: tuple[int, ...], code: str) -> None:
    with pytest.raises(SpecError) as refused:
        built(layers, *shape)
    assert [found.code for found in refused.value.diagnostics] == [code]


def test_size_that_contradicts_the_table_is_an_unmet_expectation(tmp_path: Path) -> None:
    """The caption of AlexNet's figure has 253,440 units in layer 1, its arithmetic 290,400."""
    text = """\
cnnspec: 1
name: first_layer
inputs: {image: [3, 227, 227]}
layers: [Conv2d: {out_channels: 96, kernel_size: 11, stride: 4}]
expect: {activations: ACTIVATIONS}
"""
    spec = tmp_path / "net.yaml"
    for units, codes in (("290400", []), ("253440", ["expectation"])):
        spec.write_text(text.replace("ACTIVATIONS", units), encoding="utf-8")
        found = json.loads(called("check", "--format", "json", str(spec)).out)["diagnostics"]
        assert [each["code"] for each in found] == codes


def test_head_of_linear_layers_fixes_the_size_of_the_input() -> None:
    """Lecture 0: convolutions take inputs of any size; what is flattened does not."""
    head = "Flatten, {Linear: {out_features: 10}, name: fc}"
    layers = f"{{Conv2d: {{out_channels: 4, kernel_size: 3, padding: 1}}}}, {head}"
    text = f"cnnspec: 1\nname: net\ninputs: {{x: [3, 16, 16]}}\nlayers: [{layers}]\n"
    net = cnnspec.load(text=text)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        net.to_torch()(torch.zeros(1, 3, 17, 17))
    assert {sizes.fixed_by for sizes in net.symbolic().takes} == {"fc"}
    free = built(
        layers.replace("Flatten", "AdaptiveAvgPool2d: {output_size: 1}, Flatten"), 3, 16, 16
    )
    assert free(noise(1, 3, 17, 31)).shape == (1, 10)


# --------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("scores", "right", "wanted"),
    [([3.2, 5.1, -1.7], 0, 2.9), ([1.3, 4.9, 2.0], 1, 0.0), ([2.2, 2.5, -3.1], 2, 12.9)],
)
def test_hinge_loss_of_several_classes(scores: Row, right: int, wanted: float) -> None:
    """Lecture 4: the sum of max(0, s_j - s_y + 1) over the wrong classes; torch has the mean."""
    margins = [max(0.0, score - scores[right] + 1) for score in scores]
    assert sum(margins) - 1 == pytest.approx(wanted)
    mean = functional.multi_margin_loss(exact(scores)[None], torch.tensor([right]))
    assert mean.item() * len(scores) == pytest.approx(wanted)
