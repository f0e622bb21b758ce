"""Graph to Python source: what a person would have written by hand, with no trace of cnnspec.

Only text is made here. Values reach it as literals of checked numbers, and as names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from cnnspec.backends.torch.bodies import LAYERS, Classes, callee_of, classes_of
from cnnspec.backends.torch.build import (
    Build,
    ClassGroup,
    Line,
    Number,
    Optional,
    Value,
    signature,
)
from cnnspec.backends.torch.forward import OutputTypes
from cnnspec.backends.torch.plan import plan
from cnnspec.backends.torch.starting import CALL, starting_lines
from cnnspec.backends.torch.text import (
    INDENT,
    WIDTH,
    Group,
    camel,
    docstring,
    quote,
    render,
    unique,
)
from cnnspec.ir import Graph

__all__ = ["Written", "emit", "write"]

_STANDARD = (
    ("math", "import math"),
    ("OrderedDict", "from collections import OrderedDict"),
    ("Callable", "from collections.abc import Callable"),
    ("NamedTuple", "from typing import NamedTuple"),
)
_CONTAINERS = frozenset(("", "super().__init__", "nn.Sequential", "nn.ModuleList", "OrderedDict"))
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
    classes = classes_of(graph, plan(graph), types, network, _doc(graph))
    _give_names(classes, types)
    *inner, last = classes.groups
    starting = starting_lines(graph)
    tuples = list(_tuple_lines(types, graph))
    blocks = [source.strip("\n").rstrip() for _, source in sorted(classes.helpers.items())]
    blocks += ["\n".join(_class_lines(group, ())) for group in inner]
    blocks += ["\n".join(lines) for _, lines in tuples]
    blocks.append("\n".join(_class_lines(last, starting)))
    body = "\n\n\n".join(blocks)
    imports = "\n\n".join(_import_sections(body))
    title = "\n".join(docstring((f"{graph.name}, written by cnnspec.", "", _totals(graph))))
    names = sorted([last.name, *(name for name, _ in tuples)])
    exported = Group("[", tuple(map(quote, names)), "]", lead="__all__ = ")
    public = "\n".join(render(exported, 0))
    return Written(f"{title}\n\n{imports}\n\n{public}\n\n\n{body}\n", last.name)


def _doc(graph: Graph) -> tuple[str, ...]:
    """What is said of the network's class."""
    tensors = graph.tensors
    given = ", ".join(f"{name} {tensors[v]}" for name, v in graph.inputs.items())
    made = ", ".join(f"{o.name} {tensors[o.value]}" for o in graph.outputs if not o.training)
    more = ", ".join(f"{o.name} {tensors[o.value]}" for o in graph.outputs if o.training)
    lines = [f"Takes {given} and gives {made}, with a batch in front."]
    if more:
        lines.append(f"In training mode it gives {more} too.")
    return (f"The network {graph.name}.", "", " ".join(lines))


def _totals(graph: Graph) -> str:
    """Parameters and multiply-accumulates of inference; parameters of training where these differ.

    What is stored for several nodes counts once.
    """
    owners = {node.index if node.share is None else node.share for node in graph.nodes}
    params = {
        index: sum(w.elements for w in node.op.weights(graph.site(node)).values())
        for index in owners
        for node in (graph.nodes[index],)
    }
    inferred = {
        node.index if node.share is None else node.share
        for node in graph.nodes
        if node.index in graph.inference
    }
    macs = sum(
        node.op.cost(graph.site(node)).mac for node in graph.nodes if node.index in graph.inference
    )
    counted = sum(params[index] for index in inferred)
    whole = sum(params.values())
    text = f"{counted:,} parameters, {macs:,} multiply-accumulates for one sample."
    if whole == counted:
        return text
    return f"{text} With what only training needs {whole:,} parameters."


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
    """What a class is made of, as words of a name: attributes, and classes of their modules."""
    found: dict[str, None] = {}
    chosen = next((p.name for p in group.parameters if p.annotation.startswith("Callable")), None)
    for statement in group.body.init:
        if statement.label and not statement.label.isdigit():
            found[camel(statement.label, "Part")] = None
        stack: list[Value] = [statement.value]
        while stack:
            value = stack.pop()
            if isinstance(value, Optional):
                stack.append(value.value)
            elif isinstance(value, Build):
                callee = callee_of(value)
                if isinstance(value.callee, Number) and chosen is not None:
                    callee = chosen
                if callee in _CONTAINERS:
                    stack += [item.value for item in reversed(value.items)]
                elif not statement.label or statement.label.isdigit() or stack:
                    found[camel(callee.rpartition(".")[2], "Part")] = None
    if any(isinstance(line.doc, str) and " += " in line.doc for line in group.body.forward):
        found["Shortcut"] = None
    return list(found)


# ----------------------------------------------------------------------------------------- lines


def _class_lines(group: ClassGroup, starting: tuple[Line, ...]) -> Iterator[str]:
    """A class; `starting` is the method that starts its weights."""
    yield f"class {group.name}({group.body.base}):"
    yield from docstring(_class_doc(group), 1)
    if group.body.init or starting:
        yield ""
        yield from render(signature(group.parameters), 1)
        for statement, tail in group.init_lines():
            yield from render(statement, 2, tail)
        if starting:
            yield f"{INDENT * 2}{CALL}"
    if group.body.forward:
        yield ""
        for line in group.forward_lines():
            yield from _line(line)
    if starting:
        yield ""
        for line in starting:
            yield from _line(line)


def _line(line: Line) -> list[str]:
    """A statement; what is remarked stands behind it if it fits."""
    lines = render(line.doc, line.depth + 1)
    if line.remark:
        remarked = f"{lines[-1]}  # {line.remark}"
        if len(lines) == 1 and len(remarked) <= WIDTH:
            return [remarked]
    return lines


def _class_doc(group: ClassGroup) -> tuple[str, ...]:
    """What a class is for, and where in the network it is used."""
    paths, (first, *more) = group.paths, group.body.doc
    if more or not paths or not paths[0]:
        return group.body.doc
    if len(paths) == 1:
        where = f"`{paths[0]}`"
    else:
        where = f"`{paths[0]}` {'and' if len(paths) == 2 else 'to'} `{paths[-1]}`"
    if first == LAYERS:
        return (f"{first} {where}.",)
    times = f", {len(paths)} times" if len(paths) > 1 else ""
    return (f"{first}{times}: {where}.",)


def _tuple_lines(types: OutputTypes, graph: Graph) -> Iterator[tuple[str, list[str]]]:
    for name, outputs, when in (
        (types.of_inference, types.inference, ""),
        (types.of_training, types.outputs, " in training mode"),
    ):
        if name is not None:
            fields = [
                f"{INDENT}{types.fields[output.name]}: Tensor  # {graph.tensors[output.value]}"
                for output in outputs
            ]
            doc = docstring((f"What {graph.name} gives{when}.",), 1)
            yield name, [f"class {name}(NamedTuple):", *doc, "", *fields]


def _import_sections(body: str) -> Iterator[str]:
    """The imports that the text needs, as a formatter would sort them."""
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    standard = [line for name, line in _STANDARD if name in used]
    if standard:
        yield "\n".join(standard)
    lines = [line for name, line in _TORCH if name in used]
    names = ", ".join(name for name in ("Tensor", "nn") if name in used)
    yield "\n".join([*lines, f"from torch import {names}"])
