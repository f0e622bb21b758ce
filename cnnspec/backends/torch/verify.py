"""Whether a module is what was analyzed: keys, shapes, types, counts, and the shape of every layer.

Nothing is computed: modules and inputs are on the meta device. Numbers are the business of tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnspec.diagnostics import shape_text
from cnnspec.ir import Graph, Node
from cnnspec.lower import Helper, Module
from cnnspec.op import Site
from cnnspec.report import Report
from cnnspec.weights import Buffer, Init, Weight

__all__ = [
    "ModuleMismatchError",
    "Promise",
    "Verification",
    "named_outputs",
    "promises",
    "verify_counts",
    "verify_shapes",
    "verify_stored",
]


class ModuleMismatchError(RuntimeError):
    """The module is not what was analyzed: a defect of cnnspec, never of a spec."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"cnnspec made a module that is not what it analyzed: {fact}")


@dataclass(frozen=True, slots=True)
class Promise:
    """A tensor that an operation says it stores; a parameter has an initialiser."""

    stored: Weight | Buffer
    init: Init | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared: stored tensors, and calls of layers with the batches they had."""

    tensors: int
    layers: int
    batches: tuple[int, ...]


def promises(graph: Graph) -> dict[str, Promise]:
    """Every stored tensor by its key, as the ops' rules have it."""
    found: dict[str, Promise] = {}
    for node in graph.nodes:
        if node.share is not None:
            continue
        site = graph.site(node)
        override = dict(node.init)
        for name, weight in node.op.weights(site).items():
            found[_key(node.path, name)] = Promise(weight, override.get(name, weight.init))
        for name, buffer in node.op.buffers(site).items():
            found[_key(node.path, name)] = Promise(buffer, None)
    return found


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if name else path


def named_outputs(
    graph: Graph, result: Tensor | tuple[Tensor, ...], training: bool
) -> dict[str, Tensor]:
    """What a module returned in that mode, by the names of the network's outputs."""
    names = [output.name for output in graph.outputs if training or not output.training]
    tensors = (result,) if isinstance(result, Tensor) else result
    return dict(zip(names, tensors, strict=True))


# ---------------------------------------------------------------------------------- what is stored


def verify_stored(
    module: nn.Module, promised: Mapping[str, Promise], dtype: torch.dtype = torch.float32
) -> None:
    """Compare keys, shapes, types and what is trained with what the ops promise.

    `dtype` is that of the module's floats. Raises `ModuleMismatchError`.
    """
    found: dict[str, tuple[object, ...]] = {}
    kept = set(module.state_dict(keep_vars=True))
    for key, parameter in module.named_parameters():
        trained = "trained" if parameter.requires_grad else "fixed"
        found[key] = (*_described("parameter", parameter), trained, key in kept)
    for key, tensor in module.named_buffers():
        found[key] = (*_described("buffer", tensor), "fixed", key in kept)
    floats = str(dtype).removeprefix("torch.")
    expected: dict[str, tuple[object, ...]] = {}
    for key, promise in promised.items():
        stored = promise.stored
        shape = shape_text(stored.shape)
        if isinstance(stored, Buffer):
            own = floats if "float" in stored.dtype else stored.dtype
            expected[key] = ("buffer", shape, own, "fixed", stored.persistent)
        else:
            trained = "trained" if stored.trainable else "fixed"
            expected[key] = ("parameter", shape, floats, trained, True)
    if found == expected:
        return
    differing = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    key = differing[0]
    more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
    raise ModuleMismatchError(
        f"`{key}` is {_shown(found.get(key))}, not {_shown(expected.get(key))}{more}"
    )


def _described(kind: str, tensor: Tensor) -> tuple[object, ...]:
    return kind, shape_text(tensor.shape), str(tensor.dtype).removeprefix("torch.")


def _shown(found: tuple[object, ...] | None) -> str:
    if found is None:
        return "absent"
    kind, shape, dtype, trained, kept = found
    return f"a {trained} {kind} {shape} of {dtype}{'' if kept else ' outside the state dict'}"


def verify_counts(module: nn.Module, report: Report) -> None:
    """Compare the numbers of parameters and buffers with the report's. Raises as above."""
    totals = report.totals.training
    parameters = dict(module.named_parameters())
    buffers = sum(t.numel() for key, t in module.state_dict().items() if key not in parameters)
    counted = {
        "params": sum(parameter.numel() for parameter in parameters.values()),
        "trainable params": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "buffers": buffers,
    }
    reported = {
        "params": totals.params,
        "trainable params": totals.trainable_params,
        "buffers": totals.buffers,
    }
    for what, count in counted.items():
        if count != reported[what]:
            raise ModuleMismatchError(f"it has {count:,} {what}, not {reported[what]:,}")


# ---------------------------------------------------------------------------------- what comes out


_RUNS = ((1, False), (2, False), (2, True))
"""Batch and mode of each run. In training, norms refuse a batch of one where space is one pixel."""


def verify_shapes(module: nn.Module, graph: Graph) -> Verification:
    """Run a module on the meta device; compare the shapes of its outputs and of every layer.

    Layers are those that are modules of their own; what an expression gives is seen by the next
    one. Batches are 1 and 2, in both modes. The mode is left as it was.

    Raises `ModuleMismatchError`, also where the module does not run.
    """
    was_training = module.training
    dtype = next((p.dtype for p in module.parameters()), torch.float32)
    layers = 0
    try:
        with _counters(module):
            for batch, training in _RUNS:
                module.train(training)
                layers += _run(module, graph, batch, dtype)
    finally:
        module.train(was_training)
    stored = sum(1 for _ in module.parameters()) + sum(1 for _ in module.buffers())
    return Verification(stored, layers, tuple(sorted({batch for batch, _ in _RUNS})))


@contextmanager
def _counters(module: nn.Module) -> Iterator[None]:
    """Give counters a value for a while: a norm that averages over all batches asks for it."""
    counters = [
        (layer, name, buffer)
        for layer in module.modules()
        for name, buffer in layer.named_buffers(recurse=False)
        if buffer.dim() == 0 and not buffer.is_floating_point()
    ]
    for layer, name, buffer in counters:
        setattr(layer, name, torch.zeros_like(buffer, device="cpu"))
    try:
        yield
    finally:
        for layer, name, buffer in counters:
            setattr(layer, name, buffer)


def _run(module: nn.Module, graph: Graph, batch: int, dtype: torch.dtype) -> int:
    """One run, and how many calls of layers were compared."""
    training = module.training
    seen: dict[str, list[object]] = {}
    expected: dict[str, list[Node]] = {}
    handles = []
    known = dict(module.named_modules())
    for path, nodes in _layers(graph, graph.used if training else graph.inference).items():
        layer = known.get(path)
        if layer is None or type(layer).__name__ != _class_of(nodes[0], graph.site(nodes[0])):
            continue
        expected[path] = nodes
        results = seen.setdefault(path, [])
        handles.append(
            layer.register_forward_hook(lambda *call, results=results: results.append(call[-1]))
        )
    inputs = [
        torch.empty((batch, *graph.tensors[value].shape), device="meta", dtype=dtype)
        for value in graph.inputs.values()
    ]
    mode = f"{'training' if training else 'inference'} with a batch of {batch}"
    try:
        with torch.no_grad():
            result = module(*inputs)
    except Exception as failure:
        raise ModuleMismatchError(f"{mode} fails: {failure}") from failure
    finally:
        for handle in handles:
            handle.remove()
    for path, nodes in expected.items():
        wanted = Counter(shape_text(_shape_of(graph, n.outputs[0], batch)) for n in nodes)
        found = Counter(shape_text(_first(result).shape) for result in seen[path])
        # A block that shares weights is called for its copy too, whose other layers are no sharers.
        extra = found - wanted if known[path].state_dict() else Counter[str]()
        if wanted - found or extra:
            raise ModuleMismatchError(
                f"in {mode}, `{path}` gives {', '.join(found.elements()) or 'nothing'}, "
                f"not {', '.join(wanted.elements())}"
            )
    values = {output.name: output.value for output in graph.outputs}
    for name, tensor in named_outputs(graph, result, training).items():
        shape = (batch, *graph.tensors[values[name]].shape)
        if tuple(tensor.shape) != shape:
            raise ModuleMismatchError(
                f"in {mode}, output `{name}` is {shape_text(tensor.shape)}, not {shape_text(shape)}"
            )
    return sum(map(len, expected.values()))


def _layers(graph: Graph, running: frozenset[int]) -> dict[str, list[Node]]:
    """Nodes that run, by the path of the node whose weights they have."""
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.index in running:
            owner = node
            while owner.share is not None:
                owner = graph.nodes[owner.share]
            found.setdefault(owner.path, []).append(node)
    return found


def _class_of(node: Node, site: Site) -> str:
    code = node.op.torch(site)
    if isinstance(code, Module):
        return code.target.rpartition(".")[2]
    return code.name if isinstance(code, Helper) else ""


def _first(result: object) -> Tensor:
    """The first tensor of what a layer gave: attention gives its weights too."""
    while isinstance(result, (tuple, list)):
        result = result[0]
    assert isinstance(result, Tensor)  # torch's layers give tensors and tuples of these
    return result


def _shape_of(graph: Graph, value: int, batch: int) -> tuple[int, ...]:
    tensor = graph.tensors[value]
    return (batch, *tensor.shape) if tensor.batched else tensor.shape
