"""The joins: `add sub mul maximum mean concat matmul`, which make one tensor of several.

The set is closed. Elementwise joins take tensors of equal rank whose sizes are equal or 1, as
broadcasting does; what has no batch (a bare Parameter) is the same for every sample.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import ClassVar

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Everything, View
from cnnspec.lower import (
    In,
    Node,
    OnnxValue,
    Out,
    Tmp,
    TorchCode,
    TorchExpression,
    call,
    infix,
    node,
)
from cnnspec.op import Arity, Example, Look, Op, Ops, Saved, Site, Stateless
from cnnspec.ops.concat import Concatenation, differing, noun, typical
from cnnspec.tensor import Role, Tensor

_PAIR = Example({}, ((3, 4, 5), (3, 4, 5)), (3, 4, 5), 0)
_GATE = Example({}, ((3, 1, 1), (3, 4, 5)), (3, 4, 5), note="one weight per channel")
_THREE = Example({}, ((3, 4, 5), (3, 1, 5), (1, 4, 5)), (3, 4, 5))
_ONE = Example({}, (3, 4, 5), (3, 4, 5), note="a list of one, as a loop of one turn makes it")


def _broadcast(join: str, inputs: Sequence[Tensor], axes: int) -> tuple[int, ...]:
    """The sizes of the first `axes` axes of the result: for each the one that is not 1."""
    first = inputs[0]
    sizes, sources = list(first.shape[:axes]), [first] * axes
    for number, x in enumerate(inputs):
        if x.rank != first.rank:
            raise Reject(
                f"{join}-shape",
                f"cannot {join}: inputs have {first.rank} and {x.rank} axes",
                at=number,
                label=f"this is {x}",
                notes=(f"the first input is {first}",),
            )
        for axis, (n, m) in enumerate(zip(sizes, x.shape[:axes], strict=True)):
            # In one question: of two sizes that are the same formula nothing else need be known.
            if (n == m) | (n == 1) | (m == 1):
                if m > n:
                    sizes[axis], sources[axis] = m, x
            else:
                role = typical(inputs).roles[axis]
                raise Reject(
                    f"{join}-shape",
                    f"cannot {join}: {differing(role, n, m)}",
                    at=number,
                    label=f"this is {x}",
                    notes=(f"the other is {sources[axis]}",),
                    help=f"give both branches the same {noun(role)}",
                )
    return tuple(sizes)


def _along(n_in: int, n_out: int) -> View:
    """How an output looks at an input that is as long as it, or is repeated along it."""
    return POINTWISE if n_in == n_out else Everything()


class _Elementwise(Stateless, abstract=True):
    """A join in which each output element looks at the same place of every input."""

    arity = Arity(1, None)
    takes_unbatched = True
    saves: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[Example, ...]] = (_PAIR, _GATE, _THREE, _ONE)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Along each axis the size that is not 1; axes mean what those of the first input do."""
        sizes = _broadcast(self.name, inputs, inputs[0].rank)
        return (Tensor(sizes, typical(inputs).roles, any(x.batched for x in inputs)),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself, or at the only one there is."""
        sizes = zip(at.inputs[input].shape, at.y.shape, strict=True)
        return tuple((axis, _along(n, m)) for axis, (n, m) in enumerate(sizes))

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """The same, where no input is repeated along the features."""
        return self if len({x.shape for x in at.inputs}) == 1 else None

    def _steps(self, at: Site) -> int:
        """Operations between the elements of all inputs: one fewer than inputs, per element."""
        return (len(at.inputs) - 1) * at.y.elements

    def saved(self, at: Site, batch: int) -> Saved:
        """What is kept where every input needs a gradient."""
        return self.saved_for(at, batch, (True,) * len(at.inputs))

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """Of each step from the left what its gradients ask for; a result is no input."""
        inputs: set[int] = set()
        partial = 0
        for right in range(1, len(at.inputs)):
            keeps_left, keeps_right = self._keeps(any(needs[:right]), needs[right])
            if keeps_right:
                inputs.add(right)
            if keeps_left and right == 1:
                inputs.add(0)
            elif keeps_left:
                sizes = _broadcast(self.name, at.inputs[:right], at.x.rank)
                batched = any(x.batched for x in at.inputs[:right])
                partial += Tensor(sizes, at.y.roles, batched).in_batch(batch)
        return Saved(inputs=tuple(sorted(inputs)), elements=partial)

    def _keeps(self, left: bool, right: bool) -> tuple[bool, bool]:
        """Whether a step keeps its operands, given which of the two need a gradient."""
        return False, False

    def is_view(self, at: Site) -> bool:
        """One input is itself."""
        return len(at.inputs) == 1

    def torch(self, at: Site) -> TorchCode:
        """An expression of all inputs; one input is itself."""
        operands = tuple(In(number) for number in range(len(at.inputs)))
        return self._torch_join(operands) if len(operands) > 1 else operands[0]

    @abstractmethod
    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        """The expression of at least two operands."""

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """A node of all inputs, or a chain of nodes of two; one input is itself."""
        operands = tuple(In(number) for number in range(len(at.inputs)))
        return self._onnx_join(operands) if len(operands) > 1 else (node("Identity", In(0)),)

    @abstractmethod
    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        """The nodes for at least two operands."""


def _chain(op: str, operands: Sequence[OnnxValue]) -> tuple[Node, ...]:
    """A node that takes two inputs, applied from the left."""
    nodes: list[Node] = []
    left = operands[0]
    for number, right in enumerate(operands[1:], start=1):
        to = Out(0) if number == len(operands) - 1 else Tmp(f"left{number}")
        nodes.append(node(op, left, right, to=to))
        left = Tmp(f"left{number}")
    return tuple(nodes)


class Add(_Elementwise, name="add"):
    """The sum, as of a residual branch and its shortcut (He et al. 2015)."""

    quantizable = True

    def cost(self, at: Site) -> Ops:
        """One addition less than there are inputs, for each element."""
        return Ops(add=self._steps(at))

    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        return infix("+", *operands)

    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        return _chain("Add", operands)


class Sub(_Elementwise, name="sub"):
    """The first tensor minus the second."""

    arity = Arity(2, 2)
    examples = (_PAIR, _GATE)

    def cost(self, at: Site) -> Ops:
        """One subtraction for each element."""
        return Ops(add=self._steps(at))

    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        return infix("-", *operands)

    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        return _chain("Sub", operands)


class Mul(_Elementwise, name="mul"):
    """The elementwise product, as of a gate and what it lets through (Hu et al. 2017)."""

    quantizable = True
    saves = ("input",)

    def _keeps(self, left: bool, right: bool) -> tuple[bool, bool]:
        return right, left

    def cost(self, at: Site) -> Ops:
        """One multiplication less than there are inputs, for each element."""
        return Ops(mul=self._steps(at))

    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        return infix("*", *operands)

    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        return _chain("Mul", operands)


class Maximum(_Elementwise, name="maximum"):
    """The largest of the inputs, element by element."""

    saves = ("input",)

    def _keeps(self, left: bool, right: bool) -> tuple[bool, bool]:
        return (left or right,) * 2

    def cost(self, at: Site) -> Ops:
        """One comparison less than there are inputs, for each element."""
        return Ops(cmp=self._steps(at))

    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        largest: TorchExpression = operands[0]
        for operand in operands[1:]:
            largest = call("torch.maximum", largest, operand)
        return largest

    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        return (node("Max", *operands),)


class Mean(_Elementwise, name="mean"):
    """The average of the inputs, element by element."""

    def cost(self, at: Site) -> Ops:
        """The sum, and one division for each element."""
        return Ops(add=self._steps(at), div=at.y.elements)

    def _torch_join(self, operands: tuple[In, ...]) -> TorchExpression:
        return infix("/", infix("+", *operands), len(operands))

    def _onnx_join(self, operands: tuple[In, ...]) -> tuple[Node, ...]:
        return (node("Mean", *operands),)


class ConcatChannels(Concatenation, name="concat"):
    """Puts tensors one after the other along their channels, or their features."""

    examples = (
        Example({}, ((3, 4, 5), (2, 4, 5)), (5, 4, 5), 0),
        Example({}, ((3, 8), (1, 8), (2, 8)), (6, 8)),
        Example({}, ((3,), (4,)), (7,)),
        _ONE,
    )

    def _axis(self, inputs: Sequence[Tensor]) -> int:
        model = typical(inputs)
        for role in (Role.CHANNEL, Role.FEATURE):
            if role in model.roles:
                return model.roles.index(role)
        raise Reject(
            "concat-axis",
            f"{model} has neither channels nor features",
            at=inputs.index(model),
            help="`Concat: {dim: 1}` joins along an axis that you name",
        )


class MatMul(Stateless, name="matmul"):
    """The matrix product of the last two axes; leading ones have equal sizes, or 1."""

    arity = Arity(2, 2)
    takes_unbatched = True
    quantizable = True
    saves = ("input",)
    examples = (
        Example({}, ((4, 5), (5, 6)), (4, 6), 0),
        Example({}, ((3, 4, 5), (3, 5, 2)), (3, 4, 2)),
        Example({}, ((1, 4, 5), (3, 5, 2)), (3, 4, 2), note="one matrix for three"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Rows of the first, columns of the second."""
        a, b = inputs
        for number, x in enumerate(inputs):
            if x.rank < 2:
                raise Reject(
                    "matmul-shape",
                    f"cannot matmul: an input has {x.rank} {'axis' if x.rank == 1 else 'axes'}, "
                    "a matrix has 2",
                    at=number,
                    label=f"this is {x}",
                )
        leading = _broadcast("matmul", inputs, max(a.rank - 2, 0))
        if a.shape[-1] != b.shape[-2]:
            raise Reject(
                "matmul-shape",
                f"cannot matmul: rows of the first have {a.shape[-1]} elements, columns of the "
                f"second have {b.shape[-2]}",
                at=1,
                label=f"this is {b}",
                notes=(f"the first input is {a}",),
            )
        roles = (*typical(inputs).roles[:-2], a.roles[-2], b.roles[-1])
        batched = a.batched or b.batched
        return (Tensor((*leading, a.shape[-2], b.shape[-1]), roles, batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """A row of the first input and a column of the second."""
        x, last = at.inputs[input], at.y.rank - 1
        leading = tuple((axis, _along(x.shape[axis], at.y.shape[axis])) for axis in range(last - 1))
        if input == 0:
            return (*leading, (last - 1, POINTWISE), (None, Everything()))
        return (*leading, (None, Everything()), (last, POINTWISE))

    def cost(self, at: Site) -> Ops:
        """The length of a row, for each output element."""
        return Ops(mac=at.y.elements * at.x.shape[-1])

    def saved(self, at: Site, batch: int) -> Saved:
        """Both inputs."""
        return self.saved_for(at, batch, (True, True))

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """The factor of what needs a gradient; of one repeated along some leading axes a copy."""
        kept, copied = [], 0
        for number, x in enumerate(at.inputs):
            if not needs[1 - number]:
                continue
            sizes = zip(x.shape[:-2], at.y.shape[:-2], strict=True)
            lies = {n == m for n, m in sizes if m > 1}
            if batch > 1 and at.y.batched:
                lies.add(x.batched)
            if len(lies) < 2:
                kept.append(number)
            else:
                copied += at.y.in_batch(batch) // prod(at.y.shape[-2:]) * prod(x.shape[-2:])
        return Saved(inputs=tuple(kept), elements=copied)

    def torch(self, at: Site) -> TorchCode:
        """The operator `@`."""
        return infix("@", In(0), In(1))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """MatMul."""
        return (node("MatMul", In(0), In(1)),)
