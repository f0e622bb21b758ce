"""Which results torch may write over an input: `inplace=True`, and `out += identity`.

Safe is what no one can see: the input is a tensor of its own, made in the same forward, that
nothing else reads and that no layer keeps for backward. Only decisions are made here, no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cnnspec.backends.torch.signatures import takes
from cnnspec.ir import Graph, Node, Scope
from cnnspec.lower import Helper, In, Infix, Module, TorchCode

__all__ = ["Overwriting"]

_INPLACE = ("inplace", True)
_FRESH = frozenset(
    f"nn.{name}{axes}d" for name in ("Conv", "ConvTranspose", "BatchNorm") for axes in (1, 2, 3)
)
"""Modules of torch whose result is no view of anything, and is not kept for backward."""
_FRESH_FOR_VECTORS = frozenset({"nn.Linear"})
"""The same, but for inputs of several axes: then a matrix product is seen through a view."""


class Overwriting:
    """The decisions for a network.

    `home` tells in which module's forward a scope is written out. `codes` are the lowerings of all
    nodes, and become those with `inplace` where it is safe and free, and nowhere else. What asks
    for `inplace` itself gets it where it is safe, though backward may then need a copy.
    """

    def __init__(
        self,
        graph: Graph,
        codes: Sequence[TorchCode],
        home: Mapping[Scope, Scope],
        same: Sequence[tuple[int, int]],
    ) -> None:
        """`same` are pairs of nodes, one of them written by the text of the other."""
        self._graph = graph
        self._codes = codes
        self._home = home
        self._outputs = {output.value for output in graph.outputs}
        self._found: dict[int, int] = {}
        found = self._found
        for node, code in zip(graph.nodes, codes, strict=True):
            operand = self._operand(node, code)
            if operand is not None:
                found[node.index] = operand
        changed = bool(same)
        while changed:
            changed = False
            for mine, theirs in same:
                if found.get(mine) != found.get(theirs):
                    found.pop(mine, None)
                    found.pop(theirs, None)
                    changed = True
        self.operands: Mapping[int, int] = found
        """For each node that writes over one of its inputs the number of that input."""
        self.codes: list[TorchCode] = [
            self._written(node, code) for node, code in zip(graph.nodes, codes, strict=True)
        ]

    def _written(self, node: Node, code: TorchCode) -> TorchCode:
        """A lowering with `inplace` where that was decided, and without it elsewhere."""
        if not isinstance(code, (Module, Helper)):
            return code
        asked = _INPLACE in code.kwargs
        if asked == (node.index in self.operands):
            return code
        kwargs = tuple(pair for pair in code.kwargs if pair != _INPLACE)
        return replace(code, kwargs=kwargs if asked else (*kwargs, _INPLACE))

    def _operand(self, node: Node, code: TorchCode) -> int | None:
        if isinstance(code, Infix):
            return self._summand(node, code)
        if not isinstance(code, (Module, Helper)) or code.feeds is not None:
            return None
        asked = _INPLACE in code.kwargs
        if not asked and (node.op.identity_at_inference or not self._is_free(node, code)):
            return None
        return 0 if self._is_own(node.inputs[0], node) else None

    def _is_free(self, node: Node, code: Module | Helper) -> bool:
        """True if the module can work in place, and its backward needs the result alone."""
        if not isinstance(code, Module) or not node.op.inplace_capable:
            return False
        return takes(code.target, "inplace") and not node.op.saved(self._graph.site(node), 1).inputs

    def _summand(self, node: Node, code: Infix) -> int | None:
        """The first of two summands that has the size of the sum and may be overwritten."""
        if code.operator != "+" or code.operands != (In(0), In(1)):
            return None
        tensors = self._graph.tensors
        total = tensors[node.outputs[0]]
        for number, value in enumerate(node.inputs):
            summand = tensors[value]
            fits = summand.shape == total.shape and summand.batched == total.batched
            if fits and self._is_own(value, node):
                return number
        return None

    def _is_own(self, value: int, reader: Node) -> bool:
        """True if `reader` alone needs `value`, which lies in memory of its own."""
        graph = self._graph
        producer = graph.producers[value]
        if producer < 0 or value in self._outputs or len(graph.consumers[value]) != 1:
            return False
        made_by = graph.nodes[producer]
        if not self._is_handed(made_by, reader):
            return False
        code = self._codes[producer]
        if made_by.op.identity_at_inference:
            return _INPLACE not in getattr(code, "kwargs", ()) and self._is_own(
                made_by.inputs[0], made_by
            )
        if isinstance(code, Infix):
            return True
        if not isinstance(code, Module):
            return False
        if producer in self._found:
            return not made_by.op.saved(graph.site(made_by), 1).outputs
        if code.target in _FRESH_FOR_VECTORS:
            return graph.tensors[made_by.inputs[0]].rank == 1
        return code.target in _FRESH

    def _is_handed(self, made_by: Node, reader: Node) -> bool:
        """True if the forward in which `reader` stands made the value, or called what made it.

        Otherwise it would write over an argument, which a caller does not expect.
        """
        home = self._home[reader.scope]
        scope: Scope | None = made_by.scope
        while scope is not None:
            if self._home[scope] is home:
                return True
            scope = scope.parent
        return False
