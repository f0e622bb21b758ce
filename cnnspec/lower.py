"""Lowerings as data: what an op becomes in torch and in ONNX, said without importing either.

An op's `torch` rule returns a `TorchCode`, its `onnx` rule a tuple of `Node`; the back ends print
or build them. Axes here are torch's and ONNX's own: axis 0 is the batch.

torch, by example:

    module("nn.Conv2d", 3, 64, kernel_size=3)   self.conv1 = nn.Conv2d(3, 64, kernel_size=3)
                                                x = self.conv1(x)
    call("torch.flatten", In(0), 1)             x = torch.flatten(x, 1)
    call(".permute", In(0), 0, 2, 3, 1)         x = x.permute(0, 2, 3, 1)
    infix("+", In(0), In(1))                    x = a + b
    module("nn.Conv2d", 3, 8, kernel_size=3,    x = self.conv(F.pad(x, (0, 1, 0, 1)))
           feeds=(call("F.pad", In(0), (0, 1, 0, 1)),))

ONNX, by example:

    node("Conv", In(0), Own("weight"), None, to=Out(0), kernel_shape=[3, 3])
    node("Shape", In(0), to=Tmp("size")), node("Resize", In(0), None, None, Tmp("size"), to=Out(0))
"""

from __future__ import annotations

from typing import TypeAlias

from cnnspec.record import Record

__all__ = [
    "Arg",
    "Call",
    "Const",
    "Cut",
    "Dim",
    "Each",
    "Helper",
    "In",
    "Index",
    "Infix",
    "Module",
    "Node",
    "OnnxValue",
    "Out",
    "Own",
    "Rest",
    "Shape",
    "Tmp",
    "TorchCode",
    "TorchExpression",
    "call",
    "const",
    "helper",
    "index",
    "infix",
    "module",
    "node",
    "shape",
]


class In(Record):
    """Input number `index` of the op."""

    index: int


class Own(Record):
    """A weight or buffer of the op itself, by the name its `weights` or `buffers` rule gives it.

    For ONNX the stored array may be cut along its first axis (`rows`, half open) and then
    permuted, at export, so that the graph has no node for it.
    """

    name: str
    permute: tuple[int, ...] | None = None
    rows: tuple[int, int] | None = None


class Dim(Record):
    """The size of `axis` (0 is the batch) of a tensor, read when the network runs."""

    tensor: In
    axis: int


class Rest(Record):
    """The sizes of a tensor from `axis` on, read when the network runs: `x.shape[2:]`."""

    tensor: In
    axis: int


# ---------------------------------------------------------------------------------------- torch


class Call(Record):
    """`function(*args, **kwargs)`; one that starts with a dot is a method of the first argument."""

    function: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...] = ()


class Infix(Record):
    """`a + b + c`: operands joined by one operator, from the left."""

    operator: str
    operands: tuple[Arg, ...]


class Cut(Record):
    """`start:stop:step` inside an `Index`; None leaves a side out."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None


class Index(Record):
    """`value[a, b, ...]`."""

    value: Arg
    items: tuple[int | Cut | None, ...]


class Each(Record):
    """A list literal of expressions: `[a, b]`, as `torch.cat` wants it."""

    items: tuple[Arg, ...]


class Module(Record):
    """A submodule at the entry's own path, and how its forward is called.

    `target` is the class (`nn.Conv2d`). `result` picks one of several results, as of
    `nn.MultiheadAttention`. `feeds` are the arguments of the call, all inputs in order if None.
    """

    target: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    feeds: tuple[Arg, ...] | None = None
    feed_kwargs: tuple[tuple[str, Arg], ...] = ()
    result: int | None = None


class Helper(Record):
    """A submodule of a small class that torch lacks.

    `source` is the text of the class `name`, which may use `torch`, `nn`, `F` and `math`; it is
    printed once a file. It has to give its parameters and buffers the op's own names. `products`
    says what its forward multiplies for tensors with a batch of 1: each function (`F.conv2d`, `@`)
    with the multiply-accumulates that torch performs in it. None means that nobody has said.
    """

    name: str
    source: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    feeds: tuple[Arg, ...] | None = None
    products: tuple[tuple[str, int], ...] | None = None


TorchExpression: TypeAlias = Call | Infix | Index | Each | In | Own | Dim | Rest
TorchCode: TypeAlias = Module | Helper | TorchExpression
Arg: TypeAlias = TorchExpression | int | float | bool | str | tuple["Arg", ...] | None


def module(
    target: str,
    *args: Arg,
    feeds: tuple[Arg, ...] | None = None,
    feed_kwargs: dict[str, Arg] | None = None,
    result: int | None = None,
    **kwargs: Arg,
) -> Module:
    """A `Module`, written as the constructor call it stands for."""
    return Module(
        target, args, tuple(kwargs.items()), feeds, tuple((feed_kwargs or {}).items()), result
    )


def helper(
    name: str,
    source: str,
    *args: Arg,
    feeds: tuple[Arg, ...] | None = None,
    products: dict[str, int] | None = None,
    **kwargs: Arg,
) -> Helper:
    """A `Helper`, written as the constructor call it stands for."""
    multiplied = None if products is None else tuple(products.items())
    return Helper(name, source, args, tuple(kwargs.items()), feeds, multiplied)


def call(function: str, *args: Arg, **kwargs: Arg) -> Call:
    """A `Call`, written as the call it stands for."""
    return Call(function, args, tuple(kwargs.items()))


def infix(operator: str, *operands: Arg) -> Infix:
    """An `Infix` of two or more operands."""
    return Infix(operator, operands)


def index(value: Arg, *items: int | Cut | None) -> Index:
    """An `Index`, written as the subscript it stands for."""
    return Index(value, items)


# ----------------------------------------------------------------------------------------- ONNX


class Tmp(Record):
    """A tensor between two nodes of one lowering; the back end makes its name unique."""

    name: str


class Out(Record):
    """Output number `index` of the op."""

    index: int


_FIRST = Out(0)

Scalar: TypeAlias = int | float | bool
Nested: TypeAlias = Scalar | tuple["Nested", ...]


class Const(Record):
    """A constant tensor: nested tuples and its dtype (`float32`, `int64`, `bool`).

    `shape` reshapes a flat tuple, for constants that are easier to write flat.
    """

    values: Nested
    dtype: str
    shape: tuple[int, ...] | None = None


class Shape(Record):
    """An int64 vector of sizes, fixed ones as numbers and others read at run time.

    The back end writes a constant where all are known, else Shape, Gather and Concat nodes.
    -1 and 0 mean what they mean to ONNX's Reshape.
    """

    items: tuple[int | Dim | Rest, ...]


OnnxValue: TypeAlias = In | Own | Const | Shape | Tmp | None
Attribute: TypeAlias = int | float | str | list[int] | list[float]


class Node(Record):
    """One ONNX node. An input of None is an optional one left out."""

    op: str
    inputs: tuple[OnnxValue, ...]
    outputs: tuple[Tmp | Out, ...]
    attributes: tuple[tuple[str, Attribute], ...]


def node(
    op: str,
    *inputs: OnnxValue,
    to: Tmp | Out | tuple[Tmp | Out, ...] = _FIRST,
    **attributes: Attribute,
) -> Node:
    """A `Node`: inputs in order, outputs in `to`, attributes as keywords."""
    outputs = to if isinstance(to, tuple) else (to,)
    return Node(op, inputs, outputs, tuple(attributes.items()))


def const(values: Nested, dtype: str = "float32", shape: tuple[int, ...] | None = None) -> Const:
    """A `Const`, float32 unless said otherwise."""
    return Const(values, dtype, shape)


def shape(*items: int | Dim | Rest) -> Shape:
    """A `Shape`, written as its items."""
    return Shape(items)
