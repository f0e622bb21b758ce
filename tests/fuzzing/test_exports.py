"""A minute of random networks through ONNX Runtime; `python -m bench.fuzz` runs thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from cnnspec.api import load
from cnnspec.backends.onnx import newest_opset
from cnnspec.backends.onnx.build import OLDEST_OPSET
from cnnspec.op import ChannelAffine, Op, Site
from cnnspec.ops import registry
from tests.fuzzing import normed
from tests.fuzzing.exports import export_differences
from tests.fuzzing.networks import network
from tests.fuzzing.specs import text_of

CHUNK = 8
SPECS = 6
NORMED = 300


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def opsets() -> range:
    return range(OLDEST_OPSET, newest_opset() + 1)


@pytest.mark.parametrize("chunk", range(SPECS))
def test_random_specs(opsets: range, chunk: int) -> None:
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        text = text_of(network(number))
        found = list(export_differences(load(text=text), opsets[number % len(opsets)], number))
        assert not found, "\n".join((*found, text))


@pytest.mark.parametrize("chunk", range(5))
def test_random_norms(opsets: range, chunk: int) -> None:
    part = NORMED // 5
    for number in range(chunk * part, (chunk + 1) * part):
        graph = normed.graph(number)
        found = list(normed.differences(graph, opsets[number % len(opsets)], number))
        assert not found, "\n".join((f"network {number}", *found, *map(str, graph.nodes)))


def test_norms_stand_wherever_folding_has_to_look() -> None:
    seen: Counter[str] = Counter()
    for number in range(NORMED):
        graph = normed.graph(number)
        outputs = {output.value for output in graph.outputs}
        for node in graph.nodes:
            if node.share is not None:
                seen["shared"] += 1
            if node.op.channel_affine(graph.site(node)) is None:
                continue
            (value,) = node.inputs
            producer = graph.producers[value]
            if producer < 0:
                seen["on an input"] += 1
                continue
            before = graph.nodes[producer].op
            linear = before.linear_map(graph.site(graph.nodes[producer])) is not None
            readers = [index for index in graph.consumers[value] if index in graph.inference]
            seen["several consumers"] += linear and len(readers) > 1
            seen["an output between"] += linear and value in outputs
            seen["behind a norm"] += before.channel_affine(graph.site(node)) is not None
            seen["behind dropout"] += before.identity_at_inference
            seen["before a map"] += any(
                graph.nodes[index].op.linear_map(graph.site(graph.nodes[index])) is not None
                for index in graph.consumers[node.outputs[0]]
            )
    assert len(seen) == 7
    assert min(seen.values()) >= 20


def test_a_wrong_fold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Op, at: Site) -> ChannelAffine:
        return ChannelAffine("running_mean", "running_var", "weight", "bias", eps=0.1)

    for name in ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"):
        monkeypatch.setattr(registry()[name], "channel_affine", wrong)
    assert any(list(normed.differences(normed.graph(number), 18)) for number in range(5))
