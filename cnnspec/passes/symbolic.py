"""A network as a function of its input's size: formulas, what they rest on, sizes it takes.

The rules of the ops run on numbers that are not known (`cnnspec.symbolic`), over the nodes as they
are. So a formula is exact for every size that answers all questions the rules asked as the sizes at
hand do. Sizes that a network takes are found by the same means: one run at a size tells what
happens at that size and at all others that answer alike, and runs go on until none is left.

No part of the pipeline: it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple, cast

from cnnspec.diagnostics import Reject
from cnnspec.ir import Graph, Node, SizeRead
from cnnspec.op import Op, Site
from cnnspec.passes.cost import NO_OPS
from cnnspec.passes.formulas import Domain, LayerFormulas, Refusal, Shape, Symbols, Takes, sure
from cnnspec.symbolic import (
    Formula,
    Guard,
    Polynomial,
    Simplifier,
    SizeSet,
    Symbolic,
    Trail,
    formula,
)
from cnnspec.tensor import Role, Tensor

__all__ = ["Domain", "LayerFormulas", "Refusal", "Symbols", "Takes", "symbols"]

_LETTERS = {Role.DEPTH: "D", Role.HEIGHT: "H", Role.WIDTH: "W", Role.LENGTH: "L"}
_MOST_RUNS = 300
_LEAST_RUNS = 32
_NODES_RUN = 40_000
_PERIOD_LIMIT = 1 << 13

Expand = Callable[[Mapping[str, tuple[int, ...]]], Graph | None]
"""The network of other input shapes, or None if there is none."""


def symbols(graph: Graph, expand: Expand | None = None) -> Symbols:
    """Formulas of a graph, and the sizes it takes.

    `expand` is asked only where the nodes themselves depend on sizes, so that nothing but trying
    tells which sizes are possible.
    """
    named = _named_axes(graph)
    sizes = {
        name: graph.tensors[value].shape[axis]
        for value, axes in named.items()
        for axis, name in axes.items()
    }
    trail = Trail(sizes)
    run = _run(graph, named, {name: trail.size(name) for name in sizes})
    assert isinstance(run, _Run)  # the graph was built with these sizes
    why = _unavailable(graph, run, trail)
    if not sizes or why is not None:
        tried = () if expand is None else tuple(_tried(graph, named, sizes, expand))
        why = why or "the network's inputs have no spatial axis"
        return Symbols(sizes, why, {}, (), None, {}, tried)
    parts = _parts(graph, run, trail)
    domains = {
        figure: _domain(sizes, chain(trail.guards, guards))
        for figure, guards in parts.guards.items()
    }
    return _formulas(graph, run, parts, sizes, domains, tuple(_taken(graph, named, sizes)))


# ------------------------------------------------------------------------------------- one run


class _Run(NamedTuple):
    """The rules run once: a tensor for each value, equal nodes together."""

    tensors: tuple[Tensor, ...]
    kinds: tuple[tuple[Op, Site], ...]
    of: tuple[int, ...]


Number = int | Symbolic
Named = Mapping[int, Mapping[int, str]]
"""Names of sizes by input value and axis."""


def _named_axes(graph: Graph) -> Named:
    """The spatial axes of every input, by the names that the spec gives them or usual letters."""
    several = len(graph.inputs) > 1
    found: dict[int, dict[int, str]] = {}
    elsewhere = {
        symbol
        for name, value in graph.inputs.items()
        for symbol, role in zip(
            graph.symbols.get(name, ()), graph.tensors[value].roles, strict=False
        )
        if symbol and not role.spatial
    }
    for name, value in graph.inputs.items():
        tensor = graph.tensors[value]
        given = graph.symbols.get(name) or (None,) * tensor.rank
        for axis, (role, symbol) in enumerate(zip(tensor.roles, given, strict=True)):
            if role.spatial and symbol not in elsewhere:
                letter = _LETTERS[role]
                usual = f"{name}.{letter}" if several else letter
                found.setdefault(value, {})[axis] = symbol or usual
    return found


def _key(tensor: Tensor) -> tuple[object, ...]:
    """What tells tensors apart, asking no question of sizes."""
    sizes = cast(tuple[Number, ...], tensor.shape)
    keys = tuple([n.polynomial if isinstance(n, Symbolic) else n for n in sizes])
    return keys, tensor.roles, tensor.batched


def _run(graph: Graph, named: Named, numbers: Mapping[str, Number]) -> _Run | Refusal:
    """All nodes in order with other input sizes; the refusal of the first that cannot be."""
    known: dict[tuple[object, ...], int] = {}
    tensors: list[Tensor] = list(graph.tensors)
    kind_of: list[int] = [0] * len(tensors)
    kinds: dict[tuple[object, ...], int] = {}
    sites: list[tuple[Op, Site]] = []
    of: list[int] = []

    def settle(value: int, tensor: Tensor) -> None:
        tensors[value] = tensor
        kind_of[value] = known.setdefault(_key(tensor), len(known))

    for value in graph.inputs.values():
        tensor = graph.tensors[value]
        names = named.get(value, {})
        shape = [
            numbers[names[axis]] if axis in names else n for axis, n in enumerate(tensor.shape)
        ]
        settle(value, tensor.with_shape(*cast(list[int], shape)))
    for node in graph.nodes:
        key = node.op, *[kind_of[value] for value in node.inputs]
        kind = kinds.get(key)
        if kind is None:
            inputs = tuple([tensors[value] for value in node.inputs])
            try:
                outputs = node.op.infer(inputs)
            except Reject as reject:
                return Refusal(node.path, reject.message)
            kind = kinds[key] = len(sites)
            sites.append((node.op, Site(inputs, outputs)))
        made = sites[kind][1].outputs
        lacking = _lacking(graph, node, len(made))
        if lacking is not None:
            return lacking
        for value, tensor in zip(node.outputs, made, strict=False):
            settle(value, tensor)
        of.append(kind)
    return _Run(tuple(tensors), tuple(sites), tuple(of))


def _lacking(graph: Graph, node: Node, made: int) -> Refusal | None:
    """Why a node that makes so many tensors cannot stand where one of another number does.

    Parts that nobody reads may be missing, and further ones change nothing, but for those of a
    single tensor, which goes by the node's own name.
    """
    if made > 1 and len(node.outputs) == 1:
        return Refusal(node.path, f"it has {made} parts in place of one")
    for value in node.outputs[made:]:
        if graph.consumers[value] or any(output.value == value for output in graph.outputs):
            return Refusal(node.path, f"there is no `{graph.value_name(value)}`")
    return None


def _unavailable(graph: Graph, run: _Run, trail: Trail) -> str | None:
    """Why the nodes themselves may be others at other sizes, or None: they stay the same."""
    numbers = {name: trail.size(name) for name in trail.sizes}
    for read in graph.size_reads:
        if not _open(read, run, numbers):
            continue
        asked = f"`{read.what}`"
        if read.value is not None:
            asked = f"the {read.what} of `{graph.value_name(read.value)}`"
        return f"line {read.span.line} asks for {asked}, on which layers may depend"
    for test in graph.size_tests:
        if any(_open(read, run, numbers) for read in test.reads) and (
            test.holds(partial(_asked, run, numbers)) is None
        ):
            return f"line {test.span.line} asserts what can only be told of numbers"
    return None


def _open(read: SizeRead, run: _Run, numbers: Mapping[str, Number]) -> bool:
    """Whether one of the sizes that were read is not known."""
    if read.value is None:
        return isinstance(numbers.get(read.what), Symbolic)
    shape = run.tensors[read.value].shape
    return any(isinstance(cast(Number, shape[axis]), Symbolic) for axis in read.axes)


def _asked(run: _Run, numbers: Mapping[str, Number], read: SizeRead) -> int | None:
    """A size that an assertion asks for; None for one that never changes."""
    if read.value is None:
        return cast(int | None, numbers.get(read.what))
    (axis,) = read.axes
    return run.tensors[read.value].shape[axis]


def _tested(graph: Graph, run: _Run, numbers: Mapping[str, Number]) -> Refusal | None:
    """The first assertion that does not hold."""
    for test in graph.size_tests:
        if test.holds(partial(_asked, run, numbers)) is False:
            return Refusal("", f"`{test.span.text}` does not hold")
    return None


# ------------------------------------------------------------------------------------ formulas

_FIGURES = ("macs", "flops", "params", "activations")


class _Parts(NamedTuple):
    """Figures of each kind, and what each figure rests on besides shapes."""

    kinds: tuple[Mapping[str, Number], ...]
    guards: Mapping[str, Mapping[Guard, None]]


def _parts(graph: Graph, run: _Run, trail: Trail) -> _Parts:
    """Ask every kind for its cost and weights, and each time what that rests on.

    Whether an op multiplies at all does not depend on sizes, so what has no MACs adds nothing to
    what MACs rest on.
    """
    guards: dict[str, dict[Guard, None]] = {figure: {} for figure in _FIGURES}
    found = []
    for op, at in run.kinds:
        with trail.apart() as noted:
            folds = op.channel_affine(at) is not None
            ops = NO_OPS if folds else op.cost(at)
        guards["flops"].update(noted)
        if _polynomial(ops.mac).terms:
            guards["macs"].update(noted)
        with trail.apart() as noted, trail.floats_aside():
            params = sum(weight.elements for weight in op.weights(at).values())
        guards["params"].update(noted)
        outputs = sum(tensor.elements for tensor in at.outputs) if at.inputs else 0
        found.append(
            {"macs": ops.mac, "flops": ops.flops, "params": params, "activations": outputs}
        )
    return _Parts(tuple(found), guards)


def _formulas(
    graph: Graph,
    run: _Run,
    parts: _Parts,
    sizes: Mapping[str, int],
    domains: Mapping[str, Domain],
    takes: tuple[Takes, ...],
) -> Symbols:
    """Everything that is known, written for people on the sizes for which it holds."""
    simplify = {figure: domain.simplifier for figure, domain in domains.items()}
    written: dict[Polynomial, Formula] = {}

    def size(number: Number) -> Formula:
        polynomial = _polynomial(number)
        found = written.get(polynomial)
        if found is None:
            found = written[polynomial] = formula(
                [(polynomial, [polynomial])], simplify["macs"], sizes
            )
        return found

    def shape(tensor: Tensor) -> Shape:
        return tuple([size(n) for n in tensor.shape])

    by = _divisors(run)

    def total(figure: str, counts: Mapping[int, int]) -> Formula:
        figures = [
            (_polynomial(parts.kinds[kind][figure]) * count, by[kind])
            for kind, count in counts.items()
        ]
        return formula(figures, simplify[figure], sizes)

    kinds = [
        LayerFormulas(
            tuple([shape(tensor) for tensor in at.outputs]),
            *(total(figure, {kind: 1}) for figure in _FIGURES),
        )
        for kind, (_, at) in enumerate(run.kinds)
    ]
    none = formula([], Simplifier({}), {})
    payers = _payers(graph)
    layers = [kinds[kind] for kind in run.of]
    layers = [
        layer if index in payers else replace(layer, params=none)
        for index, layer in enumerate(layers)
    ]
    outputs = {
        output.name: shape(run.tensors[output.value])
        for output in graph.outputs
        if not output.training
    }
    counted = Counter(run.of[index] for index in graph.inference)
    paid = Counter(run.of[index] for index in graph.inference & payers)
    totals = LayerFormulas(
        tuple(outputs.values()),
        *(total(figure, paid if figure == "params" else counted) for figure in _FIGURES),
    )
    return Symbols(sizes, None, outputs, tuple(layers), totals, domains, takes)


def _polynomial(number: Number) -> Polynomial:
    return number.polynomial if isinstance(number, Symbolic) else Polynomial.of(number)


def _divisors(run: _Run) -> list[list[Polynomial]]:
    """What figures of each kind may be divided by: sizes of what it gives, then of what it reads.

    A size that is a product, as behind a flattening, counts as the sizes it was made of.
    """
    simple: dict[Polynomial, None] = {}
    found = []
    for _, at in run.kinds:
        own: list[Polynomial] = []
        for tensor in chain(at.outputs, at.inputs):
            for n in cast(tuple[Number, ...], tensor.shape):
                if not isinstance(n, Symbolic):
                    continue
                rest = n.polynomial
                if len(rest.symbols) > 1:
                    for size in simple:
                        quotient = rest.divide(size)
                        if quotient is not None:
                            own.append(size)
                            rest = quotient
                else:
                    simple[rest] = None
                if not rest.is_constant:
                    own.append(rest)
        found.append(own)
    return found


def _payers(graph: Graph) -> frozenset[int]:
    """Nodes that are charged with their weights: the first at inference of those that share."""
    sharing: dict[int, list[int]] = {}
    for node in graph.nodes:
        owner = node.index if node.share is None else node.share
        sharing.setdefault(owner, []).append(node.index)
    return frozenset(
        next((index for index in members if index in graph.inference), owner)
        for owner, members in sharing.items()
    )


def _domain(names: Iterable[str], guards: Iterable[Guard]) -> Domain:
    sizes = dict.fromkeys(names, SizeSet.all())
    several = []
    for guard in dict.fromkeys(guards):
        found = SizeSet.where(guard) if len(guard.polynomial.symbols) == 1 else None
        if found is None:
            several.append(guard)
        else:
            (name,) = guard.polynomial.symbols
            sizes[name] &= found
    simplify = Simplifier.on(sizes)
    further: dict[Guard, None] = {}
    for guard in several:
        simpler = Guard(guard.relation, simplify(guard.polynomial))
        if not simpler.polynomial.is_constant:
            further[simpler] = None
    return Domain(sizes, tuple(further))


# ---------------------------------------------------------------------------------- what works


class _Sort(NamedTuple):
    """Sizes that fare alike. `stop` is None where all is well."""

    sizes: SizeSet
    builds: bool
    stop: Refusal | None


def _directions(sizes: Mapping[str, int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Sizes to vary together, and what they are: all where they are equal, then each alone."""
    if len(sizes) > 1 and len(set(sizes.values())) == 1:
        yield tuple(sizes), next(iter(sizes.values()))
    for name, size in sizes.items():
        yield (name,), size


def _taken(graph: Graph, named: Named, sizes: Mapping[str, int]) -> Iterator[Takes]:
    for along, usual in _directions(sizes):
        fixed = {name: size for name, size in sizes.items() if name not in along}
        sorts, known = _sorted(graph, named, along, fixed, usual)
        same = builds = SizeSet.none()
        fixed_by: str | None = None
        for sort in sorts:
            if sort.builds:
                builds |= sort.sizes
            if sort.stop is None:
                same |= sort.sizes
            elif sort.builds:
                fixed_by = fixed_by or sort.stop.path
        below = (sure(builds, known) or 1) - 1
        refusal = next((sort.stop for sort in sorts if below in sort.sizes), None)
        yield Takes(along, fixed, same, builds, fixed_by, refusal, known)


def _sorted(
    graph: Graph, named: Named, along: tuple[str, ...], fixed: Mapping[str, int], usual: int
) -> tuple[list[_Sort], int | None]:
    """All sizes sorted by how they fare, and up to which, if that takes too many runs.

    The size at hand comes first, then always the smallest that is left.
    """
    left, size = SizeSet.all(), usual
    found: list[_Sort] = []
    for _ in range(_runs(graph)):
        found.append(_fate(graph, named, along, fixed, size))
        left -= found[-1].sizes
        smallest = left.smallest
        if smallest is None:
            return found, None
        size = smallest
        if left.period > _PERIOD_LIMIT:
            break
    return found, size - 1


def _runs(graph: Graph) -> int:
    """How many runs a direction is worth: some seconds, in small networks some hundred runs."""
    return max(_LEAST_RUNS, min(_MOST_RUNS, _NODES_RUN // max(1, len(graph.nodes))))


def _fate(
    graph: Graph, named: Named, along: tuple[str, ...], fixed: Mapping[str, int], size: int
) -> _Sort:
    """What becomes of a size, and of which others the same."""
    name = along[0]
    trail = Trail({name: size})
    numbers: dict[str, Number] = {**fixed, **dict.fromkeys(along, trail.size(name))}
    run = _run(graph, named, numbers)
    builds, stop = False, run if isinstance(run, Refusal) else _tested(graph, run, numbers)
    if isinstance(run, _Run) and stop is None:
        builds, stop = _changes(graph, run, trail)
    domain = _domain([name], trail.guards)
    # Where a condition cannot be worked out, nothing is said of other sizes.
    return _Sort(SizeSet.only(size) if domain.further else domain.sizes[name], builds, stop)


def _changes(graph: Graph, run: _Run, trail: Trail) -> tuple[bool, Refusal | None]:
    """Whether other sizes make a network at all, and the first node that is another one then."""
    asked: set[int] = set()
    changed: Refusal | None = None
    for node, kind in zip(graph.nodes, run.of, strict=True):
        op, at = run.kinds[kind]
        if node.share is not None:
            owner, theirs = graph.nodes[node.share], run.kinds[run.of[node.share]]
            with trail.floats_aside():
                fits = _stored(op, at) == _stored(*theirs)
            if not fits or op.torch(at) != theirs[0].torch(theirs[1]):
                return False, Refusal(node.path, f"the weights of `{owner.path}` do not fit")
        if kind in asked or changed is not None:
            continue
        asked.add(kind)
        with trail.floats_aside():
            if _stored(op, at) != _stored(op, graph.site(node)):
                changed = Refusal(node.path, "its weights have other shapes")
    return True, changed


def _stored(op: Op, at: Site) -> dict[str, tuple[int, ...]]:
    """Shapes of what is in the state dict."""
    found = {name: weight.shape for name, weight in op.weights(at).items()}
    buffers = op.buffers(at).items()
    return found | {name: buffer.shape for name, buffer in buffers if buffer.persistent}


def _tried(graph: Graph, named: Named, sizes: Mapping[str, int], expand: Expand) -> Iterator[Takes]:
    """Sizes up to the one at hand, each by making its network."""
    own = _state(graph)
    for along, usual in _directions(sizes):
        fixed = {name: size for name, size in sizes.items() if name not in along}
        same = builds = SizeSet.none()
        most = min(usual, _MOST_RUNS)
        for size in (*range(1, most), usual):
            numbers = {**fixed, **dict.fromkeys(along, size)}
            other = expand(
                {
                    name: tuple(
                        numbers[named[value][axis]] if axis in named.get(value, {}) else n
                        for axis, n in enumerate(graph.tensors[value].shape)
                    )
                    for name, value in graph.inputs.items()
                }
            )
            if other is not None:
                builds |= SizeSet.only(size)
                if _state(other) == own:
                    same |= SizeSet.only(size)
        yield Takes(along, fixed, same, builds, known=usual if usual == most else most - 1)


def _state(graph: Graph) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the state dict, by path and name."""
    return {node.path: _stored(node.op, graph.site(node)) for node in graph.nodes}
