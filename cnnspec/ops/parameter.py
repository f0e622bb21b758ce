"""A learned tensor that stands by itself: Parameter."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.diagnostics import Reject
from cnnspec.lower import Node, Own, TorchCode, node
from cnnspec.op import Arity, Example, Look, Ops, Site, Stateless, arg
from cnnspec.slots import Bool, Float, Nullable, Shape
from cnnspec.tensor import Role, Tensor, default_roles
from cnnspec.weights import Weight, constant, normal


class Parameter(Stateless):
    """A learned tensor, the same for every sample: a position embedding, a class token, a scale.

    Its state-dict key is the entry's own path. Without `value` or `std` it starts at zero.
    """

    shape: tuple[int, ...] = arg(Shape())
    """Sizes, batch not counted."""
    batch: bool = arg(Bool(), False)
    """Whether it is stored with a batch axis of 1 in front."""
    value: float | None = arg(Nullable(Float()), None)
    """What every element starts at."""
    std: float | None = arg(Nullable(Float(least=0)), None)
    """Standard deviation of a normal start, with mean 0."""

    arity = Arity(0, 0)
    saves = ()
    examples = (
        Example({"shape": [8, 1, 1], "value": 1e-6}, (), (8, 1, 1), 8, "ConvNeXt's layer scale"),
        Example({"shape": [5, 8], "batch": True, "std": 0.02}, (), (5, 8), 40, "an embedding"),
        Example({"shape": []}, (), (), 1, "a scalar"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape itself. Two axes are tokens x features, others as those of an input."""
        if self.value is not None and self.std is not None:
            raise Reject(
                "argument-conflict",
                f"`{self.name}` starts either at `value` or with `std`, not both",
                at="std",
            )
        rank = len(self.shape)
        roles = (Role.TOKEN, Role.FEATURE) if rank == 2 else default_roles(rank)
        if roles is None:
            raise Reject(
                "argument-value", f"`shape` has {rank} axes, at most 4 have a meaning", at="shape"
            )
        return (Tensor(self.shape, roles, batched=False),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """There is nothing to look at."""
        return None

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """The tensor, at the entry's own path."""
        start = constant(self.value or 0.0) if self.std is None else normal(self.std)
        stored = (1, *self.shape) if self.batch else self.shape
        return {"": Weight(stored, start, decay=False)}

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """The parameter."""
        return Own("")

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """The stored tensor."""
        return (node("Identity", Own("")),)


__all__ = ["Parameter"]
