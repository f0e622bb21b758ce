"""What cnnspec says of a network against what torch does: sizes, weights, arithmetic.

The module is built from the generated source on torch's meta device, where nothing is computed. It
is run twice: as it is, with hooks on its modules, and with every tensor as an output, so that what
is no module is compared as well. Figures of a layer come from torch alone; where torch counts
something else than cnnspec means, `EXPECTED_FLOPS` says what.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnspec.api import Network
from cnnspec.backends.torch import named_outputs
from cnnspec.backends.torch.emit import write
from cnnspec.ir import Graph, NetworkOutput, Node
from cnnspec.op import Op, Site
from cnnspec.report import Report
from tests.ops.harness import Interpreted, alone

__all__ = ["Torch", "differences", "module_of"]


def module_of(graph: Graph, device: str = "meta") -> nn.Module:
    """The generated source as a module on a device, executed here and not by the back end."""
    written = write(graph)
    made: dict[str, Any] = {"__name__": f"fuzz_{graph.name}"}
    exec(compile(written.text, "<generated>", "exec", dont_inherit=True), made)
    with torch.device(device):
        module: nn.Module = made[written.network]()
    return module


def _samples(graph: Graph, batch: int, device: str = "meta") -> list[torch.Tensor]:
    return [
        torch.zeros(batch, *graph.tensors[value].shape, device=device)
        for value in graph.inputs.values()
    ]


class Torch:
    """What torch says; the arithmetic of a kind of layer is measured once and kept."""

    def __init__(self) -> None:
        self._macs: dict[tuple[Op, Site], int] = {}

    def macs(self, op: Op, site: Site) -> int:
        """Multiply-accumulates of one layer at batch 1, as FlopCounterMode has them."""
        key = op, site
        if key not in self._macs:
            graph = alone(op, site.inputs)
            with torch.device("meta"):
                module = Interpreted(graph).eval()
            self._macs[key] = _count(module, graph)
        return self._macs[key]


def _count(module: nn.Module, graph: Graph) -> int:
    """Multiply-accumulates at batch 1.

    Norms by the statistics of the batch refuse a batch with one value in each channel: the figure
    is then that of a batch of two, by two.
    """
    for batch in (1, 2):
        # With gradients attention is computed in steps that are counted.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            try:
                module(*_samples(graph, batch))
            except ValueError as refusal:
                if batch == 1 and "more than 1 value per channel" in str(refusal):
                    continue
                raise
        return counter.get_total_flops() // (2 * batch)
    raise AssertionError("torch refuses a batch of two")


Correction = Callable[[Op, Site, int], int]


def _linked(op: Op, site: Site, macs: int) -> int:
    """torch multiplies by zeros where a table has no link."""
    table: Sequence[Sequence[int]] = op.arguments()["table"]
    return macs * sum(map(len, table)) // (len(table) * site.x.shape[0])


def _inside(op: Op, site: Site, macs: int) -> int:
    """torch multiplies the padding, for which `padding_weights: false` has no weights."""
    given = op.arguments()
    if given["padding_weights"]:
        return macs
    links = site.x.shape[0] * site.y.shape[0]
    axes = zip(
        site.x.shape[1:],
        site.y.shape[1:],
        given["kernel_size"],
        given["stride"],
        given["dilation"],
        strict=True,
    )
    for axis, (n, out, kernel, stride, dilation) in enumerate(axes):
        if given["padding"] == "same":
            before = max((out - 1) * stride + (kernel - 1) * dilation + 1 - n, 0) // 2
        else:
            before = given["padding"][axis][0]
        links *= sum(
            0 <= position * stride - before + tap * dilation < n
            for position in range(out)
            for tap in range(kernel)
        )
    return links


EXPECTED_FLOPS: Mapping[str, Correction] = {
    "MaskedConv2d": _linked,
    "LocallyConnected1d": _inside,
    "LocallyConnected2d": _inside,
}


def differences(network: Network, report: Report, judge: Torch) -> Iterator[str]:
    """Everything in which the analysis and torch differ; nothing if all is well."""
    graph = network.graph
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument; the question is what it computes.
        warnings.simplefilter("ignore")
        yield from _stored(graph, report)
        yield from _hooked(graph, report)
        yield from _every_value(graph)
        yield from _arithmetic(graph, report, judge)


# ----------------------------------------------------------------------------------- the parts


def _owner(graph: Graph, node: Node) -> Node:
    while node.share is not None:
        node = graph.nodes[node.share]
    return node


def _stored(graph: Graph, report: Report) -> Iterator[str]:
    """Parameters and buffers: of every layer, and in total."""
    module = module_of(graph)
    parameters = dict(module.named_parameters())
    kept = set(module.state_dict())
    buffers = {key: buffer for key, buffer in module.named_buffers() if key in kept}
    owners = {node.path for node in graph.nodes if node.share is None}
    of_layer: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for key, parameter in parameters.items():
        path = _layer_of(key, owners)
        if path is None:
            yield f"the module stores `{key}`, which belongs to no layer"
            continue
        of_layer[path][0] += parameter.numel()
        of_layer[path][1] += parameter.numel() if parameter.requires_grad else 0
    for key, buffer in buffers.items():
        path = _layer_of(key, owners)
        if path is None:
            yield f"the module stores `{key}`, which belongs to no layer"
            continue
        of_layer[path][2] += buffer.numel()
    payers = _payers(graph)
    for layer in report.layers:
        node = graph.by_path[layer.path]
        owner = _owner(graph, node)
        said = [layer.params, layer.trainable_params, layer.buffers]
        found = of_layer[owner.path] if payers[owner.index] == node.index else [0, 0, 0]
        if said != found:
            yield f"`{layer.path}` ({layer.op}) stores {found}, the report says {said}"
    totals = report.totals.training
    total = [totals.params, totals.trainable_params, totals.buffers]
    sums = [
        sum(p.numel() for p in parameters.values()),
        sum(p.numel() for p in parameters.values() if p.requires_grad),
        sum(b.numel() for b in buffers.values()),
    ]
    if total != sums:
        yield f"the module stores {sums} in all, the report says {total}"


def _payers(graph: Graph) -> dict[int, int]:
    """For each node that stores weights the one that is charged with them.

    The first of those that inference runs, or the owner.
    """
    users: dict[int, list[int]] = defaultdict(list)
    for node in graph.nodes:
        owner = _owner(graph, node).index
        users[owner].insert(0 if owner == node.index else len(users[owner]), node.index)
    return {
        owner: next((index for index in indices if index in graph.inference), owner)
        for owner, indices in users.items()
    }


def _layer_of(key: str, owners: set[str]) -> str | None:
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in owners:
            return ".".join(parts[:length])
    return None


def _hooked(graph: Graph, report: Report) -> Iterator[str]:
    """Shapes that come out of modules and out of the network, for a batch of two."""
    module = module_of(graph)
    for norm in module.modules():
        if getattr(norm, "momentum", 0) is None:
            # The cumulative average reads a number, which the meta device does not have.
            norm.momentum = 0.1
    seen: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    # What stores nothing may be one module for several calls of a shared block.
    owners = {node.path for node in graph.nodes if node.share is None and _stores(graph, node)}
    hooked = set()
    for path, inner in module.named_modules():
        if path in owners:
            hooked.add(path)
            inner.register_forward_hook(
                lambda _, __, result, path=path: seen[path].append(_first_shape(result))
            )
    for training in (True, False):
        seen.clear()
        run = graph.used if training else graph.inference
        with torch.no_grad():
            result = module.train(training)(*_samples(graph, 2))
        for name, tensor in named_outputs(graph, result, training).items():
            value = next(output.value for output in graph.outputs if output.name == name)
            promised = graph.tensors[value]
            if tuple(tensor.shape) != ((2,) if promised.batched else (1,)) + promised.shape:
                yield f"output `{name}` is {tuple(tensor.shape)}, not {promised.shape}"
        expected: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for node in graph.nodes:
            owner = _owner(graph, node)
            if owner.path in hooked and node.index in run:
                expected[owner.path].append(report[node.path].output_shape)
        for path in hooked:
            if sorted(expected[path]) != sorted(seen[path]):
                mode = "training" if training else "inference"
                yield f"`{path}` gives {seen[path]} in {mode}, the report says {expected[path]}"


def _stores(graph: Graph, node: Node) -> bool:
    site = graph.site(node)
    return bool(node.op.weights(site) or node.op.buffers(site))


def _first_shape(result: Any) -> tuple[int, ...]:
    while not isinstance(result, torch.Tensor):
        result = result[0]
    return tuple(result.shape[1:])


def with_all_outputs(graph: Graph) -> Graph:
    """The network with every tensor as an output, named by its number."""
    values = (value for value, producer in enumerate(graph.producers) if producer >= 0)
    return replace(graph, outputs=tuple(NetworkOutput(f"v{v}", v) for v in values))


def _every_value(graph: Graph) -> Iterator[str]:
    """The shape of every tensor, modules or not."""
    wide = with_all_outputs(graph)
    module = module_of(wide).eval()
    with torch.no_grad():
        result = module(*_samples(wide, 3))
    for name, tensor in named_outputs(wide, result, training=False).items():
        value = int(name[1:])
        promised = graph.tensors[value]
        shape = tuple(tensor.shape)
        # A tensor without a batch stands with an axis of one, or without, as it broadcasts.
        wanted = {(3, *promised.shape)}
        if not promised.batched:
            wanted = {(1, *promised.shape), promised.shape}
        if shape not in wanted:
            node = graph.nodes[graph.producers[value]]
            yield f"`{node.path}` ({node.op}) gives {shape}, not {promised.shape}"


def _arithmetic(graph: Graph, report: Report, judge: Torch) -> Iterator[str]:
    """Multiply-accumulates of every layer and of inference in total."""
    total = 0
    for node in graph.nodes:
        site = graph.site(node)
        counted = judge.macs(node.op, site)
        if node.index in graph.inference:
            total += counted
        correction = EXPECTED_FLOPS.get(node.op.name)
        meant = counted if correction is None else correction(node.op, site, counted)
        said = report[node.path].macs
        if said != meant:
            yield f"`{node.path}` ({node.op} on {site.x}) has {meant} macs, not {said}"
    found = _count(module_of(graph).eval(), graph)
    if found != total:
        yield f"the network has {found} macs by torch, its layers have {total}"
    said = report.totals.macs
    layers = sum(
        layer.macs
        for layer, node in zip(report.layers, graph.nodes, strict=True)
        if node.index in graph.inference
    )
    if said != layers:
        yield f"the total of {said} macs is not the sum {layers} of the layers"
