"""Constructor arguments by name, with those left out: so that calls can be compared.

Reads the signatures of torch's own classes and of the helper classes that ops bring along. No graph
may enter.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from functools import cache

from torch import nn

from cnnspec.lower import Arg, Helper, Module

__all__ = ["Argument", "Constant", "constant", "constructor_arguments", "takes"]

Constant = int | float | bool | str | None | tuple["Constant", ...]
_PLACEMENT = ("device", "dtype")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a constructor; `implied` is one not written, which has its default."""

    name: str
    value: Constant
    keyword: bool
    implied: bool = False


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What a constructor takes: names in order, and defaults of some of them."""

    names: tuple[str, ...]
    defaults: tuple[tuple[str, Constant], ...]


def constructor_arguments(code: Module | Helper) -> tuple[Argument, ...]:
    """All arguments of the constructor call, in the order in which the class declares them.

    Raises `TypeError` for an argument that is no constant, or that the class does not take.
    """
    if isinstance(code, Helper):
        known = _of_source(code.name, code.source)
    else:
        known = _of_torch(code.target)
    given: dict[str, Argument] = {}
    for number, value in enumerate(code.args):
        name = known.names[number] if number < len(known.names) else ""
        given[name or str(number)] = Argument(name, constant(value), keyword=False)
    for name, value in code.kwargs:
        if name in given:
            raise TypeError(f"`{name}` is given twice")
        given[name] = Argument(name, constant(value), keyword=True)
    for name, default in known.defaults:
        if name not in given:
            given[name] = Argument(name, default, keyword=True, implied=True)
    order = {name: number for number, name in enumerate(known.names)}
    return tuple(sorted(given.values(), key=lambda a: order.get(a.name, len(order))))


def takes(target: str, name: str) -> bool:
    """True if the constructor of a class of torch.nn has an argument of that name."""
    return name in _of_torch(target).names


def constant(value: Arg) -> Constant:
    """An argument that is no expression; `TypeError` for one that is."""
    if isinstance(value, tuple):
        return tuple(map(constant, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a constructor takes constants, not {type(value).__name__}")


@cache
def _of_torch(target: str) -> _Parameters:
    module, _, name = target.partition(".")
    if module != "nn" or not name:
        raise TypeError(f"`{target}` is no class of torch.nn")
    names: list[str] = []
    defaults: list[tuple[str, Constant]] = []
    for parameter in inspect.signature(getattr(nn, name)).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in _PLACEMENT:
            continue
        names.append(parameter.name)
        if parameter.default is not parameter.empty:
            defaults.append((parameter.name, parameter.default))
    return _Parameters(tuple(names), tuple(defaults))


@cache
def _of_source(name: str, source: str) -> _Parameters:
    made = next(
        (
            statement
            for top in ast.parse(source).body
            if isinstance(top, ast.ClassDef) and top.name == name
            for statement in top.body
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__"
        ),
        None,
    )
    if made is None:
        return _Parameters((), ())
    positional = [argument.arg for argument in made.args.args[1:]]
    plain = made.args.defaults
    pairs = list(zip(positional[len(positional) - len(plain) :], plain, strict=True))
    for argument, default in zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True):
        positional.append(argument.arg)
        if default is not None:
            pairs.append((argument.arg, default))
    defaults = tuple((key, ast.literal_eval(default)) for key, default in pairs)
    return _Parameters(tuple(positional), defaults)
