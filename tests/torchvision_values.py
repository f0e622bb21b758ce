"""How far our modules are from torchvision's: outputs, gradients, and what a step leaves behind.

Differences are of the largest element: max|ours - theirs| / max|theirs|. Bounds are the business
of those who ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

import cnnspec
from cnnspec.backends.torch import named_outputs
from tests.torchvision_networks import difference, lively, pixels, without_dropout

__all__ = ["Trained", "input_of", "of_inference", "of_training", "one_thread"]

_DRAWS_IN_ANOTHER_ORDER = frozenset({"googlenet"})
"""The heads for training run at another time than torchvision's, and so would drop otherwise."""


class Trained(NamedTuple):
    """Differences by name after a step of training with equal weights, input and seed."""

    outputs: dict[str, float]
    gradients: dict[str, float]
    """By key, of every parameter; 0 where both are zero."""
    silent: frozenset[str]
    """Parameters with a gradient of zero: stochastic depth may drop a block for both images."""
    stored: dict[str, float]
    """By key, of everything that is stored, statistics and counters too."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Where others compute as well, threads wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def input_of(net: cnnspec.Network) -> Tensor:
    """Two random images of the network's size."""
    (shape,) = net.analyze().inputs.values()
    return pixels(2, *shape)


def of_inference(net: cnnspec.Network, ours: nn.Module, theirs: nn.Module) -> dict[str, float]:
    """Differences of the outputs by name."""
    given = input_of(net)
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        return _compared(_of_ours(net, ours, given), _of_theirs(net, theirs, given))


def of_training(net: cnnspec.Network, ours: nn.Module, theirs: nn.Module, seed: int = 3) -> Trained:
    """One step of SGD on both, ours first; its gradients are left in the parameters.

    The modules take turns, so that the activations of only one are alive.
    """
    given = input_of(net)
    ours.train()
    theirs.train()
    still = without_dropout(ours, theirs) if net.name in _DRAWS_IN_ANOTHER_ORDER else nullcontext()
    with still:
        found = _step(ours, lambda: _of_ours(net, ours, given), seed)
        wanted = _step(theirs, lambda: _of_theirs(net, theirs, given), seed)
    assert set(found) == set(wanted)
    gradients, silent = {}, set()
    other = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        reference = other.pop(key).grad
        assert parameter.grad is not None
        assert reference is not None
        if reference.any():
            gradients[key] = difference(parameter.grad, reference)
        else:
            assert not parameter.grad.any(), key
            gradients[key] = 0.0
            silent.add(key)
    assert not other
    after = theirs.state_dict()
    stored = {key: difference(tensor, after[key]) for key, tensor in ours.state_dict().items()}
    return Trained(_compared(found, wanted), gradients, frozenset(silent), stored)


def _step(
    module: nn.Module, outputs_of: Callable[[], Mapping[str, Tensor]], seed: int
) -> dict[str, Tensor]:
    """The outputs in training, let go of what made them, after a step that weighs them alike."""
    module.zero_grad()
    torch.manual_seed(seed)
    outputs = outputs_of()
    step = torch.optim.SGD(module.parameters(), lr=1e-3)
    torch.autograd.backward([outputs[name].square().mean() for name in sorted(outputs)])
    step.step()
    return {name: output.detach() for name, output in outputs.items()}


def _compared(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, float]:
    assert found
    for name in found:
        assert lively(wanted[name])
    return {name: difference(output, wanted[name]) for name, output in found.items()}


def _of_ours(net: cnnspec.Network, module: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """Our outputs by name."""
    return named_outputs(net.graph, module(given), training=module.training)


def _of_theirs(net: cnnspec.Network, module: nn.Module, given: Tensor) -> dict[str, Tensor]:
    """torchvision's outputs, by the names that the specs have for them."""
    made = module(given)
    if isinstance(made, Tensor):
        (name,) = net.analyze().outputs
        return {name: made}
    named = made if isinstance(made, dict) else made._asdict()
    return {name.replace("aux_logits", "aux"): tensor for name, tensor in named.items()}
