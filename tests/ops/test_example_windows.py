"""The `window` rule of every op's examples, against what gradients say an output depends on."""

from __future__ import annotations

import pytest
import torch

from cnnspec.geometry import (
    Bicubic,
    Bilinear,
    Continued,
    Nearest,
    Taps,
    Transposed,
    View,
    Window,
)
from tests.ops.harness import Case, Interpreted, alone, cases, randomise, sample

TRIALS = 4
"""Random inputs tried: a maximum or a rectifier shows a dependence only for some of them."""

TRIALS_OF_VECTORS = 16
"""The same for inputs of one axis, where no other axis tries more values."""


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("case", cases(), ids=str)
def test_windows_are_what_gradients_show(case: Case) -> None:
    """Inside the borders an output reaches as far as its window, and nowhere else."""
    op, site = case.bound()
    module = Interpreted(alone(op, site.inputs)).eval()
    fixed = (name for name, buffer in op.buffers(site).items() if buffer.values is not None)
    randomise(module, frozenset(f"op.{name}" for name in fixed))
    looks = {
        (source, target): op.window(site, source, target)
        for source in range(len(site.inputs))
        for target in range(len(site.outputs))
    }
    shown: dict[tuple[int, int, int, int], set[int]] = {}
    vectors = all(tensor.rank == 1 for tensor in site.inputs)
    for trial in range(TRIALS_OF_VECTORS if vectors else TRIALS):
        inputs = [value.requires_grad_() for value in sample(site.inputs, 1, seed=trial)]
        outputs = module(*inputs)
        if any(output.isinf().any() for output in outputs):
            pytest.skip("torch's max pooling has no gradient for a window all in the padding")
        for (source, target), look in looks.items():
            if look is None:
                assert not reached(outputs[target], inputs[source], None, 0, 0)
                continue
            assert len(look) == site.inputs[source].rank
            for axis, (lies_along, view) in enumerate(look):
                if lies_along is None:
                    continue
                for position in probes(site.outputs[target].shape[lies_along]):
                    if expected(view, position, site.inputs[source].shape[axis]) is None:
                        continue
                    shown.setdefault((source, target, axis, position), set()).update(
                        reached(outputs[target], inputs[source], lies_along, position, axis)
                    )
    for (source, target, axis, position), found in shown.items():
        look = looks[source, target]
        assert look is not None
        wanted = expected(look[axis][1], position, site.inputs[source].shape[axis])
        if found and wanted is not None:
            assert wanted, f"axis {axis}, output {position} reads {sorted(found)}"
            assert (min(found), max(found)) == (wanted[0], wanted[-1]), f"{axis=}, {position=}"
            assert found <= set(wanted), f"{axis=}, {position=}"


def probes(size: int) -> list[int]:
    """A few positions along an axis: the ends, and some between them that meet every phase."""
    return sorted({0, size - 1, *range(size // 2, min(size, size // 2 + 4))})


def expected(view: View, position: int, size: int) -> list[int] | None:
    """What `position` reads by the view; None where that is partly padding or not local."""
    match view:
        case Window() | Transposed() | Nearest() | Bilinear() | Bicubic():
            first, count = view.reads(position)
            reads = [first + view.step * number for number in range(count)]
            inside = all(0 <= read < size for read in reads)
            return reads if inside else None
        case Continued():
            return [view.source(position)]
        case Taps(rows):
            row = rows[position]
            return [] if row is None else list(range(row[0], row[1] + 1))
        case _:
            return None


def reached(
    output: torch.Tensor, source: torch.Tensor, lies_along: int | None, position: int, axis: int
) -> list[int]:
    """Positions along `axis` of `source` that a slice of `output` has a gradient for."""
    if not output.requires_grad:
        return []
    part = output if lies_along is None else output.select(lies_along + 1, position)
    mix = torch.randn(part.shape, generator=torch.Generator().manual_seed(position))
    (gradient,) = torch.autograd.grad(
        (part * mix).sum(), source, retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return []
    others = [each for each in range(gradient.dim()) if each != axis + 1]
    seen = (gradient.nan_to_num().abs() > 0).sum(dim=others) if others else gradient
    return [index for index, count in enumerate(seen.tolist()) if count]
