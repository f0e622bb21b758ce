"""What backward keeps and what a step takes, against what torch really saves and allocates."""

from __future__ import annotations

from functools import cache
from textwrap import dedent, indent
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

import cnnspec
from bench.memory import on_cpu
from cnnspec.backends.torch import to_torch
from cnnspec.backends.torch.emit import write
from cnnspec.diagnostics import SpecError
from cnnspec.frontend.load import bundled_specs
from cnnspec.ir import Graph
from cnnspec.passes import Options, run
from cnnspec.passes.memory import Memory, Place, run_in_order, sizes_of
from cnnspec.passes.options import OPTIMIZERS
from cnnspec.passes.training import Training
from tests.ops.harness import Case, Interpreted, Network, cases
from tests.zoo.networks import FEW

FLOAT = 4

NOT_FUSED_ON_THE_CPU = {"MultiheadAttention-2"}
"""Attention with dropout: CUDA has a kernel for it, the CPU computes it in parts."""


def kept_by(graph: Graph, module: nn.Module, batch: int) -> int:
    """Bytes of all memory that autograd keeps, parameters and buffers apart."""
    weights = [*module.parameters(), *module.buffers()]
    stored = {tensor.untyped_storage()._cdata for tensor in weights}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    device = weights[0].device
    inputs = [
        torch.empty(batch, *graph.tensors[value].shape, device=device)
        for value in graph.inputs.values()
    ]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        module(*inputs)
    return sum(t.untyped_storage().nbytes() for key, t in held.items() if key not in stored)


def predicted(graph: Graph, batch: int) -> int:
    """What we say that torch keeps on the CPU, whose dropout keeps factors and no masks."""
    step = run(graph, Options(batch=batch))[Training].step
    assert step is not None
    assert sum(step.saved) == sum(step.parts)
    return sum(step.parts) + (FLOAT - 1) * step.parts.mask


ATTENTION = {"vit_b_16"}
"""Networks whose attention has a fused kernel on the CPU, but not on the meta device."""


# ---------------------------------------------------------------------------------- single ops


def alone(case: Case) -> Graph:
    """The example's op by itself."""
    op, site = case.bound()
    network = Network(**{f"x{i}": tensor for i, tensor in enumerate(site.inputs)})
    values = [network.value(f"x{i}") for i in range(len(site.inputs))]
    first = network.add("op", op, *values)
    for number in range(len(site.outputs)):
        network.output(f"y{number}", first + number)
    return network.graph()


def more_on_the_cpu(case: Case, batch: int) -> int:
    """Bytes that CPU kernels keep and those of CUDA do not: a buffer, the result before scaling."""
    op, site = case.bound()
    extra = op.name == "LogSigmoid" or (op.name == "RMSNorm" and bool(op.weights(site)))
    return FLOAT * site.y.in_batch(batch) * extra


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("case", [c for c in cases() if c.example.input_shapes], ids=str)
def test_what_an_op_keeps(case: Case, batch: int) -> None:
    if str(case) in NOT_FUSED_ON_THE_CPU:
        pytest.skip("the CPU has no such kernel")
    op, site = case.bound()
    graph = alone(case)
    module = to_torch(graph).train()
    leaves = [torch.randn(batch, *tensor.shape, requires_grad=True) for tensor in site.inputs]
    inputs = [leaf * 1 for leaf in leaves]
    stored = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        try:
            outputs = tree_leaves(module(*inputs))
        except ValueError:
            pytest.skip("torch does not train the op on so few elements")
    given = [x.untyped_storage().data_ptr() for x in inputs]
    made = [y.untyped_storage().data_ptr() for y in outputs]
    assert all(y in given for y in made) == op.is_view(site)
    kept = op.saved(site, batch)
    assert {given[i] for i in kept.inputs} == held.keys() & set(given) - stored
    fresh = set(made) - set(given)
    assert {made[i] for i in kept.outputs} == held.keys() & fresh
    others = [t for key, t in held.items() if key not in {*stored, *given, *made}]
    sizes = [t.untyped_storage().nbytes() for t in others]
    indices = [t.untyped_storage().nbytes() for t in others if t.dtype is torch.int64]
    assert sum(indices) == 8 * kept.indices
    assert sum(sizes) - sum(indices) == FLOAT * (
        kept.elements + kept.statistics + kept.mask
    ) + more_on_the_cpu(case, batch)


# ------------------------------------------------------------------------------------ networks


@cache
def small(spec: str, variant: str | None) -> cnnspec.Network:
    """A bundled network at the least input that it takes; one that takes no other keeps its own."""
    net = cnnspec.load(bundled_specs()[spec], variant=variant)
    tensors = net.graph.tensors
    shapes = {name: tensors[value].shape for name, value in net.graph.inputs.items()}
    for size in (16, 32, 64, 96):
        inputs = {
            name: (shape[0], *(min(size, n) for n in shape[1:])) if len(shape) > 2 else shape
            for name, shape in shapes.items()
        }
        try:
            return net.with_inputs(**inputs)
        except SpecError:
            continue
    return net


def without_values(graph: Graph) -> nn.Module:
    """The network's module on the device that has sizes and no numbers."""
    written = write(graph)
    names: dict[str, Any] = {}
    exec(compile(written.text, "<network>", "exec"), names)
    with torch.device("meta"):
        made = names[written.network]()
    assert isinstance(made, nn.Module)
    return made


@pytest.mark.parametrize(("spec", "variant"), FEW)
def test_what_a_network_keeps(spec: str, variant: str | None) -> None:
    graph = cnnspec.load(bundled_specs()[spec], variant=variant).graph
    module = without_values(graph).train()
    if spec in ATTENTION:
        module.to_empty(device="cpu")
    assert kept_by(graph, module, 2) == predicted(graph, 2)


def eager(graph: Graph) -> list[Place]:
    """Where torch puts outputs when nothing is overwritten or folded."""
    shared = (n.op.identity_at_inference or n.op.is_view(graph.site(n)) for n in graph.nodes)
    return [Place.IN_INPUT if view else Place.APART for view in shared]


@pytest.mark.parametrize(
    ("spec", "variant"),
    [("googlenet", None), ("densenet", None), ("unet", None), ("convnext", None), ("style", None)],
)
def test_a_run_holds_what_torch_holds(spec: str, variant: str | None) -> None:
    """The bytes alive at each step are those of the tensors that a run in order has to keep."""
    graph, batch = small(spec, variant).graph, 2
    running = [node for node in graph.nodes if node.index in graph.inference]
    results = [output.value for output in graph.outputs if not output.training]
    last = {value: node.index for node in running for value in node.inputs}
    last.update(dict.fromkeys(results, len(graph.nodes)))
    with torch.device("meta"), torch.no_grad():
        module = Interpreted(graph).eval()
        stored = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
        values = {v: torch.empty(batch, *graph.tensors[v].shape) for v in graph.inputs.values()}
        seen = []
        for node in running:
            made = module._run(node, [values[value] for value in node.inputs])
            results_of = made if len(node.outputs) > 1 else (made,)
            values.update(zip(node.outputs, results_of, strict=True))
            storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in values.values()}
            seen.append(sum(s.nbytes() for key, s in storages.items() if key not in stored))
            values = {v: t for v, t in values.items() if last.get(v, -1) > node.index}
    sizes = sizes_of(graph, Options(batch=batch))
    assert list(run_in_order(graph, running, results, sizes, eager(graph)).live) == seen


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_optimisers_keep(optimizer: str) -> None:
    name, extra = ("sgd", {"momentum": 0.9}) if optimizer == "momentum" else (optimizer, {})
    names = {kind.lower(): kind for kind in vars(torch.optim)}
    module = small("lenet5", None).to_torch()
    made = getattr(torch.optim, names[name])(module.parameters(), lr=1e-3, **extra)
    sum(y.sum() for y in tree_leaves(module(torch.randn(2, 1, 32, 32)))).backward()
    made.step()
    kept = tree_leaves(list(made.state.values()))
    held = sum(t.untyped_storage().nbytes() for t in kept if isinstance(t, Tensor))
    memory = small("lenet5", None).analyze(optimizer=optimizer).training_memory
    assert memory.optimizer_state == held
    assert memory.gradients == sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)
    assert memory.weights == sum(p.nbytes for p in module.parameters())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_stored_bytes_are_those_of_a_module_in_that_type(dtype: str) -> None:
    net = small("resnet", "resnet18")
    module = net.to_torch().to(getattr(torch, dtype))
    totals = net.analyze(dtype=dtype).totals
    assert totals.weight_bytes == sum(p.nbytes for p in module.parameters())
    assert totals.buffer_bytes == sum(b.nbytes for b in module.buffers())


def test_results_are_kept_where_the_report_says() -> None:
    report = small("resnet", "resnet18").analyze(batch=2)
    inference = report.facts[Memory].inference
    assert [moment.bytes for moment in report.timeline] == list(inference.live)
    assert max(inference.live) == report.totals.peak_activation_bytes
    assert sum(report.peak_tensors.values()) == report.totals.peak_activation_bytes
    assert sum(layer.saved_bytes for layer in report.layers) == report.totals.training.saved_bytes


@pytest.mark.parametrize(("spec", "batch"), [("lenet5", 16), ("rgbd", 2)])
def test_the_peak_of_a_step_is_close_to_what_is_allocated(spec: str, batch: int) -> None:
    """LeNet-5, and one that shares an encoder."""
    net = small(spec, None)
    measured = on_cpu(net, batch).training
    memory = net.analyze(batch=batch).training_memory
    state = memory.weights + memory.buffers + memory.optimizer_state
    assert measured - state == pytest.approx(memory.peak - state, rel=0.01)


# ---------------------------------------------------------- where only some inputs need gradients

FIRST = {
    "gate of the input": """
        - Conv2d: {out_channels: 3, kernel_size: 1}
        - Sigmoid:
          name: gate
        - mul: [input, gate]
    """,
    "three factors": """
        - AvgPool2d: {kernel_size: 3, stride: 1, padding: 1}
          name: blurred
        - Conv2d: {out_channels: 3, kernel_size: 1}
          name: made
        - mul: [input, blurred, made]
    """,
    "two factors that are made": """
        - Conv2d: {out_channels: 3, kernel_size: 1}
          name: made
        - Tanh:
          name: bent
        - mul: [made, bent, input]
    """,
    "the larger of the input": """
        - Conv2d: {out_channels: 3, kernel_size: 1}
          name: made
        - maximum: [input, input, made]
    """,
    "a product with the input": """
        - Conv2d: {out_channels: 3, kernel_size: 1}
          name: made
        - matmul: [made, input]
    """,
    "reflection in front of the first filters": """
        - Conv2d: {out_channels: 2, kernel_size: 3, padding: 1, padding_mode: reflect}
    """,
    "reflection of filters with a table": """
        - MaskedConv2d: {table: [[0, 1], [2]], kernel_size: 3, padding: 1, padding_mode: reflect}
    """,
    "filters of each position": """
        - LocallyConnected2d: {out_channels: 2, kernel_size: 3, padding: 1, padding_mode: replicate}
    """,
    "filters of each position without those of padding": """
        - LocallyConnected2d:
            {out_channels: 2, kernel_size: 3, padding: 1, padding_weights: false}
    """,
    "sums of the input": "- Subsample2d: {kernel_size: 2}",
    "a mode of padding without padding": """
        - Conv2d: {out_channels: 2, kernel_size: 1}
        - Conv2d: {out_channels: 2, kernel_size: 3, padding_mode: reflect}
        - MaskedConv2d: {table: [[0], [1]], kernel_size: 3, padding_mode: replicate}
    """,
}


@pytest.mark.parametrize("layers", FIRST.values(), ids=FIRST)
def test_nothing_is_kept_for_gradients_that_nobody_needs(layers: str) -> None:
    text = "cnnspec: 1\nname: net\ninputs: {image: [3, 6, 6]}\nlayers:\n"
    graph = cnnspec.load(text=text + indent(dedent(layers).strip(), "  ")).graph
    assert kept_by(graph, to_torch(graph).train(), 2) == predicted(graph, 2)
