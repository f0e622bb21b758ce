"""The flat network: the same network, written out, and stable under the formatter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cnnspec.frontend import tree
from cnnspec.frontend.formatting import format_text
from cnnspec.frontend.load import bundled_specs, expand, load_named, load_text
from cnnspec.frontend.reader import read
from cnnspec.ir import Graph
from cnnspec.op import slots_of
from cnnspec.ops import bind, registry
from cnnspec.report import analyze
from cnnspec.report.arguments import short_arguments
from cnnspec.report.flat import FlatNetwork
from cnnspec.report.spec_text import value_text, word
from cnnspec.source import Source
from tests.zoo.networks import FEW

HEAD = "cnnspec: 1\nname: net\ninputs: {image: [4, 8, 8]}\n"


def content(graph: Graph) -> dict[str, Any]:
    """All that a network is but for its text: what the flat one has to have too."""
    nodes = graph.nodes
    return {
        "name": graph.name,
        "inputs": {name: graph.tensors[value] for name, value in graph.inputs.items()},
        "nodes": [
            {
                "path": node.path,
                "op": node.op,
                "inputs": [graph.value_name(value) for value in node.inputs],
                "outputs": [graph.tensors[value] for value in node.outputs],
                "share": None if node.share is None else nodes[node.share].path,
                "init": dict(node.init) if node.share is None else None,
                "allow": node.allow,
            }
            for node in nodes
        ],
        "outputs": [
            (output.name, graph.value_name(output.value), output.training, output.weight)
            for output in graph.outputs
        ],
        **{key: graph.metadata[key] for key in ("preprocess", "labels", "description")},
    }


def again(graph: Graph) -> Graph:
    """The network read from its flat spec, which has no mistakes and is laid out."""
    text = FlatNetwork(graph).spec()
    assert format_text(Source("flat", text)) == text, "the formatter would change it"
    loaded = load_text(text)
    assert (loaded.errors, loaded.warnings) == ((), ())
    return expand(loaded)


@pytest.mark.parametrize(("spec", "variant"), FEW)
def test_bundled_networks(spec: str, variant: str | None) -> None:
    loaded, _ = load_named(spec)
    graph = expand(loaded, variant=variant)
    assert content(again(graph)) == content(graph), f"{spec}, {variant} is another network"


CASES = {
    "a result of several": """
        layers:
          - Chunk: {chunks: 2, dim: 1}
            name: c
          - ReLU:
            from: c.1
        """,
    "several at the end": """
        layers:
          - Chunk: {chunks: 2, dim: 1}
            name: c
        """,
    "some of several": """
        layers:
          - Sequential:
              - Chunk: {chunks: 2, dim: 1}
            name: c
        outputs: [c.0.1, c.0.0]
        """,
    "outputs named after groups": """
        layers:
          - Sequential:
              - ReLU
              - Sequential: [ReLU, Tanh]
            name: c
          - Tanh:
            name: d
        outputs: [c.1, d, c, image]
        """,
    "a block's outputs, with names of entries": """
        blocks:
          b:
            outputs: [x, s.y]
            layers:
              - ReLU:
                name: x
              - Sequential:
                  - ReLU:
                    name: y
                name: s
        layers:
          - ReLU:
            name: x
          - b:
            name: q
        """,
    "names that are words of YAML": """
        layers:
          - ReLU:
            name: "-"
          - ReLU:
            name: "true"
          - ReLU:
            name: "1e3"
          - ReLU:
            name: "null"
          - ReLU:
            name: 1.5
          - ReLU:
            name: "-1"
          - add: ["-", "true", 1e3, "null", "1.5", "-1"]
        """,
    "a parameter": """
        layers:
          - Parameter: {shape: [4, 1, 1], batch: true, std: 0.5}
          - mul: [0, image]
        """,
    "shared weights": """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
            name: a
            init: {weight: {trunc_normal: {std: 1e-6}}, bias: 2}
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
            name: b
            share: a
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
            name: c
            share: b
        """,
    "initialisers that do not agree": """
        init: {Conv2d: {weight: kaiming_normal, bias: 0}}
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3}
          - Conv2d: {out_channels: 4, kernel_size: 3, bias: false}
            init: {weight: orthogonal}
        """,
    "initialisers that agree": """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3}
            init: {weight: orthogonal, bias: 0.5}
          - Conv2d: {out_channels: 4, kernel_size: 3, bias: false}
            init: {weight: orthogonal}
        """,
    "entries that are not built": """
        layers:
          - ReLU:
            name: a
          - Tanh:
            from: image
            when: false
            name: b
        outputs: {o: b, t: {from: a, training: true, weight: 0.25}}
        """,
    "an entry that is not built at the end": """
        layers:
          - ReLU
          - Tanh:
            from: image
            when: false
        """,
    "references in arguments": """
        layers:
          - MaxPool2d: {kernel_size: 2}
          - Upsample: {like: image}
          - CenterCrop: {like: "0"}
        """,
    "sides, axes and words": """
        layers:
          - Conv2d:
              out_channels: 4
              kernel_size: [3, 1]
              padding: [[1, 0], [2, 2]]
              padding_mode: reflect
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: same}
          - AdaptiveAvgPool2d: {output_size: [null, 1]}
          - Flatten: {start_dim: -2}
        """,
    "silenced warnings": """
        layers:
          - Sequential:
              - Conv2d: {out_channels: 4, kernel_size: 3, stride: 2}
                allow: dead-entry
            allow: [unread-rows]
        """,
    "many inputs of one entry": """
        layers:
          - Sequential:
              - ReLU:
                name: entry_with_a_long_name_0
            name: group
            repeat: 1
          - concat:
              - group.0.entry_with_a_long_name_0
              - group.0.entry_with_a_long_name_0
              - group.0.entry_with_a_long_name_0
              - group.0.entry_with_a_long_name_0
        """,
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_language_can_say(case: str) -> None:
    from textwrap import dedent

    graph = expand(load_text(HEAD + dedent(CASES[case])))
    assert content(again(graph)) == content(graph), f"{case}: it is another network"


def test_texts_and_several_inputs() -> None:
    graph = expand(
        load_text(
            """\
cnnspec: 1
name: "a: b"
description: "two\\nlines # and \\"quotes\\" ü \\\\ \\U0001f600 \\u2028 \\u200b"
labels: [a, "no", "1", "x, y", "", "null"]
preprocess: {resize: [256, 300], mean: [1e-9, 2], colour: bgr, scale: 1}
inputs: {a: [3], b: [2, N = 5]}
layers:
  - Linear: {out_features: 2}
    from: a
  - Linear: {out_features: 2}
    from: b
"""
        ),
        inputs={"N": 7},
    )
    assert content(again(graph)) == content(graph)


def test_arguments_of_every_operation() -> None:
    """What is written for arguments is bound to the very same op."""
    for name, op in registry().items():
        refers = {key for key, slot in slots_of(op).items() if slot.metadata["slot"].refers}
        for example in op.examples:
            bound = bind(op, example.arguments)
            text = value_text(short_arguments(bound))
            values = _plain(read(Source("", text)))
            assert isinstance(values, dict)
            assert bind(op, values) == bound, f"{name}: {text}"
            assert not refers & values.keys() or refers <= set(example.arguments)


def _plain(node: tree.Node) -> object:
    if isinstance(node, tree.Mapping):
        return {key.text: _plain(value) for key, value in node.items}
    if isinstance(node, tree.Sequence):
        return [_plain(item) for item in node.items]
    return tree.literal(node)


def test_the_source_of_every_entry() -> None:
    loaded, variant = load_named("deeplabv3")
    network = FlatNetwork(expand(loaded, variant=variant))
    text = network.spec({"params": 39638869})
    lines = {line.split("  # ")[-1] for line in text.splitlines()}
    written = bundled_specs()["deeplabv3"].read_text(encoding="utf-8").splitlines()
    resized = written.index("  - Upsample: {like: image, mode: bilinear}")
    assert f"line {resized + 1}" in lines
    inner = "in block conv, in block aspp"
    assert any(line.endswith(inner) for line in lines)
    assert any(
        line.startswith("resnet.yaml:")
        and line.endswith("in block bottleneck, s = 1, depth = 4, i = 2, in block trunk")
        for line in lines
    ), "\n".join(sorted(lines))
    assert text.endswith("\nexpect: {params: 39638869}\n")
    document = json.loads(json.dumps(network.document()))
    entries = {entry["path"]: entry for entry in document["entries"]}
    conv = entries["backbone.layer2.2.conv1"]
    assert conv["op"] == "Conv2d"
    assert conv["arguments"] == {"out_channels": 128, "kernel_size": 1, "bias": False}
    assert conv["inputs"] == ["backbone.layer2.1.9"]
    assert conv["outputs"] == {"backbone.layer2.2.conv1": [128, 65, 65]}
    assert conv["file"] == "resnet.yaml"
    assert [call["block"] for call in conv["calls"]] == ["bottleneck", "trunk"]
    assert conv["calls"][0]["loops"] == {"s": "1", "depth": "4", "i": "2"}
    assert document["outputs"]["aux"] == {
        "from": "aux",
        "shape": [21, 520, 520],
        "training": True,
        "weight": 0.5,
    }


def test_a_name_of_a_file_stays_in_its_comment() -> None:
    loaded = load_text(HEAD + "layers: [ReLU]\n", "a\nlayers: []\n# b.yaml")
    graph = expand(loaded)
    assert content(again(graph)) == content(graph)


def test_totals_and_weights_are_the_same() -> None:
    import torch

    from cnnspec.backends.torch import to_torch

    loaded, variant = load_named("mobilenet_v3_small")
    graph = expand(loaded, variant=variant)
    flat = again(graph)
    assert analyze(flat).totals == analyze(graph).totals
    one, other = to_torch(graph).state_dict(), to_torch(flat).state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("conv1", "conv1"),
        ("a.0", "a.0"),
        ("", '""'),
        ("null", '"null"'),
        ("1", '"1"'),
        ("a b", '"a b"'),
        ('"', '"\\""'),
        ("\x00\x85\u2028\U000e0001", '"\\x00\\x85\\u2028\\U000e0001"'),
    ],
)
def test_words(text: str, written: str) -> None:
    assert word(text) == written
    node = read(Source("", f"a: {written}"))
    assert isinstance(node, tree.Mapping)
    assert tree.literal(node.items[0][1]) == text  # type: ignore[arg-type]


def test_values_that_no_spec_can_have() -> None:
    with pytest.raises(TypeError):
        value_text(Path())
