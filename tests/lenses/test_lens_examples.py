"""Every example of every operation through every lens, and the tools themselves beside it."""

from __future__ import annotations

import pytest
import torch

from cnnspec.backends.torch import to_torch
from cnnspec.lenses import LENSES
from tests.lenses.networks import readings_of
from tests.lenses.tools import TOOLS
from tests.ops.harness import Case, alone, cases


def test_every_lens_has_its_tool() -> None:
    assert list(TOOLS) == list(LENSES)


@pytest.mark.parametrize("case", [case for case in cases() if case.example.inputs], ids=str)
def test_examples(case: Case) -> None:
    """Count and parameters are the tool's own, or the lens says that it does not know."""
    op, site = case.bound()
    graph = alone(op, site.inputs)
    module = to_torch(graph)
    inputs = {
        name: torch.zeros((1, *x.shape) if x.batched else x.shape)
        for name, x in ((name, graph.tensors[value]) for name, value in graph.inputs.items())
    }
    for name, reading in readings_of(graph).items():
        if reading.unknown:
            assert None in reading.counts
            assert reading.status == ("unavailable" if reading.fails else "partial")
            if reading.fails:
                with pytest.raises(TypeError):
                    TOOLS[name](module, inputs)
            continue
        found = TOOLS[name](module, inputs)
        assert (name, reading.total, reading.params) == (name, found.total, found.params)


def test_little_is_unknown() -> None:
    """What lenses cannot tell is listed here, so that it does not grow unseen."""
    unknown = set()
    for case in cases():
        op, site = case.bound()
        for name, reading in readings_of(alone(op, site.inputs)).items():
            unknown |= {(case.op.name, name) for _ in reading.unknown}
    assert unknown == {
        ("CenterCrop", "fvcore"),  # neither can trace it
        ("CenterCrop", "timm"),
        ("Parameter", "torchinfo"),  # alone in its network, which then is a layer
        ("Subsample2d", "ptflops"),  # sizes inside the class are not said
    }
