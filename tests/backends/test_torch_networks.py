"""Whole networks as torch modules: compared with an independent reading of the same lowerings."""

from __future__ import annotations

import torch

from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.frontend.load import expand, load_text
from tests.backends.torch_networks import AUXILIARY, TAPS, each_network, network, outputs_of
from tests.ops.harness import Interpreted, randomise, sample


@each_network
def test_module_computes_what_the_lowerings_say(text: str) -> None:
    graph = network(text)
    module = to_torch(graph).eval()
    randomise(module)
    reference = Interpreted(graph).eval()
    reference.load_state_dict(module.state_dict(), strict=True)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=3)
    with torch.no_grad():
        expected = reference(*inputs)
    for given, wanted in zip(outputs_of(graph, module, inputs), expected, strict=True):
        assert torch.equal(given, wanted)


@each_network
def test_state_dict_keys_are_the_paths_of_the_graph(text: str) -> None:
    graph = network(text)
    expected: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        if node.share is None:
            site = graph.site(node)
            shapes = {name: weight.shape for name, weight in node.op.weights(site).items()}
            shapes.update((name, buffer.shape) for name, buffer in node.op.buffers(site).items())
            for name, shape in shapes.items():
                expected[f"{node.path}.{name}" if name else node.path] = shape
    state = to_torch(graph).state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == expected


@each_network
def test_every_parameter_gets_a_gradient_in_training_mode(text: str) -> None:
    graph = network(text)
    module = to_torch(graph)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=3)
    result = module(*inputs)
    total = sum(tensor.sum() for tensor in named_outputs(graph, result, training=True).values())
    assert isinstance(total, torch.Tensor)
    torch.autograd.backward(total)
    owners = {node.index if node.share is None else node.share: node for node in graph.nodes}
    used = {graph.nodes[i].path for i, node in owners.items() if node.index in graph.used}
    for key, parameter in module.named_parameters():
        assert (parameter.grad is not None) == any(
            key == path or key.startswith(f"{path}.") for path in used
        ), key


@each_network
def test_compiles_without_a_graph_break(text: str) -> None:
    graph = network(text)
    module = to_torch(graph).eval()
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=2)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with torch.no_grad():
        result = compiled(*inputs)
    shown = named_outputs(graph, result, training=False)
    for given, wanted in zip(shown.values(), outputs_of(graph, module, inputs), strict=True):
        torch.testing.assert_close(given, wanted)


def test_training_outputs_are_there_in_training_mode_alone() -> None:
    graph = network(AUXILIARY)
    module = to_torch(graph)
    inputs = sample([graph.tensors[0]], batch=2)
    trained = module(*inputs)
    assert type(trained).__name__ == "AuxiliaryTrainingOutput"
    assert trained._fields == ("logits", "aux")
    assert trained.aux.shape == (2, 5)
    module.eval()
    calls: list[str] = []
    for path, inner in module.named_modules():
        inner.register_forward_hook(lambda *_, path=path: calls.append(path))
    result = module(*inputs)
    assert isinstance(result, torch.Tensor)
    assert list(named_outputs(graph, result, training=False)) == ["logits"]
    assert {"trunk.main", "fc"} <= set(calls)
    assert not {"trunk.pre", "trunk.aux", "head"} & set(calls)


def test_several_outputs_are_a_named_tuple() -> None:
    graph = network(TAPS)
    result = to_torch(graph)(*sample([graph.tensors[0]], batch=2))
    assert type(result).__name__ == "TapsOutput"
    assert result._fields == ("early", "late", "middle")


def test_names_that_python_owns_do_no_harm() -> None:
    text = """
name: "torch\\"\\"\\" \\\\ \\u2028 quit()"
inputs: {self: [3, 8, 8], torch: [3, 8, 8], F: [3, 8, 8]}
layers:
  - add: [self, torch, F]
    name: nn
  - Conv2d: {out_channels: 3, kernel_size: 1}
    name: getattr
  - add: [nn, getattr]
"""
    graph = network(text)
    module = to_torch(graph)
    inputs = sample([graph.tensors[v] for v in graph.inputs.values()], batch=2)
    assert outputs_of(graph, module, inputs)[0].shape == (2, 3, 8, 8)


def test_a_forward_that_ends_with_a_call_of_several_results() -> None:
    """A block that hands on what another block puts out."""
    text = """\
cnnspec: 1
name: net
inputs: {x: [3, 8, 8]}
blocks:
  two:
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3}
        name: a
      - ReLU:
        name: b
    outputs: [a, b]
  outer:
    layers:
      - two:
        name: t
    outputs: {p: t.a, q: t.b}
layers:
  - outer:
    name: o
outputs: [o.p, o.q]
"""
    network = to_torch(expand(load_text(text)))
    p, q = network(torch.zeros(1, 3, 8, 8))
    assert p.shape == q.shape == (1, 4, 6, 6)
