"""Networks written without care, and torch's verdict on them: what one rejects the other has to.

The oracle builds each step from `torch.nn` by the name in the spec and runs it on the CPU. It knows
nothing of the operations' rules or lowerings: what torch takes from its input instead of from its
arguments is filled in from the input's shape.
"""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from random import Random
from typing import Any

import torch
from torch import nn

from cnnspec.api import load
from cnnspec.diagnostics import SpecError
from cnnspec.op import Op, slots_of
from cnnspec.ops import registry
from cnnspec.slots import (
    Bool,
    Float,
    Int,
    Ints,
    Margins,
    Nullable,
    Padding,
    PerAxis,
    Size,
    Slot,
    Word,
)
from tests.fuzzing.arguments import OMITTED

__all__ = ["Program", "Step", "Verdict", "disagreement", "ours", "program", "shrunk", "theirs"]

JOINS = ("add", "sub", "mul", "concat", "maximum", "mean", "matmul")
_REFUSALS = (
    RuntimeError,
    ValueError,
    TypeError,
    AssertionError,
    IndexError,
    NotImplementedError,
    ZeroDivisionError,
    OverflowError,
)
_UNLIKE_TORCH = frozenset(("inplace",))
"""Arguments without a bearing on shapes, which torch refuses for reasons of memory."""


@dataclass(frozen=True)
class Step:
    """One entry: an operation, its arguments, and the numbers of the steps it reads.

    Step -1 is the network's input.
    """

    op: str
    arguments: dict[str, Any]
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """An input and steps, each of which may be the one that is refused."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...]

    def text(self) -> str:
        """The spec: an entry a line."""
        lines = ["cnnspec: 1", "name: careless", f"inputs: {{x: {list(self.shape)}}}", "layers:"]
        for number, step in enumerate(self.steps):
            names = ["x" if source < 0 else f"s{source}" for source in step.sources]
            entry: dict[str, Any]
            if step.op in JOINS:
                entry = {step.op: names}
            else:
                entry = {step.op: step.arguments, "from": names[0] if len(names) == 1 else names}
            lines.append(f"  - {json.dumps({**entry, 'name': f's{number}'})}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Verdict:
    """Shapes of the steps, up to the first that is refused (`at`), with the reason."""

    shapes: tuple[tuple[int, ...], ...]
    at: int | None = None
    why: str = ""


# ------------------------------------------------------------------------------------- writing


def candidates() -> list[str]:
    """Operations on which torch can be asked: classes of torch.nn, and the joins."""
    return [name for name in registry() if name in JOINS or _torch_class(name) is not None]


def _torch_class(name: str) -> type[nn.Module] | None:
    found = getattr(nn, name, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def program(number: int) -> Program | None:
    """Program `number`, the same each time; None if it has what torch does not."""
    try:
        return _written(number)
    except _StridedSameError:
        return None


def _written(number: int) -> Program:
    rng = Random(number)
    names = candidates()
    wanted = names[number % len(names)]
    shape = _shape(rng, wanted)
    fitting = [name for name in names if not name[-2:-1].isdigit()]
    steps: list[Step] = []
    shapes = [shape]
    for position in range(rng.randint(1, 4)):
        here = shapes[-1]
        near = [n for n in names if n.endswith(f"{len(here) - 1}d")]
        name = rng.choice(near if near and rng.random() < 0.6 else fitting)
        if rng.random() < 0.03:
            name = rng.choice(names)
        if position == 0:
            name = wanted
        if name in JOINS:
            count = 2 if name in ("sub", "matmul") else rng.randint(2, 3)
            steps.append(Step(name, {}, tuple(rng.randint(-1, position - 1) for _ in range(count))))
        else:
            source = position - 1 if rng.random() < 0.85 else rng.randint(-1, position - 1)
            shape = shapes[source + 1]
            steps.append(Step(name, careless(registry()[name], rng, shape), (source,)))
        verdict = theirs(Program(shapes[0], tuple(steps)))
        if verdict.at is not None:
            break
        if name == "Unflatten" and len(verdict.shapes[-1]) > 1:
            break  # axes have roles here, which torch does not know
        shapes = [shapes[0], *verdict.shapes]
    return Program(shapes[0], tuple(steps))


def _shape(rng: Random, wanted: str) -> tuple[int, ...]:
    """Sizes of an input, mostly of the axes that the operation wants."""
    channels = rng.choice((1, 2, 3, 4, 4, 6, 8, 9))
    axes = rng.choice((0, 1, 2, 2, 2, 3))
    if wanted[-2:-1].isdigit() and rng.random() < 0.9:
        axes = int(wanted[-2])
    return (channels, *(rng.randint(1, 9 if axes < 3 else 5) for _ in range(axes)))


def careless(op: type[Op], rng: Random, shape: Sequence[int]) -> dict[str, Any]:
    """Arguments that torch has as well, of the right kind and of any value."""
    found = _torch_class(op.name)
    assert found is not None
    known = inspect.signature(found).parameters
    example = rng.choice(op.examples).arguments
    drawn: dict[str, Any] = {}
    for name, declared in slots_of(op).items():
        if name not in known or name in _UNLIKE_TORCH:
            continue
        required = known[name].default is inspect.Parameter.empty
        if required or name in example or rng.random() < 0.25:
            value = (
                example[name]
                if name in example and rng.random() < 0.35
                else _careless(declared.metadata["slot"], rng, op.axes, shape)
            )
            if value is OMITTED and name in example:
                value = example[name]
            if value is not OMITTED and _expressible(value):
                drawn[name] = value
    return drawn


def _expressible(value: Any) -> bool:
    """Not what only the language has: paddings of two sides."""
    items = value if isinstance(value, (list, tuple)) else ()
    return not any(isinstance(item, (list, tuple)) for item in items)


def _careless(slot: Slot, rng: Random, axes: int, shape: Sequence[int]) -> Any:
    number = rng.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10, -1, shape[0]))
    match slot:
        case Nullable(inner):
            return None if rng.random() < 0.4 else _careless(inner, rng, axes, shape)
        case Bool():
            return rng.random() < 0.5
        case Word(choices):
            return rng.choice(choices)
        case Int():
            return number
        case Float():
            return rng.choice((0.0, 0.5, 1.0, 1e-5, 2.0, -0.5, 1.5))
        case Size(least, nullable):
            if rng.random() < 0.6:
                return max(number, least - rng.randint(0, 1))
            items = [rng.choice((1, 2, 3, 4)) for _ in range(axes)]
            return [None if nullable and rng.random() < 0.2 else item for item in items]
        case PerAxis(item):
            count = max(1, len(shape) - 1)
            if rng.random() < 0.5:
                return _careless(item, rng, axes, shape)
            return [_careless(item, rng, axes, shape) for _ in range(count)]
        case Padding():
            return rng.choice(
                (0, 1, 2, 3, -1, "same", "valid", [rng.randint(0, 2) for _ in range(axes)])
            )
        case Ints():
            return [rng.choice((-1, 1, 2, 3, 4)) for _ in range(rng.randint(1, 4))]
        case Margins():
            if rng.random() < 0.4:
                return number
            return [rng.choice((0, 1, 2, 3, -1, -2)) for _ in range(2 * axes)]
        case _:
            return OMITTED


# --------------------------------------------------------------------------------------- torch


def theirs(program: Program) -> Verdict:
    """What torch makes of it, step by step; sizes without the batch."""
    shapes: list[tuple[int, ...]] = []
    for number, step in enumerate(program.steps):
        given = [program.shape if s < 0 else shapes[s] for s in step.sources]
        try:
            shapes.append(_shape_by_torch(step, given))
        except _REFUSALS as refusal:
            return Verdict(tuple(shapes), number, f"{type(refusal).__name__}: {refusal}")
    return Verdict(tuple(shapes))


def _shape_by_torch(step: Step, given: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape for batches of two and of three, in training and not, which has to be one."""
    found = set()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        for batch, training in ((2, True), (3, False)):
            tensors = [torch.rand(batch, *shape) for shape in given]
            result = _by_torch(step, tensors, training)
            if result.shape[:1] != (batch,):
                raise ValueError("the batch is gone")
            found.add(tuple(result.shape[1:]))
    (shape,) = found
    if 0 in shape:
        raise ValueError("nothing is left")
    return shape


def _by_torch(step: Step, tensors: list[torch.Tensor], training: bool) -> torch.Tensor:
    first = tensors[0]
    if step.op in JOINS:
        if step.op != "concat" and len({tensor.dim() for tensor in tensors}) > 1:
            raise ValueError("joins take tensors of equal rank")
        return _joined(step.op, tensors)
    _check_batch(step, first)
    made = _torch_class(step.op)
    assert made is not None
    _check_sense(step, first)
    arguments = {name: _as_torch(name, value) for name, value in step.arguments.items()}
    if step.arguments.get("padding") == "same":
        _same(first, arguments)
    inferred = {
        "in_channels": 1,
        "num_features": 1,
        "num_channels": 1,
        "in_features": -1,
        "normalized_shape": -1,
        "embed_dim": -1,
    }
    for name in inspect.signature(made).parameters:
        if name in inferred:
            arguments[name] = first.shape[inferred[name]]
    if step.op == "MultiheadAttention":
        module = made(**{**arguments, "batch_first": True}).train(training)
        attended: torch.Tensor = module(first, first, first)[0]
        return attended
    result: torch.Tensor = made(**arguments).train(training)(first)
    if result.isneginf().any():
        raise ValueError("a window saw padding alone, where torch's backward goes astray")
    return result


def _joined(join: str, tensors: list[torch.Tensor]) -> torch.Tensor:
    match join:
        case "add":
            return reduce(torch.add, tensors)
        case "sub":
            return reduce(torch.sub, tensors)
        case "mul":
            return reduce(torch.mul, tensors)
        case "maximum":
            return reduce(torch.maximum, tensors)
        case "mean":
            return reduce(torch.add, tensors) / len(tensors)
        case "concat":
            return torch.cat(tensors, dim=1)
        case _:
            if tensors[0].dim() < 3:
                raise ValueError("a sample has to be a matrix")
            return torch.matmul(*tensors)


def _check_batch(step: Step, x: torch.Tensor) -> None:
    """What torch would read as a tensor without a batch, or do to the batch, is refused here."""
    axes = step.op[-2:-1]
    spatial = axes.isdigit() and step.op.endswith("d") and step.op != "BatchNorm1d"
    if spatial and x.dim() != int(axes) + 2:
        raise ValueError("a batch has one axis more")
    for name in ("dim", "start_dim"):
        dim = step.arguments.get(name)
        if isinstance(dim, int) and dim in (0, -x.dim()):
            raise ValueError("the batch stays as it is")
    if step.op == "Flatten" and step.arguments.get("end_dim") in (0, -x.dim()):
        raise ValueError("the batch stays as it is")


def _as_torch(name: str, value: Any) -> Any:
    """A list as torch has it; a list of one, where a size is asked for, is that size."""
    if isinstance(value, list):
        single = len(value) == 1 and name != "unflattened_size"
        return value[0] if single else tuple(value)
    return value


def _check_sense(step: Step, x: torch.Tensor) -> None:
    """What torch computes without a complaint and the language does not take.

    Paddings of convolutions below zero (torch crops, in some modes), numbers below those that make
    sense (torch gives NaN), tensors that torch takes for some without a batch, or with two, and
    circular padding that reaches beyond what other sides crop (torch reads memory it has not
    written).
    """
    padding = step.arguments.get("padding", 0)
    sides = padding if isinstance(padding, list) else [padding]
    if step.op.startswith("Conv") and any(isinstance(n, int) and n < 0 for n in sides):
        raise ValueError("padding below zero")
    rank = {"PixelShuffle": 4, "PixelUnshuffle": 4, "Unfold": 4, "Fold": 3, "MultiheadAttention": 3}
    if x.dim() != rank.get(step.op, x.dim()):
        raise ValueError("torch takes this for another rank with or without a batch")
    if step.op == "Softplus" and step.arguments.get("beta") == 0:
        raise ValueError("division by nothing")
    if step.op == "Upsample" and step.arguments.get("scale_factor") == 0:
        raise ValueError("a factor of nothing, which torch takes for none")
    least = {"divisor_override": 1, "dropout": 0, "eps": 0}
    for name, value in least.items():
        given = step.arguments.get(name)
        if given is not None and given < value:
            raise ValueError(f"{name} below {value}")
    if step.op.startswith("Circular") and min(sides) < 0 < max(sides):
        for size, before, after in zip(reversed(x.shape), sides[::2], sides[1::2], strict=False):
            if max(before, after) > size + min(before, 0) + min(after, 0):
                raise ValueError("circular padding of what is cropped")


def _same(x: torch.Tensor, arguments: dict[str, Any]) -> None:
    """`same` with a stride, which torch refuses, is padding by hand: see the language's rule."""
    stride = arguments.get("stride", 1)
    strides = stride if isinstance(stride, tuple) else (stride,) * (x.dim() - 2)
    if any(each != 1 for each in strides) and all(each > 0 for each in strides):
        raise _StridedSameError


class _StridedSameError(Exception):
    """A program that has something torch does not: nothing to compare."""


# ---------------------------------------------------------------------------------------- ours


_FIRST_LINE = 5


def ours(program: Program) -> Verdict:
    """What cnnspec makes of it."""
    try:
        graph = load(text=program.text()).graph
    except SpecError as error:
        worst = min(error.diagnostics, key=lambda each: each.span.line if each.span else 0)
        line = worst.span.line if worst.span else 0
        return Verdict((), line - _FIRST_LINE, f"{worst.code}: {worst.message}")
    shapes = (
        graph.tensors[graph.by_path[f"s{number}"].outputs[0]].shape
        for number in range(len(program.steps))
    )
    return Verdict(tuple(shapes))


def disagreement(program: Program) -> str | None:
    """How the two verdicts differ, or None."""
    torchs = theirs(program)
    own = ours(program)
    if own.at != torchs.at:
        return f"torch refuses {_step(program, torchs)}, cnnspec refuses {_step(program, own)}"
    if own.at is None and own.shapes != torchs.shapes:
        return f"torch gives {torchs.shapes}, cnnspec {own.shapes}"
    return None


def _step(program: Program, verdict: Verdict) -> str:
    if verdict.at is None:
        return "nothing"
    op = program.steps[verdict.at].op if 0 <= verdict.at < len(program.steps) else "the spec"
    return f"step {verdict.at}, {op} ({verdict.why[:160]})"


def shrunk(program: Program) -> Program:
    """The last step alone on its own input, if that is enough to disagree."""
    for number in range(len(program.steps)):
        verdict = theirs(program)
        step = program.steps[number]
        if len(step.sources) != 1 or step.sources[0] >= len(verdict.shapes):
            continue
        shape = program.shape if step.sources[0] < 0 else verdict.shapes[step.sources[0]]
        alone = Program(shape, (Step(step.op, step.arguments, (-1,)),))
        if disagreement(alone) is not None:
            for name in list(step.arguments):
                rest = dict(alone.steps[0].arguments)
                del rest[name]
                fewer = Program(shape, (Step(step.op, rest, (-1,)),))
                if disagreement(fewer) is not None:
                    alone = fewer
            return alone
    return program
