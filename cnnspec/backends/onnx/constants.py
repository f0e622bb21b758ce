"""Nodes that read nothing but constants, computed at export by onnx's own reference implementation.

A kernel repeated for every channel or a table of indices so becomes a stored tensor, as tools that
look for weights expect. Where nodes come from may not enter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from cnnspec.backends.onnx.program import Array

__all__ = ["computed"]

_SMALL = 2**20
"""Bytes of a result that is stored however little it is computed from."""

_GROWTH = 4
"""How many times the bytes of what it is computed from a larger result may have."""


def computed(
    node: onnx.NodeProto, constants: Mapping[str, Array], opset: int
) -> Mapping[str, Array] | None:
    """What a node gives, by name; None if it reads something else or would make the file large."""
    names = [name for name in node.input if name]
    if not names or not all(name in constants for name in names):
        return None
    given = {name: constants[name] for name in names}
    found = ReferenceEvaluator(node, opsets={"": opset}).run(None, given)
    results = [np.asarray(result) for result in found]
    size = sum(result.nbytes for result in results)
    if size > max(_SMALL, _GROWTH * sum(array.nbytes for array in given.values())):
        return None
    return dict(zip(node.output, results, strict=True))
