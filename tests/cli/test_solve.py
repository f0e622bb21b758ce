"""`cnnspec solve` as users meet it."""

from __future__ import annotations

import json

import pytest

from tests.cli.inside import called


def solved(*arguments: str) -> tuple[int, list[list[str]]]:
    """The exit code, and the words of each line."""
    code, out, err = called("solve", *arguments)
    assert err == ""
    return code, [line.split() for line in out.splitlines()]


def test_whatever_fits() -> None:
    code, lines = solved("--in", "32", "--kernel", "5", "--stride", "2")
    assert code == 0
    assert lines[1] == ["given", "in", "32,", "kernel", "5,", "stride", "2"]
    assert lines[3] == ["padding", "out", "how"]
    rows = {line[0]: line[1:] for line in lines[4:13]}
    assert rows["1:2"] == "16 (32 + 1 + 2 - 5) / 2 + 1 fits; `same`".split()
    assert rows["2"] == (
        "16 floor((32 + 2*2 - 5) / 2) + 1 = floor(15.5) + 1 1 position of padding unread".split()
    )
    text = called("solve", "--in", "32", "--kernel", "5", "--stride", "2").out
    assert "no symmetric padding fits exactly where 32 + 2p - 5 is odd" in text


def test_one_answer() -> None:
    _, lines = solved("--in", "227", "--kernel", "11", "--stride", "4", "--padding", "0")
    assert lines[-1] == "55 (227 - 11) / 4 + 1 fits".split()


def test_dilation_shows_the_extent() -> None:
    _, lines = solved(
        "--in", "9", "--kernel", "3", "--stride", "1", "--padding", "0", "--dilation", "2"
    )
    assert lines[1] == "extent = dilation * (kernel - 1) + 1".split()
    assert lines[-1][0] == "5"


def test_json() -> None:
    code, out, _ = called(
        "solve",
        "--out",
        "16",
        "--kernel",
        "5",
        "--stride",
        "2",
        "--padding",
        "1:2",
        "--format",
        "json",
    )
    document = json.loads(out)
    assert (code, document["format"]) == (0, 1)
    assert [(s["in"], s["exact"], s["same"]) for s in document["solutions"]] == [
        (32, True, True),
        (33, False, False),
    ]
    assert document["solutions"][0]["calculation"] == "(32 + 1 + 2 - 5) / 2 + 1 = 16"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--in 32 --kernel 3 --stride 1 --padding 0 --out 31", "the output is 30"),
        ("--in 3 --kernel 5 --padding 0", "the kernel covers more than the padded input"),
        ("--in 9 --kernel 3 --stride 2 --out 99", "outputs are 4 to 6"),
        (
            "--in 2 --kernel 7 --stride 2 --padding 0 --ceil",
            "the kernel covers more than the padded input, by a stride or more",
        ),
    ],
)
def test_nothing_fits(arguments: str, reason: str) -> None:
    code, out, err = called("solve", *arguments.split())
    assert (code, err) == (1, "")
    assert f"nothing fits\n  {reason}\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--kernel 3", "neither --in nor --out is given"),
        ("--in 0 --kernel 3", "--in takes a whole number of at least 1, not `0`"),
        ("--in 1234567890", "--in takes a whole number of at most 9 digits, not `1234567890`"),
        ("--in 5-3", "--in has no range `5-3`"),
        ("--in 5 --kernel 3 --padding 2 --pool", "a pooling of 3 has a padding of at most 1"),
        ("--in 5 --kernel 3 --padding 0:1 --pool", "the same padding on both sides"),
        ("--in 1-9999 --out 3", "windows to try"),
        ("--in 5 --padding x", "--padding takes a whole number"),
        ("5", "`5` is one argument too many"),
    ],
)
def test_mistakes(arguments: str, message: str) -> None:
    code, out, err = called("solve", *arguments.split())
    assert (code, out) == (2, "")
    assert message in err
