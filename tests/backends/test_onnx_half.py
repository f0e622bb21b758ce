"""float16: names and inputs stay, casts stand where they have to, and what does not fit stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

from cnnspec.backends.onnx.precision import advice, rounded, to_half
from cnnspec.backends.onnx.precision.types import element_types
from cnnspec.backends.onnx.session import newest_opset
from tests.backends.precision_networks import (
    NETWORKS,
    excited,
    inputs_of,
    model_of,
    plain,
    relative,
    run,
    stable_bytes,
)
from tests.ops.harness import Case, alone, cases

FLOAT, HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)


def small(*nodes: onnx.NodeProto, opset: int = 18, **constants: object) -> onnx.ModelProto:
    """A model from `x` to `y`, both 1 x 2 x 4 x 4 but for a free batch."""
    value = [helper.make_tensor_value_info(name, FLOAT, ["batch", 2, 4, 4]) for name in "xy"]
    arrays = [
        numpy_helper.from_array(np.asarray(array, np.float32), name)
        for name, array in constants.items()
    ]
    body = helper.make_graph(list(nodes), "small", value[:1], value[1:], arrays)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(op: str, inputs: str, output: str, name: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=name or output, **attributes)


def ones(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


FEEDS = {"x": np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 2, 4, 4)}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("opset", [13, 18, newest_opset()])
def test_networks(name: str, opset: int) -> None:
    """Well-formed, near the original when every tensor is rounded, at several opsets."""
    graph = NETWORKS[name]()
    model = model_of(graph, opset)
    before = stable_bytes(model)
    found = to_half(model)
    assert stable_bytes(model) == before, "the given model was changed"
    checker.check_model(found.model, full_check=True)
    assert stable_bytes(to_half(model).model) == stable_bytes(found.model)
    for batch in (1, 3):
        feeds = inputs_of(graph, batch, 7)
        (reference,) = run(model, feeds)
        for result in (
            run(rounded(found.model), feeds)[0],
            run(found.model, feeds, optimise=True)[0],
        ):
            assert result.dtype == np.float32
            assert relative(reference, result) < 4e-3


@pytest.mark.parametrize("case", [case for case in cases() if not case.number], ids=str)
def test_operations(case: Case) -> None:
    """Whatever an operation becomes has a form in float16, or stays."""
    op, site = case.bound()
    graph = alone(op, site.inputs)
    model = model_of(graph, fold=False)
    found = to_half(model)
    checker.check_model(found.model, full_check=True)
    feeds = inputs_of(graph, 2, 1)
    for reference, result in zip(run(model, feeds), run(rounded(found.model), feeds), strict=True):
        near = np.abs(reference - result) <= 5e-3 * np.abs(reference).max()
        assert near.mean() > 0.98  # what jumps may jump elsewhere
    run(to_half(model, keep_io=False).model, {k: v.astype(np.float16) for k, v in feeds.items()})


@pytest.mark.parametrize("name", NETWORKS)
def test_names(name: str) -> None:
    """Nodes and tensors keep their names, new ones say whose they are."""
    model = model_of(NETWORKS[name]())
    found = to_half(model).model
    assert [n.name for n in found.graph.node if n.op_type != "Cast"] == [
        n.name for n in model.graph.node
    ]
    stored = [i.name for i in model.graph.initializer]
    assert sorted(i.name for i in found.graph.initializer) == sorted(stored)
    written = {output for n in found.graph.node for output in n.output}
    assert written >= {output for n in model.graph.node for output in n.output}
    layers = {n.name.partition("/")[0] for n in model.graph.node} | {"image"}
    assert {n.name.partition("/")[0] for n in found.graph.node} <= layers
    assert list(found.graph.input) == list(model.graph.input)
    assert list(found.graph.output) == list(model.graph.output)
    assert not found.graph.value_info


def test_weights_take_half_the_room() -> None:
    model = model_of(plain())
    found = to_half(model)
    assert found.kept == ()
    kinds = {i.name: i.data_type for i in found.model.graph.initializer}
    assert kinds["conv1.weight"] == kinds["fc2.bias"] == HALF
    assert found.model.ByteSize() < 0.6 * model.ByteSize()
    casts = [n.name for n in found.model.graph.node if n.op_type == "Cast"]
    assert casts == ["image/float16", "fc2/logits/float16"]


def test_inputs_and_outputs_may_be_half() -> None:
    graph = plain()
    model = model_of(graph)
    found = to_half(model, keep_io=False).model
    checker.check_model(found, full_check=True)
    kinds = [v.type.tensor_type.elem_type for v in (*found.graph.input, *found.graph.output)]
    assert kinds == [HALF, HALF]
    assert not [n for n in found.graph.node if n.op_type == "Cast"]
    feeds = inputs_of(graph, 2, 3)
    (result,) = run(found, {"image": feeds["image"].astype(np.float16)})
    assert result.dtype == np.float16
    assert relative(run(model, feeds)[0], result.astype(np.float32)) < 4e-3


def test_half_outputs_of_a_layer_that_stays_float32() -> None:
    model = small(node("Relu", "x", "a"), node("Pow", "a two", "y"), two=2)
    found = to_half(model, keep_io=False)
    assert [each.path for each in found.kept] == ["y"]
    checker.check_model(found.model, full_check=True)
    (result,) = run(found.model, {"x": FEEDS["x"].astype(np.float16)})
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, np.maximum(FEEDS["x"], 0) ** 2, atol=1e-3)


@pytest.mark.parametrize(
    ("nodes", "constants", "kept", "reason"),
    [
        ((node("Conv", "x w", "y"),), {"w": ones(2, 2, 1, 1) * 7e4}, "y", "reach 7e+04"),
        ((node("Conv", "x w", "y"),), {"w": ones(2, 2, 1, 1) * 1e-9}, "y", "vanish"),
        ((node("Add", "x eps", "y"),), {"eps": 1e-12}, "y", "vanish"),
        ((node("Max", "x eps", "y"),), {"eps": ones(1) * 1e-12}, "y", "vanish"),
        ((node("Mul", "x x", "y"),), {}, "y", "squares"),
        ((node("Pow", "x two", "y"),), {"two": 2}, "y", "powers"),
        ((node("Softplus", "x", "y"),), {}, "y", "exponentials"),
        ((node("LRN", "x", "y", size=3),), {}, "y", "powers"),
    ],
)
def test_what_stays(
    nodes: tuple[onnx.NodeProto, ...], constants: dict[str, object], kept: str, reason: str
) -> None:
    """A layer that float16 does not suit is as exact as before, and told with its reason."""
    model = small(node("Identity", "x", "in"), *nodes, **constants)
    found = to_half(model)
    assert [each.path for each in found.kept] == [kept]
    assert reason in found.kept[0].reason
    checker.check_model(found.model, full_check=True)
    (reference,), (result,) = run(model, FEEDS), run(rounded(found.model), FEEDS)
    np.testing.assert_allclose(result, reference, rtol=1e-6, atol=1e-6 * np.abs(reference).max())


def test_small_biases_may_vanish() -> None:
    """What is only added and far below the sums is no reason for float32."""
    model = small(node("Conv", "x w b", "y"), w=ones(2, 2, 1, 1), b=np.full(2, 1e-9, np.float32))
    assert to_half(model).kept == ()


def test_an_overflow_is_seen() -> None:
    """Within a network; a CPU alone would compute it in float32 and see nothing."""
    steps = (
        node("Conv", "x w", "big"),
        node("Relu", "big", "positive"),
        node("Conv", "positive w", "y"),
    )
    model = small(*steps, w=ones(2, 2, 1, 1) * 300)
    feeds = {"x": FEEDS["x"] * 1000}
    blind = to_half(model)
    assert blind.kept == ()
    assert np.isfinite(run(model, feeds)[0]).all()
    assert not np.isfinite(run(rounded(blind.model), feeds)[0]).all()

    seeing = to_half(model, samples=[FEEDS, feeds])
    assert [each.path for each in seeing.kept] == ["big", "positive", "y"]
    assert "float16 ends at 65504" in seeing.kept[0].reason
    assert relative(run(model, feeds)[0], run(rounded(seeing.model), feeds)[0]) < 1e-3
    assert to_half(model, samples=[{"x": FEEDS["x"] * 0.1}]).kept == ()


def test_a_cpu_alone_sees_no_overflow() -> None:
    """Why `rounded` exists; if this fails, ONNX Runtime has learned to round."""
    model = small(
        node("Conv", "x w", "big"), node("Mul", "big tenth", "y"),
        w=ones(2, 2, 1, 1) * 300, tenth=0.01,
    )  # fmt: skip
    half = to_half(model).model
    feeds = {"x": FEEDS["x"] * 1000}
    assert np.isfinite(run(half, feeds)[0]).all()
    assert not np.isfinite(run(rounded(half), feeds)[0]).all()


def test_layers_asked_for_stay() -> None:
    graph = excited()
    found = to_half(model_of(graph), keep=["conv"])
    assert [(each.path, each.reason) for each in found.kept] == [("conv", "it was asked for")]
    types = element_types(found.model)
    assert types["conv.weight"] == FLOAT
    assert types["conv"] == FLOAT
    assert types["conv/float16"] == types["fc.weight"] == HALF


def test_a_weight_of_both_kinds() -> None:
    """Read by a layer in float16 and by one in float32, it is there twice."""
    model = small(node("Conv", "x w", "a"), node("Conv", "a w", "y"), w=ones(2, 2, 1, 1) / 3)
    found = to_half(model, keep=["y"]).model
    checker.check_model(found, full_check=True)
    assert {i.name: i.data_type for i in found.graph.initializer} == {
        "w": HALF,
        "w/float32": FLOAT,
    }


def test_what_depends_on_sizes_stays_exact() -> None:
    """Positions are computed in float32: 2049 is no float16."""
    model = small(
        node("Shape", "x", "shape"),
        node("Cast", "shape", "sizes", to=FLOAT),
        node("Mul", "sizes factor", "scaled"),
        node("Cast", "scaled", "whole", to=TensorProto.INT64),
        node("Cast", "whole", "again", to=FLOAT),
        node("ReduceProd", "again", "count", keepdims=0),
        node("Div", "x count", "y"),
        factor=2049.0,
    )
    found = to_half(model)
    assert found.kept == ()
    types = element_types(found.model)
    assert [types[name] for name in ("sizes", "factor", "scaled", "count")] == [FLOAT] * 4
    assert types["count/float16"] == HALF


def test_resize_keeps_its_scales() -> None:
    """ONNX has them in float32 only."""
    model = small(
        helper.make_node("Resize", ["x", "", "scales"], ["y"], name="y", mode="linear"),
        scales=np.array([1, 1, 1, 1], np.float32),
    )
    found = to_half(model)
    assert found.kept == ()
    assert found.model.graph.initializer[0].data_type == FLOAT
    assert relative(run(model, FEEDS)[0], run(rounded(found.model), FEEDS)[0]) < 1e-3


@pytest.mark.parametrize(
    ("precision", "flags", "machine", "said"),
    [
        ("float16", {"avx2", "f16c"}, "x86_64", "slower than float32"),
        ("float16", {"asimd", "asimdhp"}, "aarch64", "some operators only"),
        ("float16", {"asimd"}, "aarch64", "slower than float32"),
        ("float16", set(), "arm64", "not known"),
        ("int8", {"avx2"}, "AMD64", "no VNNI"),
        ("int8", {"sse4_1"}, "x86_64", "neither VNNI nor AVX2"),
        ("int8", {"avx2", "avx512_vnni"}, "x86_64", None),
        ("int8", {"avx2", "avx_vnni"}, "x86_64", None),
        ("int8", {"asimd"}, "aarch64", "no 8-bit dot products"),
        ("int8", {"asimd", "asimddp"}, "aarch64", None),
        ("int8", set(), "x86_64", "not known"),
        ("int8", {"rv64"}, "riscv64", "not known"),
    ],
)
def test_advice(precision: str, flags: set[str], machine: str, said: str | None) -> None:
    assert precision in ("float16", "int8")
    found = advice(precision, flags, machine)  # type: ignore[arg-type]
    assert found is None if said is None else said in (found or "")
