"""`ops` as users meet it."""

from __future__ import annotations

import json

from cnnspec.ops import registry
from tests.cli.inside import called


def test_the_list() -> None:
    code, out, err = called("ops", COLUMNS="140")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(names) == sorted(registry())
    assert lines[0] == "with units"
    assert max(map(len, lines)) <= 140
    (conv,) = (line for line in lines if line.startswith("  Conv2d "))
    assert "Slides filters over an image" in conv
    assert "{out_channels, " in conv


def test_the_list_as_json() -> None:
    document = json.loads(called("ops", "--format", "json").out)
    assert [one["name"] for one in document] == list(registry())
    assert set(document[0]) == {"name", "group", "signature", "summary"}


def test_a_page() -> None:
    page = called("ops", "Conv2d")
    assert (page.code, page.err) == (0, "")
    assert page.out.startswith("# Conv2d\n")
    assert called("ops", "conv2d") == page
    assert "\x1b[" in called("ops", "conv2d", FORCE_COLOR="1").out
    document = json.loads(called("ops", "conv2d", "--format", "json").out)
    assert document["format"] == 1
    assert document["arguments"][0]["name"] == "out_channels"


def test_an_operation_that_is_not_there() -> None:
    assert called("ops", "Conv2") == (
        2,
        "",
        "error: there is no operation `Conv2`\nhelp: did you mean `Conv2d`?\n",
    )
