"""torchvision's networks with weights, and ours beside them: what computing tests compare."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import nn

from tests.golden.oracles import model


def reference(name: str) -> nn.Module:
    """torchvision's network with lively weights, in evaluation mode."""
    module: nn.Module = deepcopy(model(name)).to_empty(device="cpu")
    enliven(module)
    return module


def enliven(module: nn.Module, seed: int = 0) -> None:
    """Random weights and batch-norm statistics with which a signal neither dies nor explodes.

    Buffers other than statistics stay, such as the table of a masked convolution.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(values * math.sqrt(2 / math.prod(parameter.shape[1:])))
            else:
                parameter.copy_(values * 0.1)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._NormBase):
                _norm(part, generator)
            elif isinstance(part, (nn.LayerNorm, nn.GroupNorm)):
                part.weight.add_(1)


def _norm(norm: nn.modules.batchnorm._NormBase, generator: torch.Generator) -> None:
    size = (norm.num_features,)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.weight.add_(1)
    norm.running_mean.copy_(torch.randn(size, generator=generator) * 0.1)
    norm.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
    norm.num_batches_tracked.zero_()


def pixels(*shape: int, seed: int = 1) -> torch.Tensor:
    """Random input."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """max|ours - theirs| / max|theirs|."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def lively(result: torch.Tensor) -> bool:
    """Whether a result says something of its input: items of the batch differ visibly."""
    spread = (result - result[:1]).abs().max() / result.abs().max()
    return bool(spread > 1e-3)


@contextmanager
def without_dropout(*modules: nn.Module) -> Iterator[None]:
    """Training mode in which nothing is dropped at random."""
    for module in modules:
        module.train()
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    yield
    for module in modules:
        module.eval()
