"""Values that cannot change, of classes that say no more than their fields.

For families of many small classes: a frozen dataclass has six methods compiled for it whenever
Python starts, and here they stand once for all. Values that are made in large numbers stay
dataclasses, which are made faster and take less memory. Nothing with a meaning of its own may
enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass
from typing import Any, ClassVar, dataclass_transform

__all__ = ["Frozen", "Record"]


class Frozen:
    """Base of values that cannot change once they are made, equal by class and attributes.

    Only `__init__` of a subclass sets attributes, by way of `__dict__` or `object.__setattr__`, and
    always in the same order: equal values have equal hashes.
    """

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"{type(self).__name__} cannot change")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"{type(self).__name__} cannot change")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({given})"


@dataclass_transform(frozen_default=True)
class Record(Frozen):
    """Base of frozen values with fields, given in order or by name.

    Subclasses become dataclasses by themselves. What a field is by default has to be immutable.
    """

    __match_args__: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Only its fields are asked of dataclass; the methods stand in this file.
        dataclass(init=False, eq=False, repr=False)(cls)

    def __init__(self, *values: Any, **named: Any) -> None:
        """Raises `TypeError` unless every field without a default is given, and once."""
        names = self.__match_args__
        if named or len(values) != len(names):
            values = self._complete(values, named)
        # One by one, not by way of `__dict__`: Python finds them four times as fast later.
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)

    @classmethod
    def _complete(cls, values: Sequence[object], named: Mapping[str, object]) -> tuple[Any, ...]:
        """A value for every field, defaults where none is given."""
        names = cls.__match_args__
        rest = names[len(values) :]
        if len(values) > len(names) or not named.keys() <= set(rest):
            raise TypeError(f"{cls.__name__} takes {', '.join(names) or 'nothing'}, each once")
        missing = [name for name in rest if name not in named and not hasattr(cls, name)]
        if missing:
            raise TypeError(f"{cls.__name__} needs {', '.join(missing)}")
        return (*values, *(named[n] if n in named else getattr(cls, n) for n in rest))
