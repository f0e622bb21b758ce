"""Figures of epochs for TensorBoard, where it is installed. Its own writer makes the files.

torch's `SummaryWriter` would import TensorFlow where that is installed too, which takes long.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from time import time
from typing import Any

from cnnspec.training.runs.metrics import to_row
from cnnspec.training.watching import EpochFigures, Silent

__all__ = ["TensorBoardFiles", "tensorboard_there"]

_TAGS = {
    "train_loss": "loss/train",
    "held_out_loss": "loss/held_out",
    "train_top1": "top1/train",
    "held_out_top1": "top1/held_out",
    "rate": "rate",
    "samples_per_second": "samples_per_second",
}
"""Tags by column; two with one first word share a chart's group."""

_LEFT_OUT = frozenset(("epoch", "epochs", "step", "seconds", "memory", "best"))


def tensorboard_there() -> bool:
    """Whether TensorBoard is installed."""
    return find_spec("tensorboard") is not None


class TensorBoardFiles(Silent):
    """A watcher that writes scalars into a folder, by steps of the whole run. Needs `tensorboard`.

    A resume adds a file; steps that were taken twice have the same figures twice.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = os.fspath(folder)
        self._writer: Any = None

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Write the scalars of an epoch."""
        # By name: it may not be installed, and has no types.
        event = import_module("tensorboard.compat.proto.event_pb2")
        summary = import_module("tensorboard.compat.proto.summary_pb2").Summary
        if self._writer is None:
            writing = import_module("tensorboard.summary.writer.event_file_writer")
            self._writer = writing.EventFileWriter(self._folder)
        values = [
            summary.Value(tag=_tag(column), simple_value=float(value))
            for column, value in to_row(figures).items()
            if value is not None and column not in _LEFT_OUT
        ]
        found = summary(value=values)
        self._writer.add_event(event.Event(summary=found, step=figures.step, wall_time=time()))
        self._writer.flush()

    def close(self) -> None:
        """End its thread and its file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(column: str) -> str:
    if column in _TAGS:
        return _TAGS[column]
    return f"{column.removeprefix('held_out_')}/held_out"
