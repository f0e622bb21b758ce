"""Networks whose linear layers became convolutions compute what they did, at every window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cnnspec
from cnnspec.api import Network
from cnnspec.backends.torch import reshaped
from cnnspec.diagnostics import EnvironmentFailure

HEADS = {
    "plain": "- Linear: {out_features: 6}\n  - ReLU\n  - Linear: {out_features: 4}",
    "without a bias": "- Linear: {out_features: 4, bias: false}",
    "activation in front": "- Tanh\n  - Dropout\n  - Linear: {out_features: 4}",
    "norm": "- Linear: {out_features: 6}\n  - BatchNorm1d\n  - Linear: {out_features: 4}",
    "softmax": "- Linear: {out_features: 4}\n  - Softmax: {dim: -1}",
    "slope": "- Linear: {out_features: 4}\n  - PReLU: {num_parameters: 4}",
    "residual": (
        "- Linear: {out_features: 6}\n    name: a\n  - Linear: {out_features: 6}\n    name: b\n"
        "  - add: [a, b]\n  - Linear: {out_features: 4}"
    ),
    "shared": (
        "- Linear: {out_features: 6}\n  - Linear: {out_features: 6}\n    name: twice\n  - ReLU\n"
        "  - Linear: {out_features: 6}\n    share: twice"
    ),
}


def spec(head: str, inputs: str = "[2, 8, 8]", body: str = "") -> str:
    body = body or (
        "- Conv2d: {out_channels: 3, kernel_size: 3}\n  - ReLU\n  - MaxPool2d: {kernel_size: 2}"
    )
    layers = f"  {body}\n  - Flatten\n  {head}\n"
    return f"cnnspec: 1\nname: net\ninputs: {{x: {inputs}}}\nlayers:\n{layers}"


def pair(network: Network) -> tuple[nn.Module, nn.Module]:
    """The network, and the convolutional one with its weights."""
    module = network.to_torch(seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))
    fcn = network.to_fcn()
    return module, fcn.to_torch(reshaped(fcn.graph, module.state_dict())).eval()


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_one_answer_at_the_size_at_hand_and_one_a_window_beyond(head: str) -> None:
    network = cnnspec.load(text=spec(head))
    module, fcn = pair(network)
    x = image(3, 2, 8, 8)
    assert (fcn(x).flatten(1) - module(x)).abs().max() < 1e-6
    large = image(2, 2, 12, 16)
    answers = fcn(large)
    assert answers.shape[2:] == (3, 5)
    for row in range(3):
        for column in range(5):
            window = large[:, :, 2 * row : 2 * row + 8, 2 * column : 2 * column + 8]
            assert (answers[:, :, row, column] - module(window)).abs().max() < 1e-6


@torch.no_grad()
def test_lenet_reads_a_page() -> None:
    """LeNet-5 has no padding: its windows are those of the image, four pixels apart."""
    module, fcn = pair(cnnspec.load("lenet5"))
    page = image(1, 1, 40, 56)
    answers = fcn(page)
    assert answers.shape == (1, 10, 3, 7)
    for row in range(3):
        for column in range(7):
            digit = page[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
            assert (answers[:, :, row, column] - module(digit)).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize(
    ("inputs", "body", "larger"),
    [
        ("[2, 9]", "- Conv1d: {out_channels: 3, kernel_size: 3}", (2, 14)),
        ("[1, 5, 6, 7]", "- Conv3d: {out_channels: 3, kernel_size: 3}", (1, 6, 8, 7)),
        ("[1, 4, 5]", "- Identity", (1, 6, 9)),
    ],
)
def test_any_number_of_axes(inputs: str, body: str, larger: tuple[int, ...]) -> None:
    network = cnnspec.load(text=spec(HEADS["plain"], inputs, body))
    module, fcn = pair(network)
    x = image(2, *network.graph.tensors[0].shape)
    assert (fcn(x).flatten(1) - module(x)).abs().max() < 1e-6
    assert fcn(image(2, *larger)).dim() == len(larger) + 1


def at_each_window(network: Network, larger: int, last: str, head: str, pool: int) -> None:
    """The fully connected head applied to each window of the feature map, and the whole at once.

    Convolutions in front pad the image, not its windows, so that features are those of the image.
    """
    size = network.graph.tensors[0].shape[-1]
    module, fcn = pair(network)
    expected = module(image(1, 3, size, size))
    difference = (fcn(image(1, 3, size, size)).flatten(1) - expected).abs().max()
    assert difference < 1e-6 * max(1, float(expected.abs().max()))
    seen: list[Tensor] = []
    hook = module.get_submodule(last).register_forward_hook(lambda _, __, y: seen.append(y))
    for side in (size, larger):
        module(image(1, 3, side, side))
    hook.remove()
    native, features = seen[0].shape[-1], seen[1]
    answers = fcn(image(1, 3, larger, larger))
    steps = features.shape[-1] - native + 1
    assert answers.shape[-2:] == (steps, steps)
    assert steps > 1
    for row in range(steps):
        for column in range(steps):
            window = features[..., row : row + native, column : column + native]
            pooled = nn.functional.adaptive_avg_pool2d(window, pool).flatten(1)
            found = module.get_submodule(head)(pooled)
            difference = (answers[..., row, column] - found).abs().max()
            assert difference < 1e-5 * max(1, float(found.abs().max()))


@torch.no_grad()
@pytest.mark.slow
def test_alexnet() -> None:
    at_each_window(cnnspec.load("alexnet"), 288, "features", "classifier", 6)


@torch.no_grad()
def test_a_global_mean_slides() -> None:
    network = cnnspec.load("resnet18").with_inputs(image=(3, 64, 64))
    at_each_window(network, 96, "layer4", "fc", 1)


@torch.no_grad()
def test_a_small_vgg() -> None:
    text = """\
cnnspec: 1
name: net
inputs: {image: [3, 32, 32]}
layers:
  - Sequential:
      - Sequential:
          - Conv2d: {out_channels: width, kernel_size: 3, padding: 1}
          - ReLU
          - MaxPool2d: {kernel_size: 2, stride: 2}
        for: width in [8, 16, 16]
        inline: true
    name: features
  - AdaptiveAvgPool2d: {output_size: 4}
  - Flatten
  - Sequential:
      - Linear: {out_features: 32}
      - ReLU
      - Dropout
      - Linear: {out_features: 32}
      - ReLU
      - Dropout
      - Linear: {out_features: 5}
    name: classifier
"""
    at_each_window(cnnspec.load(text=text), 48, "features", "classifier", 4)


def test_weights_keep_their_elements() -> None:
    network = cnnspec.load("lenet5")
    state = network.to_torch().state_dict()
    found = reshaped(network.to_fcn().graph, state)
    assert found.keys() == state.keys()
    assert found["f6.weight"].shape == (84, 120, 1, 1)
    assert all(torch.equal(found[key].reshape(-1), state[key].reshape(-1)) for key in state)
    assert found["c1.weight"] is state["c1.weight"]


def test_the_figures_stay() -> None:
    for name in ("vgg16", "alexnet", "densenet121"):
        network = cnnspec.load(name)
        fcn = network.to_fcn()
        assert fcn.name == f"{name}_fcn"
        old, new = network.analyze().totals, fcn.analyze().totals
        assert (old.params, old.macs) == (new.params, new.macs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (spec("- LayerNorm"), "`4` (LayerNorm) reads a flattened map and has no form"),
        (spec("- Unflatten: {dim: 1, unflattened_size: [3, 9]}"), "`4` (Unflatten) reads"),
        (spec("- ReLU"), "has no linear layer that reads a flattened map"),
        (
            spec("- Linear: {out_features: 4}", body="- AdaptiveAvgPool2d: {output_size: 3}"),
            "`0` (AdaptiveAvgPool2d) has windows of several sizes at 2x8x8",
        ),
    ],
)
def test_what_cannot_be_rewritten(text: str, message: str) -> None:
    with pytest.raises(EnvironmentFailure) as caught:
        cnnspec.load(text=text).to_fcn()
    assert message in caught.value.message
