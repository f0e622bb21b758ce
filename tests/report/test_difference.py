"""What changed between two networks: which layers are the same, how they differ, how it looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from cnnspec import load
from cnnspec.report import render_table
from cnnspec.report.difference import Difference, compare
from cnnspec.report.difference.alignment import common
from cnnspec.report.difference.rows import rows_of
from cnnspec.report.difference.text import difference_markdown, render_difference
from cnnspec.report.styled import display_width
from tests.report.golden import check

CONV = "Conv2d: {out_channels: 8, kernel_size: 3, padding: 1}"
WIDE = "Conv2d: {out_channels: 16, kernel_size: 3, padding: 1}"
RESIDUAL = """\
cnnspec: 1
name: residual
params: {depths: [2, 3], width: int = 8, kernel: int = 3}
inputs: {image: [3, 32, 32]}
blocks:
  unit:
    params: {width: int, kernel: int}
    layers:
      - Conv2d: {out_channels: width, kernel_size: kernel, padding: kernel // 2}
        name: conv
      - BatchNorm2d:
        name: bn
      - add: [bn, input]
      - ReLU
layers:
  - Conv2d: {out_channels: width, kernel_size: 3, padding: 1}
    name: stem
  - Sequential:
      - unit: {width: width, kernel: kernel}
        repeat: depth
    for: i, depth in enumerate(depths)
    name: stage{i}
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: 10}
    name: fc
variants:
  deep: {depths: [2, 40]}
  other: {kernel: 5}
"""


def network(*entries: str, size: int = 16) -> str:
    lines = "".join("  - " + entry.replace("\n", "\n    ") + "\n" for entry in entries)
    return f"cnnspec: 1\nname: net\ninputs: {{image: [3, {size}, {size}]}}\nlayers:\n{lines}"


def between(
    old: str, new: str, variants: tuple[str | None, str | None] = (None, None)
) -> Difference:
    reports = [
        load(text=text, variant=variant).analyze()
        for text, variant in zip((old, new), variants, strict=True)
    ]
    return compare(*reports)


def found(difference: Difference) -> list[tuple[str, str | None, str | None]]:
    """Status, old and new path of what changed, but for what only follows."""
    return [
        (
            one.status,
            None if one.old is None else one.old.path,
            None if one.new is None else one.new.path,
        )
        for one in difference.layers
        if not one.follows
    ]


def calls(run: Callable[[], object]) -> int:
    """How many functions are called, which no load of the machine changes."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def edits(difference: Difference) -> list[str]:
    return [change.text for one in difference.layers for change in one.edits]


def test_nothing_changed() -> None:
    difference = between(network(CONV, "ReLU"), "# a remark\n" + network(CONV, "ReLU"))
    assert not difference
    assert difference.layers == ()
    assert difference.same == 2
    assert render_difference(difference, width=80) == "net -> net\nno difference\n"
    assert difference.to_dict()["different"] is False
    assert "No difference." in difference_markdown(difference)


def test_an_argument() -> None:
    difference = between(network(CONV, "ReLU"), network(WIDE, "ReLU"))
    assert found(difference) == [("changed", "0", "0")]
    assert edits(difference) == ["out_channels 8 -> 16"]
    conv, relu = difference.layers
    assert [change.what for change in conv.effects] == ["output_shapes", "params", "macs"]
    assert relu.follows
    assert relu.effects[0].text == "output 8x16x16 -> 16x16x16"
    assert difference.counts == {
        "added": 0,
        "removed": 0,
        "changed": 1,
        "renamed": 0,
        "followed": 1,
        "same": 0,
    }


def test_an_entry_put_in_between_renames_the_others() -> None:
    before = [CONV, "ReLU", "MaxPool2d: {kernel_size: 2}", WIDE, "ReLU"]
    after = [*before[:2], "BatchNorm2d:", *before[2:]]
    difference = between(network(*before), network(*after))
    assert found(difference) == [
        ("added", None, "2"),
        ("renamed", "2", "3"),
        ("renamed", "3", "4"),
        ("renamed", "4", "5"),
    ]
    assert edits(difference) == []
    taken_out = between(network(*after), network(*before))
    assert found(taken_out) == [
        ("removed", "2", None),
        ("renamed", "3", "2"),
        ("renamed", "4", "3"),
        ("renamed", "5", "4"),
    ]


def test_another_operation_under_a_name() -> None:
    old = network(CONV, "MaxPool2d: {kernel_size: 2}\nname: pool")
    new = network(CONV, "AvgPool2d: {kernel_size: 2}\nname: pool")
    difference = between(old, new)
    assert found(difference) == [("changed", "pool", "pool")]
    assert edits(difference) == ["MaxPool2d kernel_size=2 -> AvgPool2d kernel_size=2"]


def test_another_operation_among_numbered_ones() -> None:
    old = network(CONV, "ReLU", WIDE)
    assert found(between(old, network(CONV, "Tanh", WIDE))) == [
        ("removed", "1", None),
        ("added", None, "1"),
    ]


def test_what_moves_into_a_group_is_renamed() -> None:
    old = network(CONV, "ReLU", WIDE)
    new = network(f"Sequential:\n    - {CONV}\n    - ReLU\nname: stem", WIDE)
    difference = between(old, new)
    assert ("renamed", "0", "stem.0") in found(difference)
    assert ("renamed", "1", "stem.1") in found(difference)
    assert {status for status, _, _ in found(difference)} == {"renamed"}


def test_a_name_given_to_a_layer_renames_it() -> None:
    difference = between(network(CONV, "ReLU"), network(CONV + "\nname: conv", "ReLU"))
    assert found(difference) == [("renamed", "0", "conv")]


def test_what_a_layer_reads() -> None:
    entries = (CONV + "\nname: a", CONV + "\nname: b", CONV + "\nname: c")
    old = network(*entries, "add: [a, c]")
    difference = between(old, network(*entries, "add: [b, c]"))
    assert edits(difference) == ["reads a, c -> b, c"]
    assert found(difference) == [("changed", "3", "3")]


def test_a_tensor_that_an_argument_names_is_shown_by_its_name() -> None:
    entries = (CONV + "\nname: a", "MaxPool2d: {kernel_size: 2}\nname: b")
    like = network(*entries, "Upsample: {like: a}\nname: up")
    twice = network(*entries, "Upsample: {scale_factor: 2}\nname: up")
    assert edits(between(twice, like)) == [
        "scale_factor 2 -> null",
        "like null -> a",
        "reads b -> b, a",
    ]
    (added,) = between(network(*entries), like).layers
    assert added.new_arguments == "like=a"
    renamed = network(CONV + "\nname: c", entries[1], "Upsample: {like: c}\nname: up")
    assert edits(between(like, renamed)) == []
    assert "like=a" in render_table(load(text=like).analyze(), width=80, columns=["args"])


def test_work_is_linear_in_the_number_of_renamed_layers() -> None:
    def steps(layers: int) -> int:
        old = network(*(CONV for _ in range(layers)))
        new = network(*(f"{CONV}\nname: c{number}" for number in range(layers)))
        return calls(lambda: between(old, new))

    steps(10)
    assert steps(800) < 9 * steps(100)


def test_what_a_layer_shares_and_how_it_starts() -> None:
    entries = (CONV + "\nname: a", WIDE + "\nname: b", CONV + "\nname: c")
    again = "Conv2d: {out_channels: 8, kernel_size: 1}\nname: d"
    old = network(*entries, again, "Conv2d: {out_channels: 8, kernel_size: 1}\nname: e\nshare: d")
    new = network(*entries, again, "Conv2d: {out_channels: 8, kernel_size: 1}\nname: e")
    assert edits(between(old, new)) == ["shares d -> nothing"]
    started = network(CONV + "\ninit: {weight: zeros}")
    assert edits(between(network(CONV), started)) == ["init as the operation does -> weight zeros"]


def test_the_network_itself() -> None:
    old = network(CONV) + "labels: [cat, dog]\n"
    new = network(CONV, size=32) + "labels: [dog, cat]\n"
    difference = between(old, new)
    assert [change.text for change in difference.network] == [
        "input image 3x16x16 -> 3x32x32",
        "output 8x16x16 -> 8x32x32",
        "labels changed",
    ]
    assert found(difference) == []
    assert difference.counts["followed"] == 1


def test_wider_arguments_of_loops_are_folded() -> None:
    difference = between(RESIDUAL, RESIDUAL, (None, "deep"))
    rows = rows_of(difference, None, 60)
    added = [row for row in rows if row.mark == "added"]
    assert [(row.label, row.kind, row.count, len(row.layers)) for row in added] == [
        ("3..39", "unit", 37, 148)
    ]
    assert difference.counts["added"] == 148


def test_a_thousand_changed_layers_are_a_few_rows() -> None:
    deep = RESIDUAL.replace("[2, 40]", "[100, 200]")
    wide = deep.replace("width: int = 8", "width: int = 16")
    difference = between(deep, wide, ("deep", "deep"))
    assert len(difference.layers) > 1000
    assert len(rows_of(difference, None, 60)) < 20


def leaves(difference: Difference, depth: int | None) -> list[tuple[int, int]]:
    """Params and MACs of the rows that end the tree."""
    rows = rows_of(difference, depth, 60)
    ends = [
        row
        for row, after in zip(rows, [*rows[1:], None], strict=True)
        if after is None or after.level <= row.level
    ]
    return [(row.delta("params"), row.delta("macs")) for row in ends]


@pytest.mark.parametrize("depth", [None, 1, 2, 3, 4])
@pytest.mark.parametrize(
    "names", [("vgg11", "vgg13"), ("resnet50", "resnet101"), ("alexnet", "vgg16")]
)
def test_rows_add_up(names: tuple[str, str], depth: int | None) -> None:
    difference = compare(*(load(name).analyze() for name in names))
    for position, figure in enumerate(("params", "macs")):
        old, new = difference.totals[figure]
        assert sum(row[position] for row in leaves(difference, depth)) == new - old


def test_variants_of_vgg() -> None:
    difference = compare(load("vgg11").analyze(), load("vgg13").analyze())
    added = [one.layer.path for one in difference.layers if one.status == "added"]
    assert len(added) == 4
    assert added[:2] == ["features.2", "features.3"]
    assert difference.counts["changed"] == 0
    assert difference.counts["removed"] == 0


def longest(a: str, b: str) -> int:
    """The length of a longest common subsequence, by the textbook's table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=10), st.text("abc", max_size=10))
def test_numbered_entries_are_the_same_in_order_as_often_as_can_be(a: str, b: str) -> None:
    found = common(a, b)
    assert found is not None
    assert all(a[i] == b[j] for i, j in found)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(found))
    assert len(found) == longest(a, b)


def test_too_many_edits_are_not_searched_for() -> None:
    assert common("a" * 2000, "b" * 2000) is None
    flat = [network(*["ReLU", other] * 1200) for other in ("Tanh", "Sigmoid")]
    difference = between(*flat)
    assert (difference.counts["added"], difference.same) == (1200, 1200)


ENTRIES = (
    CONV,
    WIDE,
    "ReLU",
    "Tanh",
    "BatchNorm2d:",
    "Sequential:\n    - ReLU\n    - Conv2d: {out_channels: 4, kernel_size: 1}",
    "Sequential:\n    - Tanh",
    "MaxPool2d: {kernel_size: 3, stride: 1, padding: 1}",
    "Sequential:\n    - BatchNorm2d:\n    - ReLU\nname: %s",
    "Conv2d: {out_channels: 8, kernel_size: 1}\nname: %s",
)


def named(entries: Sequence[str]) -> list[str]:
    """Entries whose names are all different."""
    return [
        entry % f"n{number}" if "%s" in entry else entry for number, entry in enumerate(entries)
    ]


lists = st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(lists, lists)
def test_every_layer_is_accounted_for_once(before: list[str], after: list[str]) -> None:
    old = load(text=network(*named(before))).analyze()
    new = load(text=network(*named(after))).analyze()
    assert not compare(old, old)
    difference = compare(old, new)
    counts = difference.counts
    kept = counts["changed"] + counts["renamed"] + counts["followed"] + counts["same"]
    assert counts["added"] + kept == len(new.layers)
    assert counts["removed"] + kept == len(old.layers)
    olds = [one.old.path for one in difference.layers if one.old is not None]
    news = [one.new.path for one in difference.layers if one.new is not None]
    assert len(set(olds)) == len(olds)
    assert len(set(news)) == len(news)
    for figure in ("params", "macs", "buffers"):
        was, now = difference.totals[figure]
        assert sum(one.delta(figure) for one in difference.layers) == now - was
    assert bool(difference) == (before != after) or named(before) != named(after)
    json.dumps(difference.to_dict())
    text = render_difference(difference, width=100)
    assert text.count("\n") < 200
    difference_markdown(difference)


@pytest.mark.parametrize("width", [80, 120])
def test_golden_text(width: int) -> None:
    shown = render_difference(between(RESIDUAL, RESIDUAL, (None, "other")), width=width)
    check(f"diff_other_{width}.txt", shown)
    shown = render_difference(between(RESIDUAL, RESIDUAL, ("other", "deep")), width=width)
    check(f"diff_deep_{width}.txt", shown)
    assert max(map(display_width, shown.splitlines())) <= width


def test_golden_markdown() -> None:
    check("diff_deep.md", difference_markdown(between(RESIDUAL, RESIDUAL, ("other", "deep"))))


def test_colour_is_the_same_text() -> None:
    difference = between(RESIDUAL, RESIDUAL, ("other", "deep"))
    coloured = render_difference(difference, width=100, colour=True)
    assert isinstance(coloured, Text)
    lines = [line.rstrip() for line in coloured.plain.splitlines()]
    assert lines == render_difference(difference, width=100).splitlines()
    assert {str(span.style) for span in coloured.spans} >= {"green", "yellow", "bold"}


def test_markdown_leaves_no_markup_from_names() -> None:
    text = network(CONV).replace("name: net", 'name: "<b>|*x*"')
    difference = between(text, text.replace("8", "9"))
    shown = difference_markdown(difference)
    assert shown.startswith("### \\<b\\>\\|\\*x\\* → ")
    assert "<b>" not in shown


def test_the_document() -> None:
    document = between(network(CONV, "ReLU"), network(WIDE, "ReLU", "Tanh")).to_dict()
    assert document["format"] == 1
    assert document["different"] is True
    assert document["totals"]["params"] == {"old": 224, "new": 448}
    assert document["counts"]["added"] == 1
    first = document["layers"][0]
    assert first["status"] == "changed"
    assert first["edits"] == {"arguments.out_channels": {"old": 8, "new": 16}}
    assert first["effects"]["output_shapes"] == {"old": [[8, 16, 16]], "new": [[16, 16, 16]]}
    assert document["layers"][-1]["old_path"] is None
