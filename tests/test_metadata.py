"""What a file says about itself: written one way, and read without trust."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import ModelMetadata, Preprocess, tensors_hash

FULL = ModelMetadata(
    name="net é",
    spec="cnnspec: 1\nname: net é\n",
    weights_sha256="0" * 64,
    tensors_sha256="1" * 64,
    inputs={"image": (3, 8, 9)},
    outputs={"b": (5,), "a": (2, 4, 4)},
    labels=("cat", "dog"),
    preprocess=Preprocess(256, (224, 224), "bicubic", 1.0, (0.5,), (1.0, 2.0, 3.0), "bgr"),
    in_graph="full",
    softmax=True,
    precision="int8",
    batch=4,
    size="dynamic",
    versions={"torch": "2", "cnnspec": "1"},
)
PLAIN = ModelMetadata(
    name="net",
    spec="",
    weights_sha256="f" * 64,
    tensors_sha256="e" * 64,
    inputs={},
    outputs={},
)


def changed(**values: Any) -> str:
    return json.dumps({**FULL.to_dict(), **values})


@pytest.mark.parametrize("metadata", [FULL, PLAIN])
def test_what_is_written_is_what_is_read(metadata: ModelMetadata) -> None:
    read = ModelMetadata.from_json(metadata.to_json())
    assert read == metadata
    assert read.to_json() == metadata.to_json()


def test_the_text_is_ascii_on_one_line_in_a_fixed_order() -> None:
    text = FULL.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert list(json.loads(text)) == [
        "format", "name", "spec", "spec_sha256", "weights_sha256", "tensors_sha256", "inputs",
        "outputs", "labels", "preprocess", "in_graph", "softmax", "precision", "batch", "size",
        "versions",
    ]  # fmt: skip
    assert list(json.loads(text)["outputs"]) == ["b", "a"], "outputs keep their order"
    assert list(json.loads(text)["versions"]) == ["cnnspec", "torch"]


def test_keys_of_later_versions_are_passed_over() -> None:
    assert ModelMetadata.from_json(changed(more={"a": 1})) == FULL


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"format": 2}, "format"),
        ({"format": True}, "format"),
        ({"name": 3}, "name"),
        ({"name": "x" * 100_000}, "name"),
        ({"spec": None}, "spec"),
        ({"spec": "another"}, "not the one it was written with"),
        ({"spec_sha256": "0" * 63}, "spec_sha256"),
        ({"weights_sha256": "g" * 64}, "weights_sha256"),
        ({"tensors_sha256": "1" * 63}, "tensors_sha256"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {"image": "3x8x8"}}, "inputs"),
        ({"inputs": {"image": [3, 8, -1]}}, "inputs"),
        ({"inputs": {"image": [3, 8, 1e9]}}, "inputs"),
        ({"inputs": {"image": [10**30]}}, "inputs"),
        ({"outputs": {"y": [True]}}, "outputs"),
        ({"labels": "cat"}, "labels"),
        ({"labels": ["cat", 1]}, "labels"),
        ({"labels": ["x"] * 1_000_001}, "labels"),
        ({"preprocess": [1]}, "preprocess"),
        ({"preprocess": None}, "preprocess"),
        ({"in_graph": "some"}, "in_graph"),
        ({"in_graph": ["full"]}, "in_graph"),
        ({"softmax": 1}, "softmax"),
        ({"precision": "float64"}, "precision"),
        ({"batch": 0}, "batch"),
        ({"batch": "two"}, "batch"),
        ({"size": 3}, "size"),
        ({"versions": {"torch": 2}}, "versions"),
        ({"versions": {str(i): "1" for i in range(200)}}, "versions"),
    ],
)
def test_values_that_make_no_sense_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        ModelMetadata.from_json(changed(**values))
    assert named in failure.value.message
    assert len(failure.value.message) < 300, "what was read is not repeated"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        "[" * 100_000,
        '{"format": NaN}',
        FULL.to_json().replace("cat", r"\ud800"),
        "1" * 10_000,
    ],
)
def test_text_that_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(EnvironmentFailure, match="cannot be"):
        ModelMetadata.from_json(text)


def test_a_block_beyond_all_measure_is_not_parsed() -> None:
    with pytest.raises(EnvironmentFailure, match="64,000,001 characters"):
        ModelMetadata.from_json(" " * 64_000_001)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(key=st.sampled_from(list(FULL.to_dict())), value=JSON)
def test_any_value_anywhere_is_taken_or_refused(key: str, value: object) -> None:
    try:
        read = ModelMetadata.from_json(changed(**{key: value}))
    except EnvironmentFailure:
        return
    assert ModelMetadata.from_json(read.to_json()) == read


# ------------------------------------------------------------------------------------ preprocessing


def test_what_is_not_said_has_its_default() -> None:
    assert Preprocess.of({}) == Preprocess()
    assert Preprocess.of({"resize": 8, "crop": None}) == Preprocess(resize=8)
    assert Preprocess().scale == 1 / 255


def test_sizes_and_numbers_take_their_short_forms() -> None:
    found = Preprocess.of({"resize": [8, 9], "crop": 7, "mean": 1, "std": (2, 3, 4)})
    assert found == Preprocess((8, 9), (7, 7), mean=(1.0,), std=(2.0, 3.0, 4.0))
    assert Preprocess.of(found.to_dict()) == found


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"resize": 0}, "resize"),
        ({"resize": [1, 2, 3]}, "resize"),
        ({"resize": 10**12}, "resize"),
        ({"crop": "8"}, "crop"),
        ({"interpolation": "area"}, "interpolation"),
        ({"colour": "cmyk"}, "colour"),
        ({"scale": "1"}, "scale"),
        ({"scale": 10**400}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"mean": []}, "mean"),
        ({"mean": [0.1, 0.2]}, "mean"),
        ({"mean": [0.1] * 3, "colour": "grey"}, "mean"),
        ({"std": [1, 0, 1]}, "std"),
        ({"std": float("inf")}, "std"),
    ],
)
def test_preprocessing_that_makes_no_sense_is_named(said: dict[str, Any], named: str) -> None:
    with pytest.raises(EnvironmentFailure, match=f"`{named}` has to be"):
        Preprocess.of(said)


def test_hashes_of_tensors_tell_all_but_their_order() -> None:
    first, second = ("a", 1, (2, 2), b"0123"), ("b", 1, (), b"4")
    whole = tensors_hash([first, second])
    assert whole == tensors_hash([second, first])
    others = {
        tensors_hash(tensors)
        for tensors in (
            [first],
            [first, second, second],
            [("c", *first[1:]), second],
            [("a", 10, *first[2:]), second],
            [("a", 1, (4,), b"0123"), second],
            [("a", 1, (2, 2), b"0124"), second],
            [("b", *first[1:]), ("a", *second[1:])],
        )
    }
    assert len({whole, *others}) == 8
