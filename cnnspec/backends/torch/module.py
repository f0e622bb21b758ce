"""Graph to `nn.Module`: runs the very source that `emit` prints, then starts the weights.

What you read is what you train. The module is made on the meta device and compared with what was
analyzed; then every weight is written once, from its initialiser or from weights that are given.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cnnspec.backends.torch.emit import Written, write
from cnnspec.backends.torch.execution import execute, instantiate
from cnnspec.backends.torch.verify import (
    ModuleMismatchError,
    Promise,
    named_outputs,
    promises,
    verify_stored,
)
from cnnspec.backends.torch.weights import Match, StateDict, match, read_weights, unprefixed
from cnnspec.diagnostics import EnvironmentFailure, did_you_mean
from cnnspec.ir import Graph
from cnnspec.weights import Buffer, Init

__all__ = [
    "DTYPES",
    "Chosen",
    "Given",
    "ModuleMismatchError",
    "Progress",
    "choose",
    "construct",
    "dtype_of",
    "fill",
    "named_outputs",
    "to_torch",
]

_STARTING = frozenset(
    (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
)


class _Unstarted(TorchFunctionMode):
    """Leaves tensors without values as they are, where a constructor would start them.

    There is nothing to write, and torch's own way of not writing imports its compiler (1 s).
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        if function in _STARTING:
            target = arguments[0] if arguments else (named or {})["tensor"]
            if target.is_meta:
                return target
        return function(*arguments, **(named or {}))


DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
"""Types that the floats of a module may have."""

Given = str | os.PathLike[str] | Mapping[str, Tensor]
"""Weights: a file, or tensors by key."""

Progress = Callable[[int, int], None]
"""Told how many elements of all are written."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The tensors taken from given weights, how they fit, and what was done to read them."""

    tensors: Mapping[str, Tensor]
    match: Match
    remarks: tuple[str, ...]


def to_torch(
    graph: Graph,
    seed: int = 0,
    weights: Given | None = None,
    *,
    partial: bool = False,
) -> nn.Module:
    """The network as a torch module on the CPU, in training mode, its weights started or given.

    State-dict keys are the paths of the graph. Each weight has a random generator of its own, made
    from `seed` and its key, so that it does not depend on any other part of the network. `weights`
    are a file or a state dict, which has to fit unless `partial` takes what does.

    Raises `ModuleMismatchError` if keys, shapes or types are not what the graph promises, and
    `EnvironmentFailure` for weights that cannot be read or do not fit.
    """
    seed = operator.index(seed)
    promised = promises(graph)
    module = construct(write(graph), graph, promised)
    chosen = choose(module, weights, partial=partial)
    fill(module, promised, seed, chosen.tensors if chosen else {})
    return module


def dtype_of(name: str) -> torch.dtype:
    """The type of that name; `EnvironmentFailure` for one that no module may have."""
    found = DTYPES.get(name)
    if found is None:
        raise EnvironmentFailure(
            f"there is no type `{name}` of a module",
            help=did_you_mean(str(name).removeprefix("torch."), DTYPES)
            or f"types are {', '.join(DTYPES)}",
        )
    return found


def construct(
    written: Written,
    graph: Graph,
    promised: Mapping[str, Promise],
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The module on the meta device, where it has no values yet, proved to store what is promised.

    Raises `ModuleMismatchError`.
    """
    made = execute(written.text, graph.name)
    with torch.inference_mode(False), torch.device("meta"), _Unstarted():
        module = instantiate(made, written.network)
        if not dtype == torch.get_default_dtype() == torch.float32:
            module = module.to(dtype)
    verify_stored(module, promised, dtype)
    return module


def choose(module: nn.Module, weights: Given | None, *, partial: bool = False) -> Chosen | None:
    """The tensors that a module from `construct` takes from weights, where there are any.

    Raises `EnvironmentFailure` for weights that cannot be read or do not fit.
    """
    if weights is None:
        return None
    if isinstance(weights, (str, os.PathLike)):
        read = read_weights(weights)
    elif isinstance(weights, Mapping):
        read = StateDict({key: _tensor(key, value) for key, value in weights.items()})
    else:
        hint = ": pass its `state_dict()`" if isinstance(weights, nn.Module) else ""
        raise TypeError(f"weights are a file or a state dict, not {type(weights).__name__}{hint}")
    wanted = module.state_dict()
    read = unprefixed(read, wanted)
    found = match(wanted, read.tensors, partial=partial)
    return Chosen({key: read.tensors[key] for key in found.taken}, found, read.remarks)


def _tensor(key: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"`{key}` of the weights is no tensor, but {type(value).__name__}")
    return value


def fill(
    module: nn.Module,
    promised: Mapping[str, Promise],
    seed: int,
    given: Mapping[str, Tensor],
    progress: Progress | None = None,
) -> None:
    """Give a module from `construct` memory on the CPU, and write every tensor once.

    Those that are `given` are copied, the others start.
    """
    with torch.inference_mode(False):
        _take_memory(module)
        with torch.no_grad():
            _write(module, promised, seed, given, progress)


def _take_memory(module: nn.Module) -> None:
    """Put tensors without values on the CPU in the places of those on the meta device.

    What `Module.to_empty` does, without the Python that it runs for each tensor.
    """
    for layer in module.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
            setattr(layer, name, nn.Parameter(empty, parameter.requires_grad))
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(layer, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu"))


def _write(
    module: nn.Module,
    promised: Mapping[str, Promise],
    seed: int,
    given: Mapping[str, Tensor],
    progress: Progress | None,
) -> None:
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    whole = sum(tensor.numel() for tensor in tensors.values())
    done = 0
    for key, promise in promised.items():
        tensor = tensors[key]
        if key in given:
            tensor.copy_(given[key].reshape(tensor.shape))
        elif isinstance(promise.stored, Buffer):
            _fill(tensor, promise.stored)
        elif promise.init is not None:
            _start(tensor, promise.init, _generator(seed, key))
        done += tensor.numel()
        if progress is not None:
            progress(done, whole)


def _generator(seed: int, key: str) -> torch.Generator:
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


_SEEDED: Set[str] = frozenset(
    (
        "uniform",
        "normal",
        "trunc_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "xavier_uniform",
        "xavier_normal",
        "orthogonal",
    )
)


def _start(parameter: Tensor, init: Init, generator: torch.Generator) -> None:
    """Write a parameter's first value with the function of torch.nn.init that `init` names.

    Values are those of float32, rounded where the parameter's type is another.
    """
    random = {"generator": generator} if init.kind in _SEEDED else {}
    start = getattr(nn.init, f"{init.kind}_")
    if parameter.dtype == torch.float32:
        start(parameter, **dict(init.arguments), **random)
    else:
        single = torch.empty_like(parameter, dtype=torch.float32)
        parameter.copy_(start(single, **dict(init.arguments), **random))


def _fill(tensor: Tensor, buffer: Buffer) -> None:
    """Write a buffer's value."""
    if buffer.values is None:
        tensor.fill_(buffer.fill)
    else:
        tensor.copy_(torch.tensor(buffer.values, dtype=tensor.dtype).reshape(buffer.shape))
