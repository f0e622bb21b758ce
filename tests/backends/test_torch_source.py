"""The generated source of every bundled network, as text and as a file on its own.

`UPDATE_GOLDEN=1 pytest tests/backends` writes the golden sources anew.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import cnnspec
from cnnspec.backends.torch import emit, named_outputs
from cnnspec.ir import Graph
from cnnspec.lower import Helper
from cnnspec.weights import Init
from tests.backends.torch_networks import NETWORKS, network
from tests.ops.harness import alone, cases
from tests.zoo.networks import FILES

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "torch"
each_bundled = pytest.mark.parametrize("name", FILES)


def sources() -> Iterator[tuple[str, str]]:
    """Every bundled network, the networks of the tests, and each class that operations bring."""
    for name in FILES:
        yield f"bundled_{name}", cnnspec.load(name).source()
    for name, text in NETWORKS.items():
        yield f"small_{name}", emit(network(text))
    seen: set[str] = set()
    for case in cases():
        op, site = case.bound()
        code = op.torch(site)
        if isinstance(code, Helper) and code.name not in seen:
            seen.add(code.name)
            yield f"op_{code.name}", emit(alone(op, site.inputs))


def test_source_is_what_our_own_linters_want(tmp_path: Path) -> None:
    """Ruff with the project's rules, its formatter, and mypy in strict mode, each once for all.

    Only a forward has no docstring of its own, and torch's functions are `F`.
    """
    for name, text in sources():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    tool = [sys.executable, "-m"]
    config = f"--config={ROOT / 'pyproject.toml'}"
    for command in (
        [*tool, "ruff", "check", config, "--no-cache", "--ignore=D102,TID251,N812", "."],
        [*tool, "ruff", "format", config, "--no-cache", "--diff", "."],
        [*tool, "mypy", "--strict", "--config-file=", "--cache-dir=/dev/null", "."],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "googlenet"])
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.py.txt"
    source = cnnspec.load(name).source()
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8"), f"{name} is not as {path.name} has it"


def test_source_is_the_same_in_every_process() -> None:
    script = (
        "import hashlib, cnnspec\n"
        f"for name in {FILES!r}:\n"
        "    print(name, hashlib.sha256(cnnspec.load(name).source().encode()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1


def test_file_runs_alone(tmp_path: Path) -> None:
    """In a process that cannot import cnnspec, and imports nothing but torch."""
    (tmp_path / "model.py").write_text(cnnspec.load("resnet18").source(), encoding="utf-8")
    script = (
        "import sys\n"
        "sys.modules['cnnspec'] = None\n"
        "import torch, model\n"
        "net = model.Resnet18().eval()\n"
        "print(tuple(net(torch.zeros(1, 3, 64, 64)).shape), model.__all__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(1, 1000) ['Resnet18']\n"


@each_bundled
def test_source_imports_torch_alone_and_says_its_totals(name: str) -> None:
    net = cnnspec.load(name)
    source = net.source()
    tree = ast.parse(source)
    imported = {
        module.partition(".")[0]
        for node in tree.body
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"torch", "collections", "typing", "math"}
    totals = net.analyze().totals
    said = " ".join((ast.get_docstring(tree) or "").split())
    assert f"{totals.params:,} parameters, {totals.macs:,} multiply-accumulates" in said
    assert all(ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef))


# ----------------------------------------------------------------------------------------- weights


def started(module: nn.Module, graph: Graph) -> dict[str, tuple[object, ...]]:
    """For each weight the last function of torch.nn.init that wrote it, as the file calls it."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[str, tuple[object, ...]] = {}

    def recording(kind: str) -> object:
        def record(tensor: torch.Tensor, *values: object, **named: object) -> torch.Tensor:
            found[names[id(tensor)]] = (kind, *values, *sorted(named.items()))
            return tensor

        return record

    with pytest.MonkeyPatch.context() as patch:
        for kind in {init.kind for node in graph.nodes for _, init in node.init} | {
            "zeros",
            "ones",
        }:
            patch.setattr(nn.init, f"{kind}_", recording(kind))
        method = getattr(module, "_init_weights", None)
        if method is not None:
            method()
    return found


def wanted(init: Init) -> tuple[object, ...]:
    if init.kind == "constant":
        ((_, value),) = init.arguments
        return {0: ("zeros",), 1: ("ones",)}.get(int(value) if value in (0, 1) else -1) or (
            "constant",
            value,
        )
    return (init.kind, *sorted(init.arguments))


MIXED = """
name: mixed
inputs: {image: [3, 8, 8]}
init: {Linear: {weight: xavier_uniform}}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    init: {weight: dirac}
    name: first
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: second
  - BatchNorm2d
  - Flatten: {start_dim: 2}
  - MultiheadAttention: {num_heads: 2}
  - Linear: {out_features: 4}
    name: fc
  - Linear: {out_features: 4}
    init: {weight: {constant: {val: 0.5}}, bias: ones}
    name: last
"""


@pytest.mark.parametrize("name", [*FILES, "mixed"])
def test_weights_start_as_the_spec_says(name: str) -> None:
    """Of a file on its own: `to_torch` writes them itself."""
    graph = network(MIXED) if name == "mixed" else cnnspec.load(name).graph
    space: dict[str, object] = {"__name__": "model"}
    exec(emit(graph), space)
    (title,) = [n for n in space["__all__"] if not n.endswith("Output")]  # type: ignore[attr-defined]
    kind = space[title]
    assert isinstance(kind, type)
    with torch.device("meta"):
        module = kind()
    stored = dict(module.named_parameters())
    expected = {
        f"{node.path}.{weight}": wanted(init)
        for node in graph.nodes
        for weight, init in node.init
        if f"{node.path}.{weight}" in stored
    }
    assert started(module, graph) == expected


# --------------------------------------------------------------------------------------- compilers


def result_of(graph: Graph, module: nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    with torch.no_grad():
        made = module(*[tensor.clone() for tensor in inputs])
    return list(named_outputs(graph, made, module.training).values())


def given(graph: Graph, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(batch, *graph.tensors[value].shape, generator=generator)
        for value in graph.inputs.values()
    ]


SMALL = {
    "resnet18": {"image": (3, 64, 64)},
    "mobilenet_v3_small": {"image": (3, 64, 64)},
    "m5": {},
    "rgbd": {"rgb": (3, 64, 64), "depth": (1, 64, 64)},
}
each_small = pytest.mark.parametrize("name", SMALL)


@each_small
def test_compiles_without_a_graph_break(name: str) -> None:
    net = cnnspec.load(name, inputs=SMALL[name])
    module, inputs = net.to_torch().eval(), given(net.graph)
    torch._dynamo.reset()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    pairs = zip(
        result_of(net.graph, compiled, inputs),  # type: ignore[arg-type]
        result_of(net.graph, module, inputs),
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(mine, other)


@each_small
def test_exports(name: str) -> None:
    net = cnnspec.load(name, inputs=SMALL[name])
    module, inputs = net.to_torch().eval(), given(net.graph)
    exported = torch.export.export(module, tuple(inputs)).module()
    with torch.no_grad():
        made = named_outputs(net.graph, exported(*inputs), training=False)
    for mine, other in zip(made.values(), result_of(net.graph, module, inputs), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "rgbd"])
def test_other_layouts_and_types_change_little(name: str) -> None:
    net = cnnspec.load(name, inputs=SMALL[name])
    module, inputs = net.to_torch().eval(), given(net.graph)
    plain = result_of(net.graph, module, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = result_of(net.graph, module, inputs)
    last = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    turned = [tensor.to(memory_format=torch.channels_last) for tensor in inputs]
    for mine, half, other in zip(result_of(net.graph, last, turned), coarse, plain, strict=True):
        scale = other.abs().max()
        assert (mine - other).abs().max() <= 1e-4 * scale
        assert (half.float() - other).abs().max() <= 0.05 * scale


def test_ten_lines_train_the_file_of_a_spec(tmp_path: Path) -> None:
    """The README's example: its file is written, its ten lines run, and the loss falls."""
    (tmp_path / "model.py").write_text(cnnspec.load("lenet5").source(), encoding="utf-8")
    script = """import torch
from model import Lenet5

torch.manual_seed(0)
images, labels = torch.randn(64, 1, 32, 32), torch.randint(10, (64,))
net = Lenet5()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
for step in range(30):
    loss = torch.nn.functional.cross_entropy(net(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    losses = [float(value) for value in re.findall(r"^\d+ (\S+)$", done.stdout, re.MULTILINE)]
    assert len(losses) == 30
    assert losses[-1] < 0.8 * losses[0]
