"""The network of a spec at other input sizes, tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cnnspec.diagnostics import SpecError
from cnnspec.frontend.load import Loaded, expand
from cnnspec.ir import Graph

__all__ = ["resizing"]


def resizing(
    loaded: Loaded, variant: str | None, params: Mapping[str, object]
) -> Callable[[Mapping[str, tuple[int, ...]]], Graph | None]:
    """A function from the shapes of all inputs to the network, None where the spec has none."""

    def resized(inputs: Mapping[str, tuple[int, ...]]) -> Graph | None:
        try:
            return expand(loaded, variant=variant, params=params, inputs=inputs)
        except SpecError:
            return None

    return resized
