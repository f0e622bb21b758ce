"""A minute of random networks against torch; `python -m bench.fuzz` runs thousands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from cnnspec.api import load
from cnnspec.op import Op, Ops, Site
from cnnspec.ops import registry
from cnnspec.tensor import Tensor
from tests.fuzzing import campaign, careless
from tests.fuzzing.campaign import Campaign
from tests.fuzzing.comparison import Torch, differences
from tests.fuzzing.fields import field_differences
from tests.fuzzing.networks import Writer
from tests.fuzzing.specs import smaller, text_of

CHUNK = 12
CHUNKS = 10
CONSTRUCTS = (
    "Sequential:",
    "blocks:",
    "repeat:",
    "for:",
    "when:",
    "share:",
    "inline:",
    "inputs: [x, skip]",
    "outputs: [two, one]",
    "training: true",
    "concat:",
    "params:",
    "H = ",
    "b1:",
)


@pytest.fixture(scope="module")
def judge() -> Campaign:
    return Campaign()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_analysis_is_what_torch_does(judge: Campaign, chunk: int) -> None:
    for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        found = judge.run(number)
        assert not found.failures, "\n".join(map(str, found.failures))


def test_every_operation_and_construct_occurs() -> None:
    missing = set(registry())
    constructs = set(CONSTRUCTS)
    ranks: set[int] = set()
    for number in range(3 * len(registry())):
        text = text_of(Writer(number).write())
        graph = load(text=text).graph
        missing -= {node.op.name for node in graph.nodes}
        constructs -= {construct for construct in constructs if construct in text}
        ranks |= {graph.tensors[value].rank for value in graph.inputs.values()}
        if number >= len(registry()) and not (missing or constructs):
            break
    assert not missing
    assert not constructs
    assert ranks >= {1, 2, 3, 4}


def test_torch_refuses_most_of_what_is_careless_and_takes_the_rest() -> None:
    programs = [each for each in map(careless.program, range(300)) if each is not None]
    refused = sum(careless.theirs(each).at is not None for each in programs)
    assert 0.3 < refused / len(programs) < 0.9
    asked = {step.op for each in programs for step in each.steps}
    assert asked >= set(careless.candidates())


def test_programs_and_networks_are_the_same_each_time() -> None:
    assert Writer(7).write() == Writer(7).write()
    assert careless.program(7) == careless.program(7)


# ----------------------------------------------------------------- what is wrong is found


CONV = """
cnnspec: 1
name: net
inputs: {x: [3, 9, 9]}
layers:
  - {Conv2d: {out_channels: 4, kernel_size: 3, stride: 2}, name: a}
  - {ReLU: {}, name: b}
  - {Flatten: {}, name: c}
"""


def wrong(name: str, **rules: object) -> type[Op]:
    """The operation with some rules that are wrong."""
    return type(name, (registry()[name],), rules, name=name)


def test_wrong_shapes_costs_weights_and_fields_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = registry()["Conv2d"]
    network = load(text=CONV)
    assert not list(differences(network, network.analyze(), Torch()))
    assert not list(field_differences(network, network.analyze()))

    right = conv.infer

    def larger(self: Op, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (made,) = right(self, inputs)
        return (made.with_shape(made.shape[0], made.shape[1] + 1, made.shape[2]),)

    with monkeypatch.context() as patch:
        patch.setattr(conv, "infer", larger)
        network = load(text=CONV)
        found = list(differences(network, network.analyze(), Torch()))
        assert any("`a` gives" in each for each in found)
        assert any("`b` (ReLU" in each for each in found)

    with monkeypatch.context() as patch:
        patch.setattr(conv, "cost", lambda self, at: Ops(mac=1))
        network = load(text=CONV)
        found = list(differences(network, network.analyze(), Torch()))
        assert any("macs, not 1" in each for each in found)

    weights = conv.weights
    with monkeypatch.context() as patch:
        patch.setattr(conv, "weights", lambda self, at: {"weight": weights(self, at)["weight"]})
        network = load(text=CONV)
        found = list(differences(network, network.analyze(), Torch()))
        assert any("stores" in each for each in found)

    window = conv.window

    def shifted(self: Op, at: Site, input: int, output: int) -> object:
        look = window(self, at, input, output)
        assert look is not None
        return tuple(
            (axis, replace(view, kernel=view.kernel + change) if axis else view)  # type: ignore[call-arg, union-attr, type-var]
            for axis, view in look
        )

    for change in (1, -1):
        with monkeypatch.context() as patch:
            patch.setattr(conv, "window", shifted)
            network = load(text=CONV)
            assert list(field_differences(network, network.analyze())), change


def test_a_wrong_verdict_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    program = careless.Program((3, 4, 4), (careless.Step("MaxPool2d", {"kernel_size": 5}, (-1,)),))
    assert careless.disagreement(program) is None
    monkeypatch.setattr(registry()["MaxPool2d"], "infer", lambda self, inputs: inputs)
    assert "torch refuses step 0" in str(careless.disagreement(program))


def test_failures_are_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is the smallest network that still fails in that way."""
    written = (Writer(number).write() for number in range(200))
    spec = next(each for each in written if "Softplus" in text_of(each))
    monkeypatch.setattr(registry()["Softplus"], "cost", lambda self, at: Ops(mac=7))
    judge = Campaign()
    network = load(text=text_of(spec))
    what = next(differences(network, network.analyze(), Torch()))
    text = campaign.shrunk(spec, judge.analysis, what)
    assert sum(line.lstrip().startswith("- ") for line in text.splitlines()) <= 6, text
    assert len(list(smaller(spec))) > 3
