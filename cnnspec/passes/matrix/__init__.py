"""A layer that is linear, as the dense matrix that it is.

The ONNX lowering of the operation is read with affine forms for numbers, so that no operation is
known here, and one that is not linear says so by what it becomes. numpy may enter, torch may not:
entries are weights by name. Small inputs only.
"""

from __future__ import annotations

from cnnspec.passes.matrix.matrix import Axis, Entry, Matrix, Symbol, matrix_of

__all__ = ["Axis", "Entry", "Matrix", "Symbol", "matrix_of"]
