"""JSON Schema (draft-07) of the language, made from the op registry.

Editors complete and check with it; `cnnspec check` validates with it too. It uses neither oneOf nor
anyOf, which editors report badly. It says what can be said of text that is not evaluated: any
argument may be an expression, which to a schema is a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from typing import Any

from cnnspec.frontend import tree
from cnnspec.frontend.document import Block, Document
from cnnspec.frontend.metadata import PREPROCESS_KEYS
from cnnspec.frontend.param_types import PARAM_SLOTS
from cnnspec.frontend.parsing import EXPECTABLE, LANGUAGE_VERSION
from cnnspec.op import Op, field_docs, slots_of
from cnnspec.ops import registry
from cnnspec.slots import Schema
from cnnspec.weights import INITIALISERS

__all__ = ["schema_of", "to_json"]

_NAME = {"type": ["string", "integer"]}
_REFERENCES = {"type": ["string", "integer", "array"], "items": _NAME}
_TEXTS = {"type": ["string", "array"], "items": {"type": "string"}}


def schema_of(document: Document | None = None) -> Schema:
    """The schema of all specs, or one that also knows a document's own blocks and params."""
    blocks = _blocks_in_reach(document) if document else {}
    entry = _entry(blocks)
    branch = {**entry, "type": [*entry["type"], "integer"]}
    top: dict[str, Any] = {
        "cnnspec": {"const": LANGUAGE_VERSION, "description": "The version of the language."},
        "name": {"type": ["string", "number"], "description": "The network's name."},
        "description": {"type": "string", "description": "A sentence about the network."},
        "params": _params("What a variant, `--set` or a caller may change."),
        "inputs": {
            "type": "object",
            "description": "The network's inputs and their sizes, batch not counted.",
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "maxItems": 4,
                "items": {"type": ["integer", "string"], "minimum": 1},
            },
        },
        "imports": {
            "type": "object",
            "description": "Other files whose blocks this one calls, by prefix.",
            "additionalProperties": {"type": "string"},
        },
        "blocks": {
            "type": "object",
            "description": "Reusable groups of entries with params.",
            "propertyNames": {"pattern": "^[a-z_][a-z0-9_]*$"},
            "additionalProperties": {"$ref": "#/definitions/block"},
        },
        "layers": {
            "type": ["array", "null"],
            "description": "The entries of the network, in order.",
            "items": {"$ref": "#/definitions/entry"},
        },
        "outputs": _outputs(top=True),
        "variants": _variants(document),
        "expect": {"type": "object", "description": "What the author expects; `check` verifies."},
        "assert": _assertions(),
        "defaults": {
            "type": "object",
            "description": "Arguments by operation, for entries that do not give them.",
            "properties": {op.name: _arguments(op, required=False) for op in registry().values()},
            "additionalProperties": False,
        },
        "init": {
            "type": "object",
            "description": "Initialisers by operation.",
            "properties": {name: {"$ref": "#/definitions/init"} for name in registry()},
            "additionalProperties": False,
        },
        "preprocess": {
            "type": "object",
            "description": "How an image becomes the input.",
            "properties": {name: slot.schema(2) for name, slot in PREPROCESS_KEYS.items()},
            "additionalProperties": False,
        },
        "labels": {
            "type": "array",
            "description": "The names of the classes, in order.",
            "items": {"type": ["string", "number", "boolean"]},
        },
    }
    if document is not None and document.expect is not None:
        top["expect"] = _expect(document)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"cnnspec: {document.name}" if document else "cnnspec",
        "description": "A convolutional network, written once.",
        "type": "object",
        "properties": top,
        "required": ["cnnspec"],
        "additionalProperties": False,
        "definitions": {"entry": entry, "branch": branch, "block": _block(), "init": _init()},
    }


def _blocks_in_reach(document: Document) -> dict[str, Block]:
    found = dict(document.blocks)
    for prefix, imported in document.imports.items():
        found |= {f"{prefix}.{name}": block for name, block in imported.blocks.items()}
    return found


def _entry(blocks: Mapping[str, Block]) -> Schema:
    operations: dict[str, Any] = {
        "Sequential": {
            "type": ["array", "null"],
            "description": "A group of entries in a chain.",
            "items": {"$ref": "#/definitions/entry"},
        }
    }
    for op in registry().values():
        operations[op.name] = _join(op) if op.name[0].islower() else _arguments(op)
    for name, block in blocks.items():
        operations[name] = _call(block)
    controls = {
        "name": {**_NAME, "description": "The entry's name, its part of the path."},
        "from": {
            "type": ["string", "integer", "array", "object"],
            "items": _NAME,
            "additionalProperties": _NAME,
            "description": "The tensor or tensors the entry reads.",
        },
        "repeat": {"type": ["integer", "string"], "minimum": 0, "description": "How many times."},
        "for": {"type": "string", "description": "`NAMES in LIST`: once for each element."},
        "when": {
            "type": ["string", "boolean", "number"],
            "description": "If false, the entry is not built and stands for its input.",
        },
        "inline": {"type": "boolean", "description": "No level: the entries are the caller's."},
        "share": {**_NAME, "description": "The entry whose weights this one uses."},
        "init": {"$ref": "#/definitions/init"},
        "allow": {**_TEXTS, "description": "Warnings that are meant."},
    }
    schema: Schema = {
        "type": ["string", "object"],
        "description": "One operation, with its control keys beside it.",
        "minProperties": 1,
        "properties": {**controls, **operations},
        "patternProperties": {r"^[^A-Z].*[ .\[]|^.* if .*$": {"type": ["object", "null"]}},
        "additionalProperties": False,
    }
    known = {*controls, *operations}
    plain = "|".join(sorted(name for name in known if "." not in name and name[0].islower()))
    schema["patternProperties"][rf"^(?!({plain})$)[a-z_][A-Za-z0-9_]*$"] = {
        "type": ["object", "null"]
    }
    return schema


def _arguments(op: type[Op], *, required: bool = True) -> Schema:
    docs = field_docs(op)
    properties: dict[str, Any] = {}
    needed: list[str] = []
    for name, declared in slots_of(op).items():
        slot = declared.metadata["slot"]
        properties[name] = {**slot.schema(op.axes), "description": docs[name]}
        if slot.refers:
            properties[name]["type"] = ["string", "integer"]
        if declared.default is MISSING:
            needed.append(name)
        elif declared.default is not None:
            properties[name]["default"] = declared.default
    schema: Schema = {
        "type": ["object", "null"],
        "description": (op.__doc__ or "").split("\n\n")[0].replace("\n    ", " "),
        "properties": properties,
        "additionalProperties": False,
    }
    if required and needed:
        # Arguments may come from `defaults` or be bound elsewhere, so they are only suggested.
        schema["defaultSnippets"] = [
            {"label": op.name, "body": {name: f"${n}" for n, name in enumerate(needed, start=1)}}
        ]
    return schema


def _join(op: type[Op]) -> Schema:
    return {
        "type": ["array", "object"],
        "description": (op.__doc__ or "").split("\n\n")[0].replace("\n    ", " "),
        "items": {"$ref": "#/definitions/branch"},
        "additionalProperties": {
            "type": ["array", "object", "string", "integer", "null"],
            "items": {"$ref": "#/definitions/entry"},
        },
    }


def _call(block: Block) -> Schema:
    properties = {
        param.name.text: {
            **PARAM_SLOTS[param.type].schema(1),
            "description": f"{param.type}" + ("" if param.required else ", optional"),
        }
        for param in block.params
    }
    schema: Schema = {
        "type": ["object", "null"],
        "description": f"The block `{block.name}` of this file.",
        "properties": properties,
        "additionalProperties": False,
    }
    needed = [param.name.text for param in block.params if param.required]
    if needed:
        schema["required"] = needed
    return schema


def _params(description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {
            "type": ["integer", "number", "boolean", "string", "array", "object"]
        },
    }


def _block() -> Schema:
    return {
        "type": "object",
        "properties": {
            "params": _params("What a call passes."),
            "inputs": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Names of the inputs, where there are several.",
            },
            "layers": {"type": ["array", "null"], "items": {"$ref": "#/definitions/entry"}},
            "outputs": _outputs(top=False),
            "assert": _assertions(),
            "inline": {"type": "boolean", "description": "Calls add no level to paths."},
            "description": {"type": "string"},
        },
        "required": ["layers"],
        "additionalProperties": False,
    }


def _outputs(*, top: bool) -> Schema:
    properties: dict[str, Any] = {"from": _NAME}
    if top:
        properties["training"] = {
            "type": "boolean",
            "description": "Only there in training; inference leaves it out.",
        }
        properties["weight"] = {"type": "number", "description": "Its weight in the loss."}
    return {
        "type": ["string", "integer", "array", "object"],
        "description": "The tensors that come out: a list, or names for them.",
        "items": _NAME,
        "additionalProperties": {
            "type": ["string", "integer", "object"],
            "properties": properties,
            "required": ["from"],
            "additionalProperties": False,
        },
    }


def _assertions() -> Schema:
    return {
        "type": "array",
        "description": "Conditions that have to hold.",
        "items": {
            "type": "object",
            "properties": {"that": {"type": ["string", "boolean"]}, "message": {"type": "string"}},
            "required": ["that"],
            "additionalProperties": False,
        },
    }


def _variants(document: Document | None) -> Schema:
    values: Schema = {"type": ["object", "string", "null"]}
    if document is not None and document.top is not None:
        values["properties"] = {
            param.name.text: PARAM_SLOTS[param.type].schema(1) for param in document.top.params
        }
        values["additionalProperties"] = False
    return {
        "type": "object",
        "description": "Named sets of params; text names another variant.",
        "additionalProperties": values,
    }


def _expect(document: Document) -> Schema:
    metrics = _metrics(EXPECTABLE)
    return {
        "type": "object",
        "properties": {
            **metrics["properties"],
            **dict.fromkeys((document.name, *document.variants), metrics),
        },
        "additionalProperties": False,
    }


def _metrics(names: Iterable[str]) -> Schema:
    return {
        "type": "object",
        "properties": {name: {"type": ["number", "string", "array", "object"]} for name in names},
        "additionalProperties": False,
    }


def _init() -> Schema:
    return {
        "type": "object",
        "description": "An initialiser for each weight: a number, a word, or one with arguments.",
        "additionalProperties": {
            "type": ["string", "number", "object"],
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                kind: {
                    "type": ["object", "null"],
                    "properties": {name: slot.schema(1) for name, slot in slots.items()},
                    "additionalProperties": False,
                }
                for kind, slots in INITIALISERS.items()
            },
            "additionalProperties": False,
        },
    }


def to_json(node: tree.Node) -> object:
    """A tree as the plain data a schema validates: YAML 1.2 literals, lists and dicts."""
    match node:
        case tree.Scalar():
            return tree.literal(node)
        case tree.Sequence():
            return [to_json(item) for item in node.items]
        case tree.Mapping():
            return {key.text: to_json(value) for key, value in node.items}
