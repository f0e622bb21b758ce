"""Runs the lowering data of ops, without any of the back ends' own printing of torch.

An independent reading of `cnnspec.lower`: a small interpreter executes the torch data of a graph,
so that shapes, state dicts, costs and the ONNX lowering have something to be compared with.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cnnspec.diagnostics import Reject
from cnnspec.ir import Graph, NetworkOutput, Node, Scope
from cnnspec.lower import (
    Arg,
    Call,
    Cut,
    Dim,
    Each,
    Helper,
    In,
    Index,
    Infix,
    Module,
    Own,
    Rest,
    TorchCode,
)
from cnnspec.lower import Node as OnnxNode
from cnnspec.lower import node as onnx_node
from cnnspec.op import Arity, Connections, Example, Look, Op, Ops, Site, arg
from cnnspec.ops import bind, registry
from cnnspec.slots import Bool, Shape
from cnnspec.source import Source
from cnnspec.tensor import Role, Tensor, default_roles
from cnnspec.weights import Buffer, Weight, constant

NAMES: Mapping[str, Any] = {"torch": torch, "nn": nn, "F": functional, "math": math}

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "@": operator.matmul,
}

OTHER_ROLES: Mapping[int, tuple[tuple[Role, ...], ...]] = {
    1: ((Role.CHANNEL,),),
    2: ((Role.TOKEN, Role.FEATURE),),
    3: ((Role.HEIGHT, Role.WIDTH, Role.CHANNEL),),
}
"""What axes may also mean, for examples of ops that refuse the usual roles."""

NOWHERE = Source("<test>", "").span(0, 0)


# ------------------------------------------------------------------------------------- examples


@dataclass(frozen=True, slots=True)
class Case:
    """One example of one op."""

    op: type[Op]
    example: Example
    number: int

    def __str__(self) -> str:
        return f"{self.op.name}-{self.number}"

    def bound(self) -> tuple[Op, Site]:
        """The op with its arguments, and its tensors."""
        op = bind(self.op, self.example.arguments)
        inputs = _inputs(op, self.example.input_shapes)
        return op, Site(inputs, op.infer(inputs))


def cases() -> list[Case]:
    """Every example of every op."""
    return [
        Case(op, example, number)
        for op in registry().values()
        for number, example in enumerate(op.examples)
    ]


def _inputs(op: Op, shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """Tensors of the usual roles, or of others where the op takes only those."""
    choices = []
    for shape in shapes:
        usual = default_roles(len(shape))
        others = OTHER_ROLES.get(len(shape), ())
        roles = (*((usual,) if usual is not None else ()), *others)
        assert roles, f"no roles are known for {shape}"
        choices.append([Tensor(shape, each) for each in roles])
    refused: Reject | None = None
    for inputs in itertools.product(*choices):
        try:
            op.infer(inputs)
        except Reject as reject:
            refused = refused or reject
        else:
            return inputs
    assert refused is not None
    raise refused


# --------------------------------------------------------------------------------------- graphs


class Network:
    """Puts a graph together node by node, without the frontend."""

    def __init__(self, **inputs: Tensor) -> None:
        self._inputs = {name: value for value, name in enumerate(inputs)}
        self._tensors = list(inputs.values())
        self._producers = [-1] * len(inputs)
        self._nodes: list[Node] = []
        self._outputs: list[NetworkOutput] = []
        self._root = Scope("", "test", None, {}, None, NOWHERE)

    def value(self, name: str) -> int:
        """The value number of a network input."""
        return self._inputs[name]

    def add(self, path: str, op: Op, *inputs: int, share: int | None = None) -> int:
        """Add a node; its first output's value number."""
        tensors = tuple(self._tensors[value] for value in inputs)
        first = len(self._tensors)
        made = op.infer(tensors)
        self._tensors.extend(made)
        self._producers.extend([len(self._nodes)] * len(made))
        outputs = tuple(range(first, first + len(made)))
        index = len(self._nodes)
        self._nodes.append(
            Node(
                index, path, op, inputs, outputs, NOWHERE, None, self._root, named=True, share=share
            )
        )
        self._root.members.append(index)
        return first

    def output(self, name: str, value: int, *, training: bool = False) -> None:
        """Declare an output."""
        self._outputs.append(NetworkOutput(name, value, training))

    def graph(self) -> Graph:
        """The finished graph."""
        return Graph(
            "test",
            self._inputs,
            tuple(self._tensors),
            tuple(self._producers),
            tuple(self._nodes),
            tuple(self._outputs),
            self._root,
            {},
        )


def alone(op: Op, inputs: Sequence[Tensor]) -> Graph:
    """A graph of one node, at the path `op`, with inputs `x0`, `x1` and outputs `y0`, `y1`."""
    network = Network(**{f"x{i}": tensor for i, tensor in enumerate(inputs)})
    first = network.add("op", op, *range(len(inputs)))
    for number in range(len(op.infer(tuple(inputs)))):
        network.output(f"y{number}", first + number)
    return network.graph()


class Bare(Op):
    """A learned tensor without a batch, at its own path: what a spec's `Parameter` gives."""

    shape: tuple[int, ...] = arg(Shape())
    """Its sizes."""
    leading: bool = arg(Bool(), True)
    """Whether it is stored with an axis of one in the place of the batch."""

    arity = Arity(0, 0)
    saves = ()
    examples = (Example({"shape": [3]}, ()),)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Its own shape."""
        roles = default_roles(len(self.shape))
        assert roles is not None
        return (Tensor(self.shape, roles, batched=False),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """One, at the path itself."""
        return {"": Weight((1,) * self.leading + self.shape, constant(0.5))}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def cost(self, at: Site) -> Ops:
        """Nothing is counted."""
        return Ops()

    def connections(self, at: Site) -> Connections | None:
        """There are no units."""
        return None

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """There is no input."""
        return None

    def torch(self, at: Site) -> TorchCode:
        """The parameter."""
        return Own("")

    def onnx(self, at: Site, opset: int) -> tuple[OnnxNode, ...]:
        """Another name for the weight."""
        return (onnx_node("Identity", Own("")),)


def with_bare(case: Case, position: int, *, leading: bool) -> Graph | None:
    """The example's op with a bare parameter as one of its inputs; None if it refuses that."""
    op, site = case.bound()
    tensors = list(site.inputs)
    tensors[position] = Tensor(tensors[position].shape, tensors[position].roles, batched=False)
    try:
        result = op.infer(tuple(tensors))
    except Reject:
        return None
    if not all(tensor.batched for tensor in result):
        return None
    others = {f"x{i}": tensor for i, tensor in enumerate(site.inputs) if i != position}
    network = Network(**others)
    bare = bind(Bare, {"shape": site.inputs[position].shape, "leading": leading})
    values = [
        network.add("bare", bare) if i == position else network.value(f"x{i}")
        for i in range(len(site.inputs))
    ]
    first = network.add("op", op, *values)
    for number in range(len(result)):
        network.output(f"y{number}", first + number)
    return network.graph()


# ---------------------------------------------------------------------------------- interpreter


class Interpreted(nn.Module):
    """A graph as a torch module, by reading the torch data of its nodes.

    Submodules, weights and buffers sit at the nodes' paths. `outputs` holds the value numbers that
    forward returns, as a tuple.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.code: dict[int, TorchCode] = {}
        self.outputs = [output.value for output in graph.outputs if not output.training]
        for node in graph.nodes:
            self.code[node.index] = code = node.op.torch(graph.site(node))
            if node.share is not None:
                continue
            if isinstance(code, Module | Helper):
                self._put(node.path, _construct(code))
            else:
                site = graph.site(node)
                for name, weight in node.op.weights(site).items():
                    key = f"{node.path}.{name}" if name else node.path
                    self._put(key, nn.Parameter(torch.zeros(weight.shape)))
                for name, buffer in node.op.buffers(site).items():
                    key = f"{node.path}.{name}" if name else node.path
                    self._put(key, torch.full(buffer.shape, buffer.fill), buffer.persistent)

    def _put(
        self, path: str, thing: nn.Module | nn.Parameter | torch.Tensor, persistent: bool = True
    ) -> None:
        *levels, last = path.split(".")
        home: nn.Module = self
        for level in levels:
            if level not in home._modules:
                home.add_module(level, nn.Module())
            home = home.get_submodule(level)
        if isinstance(thing, nn.Module):
            home.add_module(last, thing)
        elif isinstance(thing, nn.Parameter):
            home.register_parameter(last, thing)
        else:
            home.register_buffer(last, thing, persistent=persistent)

    def _get(self, path: str) -> Any:
        return reduce(getattr, path.split("."), self)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the nodes in order."""
        values: dict[int, Any] = dict(zip(self.graph.inputs.values(), inputs, strict=True))
        for node in self.graph.nodes:
            if node.index not in self.graph.used:
                continue
            given = [values[value].clone() for value in node.inputs]
            result = self._run(node, given)
            several = result if len(node.outputs) > 1 else (result,)
            values.update(zip(node.outputs, several, strict=True))
        return tuple(values[value] for value in self.outputs)

    def _run(self, node: Node, given: list[torch.Tensor]) -> Any:
        owner = node
        while owner.share is not None:
            owner = self.graph.nodes[owner.share]

        def own(name: str) -> Any:
            return self._get(f"{owner.path}.{name}" if name else owner.path)

        code = self.code[node.index]
        if not isinstance(code, Module | Helper):
            return _evaluate(code, given, own)
        feeds: tuple[Any, ...] = tuple(map(In, range(len(given))))
        if code.feeds is not None:
            feeds = code.feeds
        keywords = code.feed_kwargs if isinstance(code, Module) else ()
        result = own("")(
            *(_evaluate(feed, given, own) for feed in feeds),
            **{key: _evaluate(value, given, own) for key, value in keywords},
        )
        if isinstance(code, Module) and code.result is not None:
            result = result[code.result]
        return result


def _construct(code: Module | Helper) -> nn.Module:
    if isinstance(code, Module):
        target = _look_up(code.target)
    else:
        scope = dict(NAMES)
        exec(code.source, scope)
        target = scope[code.name]
    built = target(*code.args, **dict(code.kwargs))
    assert isinstance(built, nn.Module)
    return built


def _look_up(name: str) -> Any:
    first, *others = name.split(".")
    return reduce(getattr, others, NAMES[first])


def _evaluate(code: Arg, given: Sequence[torch.Tensor], own: Callable[[str], Any]) -> Any:
    def value(part: Arg) -> Any:
        return _evaluate(part, given, own)

    match code:
        case In(number):
            return given[number]
        case Own(name):
            return own(name)
        case Dim(tensor, axis):
            return value(tensor).shape[axis]
        case Rest(tensor, axis):
            return value(tensor).shape[axis:]
        case Each(items):
            return [value(item) for item in items]
        case tuple():
            return tuple(value(item) for item in code)
        case Call(function, args, kwargs):
            values = [value(arg) for arg in args]
            named = {key: value(arg) for key, arg in kwargs}
            if function.startswith("."):
                return getattr(values[0], function[1:])(*values[1:], **named)
            return _look_up(function)(*values, **named)
        case Infix(symbol, operands):
            return reduce(OPERATORS[symbol], map(value, operands))
        case Index(whole, items):
            keys = tuple(
                slice(item.start, item.stop, item.step) if isinstance(item, Cut) else item
                for item in items
            )
            return value(whole)[keys if len(keys) > 1 else keys[0]]
        case _:
            return code


# --------------------------------------------------------------------------------------- values


def randomise(module: nn.Module, fixed: frozenset[str] = frozenset(), seed: int = 0) -> None:
    """Random weights and statistics, so that nothing cancels; buffers in `fixed` stay."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            fan = max(1, math.prod(parameter.shape[1:]))
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan))
        for name, buffer in module.named_buffers():
            if name in fixed or not buffer.is_floating_point():
                continue
            if name.endswith("var"):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
            else:
                buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.3)


def sample(tensors: Sequence[Tensor], batch: int, seed: int = 0) -> list[torch.Tensor]:
    """Random inputs."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *tensor.shape, generator=generator) for tensor in tensors]


def arrays(module: nn.Module) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Weights and all buffers as numpy arrays, by key."""
    named = itertools.chain(module.named_parameters(), module.named_buffers())
    return {name: tensor.detach().numpy() for name, tensor in named}


def stored(op: Op, site: Site) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Keys and shapes that the op's state dict has, by its rules, below the path `op`."""
    kept = {name: buffer for name, buffer in op.buffers(site).items() if buffer.persistent}
    shapes = {name: weight.shape for name, weight in op.weights(site).items()}
    shapes.update({name: buffer.shape for name, buffer in kept.items()})
    for name, shape in shapes.items():
        yield (f"op.{name}" if name else "op"), shape
