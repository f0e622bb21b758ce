"""The proof that a run which was killed ends as one that was not: both are made, and compared.

Runs are processes of the command line, killed by SIGKILL, which no code of theirs can see coming.
How a run is resumed may not enter, nor torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from json import loads
from math import prod
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from cnnspec.diagnostics import EnvironmentFailure, listed, quantity

__all__ = [
    "Compared",
    "Kill",
    "Training",
    "Verdict",
    "below",
    "compare_figures",
    "compare_weights",
    "kill_tree",
    "prove_resume",
    "started",
]

_WEIGHTS: Final = "model.safetensors"
_LAST: Final = "checkpoints/last.pt"
_METRICS: Final = "metrics.jsonl"
_TIMES: Final = ("samples_per_second", "seconds", "memory")
"""Columns of figures that no two runs have in common."""

_POLL: Final = 0.02
_ATTEMPTS: Final = 5
_GONE: Final = 30.0
"""Seconds in which processes that were killed are gone."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two files of weights: numbers and tensors in them, and the names of tensors that differ."""

    tensors: int
    elements: int
    different: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """A run was killed so many `seconds` behind its first checkpoint since it was started.

    It went on from `epoch` and `step`, which count from 1.
    """

    seconds: float
    epoch: int
    step: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a proof. `figures` says whether those of all epochs are equal but for times."""

    kills: tuple[Kill, ...]
    weights: Compared
    figures: bool

    @property
    def equal(self) -> bool:
        """Whether the run that was killed ended as the other one."""
        return bool(self.kills) and not self.weights.different and self.figures

    def lines(self) -> Iterator[str]:
        """The verdict in words."""
        for kill in self.kills:
            yield (
                f"killed {kill.seconds:.1f} s behind a first checkpoint, went on from epoch "
                f"{kill.epoch}, step {kill.step}"
            )
        if not self.kills:
            yield "the run ended before it could be killed: nothing is proved"
        found = self.weights
        if found.different:
            several = quantity(found.tensors, "tensor")
            yield (
                f"the final weights differ, in {len(found.different)} of {several}: "
                f"{listed(found.different[:5])}"
            )
        else:
            yield (
                f"the final weights are equal to the bit: {found.elements:,} numbers in "
                f"{quantity(found.tensors, 'tensor')}"
            )
        yield f"the figures of the epochs are {'equal' if self.figures else 'different'}"


def prove_resume(
    arguments: Sequence[str],
    *,
    kills: int = 1,
    seed: int | None = None,
    said: Callable[[str], None] = lambda message: None,
) -> Verdict:
    """Train twice, once without a break and once killed and resumed so many times, and compare.

    `arguments` are those of `cnnspec train`, without `-o` and `--resume`; what runs leave is
    removed. Instants are drawn from all the time between the first checkpoint and the last, by
    `seed` where it is given. `said` gets a line for each thing done.

    Raises `EnvironmentFailure` where a run fails by itself, with its own words.
    """
    if not hasattr(signal, "SIGKILL"):
        raise EnvironmentFailure("a run can only be killed on systems with SIGKILL")
    random = Random(seed)
    with TemporaryDirectory(prefix="cnnspec-") as name:
        folder = Path(name)
        whole, broken = folder / "whole", folder / "broken"
        with started(arguments, whole) as run:
            begun = time.monotonic()
            run.stored()
            stored = time.time()
            run.ended()
            ended = time.monotonic()
        length = max((whole / _LAST).stat().st_mtime - stored, 0.0)
        said(f"trained without a break, in {ended - begun:.1f} s")
        found: list[Kill] = []
        for _ in range(kills):
            kill = _killed(arguments, broken, length, random)
            if kill is None:
                break
            found.append(kill)
            said(f"killed another run {kill.seconds:.1f} s behind its first checkpoint")
        with started(arguments, broken) as run:
            run.ended()
        said("resumed it, to its end")
        return Verdict(
            tuple(found),
            compare_weights(whole / _WEIGHTS, broken / _WEIGHTS),
            compare_figures(whole / _METRICS, broken / _METRICS),
        )


def _killed(arguments: Sequence[str], folder: Path, length: float, random: Random) -> Kill | None:
    """Go on with the run in a folder and kill it; None where it came to its end each time."""
    if (folder / _WEIGHTS).exists():
        return None
    fresh = not folder.exists()
    for attempt in range(_ATTEMPTS):
        with started(arguments, folder) as run:
            run.stored()
            after = random.random() * length / 2**attempt
            if run.killed_after(after) and not (folder / _WEIGHTS).exists():
                return _standing(folder, after)
        if not fresh:
            break  # it was killed before, which is a proof too
        # It was quicker than the first one: begin again, and be quicker too.
        _remove(folder)
    return None


def _standing(folder: Path, seconds: float) -> Kill:
    from cnnspec.training.runs.checkpoints import newest

    found = newest(folder / "checkpoints")
    if found is None:
        raise EnvironmentFailure("the run that was killed lost its checkpoint")
    return Kill(seconds, found.state["epoch"] + 1, found.state["step"] + 1)


def _changed(path: Path) -> int | None:
    """When a file was last written, or None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _remove(folder: Path) -> None:
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------ runs


class Training:
    """A run of `cnnspec train` in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, errors: Path) -> None:
        self.process = process
        self._folder = folder
        self._errors = errors
        self._before = _changed(folder / _LAST)

    def stored(self) -> None:
        """Wait until it has stored a state, or ends. Raises `EnvironmentFailure` if it fails."""
        while _changed(self._folder / _LAST) == self._before:
            if self.process.poll() is not None:
                self.ended()
                return
            time.sleep(_POLL)

    def ended(self) -> None:
        """Wait until training is over. Raises `EnvironmentFailure` if it fails."""
        code = self.process.wait()
        if code:
            raise EnvironmentFailure(f"the run ended with code {code}: {self._said()}")

    def killed_after(self, seconds: float) -> bool:
        """Kill it after so many seconds; whether it was still training. Raises as `ended`."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and self.process.poll() is None:
            time.sleep(min(_POLL, left))
        if self.process.poll() is None:
            kill_tree(self.process.pid)
            if self.process.wait() == -signal.SIGKILL:
                return True
        self.ended()
        return False

    def _said(self) -> str:
        """What the run said went wrong."""
        lines = self._errors.read_text("utf-8", "replace").splitlines()
        for line in lines:
            if line.startswith("error"):
                return line.partition(": ")[2]
        return lines[-1] if lines else "it did not say why"


@contextmanager
def started(
    arguments: Sequence[str],
    folder: Path,
    *,
    program: Sequence[str] = ("-m", "cnnspec"),
) -> Iterator[Training]:
    """A run in `folder`, begun or resumed, as long as the block lasts. Its output is not shown.

    `program` is what Python runs `train` of.
    """
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",
    }
    given = [*program, "train", *arguments, "-o", os.fspath(folder), "--resume"]
    with TemporaryDirectory(prefix="cnnspec-") as place:
        said = Path(place) / "errors"
        with said.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, *given],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        try:
            yield Training(process, folder, said)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()


def kill_tree(root: int) -> None:
    """SIGKILL a process and all that it started, and wait until those are gone.

    The process itself is left to the one that started it, to be waited for.
    """
    family = [root, *below(root)]
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    end = time.monotonic() + _GONE
    while time.monotonic() < end and any(process in family[1:] for process in _parents()):
        time.sleep(_POLL)


def below(root: int) -> list[int]:
    """All descendants of a process, parents first."""
    parents = _parents()
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def _parents() -> dict[int, int]:
    """The parent of every process that is alive; one that waits to be counted as dead is not."""
    rows = _from_proc() if Path("/proc/self/stat").exists() else _from_ps()
    return {process: parent for process, parent, state in rows if not state.startswith("Z")}


def _from_proc() -> Iterator[tuple[int, int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name stands in parentheses and may hold anything.
                rest = (entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                yield int(entry.name), int(rest[1]), rest[0]


def _from_ps() -> Iterator[tuple[int, int, str]]:
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        process, parent, state = line.split()
        yield int(process), int(parent), state


# ------------------------------------------------------------------------------------ comparison


def compare_weights(one: Path, other: Path) -> Compared:
    """Compare two `.safetensors` files bit by bit: names, types, shapes, contents."""
    left, right = _tensors(one), _tensors(other)
    names = sorted({*left, *right})
    different = tuple(name for name in names if left.get(name) != right.get(name))
    return Compared(len(names), sum(prod(shape) for _, shape, _ in left.values()), different)


def _tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of all tensors. A file begins with the size of a table of contents."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, about in loads(data[8:start]).items():
        if name != "__metadata__":
            begin, end = about["data_offsets"]
            content = data[start + begin : start + end]
            found[name] = (about["dtype"], tuple(about["shape"]), content)
    return found


def compare_figures(one: Path, other: Path) -> bool:
    """Whether the figures of all epochs are equal, but for times and memory."""

    def rows(path: Path) -> list[dict[str, object]]:
        read = [loads(line) for line in path.read_text("utf-8").splitlines()]
        return [{k: v for k, v in row.items() if k not in _TIMES} for row in read]

    return rows(one) == rows(other)
