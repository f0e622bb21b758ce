"""Files of the bundled networks, the smaller ones of each spec; `bench.onnx_networks` tries all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import cnnspec
from cnnspec.backends.onnx import newest_opset
from cnnspec.backends.onnx.build import OLDEST_OPSET
from tests.backends.onnx_proof import CLOSE, LEVELS, prove

SPECS = Path(__file__).parents[2] / "specs"

LARGE = frozenset(
    ("alexnet", "c3d", "efficientnet_v2", "inception_v3", "vgg", "vgg16", "yolov1", "zfnet")
)
"""Specs whose smallest network takes long."""


@dataclass(frozen=True)
class Case:
    """One network of a spec, and its image of `size` pixels, if that is not as the spec has it."""

    spec: str
    variant: str | None = None
    size: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.variant or self.spec

    def network(self) -> cnnspec.Network:
        """The network."""
        path = SPECS / f"{self.spec}.yaml"
        net = cnnspec.load(path, variant=self.variant, params=dict(self.params))
        if self.size is None:
            return net
        inputs = {
            name: (net.graph.tensors[value].shape[0], self.size, self.size)
            for name, value in net.graph.inputs.items()
        }
        return net.with_inputs(**inputs)


CASES = (
    Case("autoencoder"),
    Case("cat_neuron"),
    Case("convnet", "just_conv"),
    Case("convnetjs"),
    Case("convnext", size=64, params={"widths": [24, 48, 96, 192], "depths": [1, 1, 2, 1]}),
    Case("deeplabv3", "deeplabv3_mobilenet_v3_large", 64),
    Case("densenet", size=64, params={"growth": 8, "depths": [2, 2, 2, 2]}),
    Case("densenet_cifar", "densenet_bc100_12", params={"depth": 22}),
    Case("efficientnet", size=64),
    Case("fcn", size=64, params={"depths": [1, 1, 1, 1]}),
    Case("filter_bank"),
    Case("fpn", params={"out": 32}),
    Case("googlenet", size=64),
    Case("lenet5"),
    Case("lenet5", "lenet5_table"),
    Case("lenet5", "lenet5_1998"),
    Case("lraspp", size=64),
    Case("m5", "m3"),
    Case("mlp"),
    Case("mnasnet", "mnasnet0_5", 64),
    Case("mobilenet_v2", size=64),
    Case("mobilenet_v3", "mobilenet_v3_small", 64),
    Case("nin"),
    Case("pyramid"),
    Case("regnet", "regnet_y_400mf", 64),
    Case("resnet", "resnet18", 64),
    Case("resnet50", size=64),
    Case("resnet_cifar"),
    Case("resnext", size=64, params={"depths": [1, 1, 1, 1]}),
    Case("rgbd", size=64),
    Case("rpn", "rpn_zf", 128),
    Case("shufflenet_v2", "shufflenet_v2_x0_5", 64),
    Case("squeezenet", "squeezenet1_1", 64),
    Case("srcnn"),
    Case("style", size=64),
    Case("unet", size=64),
    Case("vit_b_16", params={"size": 64, "width": 48, "depth": 2, "heads": 3}),
)

CLOSED = frozenset(
    (
        "cat_neuron",
        "convnetjs",
        "just_conv",
        "lenet5",
        "lenet5_1998",
        "lenet5_table",
        "m3",
        "mlp",
        "vit_b_16",
    )
)
"""Networks whose files are for one size."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than such small tensors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_file_is_the_network(case: Case) -> None:
    """Equal to torch, folded, without what does nothing, the same twice, as large as analysed."""
    proof = prove(case.network().analyze(), levels=(LEVELS[0], LEVELS[-1]))
    assert proof.difference <= CLOSE
    assert (proof.open_difference is None) is (str(case) in CLOSED)


def test_every_spec_is_tried() -> None:
    bundled = {
        path.stem
        for path in SPECS.glob("*.yaml")
        if "layers" in yaml.safe_load(path.read_text(encoding="utf-8"))
    }
    assert bundled == {case.spec for case in CASES} | LARGE


@pytest.mark.parametrize("spec", ["mobilenet_v3", "fpn", "vit_b_16", "lenet5"])
def test_loads_at_every_opset_and_level(spec: str) -> None:
    case = next(case for case in CASES if case.spec == spec)
    opsets = range(OLDEST_OPSET, newest_opset() + 1)
    proof = prove(case.network().analyze(), opset=opsets[0], opsets=opsets)
    assert proof.difference <= CLOSE


def test_another_process_writes_the_same_bytes() -> None:
    """Orders of sets and dictionaries by hash would show."""
    program = (
        "import sys, hashlib, numpy, cnnspec\n"
        "from cnnspec.backends.onnx import to_model\n"
        "graph = cnnspec.load(sys.argv[1]).with_inputs(rgb=(3, 32, 32), depth=(1, 32, 32)).graph\n"
        "arrays = {}\n"
        "for node in graph.nodes:\n"
        "    at = graph.site(node)\n"
        "    stored = {**node.op.weights(at), **node.op.buffers(at)}\n"
        "    for name, tensor in stored.items():\n"
        "        arrays[f'{node.path}.{name}'] = numpy.full(tensor.shape, 0.5, numpy.float32)\n"
        "data = to_model(graph, arrays).SerializeToString()\n"
        "print(hashlib.sha256(data).hexdigest())\n"
    )
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(SPECS / "rgbd.yaml")],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(SPECS.parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == hashlib.sha256().digest_size * 2
