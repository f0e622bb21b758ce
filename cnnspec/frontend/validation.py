"""Validation with jsonschema: a second, independent reading of a spec's structure.

`analyze` checks structure from the same op fields without importing jsonschema; `check` does both.
What this finds is normally nothing, since parsing has found it before, with better words.
"""

from __future__ import annotations

from collections.abc import Iterable

from cnnspec.diagnostics import Diagnostic, error
from cnnspec.frontend import tree
from cnnspec.frontend.document import Document
from cnnspec.frontend.reader import read
from cnnspec.frontend.schema import schema_of, to_json

__all__ = ["schema_violations"]


def schema_violations(document: Document) -> list[Diagnostic]:
    """Where a spec that parses does not satisfy the JSON Schema of its language."""
    from jsonschema import Draft7Validator

    root = read(document.source)
    validator = Draft7Validator(schema_of())
    return [
        error(
            "schema",
            f"the JSON Schema refuses this: {_short(violation.message)}",
            _at(root, violation.absolute_path).span,
        )
        for violation in validator.iter_errors(to_json(root))
    ]


def _at(root: tree.Node, path: Iterable[str | int]) -> tree.Node:
    node = root
    for step in path:
        if isinstance(node, tree.Mapping):
            node = node.get(str(step)) or node
        elif isinstance(node, tree.Sequence) and isinstance(step, int):
            node = node.items[step]
    return node


def _short(message: str) -> str:
    return message if len(message) <= 160 else f"{message[:157]}..."
