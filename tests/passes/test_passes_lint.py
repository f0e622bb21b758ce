"""Findings: their text and place, what silences them, and that one cause is reported once."""

from __future__ import annotations

from cnnspec.diagnostics import Diagnostic
from cnnspec.passes import Options, run
from cnnspec.passes.lint import Lint
from tests.graphs import Net, Plus, Rectify


def findings(net: Net, strict: bool = False, **outputs: int) -> tuple[Diagnostic, ...]:
    return run(net.build(outputs or None), Options(strict=strict))[Lint].diagnostics


def test_unread_rows_are_named() -> None:
    net = Net(image=(1, 8, 9))
    net.add("Conv2d", out_channels=1, kernel_size=3, stride=[4, 4])
    (found,) = findings(net)
    assert (found.severity, found.code) == ("warning", "unread-rows")
    assert found.message == (
        "along width the last 2 of 9 (positions 7 to 8, counted from 0) are never read"
    )
    assert found.span is not None
    assert found.span.line == 2
    assert found.label == "the input is 1x8x9"


def test_unread_rows_of_both_axes_are_one_finding() -> None:
    net = Net(image=(1, 6, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3, stride=[2, 3])
    (found,) = findings(net)
    assert found.message == "along height the last of 6 (position 5, counted from 0) is never read"
    assert [note.message for note in found.notes] == [
        "along width the last 2 of 8 (positions 6 to 7, counted from 0) are never read"
    ]


def test_padding_that_goes_unread_is_no_finding_unless_strict() -> None:
    net = Net(image=(1, 224, 224))
    net.add("Conv2d", out_channels=1, kernel_size=7, stride=2, padding=3)
    assert findings(net) == ()
    (found,) = findings(net, strict=True)
    assert (found.severity, found.code) == ("error", "does-not-fit")
    assert found.message == (
        "the stride does not fit: along height of 224, 1 position of the padded input is left over"
    )


def test_strict_says_one_thing_about_one_cause() -> None:
    net = Net(image=(1, 7, 7))
    net.add("Conv2d", out_channels=1, kernel_size=3, stride=3)
    assert [found.code for found in findings(net, strict=True)] == ["does-not-fit"]


def test_allow_silences_by_code() -> None:
    net = Net(image=(1, 6, 6))
    net.add("Conv2d", out_channels=1, kernel_size=3, stride=2, allow=["unread-rows"])
    net.add(Rectify(), allow=["dead-entry"])
    assert findings(net, y=1) == ()
    assert [found.code for found in findings(net, strict=True, y=1)] == ["does-not-fit"]


def test_a_kernel_larger_than_its_input() -> None:
    net = Net(image=(1, 2, 8))
    net.add("Conv2d", out_channels=1, kernel_size=3, padding=1)
    (found,) = findings(net)
    assert found.code == "kernel-exceeds-input"
    assert found.message == (
        "the kernel covers 3 along height, but the input has 2 without its padding"
    )


def test_a_dilated_kernel_counts_with_its_extent() -> None:
    net = Net(image=(1, 4, 4))
    net.add("Conv2d", out_channels=1, kernel_size=3, dilation=2, padding=2)
    assert [found.code for found in findings(net)] == ["kernel-exceeds-input"]


def test_an_entry_of_a_loop_is_reported_once() -> None:
    net = Net(image=(1, 2, 2))
    with net.scope("Sequential", "stage"):
        first = net.add("Conv2d", out_channels=1, kernel_size=3, padding=1)
        span = net.nodes[-1].span
        for _ in range(4):
            net.add("Conv2d", out_channels=1, kernel_size=3, padding=1, span=span)
    assert first == 1
    (found,) = findings(net)
    assert [note.message for note in found.notes] == [
        "in `stage.0` and 4 more written by this entry"
    ]


def test_the_chain_of_calls_is_told() -> None:
    net = Net(image=(1, 2, 2))
    with net.scope("encoder", "down"), net.scope("unit", "a"):
        net.add("Conv2d", out_channels=1, kernel_size=3, padding=1)
    (found,) = findings(net)
    assert [note.message for note in found.notes] == [
        "in `unit`, called at net.yaml:3:5",
        "in `encoder`, called at net.yaml:2:5",
    ]


def test_a_dead_entry_and_not_what_follows_it() -> None:
    net = Net(image=(1, 8, 8))
    live = net.add(Rectify())
    net.add("Conv2d", out_channels=2, kernel_size=1, name="forgotten")
    net.add(Rectify())
    net.add(Rectify())
    (found,) = findings(net, y=live)
    assert found.code == "dead-entry"
    assert found.message == "no output depends on `forgotten`"
    assert [note.message for note in found.notes] == ["2 operations after it also lead nowhere"]


def test_a_dead_call_is_named_as_a_whole() -> None:
    net = Net(image=(1, 8, 8))
    live = net.add(Rectify())
    with net.scope("head", "aux"):
        net.add(Rectify())
        net.add(Rectify())
    (found,) = findings(net, y=live)
    assert found.message == "no output depends on `aux`"
    assert found.notes == () or all("lead nowhere" not in note.message for note in found.notes)
    assert found.span is not None
    assert found.span.line == 3


def test_two_dead_branches_that_meet_are_one_cause_and_two_apart_are_two() -> None:
    net = Net(image=(1, 8, 8))
    live = net.add(Rectify(), name="live")
    left = net.add(Rectify(), live, name="left")
    right = net.add(Rectify(), live, name="right")
    net.add(Plus(), left, right)
    net.add(Rectify(), live, name="alone")
    assert [found.message for found in findings(net, y=live)] == [
        "no output depends on `left`",
        "no output depends on `alone`",
    ]


def test_what_only_training_needs_is_not_dead() -> None:
    net = Net(image=(1, 8, 8))
    live = net.add(Rectify())
    aux = net.add(Rectify())
    assert run(net.build({"y": live}, training={"aux": aux}), Options())[Lint].diagnostics == ()
