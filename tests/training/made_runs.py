"""Runs as training leaves them, made without it: a small network taught by a few plain steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

import cnnspec
from cnnspec.api import Network
from cnnspec.report.flat import FlatNetwork
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.evaluating.choosing import image_of
from cnnspec.training.recipe.model import Data, Recipe
from cnnspec.training.runs.run_folder import RunFolder, claimed

__all__ = ["SMALL", "digits_arrays", "made_run", "small", "taught"]

SMALL = """\
cnnspec: 1
name: small
inputs: {image: [1, 8, 8]}
params: {classes: int = 10}
preprocess: {scale: 0.0625, colour: grey}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1}
    name: conv
  - BatchNorm2d:
    name: norm
    allow: [bias-before-norm]
  - ReLU
  - MaxPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 24}
    name: hidden
  - ReLU
  - Linear: {out_features: classes}
    name: head
"""


def digits_arrays(network: Network, held_out: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """The digits as the network takes them, and what they are."""
    shape, prepare = image_of(network.graph)
    data = open_dataset(Data(source="digits"), shape=shape, seed=0, classes=10)
    samples = data.held_out if held_out else data.train
    assert samples is not None
    read = [samples.read(number, prepare.mode) for number in range(len(samples))]
    images = np.stack([prepare(image) for image, _ in read])
    return torch.from_numpy(images), torch.tensor([target for _, target in read])


def taught(network: Network, steps: int = 60, seed: int = 0) -> nn.Module:
    """The network after a few steps on the digits."""
    module = network.to_torch(seed=seed).train()
    images, targets = digits_arrays(network)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randperm(len(images), generator=generator)[:64]
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(images[chosen]), targets[chosen]).backward()
        optimizer.step()
    return module.eval()


def made_run(
    path: Path, network: Network, module: nn.Module | None, recipe: Recipe | None = None
) -> RunFolder:
    """A folder as `cnnspec train` leaves it; without a module, in the middle of the training."""
    recipe = recipe or Recipe(name="test", data=Data(source="digits"))
    fingerprint = open_dataset(
        Data(source="digits"), shape=(1, 8, 8), seed=0, classes=10
    ).fingerprint
    with claimed(path):
        run = RunFolder.create(
            path,
            spec=FlatNetwork(network.graph).spec({}),
            recipe=recipe,
            facts={"fingerprint": fingerprint},
        )
        if module is not None:
            save_file(
                {key: each.contiguous() for key, each in module.state_dict().items()}, run.weights
            )
    return run


def small(**params: object) -> Network:
    """The small network."""
    return cnnspec.load(text=SMALL).with_params(**params)
