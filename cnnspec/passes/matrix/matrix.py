"""The matrix of a linear operation: which weight stands where, and what regular about that is.

Rows are the elements of the outputs, columns those of the inputs, both in torch's order (channels,
then rows of an image), several tensors one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cnnspec.diagnostics import EnvironmentFailure, Reject, shape_text
from cnnspec.geometry import Bicubic, Bilinear, Nearest, Transposed, Window
from cnnspec.op import Op, Site
from cnnspec.passes.matrix.form import CONSTANT, Form, NotAffineError, Number, exact_number
from cnnspec.passes.matrix.reading import read_nodes
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight

__all__ = ["MOST_ENTRIES", "Axis", "Entry", "Matrix", "Symbol", "matrix_of"]

MOST_ENTRIES = 4_000_000
"""Rows times columns beyond which a matrix is not made."""
_MOST_MACS = 2_000_000
_OPSET = 18

Entry: TypeAlias = Mapping[tuple[int, ...], Number]
"""A sum of products of symbols, by their numbers in order; `()` is a plain number."""


class Symbol(NamedTuple):
    """One element of what the operation stores, by the tensor's name there."""

    tensor: str
    place: tuple[int, ...]


class Axis(NamedTuple):
    """An axis along which the matrix repeats: moved by these it is the same.

    `stride` positions of the input belong to `outputs` of the output. `wraps` where it goes on
    beyond the ends: a circulant.
    """

    role: str
    outputs: int
    stride: int
    spatial: bool
    wraps: bool


@dataclass(frozen=True, eq=False)
class Matrix:
    """`y = entries @ x + offsets`, with entries that are not zero by row and column."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: tuple[Symbol, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of the tensors that symbols are of."""
    entries: Mapping[tuple[int, int], Entry]
    offsets: tuple[Entry, ...]
    looks: tuple[tuple[int, int, int, int], ...]
    """Axis of the input and of the output, outputs and inputs after which it looks the same."""

    @property
    def rows(self) -> int:
        """Elements of the outputs."""
        return sum(tensor.elements for tensor in self.outputs)

    @property
    def columns(self) -> int:
        """Elements of the inputs."""
        return sum(tensor.elements for tensor in self.inputs)

    @cached_property
    def weights(self) -> int:
        """Different symbols in the entries."""
        return len({symbol for entry in self.entries.values() for key in entry for symbol in key})

    @cached_property
    def distinct(self) -> int:
        """Different entries that are not zero."""
        return len({_frozen(entry) for entry in self.entries.values()})

    @property
    def has_offsets(self) -> bool:
        """Whether something is added that does not depend on the input."""
        return any(self.offsets)

    @cached_property
    def band(self) -> tuple[int, int] | None:
        """Diagonals below and above the main one beyond which all is zero; None without entries."""
        if not self.entries:
            return None
        over = [column - row for row, column in self.entries]
        return -min(over), max(over)

    @property
    def diagonal(self) -> bool:
        """Whether only the main diagonal is not zero, and the matrix is square."""
        return self.rows == self.columns and self.band in ((0, 0), None)

    @property
    def identity(self) -> bool:
        """Whether it is the identity."""
        return (
            self.diagonal
            and len(self.entries) == self.rows
            and all(entry == {(): 1} for entry in self.entries.values())
        )

    @property
    def permutation(self) -> bool:
        """Whether each row and each column has one entry, which is 1."""
        return (
            self.rows == self.columns == len(self.entries)
            and len({row for row, _ in self.entries}) == self.rows
            and len({column for _, column in self.entries}) == self.columns
            and all(entry == {(): 1} for entry in self.entries.values())
        )

    @cached_property
    def repeats(self) -> tuple[Axis, ...]:
        """The axes along which the matrix repeats."""
        if len(self.inputs) != 1 or len(self.outputs) != 1:
            return ()
        x, y = self.inputs[0], self.outputs[0]
        found = []
        for source, target, outputs, stride in self.looks:
            if y.shape[target] <= outputs or x.shape[source] <= stride:
                continue  # there is nothing to compare with
            if self._repeats(source, target, outputs, stride, wraps=False):
                wraps = (outputs, stride) == (1, 1) and x.shape[source] == y.shape[target]
                found.append(
                    Axis(
                        x.roles[source].value,
                        outputs,
                        stride,
                        x.roles[source].spatial,
                        wraps and self._repeats(source, target, 1, 1, wraps=True),
                    )
                )
        return tuple(found)

    def _repeats(self, source: int, target: int, outputs: int, stride: int, *, wraps: bool) -> bool:
        rows, columns = self.outputs[0].shape, self.inputs[0].shape
        for (row, column), entry in self.entries.items():
            for sign in (1, -1):
                moved_row = _moved(row, rows, target, sign * outputs, wraps)
                moved_column = _moved(column, columns, source, sign * stride, wraps)
                if moved_row is None or moved_column is None:
                    continue
                if self.entries.get((moved_row, moved_column)) != entry:
                    return False
        return True

    def numbers(self, values: Callable[[Symbol], float]) -> tuple[Any, Any]:
        """The matrix and the offsets as arrays of float64, for values of the symbols."""
        known = [values(symbol) for symbol in self.symbols]
        matrix = np.zeros((self.rows, self.columns))
        for place, entry in self.entries.items():
            matrix[place] = _number(entry, known)
        return matrix, np.array([_number(entry, known) for entry in self.offsets])


def _number(entry: Entry, known: Sequence[float]) -> float:
    return float(
        sum(float(number) * prod(known[symbol] for symbol in key) for key, number in entry.items())
    )


def _moved(element: int, shape: Sequence[int], axis: int, by: int, wraps: bool) -> int | None:
    """The element at another position along an axis, or None where there is none."""
    behind = prod(shape[axis + 1 :])
    position = element // behind % shape[axis]
    there = position + by
    if wraps:
        there %= shape[axis]
    elif not 0 <= there < shape[axis]:
        return None
    return element + (there - position) * behind


def _frozen(entry: Entry) -> frozenset[tuple[tuple[int, ...], Number]]:
    return frozenset(entry.items())


# --------------------------------------------------------------------------------- making them


def matrix_of(op: Op, inputs: tuple[Tensor, ...], name: str) -> Matrix:
    """The matrix of an operation on inputs of these sizes; `name` is how messages call it.

    Raises `EnvironmentFailure` where the operation is not linear, or the matrix too large, and
    `Reject` for inputs that the operation does not take.
    """
    outputs = op.infer(inputs)
    at = Site(inputs, outputs)
    if not inputs:
        raise EnvironmentFailure(f"`{name}` is `{op.name}`, which reads nothing: it has no matrix")
    if op.channel_affine(at) is not None:
        raise EnvironmentFailure(
            f"`{name}` is `{op.name}`, whose matrix at inference is diagonal: each channel is "
            "scaled and shifted, by quotients of what it stores"
        )
    _refuse_large(op, at, name)
    symbols: list[Symbol] = []
    own: dict[str, Any] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, weight in op.weights(at).items():
        own[key] = _symbols(key, weight, symbols)
        shapes[key] = weight.shape
    for key, buffer in op.buffers(at).items():
        if buffer.values is not None:
            own[key] = _constants(buffer)
        else:
            own[key] = _symbols(key, buffer, symbols)
            shapes[key] = buffer.shape
    try:
        found = read_nodes(op.onnx(at, _OPSET), _unknowns(inputs), own, len(outputs))
    except NotAffineError as failure:
        raise EnvironmentFailure(
            f"`{name}` is `{op.name}`, which is not linear: it has no matrix",
            help=f"it becomes ONNX's {failure}, no sum of inputs times weights",
        ) from None
    entries, offsets = _sorted(found)
    return Matrix(inputs, outputs, tuple(symbols), shapes, entries, offsets, tuple(_looks(op, at)))


def _refuse_large(op: Op, at: Site, name: str) -> None:
    rows, columns, terms = _extent(op, at)
    if _is_large(op, at):
        raise EnvironmentFailure(
            f"the matrix of `{name}` has {rows:,} x {columns:,} entries, and "
            f"{MOST_ENTRIES:,} is the most"
            if rows * columns > MOST_ENTRIES
            else f"`{name}` multiplies {terms:,} times, too often to be written out",
            help=_smaller(op, at),
        )


def _extent(op: Op, at: Site) -> tuple[int, int, int]:
    """Rows, columns and multiplications."""
    rows = sum(tensor.elements for tensor in at.outputs)
    columns = sum(tensor.elements for tensor in at.inputs)
    return rows, columns, op.cost(at).mac


def _is_large(op: Op, at: Site) -> bool:
    rows, columns, terms = _extent(op, at)
    return rows * columns > MOST_ENTRIES or terms > _MOST_MACS


def _smaller(op: Op, at: Site) -> str:
    """What to do about a matrix too large: sizes for `--at` that the operation takes."""
    if len(at.inputs) == 1:
        x = at.x
        spread = [role.value != "channel" or x.rank == 1 for role in x.roles]
        for channels, size in product((1, 2, 4, x.shape[0]), (6, 12, 24)):
            inputs = (replace(x, shape=tuple(size if wide else channels for wide in spread)),)
            try:
                small = Site(inputs, op.infer(inputs))
            except Reject:
                continue
            if not _is_large(op, small):
                sizes = shape_text(inputs[0].shape)
                return f"give the layer a small input of its own: --at {sizes}"
    return "give the network a smaller input: --input"


def _symbols(key: str, stored: Weight | Buffer, symbols: list[Symbol]) -> Any:
    array = np.empty(stored.shape, dtype=object)
    for place in np.ndindex(*stored.shape):
        array[place] = Form({(CONSTANT, (len(symbols),)): 1})
        symbols.append(Symbol(key, place))
    return array


def _constants(buffer: Buffer) -> Any:
    assert buffer.values is not None  # asked only for those that have them
    if "int" in buffer.dtype:
        return np.array(buffer.values, dtype=buffer.dtype).reshape(buffer.shape)
    array = np.empty(len(buffer.values), dtype=object)
    for number, value in enumerate(buffer.values):
        array[number] = exact_number(float(value))
    return array.reshape(buffer.shape)


def _unknowns(inputs: Sequence[Tensor]) -> list[Any]:
    """Inputs, in a batch of one, whose elements are unknown."""
    found = []
    column = 0
    for tensor in inputs:
        array = np.empty(tensor.elements, dtype=object)
        for number in range(tensor.elements):
            array[number] = Form({(column + number, ()): 1})
        column += tensor.elements
        found.append(array.reshape((1, *tensor.shape) if tensor.batched else tensor.shape))
    return found


def _sorted(
    outputs: Sequence[Any],
) -> tuple[dict[tuple[int, int], dict[tuple[int, ...], Number]], tuple[Entry, ...]]:
    entries: dict[tuple[int, int], dict[tuple[int, ...], Number]] = {}
    offsets: list[dict[tuple[int, ...], Number]] = []
    values = [value for output in outputs for value in output.reshape(-1)]
    for row, value in enumerate(values):
        offset: dict[tuple[int, ...], Number] = {}
        terms = value.terms if isinstance(value, Form) else {(CONSTANT, ()): value} if value else {}
        for (column, weights), number in sorted(terms.items(), key=lambda term: term[0]):
            if column == CONSTANT:
                offset[weights] = number
            else:
                entries.setdefault((row, column), {})[weights] = number
        offsets.append(offset)
    return entries, tuple(offsets)


def _looks(op: Op, at: Site) -> Iterator[tuple[int, int, int, int]]:
    """Pairs of axes that move together, as the operation's own rule has it."""
    if len(at.inputs) != 1 or len(at.outputs) != 1:
        return
    for axis, (target, view) in enumerate(op.window(at, 0, 0) or ()):
        if target is not None and isinstance(
            view, (Window, Transposed, Nearest, Bilinear, Bicubic)
        ):
            yield axis, target, *view.cycle
