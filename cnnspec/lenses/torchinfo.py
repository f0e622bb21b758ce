"""torchinfo: the weights of the modules that have no children (`torchinfo.summary`).

A weight counts once for each output position in a class whose name has `Conv` in it, and once for
each sample otherwise, biases too. What functions compute is not seen, nor is what belongs to a
module with children. Sizes are those of weights and of the outputs of layers that have weights.
Source: torchinfo.layer_info and torchinfo.model_statistics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from cnnspec.ir import Graph, Scope
from cnnspec.lenses.execution import Step, elements
from cnnspec.lenses.lens import Charge, Lens, Printed, Seen, Unknown

__all__ = ["TORCHINFO"]

_BYTES = 4
_PASSES = 2
_STORAGE = 64
"""Bytes of the Python object that holds an input: torchinfo takes `sys.getsizeof`."""


def _charges(step: Step) -> Sequence[Charge] | Unknown:
    if not step.is_module or not step.weights:
        return ()
    if step.has_children:
        return ()
    if step.output is None:
        return Unknown("the sizes of its output are not known")
    spatial = "Conv" in step.target
    once = prod(step.output[:1] + step.output[2:]) if spatial else step.output[0]
    charges = []
    for name, shape in step.weights.items():
        if name in ("weight", "bias"):
            count = prod(shape) * once
        elif "weight" in name or "bias" in name:
            count = prod(shape) * prod(step.output[:2])
        else:
            continue
        product = name == "weight" and len(shape) > 1
        charges.append(Charge(count, _why(name, spatial, product), product))
    return charges


def _why(name: str, spatial: bool, product: bool) -> str:
    if spatial:
        whole = "each weight once at each output position"
        return whole if product else f"each `{name}` once at each output position"
    return (
        "each weight once, not once for each row" if product else (f"each element of `{name}` once")
    )


def _doubt(graph: Graph, run: Mapping[int, Sequence[Step]]) -> Mapping[int, str]:
    """Parameters of modules that have nothing else: such a module counts as a layer itself.

    What it counts depends on the name of its class.
    """
    why = "the module it belongs to has no layers, and counts as one by the name of its class"
    return {
        index: why
        for index, calls in run.items()
        if not calls
        and graph.nodes[index].op.weights(graph.site(graph.nodes[index]))
        and _has_no_children(_module(graph.nodes[index].scope), run)
    }


def _module(scope: Scope) -> Scope:
    """The module that a scope is part of."""
    while scope.inline and scope.parent is not None:
        scope = scope.parent
    return scope


def _has_no_children(scope: Scope, run: Mapping[int, Sequence[Step]]) -> bool:
    for member in scope.members:
        if isinstance(member, Scope):
            if not member.inline or not _has_no_children(member, run):
                return False
        elif any(call.is_module for call in run.get(member, ())):
            return False
    return True


def _say(seen: Seen, params: int) -> Iterable[Printed]:
    inputs = sum(
        _STORAGE + _BYTES * elements((1, *seen.graph.tensors[v].shape)) for v in _inputs(seen)
    )
    outputs = stored = 0
    called: set[int] = set()
    for owner, run in zip(seen.owners, seen.nodes, strict=True):
        for step in run:
            if step.is_module and step.weights and not step.has_children:
                assert step.output is not None
                outputs += _PASSES * _BYTES * elements(step.output)
                stored += 0 if owner in called else _BYTES * step.stored
                called.add(owner)
    yield Printed("Total params", f"{params:,}")
    yield Printed("Trainable params", f"{seen.stored.trainable:,}")
    yield Printed("Non-trainable params", f"{params - seen.stored.trainable:,}")
    yield Printed(*_mult_adds(seen.total))
    yield Printed("Input size (MB)", _megabytes(inputs))
    yield Printed("Forward/backward pass size (MB)", _megabytes(outputs))
    yield Printed("Params size (MB)", _megabytes(stored))
    yield Printed("Estimated Total Size (MB)", _megabytes(inputs + outputs + stored))


def _inputs(seen: Seen) -> Iterable[int]:
    return seen.graph.inputs.values()


def _mult_adds(number: int) -> tuple[str, str]:
    """In the largest unit that fits, a whole number without decimals."""
    unit, name = next(
        (each for each in ((1e12, "TERABYTES"), (1e9, "GIGABYTES")) if number >= each[0]),
        (1e6, "MEGABYTES"),
    )
    value = number / unit
    return f"Total mult-adds (Units.{name})", f"{value:,.0f}" if value.is_integer() else (
        f"{value:,.2f}"
    )


def _megabytes(number: int) -> str:
    return f"{number / 1e6:0.2f}"


TORCHINFO = Lens(
    name="torchinfo",
    tool="torchinfo 1.8",
    call="torchinfo.summary(model, input_size)",
    figure="mult-adds",
    blind="only weights of modules without children count",
    rule=_charges,
    trainable_only=False,
    say=_say,
    doubt=_doubt,
)
"""torchinfo.summary."""
