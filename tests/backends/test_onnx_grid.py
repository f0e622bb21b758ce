"""Every operation on a grid of arguments in ONNX Runtime; `bench.onnx_grid` tries more of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from random import Random

import pytest
import torch

from cnnspec.backends.onnx import newest_opset
from cnnspec.backends.onnx.build import OLDEST_OPSET
from cnnspec.ops import registry
from tests.backends.onnx_grid import combinations, compare

MOST = 40
"""Combinations of one operation."""

NAMES = sorted(registry())


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def opsets() -> tuple[int, ...]:
    """The oldest, the usual one and the newest that ONNX Runtime loads here."""
    return OLDEST_OPSET, 18, newest_opset()


@pytest.mark.parametrize("name", NAMES)
def test_onnx_runtime_computes_what_torch_does(name: str) -> None:
    opset = opsets()[NAMES.index(name) % 3]
    found = compare(combinations(name, Random(name)), MOST, [opset])
    assert not found.different, "\n".join(found.different[:8])
    assert found.runs
    assert found.unsteady <= found.combinations // 4
