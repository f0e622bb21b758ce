"""The bundled specs against torchvision's models, published figures, and what they expect.

Three independent sources: torchvision (keys, shapes, counts), `facts.json` (figures computed from
the papers' tables), and the `expect` of each spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml

import cnnspec
from cnnspec.ir import Node
from cnnspec.report import Report
from cnnspec.report.model import Layer
from tests.fuzzing.comparison import module_of
from tests.golden import oracles

SPECS = Path(__file__).parents[2] / "specs"
FACTS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("facts.json").read_text())

PER_AXIS = frozenset({"kernel_size", "stride", "padding", "dilation"})
SETTINGS = (*sorted(PER_AXIS), "groups", "ceil_mode", "eps", "momentum", "p", "num_heads")
CASES = [(spec, variant) for spec, variants in oracles.SHARED.items() for variant in variants]
FIXED = frozenset({"MaskedConv2d", "RBF"})
"""Operations with buffers that are no statistics."""
NESTED = frozenset({"output", "receptive_field"})
BLOCKS_ONLY = ["efficientnet_blocks"]
ALIASES = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


@cache
def network(spec: str, variant: str | None = None) -> cnnspec.Network:
    return cnnspec.load(SPECS / f"{spec}.yaml", variant=variant)


@cache
def report(spec: str, variant: str | None = None) -> Any:
    return network(spec, variant).analyze()


@cache
def written(spec: str) -> dict[str, Any]:
    return yaml.safe_load((SPECS / f"{spec}.yaml").read_text(encoding="utf-8"))


def bundled() -> list[tuple[str, str | None]]:
    """Every network: of each spec by itself, and with each of its variants."""
    found: list[tuple[str, str | None]] = []
    for path in sorted(SPECS.glob("*.yaml")):
        if "layers" not in written(path.stem):
            continue
        variants = written(path.stem).get("variants") or {}
        found.append((path.stem, None))
        found.extend((path.stem, variant) for variant in variants)
    return found


def state(net: cnnspec.Network) -> dict[str, tuple[int, ...]]:
    """Shapes by state-dict key, from the ops' own rules."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in net.graph.nodes:
        if node.share is not None:
            continue
        at = net.graph.site(node)
        stored = {
            **node.op.weights(at),
            **{name: b for name, b in node.op.buffers(at).items() if b.persistent},
        }
        for name, tensor in stored.items():
            key = f"{node.path}.{name}" if name else node.path
            assert key not in shapes
            shapes[key] = tensor.shape
    return shapes


def inference(net: cnnspec.Network, *, with_heads: bool = False) -> list[Node]:
    nodes = net.graph.nodes
    return [node for node in nodes if with_heads or node.index in net.graph.inference]


def params(net: cnnspec.Network, nodes: Iterable[Node]) -> int:
    return sum(
        weight.elements
        for node in nodes
        if node.share is None
        for weight in node.op.weights(net.graph.site(node)).values()
    )


def macs(net: cnnspec.Network, nodes: Iterable[Node]) -> int:
    return sum(node.op.cost(net.graph.site(node)).mac for node in nodes)


# ------------------------------------------------------------------------------ each by itself


@pytest.mark.parametrize(("spec", "variant"), bundled())
def test_loads_without_a_warning(spec: str, variant: str | None) -> None:
    net = network(spec, variant)
    assert net.name == ALIASES.get(variant or "", variant or written(spec)["name"])
    assert [(w.code, w.message) for w in report(spec, variant).warnings] == []


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_is_short_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if line != line.rstrip() or "\t" in line] == []


def test_specs_without_a_network_are_known() -> None:
    stems = {path.stem for path in SPECS.glob("*.yaml")}
    assert sorted(stems - {spec for spec, _ in bundled()}) == BLOCKS_ONLY


@pytest.mark.parametrize(("spec", "variant"), bundled())
def test_expectations_hold(spec: str, variant: str | None) -> None:
    name = ALIASES.get(variant or "", variant or written(spec)["name"])
    expect = written(spec)["expect"]
    expect = expect.get(name, expect if variant is None else None)
    assert expect.keys() >= {"params", "macs", "output"}
    found = report(spec, variant)
    actual: dict[str, Any] = {key: getattr(found.totals, key) for key in expect.keys() - NESTED}
    actual["output"] = sizes(found, expect["output"])
    if "receptive_field" in expect:
        actual["receptive_field"] = seen(found, expect["receptive_field"])
    assert actual == expect


def sizes(found: Report, stated: Any) -> Any:
    """The outputs that are spoken of, or the first."""
    if isinstance(stated, dict):
        return {name: list(found.outputs[name]) for name in stated}
    return list(found.outputs[next(iter(found.outputs))])


def seen(found: Report, stated: Any) -> Any:
    """What the layers see that are spoken of, or the last that has not seen all."""
    if isinstance(stated, dict):
        return {path: seen_by(found[path]) for path in stated}
    assert found.last_local is not None
    return seen_by(found.last_local)


def seen_by(layer: Layer) -> int | list[int]:
    assert layer.receptive_field is not None
    axes = [axis.field.size for axis in layer.receptive_field]
    return axes[0] if len({*axes}) == 1 else axes


def test_letters_of_the_vgg_paper_are_variants_of_torchvision() -> None:
    for letter, variant in ALIASES.items():
        name = None if variant == "vgg16" else variant
        assert state(network("vgg", letter)) == state(network("vgg", name))


# ---------------------------------------------------------------------------- torchvision's own


def named(spec: str, variant: str) -> cnnspec.Network:
    """The variant, where the spec's own name stands for none."""
    return network(spec, None if variant == written(spec)["name"] else variant)


def test_the_zoo_has_every_convolutional_network_of_torchvision() -> None:
    classifiers = oracles.convolutional_classifiers()
    assert len(classifiers) == 68
    assert len(oracles.segmenters()) == 6
    assert set(oracles.NETWORKS) - {"vit_b_16"} == classifiers | oracles.segmenters()


def test_every_network_of_torchvision_is_compared() -> None:
    known = oracles.names()
    found = {
        (spec, variant or written(spec)["name"])
        for spec, variant in bundled()
        if (variant or written(spec)["name"]) in known
    }
    assert found == set(CASES)


@pytest.mark.parametrize(("spec", "variant"), CASES)
def test_state_dict_is_torchvisions(spec: str, variant: str) -> None:
    """What the ops say, and what the generated module has: keys in order, shapes and types."""
    net = named(spec, variant)
    assert state(net) == oracles.shapes(oracles.model(variant))
    assert oracles.stored(module_of(net.graph)) == oracles.stored(oracles.model(variant))


def settings(owner: object) -> dict[str, Any]:
    """What a module and an op both say of themselves, with one number per axis and side."""
    found = {}
    for name in SETTINGS:
        value = getattr(owner, name, None)
        if name == "stride" and value is None:
            value = getattr(owner, "kernel_size", None)
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            assert all(before == after for before, after in value)
            value = tuple(before for before, _ in value)
        found[name] = (value, value) if name in PER_AXIS and isinstance(value, int) else value
    return found


@pytest.mark.parametrize(("spec", "variant"), CASES)
def test_settings_are_torchvisions(spec: str, variant: str) -> None:
    """Strides, paddings, epsilons, dropout rates: what a state dict does not show."""
    ops = {path: node.op for path, node in named(spec, variant).graph.by_path.items()}
    modules = dict(oracles.model(variant).named_modules())
    both = ops.keys() & modules.keys()
    owners = {key.rpartition(".")[0] for key in state(named(spec, variant)).keys() - ops.keys()}
    assert {path for path in owners - both if not path.endswith(".out_proj")} == set()
    differing = {
        path: (mine, theirs)
        for path in both
        if (mine := settings(ops[path])) != (theirs := settings(modules[path]))
    }
    assert differing == {}


@pytest.mark.parametrize(("spec", "variant"), CASES)
def test_figures_are_torchvisions(spec: str, variant: str) -> None:
    net = named(spec, variant)
    published = oracles.published(variant)
    counted = inference(net, with_heads=published.heads_have_params)
    assert params(net, counted) == published.params
    counted = inference(net, with_heads=published.heads_have_macs)
    assert round(macs(net, counted) / 1e9, 3) == published.gmacs


@pytest.mark.parametrize(("spec", "variant"), CASES)
def test_outputs_are_torchvisions(spec: str, variant: str) -> None:
    graph = named(spec, variant).graph
    inputs = [graph.tensors[value].shape for value in graph.inputs.values()]
    outputs = [graph.tensors[o.value].shape for o in graph.outputs if not o.training]
    assert outputs == oracles.output_shapes(variant, *inputs)[: len(outputs)]


def test_feature_pyramid_has_torchvisions_keys() -> None:
    assert state(network("fpn")) == oracles.shapes(oracles.pyramid())


def test_style_features_load_from_vgg19() -> None:
    theirs = oracles.shapes(oracles.model("vgg19"))
    ours = state(network("style"))
    assert ours == {key: theirs[key] for key in ours}
    assert max(int(key.split(".")[1]) for key in ours) == 28


@pytest.mark.parametrize(("hand", "family"), [("vgg16", "vgg"), ("resnet50", "resnet")])
def test_hand_written_and_family_agree(hand: str, family: str) -> None:
    one, other = network(hand).graph, network(family).graph
    assert [(n.path, n.op) for n in one.nodes] == [(n.path, n.op) for n in other.nodes]


# ----------------------------------------------------------------------------- published figures


def fact_id(fact: Mapping[str, Any]) -> str:
    return f"{fact['spec']}-{fact['variant'] or 'itself'}"


def spatial(net: cnnspec.Network) -> list[Node]:
    """Convolutions, linear layers and pools, without shortcuts and adaptive pools."""
    kinds = {"Conv2d", "Linear", "MaxPool2d", "AvgPool2d"}
    return [node for node in net.graph.nodes if node.op.name in kinds]


def counted(net: cnnspec.Network, nodes: Iterable[Node]) -> dict[str, int]:
    """Figures as `facts.json` has them: without the counters of batch norms."""
    nodes = list(nodes)
    buffers = [
        buffer.elements
        for node in nodes
        if node.op.name not in FIXED
        for buffer in node.op.buffers(net.graph.site(node)).values()
        if buffer.shape
    ]
    return {"params": params(net, nodes), "norm_buffers": sum(buffers), "macs": macs(net, nodes)}


@pytest.mark.parametrize("fact", FACTS, ids=fact_id)
def test_totals_are_those_published(fact: Mapping[str, Any]) -> None:
    net = network(fact["spec"], fact["variant"])
    own = {key: fact[key] for key in ("params", "norm_buffers", "macs")}
    assert counted(net, inference(net)) == own
    if "with_heads" in fact:
        assert counted(net, inference(net, with_heads=True)) == fact["with_heads"]
    if "features" in fact:
        features = [node for node in net.graph.nodes if node.path.startswith("features.")]
        assert params(net, features) == fact["features"]
    if "connections" in fact:
        totals = report(fact["spec"], fact["variant"]).totals
        assert totals.connections_with_bias == fact["connections"]


@pytest.mark.parametrize("fact", [f for f in FACTS if "layers" in f], ids=fact_id)
def test_layers_are_those_published(fact: Mapping[str, Any]) -> None:
    net = network(fact["spec"], fact["variant"])
    for node, row in zip(spatial(net), fact["layers"], strict=True):
        at = net.graph.site(node)
        assert prod(at.y.shape) == prod(row["shape"]), node.path
        assert params(net, [node]) == row["params"], node.path
        assert node.op.cost(at).mac == row["macs"], node.path


@pytest.mark.parametrize("fact", [f for f in FACTS if "stages" in f], ids=fact_id)
def test_stages_have_the_papers_shapes(fact: Mapping[str, Any]) -> None:
    graph = network(fact["spec"], fact["variant"]).graph
    for stage, row in fact["stages"].items():
        last = [node for node in graph.nodes if node.path.startswith(f"{stage}.")][-1]
        assert graph.site(last).y.shape == tuple(row["shape"])
