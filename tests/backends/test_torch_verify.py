"""`cnnspec build --verify` passes for everything there is, in any type, and takes no memory."""

from __future__ import annotations

import pytest
import torch

import cnnspec
from cnnspec.backends.torch.emit import write
from cnnspec.backends.torch.module import construct, fill
from cnnspec.backends.torch.verify import promises, verify_counts, verify_shapes
from cnnspec.ir import Graph
from cnnspec.report import analyze
from tests.ops.harness import Case, alone, cases
from tests.zoo.networks import FILES

FIRST = {case.op.name: case for case in reversed(list(cases()))}


def verified(graph: Graph, dtype: torch.dtype) -> int:
    promised = promises(graph)
    module = construct(write(graph), graph, promised, dtype)
    before = {key: id(tensor) for key, tensor in module.named_buffers()}
    verify_counts(module, analyze(graph))
    found = verify_shapes(module, graph)
    assert module.training
    assert {key: id(tensor) for key, tensor in module.named_buffers()} == before
    stored = [*module.parameters(), *module.buffers()]
    assert all(tensor.is_meta for tensor in stored)
    assert found.tensors == len(promised) == len(stored)
    return found.layers


@pytest.mark.parametrize("name", FILES)
def test_bundled_networks(name: str) -> None:
    assert verified(cnnspec.load(name).graph, torch.float32) > 0


@pytest.mark.parametrize("case", FIRST.values(), ids=FIRST)
def test_operations(case: Case) -> None:
    op, site = case.bound()
    if any(not tensor.batched for tensor in site.outputs):
        pytest.skip("what is the same for all samples is no output of a network")
    verified(alone(op, site.inputs), torch.bfloat16)


def test_verification_leaves_no_trace_in_what_is_filled() -> None:
    text = """\
cnnspec: 1
name: net
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - BatchNorm2d: {momentum: null}
"""
    graph = cnnspec.load(text=text).graph
    promised = promises(graph)
    module = construct(write(graph), graph, promised)
    verify_shapes(module, graph)
    fill(module, promised, 0, {})
    assert module.get_buffer("1.num_batches_tracked") == 0
    fresh = cnnspec.load(text=text).to_torch().state_dict()
    assert all(torch.equal(t, fresh[key]) for key, t in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())
