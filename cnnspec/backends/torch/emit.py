"""Graph to Python source: what a person would have written by hand, with no trace of cnnspec.

Only text is made here. Values reach it as literals of checked numbers, and as names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from cnnspec.backends.torch.bodies import Classes, classes_of
from cnnspec.backends.torch.build import Build, ClassGroup, Value, signature
from cnnspec.backends.torch.forward import OutputTypes
from cnnspec.backends.torch.plan import plan
from cnnspec.backends.torch.text import INDENT, camel, docstring, render, unique
from cnnspec.ir import Graph

__all__ = ["Written", "emit", "write"]

_STANDARD = (
    ("math", "import math"),
    ("OrderedDict", "from collections import OrderedDict"),
    ("NamedTuple", "from typing import NamedTuple"),
)
_TORCH = (("torch", "import torch"), ("F", "import torch.nn.functional as F"))


@dataclass(frozen=True, slots=True)
class Written:
    """A file's text, and the name of the class in it that is the network."""

    text: str
    network: str


def emit(graph: Graph) -> str:
    """The source of a module for the network, equal to the byte for equal graphs.

    The last class is the network. It takes the network's inputs in order, each with a batch axis
    in front, and returns its output; several outputs are a named tuple. Training-only outputs are
    computed and returned in training mode alone. State-dict keys are the paths of the graph.

    Raises `ValueError` if the lowerings of two ops bring different helper classes of one name, and
    `TypeError` if one holds something that cannot be written down.
    """
    return write(graph).text


def write(graph: Graph) -> Written:
    """What `emit` gives, with the name of the network's class."""
    network = camel(graph.name, "Network")
    types = OutputTypes(graph, network)
    classes = classes_of(graph, plan(graph), types, network)
    _give_names(classes, types)
    *inner, last = classes.groups
    blocks = [source.strip("\n").rstrip() for _, source in sorted(classes.helpers.items())]
    blocks += ["\n".join(_class_lines(group)) for group in inner]
    blocks += ["\n".join(lines) for lines in _tuple_lines(types, graph)]
    blocks.append("\n".join(_class_lines(last)))
    body = "\n\n\n".join(blocks)
    imports = "\n\n".join(_import_sections(body))
    title = "\n".join(docstring((f"{graph.name}, written by cnnspec.",)))
    return Written(f"{title}\n\n{imports}\n\n\n{body}\n", last.name)


# ----------------------------------------------------------------------------------------- names


def _give_names(classes: Classes, types: OutputTypes) -> None:
    """Name the classes: variants of a block by what they have more, else by number."""
    network = classes.groups[-1]
    network.name = unique(network.wanted, classes.helpers, "")
    taken = {network.name, *classes.helpers}
    taken.update(filter(None, (types.of_inference, types.of_training)))
    families: dict[str, list[ClassGroup]] = {}
    for group in classes.groups[:-1]:
        families.setdefault(group.wanted, []).append(group)
    for wanted, family in families.items():
        features = {group.number: _features(group) for group in family}
        base = min(family, key=lambda group: (len(features[group.number]), group.number))
        for group in [base, *(other for other in family if other is not base)]:
            extra = [f for f in features[group.number] if f not in features[base.number]]
            name = wanted
            if group is not base and 1 <= len(extra) <= 2:
                name = f"{wanted}With{''.join(extra)}"
            group.name = unique(name, taken, "")
            taken.add(group.name)


def _features(group: ClassGroup) -> list[str]:
    """What a class is made of, as words of a name: attributes, and classes of numbered modules."""
    found: dict[str, None] = {}
    for statement in group.body.init:
        if statement.label and not statement.label.isdigit():
            found[camel(statement.label, "Part")] = None
            continue
        stack: list[Value] = [statement.value]
        while stack:
            value = stack.pop()
            if not isinstance(value, Build):
                continue
            callee = value.callee if isinstance(value.callee, str) else value.callee.wanted
            if callee and callee != "super().__init__":
                found[camel(callee.rpartition(".")[2], "Part")] = None
            else:
                stack += [item.value for item in reversed(value.items)]
    return list(found)


# ----------------------------------------------------------------------------------------- lines


def _class_lines(group: ClassGroup) -> Iterator[str]:
    yield f"class {group.name}({group.body.base}):"
    yield from docstring(group.body.doc, 1)
    if group.body.init:
        yield ""
        yield from render(signature(group.parameters), 1)
        for statement, tail in group.init_lines():
            yield from render(statement, 2, tail)
    if group.body.forward:
        yield ""
        for depth, statement in group.body.forward:
            yield from render(statement, depth + 1)


def _tuple_lines(types: OutputTypes, graph: Graph) -> Iterator[list[str]]:
    for name, outputs, when in (
        (types.of_inference, types.inference, "outputs"),
        (types.of_training, types.outputs, "outputs in training mode"),
    ):
        if name is not None:
            fields = [f"{INDENT}{types.fields[output.name]}: Tensor" for output in outputs]
            doc = docstring((f"The {when} of {graph.name}.",), 1)
            yield [f"class {name}(NamedTuple):", *doc, "", *fields]


def _import_sections(body: str) -> Iterator[str]:
    """The imports that the text needs, as a formatter would sort them."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    standard = [line for name, line in _STANDARD if name in used]
    if standard:
        yield "\n".join(standard)
    lines = [line for name, line in _TORCH if name in used]
    names = ", ".join(name for name in ("Tensor", "nn") if name in used)
    yield "\n".join([*lines, f"from torch import {names}"])
