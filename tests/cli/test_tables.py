"""Printed tables: golden files at fixed widths, and figures that add up.

`UPDATE_GOLDEN=1 pytest tests/cli/test_tables.py` writes the golden files anew.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cnnspec.cli.main import main
from tests.cli.process import DECIDING, cnnspec
from tests.zoo.networks import FILES

GOLDEN = Path(__file__).parent / "golden"
COLUMNS = {
    "params": "params",
    "buffers": "buffers",
    "macs": "macs",
    "flops": "flops",
    "connections": "connections",
    "activations": "activations",
}


@pytest.mark.parametrize("network", ["vgg16", "resnet50", "googlenet", "unet"])
@pytest.mark.parametrize("columns", [80, 200])
def test_golden(network: str, columns: int) -> None:
    code, out, err = cnnspec("analyze", network, COLUMNS=str(columns))
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    path = GOLDEN / f"{network}.{columns}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(out, encoding="utf-8", newline="\n")
    assert out == path.read_text(encoding="utf-8")


def rows(table: str) -> tuple[list[tuple[int, list[str]]], list[list[str]]]:
    """Rows as `(level, figures)`, and the figures of the rows of sums."""
    lines = table.splitlines()
    first, second = (number for number, line in enumerate(lines) if line.startswith("───"))
    end = lines.index("", second)
    found = []
    for line in lines[first + 1 : second]:
        guides = re.match(r"(?:│  |   )*(?:[├└]─ )?", line)
        assert guides is not None
        found.append((len(guides[0]) // 3, re.split(" {2,}", line[guides.end() :])[1:]))
    return found, [re.split(" {2,}", line)[1:] for line in lines[second + 1 : end]]


def number(text: str) -> int:
    return 0 if text == "-" else int(text.replace(",", ""))


@pytest.mark.parametrize("network", FILES)
def test_printed_columns_add_up_to_printed_totals(
    network: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    assert main(["analyze", network, "--format", "json"]) == 0
    totals = json.loads(capsys.readouterr().out)["totals"]
    for depth in ("1", "2", "9"):
        columns = ",".join(COLUMNS)
        assert main(["analyze", network, "--depth", depth, "--columns", columns]) == 0
        body, sums = rows(capsys.readouterr().out)
        levels = [level for level, _ in body]
        leaves = [
            figures
            for (level, figures), below in zip(body, [*levels[1:], 0], strict=True)
            if below <= level
        ]
        for column, figure in enumerate(COLUMNS.values()):
            printed = sum(number(figures[column]) for figures in leaves)
            assert printed == number(sums[-1][column]) == totals["training"][figure]
            assert number(sums[0][column]) == totals[figure]
