"""Which modules the network becomes, what each calls in which order, and what each stores.

A scope becomes a `Unit`, a module with a forward of its own. An inline scope dissolves into the
unit around it; so does one that reuses weights from outside itself, unless it repeats a whole other
scope, which is then called twice. Only structure is decided here: no source text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cnnspec.backends.torch.overwriting import Overwriting
from cnnspec.ir import Graph, Node, Scope
from cnnspec.lower import Helper, Module, TorchCode
from cnnspec.weights import Buffer, Weight

__all__ = ["Branch", "CallStep", "Leaf", "ModuleLeaf", "NodeStep", "Step", "Stored", "Unit", "plan"]


@dataclass(frozen=True, slots=True)
class ModuleLeaf:
    """A module of torch or a helper class, at the path of a node."""

    node: Node
    code: Module | Helper
    stateful: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A parameter or buffer that a unit holds itself, by the name its op gives it."""

    node: Node
    name: str
    tensor: Weight | Buffer


@dataclass(frozen=True, slots=True)
class NodeStep:
    """One operation in a forward. `inference` is False for what only training needs.

    `over` is the number of the input that the result takes the place of, if it does.
    """

    node: Node
    code: TorchCode
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    over: int | None = None
    inference: bool = True


@dataclass(frozen=True, slots=True)
class CallStep:
    """A call of another unit, on its own inputs or (`scope` is another one then) on others."""

    target: Unit
    scope: Scope
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    inference: bool = True


@dataclass(slots=True, eq=False)
class Branch:
    """A level of the tree of what a unit stores, by parts of the path below the unit."""

    children: dict[str, Branch] = field(default_factory=dict)
    leaf: Leaf | None = None


@dataclass(slots=True, eq=False)
class Unit:
    """A module with a forward: its steps in order, and the tree of what it stores.

    `inputs` and `outputs` are value numbers. `extended` says that an entry outside has a path below
    this one.
    """

    scope: Scope
    order: int
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    training_outputs: frozenset[int]
    tree: Branch
    stateful: bool
    extended: bool = False

    @property
    def mixed(self) -> bool:
        """True if inference leaves some of the steps out, but not all."""
        return len({step.inference for step in self.steps}) == 2


Step: TypeAlias = NodeStep | CallStep
Leaf: TypeAlias = ModuleLeaf | Stored | Unit


def plan(graph: Graph) -> tuple[Unit, ...]:
    """The units of a network in the order of their scopes; the first is the network itself."""
    return _Planner(graph).units()


@dataclass(frozen=True, slots=True, eq=False)
class _Repeat:
    """A scope that does again what `target` does: `mapping` takes values there to values here."""

    scope: Scope
    target: Scope
    mapping: dict[int, int]


@dataclass(slots=True, eq=False)
class _Entry:
    """A member of a unit after inline scopes are dissolved."""

    node: Node | None = None
    unit: Unit | None = None
    repeat: _Repeat | None = None


class _Planner:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.scopes: list[Scope] = []
        self.first: dict[Scope, int] = {}
        self.last: dict[Scope, int] = {}
        self._number_scopes()
        sites = [graph.site(node) for node in graph.nodes]
        pairs = list(zip(graph.nodes, sites, strict=True))
        self.stored: list[dict[str, Weight | Buffer]] = [
            {**node.op.weights(site), **node.op.buffers(site)} for node, site in pairs
        ]
        self.codes = [node.op.torch(site) for node, site in pairs]
        self.dissolved: set[Scope] = set()
        self.repeats: dict[Scope, _Repeat] = {}
        self._resolve_sharing()
        overwriting = self._overwriting()
        self.codes = overwriting.codes
        self.over = overwriting.operands
        self.used = self._with_repeats(graph.used)
        self.inference = self._with_repeats(graph.inference)
        self.outputs = {output.value for output in graph.outputs}
        self.inferred = {output.value for output in graph.outputs if not output.training}
        self.nearest, self.farthest = self._readers()

    # ----------------------------------------------------------------------------------- scopes

    def _number_scopes(self) -> None:
        stack: list[tuple[Scope, Iterator[int | Scope]]] = []

        def enter(scope: Scope) -> None:
            self.first[scope] = len(self.scopes)
            self.scopes.append(scope)
            stack.append((scope, iter(scope.members)))

        enter(self.graph.root)
        while stack:
            scope, members = stack[-1]
            for member in members:
                if isinstance(member, Scope):
                    enter(member)
                    break
            else:
                self.last[scope] = len(self.scopes) - 1
                stack.pop()

    def _inside(self, inner: Scope, outer: Scope) -> bool:
        return self.first[outer] <= self.first[inner] <= self.last[outer]

    # ---------------------------------------------------------------------------------- sharing

    def _resolve_sharing(self) -> None:
        """Find the scopes that repeat others whole; dissolve those that only borrow weights."""
        for node in self.graph.nodes:
            if node.share is None or not self.stored[node.index]:
                continue
            owner = self.graph.nodes[node.share]
            around: list[Scope] = []
            scope: Scope | None = node.scope
            while scope is not None and not self._inside(owner.scope, scope):
                around.append(scope)
                scope = scope.parent
            for scope in reversed(around):
                if scope in self.repeats:
                    break
                if scope.inline or scope in self.dissolved:
                    continue
                repeat = self._match(scope)
                if repeat is not None:
                    self.repeats[scope] = repeat
                    break
                self.dissolved.add(scope)
        self._drop_repeats_of_dissolved()

    def _drop_repeats_of_dissolved(self) -> None:
        changed = True
        while changed:
            changed = False
            for scope, repeat in list(self.repeats.items()):
                if repeat.target in self.dissolved:
                    del self.repeats[scope]
                    self.dissolved.update(s for s in self._below(scope) if not s.inline)
                    changed = True

    def _below(self, scope: Scope) -> list[Scope]:
        return self.scopes[self.first[scope] : self.last[scope] + 1]

    def _match(self, scope: Scope) -> _Repeat | None:
        """The scope whose every node `scope` repeats with shared weights, if there is one."""
        nodes = self.graph.nodes
        own = [nodes[index] for index in scope.nodes()]
        first = next((n for n in own if n.share is not None and self.stored[n.index]), None)
        if first is None or first.share is None:
            return None
        owner = nodes[first.share]
        relative = first.path[len(scope.path) :]
        target: Scope | None = owner.scope
        while target is not None and (target.inline or target.path + relative != owner.path):
            target = target.parent
        if target is None or self._inside(scope, target) or self._inside(target, scope):
            return None
        others = [nodes[index] for index in target.nodes()]
        if len(own) != len(others):
            return None
        mapping: dict[int, int] = {}
        for mine, theirs in zip(own, others, strict=True):
            if mine.op != theirs.op or len(mine.inputs) != len(theirs.inputs):
                return None
            if self.stored[mine.index] and (
                mine.share is None or mine.share not in (theirs.index, theirs.share)
            ):
                return None
            for here, there in zip(mine.inputs, theirs.inputs, strict=True):
                if mapping.setdefault(there, here) != here:
                    return None
            mapping.update(zip(theirs.outputs, mine.outputs, strict=True))
        return _Repeat(scope, target, mapping)

    def _with_repeats(self, nodes: frozenset[int]) -> set[int]:
        """`nodes`, and those of repeated scopes whose repetition is among them."""
        found = set(nodes)
        changed = bool(self.repeats)
        while changed:
            changed = False
            for repeat in self.repeats.values():
                pairs = zip(repeat.scope.nodes(), repeat.target.nodes(), strict=True)
                new = {theirs for mine, theirs in pairs if mine in found} - found
                changed = changed or bool(new)
                found |= new
        return found

    def _overwriting(self) -> Overwriting:
        """Decide what is computed in place, alike in a scope and in what repeats it."""
        home: dict[Scope, Scope] = {}
        for scope in self.scopes:
            parent = scope.parent
            dissolves = parent is not None and (scope.inline or scope in self.dissolved)
            home[scope] = home[parent] if dissolves and parent is not None else scope
        same = [
            pair
            for repeat in self.repeats.values()
            for pair in zip(repeat.scope.nodes(), repeat.target.nodes(), strict=True)
        ]
        return Overwriting(self.graph, self.codes, home, same)

    # ------------------------------------------------------------------------------------ values

    def _readers(self) -> tuple[list[int], list[int]]:
        """For each value the lowest and highest scope that reads it; outputs leave every scope."""
        count = len(self.graph.tensors)
        low, high = [len(self.scopes)] * count, [-1] * count
        for index in sorted(self.used):
            node = self.graph.nodes[index]
            at = self.first[node.scope]
            for value in node.inputs:
                low[value] = min(low[value], at)
                high[value] = max(high[value], at)
        for output in self.graph.outputs:
            low[output.value] = -1
            high[output.value] = len(self.scopes)
        changed = bool(self.repeats)
        while changed:
            changed = False
            for repeat in self.repeats.values():
                changed = self._demand(repeat, low, high) or changed
        return low, high

    def _demand(self, repeat: _Repeat, low: list[int], high: list[int]) -> bool:
        """What a repetition hands out, its target hands out too; True if that is news."""
        around = repeat.target.parent
        assert around is not None  # the root repeats nothing
        at = self.first[around]
        news = False
        for theirs, mine in repeat.mapping.items():
            producer = self.graph.producers[theirs]
            if producer < 0 or not self._inside(self.graph.nodes[producer].scope, repeat.target):
                continue
            if _leaves(mine, repeat.scope, low, high, self.first, self.last) and not (
                low[theirs] <= at <= high[theirs]
                and _leaves(theirs, repeat.target, low, high, self.first, self.last)
            ):
                low[theirs], high[theirs] = min(low[theirs], at), max(high[theirs], at)
                news = True
        return news

    def _escapes(self, value: int, scope: Scope) -> bool:
        """True if something outside `scope` reads `value`."""
        return _leaves(value, scope, self.nearest, self.farthest, self.first, self.last)

    # ------------------------------------------------------------------------------------- units

    def units(self) -> tuple[Unit, ...]:
        """Every unit, in the order of scopes; inner ones are made first."""
        made: dict[Scope, Unit] = {}
        entries: dict[Scope, list[_Entry]] = {}
        repeated = {inner for scope in self.repeats for inner in self._below(scope)}
        for scope in reversed(self.scopes):
            if scope in repeated:
                continue
            own: list[_Entry] = []
            for member in scope.members:
                if not isinstance(member, Scope):
                    own.append(_Entry(node=self.graph.nodes[member]))
                elif member in self.repeats:
                    own.append(_Entry(repeat=self.repeats[member]))
                elif member.inline or member in self.dissolved:
                    own += entries.pop(member)
                else:
                    own.append(_Entry(unit=made[member]))
            if scope.parent is not None and (scope.inline or scope in self.dissolved):
                entries[scope] = own
            else:
                made[scope] = self._unit(scope, own, made)
        return tuple(sorted(made.values(), key=lambda unit: unit.order))

    def _unit(self, scope: Scope, entries: list[_Entry], made: dict[Scope, Unit]) -> Unit:
        steps = [step for entry in entries for step in self._steps(entry, made)]
        kept = self._needed(scope, steps)
        live = {id(step.node) for step in kept if isinstance(step, NodeStep)}
        written = {value for step in kept for value in step.writes}
        tree, stateful = self._tree(scope, entries, live)
        outputs = dict.fromkeys(value for _, value in scope.outputs)
        outputs.update(dict.fromkeys(value for step in kept for value in step.writes))
        escaping = tuple(v for v in outputs if v in written and self._escapes(v, scope))
        within = {value for step in kept if step.inference for value in step.writes}
        return Unit(
            scope,
            self.first[scope],
            tuple(kept),
            self._inputs(scope, kept, written),
            escaping,
            frozenset(value for value in escaping if within and value not in within),
            tree,
            stateful,
        )

    def _steps(self, entry: _Entry, made: dict[Scope, Unit]) -> Iterator[Step]:
        if entry.node is not None:
            node = entry.node
            over = self.over.get(node.index)
            yield NodeStep(node, self.codes[node.index], node.inputs, node.outputs, over)
        elif entry.unit is not None:
            unit = entry.unit
            yield CallStep(unit, unit.scope, unit.inputs, unit.outputs)
        elif entry.repeat is not None:
            repeat = entry.repeat
            unit = made[repeat.target]
            reads = tuple(repeat.mapping[value] for value in unit.inputs)
            writes = tuple(repeat.mapping[value] for value in unit.outputs)
            yield CallStep(unit, repeat.scope, reads, writes)

    def _needed(self, scope: Scope, steps: list[Step]) -> list[Step]:
        """The steps that what leaves the scope depends on; those of inference are marked so."""
        is_root = scope.parent is None
        needed: set[int] = set()
        infers: set[int] = set()
        kept: list[Step] = []
        for step in reversed(steps):
            for value in step.writes:
                if value in self.outputs if is_root else self._escapes(value, scope):
                    needed.add(value)
                    if value in self.inferred or (
                        not is_root and self.graph.producers[value] in self.inference
                    ):
                        infers.add(value)
            if needed.isdisjoint(step.writes):
                continue
            needed.update(step.reads)
            inference = not infers.isdisjoint(step.writes)
            if inference:
                infers.update(step.reads)
            kept.append(replace(step, inference=inference))
        kept.reverse()
        return kept

    def _inputs(self, scope: Scope, steps: list[Step], written: set[int]) -> tuple[int, ...]:
        if scope.parent is None:
            return tuple(self.graph.inputs.values())
        read = dict.fromkeys(value for step in steps for value in step.reads)
        declared = dict.fromkeys(value for value in scope.inputs if value in read)
        return tuple(value for value in {**declared, **read} if value not in written)

    # ------------------------------------------------------------------------------------- trees

    def _tree(self, scope: Scope, entries: list[_Entry], live: set[int]) -> tuple[Branch, bool]:
        """What the unit stores, and whether anything of it is in the state dict."""
        tree = Branch()
        stateful = False
        for entry in entries:
            if entry.unit is not None:
                unit = entry.unit
                if unit.steps or unit.stateful:
                    self._plant(tree, self._parts(scope, unit.scope.path), unit)
                    stateful = stateful or unit.stateful
            elif entry.node is not None:
                node = entry.node
                stored = self.stored[node.index]
                if stored and node.share is not None:
                    continue
                code = self.codes[node.index]
                parts = self._parts(scope, node.path)
                stateful = stateful or bool(stored)
                if isinstance(code, (Module, Helper)):
                    if stored or id(node) in live:
                        self._plant(tree, parts, ModuleLeaf(node, code, bool(stored)))
                else:
                    for name, tensor in stored.items():
                        below = tuple(name.split(".")) if name else ()
                        self._plant(tree, (*parts, *below), Stored(node, name, tensor))
        return tree, stateful

    @staticmethod
    def _parts(scope: Scope, path: str) -> tuple[str, ...]:
        return tuple((path[len(scope.path) + 1 :] if scope.path else path).split("."))

    @staticmethod
    def _plant(tree: Branch, parts: tuple[str, ...], leaf: Leaf) -> None:
        for part in parts:
            if isinstance(tree.leaf, Unit):
                tree.leaf.extended = True
            tree = tree.children.setdefault(part, Branch())
        tree.leaf = leaf
        if tree.children and isinstance(leaf, Unit):
            leaf.extended = True


def _leaves(
    value: int,
    scope: Scope,
    low: list[int],
    high: list[int],
    first: dict[Scope, int],
    last: dict[Scope, int],
) -> bool:
    """True if a reader of `value`, from scope `low` to scope `high`, is outside `scope`."""
    return high[value] >= 0 and not (first[scope] <= low[value] and high[value] <= last[scope])
