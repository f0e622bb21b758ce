"""Budgets: what is read, what is kept, who is to blame."""

from __future__ import annotations

import pytest

from cnnspec import load
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report.sections.budget import FIGURES, Budget, parse_budget
from cnnspec.report.styled import as_plain


def budget(text: str, name: str = "resnet50") -> Budget:
    return Budget(load(name).analyze(), parse_budget(text))


@pytest.mark.parametrize(
    ("text", "figure", "comparison", "bound"),
    [
        ("macs<4.2G", "macs", "<", 4.2e9),
        (" params <= 26 M ", "params", "<=", 26e6),
        ("peak<8MiB", "peak", "<", 8 * 2**20),
        ("weights<100MB", "weights", "<", 100e6),
        ("peak<8kib", "peak", "<", 8 * 1024),
        ("field>=224", "field", ">=", 224),
        ("layers=175", "layers", "=", 175),
        ("layers==175", "layers", "=", 175),
        ("params<25_557_033", "params", "<", 25557033),
        ("macs ≤ 5e0", "macs", "<=", None),
    ],
)
def test_limits(text: str, figure: str, comparison: str, bound: float | None) -> None:
    if bound is None:
        with pytest.raises(EnvironmentFailure):
            parse_budget(text)
        return
    (limit,) = parse_budget(text)
    assert (limit.figure, limit.comparison, limit.bound) == (figure, comparison, bound)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--budget needs at least one limit"),
        ("macs", "`macs` is no limit"),
        ("macs<", "`macs<` is no limit"),
        ("mac<4G", "a budget knows no figure `mac`"),
        ("macs<4X", "`macs` has no unit `X`"),
        ("macs<4GiB", "`macs` has no unit `GiB`"),
        ("macs<4G params<2M", "`macs<4G params<2M` is no limit"),
    ],
)
def test_what_is_no_limit(text: str, message: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        parse_budget(text)
    assert failure.value.message == message


def test_kept() -> None:
    found = budget("macs<4.2G, params<26M, peak<10MiB, field>400, layers=175")
    assert found.kept
    assert [outcome.value for outcome in found.outcomes] == [
        4089184256,
        25557032,
        9633792,
        427,
        175,
    ]
    assert all(outcome.culprits == () for outcome in found.outcomes)


def test_the_bound_itself() -> None:
    assert not budget("params<25557032").kept
    assert budget("params<=25557032").kept


def test_culprits() -> None:
    macs, peak, field = budget("macs<4G, peak<9MiB, field>500").outcomes
    assert macs.culprits[0] == ("conv1", pytest.approx(118013952 / 4089184256))
    assert [path for path, _ in peak.culprits] == [
        "layer1.0.bn3",
        "layer1.0.downsample.1",
        "layer1.0.9",
    ]
    assert sum(share for _, share in peak.culprits) == pytest.approx(1)
    assert field.culprits == ()
    assert not field.kept


def test_layers_of_training_are_not_to_blame() -> None:
    (params,) = budget("params<1M", "googlenet").outcomes
    assert not any(path.startswith("aux") for path, _ in params.culprits)


def test_text_and_document() -> None:
    found = budget("macs<4G, params<26M")
    text = as_plain(found.lines(100))
    assert "not kept, 102.2% of it; most: conv1 (2.9%)" in text
    assert "kept, 98.3% of it" in text
    document = found.to_dict()
    assert document["kept"] is False
    assert document["limits"][0]["culprits"][0]["path"] == "conv1"
    assert document["limits"][1] == {
        "limit": "params<26M",
        "figure": "params",
        "bound": 26e6,
        "value": 25557032,
        "kept": True,
        "culprits": [],
    }


def test_every_figure_has_a_value() -> None:
    report = load("resnet18").analyze()
    assert all(figure.value(report) is not None for figure in FIGURES.values())
    flat = load(
        text="cnnspec: 1\nname: n\ninputs: {x: [4]}\nlayers:\n  - Linear: {out_features: 2}\n"
    )
    found = Budget(flat.analyze(), parse_budget("field>1"))
    assert not found.kept
    assert "not known" in as_plain(found.lines(80))
