"""Random networks of linear maps and norms: what folding may and must not change, on purpose.

Convolutions that several layers read, calls that share weights with and without their norms, one
input read by many, norms behind norms, before padding, behind dropout, as outputs. A number gives
the same network each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime import GraphOptimizationLevel

from cnnspec.backends.onnx import to_model
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import Reject
from cnnspec.ir import Graph
from cnnspec.op import Op
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.fuzzing.fitting import small
from tests.ops.harness import Interpreted, Network, arrays, randomise, sample

__all__ = ["differences", "graph"]

_TOLERANCE = 1e-4
"""Relative to the largest element of an output, of torch in float64."""

_LEVELS = (GraphOptimizationLevel.ORT_DISABLE_ALL, GraphOptimizationLevel.ORT_ENABLE_ALL)


def graph(number: int) -> Graph:
    """Network `number`."""
    return _Maker(number).make()


class _Maker:
    """Makes one network: `values` are the tensors so far, `calls` the layers that may be shared."""

    def __init__(self, number: int) -> None:
        self.rng = rng = Random(number)
        self.axes = rng.choice((0, 1, 2, 2, 2, 3))
        sizes = (rng.choice((2, 4, 6)), *(rng.randint(4, 8) for _ in range(self.axes)))
        roles = default_roles(len(sizes))
        assert roles is not None
        self.net = Network(x=Tensor(sizes, roles), other=Tensor(sizes, roles))
        self.values = {0: Tensor(sizes, roles), 1: Tensor(sizes, roles)}
        self.calls: list[tuple[int, Op, Tensor]] = []
        self.count = 0

    def make(self) -> Graph:
        """The network, with some of its tensors as outputs."""
        rng = self.rng
        for _ in range(rng.randint(2, 5)):
            value = self._map(self._any())
            if rng.random() < 0.2:
                value = self._or(value, self._put("Dropout", {}, value))
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                value = self._norm(value)
            if rng.random() < 0.3:
                value = self._plain(value)
            if rng.random() < 0.4:
                value = self._join(value)
        self.net.output("last", value)
        made = [found for found in self.values if found > 1 and found != value]
        for number, found in enumerate(rng.sample(made, min(len(made), rng.choice((0, 0, 1, 3))))):
            self.net.output(f"y{number}", found)
        return self.net.graph()

    def _any(self) -> int:
        """The last tensor or any other."""
        values = list(self.values)
        return values[-1] if self.rng.random() < 0.5 else self.rng.choice(values)

    def _put(self, name: str, given: dict[str, Any], *inputs: int) -> int | None:
        """Another layer, which may store what an earlier one does; None if it does not fit."""
        tensors = tuple(self.values[value] for value in inputs)
        share: int | None = None
        same = [call for call in self.calls if call[1].name == name and call[2] == tensors[0]]
        if same and self.rng.random() < 0.4:
            share, op, _ = self.rng.choice(same)
        else:
            try:
                op = bind(registry()[name], given)
            except Reject:
                return None
        try:
            made = op.infer(tensors)
        except Reject:
            return None
        if not small(made):
            return None
        value = self.net.add(f"{name.lower()}{self.count}", op, *inputs, share=share)
        if share is None:
            self.calls.append((self.count, op, tensors[0]))
        self.count += 1
        self.values[value] = made[0]
        return value

    def _map(self, x: int) -> int:
        """A linear map, behind a norm of its input at times."""
        rng, channels = self.rng, self.values[x].shape[0]
        if rng.random() < 0.2:
            x = self._norm(x)
        if not self.axes:
            given: dict[str, Any] = {
                "out_features": rng.choice((2, 4, 6)),
                "bias": rng.random() < 0.5,
            }
            return self._or(x, self._put("Linear", given, x))
        groups = rng.choice([n for n in (1, 1, 2, channels) if channels % n == 0])
        given = {
            "out_channels": groups * rng.choice((1, 2)),
            "kernel_size": rng.choice((1, 2, 3)),
            "stride": rng.choice((1, 1, 2)),
            "groups": groups,
            "padding": rng.choice((0, 0, 1)),
            "bias": rng.random() < 0.5,
        }
        kinds = [f"Conv{self.axes}d", f"Conv{self.axes}d", f"ConvTranspose{self.axes}d"]
        if self.axes == 2:
            kinds.append("MaskedConv2d")
        kind = rng.choice(kinds)
        if kind.startswith("Conv") and "T" not in kind and rng.random() < 0.2:
            given["padding_mode"] = rng.choice(("reflect", "replicate", "circular"))
        if kind == "MaskedConv2d":
            del given["groups"], given["out_channels"]
            given["table"] = [
                sorted(rng.sample(range(channels), rng.randint(1, channels))) for _ in range(3)
            ]
        return self._or(x, self._put(kind, given, x))

    def _norm(self, x: int) -> int:
        """A batch norm, or an instance norm of fixed statistics."""
        rng, axes = self.rng, max(1, self.axes)
        given: dict[str, Any] = {"affine": rng.random() < 0.8, "eps": rng.choice((1e-5, 1e-3))}
        if self.axes and rng.random() < 0.1:
            given["track_running_stats"] = True
            return self._or(x, self._put(f"InstanceNorm{axes}d", given, x))
        return self._or(x, self._put(f"BatchNorm{axes}d", given, x))

    def _plain(self, x: int) -> int:
        name = self.rng.choice(("ReLU", "Dropout", "Identity", "Sigmoid"))
        return self._or(x, self._put(name, {}, x))

    def _join(self, x: int) -> int:
        """With another tensor of the shape."""
        fitting = [v for v, tensor in self.values.items() if tensor == self.values[x]]
        name = self.rng.choice(("add", "concat", "mul"))
        return self._or(x, self._put(name, {}, x, self.rng.choice(fitting)))

    def _or(self, x: int, made: int | None) -> int:
        return x if made is None else made


def differences(network: Graph, opset: int, seed: int = 0) -> Iterator[str]:
    """Everything in which the folded file and torch in float64 differ; nothing if all is well."""
    module = Interpreted(network).eval()
    randomise(module, seed=seed)
    model = to_model(network, arrays(module), opset=opset)
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name for tensor in model.graph.initializer}
    read = {name for node in model.graph.node for name in node.input}
    read |= {output.name for output in model.graph.output}
    if stored - read:
        yield f"nothing reads {', '.join(sorted(stored - read))}"
    data = model.SerializeToString()
    for batch in (1, 3):
        inputs = sample([network.tensors[value] for value in network.inputs.values()], batch, seed)
        with torch.no_grad():
            wanted = module.double()(*(each.double() for each in inputs))
        feeds = dict(zip(network.inputs, (each.numpy() for each in inputs), strict=True))
        for level in _LEVELS:
            found = session(data, optimise=level, threads=1).run(None, feeds)
            for output, ours, theirs in zip(model.graph.output, found, wanted, strict=True):
                scale = max(1e-3, float(theirs.abs().max()))
                off = float(np.abs(ours - theirs.numpy()).max()) / scale
                if not off <= _TOLERANCE:
                    yield f"`{output.name}` is off by {off:.1e}, batch {batch}, {level.name}"
