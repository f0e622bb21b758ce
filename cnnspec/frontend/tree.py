"""The located tree: what a YAML text says, with the place of every word.

Scalars, mappings and sequences, nothing else, all immutable. The tree knows YAML's own literals
and no word of the language; what a value means is decided by the slot where it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from cnnspec.diagnostics import SpecError, error
from cnnspec.source import Span

__all__ = ["MAX_DIGITS", "Literal", "Mapping", "Node", "Scalar", "Sequence", "literal"]

MAX_DIGITS = 60
"""Digits an integer literal may have, leading zeros not counted."""

Literal: TypeAlias = bool | int | float | str | None

_WORDS: dict[str, bool | float | None] = {
    "": None,
    **dict.fromkeys(("~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_NUMBER = re.compile(
    r"(?P<int>[-+]?+[0-9]++)"
    r"|0o(?P<oct>[0-7]++)"
    r"|0x(?P<hex>[0-9a-fA-F]++)"
    r"|(?P<float>[-+]?+(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?+)(?:[eE][-+]?+[0-9]++)?+)"
)
_BASES = {"int": 10, "oct": 8, "hex": 16}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One piece of text. Exactly one of `plain`, `quoted` and `block` is true.

    `text` is what YAML reads (quotes removed, lines folded); `span` covers it as it is written,
    quotes and block indicator included.
    """

    text: str
    span: Span
    plain: bool = True
    quoted: bool = False
    block: bool = False

    @property
    def absent(self) -> bool:
        """Whether nothing is written here, as after the colon of `- BatchNorm2d:`."""
        return self.plain and not self.text

    def content_span(self, start: int, end: int) -> Span:
        """Where the characters `start` to `end` of `text` stand in the file.

        Exact where `text` stands there letter by letter: a plain or quoted scalar on one line
        without escapes. Otherwise (escapes, several lines, block scalars) the whole span.
        """
        span = self.span
        shift = 1 if self.quoted else 0
        if (
            self.block
            or not self.text
            or span.line != span.end_line
            or span.end_column - span.column != len(self.text) + 2 * shift
        ):
            return span
        return span.part(start + shift, end + shift)


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values in the order written. Keys are scalars, no two with the same text.

    `flow` is true for `{a: 1}` and for the pair in `[a: 1]`, false for indented lines.
    """

    items: tuple[tuple[Scalar, Node], ...]
    span: Span
    flow: bool = False

    def get(self, key: str) -> Node | None:
        """The value under `key`, or None where there is no such key."""
        return next((value for name, value in self.items if name.text == key), None)

    def key(self, key: str) -> Scalar | None:
        """The key `key` as it is written, or None where there is no such key."""
        return next((name for name, _ in self.items if name.text == key), None)


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items in the order written. `flow` is true for `[a, b]`, false for lines with `- `."""

    items: tuple[Node, ...]
    span: Span
    flow: bool = False


Node: TypeAlias = Scalar | Mapping | Sequence


def literal(scalar: Scalar) -> Literal:
    """The value of a scalar by the core schema of YAML 1.2.2 (section 10.3.2).

    Quoted and block scalars are text, and so are the words and numbers that only YAML 1.1 knows:
    `yes`, `on`, `1_000`, `3:30`. `010` is 10.

    Raises:
        SpecError: `number-too-large`, where an integer has more than `MAX_DIGITS` digits or a
            number is beyond the range of a double.
    """
    text = scalar.text
    if not scalar.plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    kind = match.lastgroup if match else None
    if match is None or kind is None:
        return text
    if kind == "float":
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise _too_large(scalar, "beyond the range of a 64-bit float")
        return number
    digits = match[kind]
    if len(digits.lstrip("+-0")) > MAX_DIGITS:
        raise _too_large(scalar, f"longer than {MAX_DIGITS} digits")
    return int(digits, _BASES[kind])


def _too_large(scalar: Scalar, reason: str) -> SpecError:
    return SpecError([error("number-too-large", f"this number is {reason}", scalar.span)])
