"""timm: its tables of results, made by its `benchmark.py` with fvcore.

`gmacs` is fvcore's count of flops and `macts` fvcore's count of the elements that convolutions and
products of matrices put out. Attention that runs as one fused call is in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from cnnspec.lenses.execution import Step, elements
from cnnspec.lenses.fvcore import charges, untraced
from cnnspec.lenses.lens import Lens, Printed, Seen
from cnnspec.lenses.products import CONVOLUTIONS, TRANSPOSED

__all__ = ["TIMM"]


def _all(step: Step) -> int:
    return elements(step.output) if step.output is not None else 0


def _convolved(step: Step) -> int:
    return 0 if untraced(step) else _all(step)


def _projected(step: Step) -> int:
    """Queries, keys and values, and the output projection."""
    return 4 * _all(step)


_PUT_OUT: Mapping[str, Callable[[Step], int]] = {
    **dict.fromkeys(CONVOLUTIONS, _convolved),
    **dict.fromkeys(TRANSPOSED, _all),
    **dict.fromkeys(("nn.Linear", "@", "torch.matmul", "torch.bmm"), _all),
    "nn.MultiheadAttention": _projected,
}


def _activations(step: Step) -> int:
    """Elements that fvcore's ActivationCountAnalysis counts for one call."""
    if step.target in _PUT_OUT:
        return _PUT_OUT[step.target](step)
    return _all(step) if step.products else 0


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    put_out = sum(_activations(step) for run in seen.nodes for step in run)
    yield Printed("gmacs", str(round(seen.total / 1e9, 2)))
    yield Printed("macts", str(round(put_out / 1e6, 2)))
    yield Printed("param_count", str(round(params / 1e6, 2)))


TIMM = Lens(
    name="timm",
    tool="timm 1.0 (benchmark.py, with fvcore 0.1.5)",
    call="benchmark.py --bench inference",
    figure="gmacs",
    blind="not seen in the trace",
    rule=charges,
    trainable_only=False,
    say=_say,
)
"""timm's benchmark.py where fvcore profiles."""
