"""Sizes of the inputs that a file can leave open, and what it then says of the others.

A file is written from tensors of known sizes. It is right at another size if there the same nodes
would be written, and the same torch module, which it has to equal. So every op is asked for its
nodes (`Op.onnx_open`) at sizes which the network takes with the weights it has. All of these are
known (`cnnspec.passes.symbolic`); the smallest, neighbours of the usual one and others up to large
ones are tried. What an op reads when the network runs (`Dim`, `Rest`) is no number in its nodes and
may change. Where nodes or modules differ the layer is named.

How nodes are written may not enter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from random import Random
from typing import NamedTuple

from cnnspec.diagnostics import EnvironmentFailure, Reject, listed
from cnnspec.ir import Graph
from cnnspec.ir import Node as Layer
from cnnspec.lower import Helper, Node, TorchCode
from cnnspec.op import ChannelAffine, LinearMap, Op, Site
from cnnspec.passes.symbolic import Refusal, Symbols, Takes, symbols
from cnnspec.tensor import Tensor

__all__ = ["Fixed", "FreeSizes", "free_sizes"]

_STEPS = 6_000
_LEAST, _MOST = 12, 48
"""At how many sizes along an axis nodes are asked for: so many that there are `_STEPS` of them."""

_SHARES = (0.0, 0.6, 0.8, 1.0, 1.2, 3.0)
"""Of the usual sizes, those that are tried together."""

_LONGEST_NAME = 32
"""A formula that is longer is no name for a size."""

Sizes = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A size that has to stay as it is, and why; `path` is the layer it is for, where it is one."""

    name: str
    reason: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class FreeSizes:
    """The sizes that stay open in a file.

    `names` are those of the open sizes, each with the values it may have in words (`H >= 32`), and
    `fixed` the other spatial sizes. `values` has, by value of the graph, the sizes without batch of
    all that changes with them: a number, a name, or None for one that is not declared (as
    `Options.free`). `others` are shapes of the inputs at which the file can be tried, by input.
    """

    names: Mapping[str, str]
    fixed: tuple[Fixed, ...]
    values: Mapping[int, tuple[int | str | None, ...]]
    others: tuple[Mapping[str, tuple[int, ...]], ...]


def free_sizes(graph: Graph, opset: int = 18) -> FreeSizes:
    """The spatial sizes of the inputs of `graph` that can be left open.

    Sizes have the names that the spec gives them; others are called after their axis, behind the
    name of the input where there are several (`height`, `image.height`). A size of which the
    network takes a few values only, or which a layer's weights or nodes rest on, is fixed.

    Raises `EnvironmentFailure` if none can be open: the message names the layer that needs the size
    and says what for.
    """
    graph = _named(graph)
    found = symbols(graph)
    if found.totals is None:
        assert found.unavailable is not None  # else there would be totals
        raise _refusal([Fixed("", found.unavailable)])
    search = _Search(graph, opset, found)
    free, fixed = search.run()
    if not free:
        raise _refusal(fixed)
    tried = list(search.tried(free))
    return FreeSizes(
        {name: takes.same.describe(name) for name, takes in free.items()},
        tuple(fixed),
        _values(graph, found, tried),
        tuple(_shapes(graph, at.tensors) for at in _others(tried, found.sizes, free)),
    )


def _refusal(fixed: Sequence[Fixed]) -> EnvironmentFailure:
    """Of several reasons that one layer gives the first."""
    why = {each.path or each.reason: each.reason for each in reversed(fixed)}
    reasons = "; ".join(reversed(why.values()))
    return EnvironmentFailure(
        f"no size of the inputs can stay open: {reasons}",
        help="a file can be exported for each size that is needed",
    )


def _named(graph: Graph) -> Graph:
    """The graph with a name for every spatial size of its inputs."""
    names: dict[str, tuple[str | None, ...]] = {}
    for name, value in graph.inputs.items():
        tensor = graph.tensors[value]
        given = graph.symbols.get(name) or (None,) * tensor.rank
        before = f"{name}." if len(graph.inputs) > 1 else ""
        names[name] = tuple(
            symbol or (f"{before}{role}" if role.spatial else None)
            for role, symbol in zip(tensor.roles, given, strict=True)
        )
    return replace(graph, symbols=names)


# ---------------------------------------------------------------------------------- other sizes


@dataclass(frozen=True, slots=True)
class _At:
    """The tensors of a graph at some sizes."""

    sizes: Sizes
    tensors: tuple[Tensor, ...]


def _at(graph: Graph, sizes: Sizes) -> _At | Refusal:
    """The tensors at other sizes, or what stops them."""
    tensors = list(graph.tensors)
    for name, value in graph.inputs.items():
        tensor = tensors[value]
        tensors[value] = tensor.with_shape(
            *(
                sizes.get(symbol or "", n)
                for symbol, n in zip(graph.symbols[name], tensor.shape, strict=True)
            )
        )
    made: dict[tuple[Op, tuple[Tensor, ...]], tuple[Tensor, ...]] = {}
    for node in graph.nodes:
        inputs = tuple([tensors[value] for value in node.inputs])
        key = node.op, inputs
        if key not in made:
            try:
                made[key] = node.op.infer(inputs)
            except Reject as reject:
                return Refusal(node.path, reject.message)
        for value, tensor in zip(node.outputs, made[key], strict=False):
            tensors[value] = tensor
    return _At(sizes, tuple(tensors))


def _shapes(graph: Graph, tensors: Sequence[Tensor]) -> Mapping[str, tuple[int, ...]]:
    return {name: tensors[value].shape for name, value in graph.inputs.items()}


# ------------------------------------------------------------------------------------ the search


class _Written(NamedTuple):
    """All that is written of a layer, and what folding asks it."""

    nodes: tuple[Node, ...]
    linear: LinearMap | None
    affine: ChannelAffine | None
    torch: TorchCode


class _Search:
    """Asks the layers of a graph at several sizes, each kind once."""

    def __init__(self, graph: Graph, opset: int, found: Symbols) -> None:
        self._graph = graph
        self._opset = opset
        self._usual = found.sizes
        self._takes = found.takes
        self._layers = [graph.nodes[index] for index in sorted(graph.inference)]
        self._here = [self._written(node, graph.site(node)) for node in self._layers]
        self._count = max(_LEAST, min(_MOST, _STEPS // max(1, len(self._layers))))

    def run(self) -> tuple[dict[str, Takes], list[Fixed]]:
        """Sizes that can be free, with the values they may have; and those that cannot."""
        free: dict[str, Takes] = {}
        fixed: dict[str, Fixed] = {}
        # Each alone first: what is fixed does not keep the others from being free.
        for takes in sorted(self._takes, key=lambda takes: len(takes.along)):
            if all(name in free for name in takes.along):
                continue
            problem = self._problem(takes)
            for name in takes.along:
                if problem is None:
                    free[name] = takes
                    fixed.pop(name, None)
                else:
                    fixed.setdefault(name, Fixed(name, problem[0], problem[1]))
        problem = next((p for at in self.tried(free) if (p := self._differs(at))), None)
        if problem is not None:
            fixed |= {name: Fixed(name, *problem) for name in free}
            free = {}
        return free, [fixed[name] for name in self._usual if name in fixed]

    def tried(self, free: Mapping[str, Takes]) -> Iterator[_At]:
        """The network at many sizes: each free one alone, and some together."""
        for takes in {id(takes): takes for takes in free.values()}.values():
            for size in self._members(takes):
                at = self._along(takes, size)
                if isinstance(at, _At):
                    yield at
        for sizes in self._together(free) if len(free) > 1 else ():
            at = _at(self._graph, {**self._usual, **sizes})
            if isinstance(at, _At):
                yield at

    def _along(self, takes: Takes, size: int) -> _At | Refusal:
        return _at(self._graph, {**self._usual, **dict.fromkeys(takes.along, size)})

    def _together(self, free: Mapping[str, Takes]) -> Iterator[Sizes]:
        """Some values for all free sizes: each with its neighbour, the same for all, at random."""
        few = {name: self._few(takes) for name, takes in free.items()}
        for step in (1, 0):
            for first in range(len(_SHARES)):
                yield {
                    name: values[(first + step * number) % len(_SHARES)]
                    for number, (name, values) in enumerate(few.items())
                }
        rng = Random(0)
        for _ in range(self._count):
            yield {name: rng.choice(values) for name, values in few.items()}

    def _members(self, takes: Takes) -> list[int]:
        """Values to try: the smallest, those around the usual one, some between, large ones."""
        usual = self._usual[takes.along[0]]
        third = self._count // 3
        limit = 3 * usual + (third + 1) * takes.same.period + (takes.same.smallest or 0)
        known = [size for lo, hi in takes.same.before(limit) for size in range(lo, hi + 1)]
        at = known.index(usual)
        around = known[max(0, at - third // 2) : at + third]
        between = known[:: max(1, len(known) // third)]
        return sorted({*known[:third], *around, *between, *known[-2:]})

    def _few(self, takes: Takes) -> list[int]:
        """Of the values to try those that are nearest to some shares of the usual one."""
        usual = self._usual[takes.along[0]]
        members = self._members(takes)
        return [min(members, key=lambda size: abs(size - share * usual)) for share in _SHARES]

    def _problem(self, takes: Takes) -> tuple[str, str | None] | None:
        """Why these sizes cannot be free, and the layer, where it is one."""
        name = takes.along[0]
        _, endless, beyond = takes.same.pattern()
        if not endless:
            at = self._along(takes, beyond)
            if isinstance(at, Refusal):
                return f"`{at.path}` refuses {name} = {beyond}: {at.message}", at.path
            if takes.fixed_by is not None:
                return f"the weights of `{takes.fixed_by}` change with {name}", takes.fixed_by
            return f"the network takes {takes.same.describe(name)} only", None
        for size in self._members(takes):
            at = self._along(takes, size)
            problem = self._differs(at) if isinstance(at, _At) else None
            if problem:
                return problem
        return None

    def _differs(self, at: _At) -> tuple[str, str] | None:
        """Why the file of the usual sizes is none for these, and the layer."""
        asked: dict[tuple[Op, Site], _Written] = {}
        for node, here in zip(self._layers, self._here, strict=True):
            tensors = at.tensors
            site = Site(
                tuple([tensors[value] for value in node.inputs]),
                tuple([tensors[value] for value in node.outputs]),
            )
            key = node.op, site
            if key not in asked:
                asked[key] = self._written(node, site)
            if asked[key] != here:
                difference = _difference(here, asked[key])
                usual = _shown({name: self._usual[name] for name in at.sizes}, at.sizes)
                other = _shown(at.sizes, self._usual)
                return (
                    f"`{node.path}` ({node.op.name}) becomes {difference[0]} where {usual}, "
                    f"{difference[1]} where {other}"
                ), node.path
        return None

    def _written(self, node: Layer, site: Site) -> _Written:
        op = node.op
        return _Written(
            op.onnx_open(site, self._opset),
            op.linear_map(site),
            op.channel_affine(site),
            _module(op.torch(site)),
        )


def _module(code: TorchCode) -> TorchCode:
    """What is executed: how much a small class multiplies changes with the size."""
    if isinstance(code, Helper):
        return Helper(code.name, code.source, code.args, code.kwargs, code.feeds)
    return code


def _shown(sizes: Sizes, others: Sizes) -> str:
    """Those sizes that differ from others."""
    shown = [f"{name} is {size}" for name, size in sizes.items() if others[name] != size]
    return " and ".join(shown)


def _difference(here: _Written, there: _Written) -> tuple[str, str]:
    """In what two lowerings of a layer differ first, in words for both."""
    for one, other in zip(here.nodes, there.nodes, strict=False):
        if one.op != other.op:
            break
        theirs = dict(other.attributes)
        for name, value in one.attributes:
            if theirs.get(name) != value:
                return f"`{one.op}` with {name} {_plain(value)}", f"{_plain(theirs.get(name))}"
        if one != other:
            return f"`{one.op}` of some numbers", "of others"
    if here.nodes != there.nodes:
        return _operators(here.nodes), _operators(there.nodes)
    if here.torch != there.torch:
        return "one module in torch", "another one"
    return "one that a norm folds into", "one that it does not, or the reverse,"


def _plain(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)


def _operators(nodes: Sequence[Node]) -> str:
    return listed(dict.fromkeys(node.op for node in nodes if node.op != "Identity")) or "nothing"


# ----------------------------------------------------------------------------- what is declared


def _values(
    graph: Graph, found: Symbols, tried: Sequence[_At]
) -> Mapping[int, tuple[int | str | None, ...]]:
    """For each value of a size that changes its sizes, named for inputs and outputs."""
    named: dict[int, tuple[str | None, ...]] = {}
    for output in graph.outputs:
        if not output.training:
            named[output.value] = _output_names(graph, found, tried, output.name, output.value)
    named |= {value: graph.symbols[name] for name, value in graph.inputs.items()}
    values: dict[int, tuple[int | str | None, ...]] = {}
    for value, tensor in enumerate(graph.tensors):
        changes = [
            any(at.tensors[value].shape[axis] != n for at in tried)
            for axis, n in enumerate(tensor.shape)
        ]
        if any(changes):
            names = named.get(value, (None,) * tensor.rank)
            values[value] = tuple(
                name if change else n
                for name, change, n in zip(names, changes, tensor.shape, strict=True)
            )
    return values


def _output_names(
    graph: Graph, found: Symbols, tried: Sequence[_At], name: str, value: int
) -> tuple[str, ...]:
    """Formulas of an output's sizes where they are short and hold, else its name and the axis."""
    names = []
    tensor = graph.tensors[value]
    for axis, (formula, role) in enumerate(zip(found.outputs[name], tensor.roles, strict=True)):
        holds = all(formula.at(**at.sizes) == at.tensors[value].shape[axis] for at in tried)
        text = formula.plain
        names.append(text if holds and len(text) <= _LONGEST_NAME else f"{name}.{role}")
    return tuple(names)


def _others(tried: Sequence[_At], usual: Sizes, free: Collection[str]) -> Iterator[_At]:
    """Two sizes to try a file at: a smaller and a larger one, not much larger than usual.

    As many sizes as possible differ from what they were.
    """

    def unlike(at: _At) -> int:
        return -sum(at.sizes[name] != usual[name] for name in free)

    def area(at: _At) -> float:
        return prod(at.sizes[name] / usual[name] for name in free)

    for wanted, least, most in ((0.6, 0.0, 0.99), (1.2, 1.01, 2.5)):
        fitting = [at for at in tried if least <= area(at) <= most]
        if fitting:
            yield min(fitting, key=lambda at: (unlike(at), abs(area(at) - wanted)))
