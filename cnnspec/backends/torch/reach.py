"""How a forward gets at modules and tensors by the paths of the spec.

No source text but that of one access may enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from cnnspec.backends.torch.plan import Branch, CallStep, Step, Stored, Unit
from cnnspec.backends.torch.text import is_attribute, quote
from cnnspec.ir import Graph

__all__ = ["Reach", "Subscripts", "attribute", "container_kind"]

Subscripts: TypeAlias = Mapping[str, str]
"""By its key, what stands in brackets to reach a child of a list, a chain or a dict of modules."""

_DICT_OWNS = frozenset(dir(nn.ModuleDict()))


@dataclass(frozen=True, slots=True)
class Reach:
    """How the forward of `unit` gets at modules and tensors, its own and those further down."""

    graph: Graph
    made: Mapping[Unit, Subscripts | None]
    unit: Unit
    renamed: Mapping[int, str]
    subscripts: Subscripts | None

    def access(self, step: Step, name: str) -> str:
        """The text of what a step calls, or of a tensor `name` that its node stores itself."""
        if isinstance(step, CallStep):
            path = step.target.scope.path
        else:
            node = step.node
            if node.share is not None:
                node = self.graph.nodes[node.share]
            path = f"{node.path}.{name}" if name else node.path
        own = self.unit.scope.path
        return self._walk((path[len(own) + 1 :] if own else path).split("."))

    def _walk(self, parts: list[str]) -> str:
        shown = "self"
        branch = self.unit.tree
        subscripts = self.subscripts
        kind = "class" if subscripts is None else "list"
        for part in parts:
            if part not in branch.children:
                shown = attribute(shown, part)  # inside a module of torch
                kind = "class"
                continue
            branch = branch.children[part]
            if kind == "list" and subscripts is not None and part in subscripts:
                shown = f"{shown}[{subscripts[part]}]"
            elif kind in ("list", "dict") and shown.endswith("]"):
                shown = attribute(shown, part)  # what a container holds is any module
            elif kind == "list" and subscripts is None:
                shown = f"{shown}[{part}]"
            elif kind == "dict":
                shown = f"{shown}[{quote(part)}]"
            else:
                renamed = self.renamed.get(id(branch.leaf)) if shown == "self" else None
                shown = attribute(shown, renamed or part)
            subscripts = None
            kind = "class"
            if isinstance(branch.leaf, Unit):
                subscripts = self.made[branch.leaf]
                kind = "class" if subscripts is None else "list"
                branch = Branch({**branch.leaf.tree.children, **branch.children})
            elif branch.leaf is None:
                kind = container_kind(branch)
        return shown


def attribute(holder: str, name: str) -> str:
    """The text that reads an attribute, whatever its name."""
    return f"{holder}.{name}" if is_attribute(name) else f"getattr({holder}, {quote(name)})"


def container_kind(branch: Branch) -> str:
    """`list`, `dict` or `class`: what holds the children of a level that is no entry."""
    children = branch.children
    if any(isinstance(child.leaf, Stored) for child in children.values()):
        return "class"
    if any(child.leaf is not None and child.children for child in children.values()):
        return "class"
    if set(children) == {str(number) for number in range(len(children))}:
        return "list"
    return "class" if any(key in _DICT_OWNS for key in children) else "dict"
