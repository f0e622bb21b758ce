"""Operations on a grid of arguments, each alone in a part of one ONNX model, against torch.

Many combinations are one model, side by side, as ONNX Runtime takes longer to start than to run.
What torch computes is `tests.ops.harness`'s reading of the torch data, torch's own class for what
torch.nn has.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from onnxruntime import GraphOptimizationLevel

from cnnspec.backends.onnx import to_model
from cnnspec.backends.onnx.session import session
from cnnspec.diagnostics import Reject
from cnnspec.ir import Graph
from cnnspec.op import Op, Site, slots_of
from cnnspec.ops import bind, registry
from cnnspec.slots import Padding
from cnnspec.tensor import Tensor, default_roles
from tests.fuzzing.arguments import arguments
from tests.fuzzing.fitting import light, small
from tests.ops.harness import Interpreted, Network, alone, arrays, cases, randomise, sample
from tests.ops.test_argument_grid import TORCH_OPS, draws

__all__ = ["Combination", "Outcome", "combinations", "compare", "made"]

BATCHES = (1, 2, 5)
RTOL, ATOL = 1e-4, 1e-5
"""The latter for a largest element of up to 1, times that where it is larger."""

_TRIES = 100
"""Draws that bring nothing new before a source is exhausted."""

_REFUSALS = (ArithmeticError, AssertionError, IndexError, RuntimeError, TypeError, ValueError)
"""How torch refuses arguments; what either side refuses is the subject of other tests."""

Array = np.ndarray[Any, np.dtype[Any]]


class Combination(NamedTuple):
    """One combination that an operation takes."""

    op: Op
    site: Site
    what: str


# ----------------------------------------------------------------------------- combinations


def combinations(name: str, rng: Random) -> Iterator[Combination]:
    """Combinations that an operation takes, of each kind in turn: examples, then random ones.

    Ends for operations that take few different arguments.
    """
    kinds = [_examples(name), _random(registry()[name], rng)]
    if name in TORCH_OPS:
        kinds.append(_drawn(name))
    if _slides(registry()[name]):
        kinds.append(_windows(registry()[name], rng))
    for found in zip_longest(*kinds):
        yield from (each for each in found if each is not None)


def made(name: str, given: Mapping[str, Any], *shapes: tuple[int, ...]) -> Combination:
    """One combination by an operation's name, which takes it."""
    found = _made(registry()[name], given, *map(_image, shapes))
    assert found is not None
    return found


def _made(op_type: type[Op], given: Mapping[str, Any], *inputs: Tensor) -> Combination | None:
    """The combination, if the operation takes it and it is small."""
    try:
        op = bind(op_type, given)
        site = Site(inputs, op.infer(inputs))
    except Reject:
        return None
    if not (light(op, site) and small(site.outputs)):
        return None
    return Combination(op, site, f"{op} on {', '.join(map(str, inputs))}")


def _examples(name: str) -> Iterator[Combination]:
    for case in cases():
        if case.op.name == name:
            op, site = case.bound()
            yield Combination(op, site, str(case))


def _random(op_type: type[Op], rng: Random) -> Iterator[Combination]:
    """Arguments from the slots, on the examples' inputs and others of about their size."""
    examples = [case.bound() for case in cases() if case.op is op_type]
    seen = set()
    tries = 0
    while tries < _TRIES:
        tries += 1
        inputs = rng.choice(examples)[1].inputs
        if len(inputs) == 1 and rng.random() < 0.6:
            sizes = (max(1, n + rng.choice((-1, 0, 0, 1, 2))) for n in inputs[0].shape)
            inputs = (inputs[0].with_shape(*sizes),)
        shape = inputs[0].shape if inputs else ()
        made = _made(op_type, arguments(op_type, rng, shape), *inputs)
        if made is not None and (made.op, inputs) not in seen:
            seen.add((made.op, inputs))
            tries = 0
            yield made


def _drawn(name: str) -> Iterator[Combination]:
    """The grid of an operation of torch.nn (`tests.ops.test_argument_grid`)."""
    for draw in draws(name):
        made = _made(draw.op, draw.arguments, *(_image(draw.shape),) * draw.op.arity.least)
        if made is not None:
            yield made


def _image(shape: tuple[int, ...]) -> Tensor:
    roles = default_roles(len(shape))
    assert roles is not None
    return Tensor(shape, roles)


def _slides(op_type: type[Op]) -> bool:
    """Whether the operation slides a window over its input."""
    rank = len(op_type.examples[0].input_shapes[0]) if op_type.arity.least else 0
    return "kernel_size" in slots_of(op_type) and rank == op_type.axes + 1


def _windows(op_type: type[Op], rng: Random) -> Iterator[Combination]:
    """Kernels, strides, dilations, paddings, groups and roundings, on short axes."""
    slots, axes = slots_of(op_type), op_type.axes

    def per_axis(*choices: int) -> int | list[int]:
        if rng.random() < 0.5:
            return rng.choice(choices)
        return [rng.choice(choices) for _ in range(axes)]

    tries = 0
    while tries < _TRIES:
        tries += 1
        channels = rng.choice((1, 2, 4, 6))
        groups = rng.choice([n for n in (1, 2, 3, 6) if channels % n == 0])
        padding: object = per_axis(0, 1, 2)
        if isinstance(slots["padding"].metadata["slot"] if "padding" in slots else None, Padding):
            sides = [[rng.choice((0, 1, 2)), rng.choice((0, 1, 3))] for _ in range(axes)]
            padding = rng.choice((padding, sides, "same", "valid"))
        tried = {
            "kernel_size": per_axis(1, 2, 3, 4, 5),
            "stride": per_axis(1, 2, 3),
            "dilation": per_axis(1, 1, 2, 3),
            "padding": padding,
            "output_padding": per_axis(0, 1, 2),
            "padding_mode": rng.choice(("zeros", "zeros", "reflect", "replicate", "circular")),
            "groups": groups,
            "out_channels": groups * rng.choice((1, 2)),
            "ceil_mode": rng.random() < 0.6,
            "count_include_pad": rng.random() < 0.6,
            "bias": rng.random() < 0.6,
        }
        given = dict(rng.choice(op_type.examples).arguments)
        given |= {key: value for key, value in tried.items() if key in slots}
        shape = (channels, *(rng.choice((1, 3, 4, 5, 6, 7, 9, 11)) for _ in range(axes)))
        made = _made(op_type, given, _image(shape))
        if made is not None:
            tries = 0
            yield made


# ------------------------------------------------------------------------------- comparison


class Outcome(NamedTuple):
    """What came of some combinations: how many there were, of them `unsteady` (see `compare`).

    `runs` counts results that were compared: outputs by opset, optimisation and batch.
    """

    combinations: int
    unsteady: int
    runs: int
    different: tuple[str, ...]


class _Run(NamedTuple):
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


class _Expected(NamedTuple):
    combination: Combination
    weights: Mapping[str, Array]
    runs: tuple[_Run, ...]
    """One for each batch."""
    steady: bool


def compare(found: Iterator[Combination], count: int, opsets: Sequence[int]) -> Outcome:
    """Run the first `count` combinations that torch takes in ONNX Runtime, at each opset.

    Each model is run with and without optimisations, at batches of 1, 2 and 5. A combination is
    unsteady, and is left out, if torch's own results move as far where inputs change in their last
    bit: by a divisor near 0, say.
    """
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument; the question is what it computes.
        warnings.simplefilter("ignore")
        expected = list(islice((each for each in map(_expected, found) if each), count))
    steady = [each for each in expected if each.steady]
    different: list[str] = []
    runs = 0
    graph = _side_by_side(steady)
    weights = {
        f"op{i}{key.removeprefix('op')}": array
        for i, each in enumerate(steady)
        for key, array in each.weights.items()
    }
    for opset in opsets if steady else ():
        data = to_model(graph, weights, opset=opset).SerializeToString()
        for level in (
            GraphOptimizationLevel.ORT_DISABLE_ALL,
            GraphOptimizationLevel.ORT_ENABLE_ALL,
        ):
            runtime = session(data, optimise=level)
            names = [output.name for output in runtime.get_outputs()]
            for number, batch in enumerate(BATCHES):
                feeds = {
                    f"x{i}_{k}": value
                    for i, each in enumerate(steady)
                    for k, value in enumerate(each.runs[number].inputs)
                }
                results = dict(zip(names, runtime.run(None, feeds), strict=True))
                for i, each in enumerate(steady):
                    for k, wanted in enumerate(each.runs[number].outputs):
                        runs += 1
                        apart = _apart(results[f"y{i}_{k}"], wanted)
                        if apart:
                            where = f"batch {batch}, opset {opset}, {level.name}"
                            different.append(f"{each.combination.what}, {where}: {apart}")
    return Outcome(len(expected), len(expected) - len(steady), runs, tuple(different))


def _expected(combination: Combination) -> _Expected | None:
    """What torch makes of a combination; None if it refuses it."""
    op, site = combination.op, combination.site
    fixed = (name for name, buffer in op.buffers(site).items() if buffer.values is not None)
    steady = True
    try:
        module = Interpreted(alone(op, site.inputs)).eval()
        randomise(module, frozenset(f"op.{name}" for name in fixed))
        runs = []
        for batch in BATCHES:
            inputs = sample(site.inputs, batch, seed=batch)
            runs.append(_Run(_numpy(inputs), _outputs(module, inputs)))
            beside = [torch.nextafter(each, 2 * each) for each in inputs]
            moved = zip(_outputs(module, beside), runs[-1].outputs, strict=True)
            steady = steady and not any(_apart(a, b, 0.3) for a, b in moved)
    except _REFUSALS:
        return None
    return _Expected(combination, arrays(module), tuple(runs), steady)


def _outputs(module: Interpreted, inputs: Sequence[torch.Tensor]) -> tuple[Array, ...]:
    with torch.no_grad():
        return _numpy(module(*[each.clone() for each in inputs]))


def _numpy(tensors: Sequence[torch.Tensor]) -> tuple[Array, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)


def _side_by_side(expected: Sequence[_Expected]) -> Graph:
    """A graph of all combinations, each with inputs and outputs of its own."""
    sites = [each.combination.site for each in expected]
    made = Network(
        **{f"x{i}_{k}": x for i, site in enumerate(sites) for k, x in enumerate(site.inputs)}
    )
    for i, (each, site) in enumerate(zip(expected, sites, strict=True)):
        inputs = [made.value(f"x{i}_{k}") for k in range(len(site.inputs))]
        first = made.add(f"op{i}", each.combination.op, *inputs)
        for k in range(len(site.outputs)):
            made.output(f"y{i}_{k}", first + k)
    return made.graph()


def _apart(ours: Array, theirs: Array, part: float = 1.0) -> str:
    """In words what two results differ in, by more than a part of what is allowed."""
    if ours.shape != theirs.shape:
        return f"{ours.shape} in place of {theirs.shape}"
    scale = max(1.0, np.abs(theirs[np.isfinite(theirs)]).max(initial=0.0))
    if np.allclose(ours, theirs, part * RTOL, part * ATOL * scale, equal_nan=True):
        return ""
    with np.errstate(invalid="ignore"):
        return f"off by {np.nanmax(np.abs(ours - theirs)):.1e}"
