"""8 bits: near the original, on integer kernels, with its names; what stays float32, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, checker, numpy_helper

from cnnspec.api import load
from cnnspec.backends.onnx.precision import quantize
from cnnspec.backends.onnx.precision.calibration import Method, ranges
from cnnspec.backends.onnx.session import newest_opset
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from tests.backends.precision_networks import (
    NETWORKS,
    attentive,
    decibels,
    excited,
    inputs_of,
    model_of,
    plain,
    residual,
    run,
    shared,
    stable_bytes,
    upsampled,
)
from tests.ops.harness import Case, alone, cases

SPECS = Path(__file__).parents[2] / "specs"


def samples_of(graph: Graph, count: int = 4) -> list[dict[str, NDArray[np.float32]]]:
    """Calibration inputs of several batch sizes."""
    return [inputs_of(graph, 1 + number % 3 * 4, 100 + number) for number in range(count)]


def optimised(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs in the end."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = onnx.load(folder / "optimised.onnx")
    return Counter(node.op_type for node in found.graph.node)


def stored(model: onnx.ModelProto) -> Mapping[str, NDArray[Any]]:
    """Initializers by name."""
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("opset", [13, 18, newest_opset()])
def test_networks(name: str, opset: int) -> None:
    """Well-formed and near, however optimised, at batch sizes that calibration did not see."""
    graph = NETWORKS[name]()
    model = model_of(graph, opset)
    before = stable_bytes(model)
    found = quantize(model, graph, samples_of(graph))
    assert stable_bytes(model) == before, "the given model was changed"
    checker.check_model(found.model, full_check=True)
    for batch in (1, 3):
        feeds = inputs_of(graph, batch, 7)
        (reference,) = run(model, feeds)
        for optimise in (False, True):
            (result,) = run(found.model, feeds, optimise=optimise)
            assert decibels(reference, result) > 20


@pytest.mark.parametrize("case", [case for case in cases() if not case.number], ids=str)
def test_operations(case: Case) -> None:
    """Whatever an operation becomes has a form in 8 bits, or stays."""
    op, site = case.bound()
    graph = alone(op, site.inputs)
    model = model_of(graph, fold=False)
    feeds = inputs_of(graph, 2, 1)
    found = quantize(model, graph, [feeds]).model
    checker.check_model(found, full_check=True)
    for reference, result in zip(run(model, feeds), run(found, feeds, optimise=True), strict=True):
        assert np.allclose(reference, result, rtol=1e-4, atol=1e-5) or (
            decibels(reference, result) > 25
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_names_and_bytes(name: str) -> None:
    """The same bytes twice; names of before are still there, new ones say whose they are."""
    graph = NETWORKS[name]()
    model = model_of(graph)
    found = quantize(model, graph, samples_of(graph)).model
    assert stable_bytes(quantize(model, graph, samples_of(graph)).model) == stable_bytes(found)
    new = ("QuantizeLinear", "DequantizeLinear")
    assert [n.name for n in found.graph.node if n.op_type not in new] == [
        n.name for n in model.graph.node
    ]
    assert len({n.name for n in found.graph.node}) == len(found.graph.node)
    there = {output for n in found.graph.node for output in n.output} | set(stored(found))
    assert there >= {output for n in model.graph.node for output in n.output}
    split = {"conv.bias"} if name == "shared" else set()  # on the scale of each use
    assert there >= set(stored(model)) - split
    layers = {n.name.partition("/")[0] for n in model.graph.node} | {"image"}
    assert {n.name.partition("/")[0] for n in found.graph.node} <= layers
    assert list(found.graph.input) == list(model.graph.input)
    assert list(found.graph.output) == list(model.graph.output)
    read = {name for n in found.graph.node for name in n.input}
    assert set(stored(found)) <= read


def test_integer_kernels(tmp_path: Path) -> None:
    """Nothing is left to run in float32, nor converted on the way."""
    graph = plain()
    found = quantize(model_of(graph), graph, samples_of(graph))
    assert found.kept == ()
    assert optimised(found.model, tmp_path) == {
        "QuantizeLinear": 1, "Transpose": 2, "QLinearConv": 3, "NhwcMaxPool": 1,
        "QLinearLeakyRelu": 1, "QLinearAveragePool": 1, "Flatten": 1, "QGemm": 2,
    }  # fmt: skip


def test_branches_run_on_integers(tmp_path: Path) -> None:
    graph = residual()
    found = quantize(model_of(graph), graph, samples_of(graph))
    assert found.kept == ()
    kernels = optimised(found.model, tmp_path)
    assert (kernels["QLinearAdd"], kernels["QLinearConcat"], kernels["QLinearConv"]) == (1, 1, 5)
    assert (kernels["Conv"], kernels["Add"], kernels["Concat"], kernels["Relu"]) == (0, 0, 0, 0)
    assert kernels["QuantizeLinear"] == 1


@pytest.mark.parametrize(
    ("network", "kept"),
    [
        (
            excited,
            {
                "stem_act": "`Hardswish`",
                "gate": "what reads it is float32",
                "scale": "what it reads is float32",
                "act": "`SiLU`",
            },
        ),
        (
            upsampled,
            {
                "up": "`ConvTranspose2d`",
                "linear": "of this Resize",
                "head": "an output of the network",
            },
        ),
        (
            attentive,
            {
                "norm1": "`LayerNorm`",
                "attention": "but for its products with weights",
                "sum1": "reads is float32",
                "norm2": "`LayerNorm`",
                "act": "`GELU`",
                "sum2": "reads",
                "shares": "of this Softmax",
            },
        ),
    ],
)
def test_what_stays(network: Any, kept: Mapping[str, str]) -> None:
    graph = network()
    found = quantize(model_of(graph), graph, samples_of(graph))
    told = {each.path: each.reason for each in found.kept}
    assert list(told) == list(kept)
    for path, reason in kept.items():
        assert reason in told[path]


def test_layers_asked_for_stay() -> None:
    graph = plain()
    model = model_of(graph)
    found = quantize(model, graph, samples_of(graph), keep=["conv1", "fc2"])
    assert [(each.path, each.reason) for each in found.kept] == [
        ("conv1", "it was asked for"),
        ("fc2", "it was asked for"),
    ]
    arrays, before = stored(found.model), stored(model)
    for name in ("conv1.weight", "conv1.bias", "fc2.weight"):
        np.testing.assert_array_equal(arrays[name], before[name])


def test_weights_by_channel() -> None:
    """int8 with a scale for each output channel, within half a step of what they were."""
    graph = plain()
    model = model_of(graph)
    arrays, before = stored(quantize(model, graph, samples_of(graph)).model), stored(model)
    integers, scale = arrays["conv1.weight/quantized"], arrays["conv1.weight/scale"]
    assert (integers.dtype, scale.shape) == (np.int8, (16,))
    assert not arrays["conv1.weight/zero_point"].any()
    assert (np.abs(integers).reshape(16, -1).max(axis=1) >= 63).all()
    back = integers * scale.reshape(16, 1, 1, 1)
    assert (np.abs(back - before["conv1.weight"]) <= scale.reshape(16, 1, 1, 1) * 0.501).all()
    bias = arrays["conv1.bias/quantized"] * arrays["conv1.bias/scale"]
    step = arrays["conv1.bias/scale"]
    assert (np.abs(bias - before["conv1.bias"]) <= 0.501 * step + 1e-7).all()


def test_sums_of_two_products_fit_in_16_bits() -> None:
    """Processors without VNNI add two products in 16 bits, whichever two those are."""
    graph = residual()
    arrays = stored(quantize(model_of(graph), graph, samples_of(graph)).model)
    weights = [value for value in arrays.values() if value.dtype == np.int8 and value.ndim > 1]
    assert weights
    for value in weights:
        rows = value.reshape(len(value), -1).astype(int)
        for signed in (rows, -rows):
            two = np.sort(np.maximum(signed, 0), axis=1)[:, -2:].sum(axis=1)
            assert (two * 255 <= 32767).all()
            assert (np.abs(rows).max(axis=1) > 60).all()
    symmetric = stored(quantize(model_of(graph), graph, samples_of(graph), target="tensorrt").model)
    largest = max(int(np.abs(v).max()) for k, v in symmetric.items() if k.endswith("/quantized"))
    assert largest == 127


def test_ranges_of_activations() -> None:
    """Behind a ReLU all steps are above 0; what only moves elements keeps its scale."""
    graph = plain()
    found = quantize(model_of(graph), graph, samples_of(graph)).model
    arrays = stored(found)
    assert arrays["relu1/zero_point"].dtype == np.uint8
    assert arrays["relu1/zero_point"] == 0
    assert arrays["image/zero_point"] > 100
    assert arrays["relu2/scale"] * 255 <= 6
    by_name = {n.name: n for n in found.graph.node}
    assert by_name["pool1/quantized"].input[1] == "relu1/scale"
    assert "conv1/quantized" not in by_name


def test_symmetric_form() -> None:
    """TensorRT's: int8 without zero points, biases as they were."""
    graph = residual()
    model = model_of(graph)
    found = quantize(model, graph, samples_of(graph), target="tensorrt").model
    checker.check_model(found, full_check=True)
    arrays = stored(found)
    points = [value for name, value in arrays.items() if name.endswith("zero_point")]
    assert points
    assert all(point.dtype == np.int8 and not point.any() for point in points)
    assert {value.dtype for name, value in arrays.items() if name.endswith("bias")} == {
        np.dtype(np.float32)
    }
    feeds = inputs_of(graph, 2, 5)
    assert decibels(run(model, feeds)[0], run(found, feeds)[0]) > 20


def test_shared_weights_are_stored_once() -> None:
    """Their bias is not: its scale is that of what it is added to."""
    graph = shared()
    arrays = stored(quantize(model_of(graph), graph, samples_of(graph)).model)
    assert [name for name in arrays if name.startswith("conv.weight/quantized")] == [
        "conv.weight/quantized"
    ]
    biases = [name for name in arrays if name.endswith("bias/quantized")]
    assert sorted(biases) == [
        "again/bias/quantized", "conv/bias/quantized", "fc.bias/quantized", "last/bias/quantized",
    ]  # fmt: skip


def test_dead_channels_keep_their_bias() -> None:
    """A channel without weights gives its bias, which int32 on a tiny scale could not hold."""
    graph = plain()
    model = model_of(graph)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "conv1.weight":
            array[3], array[4] = 0, 1e-30
        elif tensor.name == "conv1.bias":
            array[3], array[4] = 5, -5
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    arrays = stored(quantize(model, graph, samples_of(graph)).model)
    bias = arrays["conv1.bias/quantized"] * arrays["conv1.bias/scale"]
    np.testing.assert_allclose(bias[3:5], [5, -5], rtol=1e-4)
    assert np.isfinite(arrays["conv1.weight/scale"]).all()


def test_progress_and_a_generator() -> None:
    """Samples are read once, and each is told."""
    graph = plain()
    told: list[int] = []
    quantize(model_of(graph), graph, iter(samples_of(graph)), progress=told.append)
    assert told == [1, 2, 3, 4]


def test_no_samples() -> None:
    graph = plain()
    with pytest.raises(EnvironmentFailure, match="nothing to calibrate with"):
        quantize(model_of(graph), graph, [])


def test_samples_that_are_not_finite() -> None:
    graph = plain()
    feeds = inputs_of(graph, 1, 0)
    feeds["image"][0, 0, 0, 0] = np.nan
    with pytest.raises(EnvironmentFailure, match="not finite"):
        quantize(model_of(graph), graph, [feeds])


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    graph = plain()
    quantize(model_of(graph), graph, samples_of(graph))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spec", "size", "least"),
    [("lenet5", (1, 32, 32), 35), ("resnet:resnet18", (3, 64, 64), 25)],
)
def test_specs(spec: str, size: tuple[int, ...], least: float) -> None:
    """Real networks, with batch norm folded."""
    name, _, variant = spec.partition(":")
    graph = load(SPECS / f"{name}.yaml", variant=variant or None).with_inputs(image=size).graph
    model = model_of(graph)
    found = quantize(model, graph, samples_of(graph, 2)).model
    assert found.ByteSize() < 0.6 * model.ByteSize()
    feeds = inputs_of(graph, 4, 9)
    (reference,), (result,) = run(model, feeds), run(found, feeds, optimise=True)
    assert decibels(reference, result) > least


# -------------------------------------------------------------------------------------- calibration


def found_for(method: Method, *values: NDArray[np.float32]) -> tuple[float, float]:
    """The range of values that reach a network's input."""
    graph = plain()
    feeds = [{"image": value.reshape(1, 3, 16, 16)} for value in values]
    return ranges(model_of(graph), ["image"], feeds, method=method)["image"]


def normal(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(768, dtype=np.float32)


def test_minmax_takes_all() -> None:
    values = normal(1), normal(2) * 3
    assert found_for("minmax", *values) == (
        min(map(np.min, values)),
        max(map(np.max, values)),
    )


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_a_lone_outlier_does_not_count(method: Method) -> None:
    values = [normal(seed) for seed in range(60)]
    values[3][5] = 20
    assert found_for("minmax", *values)[1] == 20
    low, high = found_for(method, *values)
    assert -5 < low < -1.5
    assert 1.5 < high < 6


@given(st.permutations(range(5)), st.sampled_from(["percentile", "entropy"]))
@settings(max_examples=10, deadline=None)
def test_the_order_of_samples_does_not_matter(order: list[int], method: Method) -> None:
    values = [normal(seed) * 10.0**seed for seed in range(5)]
    scaled = [value.astype(np.float32) for value in values]
    assert found_for(method, *(scaled[number] for number in order)) == found_for(method, *scaled)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_nothing_but_zeros(method: Method) -> None:
    low, high = found_for(method, np.zeros(768, np.float32))
    assert low == high == 0


def test_element_types() -> None:
    """Every new tensor has the type that its name promises."""
    graph = plain()
    model = quantize(model_of(graph), graph, samples_of(graph)).model
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    assert kinds["fc1.weight/quantized"] == TensorProto.INT8
    assert kinds["fc1.bias/quantized"] == TensorProto.INT32
    assert kinds["image/scale"] == TensorProto.FLOAT
