"""Every operation on a grid of arguments, as generated source, against torch: values and gradients.

For an operation of torch.nn the other side is torch's own class, built from its name and the same
arguments. For all others it is an independent reading of their torch data (`tests.ops.harness`);
what that data computes is the business of `tests/ops`. All combinations of one operation are one
network, so that classes which calls share, and their arguments, are tried as well.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor as Values
from torch import nn

from cnnspec.backends.torch import named_outputs, to_torch
from cnnspec.diagnostics import Reject
from cnnspec.op import Op, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles
from tests.fuzzing.arguments import arguments
from tests.fuzzing.fitting import light, small
from tests.ops.harness import Case, Interpreted, Network, cases, randomise, sample
from tests.ops.test_argument_grid import (
    REFUSALS,
    TORCH_OPS,
    departs,
    draws,
    ours,
    torch_arguments,
)

BATCH = 2
MOST = 40
"""Combinations of one operation."""

OTHERS = sorted(set(registry()) - set(TORCH_OPS))
EXAMPLES = {name: [case for case in cases() if case.op.name == name] for name in registry()}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Sources of these networks are not kept, and small tensors are computed on one thread."""
    known, lines, threads = set(sys.modules), set(linecache.cache), torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument; the question is what it computes.
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - known:
        if name.startswith("cnnspec_network_"):
            del sys.modules[name]
    for name in set(linecache.cache) - lines:
        del linecache.cache[name]


class Bound(NamedTuple):
    """One combination that an operation takes."""

    op: Op
    site: Site
    what: str


class Result(NamedTuple):
    """What a module made of some inputs in a mode: outputs, gradients, what is stored then."""

    outputs: Sequence[Values]
    gradients: Sequence[Values | None]
    stored: Sequence[Values]


def network(found: Sequence[Bound]) -> Network:
    """A network with all of the combinations side by side, each with inputs of its own."""
    given = {
        f"x{i}_{k}": tensor
        for i, bound in enumerate(found)
        for k, tensor in enumerate(bound.site.inputs)
    }
    made = Network(**given)
    for i, bound in enumerate(found):
        inputs = [made.value(f"x{i}_{k}") for k in range(len(bound.site.inputs))]
        first = made.add(f"op{i}", bound.op, *inputs)
        for k in range(len(bound.site.outputs)):
            made.output(f"y{i}_{k}", first + k)
    return made


def close(mine: Values | None, other: Values | None, what: str) -> None:
    if mine is None or other is None:
        # No gradient is one of zeros.
        assert not any(values is not None and values.any() for values in (mine, other)), what
        return
    torch.testing.assert_close(
        mine, other, equal_nan=True, msg=lambda found: f"{what}: {found}", rtol=1e-5, atol=1e-5
    )


def backward(outputs: Sequence[Values]) -> None:
    """Gradients of all outputs, weighed at random but always alike."""
    trained = [output for output in outputs if output.requires_grad]
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(output.shape, generator=generator) for output in trained]
    if trained:
        torch.autograd.backward(trained, weights)


# ------------------------------------------------------------------------- against torch's classes


def of_torch(name: str) -> Iterator[tuple[Bound, nn.Module]]:
    """Combinations of the grid that torch takes as well, with torch's module."""
    seen = set()
    for draw in draws(name):
        if isinstance(mine := ours(draw), Reject) or departs(draw, mine):
            continue
        roles = default_roles(len(draw.shape))
        assert roles is not None
        inputs = (Tensor(draw.shape, roles),) * draw.op.arity.least
        op = bind(draw.op, draw.arguments)
        if (op, inputs) in seen:
            continue
        seen.add((op, inputs))
        target = getattr(nn, name)
        try:
            module = target(**torch_arguments(draw, target))
            values = [torch.rand(BATCH, *tensor.shape).requires_grad_() for tensor in inputs]
            made = theirs(module, [value.clone() for value in values])
            if made.isneginf().any():
                continue  # a dilated window on padding alone: torch's backward corrupts memory
            backward([made])
        except REFUSALS:
            continue  # what either side refuses is the subject of another test
        yield Bound(op, Site(inputs, op.infer(inputs)), str(draw)), module


def theirs(module: nn.Module, inputs: Sequence[Values]) -> Values:
    if isinstance(module, nn.MultiheadAttention):
        inputs = inputs * 3 if len(inputs) == 1 else inputs
        made: Values = module(*inputs)[0]
    else:
        made = module(*inputs)
    return made


@pytest.mark.parametrize("name", TORCH_OPS)
def test_source_computes_what_torchs_class_does(name: str) -> None:
    pairs = [pair for pair, _ in zip(of_torch(name), range(MOST), strict=False)]
    assert len(pairs) >= min(4, MOST)
    found = [bound for bound, _ in pairs]
    graph = network(found).graph()
    module = to_torch(graph)
    state = {}
    for number, (_, reference) in enumerate(pairs):
        randomise(reference, seed=number)
        state |= {f"op{number}.{key}": value for key, value in reference.state_dict().items()}
    module.load_state_dict(state, strict=True)
    values = sample([graph.tensors[value] for value in graph.inputs.values()], BATCH)

    for training in (False, True):
        module.train(training).zero_grad()
        leaves = [value.clone().requires_grad_() for value in values]
        torch.manual_seed(7)
        made = named_outputs(graph, module(*[leaf.clone() for leaf in leaves]), training)
        backward(list(made.values()))

        others = [value.clone().requires_grad_() for value in values]
        unread = iter(others)
        wanted = []
        torch.manual_seed(7)
        for bound, reference in pairs:
            reference.train(training).zero_grad()
            inputs = [next(unread).clone() for _ in bound.site.inputs]
            wanted.append(theirs(reference, inputs))
        backward(wanted)

        mine, other = iter(leaves), iter(others)
        for number, (bound, reference) in enumerate(pairs):
            where = f"{bound.what}, {'training' if training else 'inference'}"
            close(made[f"y{number}_0"], wanted[number], where)
            for _ in bound.site.inputs:
                close(next(mine).grad, next(other).grad, f"{where}, gradient of the input")
            part = module.get_submodule(f"op{number}") if list(reference.parameters()) else None
            for key, parameter in reference.named_parameters():
                assert part is not None
                close(part.get_parameter(key).grad, parameter.grad, f"{where}, gradient of {key}")
    after = module.state_dict()
    for number, (bound, reference) in enumerate(pairs):
        for key, value in reference.state_dict().items():
            close(after[f"op{number}.{key}"], value, f"{bound.what}, {key} after a step")


# ------------------------------------------------------------------------- against torch's data


def of_slots(name: str) -> Iterator[Bound]:
    """The examples of an operation, and random arguments that it takes."""
    for case in EXAMPLES[name]:
        op, site = case.bound()
        yield Bound(op, site, str(case))
    op_type = registry()[name]
    rng = Random(name)
    seen = set()
    for _ in range(4 * MOST):
        example: Case = rng.choice(EXAMPLES[name])
        _, at = example.bound()
        shapes = at.inputs[0].shape if at.inputs else ()
        try:
            op = bind(op_type, arguments(op_type, rng, shapes))
            site = Site(at.inputs, op.infer(at.inputs))
        except Reject:
            continue
        if op not in seen and light(op, site) and small(site.outputs):
            seen.add(op)
            yield Bound(op, site, f"{op} on {shapes}")


@pytest.mark.parametrize("name", sorted(registry()))
def test_source_computes_what_its_data_says(name: str) -> None:
    most = MOST if name in OTHERS else len(EXAMPLES[name])
    found = [bound for bound, _ in zip(of_slots(name), range(most), strict=False)]
    made = network(found)
    graph = made.graph()
    module, reference = to_torch(graph), Interpreted(graph)
    fixed = {
        f"{node.path}.{key}"
        for node in graph.nodes
        for key, buffer in node.op.buffers(graph.site(node)).items()
        if buffer.values is not None or not buffer.persistent
    }
    randomise(module, frozenset(fixed))
    reference.load_state_dict(module.state_dict(), strict=True)
    values = sample([graph.tensors[value] for value in graph.inputs.values()], BATCH)
    for training in (False, True):
        results = []
        for each in (module, reference):
            each.train(training).zero_grad()
            leaves = [value.clone().requires_grad_() for value in values]
            torch.manual_seed(7)
            result: Any = each(*[leaf.clone() for leaf in leaves])
            if each is module:
                result = tuple(named_outputs(graph, result, training).values())
            backward(result)
            results.append(Result(result, [leaf.grad for leaf in leaves], ()))
        mine, other = results
        mode = "training" if training else "inference"
        names = [output.name for output in graph.outputs]
        for key, a, b in zip(names, mine.outputs, other.outputs, strict=True):
            close(a, b, f"{found[number_of(key)].what}, {mode}")
        for key, g, h in zip(graph.inputs, mine.gradients, other.gradients, strict=True):
            close(g, h, f"{found[number_of(key)].what}, {mode}, gradient of the input")
        parameters = dict(reference.named_parameters())
        for key, parameter in module.named_parameters():
            what = found[number_of(key)].what
            close(parameter.grad, parameters[key].grad, f"{what}, {mode}, gradient of {key}")
    after = reference.state_dict()
    for key, value in module.state_dict().items():
        close(value, after[key], f"{found[number_of(key)].what}, {key} after a step")


def number_of(key: str) -> int:
    """The combination to which `x3_0`, `y3_1` or `op3.weight` belongs."""
    return int("".join(c if c.isdigit() else " " for c in key).split()[0])
