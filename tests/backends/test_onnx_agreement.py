"""Agreement of models in fewer bits: near ones pass with figures, nonsense is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.precision import quantize, to_half
from cnnspec.backends.onnx.verify import VerificationFailure, agree
from cnnspec.backends.onnx.verify.difference import AnyArray
from cnnspec.ir import Graph
from cnnspec.ops.activations import ReLU
from cnnspec.ops.adaptive_avg_pool import AdaptiveAvgPool2d
from cnnspec.ops.batch_norm import BatchNorm2d
from cnnspec.ops.conv import Conv2d
from cnnspec.ops.flatten import Flatten
from cnnspec.ops.linear import Linear
from cnnspec.report.proof import proof_lines
from cnnspec.report.styled import as_plain
from tests.backends.onnx_networks import Network, image, made, torch_of
from tests.ops.harness import Interpreted, arrays


def network() -> Graph:
    """A small classifier."""
    net = Network(image=image(3, 12, 12))
    one = net.add("one", made(Conv2d, out_channels=8, kernel_size=3, padding=1), 0)
    act = net.add("act", made(ReLU), net.add("norm", made(BatchNorm2d), one))
    two = net.add("two", made(Conv2d, out_channels=8, kernel_size=3, stride=2), act)
    mean = net.add("mean", made(AdaptiveAvgPool2d, output_size=1), net.add("also", made(ReLU), two))
    flat = net.add("flat", made(Flatten), mean)
    net.output("scores", net.add("scores", made(Linear, out_features=6), flat))
    return net.graph()


def samples(count: int = 4, batch: int = 8) -> Iterator[dict[str, AnyArray]]:
    """Inputs that differ in more than noise, so that scores do."""
    random = np.random.default_rng(3)
    for _ in range(count):
        level = random.standard_normal((batch, 3, 1, 1))
        noise = random.standard_normal((batch, 3, 12, 12))
        yield {"image": (2 * level + noise).astype(np.float32)}


@pytest.fixture
def sound() -> tuple[Graph, Interpreted, onnx.ModelProto]:
    graph = network()
    module = torch_of(graph).eval()
    return graph, module, to_model(graph, arrays(module))


Sound = tuple[Graph, Interpreted, onnx.ModelProto]


def change(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Multiply a weight of any type."""
    tensor = next(each for each in model.graph.initializer if each.name.startswith(name))
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), tensor.name))


def test_half_precision_is_near(sound: Sound) -> None:
    graph, module, model = sound
    half = to_half(model).model
    result = agree(half.SerializeToString(), graph, module, precision="float16")
    assert result.near
    assert result.samples == 8
    (scores,) = result.outputs
    assert 1e-5 < scores.difference < 1e-2
    assert scores.top1 is not None
    assert scores.top1.samples == 8


def test_int8_is_judged_by_its_noise_and_first_choices(sound: Sound) -> None:
    graph, module, model = sound
    small = quantize(model, graph, samples()).model
    said: list[str] = []
    result = agree(
        small.SerializeToString(),
        graph,
        module,
        precision="int8",
        samples=samples(),
        progress=said.append,
    )
    (scores,) = result.outputs
    assert result.samples == 32
    assert scores.decibels > 20
    assert scores.top1 is not None
    assert scores.top1.agreeing > 28
    assert "int8 against float32, 32 samples" in said


def test_what_float16_cannot_hold_is_found_at_its_layer(sound: Sound) -> None:
    """A tensor beyond 65504: ONNX Runtime's CPU computes it in float32 and would not notice."""
    graph, module, _ = sound
    with torch.no_grad():
        module.get_parameter("one.weight").mul_(6e4)
        module.get_parameter("two.weight").mul_(1e-4)
        module.get_buffer("norm.running_var").fill_(1.0)
    model = to_model(graph, arrays(module), fold=False)
    half = to_half(model).model
    with pytest.raises(VerificationFailure, match="not finite") as failure:
        agree(half.SerializeToString(), graph, module, precision="float16")
    assert failure.value.path == "one"
    assert failure.value.help == "keep that layer in float32"


@pytest.mark.parametrize(
    ("factor", "reason"),
    [(1.2, "differs by"), (0.0, "the same for every input"), (-1.0, "differs by")],
)
def test_a_wrong_weight_in_half_precision_is_refused(
    sound: Sound, factor: float, reason: str
) -> None:
    graph, module, model = sound
    half = to_half(model).model
    change(half, "two.weight", factor)
    with pytest.raises(VerificationFailure, match=reason) as failure:
        agree(half.SerializeToString(), graph, module, precision="float16", samples=samples(1))
    assert failure.value.path == "two"


def test_int8_noise_is_refused(sound: Sound) -> None:
    graph, module, model = sound
    small = quantize(model, graph, samples()).model
    change(small, "scores.weight", -1.0)
    with pytest.raises(VerificationFailure, match="dB of signal to noise") as failure:
        agree(small.SerializeToString(), graph, module, precision="int8", samples=samples())
    assert failure.value.path == "scores"


def test_results_that_never_change_are_refused(sound: Sound) -> None:
    graph, module, model = sound
    for name in ("scores.weight", "scores.bias"):
        change(model, name, 0.0)
    with pytest.raises(VerificationFailure, match="the same for every input"):
        agree(model.SerializeToString(), graph, module, precision="int8", samples=samples())


def test_first_choices_that_are_lost_are_refused(sound: Sound) -> None:
    """A common offset makes the ratio good although nothing of the scores is left."""
    graph, module, model = sound
    with torch.no_grad():
        module.get_parameter("scores.bias").fill_(30.0)
        module.get_parameter("scores.weight").mul_(3)
    weights = arrays(module)
    weights["scores.weight"] = weights["scores.weight"][::-1].copy()
    model = to_model(graph, weights)
    with pytest.raises(VerificationFailure, match="torch's first choice for"):
        agree(model.SerializeToString(), graph, module, precision="int8", samples=samples())


def test_no_samples_are_told(sound: Sound) -> None:
    graph, module, model = sound
    with pytest.raises(VerificationFailure, match="there are no samples"):
        agree(model.SerializeToString(), graph, module, precision="int8", samples=())


def test_the_record_and_its_lines(sound: Sound) -> None:
    graph, module, model = sound
    small = quantize(model, graph, samples()).model
    result = agree(
        small.SerializeToString(), graph, module, precision="int8", samples=samples(1, 4)
    )
    record = result.to_json()
    json.dumps(record, allow_nan=False)
    assert (record["format"], record["kind"], record["verdict"]) == (1, "agreement", "near")
    lines = as_plain(proof_lines(record)).splitlines()
    assert lines[0].startswith("compared (int8, ")
    assert lines[0].endswith("near to float32, 4 samples")
    assert "dB signal to noise" in lines[3]
    assert "first choice kept for" in lines[3]
    assert "too few to judge by" in lines[4]
