"""What the passes of one analysis have found so far: each fact under its own type.

A pass reads earlier facts and returns one new, frozen value. Nothing here outlives an analysis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from cnnspec.passes.options import Options

__all__ = ["Facts", "Options"]

T = TypeVar("T")


class Facts:
    """Facts by type: `facts[Cost]` is what the cost pass found.

    Asking for a fact whose pass has not run is a mistake in the order of the pipeline: `KeyError`.
    """

    __slots__ = ("_found",)

    def __init__(self, found: Mapping[type[Any], object]) -> None:
        """Start from facts that no pass finds, such as `Options`."""
        self._found = found

    def __getitem__(self, kind: type[T]) -> T:
        """The fact of type `kind`."""
        fact = self._found[kind]
        assert isinstance(fact, kind)
        return fact

    def having(self, fact: object) -> Facts:
        """These facts and one more."""
        return Facts({**self._found, type(fact): fact})
