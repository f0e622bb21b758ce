"""A lens: how another tool counts, as a table of charges; and a network read through it.

What a tool counts for one call of torch is a `Charge` or several. Charges of products stand in for
our multiply-accumulates, all others come on top, so that the differences between a tool's total and
ours add up by themselves. Tables of the tools are in files of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cnnspec.ir import Graph
from cnnspec.lenses.execution import Step, steps
from cnnspec.passes.facts import Facts
from cnnspec.passes.sites import Kind, Sites
from cnnspec.passes.weights import Stored, Weights

__all__ = [
    "NO_CALL",
    "Cause",
    "Charge",
    "Group",
    "Lens",
    "Printed",
    "Reading",
    "Rule",
    "Unknown",
    "read",
    "remaining",
]


class Charge(NamedTuple):
    """What a tool counts for one call, and how; `product` where it is for products."""

    amount: int
    why: str
    product: bool = False


class Unknown(NamedTuple):
    """What a tool counts for one call cannot be told, and why; `fails` where the tool would."""

    why: str
    fails: bool = False


NO_CALL = "no call"
"""What stands for a class or function where torch runs nothing."""

Rule = Callable[[Step], Sequence[Charge] | Unknown]
"""The charges of a tool for one call."""


class Printed(NamedTuple):
    """A line that a tool prints: what it says before the figure, and the figure."""

    label: str
    text: str


class Cause(NamedTuple):
    """Why a tool's total differs from our MACs: `amount` more, in `layers` calls of `target`."""

    target: str
    layers: int
    amount: int
    why: str


class Group(NamedTuple):
    """All layers that torch runs by one class or function; None where one's count is not known."""

    target: str
    layers: int
    macs: int
    counted: int | None


@dataclass(frozen=True, slots=True)
class Reading:
    """A network as a tool counts it, in inference, at batch 1.

    `counts` has a figure for each node, 0 for those that inference leaves out and None where it is
    not known. `total` is the sum of those known; `causes` add up to `total - macs`.
    """

    lens: Lens
    macs: int
    counts: tuple[int | None, ...]
    causes: tuple[Cause, ...]
    groups: tuple[Group, ...]
    unknown: Mapping[str, tuple[str, ...]]
    """Reasons why figures are missing, and the paths of the layers."""
    fails: bool
    """Whether the tool would end with an error."""
    params: int
    printed: tuple[Printed, ...]
    """Nothing where the tool would fail."""

    @property
    def total(self) -> int:
        """The tool's count for the network."""
        return sum(count for count in self.counts if count is not None)

    @property
    def status(self) -> str:
        """`exact`, `partial` where a layer's figure is not known, `unavailable` where it fails."""
        if self.fails:
            return "unavailable"
        return "partial" if self.unknown else "exact"


class Seen(NamedTuple):
    """What a lens makes of a network, before it is said as the tool says it."""

    graph: Graph
    nodes: Sequence[Sequence[Step]]
    """The calls of the nodes that run in inference, in order."""
    owners: Sequence[int]
    """For each of them the node whose weights it uses."""
    stored: Stored
    """Everything the model stores, for training too."""
    total: int


@dataclass(frozen=True, slots=True)
class Lens:
    """How one tool counts.

    `tool` names the package and version whose figures these are, `call` how they are asked for,
    `figure` what it calls them. `blind` says why products it has no charge for are missing.
    """

    name: str
    tool: str
    call: str
    figure: str
    blind: str
    rule: Rule
    trainable_only: bool
    """Whether its number of parameters leaves frozen ones out."""
    say: Callable[[Seen, int], Iterable[Printed]]
    """What it prints of a network with so many parameters."""
    doubt: Callable[[Graph, Mapping[int, Sequence[Step]]], Mapping[int, str]] = lambda *_: {}
    """Nodes whose figure depends on more than their own calls, and why it is not known."""


def read(graph: Graph, facts: Facts, lens: Lens) -> Reading:
    """A network through a lens."""
    sites = facts[Sites]
    kinds = [_judge(kind, lens) for kind in sites.kinds]
    counts: list[int | None] = [0] * len(graph.nodes)
    causes: dict[tuple[str, str], tuple[int, int]] = {}
    groups: dict[str, Group] = {}
    unknown: dict[str, list[str]] = {}
    run = {index: kinds[sites.of[index]].steps for index in sorted(graph.inference)}
    doubts = lens.doubt(graph, run)
    for index in run:
        node, found = graph.nodes[index], kinds[sites.of[index]]
        if index in doubts:
            found = replace(found, count=None, unknown=f"`{node.local}`: {doubts[index]}")
        counts[node.index] = found.count
        if found.unknown:
            unknown.setdefault(found.unknown, []).append(node.path)
        groups[found.target] = _grown(groups.get(found.target), found)
        for amount, why in found.differences:
            layers, sum_ = causes.get((found.target, why), (0, 0))
            causes[found.target, why] = layers + 1, sum_ + amount
    total = sum(count for count in counts if count is not None)
    fails = any(kinds[sites.of[index]].fails for index in graph.inference)
    stored = _everything(facts[Weights].nodes)
    seen = Seen(graph, tuple(run.values()), _owners(graph), stored, total)
    params = stored.trainable if lens.trainable_only else stored.params
    return Reading(
        lens,
        sum(group.macs for group in groups.values()),
        tuple(counts),
        tuple(
            Cause(target, layers, amount, why)
            for (target, why), (layers, amount) in sorted(
                causes.items(), key=lambda each: -abs(each[1][1])
            )
        ),
        tuple(groups.values()),
        {why: tuple(paths) for why, paths in unknown.items()},
        fails,
        params,
        () if fails else tuple(lens.say(seen, params)),
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a lens makes of one kind of node."""

    steps: tuple[Step, ...]
    target: str
    macs: int
    count: int | None
    differences: tuple[tuple[int, str], ...]
    unknown: str = ""
    fails: bool = False


def _judge(kind: Kind, lens: Lens) -> _Judged:
    run = steps(kind.op, kind.at)
    macs = kind.op.cost(kind.at).mac
    target = run[-1].target if run else NO_CALL
    charges: list[Charge] = []
    for step in run:
        found = lens.rule(step)
        if isinstance(found, Unknown):
            lost = ((-macs, "not known"),) if macs else ()
            why = f"`{step.target}`: {found.why}"
            return _Judged(run, target, macs, None, lost, why, found.fails)
        charges.extend(found)
    products = [charge for charge in charges if charge.product]
    difference = sum(charge.amount for charge in products) - macs
    differences = [(c.amount, c.why) for c in charges if not c.product and c.amount]
    if difference:
        differences.append((difference, products[0].why if products else lens.blind))
    count = sum(charge.amount for charge in charges)
    return _Judged(run, target, macs, count, tuple(differences))


def _grown(group: Group | None, found: _Judged) -> Group:
    """A group with one layer more."""
    if group is None:
        return Group(found.target, 1, found.macs, found.count)
    known = None
    if group.counted is not None and found.count is not None:
        known = group.counted + found.count
    return Group(found.target, group.layers + 1, group.macs + found.macs, known)


def _everything(nodes: Iterable[Stored]) -> Stored:
    return Stored(*(sum(each) for each in zip(Stored(), *nodes, strict=True)))


def _owners(graph: Graph) -> list[int]:
    """For each node of inference the one whose weights it uses: itself unless it borrows."""
    owners = []
    for node in graph.nodes:
        if node.index in graph.inference:
            owner = node
            while owner.share is not None:
                owner = graph.nodes[owner.share]
            owners.append(owner.index)
    return owners


def remaining(
    step: Step, counted: Iterable[str], others: Iterable[str], why: str
) -> Sequence[Charge] | Unknown:
    """Charges for a call that a tool's tables do not have.

    `counted` are functions whose products the tool counts as they are, `others` those it counts in
    ways that need more than is known here. Either may stand in the text of a class that the source
    brings along; that class says how much the products come to.
    """
    runs = step.runs if step.is_module else frozenset((step.target,))
    strange = runs.intersection(others)
    seen = runs.intersection(counted)
    if seen and step.is_module and step.products is not None and not strange:
        return [Charge(macs, why, True) for name, macs in step.products if name in seen]
    if seen or strange:
        return Unknown(f"`{min(strange or seen)}` is counted, and its sizes are not known")
    return ()
