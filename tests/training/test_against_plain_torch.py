"""The engine against loops that are written out in plain torch: the same weights to the bit.

Both get the same batches and start from the same weights. What the loops do is what the words of a
recipe mean: torch's own optimisers, schedulers and functions, called as its documentation says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from cnnspec.api import load
from cnnspec.ir import Graph
from cnnspec.runtime.preparing import preparation
from cnnspec.training.data.digits_source import open_digits
from cnnspec.training.data.loading import Loader
from cnnspec.training.distribution.place import joined
from cnnspec.training.recipe.read import parse_recipe
from tests.training.runs import here, run

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

RECIPE = "name: against\ndata: digits\nepochs: 3\nbatch_size: 360\nseed: 5\n"
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


def graph() -> Graph:
    return load(text=SPEC).graph


def batches(epoch: int, parts: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The parts of every batch: images from 0 to 1, and classes."""
    with Loader(
        open_digits().train,
        seed=SEED,
        batch_size=BATCH,
        accumulate=parts,
        workers=0,
        shuffle=True,
        preparation=preparation(None, (None, 1, 8, 8)),
    ) as loader:
        found = [(each.images.float() / 255, each.targets) for each in loader.epoch(epoch)]
    for first in range(0, len(found), parts):
        yield found[first : first + parts]


def held_out_loss(twin: Twin) -> float:
    held_out = open_digits().held_out
    assert held_out is not None
    everything = [held_out.read(number, "L") for number in range(len(held_out))]
    pixels = torch.stack([torch.tensor(list(image.tobytes())) for image, _ in everything])
    twin.eval()
    with torch.no_grad():
        scores = twin(pixels.reshape(-1, 1, 8, 8) / 255)
    targets = torch.tensor([int(target) for _, target in everything])
    return functional.cross_entropy(scores, targets).item()


def nothing(*_: object) -> None:
    """What a loop does by default at points where a recipe can ask for something."""


def always_one(_: int) -> float:
    return 1.0


@dataclass(kw_only=True)
class Loop:
    """A plain loop. Its fields are what can be different; `rates` are those of the steps taken."""

    optimizer: Callable[[Twin], Optimizer]
    scheduler: Callable[[Any], Any] | None = None
    moves: str = "epoch"
    warm_up: Callable[[int], float] = always_one
    parts: int = 1
    clip: Callable[[Twin], object] = nothing
    casting: Callable[[], AbstractContextManager[Any]] = nullcontext
    layout: torch.memory_format = torch.contiguous_format
    freeze: Callable[[Twin], object] = nothing
    quieten: Callable[[Twin], object] = nothing
    stepped: Callable[[Twin, int], object] = nothing
    rates: list[float] = field(default_factory=list)

    def weights(self) -> dict[str, Tensor]:
        """Those at the end."""
        twin = Twin()
        twin.load_state_dict(load(text=SPEC).to_torch(seed=SEED).state_dict())
        self.freeze(twin)
        twin = twin.to(memory_format=self.layout)  # type: ignore[call-overload]  # torch's stub
        optimizer = self.optimizer(twin)
        scheduler = self.scheduler(optimizer) if self.scheduler is not None else None
        for epoch in range(EPOCHS):
            twin.train()
            self.quieten(twin)
            for batch in batches(epoch, self.parts):
                optimizer.zero_grad()
                count = sum(len(targets) for _, targets in batch)
                for images, targets in batch:
                    with self.casting():
                        scores = twin(images.contiguous(memory_format=self.layout))
                    loss = functional.cross_entropy(scores.float(), targets, reduction="sum")
                    (loss / count).backward()  # type: ignore[no-untyped-call]
                self.clip(twin)
                self.move(optimizer)
                if scheduler is not None and self.moves == "step":
                    scheduler.step()
                self.stepped(twin, len(self.rates))
            if scheduler is not None and self.moves == "epoch":
                scheduler.step()
            if scheduler is not None and self.moves == "plateau":
                scheduler.step(held_out_loss(twin))
        return twin.state_dict()

    def move(self, optimizer: Optimizer) -> None:
        """A step of the optimiser at the rate of the scheduler times the warm-up's factor."""
        factor = self.warm_up(len(self.rates))
        groups = optimizer.param_groups
        held = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= factor
        self.rates.append(groups[-1]["lr"])
        optimizer.step()
        for group, rate in zip(groups, held, strict=True):
            group["lr"] = rate


def sgd(twin: Twin, rate: float = 0.1, **arguments: Any) -> Optimizer:
    return SGD([each for each in twin.parameters() if each.requires_grad], lr=rate, **arguments)


def sgd_apart(twin: Twin) -> Optimizer:
    weights = [twin.conv.weight, twin.deep.weight, twin.head.weight]
    others = [twin.conv.bias, twin.norm.weight, twin.norm.bias, twin.deep.bias, twin.head.bias]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    return SGD(groups, lr=0.1, momentum=0.9, nesterov=True)


def adamw(twin: Twin) -> Optimizer:
    return AdamW(twin.parameters(), lr=0.003, betas=(0.8, 0.95), weight_decay=0.1)


def by_path(twin: Twin) -> Optimizer:
    conv = {"params": twin.conv.parameters(), "lr": 0.025}
    head = {"params": twin.head.parameters(), "lr": 0.3}
    rest = [*twin.norm.parameters(), *twin.deep.parameters()]
    return SGD([conv, head, {"params": rest}], lr=0.1, momentum=0.9)


def freeze_lower(twin: Twin) -> None:
    twin.conv.requires_grad_(False)
    twin.norm.requires_grad_(False)


def quieten_norm(twin: Twin) -> None:
    twin.norm.eval()


def rising(taken: int) -> float:
    """1.5 epochs of four steps, from a tenth."""
    return 0.1 + 0.9 * taken / 6 if taken < 6 else 1.0


def clip_norm(twin: Twin) -> None:
    nn.utils.clip_grad_norm_(twin.parameters(), 0.05)


def clip_value(twin: Twin) -> None:
    nn.utils.clip_grad_value_(twin.parameters(), 0.002)


def bfloat16() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


one_cycle = partial(lr_scheduler.OneCycleLR, max_lr=0.3, total_steps=STEPS * EPOCHS)
plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.05, factor=0.5)

SGD_ALONE = "optimizer: {SGD: {lr: 0.1}}\n"
MOMENTUM = "optimizer: {SGD: {lr: 0.1, momentum: 0.9}}\n"

CASES: dict[str, tuple[str, Loop]] = {
    "sgd": (SGD_ALONE, Loop(optimizer=sgd)),
    "decay of weights alone": (
        "optimizer: {SGD: {lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01}}\n"
        "decay: weights\n",
        Loop(optimizer=sgd_apart),
    ),
    "decay of everything": (
        "optimizer: {SGD: {lr: 0.1, weight_decay: 0.01}}\n",
        Loop(optimizer=partial(sgd, weight_decay=0.01)),
    ),
    "adamw": (
        "optimizer: {AdamW: {lr: 0.003, betas: [0.8, 0.95], weight_decay: 0.1}}\n",
        Loop(optimizer=adamw),
    ),
    "rates by path": (MOMENTUM + "rates: {conv: 0.25, head: 3}\n", Loop(optimizer=by_path)),
    "clipped norm": (
        MOMENTUM + "clip: {norm: 0.05}\n",
        Loop(optimizer=partial(sgd, momentum=0.9), clip=clip_norm),
    ),
    "clipped values": (
        MOMENTUM + "clip: {value: 0.002}\n",
        Loop(optimizer=partial(sgd, momentum=0.9), clip=clip_value),
    ),
    "parts": (SGD_ALONE + "accumulate: 2\n", Loop(optimizer=sgd, parts=2)),
    "bfloat16": (SGD_ALONE + "precision: bfloat16\n", Loop(optimizer=sgd, casting=bfloat16)),
    "channels last": (
        SGD_ALONE + "channels_last: true\n",
        Loop(optimizer=sgd, layout=torch.channels_last),
    ),
    "frozen": (
        MOMENTUM + "freeze: [conv, norm]\n",
        Loop(optimizer=partial(sgd, momentum=0.9), freeze=freeze_lower, quieten=quieten_norm),
    ),
    "steps of epochs": (
        SGD_ALONE + "schedule: {MultiStepLR: {milestones: [1, 2], gamma: 0.3}}\n",
        Loop(
            optimizer=sgd,
            scheduler=partial(lr_scheduler.MultiStepLR, milestones=[1, 2], gamma=0.3),
        ),
    ),
    "steps of steps, warmed up": (
        SGD_ALONE + "schedule:\n  MultiStepLR: {milestones: [3, 9], gamma: 0.3}\n"
        "  by: step\n  warmup: {epochs: 1.5, start: 0.1}\n",
        Loop(
            optimizer=sgd,
            scheduler=partial(lr_scheduler.MultiStepLR, milestones=[3, 9], gamma=0.3),
            moves="step",
            warm_up=rising,
        ),
    ),
    "cosine of epochs": (
        SGD_ALONE + "schedule: {CosineAnnealingLR: {eta_min: 0.01}}\n",
        Loop(
            optimizer=sgd,
            scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS, eta_min=0.01),
        ),
    ),
    "cosine of steps, warmed up": (
        SGD_ALONE + "schedule: {CosineAnnealingLR: {}, by: step, "
        "warmup: {epochs: 1.5, start: 0.1}}\n",
        Loop(
            optimizer=sgd,
            scheduler=partial(lr_scheduler.CosineAnnealingLR, T_max=EPOCHS * STEPS),
            moves="step",
            warm_up=rising,
        ),
    ),
    "one cycle": (
        MOMENTUM + "schedule: {OneCycleLR: {max_lr: 0.3}}\n",
        Loop(optimizer=partial(sgd, momentum=0.9), scheduler=one_cycle, moves="step"),
    ),
    "plateau": (
        SGD_ALONE + "schedule: {ReduceLROnPlateau: {patience: 0, threshold: 0.05, factor: 0.5}}\n",
        Loop(optimizer=sgd, scheduler=plateau, moves="plateau"),
    ),
}


def compare(recipe: str, loop: Loop) -> dict[str, Tensor]:
    """The weights of both, which are to be the same after the same rates."""
    outcome, noted, _ = run(graph(), parse_recipe(RECIPE + recipe))
    with joined(here()):
        wanted = loop.weights()
    assert outcome.weights.keys() == wanted.keys()
    different = [key for key, each in wanted.items() if not torch.equal(outcome.weights[key], each)]
    assert different == []
    assert [step.rate for step in noted.steps] == loop.rates
    assert len(loop.rates) == STEPS * EPOCHS
    return wanted


@pytest.fixture(scope="module")
def unasked() -> list[Tensor]:
    """Weights of the head after loops that nothing is asked of."""
    with joined(here()):
        loops = [Loop(optimizer=sgd), Loop(optimizer=partial(sgd, momentum=0.9))]
        return [loop.weights()["head.weight"] for loop in loops]


@pytest.mark.parametrize("name", CASES)
def test_the_engine_is_the_loop_that_its_recipe_describes(name: str, unasked: list[Tensor]) -> None:
    recipe, loop = CASES[name]
    found = compare(recipe, loop)["head.weight"]
    if name not in ("sgd", "channels last"):
        assert not any(torch.equal(found, each) for each in unasked)
    # A plateau is met, and not at every epoch.
    assert name != "plateau" or len(set(loop.rates)) == 2


def test_the_average_is_the_one_of_its_formula() -> None:
    averages: dict[str, Tensor] = {}

    def follow(twin: Twin, taken: int) -> None:
        decay = min(0.5, (1 + taken) / (10 + taken))
        for key, each in twin.state_dict().items():
            averages[key] = decay * averages[key] + (1 - decay) * each.double()

    start = load(text=SPEC).to_torch(seed=SEED).state_dict()
    averages |= {key: each.double() for key, each in start.items()}
    outcome, _, kept = run(graph(), parse_recipe(RECIPE + MOMENTUM + "ema: 0.5\n"))
    with joined(here()):
        weights = Loop(optimizer=partial(sgd, momentum=0.9), stepped=follow).weights()
    counts = {key for key in weights if key.endswith("num_batches_tracked")}
    for key, each in weights.items():
        assert torch.equal(kept.states[-1]["model"][key], each)
        if key in counts:
            assert torch.equal(outcome.weights[key], each)
        else:
            torch.testing.assert_close(
                outcome.weights[key].double(), averages[key], atol=1e-7, rtol=1e-5
            )
            assert not torch.equal(outcome.weights[key], each)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_a_compiled_module_learns_the_same_and_resumes_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What torch has compiled for another kind of processor may be taken for this one's.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    # The first batch behind the resume is the smaller one, which torch has seen last before.
    recipe = parse_recipe(RECIPE + MOMENTUM + "compile: true\ncheckpoint: {steps: 3}\n")
    outcome, _, kept = run(graph(), recipe)
    with joined(here()):
        wanted = Loop(optimizer=partial(sgd, momentum=0.9)).weights()
    for key, each in wanted.items():
        torch.testing.assert_close(outcome.weights[key], each, atol=1e-4, rtol=1e-3)
    torch.compiler.reset()
    assert (kept.states[0]["epoch"], kept.states[0]["step"]) == (0, 3)
    again, _, _ = run(graph(), recipe, resume=kept.states[0])
    different = [
        k for k, each in outcome.weights.items() if not torch.equal(again.weights[k], each)
    ]
    assert different == []
