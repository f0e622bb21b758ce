"""Activations: functions of single elements, named and parametrised as in torch.nn if it has them.

How operations are counted, per element: a sigmoid is an exponential, an addition and a division; a
tanh one multiplication and one addition more; a softplus an exponential, an addition and a
logarithm; an erf one exponential. Negations, choices and copies are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt
from typing import Any, ClassVar

from cnnspec.diagnostics import Reject
from cnnspec.lower import (
    In,
    Node,
    OnnxValue,
    Out,
    Own,
    Tmp,
    TorchCode,
    call,
    const,
    infix,
    module,
    node,
)
from cnnspec.op import Example, Ops, Pointwise, Saved, Site, Stateless, arg, slots_of
from cnnspec.slots import Bool, Float, Int, Word, describe_value
from cnnspec.tensor import Tensor
from cnnspec.weights import Weight, constant

_SIGMOID = Ops(exp=1, add=1, div=1)
_TANH = Ops(exp=1, add=2, div=1, mul=1)
_SOFTPLUS = Ops(exp=2, add=1)
_IMAGE = (Example({}, (3, 4, 5), (3, 4, 5), 0), Example({}, (7,), (7,), 0))


class _Activation(Pointwise, Stateless, abstract=True):
    """A function of one element. Subclasses say what it costs and how ONNX computes it."""

    each: ClassVar[Ops]
    """Operations for one element."""

    takes_unbatched = True
    inplace_capable = True
    saves: ClassVar[tuple[str, ...]] = ("input",)
    examples: ClassVar[tuple[Example, ...]] = _IMAGE

    def cost(self, at: Site) -> Ops:
        """The same for each output element."""
        n, each = at.y.elements, self.each
        return Ops(0, n * each.add, n * each.mul, n * each.cmp, n * each.div, n * each.exp)

    def torch(self, at: Site) -> TorchCode:
        """The module of torch.nn of the same name, with the arguments that are not its defaults."""
        return module(f"nn.{self.name}", **self._given())

    def _given(self) -> dict[str, Any]:
        given = {
            name: value
            for name, value in self.arguments().items()
            if value != slots_of(type(self))[name].default
        }
        if "inplace" in given:
            given["inplace"] = given.pop("inplace")
        return given


class _InplaceActivation(_Activation, abstract=True):
    """An activation that torch can write over its input."""

    inplace: bool = arg(Bool(), False)
    """Whether the torch module overwrites its input; the result is the same."""


# ------------------------------------------------------------------------------ piecewise linear


class ReLU(_InplaceActivation):
    """`max(x, 0)` (Nair and Hinton 2010)."""

    each = Ops(cmp=1)
    quantizable = True
    saves = ("output",)
    examples = (*_IMAGE, Example({"inplace": True}, (2, 3)))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Relu."""
        return (node("Relu", In(0)),)


class ReLU6(_InplaceActivation):
    """`min(max(x, 0), 6)` (Howard et al. 2017)."""

    each = Ops(cmp=2)
    quantizable = True

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Clip."""
        return (node("Clip", In(0), const(0.0), const(6.0)),)


class Hardtanh(_InplaceActivation):
    """`min(max(x, min_val), max_val)`."""

    min_val: float = arg(Float(), -1.0)
    """Lower bound."""
    max_val: float = arg(Float(), 1.0)
    """Upper bound."""

    each = Ops(cmp=2)
    quantizable = True
    examples = (*_IMAGE, Example({"min_val": -2, "max_val": 0.5}, (3, 4, 5)))

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        if self.min_val >= self.max_val:
            raise Reject(
                "argument-value",
                f"`max_val` must be more than `min_val`, which is {describe_value(self.min_val)}, "
                f"not {describe_value(self.max_val)}",
                at="max_val",
            )
        return super().infer(inputs)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Clip."""
        return (node("Clip", In(0), const(self.min_val), const(self.max_val)),)


class LeakyReLU(_InplaceActivation):
    """`x` above 0, `negative_slope * x` below (Maas et al. 2013)."""

    negative_slope: float = arg(Float(), 0.01)
    """Slope below 0."""

    each = Ops(cmp=1, mul=1)
    quantizable = True
    examples = (*_IMAGE, Example({"negative_slope": 0.2, "inplace": True}, (3, 4, 5)))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LeakyRelu."""
        return (node("LeakyRelu", In(0), alpha=float(self.negative_slope)),)


class RReLU(_InplaceActivation):
    """A leaky ReLU whose slope is drawn anew for each element in training (Xu et al. 2015).

    At inference the slope is the mean of `lower` and `upper`.
    """

    lower: float = arg(Float(), 1 / 8)
    """Least slope below 0."""
    upper: float = arg(Float(), 1 / 3)
    """Largest slope below 0."""

    each = Ops(cmp=1, mul=1)
    examples = (*_IMAGE, Example({"lower": 0.1, "upper": 0.5}, (3, 4, 5)))

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        if self.lower > self.upper:
            raise Reject(
                "argument-value",
                f"`upper` must be at least `lower`, which is {describe_value(self.lower)}, "
                f"not {describe_value(self.upper)}",
                at="upper",
            )
        return super().infer(inputs)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and the slopes drawn."""
        return super().saved(at, batch)._replace(elements=at.y.in_batch(batch))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """LeakyRelu with the mean slope."""
        return (node("LeakyRelu", In(0), alpha=(self.lower + self.upper) / 2),)


class PReLU(_Activation):
    """A leaky ReLU whose slopes are learned: one, or one per channel (He et al. 2015)."""

    num_parameters: int = arg(Int(1), 1)
    """1, or the number of channels (in torch, of whatever axis follows the batch)."""
    init: float = arg(Float(), 0.25)
    """What slopes start from."""

    each = Ops(cmp=1, mul=1)
    takes_unbatched = False
    examples = (
        Example({}, (3, 4, 5), (3, 4, 5), 1),
        Example({"num_parameters": 3, "init": 0.1}, (3, 4, 5), (3, 4, 5), 3),
        Example({"num_parameters": 7}, (7,), (7,), 7),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if self.num_parameters != 1 and x.shape[:1] != (self.num_parameters,):
            raise Reject(
                "argument-value",
                f"`num_parameters` must be 1 or the number of channels, not {self.num_parameters}",
                at="num_parameters",
                notes=(f"the input is {x}",),
            )
        return (x,)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """The slopes; the paper warns against weight decay, which would draw them to a ReLU."""
        return {"weight": Weight((self.num_parameters,), constant(self.init), decay=False)}

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """PRelu, whose slopes have to line up with the channel axis."""
        if self.num_parameters == 1 or at.x.rank == 1:
            return (node("PRelu", In(0), Own("weight")),)
        column = const((-1, *(1,) * (at.x.rank - 1)), "int64")
        return (
            node("Reshape", Own("weight"), column, to=Tmp("slopes")),
            node("PRelu", In(0), Tmp("slopes")),
        )


class Threshold(_InplaceActivation):
    """`x` where that is more than `threshold`, else `value`."""

    threshold: float = arg(Float())
    """What `x` must exceed to stay."""
    value: float = arg(Float())
    """What stands in the place of the others."""

    each = Ops(cmp=1)
    examples = (Example({"threshold": 0.1, "value": -3}, (3, 4, 5), (3, 4, 5), 0),)

    def torch(self, at: Site) -> TorchCode:
        """`nn.Threshold`."""
        inplace: dict[str, Any] = {"inplace": True} if self.inplace else {}
        return module("nn.Threshold", self.threshold, self.value, **inplace)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Where, with torch's comparison: what is no number stays."""
        return (
            node("LessOrEqual", In(0), const(self.threshold), to=Tmp("low")),
            node("Where", Tmp("low"), const(self.value), In(0)),
        )


class Hardshrink(_Activation):
    """0 from `-lambd` to `lambd`, `x` elsewhere."""

    lambd: float = arg(Float(), 0.5)
    """Half the width of the zero part."""

    each = Ops(cmp=2)
    examples = (*_IMAGE, Example({"lambd": 1}, (3, 4, 5)))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Shrink."""
        return (node("Shrink", In(0), lambd=float(self.lambd), bias=0.0),)


class Softshrink(_Activation):
    """0 from `-lambd` to `lambd`, elsewhere `x` moved towards 0 by `lambd`."""

    lambd: float = arg(Float(least=0), 0.5)
    """Half the width of the zero part."""

    each = Ops(cmp=2, add=1)
    examples = (*_IMAGE, Example({"lambd": 1}, (3, 4, 5)))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Shrink."""
        return (node("Shrink", In(0), lambd=float(self.lambd), bias=float(self.lambd)),)


class Hardsigmoid(_InplaceActivation):
    """`min(max(x/6 + 1/2, 0), 1)` (Howard et al. 2019)."""

    each = Ops(cmp=2, mul=1, add=1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """HardSigmoid."""
        return (node("HardSigmoid", In(0), alpha=1 / 6, beta=0.5),)


class Hardswish(_InplaceActivation):
    """`x * hardsigmoid(x)` (Howard et al. 2019)."""

    each = Ops(cmp=2, mul=2, add=1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """HardSwish, from opset 14 on."""
        if opset >= 14:
            return (node("HardSwish", In(0)),)
        return (
            node("HardSigmoid", In(0), to=Tmp("gate"), alpha=1 / 6, beta=0.5),
            node("Mul", In(0), Tmp("gate")),
        )


# ---------------------------------------------------------------------------------------- smooth


class Sigmoid(_Activation):
    """`1 / (1 + exp(-x))`."""

    each = _SIGMOID
    quantizable = True
    saves = ("output",)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Sigmoid."""
        return (node("Sigmoid", In(0)),)


class LogSigmoid(_Activation):
    """`log(1 / (1 + exp(-x)))`."""

    each = _SOFTPLUS

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """`-softplus(-x)`, which keeps its precision far from 0."""
        return (
            node("Neg", In(0), to=Tmp("negative")),
            node("Softplus", Tmp("negative"), to=Tmp("softplus")),
            node("Neg", Tmp("softplus")),
        )


class Tanh(_Activation):
    """The hyperbolic tangent."""

    each = _TANH
    saves = ("output",)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Tanh."""
        return (node("Tanh", In(0)),)


class ScaledTanh(_Activation):
    """`amplitude * tanh(slope * x)`, the squashing function of LeNet-5.

    LeCun et al., Gradient-based learning applied to document recognition, 1998, equation 6 and
    appendix A: with the default constants it takes 1 to 1 and -1 to -1, where it bends most.
    """

    amplitude: float = arg(Float(), 1.7159)
    """The limit far above 0."""
    slope: float = arg(Float(), 2 / 3)
    """What `x` is multiplied by."""

    each = _TANH + Ops(mul=2)
    saves = ()  # but the tanh: see `saved`
    examples = (*_IMAGE, Example({"amplitude": 2, "slope": 0.5}, (3, 4, 5)))

    def saved(self, at: Site, batch: int) -> Saved:
        """The tanh, which is as large as the output."""
        return Saved(elements=at.y.in_batch(batch))

    def torch(self, at: Site) -> TorchCode:
        """The formula."""
        return infix("*", self.amplitude, call("torch.tanh", infix("*", self.slope, In(0))))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """The formula."""
        return (
            node("Mul", In(0), const(float(self.slope)), to=Tmp("steep")),
            node("Tanh", Tmp("steep"), to=Tmp("tanh")),
            node("Mul", Tmp("tanh"), const(float(self.amplitude))),
        )


class Tanhshrink(_Activation):
    """`x - tanh(x)`."""

    each = _TANH + Ops(add=1)
    saves = ()  # but tanh(x): see `saved`

    def saved(self, at: Site, batch: int) -> Saved:
        """`tanh(x)`."""
        return Saved(elements=at.y.in_batch(batch))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Tanh and Sub."""
        return (node("Tanh", In(0), to=Tmp("tanh")), node("Sub", In(0), Tmp("tanh")))


class ELU(_InplaceActivation):
    """`x` above 0, `alpha * (exp(x) - 1)` below (Clevert et al. 2015)."""

    alpha: float = arg(Float(), 1.0)
    """Minus the limit far below 0."""

    each = Ops(cmp=1, exp=1, add=1, mul=1)
    examples = (*_IMAGE, Example({"alpha": 0.5, "inplace": True}, (3, 4, 5)))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Elu."""
        return (node("Elu", In(0), alpha=float(self.alpha)),)


class CELU(_InplaceActivation):
    """`x` above 0, `alpha * (exp(x/alpha) - 1)` below (Barron 2017)."""

    alpha: float = arg(Float(), 1.0)
    """Minus the limit far below 0."""

    each = Ops(cmp=1, exp=1, add=1, mul=1, div=1)
    examples = (*_IMAGE, Example({"alpha": 0.5}, (3, 4, 5)))

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        if not self.alpha:
            raise Reject("argument-value", "`alpha` must not be 0", at="alpha")
        return super().infer(inputs)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Celu."""
        return (node("Celu", In(0), alpha=float(self.alpha)),)


class SELU(_InplaceActivation):
    """A scaled ELU with fixed constants that keep mean and variance (Klambauer et al. 2017)."""

    each = Ops(cmp=1, exp=1, add=1, mul=2)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Selu, whose constants are torch's."""
        return (node("Selu", In(0)),)


class GELU(_Activation):
    """`x * (1 + erf(x / sqrt(2))) / 2` (Hendrycks and Gimpel 2016).

    With `approximate: tanh`: `x * (1 + tanh(sqrt(2/pi) * (x + 0.044715*x**3))) / 2`.
    """

    approximate: str = arg(Word(("none", "tanh")), "none")
    """`tanh` for the paper's approximation."""

    each = Ops(exp=1, add=1, mul=2, div=1)
    examples = (*_IMAGE, Example({"approximate": "tanh"}, (3, 4, 5)))

    def cost(self, at: Site) -> Ops:
        """The approximation costs a tanh and the polynomial in it."""
        n, exact = at.y.elements, self.approximate == "none"
        return super().cost(at) if exact else Ops(exp=n, add=4 * n, mul=7 * n, div=n)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Gelu from opset 20 on, before it the formula (which ONNX Runtime fuses back)."""
        if opset >= 20:
            return (node("Gelu", In(0), approximate=self.approximate),)
        if self.approximate == "none":
            inside: tuple[Node, ...] = (
                node("Div", In(0), const(sqrt(2)), to=Tmp("scaled")),
                node("Erf", Tmp("scaled"), to=Tmp("bent")),
            )
        else:
            inside = (
                node("Mul", In(0), In(0), to=Tmp("square")),
                node("Mul", In(0), Tmp("square"), to=Tmp("cube")),
                node("Mul", Tmp("cube"), const(0.044715), to=Tmp("term")),
                node("Add", In(0), Tmp("term"), to=Tmp("sum")),
                node("Mul", Tmp("sum"), const(sqrt(2 / pi)), to=Tmp("scaled")),
                node("Tanh", Tmp("scaled"), to=Tmp("bent")),
            )
        return (
            *inside,
            node("Add", Tmp("bent"), const(1.0), to=Tmp("raised")),
            node("Mul", In(0), Tmp("raised"), to=Tmp("gated")),
            node("Mul", Tmp("gated"), const(0.5)),
        )


class SiLU(_InplaceActivation):
    """`x * sigmoid(x)`, also called swish (Elfwing et al. 2017)."""

    each = _SIGMOID + Ops(mul=1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Sigmoid and Mul."""
        return (node("Sigmoid", In(0), to=Tmp("gate")), node("Mul", In(0), Tmp("gate")))


class Mish(_InplaceActivation):
    """`x * tanh(softplus(x))` (Misra 2019)."""

    each = _SOFTPLUS + _TANH + Ops(mul=1)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Mish, from opset 18 on."""
        if opset >= 18:
            return (node("Mish", In(0)),)
        return (
            node("Softplus", In(0), to=Tmp("softplus")),
            node("Tanh", Tmp("softplus"), to=Tmp("gate")),
            node("Mul", In(0), Tmp("gate")),
        )


class Softplus(_Activation):
    """`log(1 + exp(beta*x)) / beta`, and `x` where `beta*x` exceeds `threshold`."""

    beta: float = arg(Float(), 1.0)
    """How sharply it bends."""
    threshold: float = arg(Float(), 20.0)
    """Where torch goes over to the identity."""

    each = _SOFTPLUS + Ops(cmp=1, mul=1, div=1)
    examples = (
        *_IMAGE,
        Example({"beta": 2}, (3, 4, 5)),
        Example({"beta": 0.5, "threshold": 0.25}, (3, 4, 5), note="a visible jump"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        if not self.beta:
            raise Reject("argument-value", "`beta` must not be 0", at="beta")
        return super().infer(inputs)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Softplus; the threshold only where float32 can tell it (below 20)."""
        sharp, early = self.beta != 1, self.threshold < 20
        scaled: OnnxValue = Tmp("scaled") if sharp else In(0)
        curve = Tmp("curve") if early else Out(0)
        nodes = [node("Softplus", scaled, to=Tmp("softplus") if sharp else curve)]
        if sharp:
            nodes.insert(0, node("Mul", In(0), const(self.beta), to=Tmp("scaled")))
            nodes.append(node("Div", Tmp("softplus"), const(self.beta), to=curve))
        if early:
            nodes.append(node("Greater", scaled, const(self.threshold), to=Tmp("far")))
            nodes.append(node("Where", Tmp("far"), In(0), Tmp("curve")))
        return tuple(nodes)


class Softsign(_Activation):
    """`x / (1 + abs(x))`."""

    each = Ops(cmp=1, add=1, div=1)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, and `1 + abs(x)`."""
        return super().saved(at, batch)._replace(elements=at.y.in_batch(batch))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Softsign."""
        return (node("Softsign", In(0)),)
