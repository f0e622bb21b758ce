"""Figures of epochs as rows: exact, stable columns, mended by a resume; TensorBoard's files."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs.metrics import (
    COLUMNS,
    MetricsFiles,
    Several,
    from_row,
    read_metrics,
    to_row,
)
from cnnspec.training.runs.tensorboard import TensorBoardFiles
from cnnspec.training.watching import EpochFigures, Silent, Stepped

FIGURES = EpochFigures(
    epoch=0,
    epochs=3,
    step=23,
    train_loss=0.1 + 0.2,
    train_top1=2 / 3,
    held_out={"loss": 1e-17, "top1": 1 / 3, "top5": 1.0},
    rate=0.002,
    samples_per_second=1234.5678,
    seconds=1.25,
    memory=152_000_000,
    best=True,
)
finite = st.floats(allow_nan=False, allow_infinity=False)
figures = st.builds(
    EpochFigures,
    epoch=st.integers(0, 10**6),
    epochs=st.integers(1, 10**6),
    step=st.integers(0, 10**9),
    train_loss=finite,
    train_top1=st.none() | st.floats(0, 1),
    held_out=st.dictionaries(st.sampled_from(["loss", "top1", "top5", "mean_iou"]), finite),
    rate=finite,
    samples_per_second=finite,
    seconds=finite,
    memory=st.integers(0, 2**50),
    best=st.booleans(),
)


def complain(message: str) -> None:
    raise AssertionError(message)


def epochs(count: int) -> list[EpochFigures]:
    return [replace(FIGURES, epoch=number, step=23 * (number + 1)) for number in range(count)]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@given(figures)
def test_a_row_gives_back_its_epoch(epoch: EpochFigures) -> None:
    row = to_row(epoch)
    assert tuple(row)[: len(COLUMNS)] == COLUMNS
    assert from_row(row) == epoch
    assert from_row(json.loads(json.dumps(row))) == epoch


def test_files_hold_exact_figures(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path, complain)
    files.begin([])
    files.epoch_ended(FIGURES)
    (row,) = rows(tmp_path / "metrics.csv")
    assert tuple(row) == COLUMNS
    assert (row["epoch"], row["best"], row["memory"]) == ("1", "1", "152000000")
    assert float(row["train_loss"]) == 0.1 + 0.2
    assert float(row["held_out_loss"]) == 1e-17
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == to_row(FIGURES)
    assert read_metrics(tmp_path / "metrics.jsonl") == [FIGURES]


def test_a_resume_writes_what_a_run_without_a_break_would_have(tmp_path: Path) -> None:
    history = epochs(4)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        files = MetricsFiles(folder, complain)
        files.begin([])
        for epoch in history[:3]:
            files.epoch_ended(epoch)
    files = MetricsFiles(whole, complain)
    files.begin(history[:3])
    files.epoch_ended(history[3])
    # A kill tore the third row; the checkpoint is of the second epoch.
    for name in ("metrics.csv", "metrics.jsonl"):
        text = (broken / name).read_text()
        (broken / name).write_text(text[:-20])
    files = MetricsFiles(broken, complain)
    files.begin(history[:2])
    for epoch in history[2:]:
        files.epoch_ended(epoch)
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_columns_stay_where_nothing_is_held_out(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path, complain)
    files.begin([])
    files.epoch_ended(replace(FIGURES, held_out={}, train_top1=None, train_loss=math.inf))
    (row,) = rows(tmp_path / "metrics.csv")
    assert tuple(row) == COLUMNS
    assert row["held_out_top1"] == row["train_top1"] == ""
    assert row["train_loss"] == "inf"
    found = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert found["train_loss"] is None


def test_further_figures_have_columns_behind_the_usual_ones(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path, complain)
    files.begin([replace(FIGURES, held_out={"top1": 0.5, "mean_iou": 0.25})])
    files.epoch_ended(FIGURES)
    first, second = rows(tmp_path / "metrics.csv")
    assert tuple(first) == (*COLUMNS, "held_out_mean_iou")
    assert (first["held_out_mean_iou"], second["held_out_mean_iou"]) == ("0.25", "")


def test_a_row_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    files = MetricsFiles(tmp_path, said.append)
    files.begin([])
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "metrics.csv").mkdir()
    for epoch in epochs(2):
        files.epoch_ended(epoch)
    assert said == [f"`{tmp_path / 'metrics.csv'}` cannot be written: is a directory"]


def test_beginning_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        MetricsFiles(tmp_path / "gone", complain).begin([])


@pytest.mark.parametrize("text", ["{", "[]\n", "3\n", '{"epoch": 1}\n'])
def test_what_is_no_file_of_metrics(text: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(EnvironmentFailure, match="is not what a run writes"):
        read_metrics(path)


def test_several_watchers_are_told_the_same() -> None:
    class Noted(Silent):
        def __init__(self) -> None:
            self.calls: list[object] = []

        def epoch_begins(self, epoch: int, epochs: int, steps: int, first: int) -> None:
            self.calls.append((epoch, epochs, steps, first))

        def stepped(self, step: Stepped) -> None:
            self.calls.append(step)

        def evaluating(self, done: int, whole: int) -> None:
            self.calls.append((done, whole))

        def epoch_ended(self, figures: EpochFigures) -> None:
            self.calls.append(figures)

        def saved(self, place: str) -> None:
            self.calls.append(place)

        def said(self, message: str) -> None:
            self.calls.append(message)

    one, other = Noted(), Noted()
    step = Stepped(0, 1, 2, 64, 2.3, 7, 0.1)
    several = Several((one, other))
    several.epoch_begins(0, 3, 23, 1)
    several.stepped(step)
    several.evaluating(64, 360)
    several.epoch_ended(FIGURES)
    several.saved("run/checkpoints/last.pt")
    several.said("a word")
    assert one.calls == other.calls
    assert one.calls == [
        (0, 3, 23, 1),
        step,
        (64, 360),
        FIGURES,
        "run/checkpoints/last.pt",
        "a word",
    ]


def test_tensorboard_reads_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    board = TensorBoardFiles(tmp_path / "tensorboard")
    assert not (tmp_path / "tensorboard").exists()
    for epoch in epochs(2):
        board.epoch_ended(epoch)
    board.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    found = {
        (event.step, value.tag): (value.simple_value or value.tensor.float_val[0])
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }
    assert {step for step, _ in found} == {23, 46}
    assert {tag for _, tag in found} == {
        "loss/train",
        "loss/held_out",
        "top1/train",
        "top1/held_out",
        "top5/held_out",
        "rate",
        "samples_per_second",
    }
    assert found[46, "top1/train"] == pytest.approx(2 / 3)
