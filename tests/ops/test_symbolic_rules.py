"""Every op's own rules on sizes that are not known, against the same rules on numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import product
from typing import Any

import pytest

from cnnspec.diagnostics import Reject
from cnnspec.op import Op, Ops, Site
from cnnspec.symbolic import Symbolic, Trail
from cnnspec.tensor import Tensor
from tests.ops.harness import Case, cases

TRIED = (1, 2, 3, 5, 7, 8, 9, 12, 14, 16, 21, 32)
MOST = 60

PINNED = set("Chunk Fold RBF Upsample add matmul maximum mean mul sub".split())
"""Ops with an example that holds for one size only: equal to a number, a broadcast 1, or rounded
in a float."""


def value(number: object, sizes: dict[str, int]) -> int:
    if isinstance(number, Symbolic):
        found = number.polynomial.at(sizes)
        assert isinstance(found, int)
        return found
    assert isinstance(number, int)
    return number


def figures(
    op: Op, inputs: tuple[Tensor, ...], aside: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[str, object]]:
    """Everything about an op at these inputs that is a number.

    Floats among weights say how they start, which is no figure: they are put `aside`.
    """
    outputs = op.infer(inputs)
    at = Site(inputs, outputs)
    for tensor in outputs:
        yield "roles", tensor.roles
        yield from (("shape", size) for size in tensor.shape)
    cost = op.cost(at)
    yield from ((name, getattr(cost, name)) for name in Ops.__slots__)
    links = op.connections(at)
    yield from (("links", number) for number in links or ())
    yield "folds", op.channel_affine(at) is not None
    with aside():
        shapes = [(name, weight.shape) for name, weight in op.weights(at).items()]
        shapes += [(name, buffer.shape) for name, buffer in op.buffers(at).items()]
    yield from ((name, size) for name, shape in shapes for size in shape)


def evaluated(
    found: Sequence[tuple[str, object]], sizes: dict[str, int]
) -> list[tuple[str, object]]:
    return [(n, v if isinstance(v, (tuple, bool)) else value(v, sizes)) for n, v in found]


def spatial(inputs: Sequence[Tensor]) -> list[tuple[int, int, str]]:
    """Each spatial axis with a name: inputs that are as long share it, as branches of a net do."""
    return [
        (number, axis, f"s{axis}_{size}")
        for number, tensor in enumerate(inputs)
        for axis, (size, role) in enumerate(zip(tensor.shape, tensor.roles, strict=True))
        if role.spatial
    ]


def sized(inputs: Sequence[Tensor], sizes: dict[str, Any]) -> tuple[Tensor, ...]:
    shapes = [list(tensor.shape) for tensor in inputs]
    for number, axis, name in spatial(inputs):
        shapes[number][axis] = sizes[name]
    return tuple(x.with_shape(*shape) for x, shape in zip(inputs, shapes, strict=True))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_formulas_are_the_rules(case: Case) -> None:
    op, at = case.bound()
    here = {name: at.inputs[number].shape[axis] for number, axis, name in spatial(at.inputs)}
    trail = Trail(here)
    numbers = {name: trail.size(name) for name in here}
    found = list(figures(op, sized(at.inputs, numbers), trail.floats_aside))
    assert evaluated(found, here) == list(figures(op, at.inputs, nullcontext)), "as it is"
    hits = 0
    names = list(here)
    for chosen in product(TRIED, repeat=len(names)):
        sizes = dict(zip(names, chosen, strict=True))
        if hits >= MOST or not all(guard.holds(sizes) for guard in trail.guards):
            continue
        hits += 1
        # A `Reject` here would be a guard that is missing.
        expected = list(figures(op, sized(at.inputs, sizes), nullcontext))
        assert evaluated(found, sizes) == expected, f"{sizes}"


@pytest.mark.parametrize("case", cases(), ids=str)
def test_a_size_that_is_rejected_breaks_a_guard(case: Case) -> None:
    op, at = case.bound()
    here = {name: at.inputs[number].shape[axis] for number, axis, name in spatial(at.inputs)}
    trail = Trail(here)
    op.infer(sized(at.inputs, {name: trail.size(name) for name in here}))
    for size in TRIED:
        sizes = dict.fromkeys(here, size)
        try:
            op.infer(sized(at.inputs, sizes))
        except Reject:
            assert not all(guard.holds(sizes) for guard in trail.guards), f"at {size}"


def test_whether_an_op_multiplies_does_not_depend_on_sizes() -> None:
    """What `passes.symbolic` relies on: no guard of an op without MACs is one of the MACs'."""
    multiplies: dict[str, set[bool]] = {}
    for case in cases():
        op, at = case.bound()
        multiplies.setdefault(op.name, set()).add(op.cost(at).mac > 0)
    assert {name for name, seen in multiplies.items() if len(seen) > 1} == set()


def test_what_takes_a_size_at_hand() -> None:
    """Ops whose shapes are no formula, or that want a certain size; the others must stay free."""
    pinned = set()
    for case in cases():
        op, at = case.bound()
        here = {name: at.inputs[number].shape[axis] for number, axis, name in spatial(at.inputs)}
        trail = Trail(here)
        op.infer(sized(at.inputs, {name: trail.size(name) for name in here}))
        if any(
            str(guard) in {f"{name} = {size}" for name, size in here.items()}
            for guard in trail.guards
        ):
            pinned.add(op.name)
    assert pinned == PINNED
