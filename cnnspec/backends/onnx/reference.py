"""The network in torch that a file is made from and proved against, whatever weights came as.

What a file looks like may not enter.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

import numpy as np
import torch
from torch import nn

from cnnspec.backends.onnx.writer import Array
from cnnspec.backends.torch.emit import write
from cnnspec.backends.torch.module import Chosen, choose, construct, fill
from cnnspec.backends.torch.verify import Promise, promises
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph

__all__ = ["Given", "Reference", "arrays_of", "hash_of", "reference"]

Given = nn.Module | str | os.PathLike[str] | Mapping[str, torch.Tensor | Array]
"""Weights: a module, a file, or tensors or arrays by state-dict key."""

_INSIDE = ("_orig_mod", "module")
"""Where torch.compile and data parallelism keep the module that they are given."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A float32 module on the CPU, its weights and buffers by key, and how given weights fit."""

    module: nn.Module
    arrays: Mapping[str, Array]
    chosen: Chosen | None


def reference(
    graph: Graph,
    weights: Given | None = None,
    *,
    seed: int = 0,
    partial: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Reference:
    """The network with `weights`; without any, with those that start from `seed`.

    A module is used itself where it is float32 on the CPU, else a copy that is, and keeps its mode.
    With `partial`, tensors that fit are taken and the others start.

    Raises `EnvironmentFailure` for weights that cannot be read or do not fit.
    """
    promised = promises(graph)
    made = construct(write(graph), graph, promised)
    if isinstance(weights, nn.Module):
        own = _bare(weights, promised)
        state = own.state_dict(keep_vars=True)
        chosen = choose(made, state, partial=partial)
        if chosen is not None and chosen.match.complete:
            own = _plain(own)
            found = arrays_of(own)
            if promised.keys() <= found.keys():
                return Reference(own, found, chosen)
    elif weights is None or isinstance(weights, (str, os.PathLike)):
        chosen = choose(made, weights, partial=partial)
    elif not isinstance(weights, Mapping):
        raise EnvironmentFailure("weights are a module, a file, or tensors or arrays by key")
    else:
        tensors = {key: _tensor(key, value) for key, value in weights.items()}
        chosen = choose(made, tensors, partial=partial)
    fill(made, promised, seed, chosen.tensors if chosen else {}, progress)
    return Reference(made, arrays_of(made), chosen)


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Weights and buffers of a float32 module on the CPU as arrays, by key; memory is shared."""
    named = chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    return {name: tensor.detach().numpy() for name, tensor in named}


def hash_of(arrays: Mapping[str, Array]) -> str:
    """The SHA-256 of keys, types, shapes and values, in the order of the keys; hexadecimal."""
    found = sha256()
    for key, array in sorted(arrays.items()):
        stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
        found.update(f"{key} {stored.dtype.str} {stored.shape}\n".encode())
        found.update(np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _bare(module: nn.Module, promised: Mapping[str, Promise]) -> nn.Module:
    """The module inside those that only pass calls on to it."""
    while not any(key in promised for key in module.state_dict(keep_vars=True)):
        held = (getattr(module, name, None) for name in _INSIDE)
        inside = next((each for each in held if isinstance(each, nn.Module)), None)
        if inside is None:
            break
        module = inside
    return module


def _plain(module: nn.Module) -> nn.Module:
    """The module itself where it is float32 on the CPU, else a copy that is."""
    stored = chain(module.parameters(), module.buffers())
    if all(
        tensor.device.type == "cpu"
        and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
        for tensor in stored
    ):
        return module
    return copy.deepcopy(module).float().cpu()


def _tensor(key: str, value: torch.Tensor | Array) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biufc":
        raise EnvironmentFailure(f"the weights do not fit: `{key}` is neither a tensor nor numbers")
    array = np.require(array, array.dtype.newbyteorder("="), "C")
    # torch warns about memory that it may not write to, though nobody does.
    return torch.as_tensor(array if array.flags.writeable else array.copy())
