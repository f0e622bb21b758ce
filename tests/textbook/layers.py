"""Checks of the textbook about what layers compute: generated modules, in float64.

Sliding windows correlate and do not flip; where a lecture convolves, the kernel is turned here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import cnnspec

Row = Sequence[float]
Rows = Sequence[Row]


def exact(values: Any) -> Tensor:
    """A tensor of float64."""
    return torch.tensor(values, dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Random numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def built(layers: str, *shape: int) -> nn.Module:
    """The module of a network of one input, in float64, in evaluation mode."""
    text = f"cnnspec: 1\nname: net\ninputs: {{x: {list(shape)}}}\nlayers: [{layers}]\n"
    return cnnspec.load(text=text).to_torch().double().eval()


def window(kernel: Rows | Row, size: Sequence[int], extra: str = "") -> nn.Module:
    """A convolution of one channel with a given kernel, without bias unless `extra` says so."""
    weight = exact(kernel)
    bias = "" if "bias" in extra else ", bias: false"
    sizes = f"out_channels: 1, kernel_size: {list(weight.shape)}{bias}{extra}"
    module = built(f"{{Conv{weight.dim()}d: {{{sizes}}}, name: conv}}", 1, *size)
    module.load_state_dict({"conv.weight": weight[None, None]}, strict=not extra.count("bias"))
    return module


def image(values: Rows | Row) -> Tensor:
    """A batch of one image, or signal, of one channel."""
    return exact(values)[None, None]


def plain(values: Tensor) -> Any:
    """The numbers of an only channel of an only sample."""
    return values.detach()[0, 0].tolist()


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    assert one.shape == other.shape
    return (one - other).abs().max().item()


def turned(kernel: Rows | Row) -> Any:
    """A kernel turned by 180 degrees."""
    weight = exact(kernel)
    return weight.flip(*range(weight.dim())).tolist()


# ------------------------------------------------------------------------------- sliding windows


def correlation(x: Rows, k: Rows, b: float = 0.0, scale: float = 1.0) -> Any:
    """A convolution as layers have it; as one with a fixed kernel it is the same."""
    module = window(k, exact(x).shape, ", bias: true")
    with torch.no_grad():
        module.get_parameter("conv.weight").mul_(scale)
        module.get_parameter("conv.bias").fill_(b)
    found = plain(module(image(x)))
    fixed = built(
        f"FixedConv2d: {{kernel: {list(map(list, k))}, scale: {scale}}}", 1, *exact(x).shape
    )
    assert torch.allclose(fixed(image(x))[0, 0] + b, exact(found))
    return found


def first_of_feature_map(x: Rows, k: Rows) -> float:
    """The top left of a convolved picture."""
    return correlation(x, k)[0][0]


def true_convolution(x: Rows | Row, k: Rows | Row) -> Any:
    """What the definition says: the kernel turned, and every overlap."""
    sizes = exact(k).shape
    padding = [size - 1 for size in sizes]
    return plain(window(turned(k), exact(x).shape, f", padding: {padding}")(image(x)))


def centred_convolution(x: Row, h: Mapping[str, float]) -> list[float]:
    """A kernel with taps at -1, 0 and 1, turned, over a row with zeros outside."""
    taps = [h[str(place)] for place in (-1, 0, 1)]
    return plain(window(taps[::-1], [len(x)], ", padding: 1")(image(x)))


def correlated_and_convolved(x: Row, k: Row) -> dict[str, Any]:
    """Both, without padding."""
    size = [len(x)]
    pair = (window(kernel, size)(image(x)) for kernel in (k, turned(k)))
    return dict(zip(("corr", "conv"), map(plain, pair), strict=True))


def commutes(f: Row, g: Row) -> dict[str, Any]:
    """Convolution does not care which of two is the kernel; correlation does."""
    one, other = true_convolution(f, g), true_convolution(g, f)
    assert true_convolution(f, g[::-1]) != true_convolution(g, f[::-1])
    return {"value": one, "max_abs_diff": apart(exact(one), exact(other))}


def channels_add_up(seed: int, c: int, h: int, w: int, k: int) -> dict[str, float]:
    """A filter over several channels is the sum of a filter over each."""
    conv = f"{{Conv2d: {{out_channels: 1, kernel_size: {k}, bias: false}}, name: conv}}"
    module, x = built(conv, c, h, w), noise(1, c, h, w, seed=seed)
    weight = module.get_parameter("conv.weight").detach()
    alone = [window(weight[0, i].tolist(), [h, w])(x[:, i : i + 1]) for i in range(c)]
    return {"max_abs_diff": apart(module(x), torch.stack(alone).sum(dim=0))}


def weighted_channels(x: Rows, w: Rows) -> Any:
    """A 1x1 convolution of pixels in a row, which are the columns."""
    channels, pixels = exact(x).shape
    conv = f"{{Conv1d: {{out_channels: {len(w)}, kernel_size: 1, bias: false}}, name: conv}}"
    module = built(conv, channels, pixels)
    module.load_state_dict({"conv.weight": exact(w)[:, :, None]})
    return module(exact(x)[None])[0].tolist()


def gain(kernel: Rows, divisor: float) -> float:
    """What a fixed kernel makes of a picture of ones."""
    fixed = f"FixedConv2d: {{kernel: {list(map(list, kernel))}, scale: {1 / divisor}}}"
    return round(built(fixed, 1, 3, 3)(torch.ones(1, 1, 3, 3).double()).item(), 6)


def ranks(ks: Sequence[Rows]) -> list[int]:
    """Ranks of kernels; one of rank 1 is a column behind a row."""
    found = []
    for kernel in map(exact, ks):
        found.append(int(torch.linalg.matrix_rank(kernel)))
        left, scale, right = torch.linalg.svd(kernel)
        x = noise(1, 1, 7, 7)
        column = window((left[:, :1] * scale[0]).tolist(), [7, 7])
        row = window(right[:1].tolist(), [5, 7])
        separable = torch.allclose(row(column(x)), window(kernel.tolist(), [7, 7])(x))
        assert separable == (found[-1] == 1)
    return found


# ------------------------------------------------------------------------------------- matrices


def matrix_of(module: nn.Module, *shape: int) -> Tensor:
    """The matrix of a linear module: its answers to each unit vector, as columns."""
    count = torch.Size(shape).numel()
    units = torch.eye(count, dtype=torch.float64).reshape(count, *shape)
    with torch.no_grad():
        answers: Tensor = module(units)
    return answers.reshape(count, -1).T


def places_of_band(n: int, half: int) -> int:
    """Places of the matrix of a row of windows that are not zero."""
    taps = [2.0 + i for i in range(2 * half + 1)]
    return int(matrix_of(window(taps, [n], f", padding: {half}"), 1, n).count_nonzero())


def values_of_band(n: int, m: int) -> int:
    """Different weights in that matrix."""
    taps = [2.0 + i for i in range(m)]
    found = matrix_of(window(taps, [n], f", padding: {m // 2}"), 1, n)
    return len(set(found.unique().tolist()) - {0.0})


# ------------------------------------------------------------------------------------ gradients


def gradients_of_kernel(x: Rows, k: Rows, dy: Rows) -> dict[str, Any]:
    """dl/dk[i, j] = sum over x, y of dl/dO[x, y] I[x+i, y+j]: I correlated with what comes back."""
    module = window(k, exact(x).shape, ", bias: true")
    module(image(x)).backward(image(dy))
    weight, bias = (module.get_parameter(f"conv.{name}").grad for name in ("weight", "bias"))
    assert weight is not None
    assert bias is not None
    assert plain(weight) == correlation(x, dy)
    return {"dw": plain(weight), "db": bias.item()}


def gradient_of_input(x: Rows, k: Rows, dy: Rows) -> Any:
    """dl/dI[x, y] = sum over i, j of dl/dO[x-i, y-j] k[i, j]: a full convolution with k."""
    at = image(x).requires_grad_()
    window(k, exact(x).shape)(at).backward(image(dy))
    assert at.grad is not None
    assert plain(at.grad) == true_convolution(dy, k)
    return plain(at.grad)


def gradient_of_max_pooling(x: Rows, k: int, s: int, dy: Rows) -> Any:
    """Only the place of the maximum gets a gradient, which has the shape of the input."""
    at = image(x).requires_grad_()
    pooled = built(f"MaxPool2d: {{kernel_size: {k}, stride: {s}}}", 1, *exact(x).shape)(at)
    pooled.backward(image(dy))
    assert at.grad is not None
    return plain(at.grad)


# -------------------------------------------------------------------------------------- pooling


def max_pooling(x: Rows, k: int, s: int) -> Any:
    """The largest of each window."""
    return plain(
        built(f"MaxPool2d: {{kernel_size: {k}, stride: {s}}}", 1, *exact(x).shape)(image(x))
    )


def largest(h: Row) -> float:
    """The largest of one region."""
    return built(f"MaxPool1d: {{kernel_size: {len(h)}}}", 1, len(h))(image(h)).item()


def power_pooling(h: Row, p: float) -> float:
    """The root of the sum of powers of one region."""
    pool = f"LPPool1d: {{norm_type: {p}, kernel_size: {len(h)}}}"
    return built(pool, 1, len(h))(image(h)).item()


def power_pooling_of_negatives(h: Row, p: float) -> dict[str, float]:
    """Power pooling as the formula and torch have it, and the norm."""
    return {
        "slide_literal": power_pooling(h, p),
        "true_norm": torch.linalg.vector_norm(exact(h), p).item(),
    }


def average_and_sum(h: Row) -> dict[str, float]:
    """Average pooling, and sum pooling, which is power pooling with 1."""
    average = built(f"AvgPool1d: {{kernel_size: {len(h)}}}", 1, len(h))
    return {"avg": average(image(h)).item(), "sum": power_pooling(h, 1)}


def pooled_after_shift(x: Row, incoming: float, k: int) -> dict[str, Any]:
    """How many values change where a row moves by one, before and after pooling."""
    moved = [incoming, *x[:-1]]
    pool = built(f"MaxPool1d: {{kernel_size: {k}}}", 1, len(x))
    before, after = plain(pool(image(x))), plain(pool(image(moved)))
    return {
        "changed_inputs": sum(a != b for a, b in zip(x, moved, strict=True)),
        "before": before,
        "after": after,
        "changed_outputs": sum(a != b for a, b in zip(before, after, strict=True)),
    }


# ---------------------------------------------------------------------------------- translation


def shifted_interior(seed: int, h: int, w: int, k: int, shift: Sequence[int]) -> dict[str, float]:
    """A map moves with its input, away from the border."""
    down, right = shift
    module = built(f"Conv2d: {{out_channels: 1, kernel_size: {k}}}", 1, h, w)
    x = noise(1, 1, h, w, seed=seed)
    moved = module(torch.roll(x, tuple(shift), dims=(2, 3)))[..., down:, right:]
    stayed = module(x)[..., : h - k + 1 - down, : w - k + 1 - right]
    return {"max_abs_diff_interior": apart(moved, stayed)}


def shifted_circularly(seed: int, h: int, w: int, k: int, shift: Sequence[int]) -> dict[str, float]:
    """A map moves with its input, everywhere, where the border wraps around."""
    extra = f"padding: {k // 2}, padding_mode: circular"
    module = built(f"Conv2d: {{out_channels: 1, kernel_size: {k}, {extra}}}", 1, h, w)
    x = noise(1, 1, h, w, seed=seed)
    moved = module(torch.roll(x, tuple(shift), dims=(2, 3)))
    return {"max_abs_diff": apart(moved, torch.roll(module(x), tuple(shift), dims=(2, 3)))}


def shifted_by_strides(x: Row, k: Row, s: int, shift: int) -> dict[str, bool]:
    """With a stride a map moves with its input only by multiples of the stride."""
    module = window(k, [len(x)], f", stride: {s}")
    stayed = plain(module(image(x)))

    def follows(step: int) -> bool:
        row = exact(x).roll(step).tolist()
        moved = plain(module(image(row)))
        return any(moved[lag:] == stayed[: len(stayed) - lag] for lag in range(len(stayed) - 1))

    return {
        "equivariant_for_shift": follows(shift),
        "equivariant_for_shift_of_stride": follows(s),
    }


# ----------------------------------------------------------------------------- groups, branches


def groups_beside_one_another(
    cin: int, cout: int, k: int, h: int, w: int, groups: int, seed: int
) -> dict[str, float]:
    """Groups are convolutions side by side, joined."""
    name = "name: conv"
    conv = f"Conv2d: {{out_channels: {cout}, kernel_size: {k}, groups: {groups}}}"
    grouped = built(f"{{{conv}, {name}}}", cin, h, w)
    x, wide, out = noise(1, cin, h, w, seed=seed), cin // groups, cout // groups
    parts = []
    for group in range(groups):
        conv = f"Conv2d: {{out_channels: {out}, kernel_size: {k}}}"
        part = built(f"{{{conv}, {name}}}", wide, h, w)
        state = grouped.state_dict().items()
        part.load_state_dict({key: value[out * group : out * (group + 1)] for key, value in state})
        parts.append(part(x[:, wide * group : wide * (group + 1)]))
    return {"max_abs_diff": apart(grouped(x), torch.cat(parts, dim=1))}


def branches_and_groups(cin: int, card: int, d: int, h: int, w: int, seed: int) -> dict[str, float]:
    """ResNeXt: paths of 1x1, 3x3 and 1x1 added up are three convolutions, the middle in groups."""
    free = "bias: false"
    narrow = f"{{Conv2d: {{out_channels: {card * d}, kernel_size: 1, {free}}}, name: reduce}}"
    middle = f"out_channels: {card * d}, kernel_size: 3, padding: 1, groups: {card}, {free}"
    wide = f"{{Conv2d: {{out_channels: {cin}, kernel_size: 1, {free}}}, name: expand}}"
    grouped = built(
        f"{narrow}, ReLU, {{Conv2d: {{{middle}}}, name: conv}}, ReLU, {wide}", cin, h, w
    )
    weights, x, total = grouped.state_dict(), noise(1, cin, h, w, seed=seed), torch.zeros(())
    for number in range(card):
        part = slice(d * number, d * (number + 1))
        narrow = f"{{Conv2d: {{out_channels: {d}, kernel_size: 1, {free}}}, name: reduce}}"
        middle = f"out_channels: {d}, kernel_size: 3, padding: 1, {free}"
        path = built(
            f"{narrow}, ReLU, {{Conv2d: {{{middle}}}, name: conv}}, ReLU, {wide}", cin, h, w
        )
        path.load_state_dict(
            {
                "reduce.weight": weights["reduce.weight"][part],
                "conv.weight": weights["conv.weight"][part],
                "expand.weight": weights["expand.weight"][:, part],
            }
        )
        total = total + path(x)
    return {"max_abs_diff": apart(grouped(x), total)}


# ----------------------------------------------------------------------------------- pointwise


def sigmoid(z: Row) -> list[float]:
    """The squashing of the lectures."""
    return built("Sigmoid", len(z))(exact(z)[None])[0].tolist()


def two_layers(x: Row, W1: Rows, W2: Rows) -> list[float]:  # noqa: N803 - as the lecture writes it
    """W2 max(0, W1 x)."""
    first = f"{{Linear: {{out_features: {len(W1)}, bias: false}}, name: first}}"
    second = f"{{Linear: {{out_features: {len(W2)}, bias: false}}, name: second}}"
    module = built(f"{first}, ReLU, {second}", len(x))
    module.load_state_dict({"first.weight": exact(W1), "second.weight": exact(W2)})
    return module(exact(x)[None])[0].tolist()


def dropout_in_training(x: Row, p: float) -> list[float]:
    """What is left of each value when it is not dropped; at test time all are as they were."""
    module = built(f"Dropout: {{p: {p}}}", len(x))
    row = exact(x)[None]
    assert torch.equal(module(row), row)
    torch.manual_seed(0)
    module.train()
    many = torch.stack([module(row)[0] for _ in range(32)])
    left = [sorted(set(column.tolist())) for column in many.T]
    assert all(zero == 0 for zero, _ in left)
    return [kept for _, kept in left]


def normalised_responses(
    a: Row, k: float, alpha: float, beta: float, n: int, divide_by_n: bool
) -> list[float]:
    """A pixel of some channels, normalised as the paper says; torch's layer divides alpha by n."""
    assert not divide_by_n
    paper = f"PaperLRN: {{n: {n}, k: {k}, alpha: {alpha}, beta: {beta}}}"
    torchs = f"LocalResponseNorm: {{size: {n}, k: {k}, alpha: {alpha * n}, beta: {beta}}}"
    pixel = exact(a)[None, :, None, None]
    found, other = (built(norm, len(a), 1, 1)(pixel).flatten() for norm in (paper, torchs))
    assert apart(found, other) < 1e-12
    return found.tolist()


def normalised_windows(N: int, n: int) -> dict[str, list[list[int]]]:  # noqa: N803 - as the lecture writes it
    """The first and last channel that each of N responses is normalised by."""

    def seen(answer: Any) -> list[list[int]]:
        # A sample for each channel, which is larger there. (Also, the reference of some versions
        # of onnx goes through as many channels as there are samples.)
        raised = torch.ones(N, N, 1, 1) + torch.eye(N)[:, :, None, None]
        reads = (answer(raised) != answer(torch.ones(N, N, 1, 1)))[:, :, 0, 0].T
        return [[int(places[0]), int(places[-1])] for places in (row.nonzero() for row in reads)]

    node = onnx.helper.make_node("LRN", ["x"], ["y"], size=n, alpha=1.0)
    ends = [
        onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [N, N, 1, 1])
        for end in "xy"
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "lrn", ends[:1], ends[1:]))
    reference = ReferenceEvaluator(model)

    def by_onnx(x: Tensor) -> Tensor:
        (y,) = reference.run(None, {"x": x.numpy().astype(np.float32)})
        return torch.from_numpy(np.asarray(y))

    paper = built(f"PaperLRN: {{n: {n}, alpha: 1}}", N, 1, 1).float()
    torchs = built(f"LocalResponseNorm: {{size: {n}, alpha: 1}}", N, 1, 1).float()
    return {"slide": seen(paper), "torch": seen(torchs), "onnx": seen(by_onnx)}


# ------------------------------------------------------------------------------- whole networks


def gram(F: Rows) -> Any:  # noqa: N803 - as the lecture writes it
    """Products of all pairs of channels."""
    features = exact(F)
    channels, places = features.shape
    return built("Gram", channels, 1, places)(features[None, :, None])[0].tolist()


def pyramid_and_back(seed: int, n: int, levels: int) -> dict[str, float]:
    """The bundled Laplacian pyramid, put together again."""
    net = cnnspec.load("pyramid", params={"levels": levels}, inputs={"image": (3, n, n)})
    x = noise(1, 3, n, n, seed=seed)
    *_, restored = net.to_torch().double().eval()(x)
    return {"max_abs_diff": apart(restored, x)}
