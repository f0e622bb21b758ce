"""The timeline of activations, as text, JSON and columns."""

from __future__ import annotations

import csv
from io import StringIO

from cnnspec.report import analyze, render_table, to_csv, to_markdown
from cnnspec.report.json import to_json
from cnnspec.report.sections.timeline import Timeline
from cnnspec.report.styled import as_plain
from tests.report.networks import lenet, resnet50, two_heads


def test_a_bar_for_each_layer() -> None:
    lines = as_plain(Timeline(analyze(lenet())).lines(60)).splitlines()
    assert lines[0] == "activations alive  at batch 1 in float32"
    assert len(lines) == 1 + 12
    assert lines[3].split() == ["2", "23.0", "KiB", "█" * (60 - 18)]
    assert max(map(len, lines)) == 60


def test_a_long_network_is_shown_by_its_fullest_layers() -> None:
    report = analyze(resnet50(), batch=2, dtype="float16")
    lines = as_plain(Timeline(report).lines(80)).splitlines()
    assert lines[0].endswith("the fullest of each 5 layers, at batch 2 in float16")
    assert len(lines) == 1 + 35
    assert sum("6.9 MiB" in line for line in lines) > 0


def test_names_give_way_to_bars() -> None:
    assert max(map(len, as_plain(Timeline(analyze(resnet50())).lines(36)).splitlines()[1:])) <= 36


def test_a_section_of_every_format() -> None:
    report = analyze(two_heads())
    section = Timeline(report)
    assert section.to_dict()["layers"] == [moment.layer for moment in report.timeline]
    assert section.to_dict()["bytes"] == [moment.bytes for moment in report.timeline]
    assert "activations alive" in render_table(report, width=80, sections=[section])
    assert '"timeline"' in to_json(report, [section])
    assert "activations alive" in to_markdown(report, [section])


def test_columns_of_memory() -> None:
    names = ["memory", "live", "saved", "bytes", "intensity", "padding_macs"]
    table = render_table(analyze(resnet50(), batch=2), width=120, depth=1, columns=names)
    (conv,) = [line for line in table.splitlines() if line.startswith("conv1 ")]
    assert conv.split()[2:] == [
        *("6.1", "MiB", "7.3", "MiB", "1.1", "MiB", "7.3", "MiB"),
        *("61.6", "1,799,424"),
    ]
    (total,) = [line for line in table.splitlines() if line.startswith("total ")]
    assert total.split()[-1] == "140,932,352"


def test_rows_of_sums_add_up() -> None:
    report = analyze(two_heads())
    rows = list(csv.DictReader(StringIO(to_csv(report))))
    layers = [row for row in rows if row["line"]]
    training = rows[-1]
    for key in ("padding_macs", "bytes_read", "bytes_written", "saved_bytes"):
        assert int(training[key]) == sum(int(row[key]) for row in layers), key
    assert int(rows[-2]["live_bytes"]) == report.totals.peak_activation_bytes
