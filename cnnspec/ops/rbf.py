"""Squared distances to centres, as the output layer of LeNet-5: RBF."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from cnnspec.diagnostics import Reject, quantity
from cnnspec.geometry import POINTWISE, Everything
from cnnspec.lower import In, Node, Own, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, Look, Op, Ops, Saved, Site, arg
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Int, Nullable, Rows
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, uniform

_SOURCE = '''class RBF(nn.Module):
    """Squared Euclidean distances to centres: learned ones, or those given."""

    weight: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        centers: tuple[tuple[float, ...], ...] | None = None,
    ) -> None:
        super().__init__()
        if centers is None:
            self.weight = nn.Parameter(torch.empty(out_features, in_features))
            nn.init.uniform_(self.weight, -1.0, 1.0)
        else:
            self.register_buffer("weight", torch.tensor(centers, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(x, self.weight, compute_mode=exact).square()
'''


class RBF(Op):
    """Squared Euclidean distances from the features to a centre for each output.

    `y[i] = sum over j of (x[j] - w[i, j])**2` along the last axis, so that the smallest output is
    the nearest class: LeCun et al., Gradient-based learning applied to document recognition, 1998,
    equation 7. The paper's centres are bitmaps of -1 and 1 drawn by hand, which do not train.
    """

    out_features: int = arg(Int(1))
    """Number of centres, the size of the last axis of the output."""
    centers: tuple[tuple[float, ...], ...] | None = arg(Nullable(Rows()), None)
    """Fixed centres, a row for each output; learned ones, uniform from -1 to 1, if null."""

    saves = ("input",)
    examples = (
        Example({"out_features": 10}, (84,), (10,), 840, "the output of LeNet-5, learned"),
        Example({"out_features": 2, "centers": [[-1, 1, 1], [1, -1, 0.5]]}, (3,), (2,), 0),
        Example({"out_features": 4}, (5, 3), (5, 4), 12, "each of five tokens"),
        Example({"out_features": 1, "centers": [[0.5, -2]]}, (3, 4, 2), (3, 4, 1), 0),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`out_features` along the last axis; roles stay."""
        x = inputs[0]
        if not x.rank:
            raise Reject(
                "input-rank", f"`{self.name}` needs an axis of features, its input is {x}", at=0
            )
        if self.centers is not None:
            rows, columns = len(self.centers), len(self.centers[0])
            if rows != self.out_features:
                raise Reject(
                    "argument-count",
                    f"`centers` has {quantity(rows, 'row')}, but `out_features` is "
                    f"{self.out_features}",
                    at="centers",
                )
            if columns != x.shape[-1]:
                raise Reject(
                    "argument-count",
                    f"a row of `centers` has {quantity(columns, 'number')}, but the input has "
                    f"{quantity(x.shape[-1], 'feature')}",
                    at="centers",
                    notes=(f"the input is {x}",),
                )
        return (x.with_shape(*x.shape[:-1], self.out_features),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Everything along the last axis, the same place along the others."""
        last = at.x.rank - 1
        return (*((axis, POINTWISE) for axis in range(last)), (last, Everything()))

    def _shape(self, at: Site) -> tuple[int, int]:
        return self.out_features, at.x.shape[-1]

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (out, in), the centres, if they are learned."""
        if self.centers is not None:
            return {}
        return {"weight": Weight(self._shape(at), uniform(1.0), decay=False)}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """`weight` (out, in), the centres, if they are fixed."""
        if self.centers is None:
            return {}
        values = tuple(chain.from_iterable(self.centers))
        return {"weight": Buffer(self._shape(at), values=values)}

    def cost(self, at: Site) -> Ops:
        """Differences, their squares, and sums: there are no products with weights."""
        links = at.x.shape[-1] * at.y.elements
        return Ops(add=2 * links - at.y.elements, mul=links)

    def connections(self, at: Site) -> Connections | None:
        """Input features times outputs; there are no biases."""
        return Connections(at.x.shape[-1] * at.y.elements)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the distances before they are squared."""
        return super().saved(at, batch)._replace(elements=at.y.in_batch(batch))

    def torch(self, at: Site) -> TorchCode:
        """A small module."""
        written = {"centers": (self.centers, None)}
        return helper(
            self.name, _SOURCE, at.x.shape[-1], self.out_features, **unlike_default(written)
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """The formula, with an axis for the centres before the last."""
        column, apart, square = Tmp("column"), Tmp("apart"), Tmp("square")
        last = const((-1,), "int64")
        return (
            node("Unsqueeze", In(0), const((-2,), "int64"), to=column),
            node("Sub", column, Own("weight"), to=apart),
            node("Mul", apart, apart, to=square),
            node("ReduceSum", square, last, keepdims=0),
        )


__all__ = ["RBF"]
