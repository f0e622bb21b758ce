"""Single layers in torch: the torch data of an op, executed with given inputs and weights.

A reading of `cnnspec.lower` of its own, which shares nothing with the source that is printed for
the module, so that each layer has a value, whether it is a module, a `+` or a concatenation. ONNX
and ONNX Runtime may not enter.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from cnnspec.ir import Graph, Node
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
    TorchExpression,
)

__all__ = ["Evaluation", "stored"]

_NAMES: Mapping[str, Any] = {"torch": torch, "nn": nn, "F": functional, "math": math}

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "@": operator.matmul,
}


def stored(module: nn.Module) -> dict[str, Tensor]:
    """Weights and all buffers of a module by key; memory is shared."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


class Evaluation:
    """Computes values of a graph at inference from others, with the weights of `state`."""

    def __init__(self, graph: Graph, state: Mapping[str, Tensor]) -> None:
        self._graph = graph
        self._state = state

    def between(self, values: Sequence[int], known: Collection[int]) -> tuple[int, ...]:
        """Indices of the nodes that lead from `known` values to `values`, in order."""
        graph = self._graph
        found: set[int] = set()
        pending = [graph.producers[value] for value in values]
        while pending:
            index = pending.pop()
            if index < 0 or index in found:
                continue
            found.add(index)
            inputs = graph.nodes[index].inputs
            pending.extend(graph.producers[value] for value in inputs if value not in known)
        return tuple(sorted(found))

    def run(
        self, nodes: Sequence[int], known: Mapping[int, Tensor], dtype: torch.dtype
    ) -> dict[int, Tensor]:
        """The values that nodes make, computed in `dtype` from those that are known.

        `known` tensors are left as they are.
        """
        values = dict(known)
        made: dict[int, Tensor] = {}
        for index in nodes:
            node = self._graph.nodes[index]
            given = [_as(values[value], dtype, own=True) for value in node.inputs]
            results = self._results(node, given, dtype)
            for value, result in zip(node.outputs, results, strict=True):
                values[value] = made[value] = result
        return made

    def _results(self, node: Node, given: list[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        owner = node
        while owner.share is not None:
            owner = self._graph.nodes[owner.share]

        def own(name: str) -> Tensor:
            return _as(self._state[f"{owner.path}.{name}" if name else owner.path], dtype)

        code = node.op.torch(self._graph.site(node))
        if isinstance(code, Module | Helper):
            result = _of_module(code, given, own)
        else:
            result = _evaluate(code, given, own)
        return result if len(node.outputs) > 1 else (result,)


def _as(tensor: Tensor, dtype: torch.dtype, *, own: bool = False) -> Tensor:
    """The tensor in `dtype` if it is of floats; a copy if it has to be one's own."""
    wanted = dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(wanted, copy=own)


def _of_module(code: Module | Helper, given: Sequence[Tensor], own: Callable[[str], Tensor]) -> Any:
    """The result of a submodule, which is made without values and lent its weights."""
    if isinstance(code, Module):
        made = _look_up(code.target)
    else:
        scope = dict(_NAMES)
        exec(code.source, scope)
        made = scope[code.name]
    with torch.device("meta"):
        layer: nn.Module = made(*code.args, **dict(code.kwargs))
    feeds = code.feeds if code.feeds is not None else tuple(map(In, range(len(given))))
    named = dict(code.feed_kwargs) if isinstance(code, Module) else {}
    result = functional_call(
        layer.eval(),
        {name: own(name) for name in stored(layer)},
        tuple(_evaluate(feed, given, own) for feed in feeds),
        {name: _evaluate(value, given, own) for name, value in named.items()},
    )
    if isinstance(code, Module) and code.result is not None:
        return result[code.result]
    return result


def _evaluate(
    code: Arg | TorchExpression, given: Sequence[Tensor], own: Callable[[str], Tensor]
) -> Any:
    """The value of an expression; what is none stands for itself."""

    def value(part: Arg) -> Any:
        return _evaluate(part, given, own)

    match code:
        case In(number):
            return given[number]
        case Own(name):
            return own(name)
        case Dim(tensor, axis):
            return given[tensor.index].shape[axis]
        case Rest(tensor, axis):
            return given[tensor.index].shape[axis:]
        case Each(items):
            return [value(item) for item in items]
        case tuple():
            return tuple(value(item) for item in code)
        case Call(function, arguments, named):
            positional = [value(argument) for argument in arguments]
            keywords = {name: value(argument) for name, argument in named}
            if function.startswith("."):
                return getattr(positional[0], function[1:])(*positional[1:], **keywords)
            return _look_up(function)(*positional, **keywords)
        case Infix(symbol, operands):
            return reduce(_OPERATORS[symbol], map(value, operands))
        case Index(whole, items):
            places = tuple(
                slice(item.start, item.stop, item.step) if isinstance(item, Cut) else item
                for item in items
            )
            return value(whole)[places]
        case _:
            return code


def _look_up(name: str) -> Any:
    first, *others = name.split(".")
    return reduce(getattr, others, _NAMES[first])
