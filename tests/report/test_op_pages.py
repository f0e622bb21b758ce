"""The pages of operations: every example on them is a spec that does what the page says."""

from __future__ import annotations

import json

import pytest

from cnnspec import load
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.op import field_docs, slots_of
from cnnspec.ops import registry
from cnnspec.report.op_pages import op_index, op_markdown, op_named, op_pages


@pytest.mark.parametrize("name", registry())
def test_examples_load_and_give_what_the_page_says(name: str) -> None:
    for example in op_named(name).examples:
        inputs = "".join(
            f"  {letter}: [{', '.join(map(str, shape))}]\n"
            for letter, shape in zip("abcdefghij", example.inputs, strict=False)
        )
        entry = "".join(f"  {line}\n" for line in example.yaml.splitlines())
        declared = f"inputs:\n{inputs}" if inputs else "inputs: {unused: [1]}\n"
        if any(len(shape) not in (1, 2, 3, 4) for shape in example.inputs):
            continue  # no network can have such an input
        network = load(text=f"cnnspec: 1\nname: net\n{declared}layers:\n{entry}")
        node = network.graph.nodes[-1]
        outputs = tuple(network.graph.tensors[value].shape for value in node.outputs)
        assert outputs == example.outputs
        layer = network.analyze().layers[-1]
        assert (layer.params, layer.macs) == (example.params, example.macs)


@pytest.mark.parametrize("name", registry())
def test_a_page_names_all_there_is(name: str) -> None:
    page = op_named(name)
    text = op_markdown(page)
    op = registry()[name]
    assert text.startswith(f"# {name}\n\n{page.description}\n")
    for argument, meaning in field_docs(op).items():
        assert f"\n- `{argument}`, " in text
        assert " ".join(meaning.split()) in text
    assert text.count("```yaml") == len(op.examples)
    assert page.torch
    assert not text.endswith("\n\n")
    document = page.to_dict()
    assert [one["name"] for one in document["arguments"]] == list(slots_of(op))
    json.dumps(document)


def test_every_operation_is_in_one_group() -> None:
    index = op_index(op_pages())
    names = [page.name for members in index.values() for page in members]
    assert sorted(names) == sorted(registry())
    of = {page.name: group for group, members in index.items() for page in members}
    assert of["Conv2d"] == of["Linear"] == "with units"
    assert of["add"] == of["Concat"] == "joins of tensors"
    assert of["Dropout"] == "left out at inference"
    assert of["BatchNorm2d"] == "with something stored"
    assert of["ReLU"] == "element by element"
    assert of["Flatten"] == "moving values about"
    assert of["MaxPool2d"] == "pooling, norms and others that look around"


def test_names() -> None:
    assert op_named("conv2d").name == "Conv2d"
    assert op_named("RELU6").name == "ReLU6"
    assert op_named("Concat").name == "Concat"
    assert op_named("concat").name == "concat"
    with pytest.raises(EnvironmentFailure) as failure:
        op_named("CONCAT")
    assert failure.value.help == "there are `Concat`, `concat`"
    with pytest.raises(EnvironmentFailure) as failure:
        op_named("Conv2")
    assert failure.value.help == "did you mean `Conv2d`?"
    with pytest.raises(EnvironmentFailure) as failure:
        op_named("xyzzy")
    assert failure.value.help == "`cnnspec ops` lists all"


def test_conv2d() -> None:
    page = op_named("Conv2d")
    assert page.signature.startswith("Conv2d: {out_channels, kernel_size, stride: 1, padding: 0, ")
    assert dict(page.stores) == {"weight": (10, 3, 5, 5), "bias": (10,)}
    assert "nn.Conv2d" in page.torch
    assert page.onnx[0] == "Conv"
    assert page.folds == "a batch norm behind it folds into it"
    first = page.examples[0]
    assert first.yaml == "- Conv2d: {out_channels: 10, kernel_size: 5, padding: 2}"
    assert (first.params, first.macs, first.outputs) == (760, 768_000, ((10, 32, 32),))
