"""fvcore: operators in a trace of the model (`FlopCountAnalysis`).

Every multiply-accumulate is a flop, and norms, average pooling to a size and resizing have a
constant for each element. Other operators are skipped with a warning, attention among them.
Source: fvcore.nn.jit_handles and fvcore.nn.flop_count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cnnspec.lenses.execution import Step, elements
from cnnspec.lenses.lens import Charge, Lens, Printed, Rule, Seen, Unknown, remaining
from cnnspec.lenses.products import CONVOLUTIONS, DENSE, FUNCTIONS, convolution, product

__all__ = ["FVCORE", "charges", "untraced"]


def untraced(step: Step) -> bool:
    """Whether torch traces a convolution as aten::_convolution_mode, which has no handle.

    That is one with `padding="same"`, unless the input is padded by other values than zeros before.
    """
    zeros = step.arguments.get("padding_mode", "zeros") == "zeros"
    return zeros and isinstance(step.arguments.get("padding"), str)


def _convolution(step: Step) -> Sequence[Charge] | Unknown:
    if untraced(step):
        return ()
    return product(convolution, "all weights, for the padding too")(step)


def _per_input(each: int, why: str = "") -> Rule:
    def rule(step: Step) -> Sequence[Charge] | Unknown:
        if step.x is None:
            return Unknown("the sizes of its input are not known")
        return (Charge(each * elements(step.x), why or f"{each} for each element"),)

    return rule


def _norm(plain: int, affine: int) -> Rule:
    def rule(step: Step) -> Sequence[Charge] | Unknown:
        return _per_input(affine if step.weights else plain)(step)

    return rule


def _batch_norm(step: Step) -> Sequence[Charge] | Unknown:
    tracked = step.arguments.get("track_running_stats", True)
    return (_norm(1, 2) if tracked else _norm(4, 5))(step)


def _resized(step: Step) -> Sequence[Charge] | Unknown:
    """Nearest and bilinear resizing of images; `aten::upsample_*` of other kinds has no handle."""
    if step.output is None:
        return Unknown("the sizes of its output are not known")
    mode = step.arguments.get("mode", "nearest")
    each = {"nearest": 1, "bilinear": 4}.get(str(mode), 0) if len(step.output) == 4 else 0
    return (Charge(each * elements(step.output), f"{each} for each output element ({mode})"),)


def _attention(step: Step) -> Sequence[Charge] | Unknown:
    """The projections; scaled_dot_product_attention has no handle."""
    if step.x is None:
        return Unknown("the sizes of its input are not known")
    count = 4 * elements(step.x) * step.x[-1]
    return (Charge(count, "projections alone: the attention between tokens is not seen", True),)


_MODULES: Mapping[str, Rule] = {
    **DENSE,
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(("nn.BatchNorm1d", "nn.BatchNorm2d", "nn.BatchNorm3d"), _batch_norm),
    **dict.fromkeys(
        (
            "nn.InstanceNorm1d",
            "nn.InstanceNorm2d",
            "nn.InstanceNorm3d",
            "nn.GroupNorm",
            "nn.LayerNorm",
        ),
        _norm(4, 5),
    ),
    "nn.AdaptiveAvgPool2d": _per_input(1, "1 for each input element"),
    "nn.Upsample": _resized,
    "nn.MultiheadAttention": _attention,
}
"""What the forward of a class traces to."""


def _matmul(step: Step) -> int | Unknown:
    """Elements of the first matrix times columns of the second, as if neither were repeated."""
    if None in step.inputs:
        return Unknown("the sizes of its inputs are not known")
    first, second = (shape for shape in step.inputs if shape is not None)
    return elements(first) * second[-1]


_MATMUL = product(_matmul, "elements of the first matrix times columns of the second")
_FUNCTIONS: Mapping[str, Rule] = {
    "@": _MATMUL,
    "torch.matmul": _MATMUL,
    "torch.bmm": _MATMUL,
    "F.interpolate": _resized,
}

_OTHERS = (
    "F.batch_norm",
    "F.group_norm",
    "F.layer_norm",
    "F.instance_norm",
    "F.interpolate",
    "F.adaptive_avg_pool2d",
    ".matmul",
    ".bmm",
)


def charges(step: Step) -> Sequence[Charge] | Unknown:
    """What fvcore counts for one call."""
    table = _MODULES if step.is_module else _FUNCTIONS
    if step.target in table:
        return table[step.target](step)
    inherited = next((base for base in step.bases if base in _MODULES), None)
    if "round" in step.runs:
        return Unknown("it rounds a size, on which tracing fails", fails=True)
    if inherited and "super().forward" in step.runs:
        return _MODULES[inherited](step)
    return remaining(step, FUNCTIONS, _OTHERS, "the dense product that torch computes")


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    yield Printed("FlopCountAnalysis(model, inputs).total()", str(seen.total))
    yield Printed("flop_count_table: #flops", _size(seen.total))
    yield Printed("flop_count_table: #parameters or shape", _size(params) if params else "")


def _size(number: int) -> str:
    """A number as `flop_count_table` writes it: three decimals at most, no zeros behind."""
    for least, unit, suffix in (
        (10**14, 10**15, "P"),
        (10**11, 10**12, "T"),
        (10**8, 10**9, "G"),
        (10**5, 10**6, "M"),
        (10**2, 10**3, "K"),
    ):
        if number > least:
            return f"{number / unit:.3f}".rstrip("0").rstrip(".") + suffix
    return str(number)


FVCORE = Lens(
    name="fvcore",
    tool="fvcore 0.1.5",
    call="FlopCountAnalysis(model, inputs)",
    figure="flops, each a multiply-accumulate",
    blind="not seen in the trace",
    rule=charges,
    trainable_only=False,
    say=_say,
)
"""fvcore.nn.FlopCountAnalysis."""
