"""What YAML does to text that was meant otherwise, told at its place with the way out.

The traps here are texts that YAML accepts (a comma that cuts `max(8, w)` in two); those that it
refuses are in `cnnspec.frontend.yaml_failures`. Only facts about YAML belong here; what the words
mean is the business of later stages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence as Items

from cnnspec.diagnostics import Diagnostic, Note, error
from cnnspec.frontend.tree import Mapping, Scalar, Sequence
from cnnspec.source import Source, Span

__all__ = [
    "alias",
    "bare_entries",
    "block_indicator",
    "duplicate_key",
    "glued_key",
    "key_not_text",
    "merge_key",
    "quote_it",
    "several_documents",
    "short",
    "space_missing",
    "split_items",
    "tag",
    "unprintable",
]

_QUOTED = re.compile(r"\"[^\"]*+\"|'[^']*+'")
_GLUED = re.compile(r"[\w.-]++:(?=[^\s:])")
_GLUED_KEY = re.compile(r"[\w.-]++:(?=[\[{\"'(])")
_WORD = re.compile(r"[\w.-]++")
_LONGEST_QUOTE = 60


def bare_entries(node: Mapping, bare: Items[int]) -> Iterator[Diagnostic]:
    """Errors for the entries of a flow mapping, at the positions `bare`, that have no colon."""
    left = set(bare)
    for position, (key, value) in enumerate(node.items):
        if position in left or not isinstance(value, Scalar) or _balance(value) <= 0:
            continue
        pieces, depth = [value], _balance(value)
        while depth > 0 and position + len(pieces) in left:
            pieces.append(node.items[position + len(pieces)][0])
            depth += _balance(pieces[-1])
        if len(pieces) > 1:
            left.difference_update(range(position + 1, position + len(pieces)))
            yield _cut_value(pieces, key.text)
    glued = [position for position in left if _GLUED.match(node.items[position][0].text)]
    if len(left) == len(node.items) and not glued:
        yield _without_values(node)
        return
    for position in sorted(left):
        key = node.items[position][0]
        if position in glued:
            yield space_missing(key.span, key.text)
        else:
            name = short(key.text)
            yield error(
                "flow-comma",
                f"`{name}` has no value",
                key.span,
                label="a comma ends a value inside `{}`",
                help=f"write `{name}: VALUE`, or quote the whole value that the comma belongs to",
            )


def split_items(node: Sequence) -> Iterator[Diagnostic]:
    """Errors for expressions such as `max(8, w)` that a flow list has cut at their commas."""
    pieces: list[Scalar] = []
    depth = 0
    for item in node.items:
        if not isinstance(item, Scalar):
            pieces, depth = [], 0
            continue
        change = _balance(item)
        if pieces or change > 0:
            pieces.append(item)
            depth += change
        if pieces and depth <= 0:
            yield _cut_value(pieces, "")
            pieces, depth = [], 0


def merge_key(key: Scalar) -> Diagnostic | None:
    """The error for `<<`, or None for any other key."""
    if key.text != "<<":
        return None
    return error(
        "merge-key",
        "`<<` merges mappings in some YAML readers; it has no meaning here",
        key.span,
        help="write the entries out, or share arguments through `defaults:` or a block",
    )


def duplicate_key(key: Scalar, first: Scalar) -> Diagnostic:
    """The error for a key that its mapping has already."""
    name = short(key.text)
    return error(
        "duplicate-key",
        f"the key `{name}` is given twice",
        key.span,
        notes=[Note(f"`{name}` is first given here", first.span)],
        help="keep one of the two",
    )


def glued_key(key: Scalar) -> Diagnostic | None:
    """The error for a key such as `Conv2d:{out`, which lacks the space after its colon."""
    found = _GLUED_KEY.match(key.text)
    return space_missing(key.span.part(0, found.end()), key.text) if found else None


def key_not_text(key: Mapping | Sequence | None, span: Span) -> Diagnostic:
    """The error for a key that is missing (None), a mapping or a list."""
    if key is None:
        return error("key-not-text", "an entry has no key", span, help="write the key before `:`")
    kind = "mapping" if isinstance(key, Mapping) else "list"
    return error(
        "key-not-text", f"a {kind} stands where a key must", span, help="quote it to make it text"
    )


def block_indicator(source: Source, start: int) -> Diagnostic:
    """The error for a value that begins with `>` or `|` and was not meant as a block of text."""
    sign = source.text[start]
    written = sign + ("=" if source.text.startswith("=", start + 1) else "")
    meant = f"write both sides of the comparison, as in `x {written} 8`"
    return error(
        "yaml-block-indicator",
        f"`{sign}` at the start of a value begins a block of text in YAML",
        source.span(start, start + len(written)),
        help=f"{meant if sign == '>' else 'write `or` in an expression'}, "
        f"or quote a text that begins with `{sign}`",
    )


def tag(source: Source, start: int, end: int) -> Diagnostic:
    """The error for a YAML tag: `!last`, `!!int`, `!!python/name:os.system`."""
    written = source.text[start:end]
    negation = re.fullmatch(r"!(\(?\w[\w.]*)", written)
    return error(
        "yaml-tag",
        f"`{short(written)}` is a YAML tag, and tags have no meaning here",
        source.span(start, end),
        help=f"write `not {negation[1]}` in an expression, or quote a text that begins with `!`"
        if negation
        else "remove the tag; quote a text that begins with `!`",
    )


def alias(span: Span, name: str, *, recursive: bool) -> Diagnostic:
    """The error for `*name` without an anchor `&name` before it, or inside that very anchor."""
    if recursive:
        message = f"`*{short(name)}` stands inside the node that it refers to"
        return error("yaml-alias", message, span, help="write the value out")
    return error(
        "yaml-alias",
        f"`*{short(name)}` is a YAML alias, and no anchor `&{short(name)}` comes before it",
        span,
        help=f"write `{short(name)}` for the param or tensor, or quote a text that begins with `*`",
    )


def several_documents(source: Source, start: int) -> Diagnostic:
    """The error for a second document in one file."""
    found = _WORD.match(source.text, start)
    return error(
        "several-documents",
        "a second YAML document starts here",
        source.span(start, found.end() if found else start + 1),
        help="keep one document in a file; variants of a network go under `variants:`",
    )


def unprintable(source: Source, at: int) -> Diagnostic:
    """The error for a character that YAML does not allow."""
    character = source.text[at]
    name = "character"
    help_text = "remove it"
    if character == "\ufeff":
        name = "byte order mark"
    elif ord(character) < 256:
        name = "control character"
        help_text += f", or write it as `\\x{ord(character):02x}` inside double quotes"
    return error(
        "control-character",
        f"the {name} U+{ord(character):04X} cannot stand in a YAML text",
        source.span(at, at + 1),
        help=help_text,
    )


def _without_values(node: Mapping) -> Diagnostic:
    keys = [key.text for key, _ in node.items]
    if len(keys) == 1:
        message = f"`{short(keys[0])}` has no value"
        quoted = _quoted(node.span.text)
        help_text = f"write `{short(keys[0])}: VALUE`; a template must be quoted" + (
            f": `{quoted}`" if quoted else ""
        )
    else:
        message = "the entries of this mapping have no values"
        listed = f"[{', '.join(keys)}]"
        help_text = f"write a list: `{listed if len(listed) <= _LONGEST_QUOTE else '[a, b]'}`"
    return error("flow-comma", message, node.span, help=help_text)


def _cut_value(pieces: Items[Scalar], key: str) -> Diagnostic:
    span = pieces[0].span.to(pieces[-1].span)
    written = span.text
    inner = written[1:-1]
    help_text = quote_it(written, key)
    if written[:1] + written[-1:] == "()" and "(" not in inner and "\n" not in inner:
        help_text = f"write a list, `[{short(inner)}]`, or {help_text}"
    return error(
        "flow-comma",
        f"a comma ends a value inside `{'{}' if key else '[]'}`, also between parentheses",
        span,
        label=f"read as {len(pieces)} parts",
        help=help_text,
    )


def space_missing(span: Span, written: str) -> Diagnostic:
    """The error for `stride:2`, of which `written` is the text from its key on."""
    key, _, value = written.partition(":")
    return error(
        "yaml-colon",
        f"no space follows the colon after `{short(key)}`, so it does not end the key",
        span,
        help=f"put a space after the colon: `{short(key)}: {short(value)}`",
    )


def _balance(scalar: Scalar) -> int:
    """Opening minus closing parentheses of a plain scalar, those in string literals left out."""
    text = scalar.text
    if not scalar.plain or ("(" not in text and ")" not in text):
        return 0
    text = _QUOTED.sub("", text)
    return text.count("(") - text.count(")")


def short(text: str) -> str:
    """`text` on one line, cut where it is long."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "..."


def _quoted(text: str) -> str:
    """`text` in quotes as YAML would have it; empty where it is long or holds both quotes."""
    if len(text) > _LONGEST_QUOTE or "\n" in text or "\\" in text:
        return ""
    return f'"{text}"' if '"' not in text else f"'{text}'" if "'" not in text else ""


def quote_it(text: str, key: str = "") -> str:
    """The help that shows the value `text`, of `key` where it has one, in quotes."""
    quoted = _quoted(text)
    prefix = f"{key}: " if key and len(key) <= 40 else ""
    return f"quote the value: `{prefix}{quoted}`" if quoted else "quote the value"
