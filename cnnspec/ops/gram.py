"""The Gram matrix of feature maps, as style transfer compares it: Gram."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import Everything
from cnnspec.lower import In, Node, Out, Rest, Tmp, TorchCode, const, helper, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool
from cnnspec.tensor import Role, Tensor

_SOURCE = '''class Gram(nn.Module):
    """Products of all pairs of channels, summed over positions."""

    def __init__(self, normalize: bool = False) -> None:
        super().__init__()
        self.normalize = normalize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = x.flatten(2)
        gram = features @ features.transpose(1, 2)
        if self.normalize:
            gram = gram / (features.shape[1] * features.shape[2])
        return gram
'''


class Gram(Stateless):
    """Products of all pairs of channels, summed over positions: what goes together, not where.

    `G[i, j] = sum over p of F[i, p]*F[j, p]` for feature maps `F` (channels x positions), which is
    Gatys, Ecker and Bethge, A neural algorithm of artistic style, 2015, equation 3. Their loss
    divides later; `normalize` divides here.
    """

    normalize: bool = arg(Bool(), False)
    """Whether to divide by channels times positions, as Johnson et al. (2016) define the matrix."""

    saves = ("input",)
    examples = (
        Example({}, (4, 5, 6), (4, 4), 0),
        Example({"normalize": True}, (4, 5, 6), (4, 4)),
        Example({}, (3, 9), (3, 3), note="a sequence"),
        Example({"normalize": True}, (2, 3, 4, 5), (2, 2), note="a volume"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels x channels."""
        x = inputs[0]
        if x.rank < 2 or x.roles[0] is not Role.CHANNEL:
            order = f", in the order {', '.join(x.roles)}" if x.rank > 1 else ""
            raise Reject(
                "input-rank",
                f"`{self.name}` needs channels and at least one further axis, its input is "
                f"{x}{order}",
                at=0,
            )
        channels = x.shape[0]
        return (Tensor((channels, channels), (Role.CHANNEL, Role.CHANNEL), x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """All of space."""
        return ((0, Everything()), *((None, Everything()) for _ in at.x.shape[1:]))

    def cost(self, at: Site) -> Ops:
        """One product of matrices."""
        return Ops(mac=at.x.shape[0] * at.x.elements, div=at.y.elements * self.normalize)

    def torch(self, at: Site) -> TorchCode:
        """A small module."""
        return helper(
            self.name,
            _SOURCE,
            products={"@": self.cost(at).mac},
            **unlike_default({"normalize": (self.normalize, False)}),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """MatMul of the flattened features and their transpose."""
        flat, turned = Tmp("flat"), Tmp("turned")
        gram = Tmp("gram") if self.normalize else Out(0)
        nodes = (
            node("Reshape", In(0), const((0, at.x.shape[0], -1), "int64"), to=flat),
            node("Transpose", flat, to=turned, perm=[0, 2, 1]),
            node("MatMul", flat, turned, to=gram),
        )
        if not self.normalize:
            return nodes
        float32 = 1
        return (
            *nodes,
            node("ReduceProd", shape(Rest(In(0), 1)), to=Tmp("count"), keepdims=0),
            Node("Cast", (Tmp("count"),), (Tmp("divisor"),), (("to", float32),)),
            node("Div", Tmp("gram"), Tmp("divisor"), to=Out(0)),
        )


__all__ = ["Gram"]
