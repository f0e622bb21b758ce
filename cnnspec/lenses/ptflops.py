"""ptflops: hooks on modules, and patches of functions (`get_model_complexity_info`).

Biases, norms, activations and poolings are added to the multiply-accumulates. The forward of many
modules calls a function that is patched as well, so that both count: a ReLU has two operations an
element. Classes are looked up exactly, without their bases.
Source: ptflops.pytorch_engine and ptflops.pytorch_ops, the back end `pytorch` with its defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isinf, prod

from cnnspec.lenses.execution import Step, elements
from cnnspec.lenses.lens import Charge, Lens, Printed, Rule, Seen, Unknown, remaining
from cnnspec.lenses.products import CONVOLUTIONS, TRANSPOSED, convolution, linear, transposed

__all__ = ["PTFLOPS"]

_SIZES = Unknown("the sizes of its tensors are not known")


# ------------------------------------------------------------------------------------- the hooks


def _convolved(step: Step) -> Sequence[Charge] | Unknown:
    transpose = step.target in TRANSPOSED
    count = (transposed if transpose else convolution)(step)
    if isinstance(count, Unknown) or step.output is None:
        return _SIZES
    biases = elements(step.output) if step.has_bias else 0
    return Charge(count, "all weights", True), Charge(biases, "1 for each output, for its bias")


def _linear(step: Step) -> Sequence[Charge] | Unknown:
    count = linear(step)
    if isinstance(count, Unknown) or step.output is None:
        return _SIZES
    biases = elements(step.output) if step.has_bias else 0
    return Charge(count, "all weights", True), Charge(biases, "1 for each output, for its bias")


def _per_output(step: Step) -> Sequence[Charge] | Unknown:
    return _charge(step.output, "1 for each output, by the hook of the module")


def _per_input(step: Step) -> Sequence[Charge] | Unknown:
    return _charge(step.x, "1 for each input element, by the hook of the module")


def _charge(shape: tuple[int, ...] | None, why: str) -> Sequence[Charge] | Unknown:
    return _SIZES if shape is None else (Charge(elements(shape), why),)


def _norm(step: Step) -> Sequence[Charge] | Unknown:
    if step.x is None:
        return _SIZES
    each = 2 if step.arguments.get("affine", _AFFINE[step.target]) else 1
    return (Charge(each * elements(step.x), f"{each} for each element"),)


_AFFINE: Mapping[str, bool] = {
    "nn.BatchNorm1d": True,
    "nn.BatchNorm2d": True,
    "nn.BatchNorm3d": True,
    "nn.InstanceNorm1d": False,
    "nn.InstanceNorm2d": False,
    "nn.InstanceNorm3d": False,
    "nn.GroupNorm": True,
    "nn.LayerNorm": False,  # the attribute that ptflops asks for has another name there
}
"""What the `affine` of a norm is unless given."""


def _attention(step: Step) -> Sequence[Charge] | Unknown:
    if step.x is None:
        return _SIZES
    batch, tokens, features = step.x
    heads = step.positional[1]
    assert isinstance(heads, int)
    head = features // heads
    products = 4 * tokens * features * features + heads * 2 * tokens * tokens * head
    biases = tokens * features * (1 + 3 * ("in_proj_bias" in step.weights))
    return (
        Charge(batch * products, "projections and the products of tokens", True),
        Charge(batch * biases, "biases, that of the last projection always"),
        Charge(batch * tokens * features, "scaled queries"),
        Charge(batch * heads * tokens * tokens, "1 for each score"),
    )


_POOLS = tuple(
    f"nn.{kind}Pool{axes}d"
    for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg")
    for axes in (1, 2, 3)
)

_MODULES: Mapping[str, Rule] = {
    **dict.fromkeys((*CONVOLUTIONS, *TRANSPOSED), _convolved),
    "nn.Linear": _linear,
    **dict.fromkeys(
        ("nn.ReLU", "nn.PReLU", "nn.ELU", "nn.LeakyReLU", "nn.ReLU6", "nn.GELU"), _per_output
    ),
    **dict.fromkeys(_POOLS, _per_input),
    **dict.fromkeys(_AFFINE, _norm),
    "nn.Upsample": _per_output,
    "nn.MultiheadAttention": _attention,
}


# -------------------------------------------------------------------------- the patched functions


def _again(function: str) -> Rule:
    def rule(step: Step) -> Sequence[Charge] | Unknown:
        return _charge(step.x, f"1 for each input element, by the patched {function}")

    return rule


def _pooled(function: str) -> str:
    """`nn.MaxPool2d` calls `F.max_pool2d`."""
    words = function.removeprefix("nn.").replace("Pool", "_pool")
    return (
        "F."
        + words.replace("AdaptiveMax", "adaptive_max")
        .replace("AdaptiveAvg", "adaptive_avg")
        .lower()
    )


def _interpolated(step: Step) -> Sequence[Charge] | Unknown:
    """Sizes as given, or the input times the factor to the power of its axes."""
    if step.x is None:
        return _SIZES
    why = "1 for each output, by the patched F.interpolate"
    size, factor = step.arguments.get("size"), step.arguments.get("scale_factor")
    axes = len(step.x) - 2
    if size is not None or factor is None:
        return _charge(step.output, why)
    if isinstance(factor, tuple):
        # ptflops multiplies them as integers.
        whole = prod(int(each) for each in factor if isinstance(each, int | float))
        return (Charge(elements(step.x) * whole, why),)
    assert isinstance(factor, int | float)
    return (Charge(int(elements(step.x) * float(factor) ** axes), why),)


def _local_response(step: Step) -> Sequence[Charge] | Unknown:
    """`input.mul`, an average pool over padded channels, `.mul` and `.add`."""
    if step.x is None:
        return _SIZES
    size = step.positional[0]
    assert isinstance(size, int)
    batch, channels, *rest = step.x
    pooled = batch * (channels + size // 2 + (size - 1) // 2) * prod(rest)
    count = 3 * elements(step.x) + pooled
    return (Charge(count, "the squares, their pooling, `.mul` and `.add`, which are patched"),)


def _power_average(step: Step) -> Sequence[Charge] | Unknown:
    """An average pool, `relu` and `.mul`; where the power is infinite a maximum pool alone."""
    if step.x is None or step.output is None:
        return _SIZES
    power = step.positional[0]
    assert isinstance(power, int | float)
    count = elements(step.x) + (0 if isinf(power) else 2 * elements(step.output))
    return (Charge(count, "the pooling, and what follows it, by patched functions"),)


_CALLED: Mapping[str, Rule] = {
    "nn.ReLU": _again("F.relu"),
    "nn.PReLU": _again("F.prelu"),
    "nn.ELU": _again("F.elu"),
    "nn.GELU": _again("F.gelu"),
    "nn.SiLU": _again("F.silu"),
    "nn.Softmax": _again("F.softmax"),
    "nn.Softmax2d": _again("F.softmax"),
    **{pool: _again(_pooled(pool)) for pool in _POOLS},
    "nn.Upsample": _interpolated,
    "nn.LocalResponseNorm": _local_response,
    **dict.fromkeys(("nn.LPPool1d", "nn.LPPool2d", "nn.LPPool3d"), _power_average),
}
"""What the forward of a class calls that is patched."""

_FUNCTIONS: Mapping[str, Rule] = {
    "F.interpolate": _interpolated,
}
_PRODUCTS = ("torch.matmul", ".matmul", "torch.mm", ".mm", "torch.bmm", ".bmm")
_PATCHED = (
    *("torch.addmm", ".addmm", "torch.baddbmm", "torch.mul", ".mul", "torch.add", ".add"),
    *("F.relu", "F.prelu", "F.elu", "F.relu6", "F.gelu", "F.silu", "F.softmax", "F.interpolate"),
    *map(_pooled, _POOLS),
)


def _charges(step: Step) -> Sequence[Charge] | Unknown:
    if not step.is_module:
        if step.target in _FUNCTIONS:
            return _FUNCTIONS[step.target](step)
        return remaining(step, _PRODUCTS, _PATCHED, "")
    charges: list[Charge] = []
    for table in (_MODULES, _CALLED):
        if step.target in table:
            found = table[step.target](step)
            if isinstance(found, Unknown):
                return found
            charges.extend(found)
    return charges or remaining(step, _PRODUCTS, _PATCHED, "by patched functions")


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    yield Printed("Computational complexity", _macs(seen.total))
    yield Printed("Number of parameters", _params(params))


def _macs(number: int) -> str:
    for unit, name in ((10**9, "GMac"), (10**6, "MMac"), (10**3, "KMac")):
        if number // unit:
            return f"{round(number / unit, 2)} {name}"
    return f"{number} Mac"


def _params(number: int) -> str:
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if number // unit:
            return f"{round(number / unit, 2)} {name}"
    return str(number)


PTFLOPS = Lens(
    name="ptflops",
    tool="ptflops 0.7.5",
    call="get_model_complexity_info(model, input_res)",
    figure="MACs",
    blind="neither hooked nor patched",
    rule=_charges,
    trainable_only=True,
    say=_say,
)
"""ptflops.get_model_complexity_info."""
