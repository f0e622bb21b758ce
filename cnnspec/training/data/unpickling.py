"""Pickles of plain values and arrays of bytes, as CIFAR is published. Nothing in them is called.

What a pickle names is looked up in a table of three stand-ins that only note what they are given;
anything else is refused. The stand-ins are new for every pickle, which may write to them.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NotPlain", "plain_pickle"]

_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy", "ndarray"): "array",
    ("numpy", "dtype"): "type",
}


class NotPlain(Exception):
    """A pickle that holds something else, or is damaged."""


def plain_pickle(content: bytes) -> object:
    """The object in `content`: containers, numbers, text as bytes, and arrays of uint8.

    Raises `NotPlain`.
    """
    try:
        return _plain(_Unpickler(content).load())
    except Exception:  # pickle raises whatever it stumbles over
        raise NotPlain from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(BytesIO(content), encoding="bytes")
        self._table = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        return self._table[_NAMES[module, name]]


def _stand_ins() -> dict[str, Any]:
    class Type:
        """A type of numbers; only uint8 is there."""

        def __init__(self, *given: object) -> None:
            if given[:1] not in (("u1",), (b"u1",)):
                raise NotPlain

        def __setstate__(self, state: object) -> None:
            """Byte order and fields: uint8 has neither."""

    class Array:
        """An array to be: its state says what is in it."""

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            version, shape, kind, by_columns, content = state
            if version != 1 or type(kind) is not Type or type(content) is not bytes:
                raise NotPlain
            if not all(type(size) is int and size >= 0 for size in shape):
                raise NotPlain
            if prod(shape) != len(content):
                raise NotPlain
            flat = np.frombuffer(content, np.uint8)
            self.found = _Found(flat.reshape(shape, order="F" if by_columns else "C"))

    def reconstruct(*given: object) -> Array:
        del given
        return Array()

    return {"type": Type, "array": Array, "reconstruct": reconstruct}


class _Found:
    """What a stand-in of an array became; no pickle can make one."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array


_MOST = 400_000
_DEEPEST = 4
"""Values of a pickle and containers in one another: it may hold itself."""


def _plain(value: object) -> object:
    """`value` without stand-ins."""
    return _copied(value, [_MOST], 0)


def _copied(value: object, budget: list[int], depth: int) -> object:
    budget[0] -= 1
    if budget[0] < 0 or depth > _DEEPEST:
        raise NotPlain
    if value is None or type(value) in (bool, int, float, bytes, str):
        return value
    if type(value) is dict:
        return {
            _copied(key, budget, depth + 1): _copied(item, budget, depth + 1)
            for key, item in value.items()
        }
    if type(value) in (list, tuple):
        return [_copied(item, budget, depth + 1) for item in value]  # type: ignore[attr-defined]
    found = getattr(value, "found", None)
    if type(found) is _Found:
        return found.array
    raise NotPlain
