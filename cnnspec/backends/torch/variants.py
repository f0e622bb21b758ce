"""Uses of a block that differ by a module which some of them lack, such as a projection.

A block's use without it passes on what the module would have read. Where all else is equal, both
are one class, and the module is the identity. Bodies are compared here and rewritten, not made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cnnspec.backends.torch.build import Body, Build, Optional, Statement
from cnnspec.backends.torch.plan import CallStep, ModuleLeaf, Step, Unit
from cnnspec.ir import Graph, Scope
from cnnspec.lower import Helper, Module

__all__ = ["Variants"]

_Signature = tuple[Any, ...]


class Variants:
    """Which units can be written as others with modules left out."""

    def __init__(self, graph: Graph, units: list[Unit]) -> None:
        self._graph = graph
        self._template: dict[Unit, Unit] = {}
        self._shortcuts: dict[Unit, tuple[Step, ...]] = {}
        families: dict[tuple[str, str], list[Unit]] = {}
        for unit in units:
            if unit.scope.definition is not None and not unit.mixed:
                families.setdefault(unit.scope.definition, []).append(unit)
        for family in families.values():
            if len(family) > 1:
                self._compare(family)

    def shortcuts(self, unit: Unit) -> tuple[Step, ...]:
        """The steps that others, written as `unit`, do without."""
        return self._shortcuts.get(unit, ())

    def is_one(self, unit: Unit) -> bool:
        """True if a unit is written as another, or others as it."""
        return unit in self._template or unit in self._shortcuts

    def heights(self, units: Sequence[Unit]) -> dict[Unit, int]:
        """For each unit the number of levels of units below; those that may be one class agree."""
        found = dict.fromkeys(units, 0)
        below = {unit: _children(unit) for unit in units}
        changed = True
        while changed:
            changed = False
            for unit in reversed(units):
                height = 1 + max([found[child] for child in below[unit]], default=-1)
                template = self._template.get(unit)
                if template is not None:
                    height = max(height, found[template])
                if height > found[unit]:
                    found[unit] = height
                    changed = True
        return found

    def merged(self, bodies: Mapping[Unit, Body]) -> dict[Unit, Body]:
        """New bodies for units that others are written as, and for those others."""
        found: dict[Unit, Body] = {}
        for unit, steps in self._shortcuts.items():
            if unit in bodies:
                body = _whole(bodies[unit], [self._key(unit, step) for step in steps])
                if body is not None:
                    found[unit] = body
        for unit, template in self._template.items():
            if unit in bodies and template in found:
                body = _without(found[template], bodies[unit])
                if body is not None:
                    found[unit] = body
        return found

    def _compare(self, family: list[Unit]) -> None:
        longest = max(len(unit.steps) for unit in family)
        if all(len(unit.steps) == longest for unit in family):
            return
        known: dict[_Signature, list[Unit]] = {}
        for unit in family:
            known.setdefault(self._signature(unit, frozenset()), []).append(unit)
        whole = next(unit for unit in family if len(unit.steps) == longest)
        optional: set[int] = set()
        for signature, units in known.items():
            lacking = frozenset(
                number
                for number, step in enumerate(whole.steps)
                if self._can_lack(whole, step)
                and self._key(whole, step) not in units[0].tree.children
            )
            if lacking and self._signature(whole, lacking) == signature:
                optional |= lacking
                self._template.update(dict.fromkeys(units, whole))
        if optional:
            for unit in known[self._signature(whole, frozenset())]:
                self._shortcuts[unit] = tuple([unit.steps[number] for number in sorted(optional)])

    def _can_lack(self, unit: Unit, step: Step) -> bool:
        """True for a call of one child with one tensor."""
        if len(step.reads) != 1 or len(step.writes) != 1 or self._key(unit, step) is None:
            return False
        if isinstance(step, CallStep):
            return step.target.scope is step.scope
        return isinstance(step.code, (Module, Helper)) and step.node.named

    def _key(self, unit: Unit, step: Step) -> str | None:
        path = step.scope.path if isinstance(step, CallStep) else step.node.path
        key = _below(unit.scope, path)
        return key if key in unit.tree.children else None

    def _signature(self, unit: Unit, lacking: frozenset[int]) -> _Signature:
        """What a unit computes, by numbered values, where some steps pass on their input."""
        numbers = {value: number for number, value in enumerate(unit.inputs)}
        found: list[object] = [len(numbers)]
        made = len(numbers)
        for position, step in enumerate(unit.steps):
            if position in lacking:
                numbers[step.writes[0]] = numbers[step.reads[0]]
                continue
            found.append((self._said(unit, step), tuple([numbers[v] for v in step.reads])))
            for value in step.writes:
                numbers[value] = made
                made += 1
        return (*found, tuple([numbers[value] for value in unit.outputs]))

    def _said(self, unit: Unit, step: Step) -> object:
        """What a step does, apart from numbers in constructors."""
        if isinstance(step, CallStep):
            return _below(unit.scope, step.scope.path), step.target.scope.path == step.scope.path
        code, node = step.code, step.node
        over = step.over
        if not isinstance(code, (Module, Helper)):
            return code, over
        leaf = ModuleLeaf(node, code, bool(node.op.weights(self._graph.site(node))))
        path = _below(unit.scope, node.path) if leaf.stateful or node.named else ""
        kind = code.name if isinstance(code, Helper) else (code.target, code.feed_kwargs)
        return path, kind, code.feeds, getattr(code, "result", None), over, node.share is None


def _children(unit: Unit) -> list[Unit]:
    """The units that a unit calls or holds."""
    found = [step.target for step in unit.steps if isinstance(step, CallStep)]
    stack = list(unit.tree.children.values())
    while stack:
        branch = stack.pop()
        if isinstance(branch.leaf, Unit):
            found.append(branch.leaf)
        stack += branch.children.values()
    return found


def _below(scope: Scope, path: str) -> str:
    return path[len(scope.path) + 1 :] if scope.path else path


def _whole(body: Body, keys: list[str | None]) -> Body | None:
    """A body whose modules of those names are optional."""
    init: list[Statement] = []
    left = set(keys)
    for statement in body.init:
        if statement.label in left and isinstance(statement.value, Build) and not statement.tail:
            made = Optional(statement.label, statement.value, there=True)
            init.append(replace(statement, value=made))
            left.discard(statement.label)
        else:
            init.append(statement)
    return None if left else replace(body, init=tuple(init))


def _without(whole: Body, body: Body) -> Body | None:
    """The whole body with the numbers of one that lacks some of its modules."""
    own = {statement.lead: statement for statement in body.init}
    init: list[Statement] = []
    for statement in whole.init:
        mine = own.pop(statement.lead, None)
        if mine is None:
            if not isinstance(statement.value, Optional):
                return None
            init.append(replace(statement, value=replace(statement.value, there=False)))
        elif isinstance(statement.value, Optional):
            if not isinstance(mine.value, Build):
                return None
            init.append(replace(mine, value=replace(statement.value, value=mine.value)))
        else:
            init.append(mine)
    return None if own else replace(whole, init=tuple(init))
