"""Random networks, compiled: keys, shapes, values and gradients of an independent torch network.

That network is put together from the graph by `tests.ops.harness.Interpreted`, which shares no
line with the back end, and gets the same weights. `python -m bench.fuzz` runs thousands.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cnnspec.api import load
from tests.fuzzing.modules import module_differences
from tests.fuzzing.networks import Writer
from tests.fuzzing.specs import text_of

CHUNK = 15
CHUNKS = 8
FIRST = 5_000
"""Other networks than those of tests/fuzzing."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_module_is_what_torch_builds(chunk: int) -> None:
    for number in range(FIRST + chunk * CHUNK, FIRST + (chunk + 1) * CHUNK):
        text = text_of(Writer(number).write())
        found = list(module_differences(load(text=text), seed=number))
        assert not found, f"network {number}: {found[0]}\n{text}"


def test_a_wrong_module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = "[Conv2d: {out_channels: 4, kernel_size: 3}, BatchNorm2d, ReLU]"
    head = "cnnspec: 1\nname: net\ninputs: {x: [3, 8, 8]}\n"
    network = load(text=f"{head}layers: {layers}\n")
    assert not list(module_differences(network))
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        assert list(module_differences(network))
