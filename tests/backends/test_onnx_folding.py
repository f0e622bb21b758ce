"""Folding of norms: what folds, what must not, and that either way it is what torch computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from cnnspec.backends.onnx.build import Options, lower, to_model
from cnnspec.backends.onnx.folding import fold
from cnnspec.backends.onnx.program import Folded, Program, program_of
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import Reject
from cnnspec.ir import Graph
from cnnspec.ops import bind, registry
from tests.backends.onnx_networks import image, torch_of
from tests.ops.harness import Interpreted, Network, arrays, sample

CLOSE = 1e-5
"""Largest difference from torch, of the largest element."""


class Build(Network):
    """A network on one input `x`, written in one line an entry."""

    def __init__(self, *shape: int) -> None:
        super().__init__(x=image(*shape))

    def put(
        self, path: str, op: str, *inputs: int, share: int | None = None, **arguments: Any
    ) -> int:
        """Add an operation by its name."""
        return self.add(path, bind(registry()[op], arguments), *inputs, share=share)

    def conv(self, path: str, x: int, **arguments: Any) -> int:
        """A 3x3 convolution to four channels, without padding unless asked for."""
        return self.put(path, "Conv2d", x, **{"out_channels": 4, "kernel_size": 3} | arguments)

    def norm(self, path: str, x: int, share: int | None = None, **arguments: Any) -> int:
        """A batch norm of an image."""
        return self.put(path, "BatchNorm2d", x, share=share, **arguments)

    def ends(self, *values: int) -> Graph:
        """The graph with these outputs."""
        for number, value in enumerate(values):
            self.output(f"y{number}", value)
        return self.graph()


def chain(shape: tuple[int, ...], *entries: tuple[str, dict[str, Any]]) -> Graph:
    """Operations one after another, at the paths `0`, `1` and so on."""
    build, value = Build(*shape), 0
    for number, (op, arguments) in enumerate(entries):
        value = build.put(str(number), op, value, **arguments)
    return build.ends(value)


def difference(model: onnx.ModelProto, module: Interpreted, batch: int) -> float:
    """The largest difference of any output from torch's, of its largest element, unoptimised."""
    onnx.checker.check_model(model, full_check=True)
    runtime = session(
        model.SerializeToString(),
        optimise=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        threads=1,
    )
    graph = module.graph
    inputs = sample([graph.tensors[value] for value in graph.inputs.values()], batch)
    with torch.no_grad():
        wanted = [each.numpy() for each in module(*inputs)]
    feeds = dict(zip(graph.inputs, (each.numpy() for each in inputs), strict=True))
    found = runtime.run(None, feeds)
    return max(
        float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        for ours, theirs in zip(found, wanted, strict=True)
    )


def folded(
    graph: Graph, change: Callable[[Mapping[str, Any]], None] | None = None
) -> list[tuple[str, str]]:
    """The nodes of the folded model, as operator and name; the model is what torch computes.

    `change` may write to the weights before.
    """
    module = torch_of(graph).eval()
    if change is not None:
        change(arrays(module))
    model = to_model(graph, arrays(module))
    assert difference(model, module, 2) <= CLOSE
    body = model.graph
    read = {name for node in body.node for name in node.input}
    assert {tensor.name for tensor in body.initializer} <= read
    return [(node.op_type, node.name) for node in body.node]


def program(graph: Graph) -> Program:
    return fold(program_of(graph, arrays(torch_of(graph))))


# ------------------------------------------------------------------------- behind a linear map


@pytest.mark.parametrize("norm", ["BatchNorm", "InstanceNorm"])
@pytest.mark.parametrize(
    ("shape", "op", "arguments"),
    [
        ((3, 9), "Conv1d", {}),
        ((4, 9, 8), "Conv2d", {}),
        ((4, 5, 6, 5), "Conv3d", {}),
        ((4, 9, 8), "Conv2d", {"bias": False, "groups": 2, "dilation": 2}),
        ((4, 9, 8), "Conv2d", {"groups": 4, "out_channels": 8}),
        ((4, 9, 8), "Conv2d", {"stride": 2, "padding": "same"}),
        ((4, 9, 8), "Conv2d", {"padding": [[1, 0], [2, 1]]}),
        ((4, 9, 8), "Conv2d", {"padding": 1, "padding_mode": "reflect"}),
        ((4, 9, 8), "Conv2d", {"padding": 2, "padding_mode": "circular", "bias": False}),
        ((3, 9), "ConvTranspose1d", {"stride": 2}),
        ((4, 5, 6), "ConvTranspose2d", {}),
        ((4, 5, 6), "ConvTranspose2d", {"groups": 2, "bias": False}),
        ((6, 5, 6), "ConvTranspose2d", {"groups": 2, "stride": 2, "output_padding": 1}),
        ((4, 5, 6), "ConvTranspose2d", {"groups": 4, "dilation": 2, "output_padding": 1}),
        ((2, 3, 3, 3), "ConvTranspose3d", {"groups": 2, "stride": 2, "padding": 1}),
        ((3, 9, 9), "MaskedConv2d", {"table": [[0, 1], [2], [2, 0], [1]]}),
        ((3, 9, 9), "MaskedConv2d", {"table": [[0, 1], [2]], "bias": False, "padding": 1}),
        ((4, 8, 8), "Subsample2d", {}),
    ],
)
def test_folds_behind_filters(
    shape: tuple[int, ...], op: str, arguments: dict[str, Any], norm: str
) -> None:
    """Into every kind of filter; the node keeps the filter's name, its result the norm's."""
    kind = registry()[op]
    given = {"out_channels": 4, "kernel_size": 3} | arguments
    if "out_channels" not in kind._fields:
        del given["out_channels"]
    tracked = {"track_running_stats": True, "affine": True}
    name = f"{norm}{kind.axes}d"
    build = Build(*shape)
    last = build.put("norm", name, build.put("filters", op, 0, **given), **tracked)
    graph = build.ends(build.put("act", "ReLU", last))
    kinds = [kind for kind, _ in folded(graph)]
    assert not {"BatchNormalization", "InstanceNormalization"} & set(kinds)
    assert program(graph).folded == (Folded("norm", ("filters",)),)
    node = to_model(graph, arrays(torch_of(graph))).graph.node[-2]
    assert (node.name, list(node.output)) == ("filters", ["norm"])


@pytest.mark.parametrize("bias", [True, False])
def test_folds_behind_features_of_a_linear_layer(bias: bool) -> None:
    graph = chain((6,), ("Linear", {"out_features": 5, "bias": bias}), ("BatchNorm1d", {}))
    assert folded(graph) == [("Gemm", "0")]


def test_tokens_are_not_features() -> None:
    """A batch norm scales the first axis, a linear layer makes the last one."""
    graph = chain((5, 6), ("Linear", {"out_features": 5}), ("BatchNorm1d", {}))
    assert ("BatchNormalization", "1") in folded(graph)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"affine": False}, {"bias": False}, {"eps": 0.5}, {"affine": False, "momentum": None}],
)
def test_whatever_a_norm_has_learned(arguments: dict[str, Any]) -> None:
    for bias in (True, False):
        build = Build(3, 7, 7)
        graph = build.ends(build.norm("norm", build.conv("conv", 0, bias=bias), **arguments))
        assert folded(graph) == [("Conv", "conv")]


def test_statistics_of_the_batch_do_not_fold() -> None:
    build = Build(3, 7, 7)
    graph = build.ends(build.norm("norm", build.conv("conv", 0), track_running_stats=False))
    assert program(graph).folded == ()
    assert len(folded(graph)) > 1
    build = Build(3, 7, 7)
    graph = build.ends(build.put("norm", "InstanceNorm2d", build.conv("conv", 0)))
    assert ("InstanceNormalization", "norm") in folded(graph)


def test_dropout_and_identities_are_not_in_the_way() -> None:
    build = Build(3, 7, 7)
    dropped = build.put("drop", "Dropout", build.put("same", "Identity", build.conv("conv", 0)))
    graph = build.ends(build.put("off", "Dropout2d", build.norm("norm", dropped)))
    assert folded(graph) == [("Conv", "conv")]


def test_norms_in_a_row_are_one() -> None:
    build = Build(3, 7, 7)
    first = build.norm("first", build.conv("conv", 0, bias=False))
    graph = build.ends(build.norm("third", build.norm("second", first, affine=False)))
    assert folded(graph) == [("Conv", "conv")]
    assert program(graph).folded == tuple(
        Folded(name, ("conv",)) for name in ("first", "second", "third")
    )
    build = Build(3, 7, 7)
    graph = build.ends(build.norm("second", build.norm("first", 0, affine=False)))
    assert folded(graph) == [("BatchNormalization", "first")]


# ------------------------------------------------------------------------------ several readers


def test_a_result_that_something_else_reads_stays() -> None:
    build = Build(3, 7, 7)
    conv = build.conv("conv", 0)
    act = build.put("act", "ReLU", conv)
    graph = build.ends(build.put("sum", "add", build.norm("norm", conv), act))
    assert ("BatchNormalization", "norm") in folded(graph)


def test_two_norms_of_one_result_stay() -> None:
    build = Build(3, 7, 7)
    conv = build.conv("conv", 0)
    a, b = build.norm("a", conv), build.norm("b", conv)
    kinds = folded(build.ends(build.put("sum", "add", a, b)))
    assert kinds == [
        ("Conv", "conv"),
        ("BatchNormalization", "a"),
        ("BatchNormalization", "b"),
        ("Add", "sum"),
    ]


def test_a_result_that_is_an_output_stays() -> None:
    build = Build(3, 7, 7)
    conv = build.conv("conv", 0)
    assert ("BatchNormalization", "norm") in folded(build.ends(build.norm("norm", conv), conv))
    build = Build(3, 7, 7)
    conv = build.conv("conv", 0)
    build.output("kept", build.put("drop", "Dropout", conv))
    assert ("BatchNormalization", "norm") in folded(build.ends(build.norm("norm", conv)))


def test_what_only_training_reads_is_not_there() -> None:
    build = Build(3, 7, 7)
    conv = build.conv("conv", 0)
    build.output("features", conv, training=True)
    assert folded(build.ends(build.norm("norm", conv))) == [("Conv", "conv")]


def test_a_norm_that_several_read_folds_once() -> None:
    build = Build(3, 7, 7)
    norm = build.norm("norm", build.conv("conv", 0))
    graph = build.ends(build.put("sum", "add", norm, build.put("act", "ReLU", norm)), norm)
    assert [kind for kind, _ in folded(graph)] == ["Conv", "Relu", "Add"]


def test_one_input_of_two_convolutions() -> None:
    """Each has its own norm; the two products are added."""
    build = Build(3, 7, 7)
    a = build.norm("a_norm", build.conv("a", 0))
    b = build.norm("b_norm", build.conv("b", 0, bias=False))
    graph = build.ends(build.put("sum", "add", a, b))
    assert folded(graph) == [("Conv", "a"), ("Conv", "b"), ("Add", "sum")]


def test_norms_of_joined_tensors_stay() -> None:
    build = Build(3, 7, 7)
    a, b = build.conv("a", 0), build.conv("b", 0)
    graph = build.ends(build.norm("norm", build.put("join", "concat", a, b)))
    assert ("BatchNormalization", "norm") in folded(graph)
    build = Build(3, 7, 7)
    a, b = build.conv("a", 0), build.conv("b", 0)
    graph = build.ends(build.norm("norm", build.put("sum", "add", a, b)))
    assert ("BatchNormalization", "norm") in folded(graph)


# ------------------------------------------------------------------------- before a linear map


def before(op: str, shape: tuple[int, ...], norm: dict[str, Any], **arguments: Any) -> Graph:
    """A norm and then a linear map."""
    kind = "BatchNorm2d" if len(shape) == 3 else "BatchNorm1d"
    return chain(shape, (kind, norm), (op, arguments))


FILTERS = {"out_channels": 4, "kernel_size": 3}


@pytest.mark.parametrize(
    ("op", "shape", "arguments"),
    [
        ("Conv2d", (4, 7, 7), FILTERS),
        ("Conv2d", (4, 7, 7), FILTERS | {"groups": 2, "bias": False}),
        ("Conv2d", (4, 7, 7), FILTERS | {"groups": 4, "stride": 2, "out_channels": 8}),
        ("Conv2d", (4, 7, 7), FILTERS | {"padding": 1, "padding_mode": "reflect"}),
        ("Conv2d", (4, 7, 7), FILTERS | {"padding": "same", "padding_mode": "replicate"}),
        ("Conv2d", (4, 7, 7), FILTERS | {"kernel_size": 1, "padding": "same"}),
        ("Conv1d", (4, 7), FILTERS | {"groups": 2}),
        ("Linear", (6,), {"out_features": 5}),
        ("Linear", (6,), {"out_features": 5, "bias": False}),
        ("ConvTranspose2d", (4, 5, 5), FILTERS | {"kernel_size": 1}),
        ("ConvTranspose2d", (4, 5, 5), FILTERS | {"kernel_size": 1, "groups": 2, "padding": 1}),
    ],
)
def test_folds_into_what_stands_behind(
    op: str, shape: tuple[int, ...], arguments: dict[str, Any]
) -> None:
    graph = before(op, shape, {}, **arguments)
    assert [name for kind, name in folded(graph) if kind == "BatchNormalization"] == []
    assert program(graph).folded == (Folded("0", ("1",)),)


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        ("Conv2d", FILTERS | {"padding": 1}),
        ("Conv2d", FILTERS | {"padding": [[0, 0], [0, 1]]}),
        ("Conv2d", FILTERS | {"padding": "same"}),
        ("ConvTranspose2d", FILTERS),
        ("ConvTranspose2d", FILTERS | {"kernel_size": 1, "stride": 2}),
        ("ConvTranspose2d", FILTERS | {"kernel_size": 1, "dilation": 2, "output_padding": 1}),
    ],
)
def test_shifts_do_not_go_through_zeros(op: str, arguments: dict[str, Any]) -> None:
    """A norm stays before padding, unless it only scales."""
    graph = before(op, (4, 7, 7), {"bias": False}, **arguments)
    assert ("BatchNormalization", "0") in folded(graph)
    alone = folded(graph, lambda state: state["0.running_mean"].fill(0))
    assert "BatchNormalization" not in [kind for kind, _ in alone]


@pytest.mark.parametrize("op", ["MaskedConv2d", "Subsample2d", "FixedConv2d", "MaxPool2d"])
def test_what_says_nothing_about_its_input_takes_nothing(op: str) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "MaskedConv2d": {"table": [[0, 1], [3]], "kernel_size": 3},
        "FixedConv2d": {"kernel": [[1, 2], [3, -1]]},
    }
    graph = before(op, (4, 7, 7), {}, **arguments.get(op, {"kernel_size": 2}))
    assert ("BatchNormalization", "0") in folded(graph)


def test_folds_on_into_all_or_none() -> None:
    build = Build(4, 7, 7)
    norm = build.norm("norm", 0)
    a, b = build.conv("a", norm), build.conv("b", norm, groups=2, bias=False)
    graph = build.ends(build.put("sum", "add", a, b))
    assert folded(graph) == [("Conv", "a"), ("Conv", "b"), ("Add", "sum")]
    assert program(graph).folded == (Folded("norm", ("a", "b")),)
    for other in ("ReLU", "Identity"):
        build = Build(4, 7, 7)
        norm = build.norm("norm", 0)
        graph = build.ends(build.conv("a", norm), build.put("b", other, norm))
        assert ("BatchNormalization", "norm") in folded(graph)


def test_folds_on_from_both_sides_and_through_norms() -> None:
    """A norm that reads a shared result goes on, with the one it took over, into a filter."""
    build = Build(4, 9, 9)
    shared = build.conv("shared", 0)
    twice = build.norm("second", build.norm("first", shared))
    graph = build.ends(build.norm("last", build.conv("conv", twice, bias=False)), shared)
    assert folded(graph) == [("Conv", "shared"), ("Conv", "conv")]
    assert set(program(graph).folded) == {
        Folded(name, ("conv",)) for name in ("first", "second", "last")
    }


def test_folds_on_into_a_norm_among_others() -> None:
    build = Build(4, 9, 9)
    norm = build.norm("norm", 0)
    other = build.put("act", "ReLU", build.norm("other", norm))
    graph = build.ends(build.conv("conv", norm), other)
    assert folded(graph) == [
        ("BatchNormalization", "other"),
        ("Relu", "act"),
        ("Conv", "conv"),
    ]


def test_an_operand_read_twice_stays() -> None:
    build = Build(4, 9, 9)
    norm = build.norm("norm", 0)
    graph = build.ends(build.put("square", "mul", norm, norm))
    assert folded(graph) == [("BatchNormalization", "norm"), ("Mul", "square")]


# ------------------------------------------------------------------------------- shared weights


def calls(norms: tuple[str, ...], *, same: bool = False) -> Graph:
    """Calls of one convolution in a row, each before a norm or none; the norms may be the same."""
    build, value, first = Build(4, 9, 9), 0, None
    count = 0
    shared_norm = None
    for number, norm in enumerate(norms):
        value = build.conv(f"conv{number}", value, share=first)
        first = 0
        count += 1
        if norm:
            value = build.norm(norm, value, share=shared_norm)
            if same and shared_norm is None:
                shared_norm = count
            count += 1
        value = build.put(f"act{number}", "ReLU", value)
        count += 1
    return build.ends(value)


def stored(graph: Graph) -> list[str]:
    model = to_model(graph, arrays(torch_of(graph)))
    return [tensor.name for tensor in model.graph.initializer]


@pytest.mark.parametrize(
    ("graph", "weights"),
    [
        (calls(("a", "b")), ["conv0.weight", "conv1.weight"]),
        (calls(("a", "b"), same=True), ["conv0.weight"]),
        (calls(("", "b")), ["conv0.weight", "conv1.weight"]),
        (calls(("a", "")), ["conv0.weight:folded", "conv0.weight"]),
        (calls(("", "a", "b"), same=True), ["conv0.weight", "conv1.weight"]),
        (calls(("", "")), ["conv0.weight"]),
    ],
    ids=["own", "shared", "first-bare", "last-bare", "mixed", "bare"],
)
def test_calls_share_weights_where_they_are_equal(graph: Graph, weights: list[str]) -> None:
    kinds = [kind for kind, _ in folded(graph)]
    assert set(kinds) == {"Conv", "Relu"}
    names = stored(graph)
    assert [name for name in names if ".weight" in name] == weights
    assert len(names) == 2 * len(weights)


def test_a_shared_norm_behind_different_filters() -> None:
    build = Build(4, 9, 9)
    a = build.norm("norm", build.conv("a", 0))
    b = build.norm("again", build.conv("b", a), share=1)
    assert folded(build.ends(b)) == [("Conv", "a"), ("Conv", "b")]


# ------------------------------------------------------------------------------------- numbers


def test_products_are_rounded_once() -> None:
    build = Build(3, 7, 7)
    graph = build.ends(build.norm("norm", build.conv("conv", 0)))
    state = arrays(torch_of(graph))
    kept = {key: value.copy() for key, value in state.items()}
    model = to_model(graph, state)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wide = {key: value.astype(np.float64) for key, value in state.items()}
    scale = wide["norm.weight"] / np.sqrt(wide["norm.running_var"] + 1e-5)
    weight = wide["conv.weight"] * scale[:, None, None, None]
    bias = (wide["conv.bias"] - wide["norm.running_mean"]) * scale + wide["norm.bias"]
    np.testing.assert_array_equal(found["conv.weight"], weight.astype(np.float32))
    np.testing.assert_allclose(found["conv.bias"], bias, rtol=1e-7)
    assert list(found) == ["conv.weight", "conv.bias"]
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
    for key, value in state.items():
        np.testing.assert_array_equal(value, kept[key])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("norm.weight", np.float32(2**15)),
        ("norm.running_mean", np.float32(3000)),
        ("norm.running_mean", np.float32(np.nan)),
        ("norm.bias", np.float32(np.inf)),
        ("norm.running_var", np.float32(-2)),
        ("conv.weight", np.float32(3e38)),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_norms_stay_where_folding_would_harm(key: str, value: np.float32, first: bool) -> None:
    """One bad channel is enough: absurd scales, means far off, no number, too large a weight."""
    build = Build(4, 7, 7)
    if first:
        graph = build.ends(build.norm("norm", build.conv("conv", 0)))
    else:
        graph = build.ends(build.conv("conv", build.norm("norm", 0)))
    state = arrays(torch_of(graph))
    state["norm.weight"][...] = 2.0
    assert fold(program_of(graph, state)).folded
    state[key].reshape(-1)[0] = value
    assert fold(program_of(graph, state)).folded == ()


def test_a_dead_channel_is_no_harm() -> None:
    """Neither mean nor variance: what checkpoints have of channels that never fire."""
    build = Build(3, 7, 7)
    graph = build.ends(build.norm("norm", build.conv("conv", 0, bias=False)))

    def die(state: Mapping[str, Any]) -> None:
        for name in ("conv.weight", "norm.running_mean", "norm.running_var"):
            state[name][0] = 5.6e-45

    assert folded(graph, die) == [("Conv", "conv")]


def test_a_harmful_norm_does_not_keep_the_others() -> None:
    build = Build(3, 9, 9)
    a = build.norm("a_norm", build.conv("a", 0))
    graph = build.ends(build.norm("b_norm", build.conv("b", a)))
    state = arrays(torch_of(graph))
    state["a.weight"][0] = 3e38
    state["a_norm.weight"][0] = 4
    assert fold(program_of(graph, state)).folded == (Folded("b_norm", ("b",)),)


# ----------------------------------------------------------------------------------- the whole


def test_nothing_is_folded_unless_asked() -> None:
    build = Build(3, 7, 7)
    graph = build.ends(build.norm("norm", build.conv("conv", 0)))
    module = torch_of(graph).eval()
    model = to_model(graph, arrays(module), fold=False)
    assert [node.op_type for node in model.graph.node] == ["Conv", "BatchNormalization"]
    assert difference(model, module, 3) <= CLOSE


def test_elements_that_are_stored_follow_from_what_was_folded() -> None:
    """Learned ones and statistics, less those of norms that are gone, and the biases they made."""
    build = Build(3, 9, 9)
    a = build.norm("a_norm", build.conv("a", 0, bias=False))
    b = build.put("act", "ReLU", build.norm("b_norm", build.conv("b", a)))
    graph = build.ends(build.put("act2", "ReLU", build.norm("stays", b)))
    module = torch_of(graph)
    found = lower(program(graph), Options()).initializers
    elements = sum(value.size for value in arrays(module).values() if value.ndim)
    gone = {each.path for each in program(graph).folded}
    assert gone == {"a_norm", "b_norm"}
    elements -= sum(
        value.size
        for key, value in arrays(module).items()
        if value.ndim and key.rpartition(".")[0] in gone
    )
    assert sum(value.size for value in found.values()) == elements + 4


def test_bytes_are_the_same_every_time() -> None:
    graph = calls(("", "a", "b"))
    first, second = (
        to_model(graph, arrays(torch_of(graph))).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


LAYERS: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
    "Conv2d": {
        "out_channels": st.sampled_from([2, 4]),
        "kernel_size": st.sampled_from([1, 2, 3]),
        "padding": st.sampled_from([0, 1]),
        "padding_mode": st.sampled_from(["zeros", "replicate"]),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
    },
    "ConvTranspose2d": {
        "out_channels": st.sampled_from([2, 4]),
        "kernel_size": st.sampled_from([1, 2]),
        "stride": st.sampled_from([1, 2]),
        "groups": st.sampled_from([1, 2]),
        "bias": st.booleans(),
    },
    "BatchNorm2d": {"affine": st.booleans(), "eps": st.sampled_from([1e-5, 0.1])},
    "ReLU": {},
    "Dropout": {},
}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to eight layers, each of which reads any result so far; norms are half of them."""
    build, values = Build(2, 6, 6), [0]
    kinds = ["BatchNorm2d"] * 3 + list(LAYERS)
    for number in range(draw(st.integers(1, 8))):
        source = draw(st.sampled_from(values[-3:]))
        op = draw(st.sampled_from(kinds))
        arguments = {name: draw(values) for name, values in LAYERS[op].items()}
        try:
            values.append(build.put(f"l{number}", op, source, **arguments))
        except Reject:
            continue
    return build.ends(
        *draw(st.lists(st.sampled_from(values[1:] or values), min_size=1)), values[-1]
    )


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_small_network_stays_what_it_was(graph: Graph) -> None:
    module = torch_of(graph).eval()
    assert difference(to_model(graph, arrays(module)), module, 2) <= 5 * CLOSE
