"""The module of a network against an independent one with the same weights, in both modes.

Both are made of the same graph: one by the back end's generated source, the other node by node.
They compute in float64, as random networks divide small numbers by small numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnnspec.api import Network
from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.ir import Graph
from tests.ops.harness import Interpreted, randomise, sample

__all__ = ["module_differences"]

_BATCH = 3
_TOLERANCE = 1e-6
"""Relative to the largest element."""


class _Run(NamedTuple):
    outputs: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor | None]


def module_differences(network: Network, seed: int = 0) -> Iterator[str]:
    """Everything in which the two modules differ; nothing if all is well."""
    graph = network.graph
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument; the question is what it computes.
        warnings.simplefilter("ignore")
        module, reference = to_torch(graph).double(), Interpreted(graph).double()
        mine, other = _stored(module), _stored(reference)
        if mine != other:
            keys = {key for key in {*mine, *other} if mine.get(key) != other.get(key)}
            yield f"stored differently: {', '.join(sorted(keys))}"
            return
        randomise(module, _fixed(graph), seed)
        reference.load_state_dict(module.state_dict(), strict=True)
        for training in (False, True):
            results = []
            for each in (module, reference):
                try:
                    results.append(_run(graph, each.train(training), seed))
                except (ValueError, RuntimeError) as refusal:
                    results.append(str(refusal).splitlines()[0])
            mode = "training" if training else "inference"
            yield from (f"{what} in {mode}" for what in _compared(*results))
        after = reference.state_dict()
        for key, value in module.state_dict().items():
            if not _close(value, after[key]):
                yield f"`{key}` differs after a step"


def _stored(module: nn.Module) -> dict[str, tuple[object, ...]]:
    """Shape, type and kind of everything in the state dict."""
    trained = {key: p.requires_grad for key, p in module.named_parameters(remove_duplicate=False)}
    return {
        key: (tuple(value.shape), value.dtype, key in trained)
        for key, value in module.state_dict().items()
    }


def _fixed(graph: Graph) -> frozenset[str]:
    """Buffers whose values are part of the operation."""
    return frozenset(
        f"{node.path}.{name}"
        for node in graph.nodes
        for name, buffer in node.op.buffers(graph.site(node)).items()
        if buffer.values is not None or not buffer.persistent
    )


def _run(graph: Graph, module: nn.Module, seed: int) -> _Run:
    """Outputs of inference, and gradients of inputs and weights, all outputs weighed alike."""
    module.zero_grad()
    inputs = sample([graph.tensors[value] for value in graph.inputs.values()], _BATCH, seed)
    leaves = [value.double().requires_grad_() for value in inputs]
    torch.manual_seed(seed)
    result = module(*[leaf.clone() for leaf in leaves])
    if isinstance(module, Interpreted):
        names = [output.name for output in graph.outputs if not output.training]
        outputs = dict(zip(names, result, strict=True))
    else:
        outputs = named_outputs(graph, result, module.training)
        for output in graph.outputs:
            if output.training:
                outputs.pop(output.name, None)
    generator = torch.Generator().manual_seed(seed)
    weighed = [
        (each, torch.randn(each.shape, generator=generator, dtype=each.dtype))
        for each in outputs.values()
    ]
    trained = [(each, weight) for each, weight in weighed if each.requires_grad]
    if trained:
        torch.autograd.backward(*map(list, zip(*trained, strict=True)))
    gradients = {name: leaf.grad for name, leaf in zip(graph.inputs, leaves, strict=True)}
    gradients |= {key: parameter.grad for key, parameter in module.named_parameters()}
    return _Run(outputs, gradients)


def _compared(mine: _Run | str, other: _Run | str) -> Iterator[str]:
    if isinstance(mine, str) or isinstance(other, str):
        if isinstance(mine, str) is not isinstance(other, str):
            yield f"only one of the two refuses: {mine if isinstance(mine, str) else other}"
        return
    for name, tensor in other.outputs.items():
        if tuple(mine.outputs[name].shape) != tuple(tensor.shape):
            yield f"output `{name}` is {tuple(mine.outputs[name].shape)}, not {tuple(tensor.shape)}"
        elif not _close(mine.outputs[name], tensor):
            yield f"output `{name}` differs"
    for name, gradient in other.gradients.items():
        if not _close(mine.gradients[name], gradient):
            yield f"the gradient of `{name}` differs"


def _close(mine: Tensor | None, other: Tensor | None) -> bool:
    if mine is None or other is None:
        return all(each is None or not each.any() for each in (mine, other))
    finite = other.isfinite()
    if not torch.equal(finite, mine.isfinite()):
        return False
    apart = (mine[finite] - other[finite]).abs()
    if not apart.numel():
        return True
    if apart.dtype == torch.bool or not apart.is_floating_point():
        return not apart.any()
    return bool(apart.max() <= _TOLERANCE * other[finite].abs().max().clamp(min=1e-3))
