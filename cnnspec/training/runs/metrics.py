"""Figures of epochs as rows of files: `metrics.csv` for spreadsheets, `metrics.jsonl` for programs.

A row is plain values, so that a checkpoint can keep the rows so far and a resume write the files
anew: what a kill tore or lost comes back. No torch, and nothing of how figures are shown.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import write_file
from cnnspec.training.watching import EpochFigures, Silent, Stepped, Watcher

__all__ = [
    "COLUMNS",
    "MetricsFiles",
    "Row",
    "Several",
    "finite_row",
    "from_row",
    "read_metrics",
    "to_row",
]

Row = Mapping[str, float | int | bool | None]

COLUMNS = (
    "epoch",
    "epochs",
    "step",
    "rate",
    "train_loss",
    "train_top1",
    "held_out_loss",
    "held_out_top1",
    "held_out_top5",
    "samples_per_second",
    "seconds",
    "memory",
    "best",
)
"""What every row has, in this order; further figures of held-out samples follow by name."""

_HELD_OUT = "held_out_"


def to_row(figures: EpochFigures) -> dict[str, float | int | bool | None]:
    """An epoch as plain values by column. Epochs count from 1, as users do; floats are exact.

    What is not known is None.
    """
    held_out = {f"{_HELD_OUT}{name}": float(value) for name, value in figures.held_out.items()}
    row: dict[str, float | int | bool | None] = {
        "epoch": figures.epoch + 1,
        "epochs": figures.epochs,
        "step": figures.step,
        "rate": figures.rate,
        "train_loss": figures.train_loss,
        "train_top1": figures.train_top1,
        "held_out_loss": None,
        "held_out_top1": None,
        "held_out_top5": None,
        "samples_per_second": figures.samples_per_second,
        "seconds": figures.seconds,
        "memory": figures.memory,
        "best": figures.best,
    }
    return {**row, **dict(sorted(held_out.items()))}


def from_row(row: Row) -> EpochFigures:
    """The epoch that `to_row` made a row of. A loss that is None was no number."""
    held_out = {
        name.removeprefix(_HELD_OUT): float(value)
        for name, value in row.items()
        if name.startswith(_HELD_OUT) and value is not None
    }
    top1 = row["train_top1"]
    return EpochFigures(
        epoch=int(row["epoch"] or 0) - 1,
        epochs=int(row["epochs"] or 0),
        step=int(row["step"] or 0),
        train_loss=_number(row["train_loss"]),
        train_top1=None if top1 is None else float(top1),
        held_out=held_out,
        rate=_number(row["rate"]),
        samples_per_second=_number(row["samples_per_second"]),
        seconds=_number(row["seconds"]),
        memory=int(row["memory"] or 0),
        best=bool(row["best"]),
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


class MetricsFiles(Silent):
    """A watcher that keeps `metrics.csv` and `metrics.jsonl` in a folder, a row for each epoch.

    `begin` comes first. A row that cannot be written is no reason to stop: `complain` is told once,
    and the next resume or run writes it again from the checkpoint.
    """

    def __init__(self, folder: str | os.PathLike[str], complain: Callable[[str], None]) -> None:
        self._csv = Path(folder) / "metrics.csv"
        self._jsonl = Path(folder) / "metrics.jsonl"
        self._complain = complain
        self._columns: Sequence[str] = ()
        self._complained = False

    def begin(self, history: Iterable[EpochFigures]) -> None:
        """Let the files hold the rows of these epochs and no others, each whole or not at all.

        Raises `EnvironmentFailure` where they cannot be written.
        """
        rows = [to_row(figures) for figures in history]
        self._columns = _columns(rows[:1]) if rows else ()
        heading = self._line(dict(zip(self._columns, self._columns, strict=True))) if rows else ""
        write_file(self._csv, (heading + "".join(map(self._line, rows))).encode())
        write_file(self._jsonl, "".join(map(_json, rows)).encode())

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Add the row of an epoch."""
        row = to_row(figures)
        heading = ""
        if not self._columns:
            self._columns = _columns([row])
            heading = self._line(dict(zip(self._columns, self._columns, strict=True)))
        try:
            for path, text in ((self._csv, heading + self._line(row)), (self._jsonl, _json(row))):
                with path.open("ab") as file:
                    file.write(text.encode())
        except OSError as failure:
            if not self._complained:
                self._complained = True
                reason = (failure.strerror or "unknown reason").lower()
                self._complain(f"`{failure.filename}` cannot be written: {reason}")

    def _line(self, row: Mapping[str, object]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(
            [_cell(row.get(column)) for column in self._columns]
        )
        return text.getvalue()


def _columns(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*COLUMNS, *(name for row in rows for name in row))))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return repr(value) if isinstance(value, float) else value


def finite_row(row: Row) -> dict[str, float | int | bool | None]:
    """A row for JSON, which has no infinities: None where a figure is no number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _json(row: Row) -> str:
    return json.dumps(finite_row(row), allow_nan=False) + "\n"


class Several:
    """Watchers that are all told the same, one after another."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
        """Tell all."""
        for each in self._watchers:
            each.epoch_begins(epoch, epochs, steps, first)

    def stepped(self, step: Stepped) -> None:
        """Tell all."""
        for each in self._watchers:
            each.stepped(step)

    def evaluating(self, done: int, whole: int) -> None:
        """Tell all."""
        for each in self._watchers:
            each.evaluating(done, whole)

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Tell all."""
        for each in self._watchers:
            each.epoch_ended(figures)

    def saved(self, place: str) -> None:
        """Tell all."""
        for each in self._watchers:
            each.saved(place)

    def said(self, message: str) -> None:
        """Tell all."""
        for each in self._watchers:
            each.said(message)


def read_metrics(path: str | os.PathLike[str]) -> list[EpochFigures]:
    """The epochs in a `metrics.jsonl`. Raises `EnvironmentFailure` for what cannot be read."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{os.fspath(path)}` cannot be read: {reason}") from None
    try:
        return [from_row(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EnvironmentFailure(f"`{os.fspath(path)}` is not what a run writes") from None
