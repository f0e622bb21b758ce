"""The engine against loops that are written out in plain torch: the same weights to the bit.

Both get the same batches and start from the same weights. What the loops do is what the words of a
recipe mean: torch's own optimisers, schedulers and functions, called as its documentation says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isclose
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from cnnspec.api import load
from cnnspec.runtime.preparing import preparation
from cnnspec.training.data.digits_source import open_digits
from cnnspec.training.data.loading import Loader
from cnnspec.training.engine import Outcome
from cnnspec.training.recipe.read import parse_recipe
from tests.training.runs import Noting, run

SPEC = """\
cnnspec: 1
name: against
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 6, kernel_size: 3, padding: 1}
    name: conv
  - BatchNorm2d:
    name: norm
  - ReLU
  - MaxPool2d: {kernel_size: 2}
  - Conv2d: {out_channels: 10, kernel_size: 3}
    name: deep
  - Tanh
  - Flatten
  - Linear: {out_features: 10}
    name: head
"""

BATCH, STEPS, EPOCHS, SEED = 360, 4, 3, 5
"""The last batch of an epoch has 357 samples."""


class Twin(nn.Module):
    """What the spec says, in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 10, 3)
        self.head = nn.Linear(40, 10)

    def forward(self, images: Tensor) -> Tensor:
        image = functional.max_pool2d(torch.relu(self.norm(self.conv(images))), 2)
        scores: Tensor = self.head(torch.tanh(self.deep(image)).flatten(1))
        return scores


def sgd(twin: Twin) -> Optimizer:
    return SGD(twin.parameters(), lr=0.1)


@dataclass
class Loop:
    """A plain loop; fields are what can be different about it."""

    optimizer: Callable[[Twin], Optimizer] = sgd
    scheduler: Callable[[Any], Any] | None = None
    by_step: bool = False
    on_plateau: bool = False
    parts: int = 1
    clip: Callable[[Twin], object] | None = None
    forward: Callable[[], AbstractContextManager[Any]] = nullcontext
    layout: torch.memory_format = torch.contiguous_format
    begin: Callable[[Twin], object] | None = None
    still: Callable[[Twin], object] | None = None
    around_step: Callable[[Optimizer, int], AbstractContextManager[Any]] | None = None
    compiled: bool = False
    rates: list[float] = field(default_factory=list)
    average: dict[str, Tensor] = field(default_factory=dict)
    decay: float | None = None

    def run(self) -> dict[str, Tensor]:
        """Train; the weights."""
        twin = Twin()
        twin.load_state_dict(load(text=SPEC).to_torch(seed=SEED).state_dict())
        if self.begin is not None:
            self.begin(twin)
        twin.to(memory_format=self.layout)  # type: ignore[call-overload]  # torch's stub
        network = torch.compile(twin) if self.compiled else twin
        optimizer = self.optimizer(twin)
        scheduler = self.scheduler(optimizer) if self.scheduler is not None else None
        self.average = {key: each.double() for key, each in twin.state_dict().items()}
        taken = 0
        for epoch in range(EPOCHS):
            twin.train()
            if self.still is not None:
                self.still(twin)
            for batch in batches(epoch, self.parts):
                held = [group["lr"] for group in optimizer.param_groups]
                self.warm(optimizer, taken)
                self.rates.append(optimizer.param_groups[0]["lr"])
                optimizer.zero_grad()
                count = sum(len(images) for images, _ in batch)
                for images, targets in batch:
                    with self.forward():
                        scores = network(images.to(memory_format=self.layout))
                    loss = functional.cross_entropy(scores.float(), targets, reduction="sum")
                    (loss / count).backward()  # type: ignore[no-untyped-call]
                if self.clip is not None:
                    self.clip(twin)
                optimizer.step()
                for group, rate in zip(optimizer.param_groups, held, strict=True):
                    group["lr"] = rate
                taken += 1
                if scheduler is not None and self.by_step:
                    scheduler.step()
                self.note(twin, taken)
            if scheduler is not None and not self.by_step:
                scheduler.step(*([held_out_loss(twin)] if self.on_plateau else []))
        return twin.state_dict()
