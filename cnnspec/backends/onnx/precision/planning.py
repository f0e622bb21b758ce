"""Which nodes of a model run in 8 bits, where its tensors are held so, and what stays float32.

By what ONNX Runtime's CPU provider has int8 kernels for, node by node, and by what the operations
themselves say (`quantizable`). No number is decided here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from cnnspec.backends.onnx.precision.kept import Kept
from cnnspec.backends.onnx.precision.rewriting import attributes_of, layer_of
from cnnspec.backends.onnx.precision.types import computed, element_types
from cnnspec.ir import Graph

__all__ = ["Plan", "Product", "plan_of"]

_MOVES = frozenset(
    """
    Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Gather Expand Tile DepthToSpace MaxPool
    """.split()
)
"""Operators that only move elements: what comes out has the scale of what goes in."""

_ARITHMETIC = frozenset(
    "Add Mul Concat AveragePool GlobalAveragePool LeakyRelu Sigmoid MatMul".split()
)
"""Operators with int8 kernels that take several scales. Softmax has one as well, and stays float32:
the many small shares of a row are below what 8 bits resolve."""

_GATHERS = frozenset("Concat AveragePool GlobalAveragePool MaxPool".split())
"""Operators that run in 8 bits for the sake of what reads them, on float32 inputs too: their result
is rounded anyway, and ONNX Runtime transposes around their float kernels."""

_CLAMPS = frozenset(("Relu", "Clip"))
"""Operators that dissolve in the quantization behind them, whose range ends where theirs does."""


def _moves(node: onnx.NodeProto) -> bool:
    """True if the node only moves elements, resizing to the nearest included."""
    if node.op_type == "Resize":
        return attributes_of(node).get("mode", b"nearest") == b"nearest"
    return node.op_type in _MOVES


@dataclass(frozen=True, slots=True)
class Product:
    """A node that multiplies by constant weights: their names, and the axis of its outputs."""

    weight: str
    axis: int
    bias: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs in 8 bits.

    `products` by number of the node; `carried` are nodes without weights that read and write 8
    bits; `held` are the tensors held in 8 bits and for each the tensor that has its scale;
    `everywhere` those of them that float32 nodes read in 8 bits too.
    """

    products: Mapping[int, Product]
    carried: frozenset[int]
    held: Mapping[str, str]
    everywhere: frozenset[str]
    kept: tuple[Kept, ...]


def plan_of(model: onnx.ModelProto, graph: Graph, keep: Collection[str] = ()) -> Plan:
    """The plan for a float32 model of `graph`; layers whose path is in `keep` stay float32."""
    return _Planning(model, graph, keep).plan()


class _Planning:
    def __init__(self, model: onnx.ModelProto, graph: Graph, keep: Collection[str]) -> None:
        self._nodes = list(model.graph.node)
        self._types = element_types(model)
        self._varying = computed(model)
        self._constants = {each.name: each for each in model.graph.initializer}
        self._outputs = {each.name for each in model.graph.output}
        self._keep = keep
        self._ops = {node.path: node.op for node in graph.nodes}
        self._readers: dict[str, list[int]] = {}
        for number, node in enumerate(self._nodes):
            for name in node.input:
                self._readers.setdefault(name, []).append(number)
        self._why: dict[int, str] = {}
        self._dissolved: set[int] = set()
        """Clamps that end the range of the node before them."""

    def plan(self) -> Plan:
        products = {
            number: product
            for number, node in enumerate(self._nodes)
            if (product := self._product(number, node)) is not None
        }
        carried = self._carried(products)
        held: dict[str, str] = {}
        everywhere: set[str] = set()
        for number, node in enumerate(self._nodes):
            if number in products:
                held.setdefault(node.input[0], node.input[0])
                if node.op_type == "Conv":
                    name = self._end(number)
                    held[name] = name
                    everywhere.add(name)
            elif number in carried:
                inputs = [name for name in node.input if self._is_activation(name)]
                for name in inputs:
                    held.setdefault(name, name)
                moves = _moves(node)
                for name in node.output if moves else (self._end(number),):
                    held[name] = held[inputs[0]] if moves else name
                    if name not in self._outputs:
                        everywhere.add(name)
        return Plan(
            products, carried, held, frozenset(everywhere), tuple(self._kept(products, carried))
        )

    # ---------------------------------------------------------------------------------- products

    def _product(self, number: int, node: onnx.NodeProto) -> Product | None:
        """The node as a product in 8 bits; None where it is none or stays float32."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or not self._varying.intersection(
            node.output
        ):
            return None
        bias = node.input[2] if len(node.input) > 2 else ""
        fixed = all(name in self._constants for name in (node.input[1], bias) if name)
        if not self._is_activation(node.input[0]) or not fixed:
            if node.op_type != "MatMul":
                self._why[number] = "its weights are computed"
            return None
        if layer_of(node) in self._keep:
            self._why[number] = "it was asked for"
            return None
        attributes = attributes_of(node)
        if node.op_type == "Conv":
            if self._end(number) in self._outputs:
                self._why[number] = "it gives an output of the network, which 8 bits would coarsen"
                return None
            return Product(node.input[1], 0, bias)
        if len(self._constants[node.input[1]].dims) != 2:
            return None
        if node.op_type == "MatMul":
            return Product(node.input[1], 1, "")
        plain = all(attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if attributes.get("transA", 0) or not plain:
            self._why[number] = "it is scaled or turned"
            return None
        return Product(node.input[1], 0 if attributes.get("transB", 0) else 1, bias)

    def _end(self, number: int) -> str:
        """The tensor that a node writes, or the one its clamp does where only that reads it."""
        name: str = self._nodes[number].output[0]
        while name not in self._outputs:
            readers = self._readers.get(name, [])
            if len(readers) != 1 or not self._clamps(self._nodes[readers[0]]):
                break
            self._dissolved.add(readers[0])
            name = self._nodes[readers[0]].output[0]
        return name

    def _clamps(self, node: onnx.NodeProto) -> bool:
        constant = all(name in self._constants for name in node.input[1:] if name)
        return node.op_type in _CLAMPS and constant and layer_of(node) not in self._keep

    # ----------------------------------------------------------------------------------- between

    def _carried(self, products: Mapping[int, Product]) -> frozenset[int]:
        """Nodes without weights that read 8 bits, and that something in 8 bits reads.

        A Concat of 8 bits stays in 8 bits whatever reads it: in DenseNet each would copy all maps
        so far as float32.
        """
        there = {self._nodes[number].input[0] for number in products}
        there.update(
            self._end(number) for number in products if self._nodes[number].op_type == "Conv"
        )
        able = []
        joined: set[int] = set()
        for number, node in enumerate(self._nodes):
            if number in products or number in self._dissolved or not self._able(number, node):
                continue
            inputs = [name for name in node.input if self._is_activation(name)]
            if node.op_type not in _GATHERS and not there.issuperset(inputs):
                self._why[number] = "what it reads is float32"
                continue
            able.append(number)
            if node.op_type == "Concat" and there.issuperset(inputs):
                joined.add(number)
            there.update(node.output if _moves(node) else (self._end(number),))
        carried: set[int] = set()
        for number in reversed(able):
            name = self._end(number)
            if (number in joined and name not in self._outputs) or any(
                reader in carried or (reader in products and self._nodes[reader].input[0] == output)
                for output in (*self._nodes[number].output, name)
                for reader in self._readers.get(output, [])
            ):
                carried.add(number)
            else:
                self._why.setdefault(number, "what reads it is float32")
        return frozenset(carried)

    def _able(self, number: int, node: onnx.NodeProto) -> bool:
        """True if there is an int8 kernel for the node and its operation agrees."""
        op = self._ops.get(layer_of(node))
        known = _moves(node) or node.op_type in _ARITHMETIC | _CLAMPS
        if op is None or number in self._why or not self._varying.intersection(node.output):
            return False
        if layer_of(node) in self._keep:
            self._why[number] = "it was asked for"
            return False
        if not (op.quantizable and known):
            what = f"this {node.op_type}" if op.quantizable else f"`{op.name}`"
            self._why[number] = f"ONNX Runtime has no int8 form of {what}"
            return False
        if node.op_type in _CLAMPS:
            return self._clamps(node)
        floats = [name for name in node.input if name and self._types[name] == TensorProto.FLOAT]
        if any(not self._is_activation(name) for name in floats) and node.op_type != "Resize":
            self._why[number] = "it reads a constant"
            return False
        return True

    def _is_activation(self, name: str) -> bool:
        return name in self._varying and self._types[name] == TensorProto.FLOAT

    # ---------------------------------------------------------------------------------- left out

    def _kept(self, products: Mapping[int, Product], carried: Collection[int]) -> Iterator[Kept]:
        multiplied = {layer_of(self._nodes[number]) for number in products}
        told: set[str] = set()
        for number, node in enumerate(self._nodes):
            path, reason = layer_of(node), self._why.get(number, "")
            done = number in products or number in carried or path in told
            if done or not reason or _moves(node) or node.op_type in _CLAMPS:
                continue
            if path in multiplied:
                if self._ops[path].quantizable:
                    continue  # a bias that is added to the products
                reason = f"{reason} but for its products with weights"
            told.add(path)
            yield Kept(path, node.op_type, reason)
