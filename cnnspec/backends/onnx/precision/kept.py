"""What a conversion gives: the model, and which layers it left as they were."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

__all__ = ["Converted", "Kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """A layer that stays float32, or partly: its path, the ONNX operator that decides, and why."""

    path: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class Converted:
    """A model of another precision, and the layers that stay float32, in the order they run."""

    model: onnx.ModelProto
    kept: tuple[Kept, ...]
