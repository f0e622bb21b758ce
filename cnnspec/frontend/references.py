"""References: the tensors an entry reads, by `from`, by a name in a join, or from above."""

from __future__ import annotations

from collections.abc import Sequence

from cnnspec.diagnostics import Note, did_you_mean, error, listed, quantity
from cnnspec.frontend import tree
from cnnspec.frontend.document import Block, Entry
from cnnspec.frontend.names import Result
from cnnspec.frontend.place import Place
from cnnspec.frontend.values import Evaluator, Fault, Poisoned
from cnnspec.op import Op
from cnnspec.source import Span
from cnnspec.tensor import Tensor

__all__ = ["Input", "References"]

Input = tuple[int, Span | None]
"""A value an entry reads, and the place where it is named, if it is."""


class References:
    """Finds what references stand for. Raises `Fault`, or `Poisoned` for what is reported."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def find(self, text: str, span: Span, place: Place) -> Result:
        """What a reference, written at `span`, stands for."""
        found = place.level.find(text)
        if found is not None:
            return found
        head = text.split(".")[0]
        later = place.env.missing(head) if place.level.find(head) is None else None
        if later is not None:
            later.message = f"`{text}` is not built yet here"
            raise Fault(later.located(span))
        notes, help = place.level.explain(text)
        if text == "input" and place.env.block.inputs:
            names = ", ".join(f"`{name.text}`" for name in place.env.block.inputs)
            help = f"the inputs of `{place.env.block.name}` are {names}"
        raise Fault(
            error(
                "unknown-tensor",
                f"there is no tensor `{text}` here",
                span,
                notes=[Note(note) for note in notes],
                help=help,
            )
        )

    def single(self, result: Result, text: str, span: Span) -> int:
        """The value of a result that has to be one tensor."""
        if result.poisoned:
            raise Poisoned
        if not result.single:
            names = ", ".join(f"`{text}.{name}`" for name, _ in result.values)
            raise Fault(error("several-outputs", f"`{text}` has several outputs: {names}", span))
        value = result.values[0][1]
        assert value is not None  # checked by `poisoned`
        return value

    def read(self, node: tree.Node, place: Place) -> int:
        """The value of the tensor that a node names."""
        assert isinstance(node, tree.Scalar)  # parsing has seen to it
        text = self.evaluator.text(node, place.env)
        return self.single(self.find(text, node.span, place), text, node.span)

    def count(self, entry: Entry) -> int:
        """How many tensors an entry reads from above or by `from`."""
        return len(entry.source.items) if isinstance(entry.source, tree.Sequence) else 1

    def inputs(self, entry: Entry, place: Place, current: Result | None) -> list[Input]:
        """The values an entry reads, each with the place where it is named, if it is."""
        source = entry.source
        if source is None:
            if current is None:
                raise Fault(
                    error(
                        "no-input",
                        f"`{entry.key.text}` has no input: there is no single tensor above it",
                        entry.key.span,
                        help="say which with `from`",
                    )
                )
            if current.poisoned:
                raise Poisoned
            if not current.single:
                raise Fault(
                    error(
                        "needs-from",
                        f"the entry above has several outputs: {current.references}",
                        entry.key.span,
                        help="say which with `from`",
                    )
                )
            value = current.values[0][1]
            assert value is not None  # checked by `poisoned`
            return [(value, None)]
        if isinstance(source, tree.Mapping):
            raise Fault(
                error(
                    "from-names",
                    f"`{entry.key.text}` has no named inputs",
                    source.span,
                    help="`from: [a, b]` gives inputs by position",
                )
            )
        items = source.items if isinstance(source, tree.Sequence) else (source,)
        return [(self.read(item, place), item.span) for item in items]

    def block_inputs(
        self, entry: Entry, block: Block, place: Place, current: Result | None
    ) -> dict[str, int]:
        """The tensors a block gets, by the names it uses for them."""
        names = [name.text for name in block.inputs] or ["input"]
        if isinstance(entry.source, tree.Mapping):
            return self._inputs_by_name(entry, entry.source, names, place)
        values = self.inputs(entry, place, current)
        if len(values) != len(names):
            span = entry.source.span if entry.source else entry.key.span
            raise Fault(
                error(
                    "input-count",
                    f"`{entry.key.text}` takes {quantity(len(names), 'input')}"
                    + (f" ({listed(names)})" if block.inputs else "")
                    + f", here it has {len(values)}",
                    span,
                    help="" if entry.source else "say which with `from`",
                )
            )
        return dict(zip(names, [value for value, _ in values], strict=True))

    def _inputs_by_name(
        self, entry: Entry, source: tree.Mapping, names: list[str], place: Place
    ) -> dict[str, int]:
        for key, _ in source.items:
            if key.text not in names:
                raise Fault(
                    error(
                        "from-names",
                        f"`{entry.key.text}` has no input `{key.text}`",
                        key.span,
                        help=did_you_mean(key.text, names) or f"its inputs are {listed(names)}",
                    )
                )
        given = {key.text: node for key, node in source.items}
        for name in names:
            if name not in given:
                raise Fault(
                    error(
                        "input-count", f"`{entry.key.text}` also needs input `{name}`", source.span
                    )
                )
        return {name: self.read(given[name], place) for name in names}

    def check(
        self,
        entry: Entry,
        op: Op,
        inputs: Sequence[Input],
        tensors: Sequence[Tensor],
        own: int,
    ) -> None:
        """Refuse a number of inputs, or a bare `Parameter`, that the op does not take."""
        least, most = op.arity
        if own < least or (most is not None and own > most):
            raise Fault(
                error(
                    "input-count",
                    f"`{op.name}` takes {op.arity.describe()}, here it has {own}",
                    entry.source.span if entry.source else entry.key.span,
                )
            )
        if op.takes_unbatched:
            return
        for tensor, (_, span) in zip(tensors, inputs, strict=True):
            if not tensor.batched:
                raise Fault(
                    error(
                        "parameter-input",
                        f"`{op.name}` cannot read a `Parameter`, which has no batch",
                        span or entry.key.span,
                        help="join it with a tensor first",
                    )
                )
