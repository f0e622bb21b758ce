"""Small ONNX files for tests: written with onnx's own helper, with and without our metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cnnspec.metadata import KEY, ModelMetadata, Preprocess, tensors_hash
from cnnspec.runtime.stored import stored_tensors

SPEC = """\
cnnspec: 1
name: reds
inputs: {image: [3, 8, 8]}
preprocess: {resize: 8, crop: 8}
labels: [red, green, blue]
layers:
  - AdaptiveAvgPool2d: {output_size: 1}
    name: mean
  - Flatten
  - Linear: {out_features: 3}
    name: scores
"""
LABELS = ("red", "green", "blue")
IMAGE = ("batch", 3, 8, 8)


def metadata(**changes: Any) -> ModelMetadata:
    """What a file of the network says about itself; the hash of its tensors is put by `model`."""
    said: dict[str, Any] = {
        "name": "reds",
        "spec": SPEC,
        "weights_sha256": "0" * 64,
        "tensors_sha256": "0" * 64,
        "inputs": {"image": (3, 8, 8)},
        "outputs": {"scores": (3,)},
        "labels": LABELS,
        "preprocess": Preprocess.of({"resize": 8, "crop": 8}),
        "versions": {"cnnspec": "1.2.3"},
        **changes,
    }
    return ModelMetadata(**said)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    outputs: Mapping[str, tuple[int, Sequence[int | str | None]]],
    arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
    about: ModelMetadata | None = None,
) -> ModelProto:
    """A model of opset 18 with these parts; inputs and outputs are types and sizes by name."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, *each) for name, each in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (arrays or {}).items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    made.producer_name = "tests"
    if about is not None:
        found = tensors_hash(stored_tensors(graph, Path()))
        about = replace(about, tensors_sha256=found)
        helper.set_model_props(made, {KEY: about.to_json()})
    return made


def classifier(
    about: ModelMetadata | None = None,
    *,
    shape: Sequence[int | str | None] = IMAGE,
    end: str | None = None,
    scale: float = 10.0,
) -> ModelProto:
    """Which of red, green and blue an image has most of: scores are `scale` times its means."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "weight"], ["raw" if end else "scores"], name="fc"),
    ]
    if end:
        nodes.append(helper.make_node(end, ["raw"], ["scores"], name="end"))
    return model(
        nodes,
        {"image": (TensorProto.FLOAT, shape)},
        {"scores": (TensorProto.FLOAT, (shape[0], 3))},
        {"weight": np.eye(3, dtype=np.float32) * np.float32(scale)},
        about,
    )


def segmenter(about: ModelMetadata | None = None, classes: int = 4) -> ModelProto:
    """A map of `classes`: the first three are the colours of a position, the others never win."""
    weight = np.zeros((classes, 3, 1, 1), np.float32)
    weight[:3, :, 0, 0] = np.eye(3)
    bias = np.where(np.arange(classes) < 3, 0.0, -9.0).astype(np.float32)
    node = helper.make_node("Conv", ["image", "weight", "bias"], ["map"], name="conv")
    sizes = ("batch", classes, 8, 8)
    return model(
        [node],
        {"image": (TensorProto.FLOAT, IMAGE)},
        {"map": (TensorProto.FLOAT, sizes)},
        {"weight": weight, "bias": bias},
        about,
    )


def put(made: ModelProto, path: Path) -> Path:
    """Write a model."""
    path.write_bytes(made.SerializeToString())
    return path
