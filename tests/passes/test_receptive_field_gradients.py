"""Receptive fields of whole networks against gradients.

The networks are made linear, with positive weights: activations become identities, maxima means,
norms by channel identities. A gradient in float64 is then zero exactly where nothing is seen. It is
taken at both borders and in the middle; what lies in the padding is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import pytest
import torch
from torch import nn

import cnnspec
from cnnspec.geometry import AxisField
from cnnspec.ir import Graph
from cnnspec.passes.receptive_field import Fields
from tests.fuzzing.comparison import module_of, with_all_outputs
from tests.fuzzing.fields import padded_positions, rounds_down
from tests.fuzzing.networks import network
from tests.fuzzing.specs import text_of

LAYERS = 5
"""Layers of each network that are looked at, the last with a field along the axis among them."""

CHANNEL_NORMS = ("LayerNorm", "LayerNorm2d", "LocalResponseNorm", "RMSNorm")
MIXING = ("GLU", "LogSoftmax", "MultiheadAttention", "Softmax", "Softmax2d", "Softmin")
"""Activations that are not of each element alone."""

CANCELLING = ("Normalize", "sub")
"""Of which a gradient may be zero: along equal channels, and of what is taken from itself."""

LINEAR = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.Linear,
    nn.Identity,
    nn.ZeroPad1d,
    nn.ZeroPad2d,
    nn.ZeroPad3d,
)
POOLS: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def linear(graph: Graph) -> nn.Module:
    """The network with all its tensors as outputs, linear and positive, in float64."""
    module = module_of(with_all_outputs(graph), "cpu").double().eval()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            setattr(parent, name, _linear(child))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(1, math.prod(parameter.shape[1:]))
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((drawn + 0.5) / fan)
    return module


def _linear(layer: nn.Module) -> nn.Module:
    kind = type(layer)
    if kind in POOLS and getattr(layer, "dilation", 1) in (1, (1,), (1, 1), (1, 1, 1)):
        if hasattr(layer, "output_size"):
            return POOLS[kind](layer.output_size)
        arguments = ("kernel_size", "stride", "padding", "ceil_mode")
        return POOLS[kind](**{name: getattr(layer, name) for name in arguments})
    pointwise = kind.__module__ == "torch.nn.modules.activation" and kind.__name__ not in MIXING
    dropout = kind.__module__ == "torch.nn.modules.dropout"
    if pointwise or dropout or kind.__name__ in CHANNEL_NORMS:
        return nn.Identity()
    return layer


def by_batch(layer: nn.Module) -> bool:
    """Whether a norm divides by the statistics of the batch, which is of one here."""
    return not getattr(layer, "track_running_stats", True)


def ones(graph: Graph) -> list[torch.Tensor]:
    return [
        torch.ones(1, *graph.tensors[value].shape, dtype=torch.float64).requires_grad_()
        for value in graph.inputs.values()
    ]


def values_of(
    graph: Graph, module: nn.Module, inputs: list[torch.Tensor]
) -> dict[int, torch.Tensor]:
    result = module(*inputs)
    tensors = (result,) if isinstance(result, torch.Tensor) else tuple(result)
    return dict(enumerate(tensors, start=len(inputs)))


def seen(
    output: torch.Tensor, given: torch.Tensor, axis: int, at: tuple[int, int]
) -> tuple[int, int] | None:
    """First and last position along an axis of the input that an output position depends on.

    `at` is the axis of the output and the position along it.
    """
    if not output.requires_grad:
        return None
    part = output.select(at[0] + 1, at[1])
    (gradient,) = torch.autograd.grad(part.sum(), given, retain_graph=True, allow_unused=True)
    if gradient is None:
        return None
    others = [each for each in range(gradient.dim()) if each != axis + 1]
    reached = (gradient != 0).any(dim=others) if others else gradient != 0
    found = reached.flatten().nonzero().flatten().tolist()
    return (found[0], found[-1]) if found else None


def cut(span: tuple[int, int] | None, extent: int) -> tuple[int, int] | None:
    """The part of a field that is not padding."""
    if span is None or span[1] < 0 or span[0] >= extent:
        return None
    return max(span[0], 0), min(span[1], extent - 1)


def local(graph: Graph, fields: Fields, source: int) -> Iterator[tuple[int, int, AxisField]]:
    """Values that see an input axis by position: `(value, axis of the value, field)`."""
    for value, tracks in enumerate(fields.values):
        if graph.producers[value] < 0:
            continue
        for track in tracks:
            field = track.field
            if (
                track.source == source
                and track.along is not None
                and field.unavailable is None
                and not (field.is_global or field.flattened or field.is_empty)
            ):
                yield value, track.along, field


@pytest.mark.parametrize(
    ("name", "params", "size"),
    [
        ("alexnet", {"widths": [8, 8, 8, 8, 8]}, (3, 225, 63)),
        ("resnet18", {"depths": [2, 1, 1, 1]}, (3, 225, 33)),
        ("densenet121", {"growth": 4, "depths": [3, 4, 3, 2]}, (3, 97, 32)),
        ("googlenet", {}, (3, 129, 33)),
        ("convnext", {"widths": [8, 8, 8, 8]}, (3, 160, 32)),
        ("unet", {}, (3, 80, 16)),
        ("lenet5", {}, None),
        ("m5", {"first": 16, "widths": [16, 16, 16]}, (1, 16001)),
        ("c3d", {}, (3, 17, 32, 32)),
        ("style", {}, (3, 64, 32)),
    ],
)
def test_bundled_networks(
    name: str, params: dict[str, object], size: tuple[int, ...] | None
) -> None:
    """Borders and middle of layers from the first to the last that sees by position."""
    net = cnnspec.load(name).with_params(**params)
    if size:
        net = net.with_inputs(**{next(iter(net.graph.inputs)): size})
    graph = net.graph
    fields = net.analyze().facts[Fields]
    inputs = ones(graph)
    values = values_of(graph, linear(graph), inputs)
    compared = interior = 0
    for source, axis in enumerate(fields.axes[:1]):
        given = graph.inputs[axis.input]
        position = graph.tensors[given].roles.index(axis.role)
        number = list(graph.inputs.values()).index(given)
        every = list(local(graph, fields, source))
        step = max(1, (len(every) - 1) // (LAYERS - 1))
        for value, along, field in [*every[:-1:step], every[-1]]:
            length = graph.tensors[value].shape[along]
            for output in sorted({0, length // 2, length - 1}):
                span = field.at(output)
                found = seen(values[value], inputs[number], position, (along, output))
                where = f"{graph.value_name(value)}, position {output} of {length}"
                assert found == cut(span, axis.extent), where
                compared += 1
                interior += span is not None and span == found
    assert compared >= LAYERS
    assert interior, "no position has its whole field inside"


def test_random_networks() -> None:
    """Networks that are linear once made so: the gradient lies in the field, and fills it."""
    compared = full = 0
    for number in range(160):
        net = cnnspec.load(text=text_of(network(number)))
        graph = net.graph
        fields = net.analyze().facts[Fields]
        if not fields.axes or any(rounds_down(node.op) for node in graph.nodes):
            continue
        if any(node.op.name in CANCELLING for node in graph.nodes):
            continue
        module = linear(graph)
        kinds = [each for each in module.modules() if not list(each.children())]
        if not all(isinstance(each, LINEAR) for each in kinds) or any(map(by_batch, kinds)):
            continue
        padded = padded_positions(graph, fields)
        inputs = ones(graph)
        values = values_of(graph, module, inputs)
        rng = Random(number)
        for source, axis in enumerate(fields.axes):
            given = graph.inputs[axis.input]
            position = graph.tensors[given].roles.index(axis.role)
            order = list(graph.inputs.values()).index(given)
            every = list(local(graph, fields, source))
            for value, along, field in rng.sample(every, min(3, len(every))):
                size = graph.tensors[value].shape[along]
                for output in sorted({0, size // 2, size - 1}):
                    span = cut(field.at(output), axis.extent)
                    found = seen(values[value], inputs[order], position, (along, output))
                    where = f"{number}: {graph.value_name(value)}, position {output} of {size}"
                    compared += 1
                    if found is not None:
                        assert span is not None, where
                        assert span[0] <= found[0] <= found[1] <= span[1], where
                    touched = padded.get((value, source), [True] * size)
                    if len(touched) == size and not touched[output]:
                        assert found == span, where
                        full += 1
    assert compared > 100
    assert full > 50
