"""The flat network: every entry with its whole path and its final arguments, as a spec and as JSON.

Blocks, loops, conditions, params, variants and imports are gone; what is left is a spec of the same
network, with the same paths. Three things of the language make that possible: a dotted `name` makes
its levels, an entry that is not built gives another name to what it reads (for an output that is
named after a group), and `from` takes any path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

from cnnspec.ir import Graph, NetworkOutput, Node
from cnnspec.op import slots_of
from cnnspec.report.arguments import short_arguments
from cnnspec.report.spec_text import flow_list, flow_mapping, value_text, word
from cnnspec.weights import Init

__all__ = ["FlatEntry", "FlatNetwork"]

_WIDTH = 100
_OUTPUT = "output"
"""What the language calls the only output of a spec that names none."""


@dataclass(frozen=True, slots=True)
class FlatEntry:
    """One entry: its operation, the arguments that are not torch's defaults, what it reads.

    `arguments` are as short as a spec may write them; those in `references` name tensors.
    `follows` is true where it reads the entry above and nothing else, so that it needs no `from`.
    """

    node: Node
    arguments: Mapping[str, object]
    references: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    follows: bool
    join: bool
    share: str | None
    init: Mapping[str, object] = field(default_factory=dict)

    @property
    def origin(self) -> Iterator[tuple[str, str, int, tuple[tuple[str, str], ...]]]:
        """The calls of blocks around it, innermost first: block, file, line, loop values."""
        for frame in self.node.frame.chain() if self.node.frame else ():
            yield frame.block, frame.span.source.name, frame.span.line, frame.loops


class FlatNetwork:
    """A graph as a flat list of entries."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @cached_property
    def init(self) -> Mapping[str, Mapping[str, object]]:
        """Initialisers by operation, where all its entries agree on them."""
        found: dict[str, dict[str, set[Init | None]]] = {}
        for node in self.graph.nodes:
            if node.share is not None:
                continue
            chosen = dict(node.init)
            weights = found.setdefault(node.op.name, {})
            for name in node.op.weights(self.graph.site(node)):
                weights.setdefault(name, set()).add(chosen.get(name))
        common: dict[str, Mapping[str, object]] = {}
        for operation, weights in found.items():
            if all(len(choices) == 1 for choices in weights.values()):
                agreed = {name: init for name, (init,) in weights.items() if init is not None}
                if agreed:
                    common[operation] = {name: _init_value(init) for name, init in agreed.items()}
        return common

    @cached_property
    def entries(self) -> tuple[FlatEntry, ...]:
        """The entries, in the order in which they run."""
        graph = self.graph
        above: int | None = None
        if len(graph.inputs) == 1:
            (above,) = graph.inputs.values()
        found = []
        for node in graph.nodes:
            found.append(self._entry(node, above))
            above = node.outputs[0] if len(node.outputs) == 1 else None
        return tuple(found)

    def _entry(self, node: Node, above: int | None) -> FlatEntry:
        graph = self.graph
        references: dict[str, str] = {}
        named: set[int] = set()
        for name, declared in slots_of(node.op.__class__).items():
            value = getattr(node.op, name)
            if declared.metadata["slot"].refers and value is not None:
                named.add(value)
                references[name] = graph.value_name(node.inputs[value])
        own = [v for position, v in enumerate(node.inputs) if position not in named]
        own_init: dict[str, object] = {}
        if node.share is None and self.init.get(node.op.name) is None:
            own_init = {name: _init_value(init) for name, init in node.init}
        return FlatEntry(
            node,
            {**short_arguments(node.op), **references},
            references,
            tuple(graph.value_name(value) for value in own),
            tuple(graph.value_name(value) for value in node.outputs),
            not own or (above is not None and own == [above]),
            # Operations in small letters join tensors, which stand under their name.
            node.op.name[0].islower(),
            graph.nodes[node.share].path if node.share is not None else None,
            own_init,
        )

    # ----------------------------------------------------------------------------------- the spec

    def spec(self, expect: Mapping[str, object] | None = None) -> str:
        """The network as a spec, with `expect` as what it expects of itself."""
        return "\n".join(self._lines(expect or {})) + "\n"

    def _lines(self, expect: Mapping[str, object]) -> Iterator[str]:
        graph = self.graph
        metadata = graph.metadata
        yield f"# {word(graph.name)} of {_one_line(self._file(metadata['spec_name']))}, written out"
        yield "cnnspec: 1"
        yield f"name: {word(graph.name)}"
        if metadata.get("description"):
            yield f"description: {word(metadata['description'])}"
        shapes = {name: list(graph.tensors[value].shape) for name, value in graph.inputs.items()}
        yield from _keyed("inputs", shapes)
        for key in ("preprocess", "labels"):
            if metadata.get(key) is not None:
                yield from _keyed(key, metadata[key])
        if self.init:
            yield from _keyed("init", self.init)
        yield ""
        yield "layers:"
        for entry in self.entries:
            yield from self._entry_lines(entry)
        yield from self._output_lines()
        if expect:
            yield ""
            yield from _keyed("expect", expect)

    def _entry_lines(self, entry: FlatEntry) -> Iterator[str]:
        node = entry.node
        inputs = [word(name, name=True) for name in entry.inputs]
        remark = f"  # {_one_line(self._origin(entry))}"
        if entry.join:
            yield from _value(f"  - {node.op.name}:", inputs, remark)
        else:
            arguments = [
                (name, word(entry.references[name], name=True))
                if name in entry.references
                else (name, value_text(value))
                for name, value in entry.arguments.items()
            ]
            yield from _value(f"  - {node.op.name}:", arguments, remark)
        yield f"    name: {word(node.path, name=True)}"
        if not entry.join and not entry.follows:
            yield from _value("    from:", inputs[0] if len(inputs) == 1 else inputs)
        if entry.share is not None:
            yield f"    share: {word(entry.share, name=True)}"
        if entry.init:
            yield f"    init: {value_text(entry.init)}"
        if node.allow:
            yield f"    allow: {flow_list(sorted(node.allow))}"

    def _origin(self, entry: FlatEntry) -> str:
        """Where an entry is written: `line 31, in block bottleneck, i = 2`."""
        span = entry.node.span
        name = span.source.name
        steps = [f"line {span.line}"]
        if name != self.graph.metadata["spec_name"]:
            steps = [f"{self._file(name)}:{span.line}"]
        for block, _, _, loops in entry.origin:
            steps.append(f"in block {block}")
            steps.extend(f"{variable} = {value}" for variable, value in loops)
        return ", ".join(steps)

    def _file(self, name: str) -> str:
        """A file as seen from the spec's folder, wherever that is: equal specs are equal texts."""
        path = PurePath(name)
        folder = PurePath(self.graph.metadata["spec_name"]).parent
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name

    def _output_lines(self) -> Iterator[str]:
        graph = self.graph
        outputs = graph.outputs
        references = [graph.value_name(output.value) for output in outputs]
        if self._unnamed(outputs):
            return
        if any("." in output.name for output in outputs):
            # Names with dots are those of a list, and a list names tensors.
            for output, reference in zip(outputs, references, strict=True):
                if output.name != reference:
                    yield f"  - Sequential: []  # another name for {reference}"
                    yield f"    name: {word(output.name, name=True)}"
                    yield f"    from: {word(reference, name=True)}"
                    yield "    when: false"
            yield ""
            yield from _value("outputs:", [word(output.name, name=True) for output in outputs])
            return
        yield ""
        texts = [
            (output.name, _output_text(output, word(reference, name=True)))
            for output, reference in zip(outputs, references, strict=True)
        ]
        yield from _value("outputs:", texts)

    def _unnamed(self, outputs: Sequence[NetworkOutput]) -> bool:
        """Whether the outputs are those that the language gives a spec without `outputs`."""
        if len(outputs) != 1 or outputs[0].name != _OUTPUT or not self.graph.nodes:
            return False
        return self.graph.nodes[-1].outputs == (outputs[0].value,)

    # ----------------------------------------------------------------------------------- as JSON

    def document(self) -> dict[str, Any]:
        """The network as a JSON object, format 1. Shapes are without the batch."""
        graph = self.graph

        def shape(value: int) -> list[int]:
            return list(graph.tensors[value].shape)

        return {
            "format": 1,
            "name": graph.name,
            "spec": graph.metadata["spec_name"],
            "variant": graph.metadata["variant"],
            "inputs": {name: shape(value) for name, value in graph.inputs.items()},
            "init": self.init,
            "entries": [self._entry_document(entry) for entry in self.entries],
            "outputs": {
                output.name: {
                    "from": graph.value_name(output.value),
                    "shape": shape(output.value),
                    "training": output.training,
                    "weight": output.weight,
                }
                for output in graph.outputs
            },
        }

    def _entry_document(self, entry: FlatEntry) -> dict[str, Any]:
        node, tensors = entry.node, self.graph.tensors
        return {
            "path": node.path,
            "op": node.op.name,
            "arguments": entry.arguments,
            "inputs": list(entry.inputs),
            "outputs": {
                name: list(tensors[value].shape)
                for name, value in zip(entry.outputs, node.outputs, strict=True)
            },
            "share": entry.share,
            "init": entry.init,
            "allow": sorted(node.allow),
            "file": node.span.source.name,
            "line": node.span.line,
            "calls": [
                {"block": block, "file": file, "line": line, "loops": dict(loops)}
                for block, file, line, loops in entry.origin
            ],
        }


def _init_value(init: Init) -> object:
    """An initialiser as `init` writes it: a number, a word, or a word with arguments."""
    given = dict(init.arguments)
    if init.kind == "constant" and set(given) == {"val"}:
        return given["val"]
    return {init.kind: given} if given else init.kind


def _output_text(output: NetworkOutput, reference: str) -> str:
    if not output.training:
        return reference
    items = [("from", reference), ("training", "true")]
    if output.weight != 1:
        items.append(("weight", value_text(output.weight)))
    return flow_mapping(items)


def _one_line(text: object) -> str:
    """Text that may stand in a comment: what could end its line is escaped."""
    return word(str(text)) if not str(text).isprintable() else str(text)


def _keyed(key: str, value: object) -> Iterator[str]:
    """A key of the file and its value."""
    if isinstance(value, Mapping):
        yield from _value(f"{key}:", [(str(k), value_text(v)) for k, v in value.items()])
    elif isinstance(value, (list, tuple)):
        yield from _value(f"{key}:", [value_text(item) for item in value])
    else:
        yield f"{key}: {value_text(value)}"


def _value(
    head: str, value: str | Sequence[str] | Sequence[tuple[str, str]], remark: str = ""
) -> Iterator[str]:
    """A key and its value on one line if it fits, else as lines below it."""
    if isinstance(value, str):
        yield f"{head} {value}{remark}"
        return
    pairs = [item for item in value if isinstance(item, tuple)]
    items = [item for item in value if isinstance(item, str)]
    if not value:
        yield f"{head}{remark}"
        return
    line = f"{head} {flow_mapping(pairs) if pairs else flow_list(items)}"
    if len(line) <= _WIDTH:
        yield f"{line}{remark}"
        return
    yield f"{head}{remark}"
    dash = "  - "
    margin = " " * (4 if not head.startswith("  ") else 6)
    if not head.startswith(dash):
        margin = " " * (len(head) - len(head.lstrip()) + 2)
    for key, text in pairs:
        yield f"{margin}{word(key, name=True)}: {text}"
    for text in items:
        yield f"{margin}- {text}"
