"""The learning curve: the same bytes for the same figures, and what is in the picture."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from cnnspec.training.runs import curve
from cnnspec.training.runs.curve import CurveFile, curve_svg
from cnnspec.training.watching import EpochFigures

SVG = "{http://www.w3.org/2000/svg}"


def epoch(number: int, **changes: object) -> EpochFigures:
    figures = EpochFigures(
        epoch=number,
        epochs=9,
        step=23 * (number + 1),
        train_loss=2.3 * 0.7**number,
        train_top1=1 - 0.9 * 0.7**number,
        held_out={"loss": 2.3 * 0.75**number + 0.01 * number**2, "top1": 0.9 - 0.8 * 0.7**number},
        rate=0.1,
        samples_per_second=1000,
        seconds=1,
        memory=0,
    )
    return replace(figures, **changes)  # type: ignore[arg-type]


def texts(picture: bytes) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_the_same_figures_give_the_same_bytes() -> None:
    before = dict(mpl.rcParams)
    history = [epoch(number) for number in range(9)]
    assert curve_svg("net", history) == curve_svg("net", history)
    assert curve_svg("net", history) != curve_svg("net", history[:-1])
    assert dict(mpl.rcParams) == before


def test_loss_and_accuracy_of_both_kinds_of_samples() -> None:
    found = texts(curve_svg("net & <digits>", [epoch(number) for number in range(9)]))
    assert "net & <digits>" in found
    assert [found.count(word) for word in ("loss", "accuracy", "epoch")] == [1, 1, 2]
    assert found.count("train") == found.count("held out") == 2
    losses = [epoch(number).held_out["loss"] for number in range(9)]
    assert f"{min(losses):.4f}" in found
    assert f"{epoch(8).held_out['top1']:.2%}" in found


def test_a_single_epoch_is_a_whole_number() -> None:
    found = texts(curve_svg("net", [epoch(0)]))
    assert found.count("1") == 2


def test_without_accuracy_there_is_one_panel() -> None:
    history = [epoch(number, train_top1=None, held_out={}) for number in range(3)]
    found = texts(curve_svg("net", history))
    assert "loss" in found
    assert "accuracy" not in found
    assert "held out" not in found


@pytest.mark.parametrize(
    "history",
    [
        [epoch(0)],
        [epoch(0, train_loss=math.nan)],
        [epoch(0, train_loss=math.inf), epoch(1)],
        [epoch(0, held_out={}), epoch(1)],
        [epoch(0, train_loss=math.nan, train_top1=None, held_out={})],
        [epoch(number, epochs=1000) for number in range(1000)],
    ],
    ids=["one", "nan", "inf", "late", "nothing", "many"],
)
def test_odd_histories_have_pictures_too(history: list[EpochFigures]) -> None:
    assert ElementTree.fromstring(curve_svg("net", history)).tag == f"{SVG}svg"


def test_the_file_is_drawn_at_the_end_and_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(curve, "monotonic", lambda: now[0])
    path = tmp_path / "curve.svg"
    file = CurveFile(path, "net", [epoch(0)], lambda said: None)
    file.epoch_ended(epoch(1))
    assert not path.exists()
    now[0] = 61.0
    file.epoch_ended(epoch(2))
    assert path.read_bytes() == curve_svg("net", [epoch(number) for number in range(3)])
    file.epoch_ended(epoch(3))
    file.draw()
    assert path.read_bytes() == curve_svg("net", [epoch(number) for number in range(4)])


def test_no_epoch_no_picture(tmp_path: Path) -> None:
    CurveFile(tmp_path / "curve.svg", "net", [], lambda said: None).draw()
    assert not (tmp_path / "curve.svg").exists()


def test_a_picture_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "gone" / "curve.svg"
    file = CurveFile(path, "net", [epoch(0)], said.append)
    file.draw()
    file.draw()
    assert said == [f"`{path}` cannot be written: no such file or directory"]
