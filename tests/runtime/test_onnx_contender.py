"""What an ONNX file is fed with when it is measured, and what it is taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.model_file import ModelFile, open_model
from cnnspec.runtime.onnx_contender import (
    OnnxContender,
    batch_of,
    job,
    precision_of,
    shapes_of,
)
from cnnspec.runtime.serving import sample
from tests.runtime.models import classifier, metadata, model, put


def relu(folder: Path, *shapes: tuple[Any, ...], kind: int = TensorProto.FLOAT) -> ModelFile:
    """A file with an input of each shape."""
    names = [f"x{number}" for number in range(len(shapes))]
    made = model(
        [helper.make_node("Identity", [name], [f"y{name}"]) for name in names],
        {name: (kind, shape) for name, shape in zip(names, shapes, strict=True)},
        {f"y{name}": (kind, shape) for name, shape in zip(names, shapes, strict=True)},
    )
    return open_model(put(made, folder / "relu.onnx"))


@pytest.mark.parametrize(
    ("shapes", "given", "usual", "expected"),
    [
        ([("batch", 3, 8)], {}, (), [(2, 3, 8)]),
        ([(2, 3, 8)], {}, (), [(2, 3, 8)]),
        ([(None, 3, "H")], {"x0": (3, 5)}, (), [(2, 3, 5)]),
        ([("N", 3, "H")], {}, [(3, 6)], [(2, 3, 6)]),
        ([("N", 3, "H")], {"x0": (3, 5)}, [(3, 6)], [(2, 3, 5)]),
        ([("N", 4), ("N", "k")], {"x1": (7,)}, (), [(2, 4), (2, 7)]),
        ([("N", 4), ()], {}, (), [(2, 4), ()]),
    ],
)
def test_shapes(
    tmp_path: Path,
    shapes: list[tuple[Any, ...]],
    given: dict[str, tuple[int, ...]],
    usual: list[tuple[int, ...]],
    expected: list[tuple[int, ...]],
) -> None:
    assert list(shapes_of(relu(tmp_path, *shapes), 2, given, usual).values()) == expected


@pytest.mark.parametrize(
    ("shape", "given", "said"),
    [
        (("N", 3, "H"), {}, "is N x 3 x H, which leaves sizes open"),
        ((1, 3), {}, "is 1 x 3, and does not take 2 x 3"),
        (("N", 3), {"x0": (4,)}, "is N x 3, and does not take 2 x 4"),
        (("N", 3), {"x0": (3, 3)}, "is N x 3, and does not take 2 x 3 x 3"),
        (("N", "H"), {"x0": (0,)}, "would have 0 elements"),
        (("N", "H"), {"x0": (10**10,)}, "would have 20,000,000,000 elements"),
    ],
)
def test_shapes_that_cannot_be(
    tmp_path: Path, shape: tuple[Any, ...], given: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        shapes_of(relu(tmp_path, shape), 2, given)
    assert failure.value.message.endswith(said)


def test_a_file_of_ours_knows_the_sizes_it_was_exported_at(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    opened = open_model(put(classifier(metadata(), shape=("batch", 3, "H", "W")), path))
    assert shapes_of(opened, 4) == {"image": (4, 3, 8, 8)}
    bytes_in = metadata(in_graph="full")
    opened = open_model(put(classifier(bytes_in, shape=("batch", "H", "W", 3)), path))
    assert shapes_of(opened, 4) == {"image": (4, 8, 8, 3)}


def test_the_batch_of_a_file(tmp_path: Path) -> None:
    assert batch_of(relu(tmp_path, ("N", 3))) is None
    assert batch_of(relu(tmp_path, (4, 3))) == 4
    assert batch_of(relu(tmp_path, (), (4, 3))) == 4


def test_the_precision_of_a_file(tmp_path: Path) -> None:
    def of(made: Any) -> str:
        return precision_of(open_model(put(made, tmp_path / "net.onnx")))

    def stranger(node: str, kind: int, given: Any) -> Any:
        shape = ("N", 3)
        arrays = {"w": given, "zero": np.zeros((), np.uint8)}
        inputs = ["x", "w", *(["zero"] if node == "QuantizeLinear" else [])]
        return model(
            [helper.make_node(node, inputs, ["y"])],
            {"x": (kind, shape)},
            {"y": (TensorProto.UINT8 if node == "QuantizeLinear" else kind, shape)},
            arrays,
        )

    assert of(classifier()) == "float32"
    assert of(classifier(metadata(precision="float16"))) == "float16"
    assert of(stranger("Add", TensorProto.FLOAT16, np.ones(3, np.float16))) == "float16"
    assert of(stranger("QuantizeLinear", TensorProto.FLOAT, np.float32(0.1) + 0)) == "int8"


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int64", "bool"])
def test_numbers_are_the_same_every_time(dtype: str) -> None:
    first, again = sample(3, dtype, (2, 5)), sample(3, dtype, (2, 5))
    assert first.dtype == dtype
    assert first.tobytes() == again.tobytes()
    if "float" in dtype:
        assert np.array_equal(first, sample(3, "float32", (2, 5)).astype(dtype))
        assert not np.array_equal(first, sample(4, dtype, (2, 5)))


def test_a_file_runs(tmp_path: Path) -> None:
    path = put(classifier(), tmp_path / "net.onnx")
    shapes = shapes_of(open_model(path), 2)
    contender = OnnxContender(job(str(path), shapes, provider="cpu", threads=1))
    contender.run()
    (scores,) = contender.outputs()
    image = sample(0, "float32", (2, 3, 8, 8))
    assert np.allclose(scores, 10 * image.mean(axis=(2, 3)), atol=1e-5)
    facts = dict(contender.facts)
    assert str(facts.pop("engine")).startswith("ONNX Runtime ")
    assert facts == {
        "provider": "cpu",
        "threads": 1,
        "remarks": [],
        "inputs": [["float32", [2, 3, 8, 8]]],
    }
