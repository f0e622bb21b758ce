"""Graphs written by hand, and toy ops, for tests of what comes after the frontend.

    net = Net("lenet", image=(1, 32, 32))
    net.add("Conv2d", out_channels=6, kernel_size=5)
    with net.scope("Sequential", "classifier"):
        net.add(Dense(units=10))
    graph = net.build()

Every entry gets a line of its own in a made-up source, so that places can be asserted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from cnnspec.geometry import Everything, Flattened, Window
from cnnspec.ir import Frame, Graph, NetworkOutput, Node, Scope
from cnnspec.op import ChannelAffine, Connections, Look, Op, Ops, Pointwise, Site, Stateless, arg
from cnnspec.ops import bind, registry
from cnnspec.slots import Int
from cnnspec.source import Source, Span
from cnnspec.tensor import Tensor, default_roles
from cnnspec.weights import Buffer, Weight, constant

__all__ = ["Dense", "Drop", "Flat", "Mean", "Net", "Norm", "Plus", "Rectify", "Stored", "Turn"]


class Net:
    """Builds a graph entry by entry, chained from `net.last` unless told otherwise."""

    def __init__(self, network: str = "net", /, **inputs: tuple[int, ...]) -> None:
        """A network with inputs by name, shapes without batch."""
        self.source = Source("net.yaml", "".join(f"  - entry {n}\n" for n in range(1, 2000)))
        self._line = 0
        self.name = network
        self.tensors: list[Tensor] = []
        self.producers: list[int] = []
        self.nodes: list[Node] = []
        self.inputs: dict[str, int] = {}
        for name, shape in inputs.items():
            roles = default_roles(len(shape))
            assert roles is not None
            self.inputs[name] = self._value(Tensor(shape, roles), -1)
        self.last = len(self.tensors) - 1
        self.root = Scope("", network, None, {}, None, self._span())
        self._scope = self.root
        self._frame: Frame | None = None

    def _span(self) -> Span:
        self._line += 1
        line = (self._line - 1) % 1999 + 1
        return Span(self.source, line, 5, line, 5 + len(f"entry {line}"))

    def _value(self, tensor: Tensor, producer: int) -> int:
        self.tensors.append(tensor)
        self.producers.append(producer)
        return len(self.tensors) - 1

    def _path(self, name: str | None) -> str:
        scope = self._scope
        while scope.inline and scope.parent is not None:
            scope = scope.parent
        local = name if name is not None else str(len(self._scope.members))
        return f"{scope.path}.{local}" if scope.path else local

    def add(
        self,
        op: str | Op,
        *sources: int,
        name: str | None = None,
        share: int | None = None,
        allow: Iterable[str] = (),
        span: Span | None = None,
        **arguments: Any,
    ) -> int:
        """Add an operation; returns its first value, which the next entry follows."""
        if isinstance(op, str):
            op = bind(registry()[op], arguments)
        taken = sources or ((self.last,) if op.arity.least else ())
        made = op.infer(tuple(self.tensors[value] for value in taken))
        index = len(self.nodes)
        outputs = tuple(self._value(tensor, index) for tensor in made)
        self.nodes.append(
            Node(
                index=index,
                path=self._path(name),
                op=op,
                inputs=taken,
                outputs=outputs,
                span=span or self._span(),
                frame=self._frame,
                scope=self._scope,
                named=name is not None,
                share=share,
                allow=frozenset(allow),
            )
        )
        self._scope.members.append(index)
        self.last = outputs[0]
        return outputs[0]

    @contextmanager
    def scope(
        self,
        kind: str,
        name: str | None = None,
        *,
        inline: bool = False,
        arguments: Mapping[str, Any] | None = None,
        span: Span | None = None,
    ) -> Iterator[Scope]:
        """Entries inside belong to a call of the block `kind`, or to a Sequential."""
        outer, frame = self._scope, self._frame
        span = span or self._span()
        path = outer.path if inline else self._path(name)
        scope = Scope(path, kind, None, arguments or {}, outer, span, inline, name is not None)
        scope.inputs = (self.last,)
        outer.members.append(scope)
        self._scope = scope
        if kind != "Sequential":
            self._frame = Frame(kind, span, (), frame)
        yield scope
        scope.outputs = (("", self.last),)
        self._scope, self._frame = outer, frame

    def build(
        self, outputs: Mapping[str, int] | None = None, training: Mapping[str, int] | None = None
    ) -> Graph:
        """The graph; without `outputs` its output is the last value."""
        inference = {"output": self.last} if outputs is None else outputs
        return Graph(
            name=self.name,
            inputs=self.inputs,
            tensors=tuple(self.tensors),
            producers=tuple(self.producers),
            nodes=tuple(self.nodes),
            outputs=(
                *(NetworkOutput(name, value) for name, value in inference.items()),
                *(NetworkOutput(n, v, training=True) for n, v in (training or {}).items()),
            ),
            root=self.root,
            metadata={},
        )


class _Toy(Op, abstract=True):
    """What toy ops do not need to say: lowerings and examples."""

    saves: ClassVar[tuple[str, ...]] = ()
    examples = ()

    def torch(self, at: Site) -> Any:
        """Toys are not lowered."""
        raise AssertionError

    def onnx(self, at: Site, opset: int) -> Any:
        """Toys are not lowered."""
        raise AssertionError


class Rectify(Pointwise, Stateless, _Toy):
    """An activation that works in place."""

    inplace_capable = True
    saves = ("output",)

    def cost(self, at: Site) -> Ops:
        """One comparison an element."""
        return Ops(cmp=at.y.elements)


class Drop(Pointwise, Stateless, _Toy):
    """Nothing at inference."""

    identity_at_inference = True
    saves = ("mask",)

    def cost(self, at: Site) -> Ops:
        """Nothing."""
        return Ops()


class Norm(Pointwise, Stateless, _Toy):
    """A norm that folds: two parameters and two buffers a channel, and a counter."""

    saves = ("input",)

    def channel_affine(self, at: Site) -> ChannelAffine:
        """Running statistics, scale and shift."""
        return ChannelAffine("running_mean", "running_var", "weight", "bias", 1e-5)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Scale and shift."""
        shape = at.x.shape[:1]
        return {
            "weight": Weight(shape, constant(1), decay=False),
            "bias": Weight(shape, constant(0), decay=False),
        }

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Running statistics."""
        shape = at.x.shape[:1]
        return {
            "mean": Buffer(shape),
            "var": Buffer(shape, 1),
            "count": Buffer((), dtype="int64"),
            "scratch": Buffer((99,), persistent=False),
        }

    def cost(self, at: Site) -> Ops:
        """A product and a sum an element."""
        return Ops(add=at.y.elements, mul=at.y.elements)


class Plus(Stateless, _Toy):
    """The sum of tensors of one shape."""

    arity = registry()["Conv2d"].arity._replace(least=2, most=None)
    inplace_capable = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        return (inputs[0],)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself."""
        return tuple((axis, Window()) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """One addition an element and further input."""
        return Ops(add=at.y.elements * (len(at.inputs) - 1))


class Turn(Stateless, _Toy):
    """Exchanges the last two axes."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Sizes and roles change places."""
        x = inputs[0]
        return (
            Tensor(
                (*x.shape[:-2], x.shape[-1], x.shape[-2]),
                (*x.roles[:-2], x.roles[-1], x.roles[-2]),
            ),
        )

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """The last axes lie along each other."""
        rank = at.x.rank
        order = [*range(rank - 2), rank - 1, rank - 2]
        return tuple((axis, Window()) for axis in order)

    def cost(self, at: Site) -> Ops:
        """Moves only."""
        return Ops()


class Mean(Stateless, _Toy):
    """The mean over space, one number a channel."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Spatial axes become 1."""
        return (inputs[0].with_shape(inputs[0].shape[0], *(1 for _ in inputs[0].shape[1:])),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Everything along space."""
        return ((0, Window()), *((axis, Everything()) for axis in range(1, at.x.rank)))

    def cost(self, at: Site) -> Ops:
        """A sum and a division."""
        return Ops(add=at.x.elements, div=at.y.elements)


class Flat(Stateless, _Toy):
    """All axes in one."""

    inplace_capable = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One axis of features."""
        roles = default_roles(1)
        assert roles is not None
        return (Tensor((inputs[0].elements,), roles),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Positions are lost."""
        return tuple((0, Flattened()) for _ in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing."""
        return Ops()


class Dense(_Toy):
    """A linear layer on features."""

    units: int = arg(Int(1))
    saves = ("input",)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One number a unit."""
        return (Tensor((self.units,), inputs[0].roles),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """All of it."""
        return ((0, Everything()),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """A matrix and a bias."""
        return {
            "weight": Weight((self.units, at.x.elements), constant(0)),
            "bias": Weight((self.units,), constant(0), decay=False),
        }

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def cost(self, at: Site) -> Ops:
        """Fan-in times units."""
        return Ops(mac=self.units * at.x.elements, add=self.units)

    def connections(self, at: Site) -> Connections | None:
        """All with all."""
        return Connections(self.units * at.x.elements, self.units)


class Stored(Stateless, _Toy):
    """A bare tensor of shape channels x height x width, the same for every sample."""

    arity = registry()["Conv2d"].arity._replace(least=0, most=0)
    channels: int = arg(Int(1))
    size: int = arg(Int(1))

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As declared."""
        roles = default_roles(3)
        assert roles is not None
        return (Tensor((self.channels, self.size, self.size), roles, batched=False),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """The tensor itself, not trained."""
        return {"": Weight(at.y.shape, constant(0), trainable=False)}

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """There are no inputs."""
        return None

    def cost(self, at: Site) -> Ops:
        """Nothing."""
        return Ops()
