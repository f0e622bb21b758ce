"""The graph while it grows: values, nodes, paths, shapes inferred once for equal cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from cnnspec.diagnostics import Note, Reject, error
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.values import Fault
from cnnspec.ir import Frame, Node, Scope
from cnnspec.op import Op, Site
from cnnspec.source import Span
from cnnspec.tensor import Tensor
from cnnspec.weights import Init

__all__ = ["MAX_ELEMENTS", "MAX_NODES", "GraphBuilder"]

MAX_NODES = 500_000
"""Most entries a network may have, and most turns its loops may take."""

MAX_ELEMENTS = 2**48
"""Most elements one tensor may have."""

_REFERENCE = re.compile(r"[\w.-]{1,40}")
"""A tensor's name as a join or `from` writes it, short enough for a message."""


class GraphBuilder:
    """Collects the parts of a `Graph`. Knows nothing of the language."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.tensors: list[Tensor] = []
        self.producers: list[int] = []
        self.nodes: list[Node] = []
        self._inputs: dict[int, str] = {}
        self._paths: dict[str, Span] = {}
        self._leaves: set[str] = set()
        self._levels: set[str] = set()
        self._turns = 0
        self._inferred: dict[tuple[Op, tuple[Tensor, ...]], tuple[Tensor, ...]] = {}

    def value(self, tensor: Tensor, producer: int) -> int:
        """A new value, the output of a node."""
        self.tensors.append(tensor)
        self.producers.append(producer)
        return len(self.tensors) - 1

    def input(self, name: str, tensor: Tensor) -> int:
        """A new value, an input of the network."""
        value = self.value(tensor, -1)
        self._inputs[value] = name
        return value

    def tensor(self, value: int) -> Tensor:
        """What is known of a value."""
        return self.tensors[value]

    def name(self, value: int) -> str:
        """How messages call a value: an input's name, or the path of what produces it."""
        producer = self.producers[value]
        return self.nodes[producer].path if producer >= 0 else self._inputs[value]

    def by_name(
        self, reject: Reject, blamed: int, inputs: Sequence[tuple[int, Span | None]]
    ) -> Reject:
        """A rejection of one of several inputs, with their names and shapes."""

        def shown(number: int) -> str:
            value, span = inputs[number]
            named = span is not None and _REFERENCE.fullmatch(span.text)
            name = span.text if span and named else self.name(value)
            return f"`{name}` is {self.tensor(value)}"

        other = shown(0 if blamed else 1)
        return Reject(
            reject.code, reject.message, label=shown(blamed), notes=[other], help=reject.help
        )

    def site(self, node: Node) -> Site:
        """The tensors that go into and come out of a node."""
        return Site(
            tuple([self.tensors[v] for v in node.inputs]),
            tuple([self.tensors[v] for v in node.outputs]),
        )

    def charge(self, turns: int, span: Span) -> None:
        """Count turns of loops and nodes; stop the expansion of a network without end."""
        self._turns += turns
        if self._turns > MAX_NODES:
            self.problems.add(
                error("too-many-entries", f"the network has more than {MAX_NODES:,} entries", span)
            )
            self.problems.stop()

    def claim(self, path: str, span: Span, *, leaf: bool) -> None:
        """Give a path to the entry at `span`; `Fault` if it is another's.

        Nothing lies inside a `leaf`, whose own weights have the paths below it.
        """
        above = [path[:at] for at, letter in enumerate(path) if letter == "."]
        for owner in above:
            if owner in self._leaves:
                raise Fault(
                    error(
                        "duplicate-name",
                        f"`{path}` would lie inside `{owner}`, which is a single operation",
                        span,
                        notes=[Note(f"`{owner}` is here", self._paths[owner])],
                    )
                )
        if leaf and path in self._levels:
            message = f"`{path}` is a single operation, but other entries lie inside that path"
            raise Fault(error("duplicate-name", message, span))
        first = self._paths.get(path)
        if first is not None:
            # Two turns of a loop stand at one place.
            notes = [Note("the first is here", first)] if first is not span else []
            message = f"two entries have the path `{path}`"
            raise Fault(error("duplicate-name", message, span, notes=notes))
        self._paths[path] = span
        self._levels.update(above)
        if leaf:
            self._leaves.add(path)

    def infer(self, op: Op, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Output tensors of an op, inferred once for equal ops and inputs; raises `Reject`."""
        key = op, tensors
        outputs = self._inferred.get(key)
        if outputs is None:
            outputs = op.infer(tensors)
            for tensor in outputs:
                if tensor.elements > MAX_ELEMENTS:
                    raise Reject("tensor-too-large", f"the output would be {tensor}")
            self._inferred[key] = outputs
        return outputs

    def add(
        self,
        op: Op,
        inputs: tuple[int, ...],
        outputs: tuple[Tensor, ...],
        *,
        path: str,
        span: Span,
        frame: Frame | None,
        scope: Scope,
        named: bool,
        init: tuple[tuple[str, Init], ...],
        allow: frozenset[str],
    ) -> Node:
        """A new node, the last of its scope."""
        index = len(self.nodes)
        values = tuple([self.value(tensor, index) for tensor in outputs])
        node = Node(
            index, path, op, inputs, values, span, frame, scope, named, init=init, allow=allow
        )
        self.nodes.append(node)
        scope.members.append(index)
        return node

    def share(self, built: range, owned: range, owner: str) -> None:
        """Let the nodes `built` use the weights of the nodes `owned`, pair by pair.

        Raises `Reject` (`share-mismatch`) where they are not the same operations.
        """
        if not owned or owned.stop > built.start:
            raise Reject("share-mismatch", f"`{owner}` has no weights to share")
        if len(built) != len(owned) or any(
            self.nodes[a].op != self.nodes[b].op for a, b in zip(built, owned, strict=True)
        ):
            raise Reject(
                "share-mismatch", f"`{owner}` is not the same operation with the same arguments"
            )
        for a, b in zip(built, owned, strict=True):
            mine, theirs = self.nodes[a], self.nodes[b]
            site = self.site(theirs)
            shapes = {name: weight.shape for name, weight in theirs.op.weights(site).items()}
            own = mine.op.weights(self.site(mine)).items()
            if shapes != {name: weight.shape for name, weight in own}:
                raise Reject(
                    "share-mismatch",
                    f"the weights of `{theirs.path}` do not fit `{mine.path}`: "
                    f"the inputs are {site.x} and {self.site(mine).x}",
                )
            if mine.op.torch(self.site(mine)) != theirs.op.torch(site):
                raise Reject(
                    "share-mismatch",
                    f"`{theirs.path}` and `{mine.path}` compute differently: "
                    f"the inputs are {site.x} and {self.site(mine).x}",
                )
            if shapes or theirs.op.buffers(site):
                root = theirs.index if theirs.share is None else theirs.share
                self.nodes[a] = replace(mine, share=root)
