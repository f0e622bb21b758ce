"""The moving average of what a network stores, which is evaluated and kept in its place.

The decay rises with the number of steps, so that an average is not held back by how the weights
started: `min(decay, (1 + steps) / (10 + steps))`, as in TensorFlow's ExponentialMovingAverage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """An average of the parameters and buffers of `module`; what is not a float is its latest."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        live = module.state_dict()
        self._live = live
        self.tensors: dict[str, Tensor] = {key: each.clone() for key, each in live.items()}
        moving = [key for key, each in live.items() if each.is_floating_point()]
        self._floats = [live[key] for key in moving]
        self._averages = [self.tensors[key] for key in moving]
        latest = [key for key in live if key not in set(moving)]
        self._counts = [live[key] for key in latest]
        self._latest = [self.tensors[key] for key in latest]

    @torch.no_grad()
    def update(self, taken: int) -> None:
        """Take in the weights behind `taken` steps."""
        decay = min(self._decay, (1 + taken) / (10 + taken))
        torch._foreach_lerp_(self._averages, self._floats, 1 - decay)
        if self._counts:
            torch._foreach_copy_(self._latest, self._counts)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from an average that was kept."""
        for key, each in self.tensors.items():
            each.copy_(tensors[key])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the module, for the time of a block; then its own weights, bit by bit."""
        kept = {key: each.clone() for key, each in self._live.items()}
        with torch.no_grad():
            for key, each in self._live.items():
                each.copy_(self.tensors[key])
        try:
            yield
        finally:
            with torch.no_grad():
                for key, each in self._live.items():
                    each.copy_(kept[key])
