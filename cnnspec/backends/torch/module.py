"""Graph to `nn.Module`: runs the very source that `emit` prints, then starts the weights.

What you read is what you train: the source is registered, so that tracebacks and
`inspect.getsource` show it. Every weight is written once.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from types import ModuleType

import torch
from torch import Tensor, nn

from cnnspec.backends.torch.emit import write
from cnnspec.ir import Graph
from cnnspec.weights import Buffer, Init, Weight

__all__ = ["ModuleMismatchError", "named_outputs", "to_torch"]


class ModuleMismatchError(RuntimeError):
    """The module does not store what the ops promise: a defect of cnnspec, never of a spec."""


def to_torch(graph: Graph, seed: int = 0) -> nn.Module:
    """The network as a torch module on the CPU, in training mode, its weights started.

    State-dict keys are the paths of the graph. Each weight has a random generator of its own, made
    from `seed` and its key, so that it does not depend on any other part of the network.

    Raises `ModuleMismatchError` if keys, shapes or dtypes are not what the graph promises.
    """
    written = write(graph)
    made = _load(written.text, graph.name)
    with torch.device("meta"):
        module: nn.Module = getattr(made, written.network)()
    promised = dict(_promised(graph))
    _check(module, promised)
    module.to_empty(device="cpu")
    with torch.no_grad():
        for key, (stored, init) in promised.items():
            if isinstance(stored, Buffer):
                _fill(module.get_buffer(key), stored)
            elif init is not None:
                _start(module.get_parameter(key), init, _generator(seed, key))
    return module


def named_outputs(
    graph: Graph, result: Tensor | tuple[Tensor, ...], training: bool
) -> dict[str, Tensor]:
    """What a module returned in that mode, by the names of the network's outputs."""
    names = [output.name for output in graph.outputs if training or not output.training]
    tensors = (result,) if isinstance(result, Tensor) else result
    return dict(zip(names, tensors, strict=True))


# ---------------------------------------------------------------------------------------- source


def _load(source: str, name: str) -> ModuleType:
    """The source as an imported module; equal sources are one module."""
    digest = sha256(source.encode()).hexdigest()[:16]
    module_name = f"cnnspec_network_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "_-" else "_" for c in name)
    filename = f"<cnnspec {plain} {digest}>"
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    module = ModuleType(module_name)
    module.__file__ = filename
    code = compile(source, filename, "exec", dont_inherit=True)
    sys.modules[module_name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


# --------------------------------------------------------------------------------------- weights


def _promised(graph: Graph) -> Iterator[tuple[str, tuple[Weight | Buffer, Init | None]]]:
    """Every stored tensor by key, as the ops' rules have it; parameters with their initialiser."""
    for node in graph.nodes:
        if node.share is not None:
            continue
        site = graph.site(node)
        override = dict(node.init)
        for name, weight in node.op.weights(site).items():
            yield _key(node.path, name), (weight, override.get(name, weight.init))
        for name, buffer in node.op.buffers(site).items():
            yield _key(node.path, name), (buffer, None)


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if name else path


def _check(module: nn.Module, promised: Mapping[str, tuple[Weight | Buffer, Init | None]]) -> None:
    """Compare what a module stores with what the ops promise."""
    found: dict[str, tuple[object, ...]] = {}
    kept = set(module.state_dict(keep_vars=True))
    for key, parameter in module.named_parameters():
        found[key] = ("weight", tuple(parameter.shape), parameter.requires_grad, key in kept)
    for key, tensor in module.named_buffers():
        dtype = str(tensor.dtype).removeprefix("torch.")
        found[key] = ("buffer", tuple(tensor.shape), dtype, key in kept)
    expected: dict[str, tuple[object, ...]] = {}
    for key, (stored, _) in promised.items():
        if isinstance(stored, Buffer):
            expected[key] = ("buffer", stored.shape, stored.dtype, stored.persistent)
        else:
            expected[key] = ("weight", stored.shape, stored.trainable, True)
    if found == expected:
        return
    differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    key = differing[0]
    raise ModuleMismatchError(
        "cnnspec made a module that is not what it analyzed: "
        f"`{key}` is {found.get(key, 'absent')}, not {expected.get(key, 'absent')}"
        + (f", and {len(differing) - 1} more differ" if len(differing) > 1 else "")
    )


def _generator(seed: int, key: str) -> torch.Generator:
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


_SEEDED = (
    "uniform",
    "normal",
    "trunc_normal",
    "kaiming_uniform",
    "kaiming_normal",
    "xavier_uniform",
    "xavier_normal",
    "orthogonal",
)


def _start(parameter: nn.Parameter, init: Init, generator: torch.Generator) -> None:
    """Write a parameter's first value with the function of torch.nn.init that `init` names."""
    random = {"generator": generator} if init.kind in _SEEDED else {}
    getattr(nn.init, f"{init.kind}_")(parameter, **dict(init.arguments), **random)


def _fill(tensor: Tensor, buffer: Buffer) -> None:
    """Write a buffer's value."""
    if buffer.values is None:
        tensor.fill_(buffer.fill)
    else:
        tensor.copy_(torch.tensor(buffer.values, dtype=tensor.dtype).reshape(buffer.shape))
