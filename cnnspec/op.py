"""The contract of an operation: its arguments are fields, its methods are the rules.

A subclass of `Op` in `cnnspec.ops` is all there is to an operation. JSON Schema, docs, expansion,
analysis and both lowerings are derived from it; nothing outside `ops` knows an op's name. Rules
are pure, know no location (they raise `Reject`) and leave the batch axis out of every shape.

    class Scale(Pointwise):
        \"\"\"Multiplies by a fixed number.\"\"\"

        factor: float = arg(Float())
        \"\"\"The number.\"\"\"

        saves = ()
        examples = (Example({"factor": 2}, (3, 8, 8)),)

        def cost(self, at: Site) -> Ops:
            return Ops(mul=at.y.elements)
        ...

A rule that a concrete op does not have is reported by name when the registry is built.
"""

from __future__ import annotations

import ast
import sys
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from inspect import cleandoc, getsource
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self, dataclass_transform

from cnnspec.diagnostics import quantity
from cnnspec.geometry import View, Window
from cnnspec.lower import Node, TorchCode
from cnnspec.record import Frozen
from cnnspec.slots import Slot
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight

__all__ = [
    "INFERRED",
    "RULES",
    "Arity",
    "ChannelAffine",
    "Connections",
    "Example",
    "LinearMap",
    "Look",
    "Op",
    "Ops",
    "Pointwise",
    "Saved",
    "Site",
    "Stateless",
    "arg",
    "field_docs",
    "slots_of",
]


@dataclass(frozen=True, slots=True)
class Ops:
    """Exact numbers of arithmetic operations at batch 1.

    `mac` is multiply-accumulates of convolution, linear, matmul and attention, and nothing else.
    `cmp` counts comparisons and absolute values, `exp` exponentials, logarithms and roots.
    """

    mac: int = 0
    add: int = 0
    mul: int = 0
    cmp: int = 0
    div: int = 0
    exp: int = 0

    def __add__(self, other: Ops) -> Ops:
        return Ops(
            self.mac + other.mac,
            self.add + other.add,
            self.mul + other.mul,
            self.cmp + other.cmp,
            self.div + other.div,
            self.exp + other.exp,
        )

    @property
    def flops(self) -> int:
        """Two for each multiply-accumulate, one for everything else."""
        return 2 * self.mac + self.add + self.mul + self.cmp + self.div + self.exp


class Connections(NamedTuple):
    """Links between units as the lectures count them (`weights`), and LeCun's of biases."""

    weights: int
    biases: int = 0


class Arity(NamedTuple):
    """How many inputs an op takes; `most` is None where there is no limit."""

    least: int
    most: int | None

    def describe(self) -> str:
        """The number of inputs, to complete `takes ...`."""
        if self.least == self.most:
            return quantity(self.least, "input") if self.least else "no input"
        if self.most is None:
            return f"at least {quantity(self.least, 'input')}"
        return f"{self.least} to {self.most} inputs"


class Site(NamedTuple):
    """Where an op stands: the tensors that go in and come out."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def x(self) -> Tensor:
        """The first input."""
        return self.inputs[0]

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.outputs[0]


class Saved(NamedTuple):
    """What torch keeps of a layer from forward to backward, for a whole batch.

    `inputs` and `outputs` are positions of tensors that are kept whole: several layers may keep the
    same one. The others are numbers of elements that nothing else keeps: `elements` in the type of
    the network, `statistics` of norms in float32 at least, `mask` in one byte each, `indices` in
    eight. Parameters and buffers are none of them.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    elements: int = 0
    statistics: int = 0
    mask: int = 0
    indices: int = 0


Look = tuple[tuple[int | None, View], ...]
"""For each axis of an input: the output axis it lies along, or None, and the view."""


class LinearMap(NamedTuple):
    """An op that is linear in its one input up to a bias, by the names of its weights.

    Batch norms fold into it. Channels are those of the first axis of input and output, batch not
    counted. `out_axis` is the axis of the weight that runs over output channels, `in_axis` the one
    over input channels, or None where a scale of the input is no scale of the weight. Of `groups`
    blocks of channels that do not see each other the first axis of the weight runs over all, the
    second over those of one block. `rows` gives the output channel of each position along
    `out_axis` where those are not the channels themselves.

    `keeps_shifts` says whether a constant added to an input channel adds the same to all positions
    of an output channel: not where the op pads with zeros.
    """

    weight: str
    bias: str | None
    out_axis: int
    groups: int = 1
    in_axis: int | None = None
    keeps_shifts: bool = False
    rows: tuple[int, ...] | None = None


class ChannelAffine(NamedTuple):
    """An op that at inference is `(x - mean) / sqrt(var + eps) * scale + shift` per channel.

    The first four are names of its weights and buffers; None where it has none.
    """

    mean: str
    var: str
    scale: str | None
    shift: str | None
    eps: float


@dataclass(frozen=True, slots=True)
class Example:
    """A worked case: arguments as a spec writes them, input shapes without batch, and figures.

    `like` arguments name an input by its position (`like: 1`). `output` and `params` are asserted
    where given.
    """

    arguments: Mapping[str, Any]
    inputs: tuple[tuple[int, ...], ...] | tuple[int, ...]
    output: tuple[int, ...] | None = None
    params: int | None = None
    note: str = ""

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of all inputs; a single shape may be written without the outer tuple."""
        flat = tuple(size for size in self.inputs if isinstance(size, int))
        return (flat,) if flat else tuple(s for s in self.inputs if not isinstance(s, int))


def arg(slot: Slot, default: Any = MISSING) -> Any:
    """Declare a field as a YAML argument, required unless it has a default (as a spec writes it).

    Ops are made by `cnnspec.ops.bind`, which puts defaults through the slot like any other value.
    """
    return field(default=default, metadata={"slot": slot}, kw_only=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(arg,))
class Op(Frozen, ABC):
    """An operation: a frozen dataclass whose fields are its arguments.

    Subclasses become dataclasses by themselves. Pass `abstract=True` for the base of a family,
    which is no operation of its own.
    """

    name: ClassVar[str]
    """The key in a spec: the class's name unless it sets another."""
    abstract: ClassVar[bool] = True
    axes: ClassVar[int] = 2
    """Number of spatial axes: how many values a size has."""
    arity: ClassVar[Arity] = Arity(1, 1)
    outputs_named: ClassVar[bool] = False
    """True if there may be several outputs, referred to as `x.0`, `x.1`."""
    takes_unbatched: ClassVar[bool] = False
    """True if an input may be a bare `Parameter`, which has no batch."""
    identity_at_inference: ClassVar[bool] = False
    """True if inference can leave the op out (dropout)."""
    inplace_capable: ClassVar[bool] = False
    """True if the output may take the place of the first input in memory at inference."""
    quantizable: ClassVar[bool] = False
    """True if ONNX Runtime has int8 kernels on the CPU for what the op becomes."""
    saves: ClassVar[tuple[str, ...]]
    """What backward keeps: any of `input`, `output`, `mask` (one byte an output element), `indices`
    (eight bytes an output element). An op that keeps more or less says so in `saved`."""
    examples: ClassVar[tuple[Example, ...]]
    """At least one worked case."""
    _fields: ClassVar[Mapping[str, Field[Any]]]

    def __init_subclass__(cls, *, abstract: bool = False, name: str = "") -> None:
        cls.abstract = abstract
        cls.name = name or cls.__name__
        # Only its fields are asked of dataclass, as for a `Record`.
        dataclass(init=False, eq=False, repr=False)(cls)
        found = fields(cls)  # type: ignore[arg-type]  # made a dataclass above
        cls._fields = {f.name: f for f in sorted(found, key=cls._rank)}

    @classmethod
    def _rank(cls, argument: Field[Any]) -> tuple[bool, int]:
        """Required arguments come first, what a class adds to its family before the family's."""
        if argument.default is not MISSING:
            return True, 0
        owners = (argument.name in vars(c).get("__annotations__", ()) for c in cls.__mro__)
        return False, list(owners).index(True)

    def __init__(self, **arguments: Any) -> None:
        """Every argument in its final form: `cnnspec.ops.bind` makes ops."""
        self.__dict__.update(arguments)

    # ------------------------------------------------------------------------------ the rules

    infer: Callable[..., tuple[Tensor, ...]]
    """`infer(inputs) -> outputs`: output tensors, or `Reject` with the field or input to blame."""
    weights: Callable[[Site], Mapping[str, Weight]]
    """Learned tensors by state-dict name below the entry's path; `""` is the path itself."""
    buffers: Callable[[Site], Mapping[str, Buffer]]
    """Stored tensors that are not learned, likewise."""
    cost: Callable[[Site], Ops]
    """Operations at batch 1, in inference, with no folding."""
    connections: Callable[[Site], Connections | None]
    """Links between units, or None for an op that has no units of its own (pooling, norms)."""
    window: Callable[[Site, int, int], Look | None]
    """`window(site, input, output)`: how an output looks back at an input, axis by axis of that
    input; None if its values do not reach the output (only its size is read)."""
    torch: Callable[[Site], TorchCode]
    """The torch lowering, as data."""
    onnx: Callable[[Site, int], tuple[Node, ...]]
    """`onnx(site, opset)`: the ONNX lowering at inference, as data."""

    # ------------------------------------------------------------------------ derived, optional

    def linear_map(self, at: Site) -> LinearMap | None:
        """How a batch norm behind this op, or before it, folds into it; or None."""
        return None

    def channel_affine(self, at: Site) -> ChannelAffine | None:
        """The per-channel scale and shift this op is at inference, or None.

        By convention inference folds such an op into a neighbour, so that it costs nothing.
        """
        return None

    def with_bias(self) -> Op:
        """This op with all that folding a scale and a shift into it asks for.

        A linear map has a bias then, a norm both its scale and its shift.
        """
        return self

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """What does to a map, at each position, what this op does to one vector of features.

        The vector lies in the map as a `window`: channels, then an extent along each axis, row by
        row. The result takes a map of at least that size, and to one of that size it does the same,
        with weights of the same names whose elements are the same in the same order. None for an op
        that has no such form.
        """
        return None

    def with_fixed_windows(self, at: Site) -> Op | None:
        """This op with windows that do not grow with its input, as large as they are at `at`.

        An op whose windows never grow is that itself. None where its windows differ in size.
        """
        return self

    def onnx_open(self, at: Site, opset: int) -> tuple[Node, ...]:
        """The ONNX lowering where sizes of what the op reads are known only when it runs.

        An op whose nodes at one size are no use at another says here how to do without knowing it.
        """
        return self.onnx(at, opset)

    def forgets_shifts(self, at: Site) -> bool:
        """Whether a constant added to a channel of the input leaves the output as it is.

        What subtracts the mean of each channel does so; a batch norm does in training.
        """
        return self.channel_affine(at) is not None

    def unread(self, at: Site) -> tuple[tuple[int, int, int], ...]:
        """Rows of input that no output reads: `(axis of the input, rows, remainder)` where the
        remainder of the division by the stride is not zero."""
        return ()

    def saved(self, at: Site, batch: int) -> Saved:
        """What torch keeps for backward in a batch of `batch` samples: what `saves` says."""
        elements = sum(tensor.in_batch(batch) for tensor in at.outputs)
        return Saved(
            tuple(range(len(at.inputs))) if "input" in self.saves else (),
            tuple(range(len(at.outputs))) if "output" in self.saves else (),
            mask=elements if "mask" in self.saves else 0,
            indices=elements if "indices" in self.saves else 0,
        )

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """What torch keeps where only those inputs need a gradient for which `needs` is True.

        `saved` is where all do. An op differs whose gradient for one input asks for another.
        """
        return self.saved(at, batch)

    def is_view(self, at: Site) -> bool:
        """Whether torch's outputs lie in the memory of the first input, in training too."""
        return False

    def macts(self, at: Site) -> int:
        """Elements that multiply-accumulates make: the outputs of an op that has any."""
        return sum(tensor.elements for tensor in at.outputs) if self.cost(at).mac else 0

    def padding_macs(self, at: Site) -> int:
        """How many of the multiply-accumulates meet zeros of the padding, or of no output."""
        return 0

    def arguments(self) -> dict[str, Any]:
        """The arguments in their final form, by name."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self, **changed: Any) -> Self:
        """This op with other arguments, in their final form."""
        return type(self)(**(self.arguments() | changed))

    def __repr__(self) -> str:
        given = ", ".join(f"{k}={v!r}" for k, v in self.arguments().items())
        return f"{self.name}({given})"


INFERRED = frozenset(
    ("in_channels", "in_features", "num_features", "num_channels", "normalized_shape", "embed_dim")
)
"""Arguments of torch's layers that are inferred from the input, and so no arguments here."""

RULES = (
    "infer",
    "weights",
    "buffers",
    "cost",
    "connections",
    "window",
    "torch",
    "onnx",
    "saves",
    "examples",
)
"""What every operation has to say. The registry refuses one that lacks any of them."""


def slots_of(op: type[Op]) -> Mapping[str, Field[Any]]:
    """The dataclass field of each argument, by name; its slot is `metadata["slot"]`."""
    return op._fields


class Stateless(Op, abstract=True):
    """Base of ops that store nothing and have no units."""

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Nothing is learned."""
        return {}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def connections(self, at: Site) -> Connections | None:
        """There are no units."""
        return None


class Pointwise(Op, abstract=True):
    """Base of ops of one input whose every output element looks at the same place of it."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        return (inputs[0],)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at itself."""
        return tuple((axis, Window(1)) for axis in range(at.x.rank))

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """The same: it knows no positions."""
        return self


def field_docs(op: type[Op]) -> dict[str, str]:
    """What each argument means, by name: the docstring that follows its field in the source."""
    found: dict[str, str] = {}
    for owner in reversed(op.__mro__):
        if issubclass(owner, Op) and owner is not Op:
            found |= _documented(owner.__module__).get(owner.__name__, {})
    return {name: found.get(name, "") for name in slots_of(op)}


@cache
def _documented(module: str) -> Mapping[str, Mapping[str, str]]:
    """The docstrings of fields in a module, by class and field."""
    return {
        node.name: {
            declared.target.id: cleandoc(after.value.value)
            for declared, after in pairwise(node.body)
            if isinstance(declared, ast.AnnAssign)
            and isinstance(declared.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        }
        for node in ast.walk(ast.parse(getsource(sys.modules[module])))
        if isinstance(node, ast.ClassDef)
    }
