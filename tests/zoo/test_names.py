"""Every network has a name that commands take; torchvision's are its own functions' names."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from cnnspec.frontend.load import bundled_names, bundled_specs, expand, load_named
from tests.cli.inside import called
from tests.golden import oracles
from tests.zoo.networks import EVERY, FEW, FILES

TORCHVISION = sorted(oracles.convolutional_classifiers() | oracles.segmenters())


def test_the_few_stand_for_every_file() -> None:
    assert set(FEW) <= set(EVERY)
    assert list(dict.fromkeys(spec for spec, _ in FEW)) == FILES
    assert max(Counter(EVERY).values()) == 1


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_names_of_torchvisions_functions(name: str) -> None:
    loaded, variant = load_named(name)
    assert expand(loaded, variant=variant).name == name


@pytest.mark.parametrize("name", ["resnext50_32x4d", "vgg16_bn", "regnet_y_400mf", "fcn_resnet50"])
def test_analyze_takes_them(name: str) -> None:
    code, out, err = called("analyze", name, "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["name"] == name
    published = oracles.published(name)
    part = "training" if published.heads_have_params else None
    totals = document["totals"][part] if part else document["totals"]
    assert totals["params"] == published.params


def test_blocks_for_others_are_no_network() -> None:
    assert "efficientnet_blocks" in bundled_specs()
    assert "efficientnet_blocks" not in {name for name, _, _ in bundled_names()}
    code, out, err = called("analyze", "efficientnet_blocks")
    assert (code, out) == (1, "")
    assert err.startswith("error[not-a-network]: this file only has blocks for others to import")
    assert called("check", "efficientnet_blocks").out == "1 spec, 0 networks: no errors\n"
    assert called("fmt", "--check", str(bundled_specs()["efficientnet_blocks"])).code == 0
    assert called("list", "efficientnet_blocks") == (
        2,
        "",
        "error: there is no network in `efficientnet_blocks`\n",
    )
