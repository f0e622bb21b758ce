"""Training by `cnnspec train` beside a bare loop of plain PyTorch: images a second, in turn.

Both train the same architecture on the same synthetic images, in one process; the bare loop has
torchvision's module and nothing but what a step needs. `python -m bench.train` writes
`bench/results/train.md` and `.json`; `--quick` is a smoke test that writes nothing. On a GPU:
`--device cuda --network resnet50 --size 224 --batch 256 --precision bfloat16 --channels-last
--peak 989` and the same with `--compile`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cnnspec
from bench import tables
from bench.tables import Table
from bench.tools import import_torchvision
from cnnspec.training import engine, planning
from cnnspec.training.keeping import NoKeeper
from cnnspec.training.places import find_place, joined
from cnnspec.training.recipe.model import Call, Data, Recipe
from cnnspec.training.watching import Silent, Stepped

RESULTS = Path(__file__).parent / "results"
CLASSES = 1000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BAR = 0.98
_FLOPS_OF_TRAINING = 6
"""Floating-point operations of a step by multiply-accumulate of inference: forward and both halves
of backward, 2 each."""


class Clock(Silent):
    """Notes when steps end, on the device too."""

    def __init__(self, device: torch.device, first: int) -> None:
        self._device, self._first = device, first
        self.marks: list[float] = []

    def stepped(self, step: Stepped) -> None:
        """Read the clock behind the steps that warm up, and behind the last."""
        if step.step in (self._first, step.steps):
            _wait(self._device)
            self.marks.append(perf_counter())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _recipe(options: argparse.Namespace, data: Data) -> Recipe:
    return Recipe(
        name="bench",
        data=data,
        epochs=1,
        batch_size=options.batch,
        optimizer=Call("SGD", {"lr": 1e-3, "momentum": 0.9}),
        precision=options.precision,
        channels_last=options.channels_last,
        compile=options.compile,
        device=options.device,
    )


def _ours(options: argparse.Namespace, recipe: Recipe, classes: int = CLASSES) -> float:
    """Images a second of the engine."""
    inputs, params = {"image": (3, options.size, options.size)}, {"classes": classes}
    graph = cnnspec.load(options.network, inputs=inputs, params=params).graph
    place = find_place(options.device, threads=options.threads)
    with joined(place):
        plan = planning.plan(graph, recipe, place=place)
        clock = Clock(place.device, options.warm_up)
        engine.train(plan, NoKeeper(), clock)
    began, ended = clock.marks
    return (plan.steps - options.warm_up) * options.batch / (ended - began)


# ------------------------------------------------------------------------------- the bare loop


def _bare(options: argparse.Namespace, images: Tensor, targets: Tensor) -> float:
    """Images a second of a loop as people write it, with torchvision's module."""
    device = torch.device(options.device)
    module = _torchvision(options, device)
    forward: Callable[[Tensor], Tensor] = torch.compile(module) if options.compile else module
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9)
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (MEAN, STD))
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(options.precision)
    order = torch.randperm(len(images))
    began = 0.0
    steps = len(images) // options.batch
    for step, chosen in enumerate(order.split(options.batch)):
        if step == options.warm_up:
            _wait(device)
            began = perf_counter()
        given = images[chosen].to(device, non_blocking=True)
        wanted = targets[chosen].to(device, non_blocking=True)
        given = ((given.float() / 255 - mean) / std).contiguous(memory_format=layout)
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            scores = forward(given)
        loss = cross_entropy(scores.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    _wait(device)
    return (steps - options.warm_up) * options.batch / (perf_counter() - began)


def _torchvision(options: argparse.Namespace, device: torch.device) -> nn.Module:
    import_torchvision()
    import torchvision

    module: nn.Module = torchvision.models.get_model(options.network, weights=None).to(device)
    if options.channels_last:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module.train()


# --------------------------------------------------------------------------------- from a disk


def _photos(folder: Path, count: int) -> None:
    """JPEG files of 320x320 in two classes, smooth as photographs are: they cost as much."""
    from PIL import Image

    made = torch.Generator().manual_seed(0)
    for number in range(count):
        place = folder / f"class{number % 2}" / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        coarse = (torch.rand(20, 20, 3, generator=made) * 255).to(torch.uint8).numpy()
        Image.fromarray(coarse).resize((320, 320), Image.Resampling.BICUBIC).save(place, quality=90)


# ------------------------------------------------------------------------------------- the table


def _table(options: argparse.Namespace, ours: Sequence[float], bare: Sequence[float]) -> Table:
    table = Table(
        "Images a second",
        ("what", "cnnspec", "bare loop", "ratio", "bar", "met"),
        note="Medians; the ratio is that of each round, with its quartiles. The bar is met where "
        "the median or the upper quartile reaches it.",
    )
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    met = middle >= BAR or high >= BAR
    name = f"{options.network}, {options.batch} of 3x{options.size}x{options.size}"
    table.rows.append(
        (
            f"{name}, {options.precision}" + (", compiled" if options.compile else ""),
            f"{median(ours):,.1f}",
            f"{median(bare):,.1f}",
            f"{middle:.3f} ({low:.3f} to {high:.3f})",
            f"{BAR}",
            "yes" if met else "no",
        )
    )
    return table


def _reading(from_memory: float, from_disk: Sequence[float]) -> Table:
    table = Table(
        "Reading images",
        ("what", "images a second", "of those from memory"),
        note="JPEG files of 320x320, cut by RandomResizedCrop in worker processes. Where there "
        "are as many cores as workers, what they take is missing in the loop.",
    )
    table.rows.append(("from memory", f"{from_memory:,.1f}", "1"))
    found = median(from_disk)
    table.rows.append(("JPEG files", f"{found:,.1f}", f"{found / from_memory:.2f}"))
    return table


def main() -> int:
    """Measure, print, write; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything; write nothing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=25, help="of a round, warm-up included")
    parser.add_argument("--warm-up", type=int, default=5, help="steps that are not counted")
    parser.add_argument("--network", default="resnet18", help="one that torchvision has too")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card in that precision")
    parser.add_argument("--no-files", action="store_true", help="leave JPEG files out")
    parser.add_argument("-o", "--output", default="train", help="name in bench/results")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.warm_up, options.size = 1, 6, 2, 64
    count = options.steps * options.batch
    data = Data(source="random", samples=count, hold_out=0.0, workers=0)
    recipe = _recipe(options, data)
    made = torch.Generator().manual_seed(0)
    images = torch.randint(
        256, (count, 3, options.size, options.size), dtype=torch.uint8, generator=made
    )
    targets = torch.randint(CLASSES, (count,), generator=made)
    load = os.getloadavg()[0]
    ours: list[float] = []
    bare: list[float] = []
    for number in range(options.rounds):
        # Who comes first in a round finds another machine than who comes second: they take turns.
        if number % 2:
            bare.append(_bare(options, images, targets))
            ours.append(_ours(options, recipe))
        else:
            ours.append(_ours(options, recipe))
            bare.append(_bare(options, images, targets))
        print(f"round {number + 1}: {ours[-1]:,.1f} and {bare[-1]:,.1f} a second", file=sys.stderr)
    table = _table(options, ours, bare)
    found = [table]
    if options.peak:
        macs = cnnspec.load(options.network).analyze().totals.macs
        share = median(ours) * macs * _FLOPS_OF_TRAINING / (options.peak * 1e12)
        table.note += f" {share:.1%} of the card's {options.peak:g} TFLOP/s."
    if not options.no_files:
        with tempfile.TemporaryDirectory() as folder:
            _photos(Path(folder), count)
            from_disk = [_from_files(options, folder) for _ in range(min(options.rounds, 3))]
        found.append(_reading(median(ours), from_disk))
    tables.show(found)
    if not options.quick:
        _write(options, found, {"cnnspec": ours, "bare": bare}, load)
    return 0 if table.rows[0][-1] == "yes" else 1


def _from_files(options: argparse.Namespace, folder: str) -> float:
    """Images a second where they are files."""
    data = Data(source="images", path=folder, hold_out=0.0, workers=os.cpu_count())
    augment = (Call("RandomResizedCrop", {"size": options.size}), Call("RandomHorizontalFlip"))
    return _ours(options, replace(_recipe(options, data), augment=augment), classes=2)


def _write(
    options: argparse.Namespace, found: Sequence[Table], figures: dict[str, Any], load: float
) -> None:
    RESULTS.mkdir(exist_ok=True)
    versions = {"cnnspec": cnnspec.__version__, "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "torchvision")
    }
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    about = {
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {card}",
        "rounds": options.rounds,
        "steps": options.steps,
        "load_average": round(load, 1),
    }
    (RESULTS / f"{options.output}.json").write_text(
        json.dumps({**about, "images_per_second": figures}, indent=1) + "\n", encoding="utf-8"
    )
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    (RESULTS / f"{options.output}.md").write_text(
        "# Training beside a bare loop\n\nWritten by `python -m bench.train`; `bench/README.md` "
        f"says how it is measured.\n{said}; {about['system']}, {options.rounds} rounds of "
        f"{options.steps} steps, load average {load:.1f} before.\n\n" + tables.markdown(found),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
