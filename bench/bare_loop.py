"""The other side of `bench.train`: a training loop as people write it with plain PyTorch.

Nothing of cnnspec may enter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.tools import import_torchvision

__all__ = ["LENET", "bare_steps"]

LENET = "lenet5"
"""The one network here that torchvision does not have."""

_PHOTOS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DIGITS = ((0.1307,), (0.3081,))
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def bare_steps(options: argparse.Namespace, classes: int) -> Iterator[None]:
    """Takes a step of training at each `next`, without end; bytes in memory become batches.

    SGD with momentum; the loss is not even looked at.
    """
    device = torch.device(options.device)
    half = _HALVES.get(options.precision)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    module = _module(options.network, classes).to(device, memory_format=layout).train()  # type: ignore[call-overload]  # torch's stub
    forward: Callable[[Tensor], Tensor] = torch.compile(module) if options.compile else module
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    mean, std = (
        torch.tensor(each, device=device).view(-1, 1, 1)
        for each in (_DIGITS if options.network == LENET else _PHOTOS)
    )
    count, channels = options.steps * options.batch, len(mean)
    made = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (count, channels, options.size, options.size), dtype=torch.uint8, generator=made
    )
    targets = torch.randint(classes, (count,), generator=made)
    while True:
        for chosen in torch.randperm(count, generator=made).split(options.batch):
            given = images.index_select(0, chosen)
            wanted = targets.index_select(0, chosen)
            if device.type == "cuda":
                given, wanted = given.pin_memory(), wanted.pin_memory()
            given = given.to(device, non_blocking=True)
            wanted = wanted.to(device, non_blocking=True)
            given = given.float().div_(255).sub_(mean).div_(std).contiguous(memory_format=layout)
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                scores = forward(given)
            loss = cross_entropy(scores.float(), wanted)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield


def _module(network: str, classes: int) -> nn.Module:
    if network == LENET:
        return _lenet(classes)
    import_torchvision()
    import torchvision

    module: nn.Module = torchvision.models.get_model(network, weights=None, num_classes=classes)
    return module


def _lenet(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, classes),
    )
