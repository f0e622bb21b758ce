"""Runs that are killed at any instant, resumed and killed again: `python -m bench.crash`.

Real runs of `cnnspec train`, of one process and of two under torchrun, with workers that read,
augmentation, dropout, batch norm, an average of weights and checkpoints within epochs. They are
killed by SIGKILL, resumed, and killed again until they come to their end, which has to be that of a
run without a break: weights and figures to the bit. Writes `bench/results/crash.md`; exits with 1
if any end differs or a restart fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench.tables import Table, markdown, show
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs.checkpoints import newest
from cnnspec.training.runs.proving_resume import (
    Training,
    below,
    compare_figures,
    compare_weights,
    kill_tree,
    started,
)

RESULTS = Path(__file__).parent / "results"
_WEIGHTS = "model.safetensors"
_LONGEST_WRITE = 0.05
"""Seconds after the first byte of a checkpoint within which a run is killed."""

SPEC = """\
cnnspec: 1
name: crash
inputs: {image: [1, 8, 8]}
preprocess: {resize: 8, colour: grey}
layers:
  - Conv2d: {out_channels: 16, kernel_size: 3, padding: 1, bias: false}
  - BatchNorm2d
  - ReLU
  - Flatten
  - Linear: {out_features: 1536}
  - ReLU
  - Dropout: {p: 0.3}
  - Linear: {out_features: 10}
"""

RECIPE = """\
data: {source: digits, workers: 2}
epochs: 4
batch_size: 64
optimizer: {AdamW: {lr: 2.0e-3}}
schedule: {CosineAnnealingLR: {}}
augment:
  - RandomShift: {pixels: 1}
  - RandomRotation: {degrees: 10}
  - RandomErasing: {p: 0.25}
ema: 0.99
clip: {norm: 1.0}
checkpoint: {epochs: 1, steps: 4, best: top1}
"""

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cnnspec")


@dataclass
class Tally:
    """What happened to the runs of one kind."""

    name: str
    ends: int = 0
    equal: int = 0
    kills: int = 0
    starting: int = 0
    writing: int = 0
    alone: int = 0
    within: int = 0
    behind: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Setting:
    """How the runs of one kind are started, and what one without a break took."""

    arguments: Sequence[str]
    program: Sequence[str]
    whole: Path
    first: float
    """Seconds from the start of the process to the first checkpoint."""
    length: float
    """Seconds from there to the end."""


def measured(arguments: Sequence[str], program: Sequence[str], whole: Path) -> Setting:
    """Train without a break."""
    start = time.monotonic()
    with started(arguments, whole, program=program) as run:
        while not (whole / "checkpoints" / "last.pt").exists() and run.process.poll() is None:
            time.sleep(0.01)
        first = time.monotonic() - start
        run.ended()
    return Setting(arguments, program, whole, first, time.monotonic() - start - first)


def crashed(setting: Setting, folder: Path, kills: int, random: Random, tally: Tally) -> None:
    """Kill a run again and again, at most so many times, then let it come to its end."""
    taken, before = 0, tally.kills
    for number in range(kills):
        with started(setting.arguments, folder, program=setting.program) as run:
            if not killed(run, setting, folder, number, random, tally):
                break
        found = newest(folder / "checkpoints")
        now = 0 if found is None else int(found.state["taken"])
        tally.kills += 1
        if found is not None:
            tally.within += 0 < found.state["step"] < found.state["steps"]
            if found.notes:
                tally.wrong.append(f"{folder.name}: {'; '.join(found.notes)}")
        if now < taken:
            tally.wrong.append(f"{folder.name}: step {now} after step {taken} was on the disk")
        taken = now
        print(f"  {folder.name}: kill {number + 1}, {now} steps on the disk", flush=True)
    with started(setting.arguments, folder, program=setting.program) as run:
        run.ended()
    if tally.kills == before:
        return  # It was quicker than the first instant that was drawn.
    tally.ends += 1
    different = compare_weights(setting.whole / _WEIGHTS, folder / _WEIGHTS).different
    figures = compare_figures(setting.whole / "metrics.jsonl", folder / "metrics.jsonl")
    best = Path("checkpoints") / "best.safetensors"
    different += compare_weights(setting.whole / best, folder / best).different
    if different or not figures:
        tally.wrong.append(f"{folder.name}: {different or 'figures'} differ")
    else:
        tally.equal += 1
    print(f"  {folder.name}: {'different' if different or not figures else 'equal'}", flush=True)


def killed(
    run: Training, setting: Setting, folder: Path, number: int, random: Random, tally: Tally
) -> bool:
    """Kill a run; False where it ended before."""
    kinds = ("any", "write", "any", "rank" if "--nproc-per-node" in setting.program else "write")
    chosen = kinds[number % 4]
    before = drafts(folder / "checkpoints")
    share = random.random()
    wait = share * (setting.first + setting.length / 4)
    if chosen == "rank":
        wait = setting.first + share * setting.length / 4
    elif chosen == "write":
        wait = random.random() * _LONGEST_WRITE
        await_draft(run, folder / "checkpoints", random.randint(1, 6))
    begun = time.monotonic()
    while time.monotonic() - begun < wait and run.process.poll() is None:
        time.sleep(0.001)
    if run.process.poll() is not None:
        run.ended()
        return False
    if chosen == "rank":
        # torchrun sees it, and ends the others.
        alone(run, random)
        tally.alone += 1
    else:
        kill_tree(run.process.pid)
        run.process.wait()
    if (folder / _WEIGHTS).exists():
        return False
    tally.starting += wait < setting.first and chosen == "any"
    tally.writing += bool(drafts(folder / "checkpoints") - before)
    return True


def await_draft(run: Training, folder: Path, which: int) -> None:
    """Wait until a run begins to write its first, second, ... checkpoint, or ends."""
    seen = drafts(folder)
    left = len(seen) + which
    while len(seen) < left and run.process.poll() is None:
        seen |= drafts(folder)
        time.sleep(0.0005)


def drafts(folder: Path) -> set[str]:
    """What is being written in a folder, or was when its writer was killed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.name.endswith(".tmp")}
    except FileNotFoundError:
        return set()


def alone(run: Training, random: Random) -> None:
    """Kill one process of several, and wait until all are gone."""
    family = below(run.process.pid)
    if family:
        os.kill(random.choice(family), signal.SIGKILL)
    try:
        run.process.wait(60)
    except subprocess.TimeoutExpired:
        # It was one that reads samples: whoever waits for it says so, or it was not needed.
        kill_tree(run.process.pid)
        run.process.wait()


def campaign(
    name: str, program: Sequence[str], kills: int, folder: Path, random: Random
) -> tuple[Tally, Setting]:
    """So many kills of runs of one kind."""
    spec, recipe = folder / "crash.yaml", folder / "recipe.yaml"
    spec.write_text(SPEC, encoding="utf-8")
    recipe.write_text(RECIPE, encoding="utf-8")
    arguments = [str(spec), "--recipe", str(recipe), "--threads", "1"]
    tally = Tally(name)
    setting = measured(arguments, program, folder / "whole")
    print(f"{name}: {setting.first:.1f} s to a checkpoint, {setting.length:.1f} s more", flush=True)
    number = 0
    while tally.kills < kills:
        number += 1
        place = folder / f"broken-{number}"
        try:
            crashed(setting, place, min(kills - tally.kills, 12), random, tally)
        except EnvironmentFailure as failure:
            tally.wrong.append(f"{place.name}: {failure.message}")
            break
    return tally, setting


def page(tallies: Sequence[Tally], arguments: str, seconds: float) -> tuple[Table, str]:
    """The figures as a table and as Markdown."""
    from torch import __version__ as torch

    table = Table("What was killed, and what came of it", ("what", *(t.name for t in tallies)))
    for what, key in (
        ("kills by SIGKILL", "kills"),
        ("of these while the program started, or about to", "starting"),
        ("in the middle of writing a checkpoint", "writing"),
        ("of one process alone, of those that torchrun watches", "alone"),
        ("resumed within an epoch", "within"),
        ("runs that were killed and came to their end", "ends"),
        ("weights, best weights and figures equal to the bit", "equal"),
    ):
        table.rows.append((what, *(f"{getattr(tally, key)}" for tally in tallies)))
    wrong = [f"- {tally.name}: {line}" for tally in tallies for line in tally.wrong]
    text = (
        "# Runs killed at any instant\n\n"
        f"Written by `python -m bench.crash{arguments}`; `bench/README.md` says what is done. "
        f"torch {torch}, {os.cpu_count()} cores, {seconds:,.0f} s. "
        f"{'Nothing went wrong.' if not wrong else 'What went wrong is below.'}\n\n"
        + markdown([table])
    )
    return table, text + ("\n" + "\n".join(wrong) + "\n" if wrong else "")


def main() -> int:
    """Run both kinds, print and write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = Random(options.seed)
    begun = time.monotonic()
    tallies = []
    with TemporaryDirectory(prefix="cnnspec-crash-") as name:
        for kind, program, kills in (
            ("one process", ("-m", "cnnspec"), options.kills - options.kills // 2),
            ("two processes", TORCHRUN, options.kills // 2),
        ):
            folder = Path(name) / kind.split()[0]
            folder.mkdir()
            tally, _ = campaign(kind, program, kills, folder, random)
            tallies.append(tally)
    given = "".join(f" {word}" for word in sys.argv[1:])
    table, text = page(tallies, given, time.monotonic() - begun)
    show([table])
    for tally in tallies:
        for line in tally.wrong:
            print(f"{tally.name}: {line}")
    (RESULTS / "crash.md").write_text(text, encoding="utf-8")
    return int(any(tally.wrong for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
