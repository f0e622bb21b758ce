"""Every example of every op, alone in a network: as source, against an independent reading."""

from __future__ import annotations

import pytest
import torch

from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.ir import Graph
from tests.ops.harness import Case, Interpreted, alone, cases, randomise, sample, with_bare

CASES = {f"{case.op.name}-{case.number}": case for case in cases()}
UNBATCHED = {name: case for name, case in CASES.items() if case.op.takes_unbatched}


def compare(graph: Graph) -> None:
    """Equal keys, and equal outputs for equal weights."""
    module = to_torch(graph).eval()
    fixed = {
        f"{node.path}.{name}"
        for node in graph.nodes
        for name, buffer in node.op.buffers(graph.site(node)).items()
        if buffer.values is not None or not buffer.persistent
    }
    randomise(module, frozenset(fixed))
    reference = Interpreted(graph).eval()
    reference.load_state_dict(module.state_dict(), strict=True)
    inputs = sample([graph.tensors[value] for value in graph.inputs.values()], batch=3)
    with torch.no_grad():
        expected = reference(*[tensor.clone() for tensor in inputs])
        result = named_outputs(graph, module(*[t.clone() for t in inputs]), training=False)
    for given, wanted in zip(result.values(), expected, strict=True):
        torch.testing.assert_close(given, wanted, equal_nan=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_example(case: Case) -> None:
    op, site = case.bound()
    compare(alone(op, site.inputs))


@pytest.mark.parametrize("case", UNBATCHED.values(), ids=UNBATCHED)
def test_example_on_a_bare_parameter(case: Case) -> None:
    for position in range(len(case.example.input_shapes)):
        for leading in (False, True):
            graph = with_bare(case, position, leading=leading)
            if graph is not None and graph.inputs:
                compare(graph)
