"""What torch runs for a node: calls of modules and functions, with their sizes.

This is what tools that count a torch model can see: classes, functions, shapes and weights, never
an operation of a spec. It is read from the torch data of the operation; nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import TypeAlias

from cnnspec.lower import Arg, Call, Each, Helper, In, Index, Infix, Module, Own, TorchCode
from cnnspec.op import Op, Site
from cnnspec.tensor import Tensor

__all__ = ["Shape", "Step", "elements", "steps"]

Shape: TypeAlias = tuple[int, ...]
"""Sizes with the batch, which is 1."""

_INDEXED = "[]"
_NO_CHILDREN = frozenset(("nn.Parameter", "nn.Module", "nn.Buffer"))


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a module or function.

    `target` is a class (`nn.Conv2d`, or the name of a small class that the source brings along), a
    function (`torch.cat`), a method (`.permute`) or an operator (`@`). Sizes that cannot be told
    are None: those of values inside an expression.
    """

    target: str
    is_module: bool
    inputs: tuple[Shape | None, ...]
    output: Shape | None
    bases: tuple[str, ...] = ()
    """Classes that a class brought along derives from."""
    weights: Mapping[str, Shape] = field(default_factory=dict)
    """Parameters by their name below the module."""
    positional: tuple[Arg, ...] = ()
    """Arguments by position, of the constructor for a module; none for a function."""
    arguments: Mapping[str, Arg] = field(default_factory=dict)
    """Keyword arguments, of the constructor for a module."""
    runs: frozenset[str] = frozenset()
    """Functions and operators in the text of a class brought along."""
    products: tuple[tuple[str, int], ...] | None = ()
    """Its multiply-accumulates by function; None where nobody has said."""
    has_children: bool = False

    @property
    def x(self) -> Shape | None:
        """Sizes of the first input."""
        return self.inputs[0] if self.inputs else None

    @property
    def stored(self) -> int:
        """Elements of all parameters."""
        return sum(prod(shape) for shape in self.weights.values())

    @property
    def has_bias(self) -> bool:
        """Whether it stores a tensor called `bias`."""
        return "bias" in self.weights


def elements(shape: Shape) -> int:
    """Number of elements."""
    return prod(shape)


def steps(op: Op, at: Site) -> tuple[Step, ...]:
    """The calls that a node is, in the order of execution; the last makes its output."""
    return tuple(_steps(op, at, op.torch(at)))


def _steps(op: Op, at: Site, code: TorchCode) -> Iterator[Step]:
    if not isinstance(code, Module | Helper):
        yield from _functions(code, op, at, _sizes(at.y))
        return
    feeds = code.feeds if code.feeds is not None else tuple(map(In, range(len(at.inputs))))
    for feed in feeds:
        yield from _functions(feed, op, at, None)
    weights = {name: weight.shape for name, weight in op.weights(at).items()}
    kwargs = dict(code.kwargs)
    common = {
        "is_module": True,
        "inputs": tuple(_shape(feed, op, at) for feed in feeds),
        "output": _sizes(at.y),
        "weights": weights,
        "positional": code.args,
        "arguments": kwargs,
    }
    if isinstance(code, Module):
        children = any("." in name for name in weights)
        yield Step(target=code.target, has_children=children, **common)  # type: ignore[arg-type]
        return
    text = _read(code.source, code.name)
    products = code.products
    yield Step(
        target=code.name,
        bases=text.bases,
        runs=text.runs,
        products=products,
        has_children=text.has_children,
        **common,  # type: ignore[arg-type]  # by name, as above
    )


def _functions(value: Arg, op: Op, at: Site, output: Shape | None) -> Iterator[Step]:
    """The calls in an expression, inner ones first."""
    match value:
        case Call(function, args, kwargs):
            operands, target, named = args, function, dict(kwargs)
            operands = (*args, *(given for _, given in kwargs))
        case Infix(target, operands):
            named = {}
        case Index(inner, _):
            operands, target, named = (inner,), _INDEXED, {}
        case Each(items) | tuple(items):
            for item in items:
                yield from _functions(item, op, at, None)
            return
        case _:
            return
    for operand in operands:
        yield from _functions(operand, op, at, None)
    shown = args if isinstance(value, Call) else operands
    shapes = tuple(_shape(each, op, at) for each in shown if not _is_plain(each))
    yield Step(target, False, shapes, output, arguments=named)


def _is_plain(value: Arg) -> bool:
    """Whether an argument is no tensor."""
    return value is None or isinstance(value, int | float | str | tuple)


def _shape(value: Arg, op: Op, at: Site) -> Shape | None:
    """Sizes of an expression where they can be told."""
    match value:
        case In(index):
            return _sizes(at.inputs[index])
        case Own(name):
            return op.weights(at)[name].shape
        case Call("F.pad", (padded, tuple(margins), *_)):
            before = _shape(padded, op, at)
            return None if before is None else _padded(before, margins)
        case Call(".contiguous", (whole,)):
            return _shape(whole, op, at)
    return None


def _padded(shape: Shape, margins: tuple[Arg, ...]) -> Shape:
    """Sizes behind `F.pad`, whose margins come in pairs from the last axis on."""
    sizes = list(shape)
    for number, margin in enumerate(margins):
        assert isinstance(margin, int)
        sizes[-1 - number // 2] += margin
    return tuple(sizes)


def _sizes(tensor: Tensor) -> Shape:
    return (1, *tensor.shape) if tensor.batched else tensor.shape


# --------------------------------------------------------------------------- classes brought along


@dataclass(frozen=True, slots=True)
class _Text:
    """What the text of a class says of it."""

    bases: tuple[str, ...]
    runs: frozenset[str]
    has_children: bool


@cache
def _read(source: str, name: str) -> _Text:
    """What the text of the class `name` says."""
    tree = ast.parse(source)
    (found,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    runs = {_called(call) for call in calls}
    if any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult) for n in ast.walk(tree)):
        runs.add("@")
    made = {run for run in runs if run.startswith("nn.") and run[3].isupper()}
    children = bool(made - _NO_CHILDREN)
    return _Text(tuple(map(ast.unparse, found.bases)), frozenset(runs), children)


def _called(call: ast.Call) -> str:
    """`F.pad`, `torch.cat`, or `.permute` for a method of a value; `super().forward` as it is."""
    text = ast.unparse(call.func)
    known = text.startswith(("F.", "torch.", "nn.", "super().")) or "." not in text
    return text if known else "." + text.rpartition(".")[2]
