"""The operations that torch runs below autograd: what a module does, whatever its source says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Operations", "differences", "of_inference", "of_training"]


class Operations(TorchDispatchMode):
    """Writes down every aten operation: its name, shapes, and arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and note it."""
        given = [str(_shown(each)) for each in args]
        given += [f"{key}={_shown(value)}" for key, value in (kwargs or {}).items()]
        self.seen.append(f"{func}({', '.join(given)})")
        return func(*args, **(kwargs or {}))


def _shown(value: Any) -> Any:
    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"

    return tree_map(one, value)


def of_inference(module: nn.Module, *inputs: Tensor) -> list[str]:
    """The operations of a forward pass in evaluation mode."""
    module.eval()
    with torch.no_grad(), Operations() as operations:
        module(*inputs)
    return operations.seen


def of_training(module: nn.Module, *inputs: Tensor) -> tuple[list[str], list[str]]:
    """The operations of forward and of backward in training mode, all outputs weighed alike."""
    module.train()
    with Operations() as forward:
        outputs = [leaf for leaf in tree_leaves(module(*inputs)) if isinstance(leaf, Tensor)]
    weights = [torch.ones_like(output) for output in outputs]
    with Operations() as backward:
        torch.autograd.backward(outputs, weights)
    return forward.seen, backward.seen


def differences(ours: Sequence[str], theirs: Sequence[str], most: int = 5) -> Iterator[str]:
    """The first places at which two sequences differ; nothing if they are equal."""
    found = 0
    for number, (mine, other) in enumerate(zip_longest(ours, theirs, fillvalue="nothing")):
        if mine != other:
            yield f"operation {number}: {mine} for {other}"
            found += 1
            if found == most:
                return
