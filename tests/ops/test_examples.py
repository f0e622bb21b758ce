"""Every example of every op, executed: torch data, ONNX data, shapes, weights and costs agree."""

from __future__ import annotations

from functools import cache
from math import prod

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cnnspec.backends.onnx.build import OLDEST_OPSET, to_model
from cnnspec.backends.onnx.session import newest_opset, session
from cnnspec.op import Op, Site
from tests.ops.harness import (
    Case,
    Interpreted,
    alone,
    arrays,
    cases,
    randomise,
    sample,
    stored,
    with_bare,
)

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")

CASES = pytest.mark.parametrize("case", cases(), ids=str)

DENSER_IN_TORCH = frozenset({"MaskedConv2d", "LocallyConnected1d", "LocallyConnected2d"})
"""Ops that torch computes with multiplications by zero, which the op does not count."""


@cache
def newest() -> int:
    """The newest opset that ONNX Runtime loads here."""
    return newest_opset()


def interpreted(op: Op, site: Site) -> Interpreted:
    """The op alone as a torch module with random weights, in inference mode."""
    module = Interpreted(alone(op, site.inputs)).eval()
    fixed = (name for name, buffer in op.buffers(site).items() if buffer.values is not None)
    randomise(module, frozenset(f"op.{name}" for name in fixed))
    return module


@CASES
def test_figures(case: Case) -> None:
    """What the example asserts about shape and parameters holds."""
    op, site = case.bound()
    if case.example.output is not None:
        assert site.y.shape == case.example.output
    if case.example.params is not None:
        counted = sum(weight.elements for weight in op.weights(site).values())
        assert counted == case.example.params
    assert all(len(out.shape) == len(out.roles) for out in site.outputs)


@CASES
def test_stored_as_the_rules_say(case: Case) -> None:
    """Keys, shapes, order and first values of the state dict are those of the rules."""
    op, site = case.bound()
    module = Interpreted(alone(op, site.inputs))
    found = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert found == dict(stored(op, site))
    assert {key: value.requires_grad for key, value in module.named_parameters()} == {
        (f"op.{name}" if name else "op"): weight.trainable
        for name, weight in op.weights(site).items()
    }
    buffers = dict(module.named_buffers())
    for name, buffer in op.buffers(site).items():
        value = buffers[f"op.{name}"]
        assert str(value.dtype) == f"torch.{buffer.dtype}"
        flat = value.flatten().tolist()
        expected = [buffer.fill] * prod(buffer.shape)
        if buffer.values is not None:
            expected = list(buffer.values)
        assert flat == pytest.approx(expected, rel=1e-6)


@CASES
def test_torch_agrees(case: Case) -> None:
    """torch computes tensors of the inferred shapes, with as many multiply-accumulates as said."""
    op, site = case.bound()
    module = interpreted(op, site)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as flops:
            outputs = module(*sample(site.inputs, batch=2))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    for output, tensor in zip(outputs, site.outputs, strict=True):
        if tensor.batched:
            assert tuple(output.shape) == (2, *tensor.shape)
        else:
            assert tuple(output.shape) in (tensor.shape, (1, *tensor.shape))
    counted, told = flops.get_total_flops(), 2 * 2 * op.cost(site).mac
    if op.name in DENSER_IN_TORCH:
        assert counted >= told
    elif counted:
        assert counted == told


@CASES
@pytest.mark.parametrize("opset", [OLDEST_OPSET, 18, 0], ids=["oldest", "default", "newest"])
def test_onnx_agrees(case: Case, opset: int) -> None:
    """ONNX Runtime computes from the ONNX data what torch computes from the torch data."""
    op, site = case.bound()
    agree(interpreted(op, site), opset or newest())


@pytest.mark.parametrize("leading", [True, False], ids=["leading", "plain"])
@pytest.mark.parametrize("case", [case for case in cases() if case.op.takes_unbatched], ids=str)
def test_bare_parameters_are_taken(case: Case, leading: bool) -> None:
    """Any one input may be a `Parameter`, which has no batch, if the op says so."""
    for position in range(len(case.example.input_shapes)):
        graph = with_bare(case, position, leading=leading)
        if graph is not None:
            module = Interpreted(graph).eval()
            randomise(module)
            agree(module, 18)


def agree(module: Interpreted, opset: int) -> None:
    """The graph of `module` gives the same in ONNX Runtime as in torch, at two batch sizes."""
    graph = module.graph
    model = to_model(graph, arrays(module), opset=opset)
    onnx.checker.check_model(model, full_check=True)
    runtime = session(
        model.SerializeToString(),
        optimise=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        threads=1,
    )
    for batch in (1, 3):
        inputs = sample([graph.tensors[value] for value in graph.inputs.values()], batch, batch)
        with torch.no_grad():
            expected = module(*inputs)
        feeds = dict(zip(graph.inputs, (value.numpy() for value in inputs), strict=True))
        found = runtime.run(None, feeds)
        for output, ours, theirs in zip(graph.outputs, found, expected, strict=True):
            tensor = graph.tensors[output.value]
            assert ours.shape == tuple(theirs.shape)
            assert ours.shape[-tensor.rank or None :] == tensor.shape
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
