"""What the engine asks of whoever keeps what a run makes. Files and formats may not enter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from cnnspec.training.watching import EpochFigures

__all__ = ["Checkpointer", "NoCheckpointer"]


class Checkpointer(Protocol):
    """Keeps what a run makes. Only called on the process of rank 0; tensors are on the CPU.

    All methods raise `EnvironmentFailure` for what cannot be written, and leave intact what is
    there.
    """

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state to go on from (see `cnnspec.training.state`), at once or a little later.

        Its tensors are those that go on training: they are copied before this returns.
        """

    def settle(self) -> None:
        """Wait until everything is kept."""

    def save_best(self, tensors: Mapping[str, Tensor], figures: EpochFigures) -> None:
        """Keep the best weights so far, by key of the state dict."""

    def save_final(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights that the run ends with."""


class NoCheckpointer:
    """Keeps nothing."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def settle(self) -> None:
        """Nothing."""

    def save_best(self, tensors: Mapping[str, Tensor], figures: EpochFigures) -> None:
        """Nothing."""

    def save_final(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""
