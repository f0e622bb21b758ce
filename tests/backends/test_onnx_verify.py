"""The proof: it passes for models that are right, and says what is wrong with the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import cnnspec
from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.verify import Verification, VerificationFailure, verify
from cnnspec.backends.onnx.verify.difference import first_choices, measured
from cnnspec.backends.onnx.verify.running import DISTRIBUTIONS, Trial
from cnnspec.ir import Graph
from cnnspec.ops.activations import LeakyReLU, Tanh
from cnnspec.ops.adaptive_avg_pool import AdaptiveAvgPool2d
from cnnspec.ops.adaptive_max_pool import AdaptiveMaxPool1d
from cnnspec.ops.avg_pool import AvgPool2d
from cnnspec.ops.batch_norm import BatchNorm2d
from cnnspec.ops.conv import Conv2d
from cnnspec.ops.flatten import Flatten
from cnnspec.ops.identity import Identity
from cnnspec.ops.joins import ConcatChannels, Sub
from cnnspec.ops.linear import Linear
from cnnspec.ops.max_pool import MaxPool1d
from cnnspec.ops.padding import ZeroPad1d
from cnnspec.ops.softmax import Softmax
from cnnspec.report.proof import proof_lines
from cnnspec.report.styled import as_plain
from cnnspec.tensor import Role, Tensor
from tests.backends.onnx_networks import Drop, Flat, Halves, Leaky, Sum, image, made, torch_of
from tests.ops.harness import Interpreted, Network, arrays


def network() -> Graph:
    """Five layers, one convolution used twice, two outputs."""
    wide = made(Conv2d, out_channels=4, kernel_size=3, padding=1)
    net = Network(image=image(4, 6, 6))
    first = net.add("first", wide, 0)
    second = net.add("second", wide, net.add("act", made(Leaky), first))
    again = net.add("again", wide, net.add("drop", made(Drop), second), share=0)
    halves = net.add("halves", made(Halves), again)
    net.output("flat", net.add("flat", made(Flat), net.add("sum", made(Sum), halves, halves + 1)))
    net.output("map", second)
    return net.graph()


def proved(model: onnx.ModelProto, graph: Graph, module: Interpreted) -> Verification:
    return verify(model.SerializeToString(), graph, module)


def right() -> tuple[Graph, Interpreted, onnx.ModelProto]:
    graph = network()
    module = torch_of(graph)
    return graph, module, to_model(graph, arrays(module))


def scale(model: onnx.ModelProto, name: str, factor: float) -> None:
    """Change one weight of a model."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * factor, name))


def test_a_right_model_passes_at_both_levels_and_batches() -> None:
    graph, module, model = right()
    result = proved(model, graph, module)
    assert result.close
    assert result.opset == 18
    assert [(each.output, each.batch, each.optimised) for each in result.comparisons] == [
        (output, batch, optimised)
        for optimised in (False, True)
        for batch in (1, 3)
        for output in ("flat", "map")
    ]
    assert result.worst.difference == max(each.difference for each in result.comparisons)


def test_a_fixed_batch_is_proved_at_that_size() -> None:
    graph = network()
    module = torch_of(graph)
    result = proved(to_model(graph, arrays(module), batch=2), graph, module)
    assert {each.batch for each in result.comparisons} == {2}


def test_modes_of_the_module_are_put_back() -> None:
    graph, module, model = right()
    module.train()
    module.get_submodule("drop").eval()
    proved(model, graph, module)
    assert module.training
    assert not module.get_submodule("drop").training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("weight", "culprit"), [("first.weight", "first"), ("second.bias", "second")]
)
def test_the_first_layer_that_differs_is_named(weight: str, culprit: str) -> None:
    graph, module, model = right()
    scale(model, weight, 1.01)
    with pytest.raises(VerificationFailure, match=f"`{culprit}`") as failure:
        proved(model, graph, module)
    assert failure.value.path == culprit


def test_one_use_of_a_shared_layer_is_told_from_the_other() -> None:
    graph, module, model = right()
    node = next(node for node in model.graph.node if node.name == "again")
    node.input[1] = "second.weight"
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.path == "again"
    assert "output `flat`" in failure.value.message


def test_a_small_difference_is_reported_and_not_refused() -> None:
    graph, module, model = right()
    scale(model, "second.weight", 1 + 5e-5)
    result = proved(model, graph, module)
    assert not result.close
    assert 1e-5 < result.worst.difference < 1e-4


def test_what_is_not_a_number_fails() -> None:
    graph, module, model = right()
    scale(model, "first.bias", float("nan"))
    with pytest.raises(VerificationFailure, match="`first`"):
        proved(model, graph, module)


def test_a_shape_that_is_not_the_analysed_one_fails() -> None:
    graph, module, model = right()
    node = next(node for node in model.graph.node if node.name == "first")
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.CopyFrom(helper.make_attribute("pads", [0, 0, 0, 0]))
    with pytest.raises(VerificationFailure, match="`first` is 4x6x6 in the analysis and 4x4x4"):
        proved(model, graph, module)


def test_what_is_no_valid_onnx_fails() -> None:
    graph, module, model = right()
    model.graph.node[0].op_type = "Convolute"
    with pytest.raises(VerificationFailure, match="not valid ONNX"):
        proved(model, graph, module)


# ------------------------------------------------------------------------- what the runtime refuses


def padded_pool() -> tuple[Graph, Interpreted, onnx.ModelProto]:
    """Zeros around a sequence, as wide as the windows of the pooling behind them."""
    net = Network(signal=Tensor((2, 5), (Role.CHANNEL, Role.LENGTH)))
    padded = net.add("block.pad", made(ZeroPad1d, padding=2), 0)
    net.output("highest", net.add("block.pool", made(MaxPool1d, kernel_size=2), padded))
    graph = net.graph()
    module = Interpreted(graph).eval()
    return graph, module, to_model(graph, arrays(module))


def test_what_the_runtime_does_not_load_fails_at_the_layer(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Zeros in the plain form go to the pooling, whose padding may not be as wide as a window."""
    graph, module, model = padded_pool()
    assert proved(model, graph, module).close
    pad = next(node for node in model.graph.node if node.op_type == "Pad")
    del pad.input[2:]
    sides = next(each for each in model.graph.initializer if each.name == pad.input[1])
    sides.CopyFrom(numpy_helper.from_array(np.array([0, 0, 2, 0, 0, 2]), sides.name))
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.message == (
        "ONNX Runtime refuses the model at `block.pool`, with optimisations: "
        "Pad should be smaller than kernel"
    )
    assert failure.value.path == "block.pool"
    assert capfd.readouterr().err == ""


def test_what_the_runtime_cannot_run_fails_at_the_layer() -> None:
    """An index beyond the axis is found when the model runs."""
    net = Network(signal=Tensor((2, 7), (Role.CHANNEL, Role.LENGTH)))
    act = net.add("act", made(Leaky), 0)
    pooled = net.add("pooled", made(AdaptiveMaxPool1d, output_size=4), act)
    net.output("last", net.add("last", made(Leaky), pooled))
    graph = net.graph()
    module = Interpreted(graph).eval()
    model = to_model(graph, arrays(module))
    gather = next(node for node in model.graph.node if node.op_type == "Gather")
    places = next(each for each in model.graph.initializer if each.name == gather.input[1])
    far = np.full(tuple(places.dims), 99)
    places.CopyFrom(numpy_helper.from_array(far, places.name))
    with pytest.raises(VerificationFailure, match="at `pooled`, without optimisations") as failure:
        proved(model, graph, module)
    assert failure.value.path == "pooled"
    assert "[ONNXRuntimeError]" not in failure.value.message


# --------------------------------------------------------------------------------------- sabotage


def classifier() -> Graph:
    """Layers that are modules and layers that are none, a norm that folds, and scores at the end.

    The average and the softmax show little of what goes wrong before them.
    """
    net = Network(image=image(3, 9, 9))
    stem = net.add("stem", made(Conv2d, out_channels=6, kernel_size=3, padding=1), 0)
    act = net.add("act", made(Tanh), net.add("norm", made(BatchNorm2d), stem))
    left = net.add("left", made(Conv2d, out_channels=6, kernel_size=3, padding=1), act)
    right = net.add("right", made(Conv2d, out_channels=6, kernel_size=3, padding=1), act)
    gap = net.add("gap", made(Sub), left, right)
    both = net.add("both", made(ConcatChannels), gap, act)
    leaky = net.add("leaky", made(LeakyReLU, negative_slope=0.2), both)
    pool = net.add("pool", made(AvgPool2d, kernel_size=3, padding=1), leaky)
    mean = net.add("mean", made(AdaptiveAvgPool2d, output_size=1), pool)
    fc = net.add("fc", made(Linear, out_features=5), net.add("flat", made(Flatten), mean))
    net.output("scores", net.add("scores", made(Softmax, dim=1), fc))
    return net.graph()


def sound(graph: Graph, **options: Any) -> tuple[Interpreted, onnx.ModelProto]:
    module = torch_of(graph).eval()
    return module, to_model(graph, arrays(module), **options)


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def attribute(model: onnx.ModelProto, node: str, name: str, value: object) -> None:
    """Set an attribute that is there or not."""
    body = node_of(model, node)
    kept = [each for each in body.attribute if each.name != name]
    del body.attribute[:]
    body.attribute.extend([*kept, helper.make_attribute(name, value)])


def one_weight(model: onnx.ModelProto, name: str, value: float) -> None:
    """Set the first number of a weight."""
    tensor = next(each for each in model.graph.initializer if each.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, name))


def swap_inputs(model: onnx.ModelProto, name: str) -> None:
    node = node_of(model, name)
    node.input[:] = reversed(node.input)


def drop(model: onnx.ModelProto, name: str) -> None:
    """Take a node out; what read it reads what it read."""
    node = node_of(model, name)
    for other in model.graph.node:
        other.input[:] = [node.input[0] if i == node.output[0] else i for i in other.input]
    model.graph.node.remove(node)


def declare(model: onnx.ModelProto, *sizes: int | str) -> None:
    output = model.graph.output[0]
    kind = onnx.TensorProto.FLOAT
    output.CopyFrom(helper.make_tensor_value_info(output.name, kind, sizes))


SABOTAGE: Mapping[str, tuple[Callable[[onnx.ModelProto], object], str | None]] = {
    "one weight": (lambda model: one_weight(model, "left.weight", 9.0), "left"),
    "one weight of what a norm folded into": (
        lambda model: one_weight(model, "stem.weight", 9.0),
        "stem",
    ),
    "one bias": (lambda model: one_weight(model, "fc.bias", 0.5), "fc"),
    "not a number": (lambda model: one_weight(model, "right.weight", float("nan")), "right"),
    "infinite": (lambda model: one_weight(model, "right.bias", inf), "right"),
    "pads": (lambda model: attribute(model, "left", "pads", [0, 0, 2, 2]), "left"),
    "pads and shape": (lambda model: attribute(model, "left", "pads", [0, 0, 0, 0]), "left"),
    "slope": (lambda model: attribute(model, "leaky", "alpha", 0.21), "leaky"),
    "what an average counts": (
        lambda model: attribute(model, "pool", "count_include_pad", 0),
        "pool",
    ),
    "operator": (lambda model: setattr(node_of(model, "act"), "op_type", "Sigmoid"), "act"),
    "order of a difference": (lambda model: swap_inputs(model, "gap"), "gap"),
    "order of a concatenation": (lambda model: swap_inputs(model, "both"), "both"),
    "axis of a softmax": (lambda model: attribute(model, "scores", "axis", 0), "scores"),
    "node": (lambda model: drop(model, "leaky"), "pool"),
    "shape of the output": (lambda model: declare(model, "batch", 6), "scores"),
    "batch of the output": (lambda model: declare(model, 3, 5), "scores"),
    "name of the output": (
        lambda model: setattr(model.graph.output[0], "name", "leaky"),
        None,
    ),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_sabotage_is_found_and_the_layer_named(what: str) -> None:
    graph = classifier()
    module, model = sound(graph)
    damage, culprit = SABOTAGE[what]
    damage(model)
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.path == culprit
    assert culprit is None or f"`{culprit}`" in failure.value.message


def test_layers_without_a_tensor_in_the_file_are_told() -> None:
    graph = classifier()
    module, model = sound(graph)
    drop(model, "leaky")
    with pytest.raises(VerificationFailure, match=r"`pool` \(together with `leaky`\)"):
        proved(model, graph, module)


@pytest.mark.parametrize("fold", [True, False])
def test_every_layer_of_the_file_is_compared(fold: bool) -> None:
    graph = classifier()
    module, model = sound(graph, fold=fold)
    result = proved(model, graph, module)
    assert [(each.path, each.along) for each in result.layers] == [
        *([("stem", ("norm",))] if fold else [("stem", ()), ("norm", ())]),
        *((path, ()) for path in "act left right gap both leaky pool mean flat fc scores".split()),
    ]
    assert result.shapes.equal == len(result.layers)
    assert result.shapes.partial == 0
    assert result.worst_layer is not None
    assert result.worst_layer.difference < 1e-5


def test_what_an_average_hides_is_found() -> None:
    """A bias that is off by a thousandth, behind it an average and a softmax: outputs agree."""
    graph = classifier()
    module, model = sound(graph)
    bias = module.get_parameter("left.bias").detach().numpy()
    one_weight(model, "left.bias", float(bias[0] + 1e-4))
    data = model.SerializeToString()
    quick = verify(data, graph, module)
    assert quick.close
    assert quick.worst_layer is not None
    assert quick.worst_layer.path == "left"
    assert "layer `left` alone differs by" in quick.remarks[0]
    with pytest.raises(VerificationFailure, match="too little for the outputs") as failure:
        verify(data, graph, module, thorough="full")
    assert failure.value.path == "left"


def test_a_last_layer_that_is_only_a_name_is_not_to_blame() -> None:
    """The output's name belongs to the convolution, behind which stands an identity."""
    net = Network(image=image(3, 6, 6))
    conv = net.add("conv", made(Conv2d, out_channels=4, kernel_size=3), 0)
    net.output("map", net.add("same", made(Identity), conv))
    graph = net.graph()
    module, model = sound(graph)
    one_weight(model, "conv.weight", 3.0)
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.path == "conv"


def other_module() -> tuple[Graph, Interpreted]:
    """A module with the network's weights that pads otherwise, which no weight shows."""
    graph = classifier()
    module = torch_of(graph)
    left = module.get_submodule("left")
    assert isinstance(left, nn.Conv2d)
    left.padding_mode = "circular"
    return graph, module


def test_a_module_that_is_another_network_is_told_from_a_wrong_layer() -> None:
    graph, module = other_module()
    model = to_model(graph, arrays(module))
    with pytest.raises(VerificationFailure, match="every layer by itself is equal") as failure:
        proved(model, graph, module)
    assert failure.value.path is None


SPEC = """\
cnnspec: 1
name: net
inputs: {image: [3, 9, 9]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: conv
  - ReLU
  - Flatten
  - Linear: {out_features: 5}
"""


@pytest.mark.parametrize("there", [True, False])
def test_what_fails_leaves_no_file_and_keeps_the_old_one(tmp_path: Path, there: bool) -> None:
    (tmp_path / "net.yaml").write_text(SPEC)
    network = cnnspec.load(tmp_path / "net.yaml")
    module = network.to_torch()
    network.to_onnx(tmp_path / "net.onnx", module)
    old = (tmp_path / "net.onnx").read_bytes()
    if not there:
        (tmp_path / "net.onnx").unlink()
    before = sorted(os.listdir(tmp_path))
    module.get_submodule("conv").padding_mode = "circular"  # type: ignore[assignment]
    with pytest.raises(VerificationFailure):
        network.to_onnx(tmp_path / "net.onnx", module)
    assert sorted(os.listdir(tmp_path)) == before
    assert not there or (tmp_path / "net.onnx").read_bytes() == old


# ------------------------------------------------------------------------------------ thoroughness


def test_a_full_proof_tries_more() -> None:
    graph = classifier()
    module, model = sound(graph)
    said: list[str] = []
    result = verify(model.SerializeToString(), graph, module, thorough="full", progress=said.append)
    assert result.close
    assert {each.level for each in result.comparisons} == {"none", "extended", "all"}
    assert {each.reference for each in result.comparisons} == {"float32", "float64"}
    assert {each.batch for each in result.comparisons if each.inputs == "normal"} == {1, 2, 3, 7}
    assert {each.inputs for each in result.comparisons} == set(DISTRIBUTIONS)
    assert all(layer.limit == 1e-5 for layer in result.layers)
    assert result.top1 is not None
    assert result.top1.agreeing == result.top1.samples == 3 * 2 * (1 + 3 + 2 + 7 + 1 + 1 + 1)
    assert "torch in float64, batch 7" in said
    assert "ONNX Runtime with extended optimisations, batch 1, zero inputs" in said


def test_other_sizes_are_tried_where_they_are_free() -> None:
    """A flattened map that depends on the size is what a burnt-in number would give away."""
    net = Network(image=image(3, 8, 8))
    conv = net.add("conv", made(Conv2d, out_channels=4, kernel_size=3), 0)
    net.output("map", net.add("act", made(LeakyReLU), conv))
    graph = net.graph()
    module, model = sound(graph)
    for value, sizes in (
        (model.graph.input[0], (3, "H", "W")),
        (model.graph.output[0], (4, "h", "w")),
    ):
        kind = onnx.TensorProto.FLOAT
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["batch", *sizes]))
    data = model.SerializeToString()
    result = verify(data, graph, module, sizes=[{"image": (3, 11, 9)}])
    assert [each.size for each in result.comparisons] == ["", "", "3x11x9"] * 2
    assert result.shapes.equal == 2
    module.get_submodule("conv").stride = (2, 2)  # type: ignore[assignment]
    with pytest.raises(VerificationFailure, match="differs from torch altogether"):
        verify(data, graph, module, sizes=[{"image": (3, 11, 9)}])


def test_inputs_are_the_same_each_time_and_torch_draws_on() -> None:
    graph, module, model = right()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = proved(model, graph, module)
    assert torch.equal(torch.rand(3), expected)
    again = proved(model, graph, module)
    assert first.comparisons == again.comparisons
    assert first.layers == again.layers
    one, other = Trial(graph, 3, 0).feeds(), Trial(graph, 3, 1).feeds()
    assert not np.array_equal(one["image"], other["image"])


def test_what_float32_cannot_tell_is_left_to_float64() -> None:
    """A difference of nearly equal results is mostly rounding, in torch as well: nobody is wrong.

    A wrong layer is found all the same.
    """
    net = Network(image=Tensor((300,), (Role.FEATURE,)))
    one = net.add("one", made(Linear, out_features=40), 0)
    two = net.add("two", made(Linear, out_features=40), 0)
    net.output("gap", net.add("gap", made(Sub), one, two))
    graph = net.graph()
    module = torch_of(graph)
    with torch.no_grad():
        for part in ("weight", "bias"):
            nearly = module.get_parameter(f"one.{part}") * (1 + 1e-5)
            module.get_parameter(f"two.{part}").copy_(nearly)
    model = to_model(graph, arrays(module))
    result = proved(model, graph, module)
    assert result.worst.difference > 1e-4
    assert [remark.partition(":")[0] for remark in result.remarks] == [
        "output `gap` magnifies rounding"
    ]
    one_weight(model, "two.bias", 1.0)
    with pytest.raises(VerificationFailure) as failure:
        proved(model, graph, module)
    assert failure.value.path == "two"


def test_outputs_that_are_zero_prove_nothing() -> None:
    graph, module, model = right()
    for name in ("first", "second"):
        for part in ("weight", "bias"):
            scale(model, f"{name}.{part}", 0.0)
            module.get_parameter(f"{name}.{part}").data.zero_()
    result = proved(model, graph, module)
    assert result.remarks == ("output `flat` is zero throughout", "output `map` is zero throughout")
    assert result.top1 is None


def test_external_data_is_read_beside_the_file(tmp_path: Path) -> None:
    graph = classifier()
    module, model = sound(graph)
    path = tmp_path / "net.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="net.data", size_threshold=64)
    assert verify(path, graph, module).close
    data = bytearray((tmp_path / "net.data").read_bytes())
    data[:4] = np.float32(7).tobytes()
    (tmp_path / "net.data").write_bytes(data)
    with pytest.raises(VerificationFailure) as failure:
        verify(path, graph, module)
    assert failure.value.path == "stem"
    (tmp_path / "net.data").unlink()
    with pytest.raises(VerificationFailure, match="not valid ONNX"):
        verify(path, graph, module)


# ------------------------------------------------------------------------------------- measuring


def of(*values: float | int | bool, kind: type = np.float32) -> np.ndarray[Any, Any]:
    return np.array(values, kind)


@pytest.mark.parametrize(
    ("ours", "theirs", "relative"),
    [
        (of(1, 2), of(1, 2), 0.0),
        (of(1, 2), of(1, 4), 0.5),
        (of(1, 2), of(1, 4, kind=np.float64), 0.5),
        (of(0, 0), of(0, 0), 0.0),
        (of(0, 1), of(0, 0), inf),
        (of(0, 1e-35), of(0, 0), 0.0),
        (of(1, 2, 3), of(1, 2), inf),
        (of(1, inf), of(1, inf), 0.0),
        (of(1, -inf), of(1, inf), inf),
        (of(2, -inf), of(4, -inf), 0.5),
        (of(1, inf), of(1, 2), inf),
        (of(1, np.nan), of(1, np.nan), 0.0),
        (of(1, np.nan), of(1, 2), inf),
        (of(1, 2), of(1, np.nan), inf),
        (of(3, 7, kind=np.int64), of(3, 7, kind=np.int64), 0.0),
        (of(3, 6, kind=np.int64), of(3, 8, kind=np.int64), 0.25),
        (of(3, 6, kind=np.int64), of(3, 6), inf),
        (of(True, False, kind=np.bool_), of(True, False, kind=np.bool_), 0.0),
        (of(True, True, kind=np.bool_), of(True, False, kind=np.bool_), 1.0),
        (of(kind=np.float32), of(kind=np.float32), 0.0),
    ],
)
def test_differences(
    ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any], relative: float
) -> None:
    assert measured(ours, theirs).relative == relative


def test_first_choices_within_rounding_are_equal() -> None:
    theirs = np.array([[1.0, 2.0, 0.0], [1.0, 1.0 + 1e-7, 0.0], [3.0, 2.0, 0.0]])
    ours = np.array([[1.0, 2.0, 0.0], [1.0 + 1e-7, 1.0, 0.0], [2.0, 3.0, 0.0]])
    assert first_choices(ours, theirs, 1e-6) == 2


# -------------------------------------------------------------------------------------- the report


def test_the_record_is_json_and_the_same_each_time() -> None:
    graph = classifier()
    module, model = sound(graph)
    records = [proved(model, graph, module).to_json() for _ in range(2)]
    for record in records:
        assert record.pop("seconds") >= 0
    one, other = (json.dumps(record, allow_nan=False) for record in records)
    assert one == other
    record = records[0]
    assert (record["format"], record["kind"], record["verdict"]) == (1, "verification", "equal")
    assert record["top1"] == {"agreeing": 8, "samples": 8}
    assert record["layers"]["compared"] == 12
    assert len(record["comparisons"]) == 4


def test_lines_say_what_was_proved() -> None:
    graph = classifier()
    module, model = sound(graph)
    lines = as_plain(proof_lines(proved(model, graph, module).to_json())).splitlines()
    assert lines[0].startswith("verified (quick, ")
    assert "equal to torch, largest difference" in lines[0]
    rows = {line[2:].partition("  ")[0]: line for line in lines[1:]}
    assert list(rows) == [
        "checker",
        "shapes",
        "no optimisations",
        "all optimisations",
        "layers",
        "first choices",
    ]
    assert rows["shapes"].endswith("12 tensors as analysed")
    assert rows["all optimisations"].endswith("of float32; batch 1 and 3")
    assert "12 by themselves, batch 3" in rows["layers"]
    assert rows["first choices"].endswith("8 of 8")
