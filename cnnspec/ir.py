"""The graph: flat, in topological order, immutable, without a batch axis.

Values (tensors) are numbered: network inputs first, then the outputs of each node in order. Beside
the flat list stands the tree of scopes, so that reports fold and generated source has a class for
each block. No pass, back end or location-free rule may be known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from cnnspec.op import Op, Site
from cnnspec.source import Span
from cnnspec.tensor import Tensor
from cnnspec.weights import Init

__all__ = ["Frame", "Graph", "NetworkOutput", "Node", "Scope", "SizeRead", "SizeTest"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One step of how an entry came to be: the block called, where, and its loop values."""

    block: str
    span: Span
    loops: tuple[tuple[str, str], ...]
    parent: Frame | None

    def chain(self) -> Iterator[Frame]:
        """This frame and those around it, innermost first."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent


@dataclass(frozen=True, slots=True)
class Node:
    """One operation at its path.

    `inputs` and `outputs` are value numbers. `share` is the index of the node whose weights this
    one reuses. `init` overrides initialisers by weight name. `name` is what the entry's author
    called it, if anything; `allow` names the warnings the author silenced.
    """

    index: int
    path: str
    op: Op
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    span: Span
    frame: Frame | None
    scope: Scope
    named: bool
    share: int | None = None
    init: tuple[tuple[str, Init], ...] = ()
    allow: frozenset[str] = frozenset()

    @property
    def local(self) -> str:
        """The last part of the path: the key within the scope."""
        prefix = self.scope.path
        return self.path[len(prefix) + 1 :] if prefix else self.path


@dataclass(slots=True, eq=False)
class Scope:
    """A level of the network: the whole, a block's call, or a Sequential.

    `kind` is the block's name (with its import prefix), `Sequential`, or the network's name.
    `definition` identifies the block's text: calls of one definition with equal `arguments` and
    input shapes have equal members. An `inline` scope adds no level to paths. `members` are the
    indices of nodes and the scopes inside, in the order written. `inputs` and `outputs` are value
    numbers; `outputs` have names where the block exposes several, `input_names` are those that a
    block declares for several inputs.

    Built by the frontend, then left alone.
    """

    path: str
    kind: str
    definition: tuple[str, str] | None
    arguments: Mapping[str, Any]
    parent: Scope | None
    span: Span
    inline: bool = False
    named: bool = False
    inputs: tuple[int, ...] = ()
    outputs: tuple[tuple[str, int], ...] = ()
    members: list[int | Scope] = field(default_factory=list)
    input_names: tuple[str, ...] = ()

    @property
    def local(self) -> str:
        """The part of the path that this scope adds to its parent's."""
        prefix = self.parent.path if self.parent else ""
        return self.path[len(prefix) + 1 :] if prefix else self.path

    def flat_members(self) -> list[int | Scope]:
        """Members, those of inline scopes in their place: inline adds no level."""
        found: list[int | Scope] = []
        pending = list(reversed(self.members))
        while pending:
            member = pending.pop()
            if isinstance(member, Scope) and member.inline:
                pending.extend(reversed(member.members))
            else:
                found.append(member)
        return found

    def nodes(self) -> Iterator[int]:
        """Indices of all nodes inside, at any depth, in order."""
        stack: list[Iterator[int | Scope]] = [iter(self.members)]
        while stack:
            for member in stack[-1]:
                if isinstance(member, Scope):
                    stack.append(iter(member.members))
                    break
                yield member
            else:
                stack.pop()


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """One output of the network; `training` ones are no part of inference."""

    name: str
    value: int
    training: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class SizeRead:
    """A size that the text of the spec asked for while it was expanded, and where.

    `what` is an attribute (`channels`, `height`, `shape`) of value `value`, which is about its
    `axes`, or, without a value, a symbol of the inputs.
    """

    value: int | None
    what: str
    axes: tuple[int, ...]
    span: Span


class SizeTest(Protocol):
    """An assertion of the spec about sizes, which other sizes may fail."""

    @property
    def span(self) -> Span:
        """Where it stands."""

    @property
    def reads(self) -> tuple[SizeRead, ...]:
        """The sizes it is about."""

    def holds(self, size: Callable[[SizeRead], int | None]) -> bool | None:
        """Whether it holds for sizes that may not be known yet.

        `size` has None for one that is as it was. None where the assertion cannot be asked so.
        """


@dataclass(frozen=True)
class Graph:
    """A whole network, shaped.

    `inputs` maps names to value numbers. `tensors[v]` describes value `v`, `producers[v]` is the
    index of its node, or -1 for a network input. `metadata` keeps what later stages need and the
    graph does not interpret: `preprocess`, `labels`, the spec's text and variant.

    `symbols` are the names that the spec gives to sizes of its inputs, axis by axis. Where one of
    the `size_reads` is of a size that changes with the inputs, so may the nodes themselves.
    `size_tests` are the assertions about sizes, which only say what is allowed.
    """

    name: str
    inputs: Mapping[str, int]
    tensors: tuple[Tensor, ...]
    producers: tuple[int, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[NetworkOutput, ...]
    root: Scope
    metadata: Mapping[str, Any]
    symbols: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    size_reads: tuple[SizeRead, ...] = ()
    size_tests: tuple[SizeTest, ...] = ()

    def site(self, node: Node) -> Site:
        """The tensors that go into and come out of a node."""
        tensors = self.tensors
        return Site(
            tuple([tensors[v] for v in node.inputs]), tuple([tensors[v] for v in node.outputs])
        )

    @cached_property
    def by_path(self) -> Mapping[str, Node]:
        """Nodes by path."""
        return {node.path: node for node in self.nodes}

    @cached_property
    def consumers(self) -> tuple[tuple[int, ...], ...]:
        """For each value the indices of the nodes that read it, in order."""
        found: list[list[int]] = [[] for _ in self.tensors]
        for node in self.nodes:
            for value in node.inputs:
                found[value].append(node.index)
        return tuple(map(tuple, found))

    @cached_property
    def inference(self) -> frozenset[int]:
        """Indices of the nodes that inference runs: all that an inference output depends on."""
        return self._reach([output.value for output in self.outputs if not output.training])

    @cached_property
    def used(self) -> frozenset[int]:
        """Indices of the nodes that some output depends on; the others are dead."""
        if not any(output.training for output in self.outputs):
            return self.inference
        return self._reach([output.value for output in self.outputs])

    def _reach(self, values: Sequence[int]) -> frozenset[int]:
        seen: set[int] = set()
        stack = [self.producers[value] for value in values]
        while stack:
            index = stack.pop()
            if index < 0 or index in seen:
                continue
            seen.add(index)
            stack.extend([self.producers[value] for value in self.nodes[index].inputs])
        return frozenset(seen)

    def value_name(self, value: int) -> str:
        """The name of a value: an input's, a node's path, with `.i` if the node has several."""
        producer = self.producers[value]
        if producer < 0:
            return next(name for name, number in self.inputs.items() if number == value)
        node = self.nodes[producer]
        if len(node.outputs) == 1:
            return node.path
        return f"{node.path}.{node.outputs.index(value)}"
