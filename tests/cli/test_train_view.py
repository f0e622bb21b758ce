"""What is shown while a network trains: rows, lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest

from cnnspec.cli import training_view
from cnnspec.cli.terminal import Terminal
from cnnspec.cli.training_view import TrainingView, clock, share, value
from cnnspec.training.watching import EpochFigures, Stepped

FIGURES = EpochFigures(
    epoch=0,
    epochs=12,
    step=23,
    train_loss=1.23456,
    train_top1=0.65432,
    held_out={"loss": 0.98765, "top1": 0.789, "top5": 0.98},
    rate=0.002,
    samples_per_second=12345.6,
    seconds=1.24,
    memory=152 << 20,
)
ROWS = """\
  epoch     loss     top1  held-out loss  held-out top1     top5        lr  samples/s     memory     time
   1/12   1.2346   65.43%         0.9877         78.90%   98.00%     0.002     12,346  152.0 MiB    1.2 s
  12/12   0.0123   99.00%         0.0123         98.61%   98.00%     2e-05     12,346    1.5 GiB     3:05  best
"""  # noqa: E501


class Screen(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(training_view, "_TICK", 0.01)


def view(stream: StringIO, memory: int | None = 152 << 20) -> TrainingView:
    return TrainingView(Terminal(stream), memory=lambda: memory)


def step(number: int, **changes: object) -> Stepped:
    found = Stepped(0, number, 23, 64, 2.0 / number, 32.0, 0.002)
    return replace(found, **changes)  # type: ignore[arg-type]


def until(there: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not there():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.005)


def unstyled(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_an_epoch_is_a_row_below_one_heading() -> None:
    stream = StringIO()
    with view(stream) as shown:
        shown.epoch_ended(FIGURES)
        shown.epoch_ended(
            replace(
                FIGURES,
                epoch=11,
                train_loss=0.0123,
                train_top1=0.99,
                held_out={"loss": 0.0123, "top1": 0.9861, "top5": 0.98},
                rate=2e-5,
                memory=3 << 29,
                seconds=185.2,
                best=True,
            )
        )
    assert stream.getvalue() == ROWS


def test_a_row_has_what_there_is() -> None:
    stream = StringIO()
    with view(stream) as shown:
        shown.epoch_ended(replace(FIGURES, train_top1=None, held_out={"loss": 0.5}))
    heading, row = stream.getvalue().splitlines()
    assert heading.split() == "epoch loss held-out loss lr samples/s memory time".split()
    assert row.split()[:3] == ["1/12", "1.2346", "0.5000"]


def test_what_is_said_stands_between_rows_with_its_control_characters_visible() -> None:
    stream = StringIO()
    with view(stream) as shown:
        shown.said("`a\x1b[2Jb.png` cannot be read")
    assert stream.getvalue() == "note: `a\\x1b[2Jb.png` cannot be read\n"


def test_a_pipe_is_told_when_an_epoch_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_view, "_QUIET", 0.0)
    stream = StringIO()
    with view(stream) as shown:
        shown.epoch_begins(0, 3, 23, 0)
        for number in (1, 2, 3, 4):
            shown.stepped(step(number))
        until(lambda: stream.getvalue().count("\n") > 1)
        shown.evaluating(64, 360)
        until(lambda: "held out 64/360" in stream.getvalue())
    line = stream.getvalue().splitlines()[-2]
    assert line.startswith("  epoch 1/3  step 4/23  ")
    first = next(line for line in stream.getvalue().splitlines() if "step 4/23" in line)
    assert "loss 1.0417  top1 50.00%" in first
    assert "left" in first
    assert "lr 0.002  152.0 MiB" in first


def test_a_pipe_hears_nothing_of_short_epochs() -> None:
    stream = StringIO()
    with view(stream) as shown:
        shown.epoch_begins(0, 3, 23, 0)
        shown.stepped(step(1))
        time.sleep(0.05)
    assert stream.getvalue() == ""


def test_a_terminal_has_a_bar_that_is_gone_at_the_end() -> None:
    screen = Screen()
    with view(screen) as shown:
        shown.epoch_begins(0, 3, 1234, 0)
        for number in (1, 2, 3, 4):
            shown.stepped(step(number, steps=1234))
        until(lambda: "4/1,234" in unstyled(screen.getvalue()))
        until(lambda: "/s" in unstyled(screen.getvalue()))
        shown.evaluating(64, 360)
        until(lambda: "64/360" in unstyled(screen.getvalue()))
        shown.epoch_ended(FIGURES)
    text = unstyled(screen.getvalue())
    assert re.search(r"epoch 1/3 [━╸╺]+ +4/1,234 loss 1\.0417  top1 50\.00%", text)
    assert re.search(r"epoch 1/3 [━╸╺]+ +64/360 held out", text)
    assert ROWS.splitlines()[1] in text
    ended = screen.getvalue()
    assert ended.count("\x1b[?25l") == ended.count("\x1b[?25h") == 1
    assert ended.endswith("\x1b[2K")


def test_a_narrow_terminal_keeps_what_matters_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    screen = Screen()
    with view(screen) as shown:
        shown.epoch_begins(0, 3, 23, 0)
        shown.stepped(step(4))
        until(lambda: "4/23" in unstyled(screen.getvalue()))
    bar = next(line for line in re.split(r"[\r\n]", unstyled(screen.getvalue())) if "4/23" in line)
    assert len(bar) <= 50
    assert "loss 0.5000" in bar
    assert "MiB" not in bar


@pytest.mark.parametrize(("width", "left_out"), [(100, 1), (80, 3), (61, 5), (55, 6), (40, 7)])
def test_a_narrow_terminal_has_fewer_columns(
    width: int, left_out: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = StringIO()
    with view(stream) as shown:
        shown.epoch_ended(FIGURES)
    heading, row = stream.getvalue().splitlines()
    spare = ["memory", "samples/s", "top5", "lr", "time", "  top1", "held-out loss"]
    assert [name for name in spare if name not in heading] == spare[:left_out]
    assert len(heading) == len(row)
    assert len(row) + len("  best") <= width


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_a_plain_terminal_has_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "dumb")
    screen = Screen()
    with view(screen) as shown:
        shown.epoch_begins(0, 3, 23, 0)
        shown.stepped(step(4))
        shown.epoch_ended(FIGURES)
    assert screen.getvalue() == "".join(ROWS.splitlines(keepends=True)[:2])


def test_a_stream_that_fails_stops_no_training() -> None:
    class Full(StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            import os

            return os.open(os.devnull, os.O_WRONLY)

    with view(Full()) as shown:
        shown.epoch_ended(FIGURES)


def test_a_resumed_epoch_goes_on_from_its_step() -> None:
    screen = Screen()
    with view(screen) as shown:
        shown.epoch_begins(1, 3, 23, 9)
        until(lambda: "9/23" in unstyled(screen.getvalue()))
    assert "epoch 2/3" in unstyled(screen.getvalue())


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (clock(0.04), "0.0 s"),
        (clock(9.94), "9.9 s"),
        (clock(9.96), "10 s"),
        (clock(59.4), "59 s"),
        (clock(59.6), "1:00"),
        (clock(185), "3:05"),
        (clock(3723), "1:02:03"),
        (value(0.00004), "0.0000"),
        (value(2.302585), "2.3026"),
        (value(123456.7), "1.235e+05"),
        (value(float("nan")), "nan"),
        (share(0.98611), "98.61%"),
        (share(1.0), "100.00%"),
    ],
)
def test_figures_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
