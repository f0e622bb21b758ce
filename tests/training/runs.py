"""Short runs of the engine, in one process or as one of several that a test started.

As a program: `runs.py RESULT SCENARIO...` in the environment of torchrun; rank 0 writes what the
scenarios gave to RESULT.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cnnspec.api import load
from cnnspec.ir import Graph
from cnnspec.training.distribution.place import Place, find_place, joined
from cnnspec.training.engine import Interrupted, Outcome, train
from cnnspec.training.evaluating.task import Task
from cnnspec.training.evaluating.torch_counting import Counting
from cnnspec.training.planning import Plan, plan
from cnnspec.training.recipe.model import (
    Call,
    Checkpointing,
    Clip,
    Data,
    Recipe,
    Schedule,
    Warmup,
)
from cnnspec.training.watching import EpochFigures, Silent, Stepped

SMALL = """\
cnnspec: 1
name: small
params:
  classes: int = 10
inputs: {image: [1, 8, 8]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, bias: false}
    name: conv
  - BatchNorm2d:
    name: norm
  - ReLU
  - Dropout: {p: 0.3}
  - Flatten
  - Linear: {out_features: 10}
    name: head
"""

PLAIN = Recipe(
    name="plain",
    data=Data(source="digits", workers=0),
    epochs=1,
    batch_size=60,
    optimizer=Call("SGD", {"lr": 0.05, "momentum": 0.9}),
)
RICH = replace(
    PLAIN,
    name="rich",
    epochs=2,
    batch_size=200,
    optimizer=Call("AdamW", {"lr": 0.003}),
    decay="weights",
    schedule=Schedule(
        scheduler=Call("CosineAnnealingLR"), by="step", warmup=Warmup(epochs=0.5, start=0.1)
    ),
    augment=(Call("RandomShift", {"pixels": 1}),),
    ema=0.99,
    clip=Clip(norm=1.0),
    checkpoint=Checkpointing(steps=3, best="loss"),
)


def small() -> Graph:
    return load(text=SMALL).graph


class Kept:
    """Keeps copies of everything in memory."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []
        self.best: list[EpochFigures] = []
        self.final: Mapping[str, torch.Tensor] | None = None

    def save(self, state: Mapping[str, Any]) -> None:
        self.states.append(deepcopy(dict(state)))

    def settle(self) -> None:
        pass

    def save_best(self, tensors: Mapping[str, torch.Tensor], figures: EpochFigures) -> None:
        self.best.append(figures)

    def save_final(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.final = tensors


class Noting(Silent):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.steps: list[Stepped] = []
        self.epochs: list[EpochFigures] = []
        self.begun: list[tuple[int, int]] = []

    def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
        self.begun.append((epoch, first))

    def stepped(self, step: Stepped) -> None:
        self.steps.append(step)

    def epoch_ended(self, figures: EpochFigures) -> None:
        self.epochs.append(figures)

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]


def here() -> Place:
    return Place(torch.device("cpu"))


def run(
    graph: Graph, recipe: Recipe, place: Place | None = None, resume: Any = None
) -> tuple[Outcome, Noting, Kept]:
    """A whole run."""
    place = place or here()
    noting, kept = Noting(), Kept()
    made: Plan = plan(graph, recipe, place=place)
    with joined(place) if place.world == 1 else nullcontext():
        return train(made, kept, noting, resume=resume), noting, kept


# ------------------------------------------------------------------------------ several processes


def together(world: int, result: Path, *scenarios: str) -> dict[str, Any]:
    """What scenarios give in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
    }
    root = str(Path(__file__).resolve().parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.runs", str(result), *scenarios],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    failures = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(failures)
    found: dict[str, Any] = torch.load(result, weights_only=True)
    return found


def _plain(place: Place) -> dict[str, Any]:
    outcome, noting, _ = run(load("lenet5").graph, PLAIN, place)
    return {
        "losses": noting.losses,
        "weights": dict(outcome.weights),
        "held_out": dict(outcome.history[-1].held_out),
        "top1": outcome.history[-1].train_top1,
    }


def _parts(place: Place) -> dict[str, Any]:
    outcome, noting, _ = run(load("lenet5").graph, replace(PLAIN, accumulate=3), place)
    return {"losses": noting.losses, "weights": dict(outcome.weights)}


def _resumed(place: Place) -> dict[str, Any]:
    """A run to the end, and the rest of it from every state that it kept."""
    whole, _, kept = run(small(), RICH, place)
    # Rank 0 alone has states; the others are handed nothing.
    found = []
    for number in range(0, _agreed(len(kept.states), place), 2):
        state = kept.states[number] if place.first else None
        again, _, _ = run(small(), RICH, place, resume=state)
        found.append(
            all(torch.equal(again.weights[key], each) for key, each in whole.weights.items())
        )
    return {"equal": found, "weights": dict(whole.weights)}


def _agreed(count: int, place: Place) -> int:
    holder = torch.tensor(count)
    if place.world > 1:
        torch.distributed.broadcast(holder, 0)
    return int(holder)


def _interrupted(place: Place) -> dict[str, Any]:
    """Only the last process gets a signal, at no particular step."""
    if place.rank == place.world - 1:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    noting, kept = Noting(), Kept()
    made = plan(small(), replace(RICH, epochs=10_000), place=place)
    try:
        train(made, kept, noting)
    except Interrupted as stop:
        everyone: list[Any] = [None] * place.world
        mine = (stop.exit_code, stop.epoch, stop.step)
        torch.distributed.all_gather_object(everyone, mine)
        last = [kept.states[-1]["epoch"], kept.states[-1]["step"]] if place.first else None
        return {"everyone": [list(each) for each in everyone], "last": last}
    return {}


def _counted(place: Place) -> dict[str, Any]:
    """What every process knows of samples of which each counted its share, the second none."""
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(101, 12, generator=generator)
    targets = torch.randint(12, (101,), generator=generator)
    bounds = {1: (0, 101), 2: (0, 101, 101), 3: (0, 60, 60, 101)}[place.world]
    share = slice(bounds[place.rank], bounds[place.rank + 1])
    counting = Counting(Task("y", "classes", 12), place.device, confusion=True)
    if share.stop > share.start:
        counting.add(scores[share], targets[share])
    found = counting.evaluation()
    assert found.confusion is not None
    mine = (found.samples, found.top1, found.top5, found.loss, found.confusion.tolist())
    everyone: list[Any] = [mine]
    if place.world > 1:
        everyone = [None] * place.world
        torch.distributed.all_gather_object(everyone, mine)
    return {"everyone": everyone}


_SCENARIOS = {
    "plain": _plain,
    "counted": _counted,
    "parts": _parts,
    "resumed": _resumed,
    "interrupted": _interrupted,
}


def main() -> None:
    place = find_place("cpu", threads=1)
    with joined(place):
        found = {name: _SCENARIOS[name](place) for name in sys.argv[2:]}
        if place.first:
            torch.save(found, sys.argv[1])


if __name__ == "__main__":
    main()
