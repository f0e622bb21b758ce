"""What a terminal shows while a network trains: a bar, a row for each epoch, lines in a pipe.

A timer shows the last steps a few times a second, so that training never waits for a terminal. What
the figures mean and how they come about may not enter.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report.numbers import binary_size
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from cnnspec.training.watching import EpochFigures, Stepped

__all__ = ["TrainingView", "clock", "share", "value"]

_TICK = 0.25
_QUIET = 10.0
"""Seconds without a line after which a pipe is told how far an epoch is."""
_RECENT = 32
"""Steps whose mean is shown."""
_WINDOW = 10.0
"""Seconds that the rate is of."""
_BAR = 12
"""Columns that the bar has at least; figures are left out for it."""

_NAMES = {"loss": "loss", "top1": "top1", "top5": "top5", "mean_iou": "mean IoU"}


def value(number: float) -> str:
    """A loss: four decimals, or as many digits."""
    return f"{number:.4f}" if abs(number) < 1000 or not math.isfinite(number) else f"{number:.4g}"


def share(part: float) -> str:
    """A fraction of 1 as people read it: `98.61%`."""
    return f"{100 * part:.2f}%"


def clock(seconds: float) -> str:
    """A time: `0.8 s`, `12 s`, `3:05`, `1:02:03`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class TrainingView:
    """A watcher that shows a run on a terminal, a context manager.

    `memory` is asked now and then for the bytes that are in use.
    """

    def __init__(self, terminal: Terminal, *, memory: Callable[[], int | None]) -> None:
        self._terminal = terminal
        self._memory = memory
        stream = terminal.stream
        self._bars = stream is not None and stream.isatty() and terminal.colour
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._end = threading.Event()
        self._timer = threading.Thread(target=self._run, name="view", daemon=True)
        self._table = _Table(terminal.width)
        self._progress: _Progress | None = None
        self._written = monotonic()

    def __enter__(self) -> TrainingView:
        if self._bars:
            from rich.console import Console
            from rich.live import Live

            console = Console(
                file=self._terminal.stream, highlight=False, markup=False, emoji=False
            )
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._timer.join()
        with self._lock:
            if self._live is not None:
                self._live.update("")
                self._live.stop()
                self._live = None

    # ------------------------------------------------------------------------ what a run tells

    def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
        """Begin a bar."""
        with self._lock:
            began = self._progress.began if self._progress is not None else monotonic()
            taken = self._progress.taken if self._progress is not None else 0
            self._progress = _Progress(epoch, epochs, steps, first, began, taken)

    def stepped(self, step: Stepped) -> None:
        """Note a step, without looking at it."""
        if self._progress is not None:
            self._progress.note(step)

    def evaluating(self, done: int, whole: int) -> None:
        """Note how many held-out samples are through."""
        if self._progress is not None:
            self._progress.held_out = done, whole

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Show the row of an epoch."""
        with self._lock:
            self._write(*self._table.rows(figures))

    def saved(self, place: str) -> None:
        """Nothing: it happens all the time, and is said when it matters."""

    def said(self, message: str) -> None:
        """Show a line."""
        with self._lock:
            self._write([("note", "bold green"), (f": {visible(message)}", "")])

    # ------------------------------------------------------------------------ what is shown

    def _write(self, *lines: Line) -> None:
        self._written = monotonic()
        if self._live is not None:
            self._live.console.print(as_text(lines), soft_wrap=True, end="")
            return
        shown = as_text(lines) if self._terminal.colour else as_plain(lines)
        with suppress(EnvironmentFailure):  # a full disk is told by what matters
            self._terminal.write(shown)

    def _run(self) -> None:
        while not self._end.wait(_TICK):
            with self._lock:
                self._tick()

    def _tick(self) -> None:
        progress = self._progress
        if progress is None:
            return
        progress.look()
        if self._live is not None:
            self._live.update(self._bar(progress), refresh=True)
        elif monotonic() - self._written >= _QUIET and progress.moves:
            self._write([(f"  {progress.place()}  {'  '.join(self._figures(progress))}", "")])

    def _figures(self, progress: _Progress) -> list[str]:
        """The figures of a moment, the ones that matter most first."""
        if progress.held_out is not None:
            done, whole = progress.held_out
            return [f"held out {done:,}/{whole:,}"]
        found = []
        loss, top1 = progress.recent()
        if loss is not None:
            found.append(f"loss {value(loss)}")
        if top1 is not None:
            found.append(f"top1 {share(top1)}")
        left, speed = progress.left(), progress.speed()
        if left is not None:
            found.append(f"{clock(left)} left")
        if speed is not None:
            found.append(f"{speed:,.0f}/s")
        if progress.rate is not None:
            found.append(f"lr {progress.rate:.3g}")
        memory = self._memory()
        if memory:
            found.append(binary_size(memory))
        return found

    def _bar(self, progress: _Progress) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        assert self._live is not None  # there is a terminal
        if progress.held_out is not None:
            done, whole = progress.held_out
        else:
            done, whole = progress.step, progress.steps
        begin, count = f"epoch {progress.epoch + 1}/{progress.epochs}", f"{done:,}/{whole:,}"
        figures = self._figures(progress)
        if progress.held_out is not None:
            figures = ["held out"]
        room = self._live.console.width - len(begin) - len(count) - _BAR - 4
        while figures and sum(len(each) + 2 for each in figures) > room:
            figures.pop()
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        grid.add_column(no_wrap=True)
        bar = ProgressBar(total=max(1, whole), completed=done)
        grid.add_row(begin, bar, count, "  ".join(figures))
        return grid


class _Progress:
    """How far an epoch is; `note` is called for every step and only keeps it."""

    def __init__(
        self, epoch: int, epochs: int, steps: int, first: int, began: float, taken: int
    ) -> None:
        self.epoch = epoch
        self.epochs = epochs
        self.steps = steps
        self.step = first
        self.began = began
        self.taken = taken
        """Steps of this process so far, in all epochs since `began`."""
        self.rate: float | None = None
        self.held_out: tuple[int, int] | None = None
        self.moves = False
        """Whether anything happened since the last look but one."""
        self._samples = 0
        self._recent: deque[tuple[float, float | None, int]] = deque(maxlen=_RECENT)
        self._seen: deque[tuple[float, int]] = deque([(monotonic(), 0)])

    def note(self, step: Stepped) -> None:
        """Keep what a step says."""
        self.step = step.step
        self.rate = step.rate
        self.taken += 1
        self._samples += step.samples
        self._recent.append((step.loss, step.correct, step.samples))

    def look(self) -> None:
        """Note how many samples are through by now."""
        now, samples = monotonic(), self._samples
        self.moves = samples > 0
        if samples == self._seen[-1][1]:
            return
        self._seen.append((now, samples))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()

    def place(self) -> str:
        """Where it is, for a line."""
        return f"epoch {self.epoch + 1}/{self.epochs}  step {self.step:,}/{self.steps:,}"

    def recent(self) -> tuple[float | None, float | None]:
        """Mean loss and accuracy of the last steps."""
        steps = tuple(self._recent)
        samples = sum(count for _, correct, count in steps if correct is not None)
        right = sum(correct for _, correct, _ in steps if correct is not None)
        loss = sum(loss for loss, _, _ in steps) / len(steps) if steps else None
        return loss, right / samples if samples else None

    def speed(self) -> float | None:
        """Samples a second, of late."""
        (then, before), (now, samples) = self._seen[0], self._seen[-1]
        return (samples - before) / (now - then) if now > then else None

    def left(self) -> float | None:
        """Seconds to the end of the run, at the pace of this process so far."""
        if self.taken < 3:
            return None
        ahead = (self.epochs - self.epoch) * self.steps - self.step
        return ahead * (monotonic() - self.began) / self.taken


class _Table:
    """The rows of epochs, under a heading that knows the figures of the first."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._columns: list[tuple[str, int]] = []

    def rows(self, figures: EpochFigures) -> list[Line]:
        """The row of an epoch, below the heading if it is the first."""
        cells = _cells(figures)
        lines: list[Line] = []
        if not self._columns:
            self._columns = self._fitting(cells)
            heading = "  ".join(f"{name:>{width}}" for name, width in self._columns)
            lines.append([(heading, "dim")])
        row = "  ".join(f"{cells.get(name, ''):>{width}}" for name, width in self._columns)
        line: Line = [(row, "")]
        if figures.best:
            line.append(("  best", "bold green"))
        return [*lines, line]

    def _fitting(self, names: Iterable[str]) -> list[tuple[str, int]]:
        """Columns of these names, as many as fit, with a word behind them."""
        found = [(name, max(len(name), _WIDTHS.get(name, _LEAST))) for name in names]
        for spare in _SPARE:
            if sum(width + 2 for _, width in found) + len("best") <= self._width:
                break
            found = [column for column in found if column[0] != spare]
        return found


_LEAST = 7
_WIDTHS = {"lr": 8, "samples/s": 9, "memory": 9}
_SPARE = ("memory", "samples/s", "top5", "lr", "time", "top1", "held-out loss")
"""Columns that a narrow terminal goes without, the first of them first."""


def _cells(figures: EpochFigures) -> Mapping[str, str]:
    """What a row has, by its heading."""
    cells = {
        "epoch": f"{figures.epoch + 1}/{figures.epochs}",
        "loss": value(figures.train_loss),
    }
    if figures.train_top1 is not None:
        cells["top1"] = share(figures.train_top1)
    for number, (name, figure) in enumerate(figures.held_out.items()):
        heading = _NAMES.get(name, name)
        shown = value(figure) if name == "loss" else share(figure)
        cells[f"held-out {heading}" if number == 0 or heading in cells else heading] = shown
    cells["lr"] = f"{figures.rate:.3g}"
    cells["samples/s"] = f"{figures.samples_per_second:,.0f}"
    cells["memory"] = binary_size(figures.memory)
    cells["time"] = clock(figures.seconds)
    return cells
