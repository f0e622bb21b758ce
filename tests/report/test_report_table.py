"""The table: golden files, and that what is printed adds up."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.report import COLUMNS, analyze, render_table
from cnnspec.report.styled import display_width
from tests.graphs import Net, Norm, Plus, Rectify, Turn
from tests.report.golden import check
from tests.report.networks import lenet, resnet50, two_heads, unfit, vgg16

NETWORKS = {
    "lenet": lenet,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "two_heads": two_heads,
    "unfit": unfit,
}


def body(text: str) -> tuple[list[str], list[str], list[str]]:
    """Heading, rows, and rows of sums of a printed table."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("──")]
    end = lines.index("", rules[1])
    return [lines[rules[0] - 1]], lines[rules[0] + 1 : rules[1]], lines[rules[1] + 1 : end]


def columns(heading: str, names: list[str]) -> dict[str, int]:
    """Where the right edge of each right-aligned column lies."""
    return {name: heading.index(name) + len(name) for name in names}


def number(line: str, edge: int) -> int:
    """The number that ends at a column's right edge; a dash is 0."""
    found = re.search(r"(\S+)$", line[:edge])
    text = found.group(1) if found else "-"
    return 0 if text == "-" else int(text.replace(",", ""))


def is_leaf(row: str, below: str | None) -> bool:
    """Whether no row of the tree hangs below a row."""

    def level(line: str) -> int:
        return len(re.match(r"[│├└─ ]*", line).group(0)) // 3  # type: ignore[union-attr]

    return below is None or level(below) <= level(row)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [80, 200])
def test_golden(name: str, width: int) -> None:
    text = render_table(analyze(NETWORKS[name]()), width=width)
    figures = text.partition("\nwarning[")[0]
    assert max(map(display_width, figures.splitlines())) <= width
    assert "\x1b" not in text
    check(f"{name}.{width}.txt", text)


def test_golden_deep_with_every_column() -> None:
    text = render_table(analyze(lenet()), width=200, depth=9, columns=list(COLUMNS))
    check("lenet.columns.txt", text)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth", [1, 2, 3, 9])
def test_printed_columns_add_up_to_the_printed_totals(name: str, depth: int) -> None:
    report = analyze(NETWORKS[name]())
    names = {"params": "params", "macs": "MACs", "flops": "FLOPs", "activations": "activations"}
    text = render_table(report, width=200, depth=depth, columns=list(names))
    (heading,), rows, sums = body(text)
    leaves = [
        row for row, below in zip(rows, [*rows[1:], None], strict=True) if is_leaf(row, below)
    ]
    for figure, edge in columns(heading, list(names.values())).items():
        attribute = next(key for key, title in names.items() if title == figure)
        printed = sum(number(row, edge) for row in leaves)
        assert printed == number(sums[-1], edge) == getattr(report.totals.training, attribute)
        assert number(sums[0], edge) == getattr(report.totals, attribute)


def test_rows_that_are_built_alike_are_one() -> None:
    text = render_table(analyze(resnet50()), width=80)
    assert re.search(r"├─ 0 bottleneck  +256x56x56 +75,008", text)
    assert re.search(r"└─ 1\.\.2 bottleneck x2 +256x56x56 +140,800", text)
    assert re.search(r"└─ 1\.\.5 bottleneck x5 +1024x14x14", text)


def test_figures_below_a_folded_row_are_sums() -> None:
    text = render_table(analyze(resnet50()), width=120, depth=3)
    assert re.search(r"│  ├─|   ├─ conv2 Conv2d x2 +64x56x56 +73,728", text)


def test_numbered_names_are_folded_by_their_numbers() -> None:
    net = Net(image=(4, 8, 8))
    for turn in range(12):
        with net.scope("layer", f"encoder_layer_{turn}"):
            net.add("Conv2d", out_channels=4, kernel_size=3, padding=1)
    assert "encoder_layer_0..11 layer x12" in render_table(analyze(net.build()), width=80)


def test_equal_blocks_of_other_shapes_stay_apart() -> None:
    net = Net(image=(4, 8, 8))
    for channels in (4, 4, 5):
        with net.scope("layer"):
            net.add("Conv2d", out_channels=channels, kernel_size=3, padding=1)
    text = render_table(analyze(net.build()), width=80, depth=1)
    assert "0..1 layer x2" in text
    assert re.search(r"^2 layer +5x8x8", text, re.MULTILINE)


def test_inline_scopes_add_no_level() -> None:
    net = Net(image=(4, 8, 8))
    with net.scope("Sequential", inline=True):
        net.add(Norm(), name="a")
        net.add(Rectify(), name="b")
    _, rows, _ = body(render_table(analyze(net.build()), width=80))
    assert [row.split()[0] for row in rows] == ["a", "b"]


def test_depth_without_a_wish_keeps_the_table_short() -> None:
    net = Net(image=(1, 4, 4))
    for _ in range(2):
        with net.scope("stage"):
            for units in range(40):
                net.add("Conv2d", out_channels=1 + units % 2, kernel_size=1)
    graph = net.build()
    _, short, _ = body(render_table(analyze(graph), width=80))
    _, full, _ = body(render_table(analyze(graph), width=80, depth=2))
    assert len(short) == 2
    assert len(full) == 82


def test_fields_in_a_few_characters() -> None:
    net = Net(image=(1, 32, 32))
    net.add("Conv2d", out_channels=1, kernel_size=[3, 5], stride=[1, 2], name="uneven")
    net.add(Turn(), name="turned")
    square = Net(left=(1, 8, 8), right=(1, 8, 8))
    wide = square.add("Conv2d", 0, out_channels=1, kernel_size=3, padding=1)
    square.add(Plus(), wide, 1, name="joined")
    assert re.search(r"uneven Conv2d .* 3x5/1x2$", table(net.build()), re.MULTILINE)
    assert re.search(r"joined Plus .* left 3/1, right 1/1$", table(square.build()), re.MULTILINE)


def table(graph: Graph) -> str:
    return render_table(analyze(graph), width=100, columns=["output", "field"])


def test_arguments_are_those_that_differ_from_defaults() -> None:
    text = render_table(analyze(resnet50()), width=160, columns=["args"])
    assert re.search(
        r"conv1 Conv2d +out_channels=64 kernel_size=7 stride=2 padding=3 bias=false", text
    )
    assert "width=64 stride=1" in text


def test_a_column_or_depth_that_does_not_exist() -> None:
    report = analyze(lenet())
    with pytest.raises(EnvironmentFailure) as raised:
        render_table(report, width=80, columns=["parms"])
    assert raised.value.message == "there is no column `parms`"
    assert raised.value.help == "did you mean `params`?"
    with pytest.raises(EnvironmentFailure, match="a depth of 0 shows nothing"):
        render_table(report, width=80, depth=0)


def test_long_names_give_way_and_digits_never() -> None:
    net = Net(image=(3, 64, 64))
    net.add("Conv2d", out_channels=64, kernel_size=3, name="a" * 70)
    text = render_table(analyze(net.build()), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "aaaa…" in text
    assert "1,792" in text


def test_colour_changes_no_text() -> None:
    report = analyze(unfit())
    plain = render_table(report, width=100)
    rich = render_table(report, width=100, colour=True)
    assert isinstance(rich, Text)
    out = StringIO()
    Console(file=out, width=100, color_system=None, force_terminal=False).print(
        rich, end="", soft_wrap=True
    )
    assert [line.rstrip() for line in out.getvalue().splitlines()] == plain.splitlines()
    styled = StringIO()
    Console(file=styled, width=100, color_system="standard", force_terminal=True).print(rich)
    assert "\x1b[" in styled.getvalue()


def test_markup_and_control_characters_in_names_do_nothing() -> None:
    net = Net("[red]x[/red]\x1b[31m", image=(3, 8, 8))
    net.add(Rectify())
    report = analyze(net.build())
    rich = render_table(report, width=80, colour=True)
    assert isinstance(rich, Text)
    assert rich.plain.startswith("[red]x[/red]\\x1b[31m  3x8x8")
