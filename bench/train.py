"""Training by `cnnspec train` beside a bare loop of plain PyTorch, step by step in turn.

Both train the same architecture on images of noise that lie in memory as bytes, in one process; the
bare loop has torchvision's module and nothing but what a step needs. `python -m bench.train` writes
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import NamedTuple
from unittest import mock

import torch

import cnnspec
from bench import tables
from bench.bare_loop import LENET, bare_steps
from bench.tables import Table
from cnnspec.ir import Graph
from cnnspec.training import engine, planning
from cnnspec.training.checkpointer import NoCheckpointer
from cnnspec.training.data import loading
from cnnspec.training.data.samples import Batch
from cnnspec.training.distribution.place import find_place, joined
from cnnspec.training.recipe.model import Call, Data, Recipe
from cnnspec.training.watching import Silent, Stepped

RESULTS = Path(__file__).parent / "results"
BAR = 0.98
_CLASSES = 1000
_PHOTOS = 64
"""Different JPEG files; the others are copies."""
_FLOPS_OF_TRAINING = 6
"""Floating-point operations of a step by multiply-accumulate of inference: forward and both halves
of backward, 2 each."""


class Time(NamedTuple):
    """Seconds by the clock, and of processors."""

    wall: float
    cpu: float


class Watch:
    """Measures the time since it was started, with what the device had to do in it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._began = self._now()

    def start(self) -> None:
        """From here."""
        self._began = self._now()

    def stop(self) -> Time:
        """To here."""
        wall, cpu = self._now()
        return Time(wall - self._began.wall, cpu - self._began.cpu)

    def _now(self) -> Time:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return Time(perf_counter(), process_time())


# ------------------------------------------------------------------------------ in memory, in turn


class Turns(Silent):
    """Behind so many steps of the engine, lets the bare loop take as many, and times both."""

    def __init__(self, options: argparse.Namespace, bare: Iterator[None]) -> None:
        self._bare, self._steps, self._warm_up = bare, options.turn, options.warm_up
        self._watch = Watch(torch.device(options.device))
        self.ours: list[Time] = []
        self.bare: list[Time] = []

    def stepped(self, step: Stepped) -> None:
        """Between two turns the watch is not running, and the device has nothing to do."""
        if step.step % self._steps:
            return
        ours = self._watch.stop()
        with _ordinary(self._watch.device):
            self._watch.start()
            for _ in range(self._steps):
                next(self._bare)
            bare = self._watch.stop()
        if step.step > self._warm_up:
            self.ours.append(ours)
            self.bare.append(bare)
        self._watch.start()


@contextmanager
def _ordinary(device: torch.device) -> Iterator[None]:
    """Kernels as torch chooses them: the engine's are to compute the same twice."""
    if device.type != "cuda":
        yield
        return
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    yield
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _beside(options: argparse.Namespace) -> Turns:
    """The times of all rounds."""
    graph = _graph(options)
    classes = graph.tensors[graph.outputs[0].value].shape[0]
    recipe = _recipe(options)
    found = Turns(options, iter(()))
    for number in range(options.rounds):
        turns = Turns(options, bare_steps(options, classes))
        _train(options, graph, recipe, turns)
        found.ours += turns.ours
        found.bare += turns.bare
        print(f"{options.network}, round {number + 1}", file=sys.stderr)
    return found


def _graph(options: argparse.Namespace, classes: int = _CLASSES) -> Graph:
    if options.network == LENET:
        return cnnspec.load(LENET).graph
    inputs = {"image": (3, options.size, options.size)}
    return cnnspec.load(options.network, inputs=inputs, params={"classes": classes}).graph


def _recipe(options: argparse.Namespace) -> Recipe:
    count = options.steps * options.batch
    return Recipe(
        name="bench",
        data=Data(source="random", samples=count, hold_out=0.0, workers=0),
        epochs=1,
        batch_size=options.batch,
        optimizer=Call("SGD", {"lr": 1e-3, "momentum": 0.9}),
        precision=options.precision,
        channels_last=options.channels_last,
        compile=options.compile,
        device=options.device,
    )


def _train(options: argparse.Namespace, graph: Graph, recipe: Recipe, watcher: Silent) -> None:
    place = find_place(options.device, threads=options.threads)
    # However many images there are, both sides have them in memory.
    with joined(place), mock.patch.object(loading, "MOST_KEPT", sys.maxsize):
        engine.train(planning.plan(graph, recipe, place=place), NoCheckpointer(), watcher)


# -------------------------------------------------------------------------------------- from files


class Waiting(loading.Loader):
    """A loader that measures for how long it is waited for."""

    seconds: list[float] = []  # noqa: RUF012  # of the latest one: the engine makes it

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """As ever."""
        batches = super().epoch(epoch, first_step)
        Waiting.seconds = []
        while True:
            began = perf_counter()
            batch = next(batches, None)
            Waiting.seconds.append(perf_counter() - began)
            if batch is None:
                return
            yield batch


class Whole(Silent):
    """Measures all steps behind those that warm up."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._watch, self._warm_up = Watch(torch.device(options.device)), options.warm_up
        self.seconds = 0.0

    def stepped(self, step: Stepped) -> None:
        """At the first that counts, and at the last."""
        if step.step == self._warm_up:
            self._watch.start()
        if step.step == step.steps:
            self.seconds = self._watch.stop().wall


class Rate(NamedTuple):
    """Images a second, and the share of the time in which the loop waited for them."""

    images: float
    waited: float


def _rate(options: argparse.Namespace, graph: Graph, recipe: Recipe) -> Rate:
    whole = Whole(options)
    with mock.patch.object(engine, "Loader", Waiting):
        _train(options, graph, recipe, whole)
    steps = options.steps - options.warm_up
    waited = sum(Waiting.seconds[options.warm_up : options.steps])
    return Rate(steps * options.batch / whole.seconds, waited / whole.seconds)


def _reading(options: argparse.Namespace) -> Table:
    table = Table(
        "Reading images",
        ("images", "a second", "of those from memory", "waited for them"),
        note=f"{_name(options)}. JPEG files of 320x320 are decoded and cut by RandomResizedCrop in "
        "worker processes. The last column is the share of the time in which the loop waited for "
        "images. Where the workers' processors are also those that compute, what decoding takes "
        "shows in the rate instead.",
    )
    recipe = _recipe(options)
    rounds = min(options.rounds, 3)
    with tempfile.TemporaryDirectory() as folder:
        _photos(Path(folder), options.steps * options.batch)
        files = replace(
            recipe,
            data=Data(source="images", path=folder, hold_out=0.0),
            augment=(Call("RandomResizedCrop", {"size": options.size}),),
        )
        graph = _graph(options, classes=2)
        pairs = [
            tuple(_rate(options, graph, each) for each in (recipe, files)) for _ in range(rounds)
        ]
    memory = median(pair[0].images for pair in pairs)
    for place, name in enumerate(("in memory", "JPEG files")):
        images = median(pair[place].images for pair in pairs)
        waited = median(pair[place].waited for pair in pairs)
        table.rows.append((name, f"{images:,.1f}", f"{images / memory:.2f}", f"{waited:.1%}"))
    return table


def _photos(folder: Path, count: int) -> None:
    """JPEG files of 320x320 in two classes, smooth as photographs are: they cost as much."""
    from PIL import Image

    made = torch.Generator().manual_seed(0)
    for number in range(count):
        place = folder / f"class{number % 2}" / f"{number}.jpg"
        place.parent.mkdir(exist_ok=True)
        if number >= _PHOTOS:
            first = number % _PHOTOS
            place.write_bytes((folder / f"class{first % 2}" / f"{first}.jpg").read_bytes())
            continue
        coarse = (torch.rand(20, 20, 3, generator=made) * 255).to(torch.uint8).numpy()
        Image.fromarray(coarse).resize((320, 320), Image.Resampling.BICUBIC).save(place, quality=90)


# -------------------------------------------------------------------------------------- the tables


def _name(options: argparse.Namespace) -> str:
    channels = 1 if options.network == LENET else 3
    name = f"{options.network}, {options.batch} of {channels}x{options.size}x{options.size}"
    return f"{name}, {options.precision}" + (", compiled" if options.compile else "")


def _row(options: argparse.Namespace, turns: Turns, bar: float | None) -> tuple[str, ...]:
    """One network's figures; the bar is one of wall time."""
    pairs = list(zip(turns.ours, turns.bare, strict=True))
    wall = [bare.wall / ours.wall for ours, bare in pairs]
    cpu = [bare.cpu / ours.cpu for ours, bare in pairs]
    images = options.turn * options.batch
    return (
        _name(options),
        f"{images / median(each.wall for each in turns.ours):,.1f}",
        f"{images / median(each.wall for each in turns.bare):,.1f}",
        _spread(wall),
        _spread(cpu),
        "" if bar is None else f"{bar}",
        "" if bar is None else _met(options, wall, cpu, bar),
    )


def _met(
    options: argparse.Namespace, wall: Sequence[float], cpu: Sequence[float], bar: float
) -> str:
    if median(wall) >= bar:
        return "yes"
    on_cpu = options.device == "cpu"
    return "by processor time" if on_cpu and median(cpu) >= bar else "no"


def _spread(ratios: Sequence[float]) -> str:
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def _share(options: argparse.Namespace, turns: Turns) -> str:
    """How much of what a card is said to do was done."""
    macs = _graph(options).analyze().totals.macs
    rate = options.turn * options.batch / median(each.wall for each in turns.ours)
    share = rate * macs * _FLOPS_OF_TRAINING / (options.peak * 1e12)
    return f" {share:.1%} of the card's {options.peak:g} TFLOP/s."


def main() -> int:
    """Measure, print, write; 1 if the bar is missed."""
    options = _options()
    load = os.getloadavg()[0]
    table = Table(
        "Images a second",
        ("what", "cnnspec", "bare loop", "ratio", "of processor time", "bar", "met"),
        note="Medians of turns. A ratio is that of the time of a turn of the bare loop to the turn "
        "of cnnspec before it: the median, with the quartiles.",
    )
    turns = _beside(options)
    table.rows.append(_row(options, turns, BAR))
    if options.peak:
        table.note += _share(options, turns)
    found = [table]
    figures = {options.network: turns}
    if options.small:
        small = argparse.Namespace(**vars(options))
        small.network, small.size, small.batch, small.steps = LENET, 32, 64, 10 * options.steps
        figures[LENET] = _beside(small)
        table.rows.append(_row(small, figures[LENET], None))
    if options.files:
        found.append(_reading(options))
    tables.show(found)
    if not options.quick:
        _write(options, found, figures, load)
    return 1 if table.rows[0][-1] == "no" else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything; write nothing")
    parser.add_argument("--rounds", type=int, default=3, help="runs of the engine")
    parser.add_argument("--steps", type=int, default=25, help="of a round, warm-up included")
    parser.add_argument("--warm-up", type=int, default=5, help="steps that are not counted")
    parser.add_argument(
        "--turn", type=int, help="steps until the other side has its turn (1; 5 on a GPU)"
    )
    parser.add_argument("--network", default="resnet18", help="one that torchvision has too")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="that torch computes with")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card in that precision")
    parser.add_argument("--no-small", dest="small", action="store_false", help="leave LeNet-5 out")
    parser.add_argument("--no-files", dest="files", action="store_false", help="leave files out")
    parser.add_argument("-o", "--output", default="train", help="name in bench/results")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.warm_up, options.size = 1, 10, 2, 64
    if options.turn is None:
        options.turn = 1 if options.device == "cpu" else 5
    return options


def _write(
    options: argparse.Namespace, found: Iterable[Table], figures: dict[str, Turns], load: float
) -> None:
    RESULTS.mkdir(exist_ok=True)
    versions = {"cnnspec": cnnspec.__version__, "python": platform.python_version()} | {
        name: version(name) for name in ("torch", "torchvision")
    }
    card = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    about = {
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {card}",
        "threads": options.threads,
        "rounds": options.rounds,
        "steps": options.steps,
        "load_average": round(load, 1),
    }
    seconds = {
        name: {
            side: [(round(each.wall, 5), round(each.cpu, 5)) for each in times]
            for side, times in (("cnnspec", turns.ours), ("bare", turns.bare))
        }
        for name, turns in figures.items()
    }
    (RESULTS / f"{options.output}.json").write_text(
        json.dumps({**about, "wall_and_processor_seconds_of_turns": seconds}) + "\n",
        encoding="utf-8",
    )
    said = ", ".join(f"{name} {number}" for name, number in versions.items())
    threads = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    (RESULTS / f"{options.output}.md").write_text(
        "# Training beside a bare loop\n\nWritten by `python -m bench.train`; `bench/README.md` "
        f"says how it is measured.\n{said}; {about['system']}, {threads}, {options.rounds} rounds "
        f"of {options.steps} steps, load average {load:.1f} before.\n\n" + tables.markdown(found),
        encoding="utf-8",
    )


if __name__ == "__main__":
    sys.exit(main())
