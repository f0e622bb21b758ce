"""thop: hooks on modules, and since 2.1 on products that functions compute (`thop.profile`).

The package meant is ultralytics-thop, which goes on where thop 0.1.1 ended; both are imported as
`thop`. Classes are looked up with their bases. Batch norms count as if they were computed alone,
four operations an element, although its documentation calls the sum MACs.
Source: thop.profile and thop.vision.basic_hooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from cnnspec.lenses.execution import Step, elements
from cnnspec.lenses.lens import Charge, Lens, Printed, Rule, Seen, Unknown, remaining
from cnnspec.lenses.products import DENSE, MATMUL, attention

__all__ = ["THOP"]

_SIZES = Unknown("the sizes of its tensors are not known")


def _norm(step: Step) -> Sequence[Charge] | Unknown:
    if step.x is None:
        return _SIZES
    each = 4 if step.weights else 2
    return (Charge(each * elements(step.x), f"{each} for each element"),)


def _prelu(step: Step) -> Sequence[Charge] | Unknown:
    return _SIZES if step.x is None else (Charge(elements(step.x), "1 for each element"),)


def _softmax(dim: int | None = None, per_row: int = 0, per_element: int = 0) -> Rule:
    """Exponentials, additions and divisions; the relatives of softmax have a little more."""

    def rule(step: Step) -> Sequence[Charge] | Unknown:
        if step.x is None:
            return _SIZES
        axis = step.arguments["dim"] if dim is None else dim
        assert isinstance(axis, int)
        length = step.x[axis]
        rows = elements(step.x) // length
        count = rows * (3 * length - 1 + per_row) + per_element * elements(step.x)
        return (Charge(count, "exponentials, additions and divisions"),)

    return rule


def _average(step: Step) -> Sequence[Charge] | Unknown:
    """An addition for each element of each window, a division for each output."""
    if step.x is None or step.output is None:
        return _SIZES
    sizes, results = step.x[2:], step.output[2:]
    kernel = _per_axis(step.positional[0], len(sizes))
    stride = _per_axis(step.arguments.get("stride", kernel), len(sizes))
    padding = _per_axis(step.arguments.get("padding", 0), len(sizes))
    padded = step.arguments.get("count_include_pad", True)
    windows = prod(
        _window_elements(n, outputs, k, s, p, p if padded else 0)
        for n, outputs, k, s, p in zip(sizes, results, kernel, stride, padding, strict=True)
    )
    count = prod(step.x[:2]) * windows + elements(step.output)
    return (Charge(count, "1 for each element of a window and 1 for each output"),)


def _per_axis(value: object, axes: int) -> tuple[int, ...]:
    if isinstance(value, tuple):
        return value
    assert isinstance(value, int)
    return (value,) * axes


def _window_elements(size: int, outputs: int, kernel: int, step: int, pad: int, out: int) -> int:
    """Elements in all windows along an axis, `out` beyond each border counted too."""
    starts = (output * step - pad for output in range(outputs))
    return sum(max(min(at + kernel, size + out) - max(at, -out), 0) for at in starts)


def _adaptive(step: Step) -> Sequence[Charge] | Unknown:
    if step.x is None or step.output is None:
        return _SIZES
    windows = prod(
        sum(-(-(o + 1) * n // m) - o * n // m for o in range(m)) if n != m else n
        for n, m in zip(step.x, step.output, strict=True)
    )
    count = windows + elements(step.output)
    return (Charge(count, "1 for each element of a window and 1 for each output"),)


_RESIZED = {"linear": 5, "bilinear": 11, "bicubic": 259, "trilinear": 31}


def _resize(step: Step) -> Sequence[Charge] | Unknown:
    if step.output is None:
        return _SIZES
    mode = str(step.arguments.get("mode", "nearest"))
    each = _RESIZED.get(mode, 0)
    return (Charge(each * elements(step.output), f"{each} for each output element ({mode})"),)


def _attention(step: Step) -> Sequence[Charge] | Unknown:
    products = attention(step)
    if isinstance(products, Unknown) or step.x is None:
        return _SIZES
    batch, tokens, _ = step.x
    heads = step.positional[1]
    assert isinstance(heads, int)
    softmax = batch * heads * tokens * (3 * tokens - 1)
    return Charge(products, "", True), Charge(softmax, "the softmax of the scores")


_MODULES: Mapping[str, Rule] = {
    **DENSE,
    **dict.fromkeys(
        (
            "nn.BatchNorm1d",
            "nn.BatchNorm2d",
            "nn.BatchNorm3d",
            "nn.InstanceNorm1d",
            "nn.InstanceNorm2d",
            "nn.InstanceNorm3d",
            "nn.LayerNorm",
            "nn.GroupNorm",
            "nn.RMSNorm",
        ),
        _norm,
    ),
    "nn.PReLU": _prelu,
    "nn.Softmax": _softmax(),
    "nn.LogSoftmax": _softmax(per_row=1),
    "nn.Softmin": _softmax(per_element=1),
    "nn.Softmax2d": _softmax(dim=-3),
    **dict.fromkeys(("nn.AvgPool1d", "nn.AvgPool2d", "nn.AvgPool3d"), _average),
    **dict.fromkeys(
        ("nn.AdaptiveAvgPool1d", "nn.AdaptiveAvgPool2d", "nn.AdaptiveAvgPool3d"), _adaptive
    ),
    "nn.Upsample": _resize,
    "nn.MultiheadAttention": _attention,
}
"""Rules by class; a class of the source's own has the rule of its base."""

_FUNCTIONS: Mapping[str, Rule] = dict.fromkeys(
    ("@", "torch.matmul", ".matmul", "torch.bmm", ".bmm"), MATMUL
)
_PRODUCTS = (*_FUNCTIONS, "torch.einsum", "F.linear")


def _charges(step: Step) -> Sequence[Charge] | Unknown:
    if not step.is_module:
        rule = _FUNCTIONS.get(step.target)
        return rule(step) if rule else remaining(step, _PRODUCTS, (), "")
    if step.target in _MODULES:
        return _MODULES[step.target](step)
    inherited = next((base for base in step.bases if base in _MODULES), None)
    if inherited:
        return _MODULES[inherited](step)
    return remaining(step, _PRODUCTS, (), "the dense product that torch computes")


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    yield Printed("macs", str(float(seen.total)))
    yield Printed("params", str(float(params)))
    yield Printed(
        'clever_format([macs, params], "%.3f")', f"{_short(seen.total)}, {_short(params)}"
    )


def _short(number: int) -> str:
    for unit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")):
        if number >= unit:
            return f"{number / unit:.3f}{suffix}"
    return f"{number:.3f}B"


THOP = Lens(
    name="thop",
    tool="ultralytics-thop 2.2",
    call="thop.profile(model, inputs)",
    figure="macs",
    blind="there is no rule for it",
    rule=_charges,
    trainable_only=False,
    say=_say,
)
"""thop.profile."""
