"""A layer's matrix as a table in which its structure is seen, as CSV and as JSON.

What stands where is found in `cnnspec.passes.matrix`; symbols get their names here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from io import StringIO
from itertools import product
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure, quantity, shape_text
from cnnspec.passes.matrix import Axis, Entry, Matrix, Symbol
from cnnspec.report.numbers import exact, percent
from cnnspec.report.styled import Line, visible
from cnnspec.tensor import Tensor

__all__ = ["MOST_CELLS", "MatrixReport"]

MOST_CELLS = 40_000
"""Rows times columns beyond which there is no table."""
_ZERO = "."
_RANKS = {2: "doubly", 3: "triply"}


@dataclass(frozen=True, eq=False)
class MatrixReport:
    """The matrix of the layer at `path`, an operation called `op`.

    With `values` entries are numbers instead of weights by name.
    """

    path: str
    op: str
    matrix: Matrix
    values: Callable[[Symbol], float] | None = None

    # ----------------------------------------------------------------------------------- names

    @cached_property
    def _prefixes(self) -> Mapping[str, str]:
        """What stands for each stored tensor: its first letter where that is its alone."""
        names = list(self.matrix.shapes)
        firsts = [name[:1] for name in names]
        return {name: name[0] if firsts.count(name[0]) == 1 else name for name in names}

    def symbol(self, symbol: Symbol) -> str:
        """`w0,2`: the tensor's letter, and the place in it along axes longer than 1."""
        shape = self.matrix.shapes[symbol.tensor]
        places = [str(place) for place, n in zip(symbol.place, shape, strict=True) if n > 1]
        return self._prefixes[symbol.tensor] + ",".join(places)

    def text(self, entry: Entry) -> str:
        """An entry as a formula: `w0,2`, `1/4`, `1/4*w0`, `w0 + w2`."""
        parts: list[str] = []
        for key, number in entry.items():
            names = "*".join(self.symbol(self.matrix.symbols[symbol]) for symbol in key)
            amount = _number_text(abs(number))
            part = names if names and amount == "1" else "*".join(filter(None, (amount, names)))
            sign = "-" if number < 0 else "+" if parts else ""
            parts.append(f"{sign}{part}")
        return "".join(parts) or "0"

    @cached_property
    def _numbers(self) -> tuple[Any, Any]:
        assert self.values is not None  # asked only where there are values
        return self.matrix.numbers(self.values)

    def _cell(self, row: int, column: int) -> str:
        entry = self.matrix.entries.get((row, column))
        if entry is None:
            return _ZERO
        if self.values is not None:
            return f"{self._numbers[0][row, column]:.4g}"
        return self.text(entry)

    def _offset(self, row: int) -> str:
        entry = self.matrix.offsets[row]
        if self.values is not None:
            return f"{self._numbers[1][row]:.4g}"
        return self.text(entry)

    # ------------------------------------------------------------------------------- structure

    @cached_property
    def structure(self) -> tuple[str, ...]:
        """What is regular about it, the strongest first."""
        matrix = self.matrix
        if matrix.identity:
            return ("the identity",)
        if matrix.permutation:
            return ("a permutation",)
        found = [self._toeplitz()] if self._toeplitz() else []
        if matrix.diagonal and matrix.entries:
            found.append("diagonal")
        elif self._banded:
            below, above = matrix.band or (0, 0)
            found.append(f"banded: {below} below the diagonal, {above} above")
        if len(matrix.entries) == matrix.rows * matrix.columns:
            found.append("dense")
        if matrix.weights and matrix.weights == matrix.distinct == len(matrix.entries):
            found.append("every weight stands in one place: nothing is shared")
        return tuple(found)

    @property
    def _banded(self) -> bool:
        band = self.matrix.band
        if band is None or self.matrix.rows != self.matrix.columns:
            return False
        below, above = band
        return below + above + 1 <= self.matrix.rows and max(below, above) < self.matrix.rows - 1

    def _toeplitz(self) -> str:
        """How the rows repeat along the axes of space."""
        matrix = self.matrix
        axes = [axis for axis in matrix.repeats if axis.spatial]
        if len(matrix.inputs) != 1 or len(matrix.outputs) != 1 or not axes:
            return ""
        x, y = matrix.inputs[0], matrix.outputs[0]
        moving = [role for role, n in zip(x.roles, x.shape, strict=True) if role.spatial and n > 1]
        if any(axis.outputs != 1 or axis.stride != 1 for axis in axes):
            return f"repeats along {_steps(axes)}"
        if len(axes) < len(moving):
            return f"Toeplitz along {', '.join(axis.role for axis in axes)}"
        name = "circulant" if all(axis.wraps for axis in axes) else "Toeplitz"
        if len(axes) > 1:
            name = f"{_RANKS[len(axes)]} block {name}"
        blocks = (y.shape[0], x.shape[0])
        return name if blocks == (1, 1) else f"{blocks[0]} x {blocks[1]} blocks, each {name}"

    def facts(self) -> Iterator[str]:
        """The structure, and counts."""
        matrix = self.matrix
        yield "; ".join(self.structure) or "no structure that is looked for"
        places = matrix.rows * matrix.columns
        nonzero = len(matrix.entries)
        counted = f"{exact(nonzero)} of {exact(places)} entries are not zero"
        yield f"{counted} ({percent(nonzero, places)}), {exact(matrix.distinct)} of them different"
        if matrix.weights:
            stand = "stands" if matrix.weights == 1 else "stand"
            yield f"{quantity(matrix.weights, 'weight')} {stand} there"
        if matrix.has_offsets:
            yield "y = matrix x + the column behind the bar"

    # ---------------------------------------------------------------------------------- table

    def lines(self) -> Iterator[Line]:
        """What it is, and the matrix: rows are outputs, columns inputs."""
        matrix = self.matrix
        self._refuse_large()
        yield [
            (visible(self.path), "bold"),
            (f"  {self.op}, {_shapes(matrix.inputs)} to {_shapes(matrix.outputs)}: ", ""),
            (f"{exact(matrix.rows)} x {exact(matrix.columns)}", "bold"),
        ]
        for fact in self.facts():
            yield [(fact, "dim")]
        yield []
        yield from self._table()

    def _refuse_large(self) -> None:
        matrix = self.matrix
        if matrix.rows * matrix.columns > MOST_CELLS:
            raise EnvironmentFailure(
                f"the matrix of `{self.path}` is {matrix.rows:,} x {matrix.columns:,}, too large "
                "for a table",
                help="--format csv or json writes it; --at gives the layer a smaller input",
            )

    def _table(self) -> Iterator[Line]:
        matrix = self.matrix
        labels = [f"y{place}" for place in _places(matrix.outputs)]
        heads = [f"x{place}" for place in _places(matrix.inputs)]
        body = [[self._cell(r, c) for c in range(matrix.columns)] for r in range(matrix.rows)]
        offsets = [self._offset(row) for row in range(matrix.rows)] if matrix.has_offsets else []
        width = max((len(cell) for row in body for cell in row), default=1)
        width = max(width, max(map(len, heads), default=1))
        first = max(map(len, labels), default=0)
        bars = _starts(matrix.inputs)
        for row, label in enumerate(labels):
            if row in _starts(matrix.outputs):
                yield []
            if not row:
                yield [(" " * first + _joined([h.rjust(width) for h in heads], bars), "dim")]
            cells = [(cell.rjust(width), "dim" if cell == _ZERO else "") for cell in body[row]]
            line: Line = [(label.rjust(first), "dim")]
            for column, (cell, style) in enumerate(cells):
                line.append((" │ " if column in bars else "  ", "dim"))
                line.append((cell, style))
            if offsets:
                line.extend(((" ║ ", "dim"), (offsets[row], "")))
            yield line

    # --------------------------------------------------------------------------- CSV and JSON

    def to_csv(self) -> str:
        """A header of inputs, a row for each output; a last column `bias` where there is one."""
        matrix = self.matrix
        out = StringIO()
        writer = csv.writer(out, lineterminator="\n")
        bias = ["bias"] if matrix.has_offsets else []
        writer.writerow(["", *(f"x{place}" for place in _places(matrix.inputs)), *bias])
        for row, place in enumerate(_places(matrix.outputs)):
            cells = [self._plain(row, column) for column in range(matrix.columns)]
            added = [self._plain_offset(row)] if bias else []
            writer.writerow([f"y{place}", *cells, *added])
        return out.getvalue()

    def _plain(self, row: int, column: int) -> object:
        entry = self.matrix.entries.get((row, column))
        if entry is None:
            return 0
        return self.text(entry) if self.values is None else float(self._numbers[0][row, column])

    def _plain_offset(self, row: int) -> object:
        entry = self.matrix.offsets[row]
        return self.text(entry) if self.values is None else float(self._numbers[1][row])

    def to_npy(self) -> bytes:
        """The matrix in numpy's format, as float64; the bias is a last column where there is one.

        Asked only where there are values.
        """
        from io import BytesIO

        import numpy as np

        matrix, offsets = self._numbers
        if self.matrix.has_offsets:
            matrix = np.concatenate([matrix, offsets[:, None]], 1)
        out = BytesIO()
        np.save(out, matrix)
        return out.getvalue()

    def document(self) -> dict[str, Any]:
        """The matrix as a JSON object, format 1: entries that are not zero, by row and column."""
        matrix = self.matrix
        band = matrix.band
        return {
            "format": 1,
            "layer": self.path,
            "op": self.op,
            "inputs": [list(tensor.shape) for tensor in matrix.inputs],
            "outputs": [list(tensor.shape) for tensor in matrix.outputs],
            "rows": matrix.rows,
            "columns": matrix.columns,
            "structure": list(self.structure),
            "repeats": [axis._asdict() for axis in matrix.repeats],
            "band": None if band is None else {"below": band[0], "above": band[1]},
            "nonzero": len(matrix.entries),
            "distinct": matrix.distinct,
            "weights": matrix.weights,
            "entries": [[r, c, self._plain(r, c)] for r, c in sorted(matrix.entries)],
            "bias": [self._plain_offset(row) for row in range(matrix.rows)]
            if matrix.has_offsets
            else None,
        }


def _number_text(number: object) -> str:
    if isinstance(number, (int, Fraction)):
        return str(number)
    return f"{number:.4g}"


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(shape_text(tensor.shape) for tensor in tensors)


def _places(tensors: Sequence[Tensor]) -> list[str]:
    """The elements of tensors by their places: `0,2`; axes of size 1 are left out."""
    found = []
    for number, tensor in enumerate(tensors):
        which = f"{number}:" if len(tensors) > 1 else ""
        for place in product(*map(range, tensor.shape)):
            kept = [str(p) for p, n in zip(place, tensor.shape, strict=True) if n > 1]
            found.append(which + ",".join(kept))
    return found


def _starts(tensors: Sequence[Tensor]) -> frozenset[int]:
    """Elements where a new row of an image, a new channel or a new tensor begins."""
    found: set[int] = set()
    first = 0
    for tensor in tensors:
        wide = [n for n in tensor.shape if n > 1]
        run = wide[-1] if len(wide) > 1 else tensor.elements
        found.update(range(first, first + tensor.elements, run))
        first += tensor.elements
    return frozenset(found - {0})


def _joined(cells: Sequence[str], bars: frozenset[int]) -> str:
    return "".join((" │ " if column in bars else "  ") + cell for column, cell in enumerate(cells))


def _steps(axes: Sequence[Axis]) -> str:
    """How far each axis moves until the matrix is the same again."""
    return ", ".join(
        f"{axis.role} ({quantity(axis.outputs, 'output')}, {quantity(axis.stride, 'input')} on)"
        for axis in axes
    )
