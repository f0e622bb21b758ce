"""Values as a spec would write them, for programs that write specs.

Scalars and flow collections only; which keys a spec has, and where lines break, is decided by
whoever writes one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cnnspec.frontend import tree
from cnnspec.source import Source

__all__ = ["flow_list", "flow_mapping", "value_text", "word"]

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DIGITS = re.compile(r"[0-9.]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NOWHERE = Source("", "").span(0, 0)


def word(text: str, *, name: bool = False) -> str:
    """Text as a scalar that YAML reads as that text, in a flow too; quoted where it must be.

    A `name` stands where a spec takes any scalar for text, so that digits need no quotes.
    """
    if name and _DIGITS.fullmatch(text):
        return text
    if _PLAIN.fullmatch(text) and tree.literal(tree.Scalar(text, _NOWHERE)) == text:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def value_text(value: object) -> str:
    """A number, boolean, null, text, list or mapping on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return word(value)
        case list() | tuple():
            return flow_list(map(value_text, value))
        case Mapping():
            return flow_mapping((str(key), value_text(item)) for key, item in value.items())
    raise TypeError(f"a spec has no way to write {type(value).__name__}")


def flow_list(items: Iterable[str]) -> str:
    """Texts as `[a, b]`."""
    return f"[{', '.join(items)}]"


def flow_mapping(items: Iterable[tuple[str, str]]) -> str:
    """Keys and texts as `{a: 1, b: 2}`."""
    return "{" + ", ".join(f"{word(key, name=True)}: {text}" for key, text in items) + "}"
