"""Generated source as Python modules: executed, shown in tracebacks, forgotten when unused.

How the source is made, and what its networks store, may not enter.

A module of generated source stands in `sys.modules`, where `inspect`, `torch.compile` and
`torch.export` look, and its lines in `linecache`. It stays there while a network made from it is
alive, and with the few newest even without one, so that a search over thousands of networks does
not keep them all.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any
from weakref import WeakSet

from torch import nn

__all__ = ["execute", "instantiate"]

_PREFIX = "cnnspec_network_"
_KEPT = 8
"""Modules that stay although no network made from them is alive."""


class _Executed(ModuleType):
    """A module of generated source."""

    def __init__(self, name: str, text: str, filename: str) -> None:
        super().__init__(name)
        self.__file__ = filename
        self.source_text = text
        self.networks: WeakSet[nn.Module] = WeakSet()

    def show(self) -> None:
        """Put the module where Python looks for modules and their lines."""
        assert self.__file__ is not None  # the constructor sets it
        text = self.source_text
        lines = text.splitlines(keepends=True)
        linecache.cache[self.__file__] = (len(text), None, lines, self.__file__)
        sys.modules[self.__name__] = self

    def hide(self) -> None:
        """The reverse of `show`."""
        assert self.__file__ is not None  # the constructor sets it
        sys.modules.pop(self.__name__, None)
        linecache.cache.pop(self.__file__, None)


def execute(source: str, name: str) -> ModuleType:
    """The source as an imported module; equal sources are one module while it is kept.

    `name`, the network's, is shown in tracebacks.
    """
    digest = sha256(source.encode()).hexdigest()[:16]
    module_name = f"{_PREFIX}{digest}"
    known = sys.modules.get(module_name)
    if isinstance(known, _Executed):
        return known
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "_-" else "_" for c in name)
    filename = f"<cnnspec {plain} {digest}>"
    made = _Executed(module_name, source, filename)
    code = compile(source, filename, "exec", dont_inherit=True)
    made.show()
    try:
        exec(code, made.__dict__)
    except BaseException:
        made.hide()
        raise
    reduce = _reducer(source, name, module_name)
    for cls in list(vars(made).values()):
        if isinstance(cls, type) and cls.__module__ == module_name and issubclass(cls, nn.Module):
            cls.__reduce_ex__ = reduce  # type: ignore[method-assign]
    _forget_unused()
    return made


def instantiate(made: ModuleType, name: str) -> nn.Module:
    """`name()`: a network of a class of executed source, which is kept as long as the network."""
    network: nn.Module = getattr(made, name)()
    _keep(made, network)
    return network


def _keep(made: ModuleType, network: nn.Module) -> None:
    if isinstance(made, _Executed):
        made.networks.add(network)
        made.show()


def _forget_unused() -> None:
    """Hide all but the newest modules whose networks are gone."""
    unused = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith(_PREFIX) and isinstance(module, _Executed) and not module.networks
    ]
    for module in unused[: -_KEPT or None]:
        module.hide()


# ---------------------------------------------------------------------------------------- pickling


def _reducer(
    source: str, name: str, module_name: str
) -> Callable[[Any, Any], str | tuple[Any, ...]]:
    """A `__reduce_ex__` that pickles the source with the module.

    So a pickle can be read where the source was never executed: in the processes of
    `torch.multiprocessing`, and from a file of `torch.save`. A class that somebody derives is found
    where it stands, as usual.
    """

    def reduce(self: nn.Module, protocol: Any) -> str | tuple[Any, ...]:
        if type(self).__module__ != module_name:
            return object.__reduce_ex__(self, protocol)
        return _blank, (source, name, type(self).__qualname__), dict(self.__dict__)

    return reduce


def _blank(source: str, name: str, qualname: str) -> nn.Module:
    """An object of a class of the source, without its state."""
    made = execute(source, name)
    cls: type[nn.Module] = getattr(made, qualname)
    found = cls.__new__(cls)
    _keep(made, found)
    return found
