"""The operations: one file each, or one for a small family. Dropping a file in here adds its ops.

Only rules may be here. A file imports the contract, geometry and lowering data, never torch, ONNX,
the frontend, or a location.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from functools import cache
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from types import MappingProxyType

from cnnspec.diagnostics import Reject, did_you_mean
from cnnspec.op import RULES, Op, slots_of

__all__ = ["ContractViolation", "bind", "registry"]


class ContractViolation(TypeError):
    """An operation in this room lacks a rule or takes a name that another one has."""


@cache
def registry() -> Mapping[str, type[Op]]:
    """Every operation by its name in a spec, sorted by name.

    Raises `ContractViolation` if one lacks a rule, and if two have the same name.
    """
    found: dict[str, type[Op]] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        for member in vars(import_module(module.name)).values():
            if (
                not isinstance(member, type)
                or member.__module__ != module.name
                or not issubclass(member, Op)
                or member.abstract
            ):
                continue
            _check(member)
            if found.setdefault(member.name, member) is not member:
                raise ContractViolation(
                    f"{member.name} is defined in {member.__module__} and in "
                    f"{found[member.name].__module__}"
                )
    return MappingProxyType(dict(sorted(found.items())))


def _check(op: type[Op]) -> None:
    missing = [rule for rule in RULES if not hasattr(op, rule)]
    if missing or isabstract(op):
        raise ContractViolation(f"{op.__module__}.{op.__name__} lacks {', '.join(missing)}")
    if not op.examples:
        raise ContractViolation(f"{op.__module__}.{op.__name__} has no examples")
    if not op.__doc__:
        raise ContractViolation(f"{op.__module__}.{op.__name__} has no docstring")


def bind(op: type[Op], arguments: Mapping[str, object]) -> Op:
    """An op from evaluated arguments, each put through its slot.

    Raises `Reject` with the argument to blame in `at`: `unknown-argument`, `missing-argument`, or
    whatever a slot says.
    """
    slots = slots_of(op)
    final = dict(_defaults(op))
    for name, value in arguments.items():
        declared = slots.get(name)
        if declared is None:
            raise Reject(
                "unknown-argument",
                f"`{op.name}` has no argument `{name}`",
                at=name,
                help=did_you_mean(name, slots),
            )
        try:
            final[name] = declared.metadata["slot"].accept(value, op.axes)
        except Reject as reject:
            reject.at = name
            reject.message = f"`{name}` {reject.message}"
            raise
    for name in slots:
        if name not in final:
            raise Reject("missing-argument", f"`{op.name}` needs `{name}`")
    # In the order of declaration: equal ops have equal hashes.
    return op(**{name: final[name] for name in slots})


@cache
def _defaults(op: type[Op]) -> Mapping[str, object]:
    return {
        name: declared.metadata["slot"].accept(declared.default, op.axes)
        for name, declared in slots_of(op).items()
        if declared.default is not MISSING
    }
