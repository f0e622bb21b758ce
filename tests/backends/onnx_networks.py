"""Small ops and networks that use every form of ONNX lowering data, apart from the registry."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.ir import Graph
from cnnspec.lower import (
    Dim,
    Each,
    In,
    Node,
    Out,
    Own,
    Rest,
    Tmp,
    TorchCode,
    call,
    const,
    infix,
    module,
    node,
    shape,
)
from cnnspec.op import Arity, Connections, Example, Look, Op, Ops, Site, arg
from cnnspec.ops import bind
from cnnspec.slots import Float, Int
from cnnspec.tensor import Role, Tensor, default_roles
from cnnspec.weights import Buffer, Weight, constant
from tests.ops.harness import Bare, Interpreted, Network, randomise

EXAMPLES = (Example({}, (3, 8, 8)),)


class Plain(Op, abstract=True):
    """What none of these ops is about."""

    saves = ()
    examples = EXAMPLES

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        return inputs[:1]

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Nothing is learned."""
        return {}

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
        """Not said."""
        return None


class Leaky(Plain):
    """A float attribute."""

    slope: float = arg(Float(), 2)
    """The slope, a whole number by default."""

    def torch(self, at: Site) -> TorchCode:
        """`F.leaky_relu`."""
        return call("F.leaky_relu", In(0), self.slope)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LeakyRelu."""
        return (node("LeakyRelu", In(0), alpha=self.slope),)


class Drop(Plain):
    """Left out at inference."""

    identity_at_inference = True

    def torch(self, at: Site) -> TorchCode:
        """`nn.Dropout`."""
        return module("nn.Dropout", 0.5)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Identity."""
        return (node("Identity", In(0)),)


class Same(Plain):
    """An identity that is no dropout."""

    def torch(self, at: Site) -> TorchCode:
        """The input."""
        return In(0)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Identity."""
        return (node("Identity", In(0)),)


class Plus(Plain):
    """Adds one, three times."""

    def torch(self, at: Site) -> TorchCode:
        """A sum."""
        return infix("+", In(0), 3.0)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Three Adds whose constants are equal, however written."""
        one = const(1.0)
        return (
            node("Add", In(0), one, to=Tmp("once")),
            node("Add", Tmp("once"), const((1.0,), shape=()), to=Tmp("twice")),
            node("Add", Tmp("twice"), one),
        )


class Sum(Plain):
    """Adds two tensors."""

    arity = Arity(2, 2)
    takes_unbatched = True

    def torch(self, at: Site) -> TorchCode:
        """`a + b`."""
        return infix("+", In(0), In(1))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Add."""
        return (node("Add", In(0), In(1)),)


class Flat(Plain):
    """All axes into one; the batch is read when the network runs."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As many features as elements."""
        return (Tensor((inputs[0].elements,), (Role.FEATURE,)),)

    def torch(self, at: Site) -> TorchCode:
        """`torch.flatten`."""
        return call("torch.flatten", In(0), 1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape."""
        return (node("Reshape", In(0), shape(Dim(In(0), 0), at.y.shape[0])),)


class Swapped(Plain):
    """Splits channels in two and gives the sizes back in full, from the tensor itself."""

    def torch(self, at: Site) -> TorchCode:
        """`reshape` to the shape that is there."""
        return call(".reshape", In(0), Dim(In(0), 0), at.x.shape[0], -1)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels and positions."""
        x = inputs[0]
        return (Tensor((x.shape[0], x.elements // x.shape[0]), (Role.CHANNEL, Role.LENGTH)),)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape to the full shape, then to the result."""
        return (
            node("Reshape", In(0), shape(Dim(In(0), 0), Rest(In(0), 1)), to=Tmp("full")),
            node("Reshape", Tmp("full"), shape(Dim(In(0), 0), *at.y.shape)),
        )


class Halves(Plain):
    """Two outputs."""

    outputs_named = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Half of the channels each."""
        first, *others = inputs[0].shape
        return (inputs[0].with_shape(first // 2, *others),) * 2

    def torch(self, at: Site) -> TorchCode:
        """`torch.chunk`."""
        return call("torch.chunk", In(0), 2, 1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Two Slices."""
        half = at.y.shape[0]
        cut = tuple(const((n,), "int64") for n in (0, half, 2 * half, 1))
        return (
            node("Slice", In(0), cut[0], cut[1], cut[3], to=Out(0)),
            node("Slice", In(0), cut[1], cut[2], cut[3], to=Out(1)),
        )


class Dense(Plain):
    """Two matrices kept as one, used apart and turned."""

    features: int = arg(Int(1))
    """Features of each."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Features of the first matrix, then of the second."""
        return (inputs[0].with_shape(2 * self.features),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Rows of both matrices."""
        return {"weight": Weight((2 * self.features, at.x.shape[0]), constant(1.0))}

    def torch(self, at: Site) -> TorchCode:
        """`nn.Linear`."""
        return module("nn.Linear", at.x.shape[0], 2 * self.features, bias=False)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """A MatMul for each half."""
        n = self.features
        upper = Own("weight", permute=(1, 0), rows=(0, n))
        lower = Own("weight", permute=(1, 0), rows=(n, 2 * n))
        return (
            node("MatMul", In(0), upper, to=Tmp("upper")),
            node("MatMul", In(0), lower, to=Tmp("lower")),
            node("Concat", Tmp("upper"), Tmp("lower"), axis=1),
        )


class Doubled(Bare):
    """A learned tensor that is used only with a factor."""

    def torch(self, at: Site) -> TorchCode:
        """Twice the parameter."""
        return infix("*", Own(""), 2.0)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Mul."""
        return (node("Mul", Own(""), const(2.0)),)


class Joined(Plain):
    """Puts two tensors side by side along channels, the second one repeated for each sample."""

    arity = Arity(2, 2)
    takes_unbatched = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels are added."""
        a, b = inputs
        return (a.with_shape(a.shape[0] + b.shape[0], *a.shape[1:]),)

    def torch(self, at: Site) -> TorchCode:
        """`torch.cat` behind `expand`."""
        wide = call(".expand", In(1), Dim(In(0), 0), -1, -1, -1)
        return call("torch.cat", Each((In(0), wide)), 1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Expand and Concat; the sizes of the one without a batch are read from it."""
        return (
            node("Expand", In(1), shape(Dim(In(0), 0), Rest(In(1), 1)), to=Tmp("wide")),
            node("Concat", In(0), Tmp("wide"), axis=1),
        )


def made(op: type[Op], **arguments: object) -> Op:
    """An op from arguments as a spec writes them."""
    return bind(op, arguments)


def image(*shape: int) -> Tensor:
    """A network input."""
    roles = default_roles(len(shape))
    assert roles is not None
    return Tensor(shape, roles)


def torch_of(graph: Graph) -> Interpreted:
    """The graph in torch with random weights."""
    network = Interpreted(graph)
    randomise(network)
    return network


__all__ = [
    "Bare",
    "Dense",
    "Doubled",
    "Drop",
    "Flat",
    "Halves",
    "Joined",
    "Leaky",
    "Network",
    "Plus",
    "Same",
    "Sum",
    "Swapped",
    "image",
    "made",
    "torch_of",
]
