"""Several tensors put together along an axis that is named: Concat, Stack.

The rules of concatenation are here for the join `concat` too, which finds its axis by itself.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, TABLE_LIMIT, Taps, Unknown, View, Window
from cnnspec.lower import (
    Dim,
    Each,
    In,
    Node,
    OnnxValue,
    Tmp,
    TorchCode,
    TorchExpression,
    call,
    const,
    node,
    shape,
)
from cnnspec.op import Arity, Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.slots import Int
from cnnspec.tensor import Role, Tensor

_PLURAL = {Role.CHANNEL: "channels", Role.FEATURE: "features", Role.TOKEN: "tokens"}
_COUNTED = frozenset(_PLURAL)


def noun(role: Role) -> str:
    """What an axis is called in messages: `height`, `channels`, `tokens`."""
    return _PLURAL.get(role, str(role))


def differing(role: Role, first: int, other: int) -> str:
    """Two sizes that do not fit: `height is 56 and 57`, `channels are 64 and 128`."""
    return f"{noun(role)} {'are' if role in _COUNTED else 'is'} {first} and {other}"


def typical(inputs: Sequence[Tensor]) -> Tensor:
    """The input whose axes have the meaning that the result's have: the first with a batch."""
    return next((x for x in inputs if x.batched), inputs[0])


def _batched(inputs: Sequence[Tensor]) -> int | Dim:
    """The batch of the result: that of the first input with one, else 1."""
    found = next((number for number, x in enumerate(inputs) if x.batched), None)
    return 1 if found is None else Dim(In(found), 0)


def _torch_inputs(inputs: Sequence[Tensor]) -> Iterator[TorchExpression]:
    """The inputs, those without a batch repeated for each sample."""
    for number, x in enumerate(inputs):
        if x.batched:
            yield In(number)
        else:
            yield call(".expand", In(number), _batched(inputs), *(-1,) * x.rank)


def _onnx_inputs(inputs: Sequence[Tensor]) -> tuple[list[Node], list[OnnxValue]]:
    """The inputs, those without a batch repeated for each sample, and the nodes that do it."""
    nodes: list[Node] = []
    values: list[OnnxValue] = []
    for number, x in enumerate(inputs):
        if x.batched:
            values.append(In(number))
        else:
            repeated = Tmp(f"repeated{number}")
            sizes = shape(_batched(inputs), *(1,) * x.rank)
            nodes.append(node("Expand", In(number), sizes, to=repeated))
            values.append(repeated)
    return nodes, values


class Concatenation(Stateless, abstract=True):
    """The rules of every concatenation; a subclass says along which axis."""

    arity = Arity(1, None)
    takes_unbatched = True
    quantizable = True
    saves = ()

    @abstractmethod
    def _axis(self, inputs: Sequence[Tensor]) -> int:
        """The axis along which the inputs are joined, batch not counted."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Sizes along the axis add up; the others are equal."""
        axis = self._axis(inputs)
        first, model = inputs[0], typical(inputs)
        along = noun(model.roles[axis])
        for number, x in enumerate(inputs[1:], start=1):
            if x.rank != first.rank:
                raise Reject(
                    "concat-shape",
                    f"cannot concat along {along}: inputs have {first.rank} and {x.rank} axes",
                    at=number,
                    label=f"this is {x}",
                    notes=(f"the first input is {first}",),
                )
            for other, (n, m) in enumerate(zip(first.shape, x.shape, strict=True)):
                if other != axis and n != m:
                    role = model.roles[other]
                    raise Reject(
                        "concat-shape",
                        f"cannot concat along {along}: {differing(role, n, m)}",
                        at=number,
                        label=f"this is {x}",
                        notes=(f"the first input is {first}",),
                        help=f"resize or pad one branch to the same {noun(role)}"
                        if role.spatial
                        else "",
                    )
        total = sum(x.shape[axis] for x in inputs)
        sizes = (*first.shape[:axis], total, *first.shape[axis + 1 :])
        return (Tensor(sizes, model.roles, any(x.batched for x in inputs)),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Along the axis an output looks at the one input that it comes from."""
        own = self._axis(at.inputs)
        return tuple(
            (axis, self._share(at, input, axis) if axis == own else POINTWISE)
            for axis in range(at.y.rank)
        )

    def _share(self, at: Site, input: int, axis: int) -> View:
        """Where along the axis an input lies.

        Channels look nowhere along themselves, so they need no table that ends with the input.
        """
        before = sum(x.shape[axis] for x in at.inputs[:input])
        if at.y.roles[axis] is Role.CHANNEL:
            return Window(before=before)
        n, total = at.inputs[input].shape[axis], at.y.shape[axis]
        if total > TABLE_LIMIT:
            return Unknown(f"one of several parts of an axis of {total} is too long to list")
        after = total - before - n
        return Taps((None,) * before + tuple((i, i) for i in range(n)) + (None,) * after)

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`torch.cat`."""
        axis = self._axis(at.inputs) + 1
        return call("torch.cat", Each(tuple(_torch_inputs(at.inputs))), dim=axis)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Concat, behind Expand for what has no batch."""
        nodes, values = _onnx_inputs(at.inputs)
        return (*nodes, node("Concat", *values, axis=self._axis(at.inputs) + 1))


class Concat(Concatenation):
    """Puts tensors one after the other along any axis, as torch.cat does."""

    dim: int = arg(Int())
    """The axis, in torch's numbering: 1 is the first after the batch, -1 the last."""

    examples = (
        Example({"dim": 1}, ((3, 4, 5), (2, 4, 5)), (5, 4, 5), 0),
        Example({"dim": -1}, ((3, 4, 5), (3, 4, 1), (3, 4, 2)), (3, 4, 8)),
        Example({"dim": 1}, ((1, 6), (9, 6)), (10, 6), note="a class token before the others"),
    )

    def _axis(self, inputs: Sequence[Tensor]) -> int:
        return position(self.dim, typical(inputs))


class Stack(Stateless):
    """Puts tensors of one shape side by side along a new axis, as torch.stack does."""

    dim: int = arg(Int())
    """Where the new axis comes, in torch's numbering of the result: 1 is right after the batch."""

    arity = Arity(1, None)
    takes_unbatched = True
    saves = ()
    examples = (
        Example({"dim": 2}, ((3, 4, 5), (3, 4, 5)), (3, 2, 4, 5), 0, "images become a volume"),
        Example({"dim": 1}, ((7,), (7,), (7,)), (3, 7)),
        Example({"dim": -1}, ((3, 4), (3, 4)), (3, 4, 2)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A new axis of as many places as there are inputs.

        It is the depth of a volume behind the channels of an image, else it holds tokens.
        """
        first, model = inputs[0], typical(inputs)
        axis = position(self.dim, first, new=1)
        for number, x in enumerate(inputs[1:], start=1):
            if x.shape != first.shape:
                raise Reject(
                    "stack-shape",
                    f"cannot stack: inputs are {first} and {x}",
                    at=number,
                    label=f"this is {x}",
                )
        image = model.roles == (Role.CHANNEL, Role.HEIGHT, Role.WIDTH)
        role = Role.DEPTH if image and axis == 1 else Role.TOKEN
        sizes = (*first.shape[:axis], len(inputs), *first.shape[axis:])
        roles = (*model.roles[:axis], role, *model.roles[axis:])
        return (Tensor(sizes, roles, any(x.batched for x in inputs)),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself; axes behind the new one move on by one."""
        new = position(self.dim, at.x, new=1)
        return tuple((axis + (axis >= new), POINTWISE) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`torch.stack`."""
        axis = position(self.dim, at.x, new=1) + 1
        return call("torch.stack", Each(tuple(_torch_inputs(at.inputs))), dim=axis)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Unsqueeze of each, then Concat."""
        axis = position(self.dim, at.x, new=1) + 1
        nodes, values = _onnx_inputs(at.inputs)
        parts = []
        for number, value in enumerate(values):
            parts.append(Tmp(f"part{number}"))
            nodes.append(node("Unsqueeze", value, const((axis,), "int64"), to=parts[-1]))
        return (*nodes, node("Concat", *parts, axis=axis))
