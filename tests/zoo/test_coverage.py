"""What the campaign over the whole zoo found, and the page that says so: never typed, never stale.

`python -m bench.zoo` measures what is missing and writes both.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import zoo
from cnnspec.report.catalogue import bundled_networks
from tests.golden import oracles

DOCUMENT: dict[str, Any] = json.loads((zoo.RESULTS / "zoo.json").read_text(encoding="utf-8"))
NETWORKS: dict[str, Any] = DOCUMENT["networks"]


def test_every_network_was_measured_in_the_order_of_the_list() -> None:
    assert list(NETWORKS) == [one.name for one in bundled_networks()]


def test_the_page_is_what_was_measured() -> None:
    assert zoo.PAGE.read_text(encoding="utf-8") == zoo.page(NETWORKS), "python -m bench.zoo"


@pytest.mark.parametrize("part", zoo.PARTS)
def test_nothing_failed(part: str) -> None:
    assert [name for name, of in NETWORKS.items() if zoo.passed(of, part) is False] == []


def test_torchvisions_networks_are_weight_exact() -> None:
    exact = {of["torchvision"] for of in NETWORKS.values() if zoo.passed(of, "weights")}
    assert exact == set(oracles.NETWORKS)


def test_figures_are_those_of_the_specs() -> None:
    """Those of a spec that has changed since are measured anew."""
    for one in bundled_networks():
        expected = NETWORKS[one.name]
        found = one.analyze()
        assert (found.params, found.macs) == (expected["params"], expected["macs"]), one.name
        assert [list(shape) for shape in found.inputs.values()] == expected["input"]
