"""Broken versions of specs, made at random from a seed, and what loading one may come to.

Used by `test_mutations.py` for a few hundred and by `bench/mutants.py` for as many as one likes.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cnnspec
from cnnspec.diagnostics import Diagnostic, SpecError
from cnnspec.frontend import tree
from cnnspec.frontend.reader import read
from cnnspec.source import Source

SPECS = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))

HOSTILE = (
    "-1",
    "0",
    "1",
    "2.5",
    ".nan",
    "-.inf",
    "1e400",
    "9" * 400,
    "2147483647",
    "99999999999",
    "null",
    "true",
    "[]",
    "{}",
    "[[1, 2], [3]]",
    "{a: {b: [c]}}",
    "[{a: 1}, {b: 2}]",
    "x",
    "input",
    "input.shape",
    "ReLU",
    "add",
    "forward",
    '"{i}"',
    '"{"',
    '"[/x]"',
    '"\\e[31m\\u202e"',
    '"::error::\\n"',
    '""',
    "range(100000)",
    "9**9**9",
    "1/0",
    "'a' * 10**9",
    "[i for i in range(10**7)]",
    "(" * 150,
    "a" * 5000,
    "ü" * 50,
    "*width",
    "!last",
    "&anchor 1",
    ">= 8",
    "| text",
    "a: b: c",
    "- 1",
    "%",
    "@",
    "`",
    "'",
    '"',
    "\t",
    "\r",
    "\x1b",
    "\u2028",
)
"""Values that somebody, or something, might write anywhere."""

TREE_MUTATIONS = ("delete", "duplicate", "move", "rename", "replace", "graft", "wrap", "typo")
BYTE_MUTATIONS = ("cut", "insert", "flip", "truncate", "line", "indent", "repeat")


class Seq(list["Part"]):
    """A list of a spec, to be mutated."""


class Map(list[tuple[str, "Part"]]):
    """A mapping of a spec, to be mutated; keys may be there twice."""


Part = str | Seq | Map
"""A node of a spec; scalars are text as it is written, quotes included."""


def parts(node: tree.Node) -> Part:
    """A tree as something that can be mutated."""
    match node:
        case tree.Scalar():
            return node.text if node.plain else json.dumps(node.text, ensure_ascii=False)
        case tree.Sequence():
            return Seq(parts(item) for item in node.items)
        case tree.Mapping():
            return Map((parts_key(key), parts(value)) for key, value in node.items)


def parts_key(key: tree.Scalar) -> str:
    """A key as it is written."""
    return key.text if key.plain else json.dumps(key.text, ensure_ascii=False)


def emit(part: Part, indent: str = "") -> str:
    """The text of a part, in block style, from the end of its key's line on."""
    if isinstance(part, str):
        return f" {part}\n" if part else "\n"
    if not part:
        return " []\n" if isinstance(part, Seq) else " {}\n"
    inner = f"{indent}  "
    if isinstance(part, Seq):
        lines = [f"{indent}-{emit(item, inner)}" for item in part]
    else:
        lines = [f"{indent}{key}:{emit(value, inner)}" for key, value in part]
    return "\n" + "".join(lines)


def typo(word: str, rng: random.Random) -> str:
    """The word with one slip of the fingers."""
    if len(word) < 2:
        return word + word
    at = rng.randrange(len(word) - 1)
    match rng.randrange(3):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case _:
            return word[: at + 1] + word[at:]


def mutated_tree(root: Part, rng: random.Random) -> str:
    """The text of a spec with one to three mutations of its tree."""
    root = _copy(root)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _mutate(root, rng)
    return emit(root).lstrip("\n")


def _copy(part: Part) -> Part:
    match part:
        case str():
            return part
        case Seq():
            return Seq(_copy(item) for item in part)
        case Map():
            return Map((key, _copy(value)) for key, value in part)


def _holders(root: Part) -> list[Seq | Map]:
    found: list[Seq | Map] = []
    stack = [root]
    while stack:
        part = stack.pop()
        if isinstance(part, str):
            continue
        if part:
            found.append(part)
        stack.extend(part if isinstance(part, Seq) else [value for _, value in part])
    return found


def _mutate(root: Part, rng: random.Random) -> None:
    holders = _holders(root)
    if not holders:
        return
    holder = rng.choice(holders)
    items: list[Any] = holder
    at = rng.randrange(len(holder))
    kind = rng.choice(TREE_MUTATIONS)
    if kind == "delete":
        del holder[at]
    elif kind == "duplicate":
        items.insert(at, items[at])
    elif kind == "move":
        other = rng.randrange(len(holder))
        items.insert(other, items.pop(at))
    elif isinstance(holder, Map) and kind in ("rename", "typo"):
        key, value = holder[at]
        keys = [key for other in holders if isinstance(other, Map) for key, _ in other]
        holder[at] = (typo(key, rng) if kind == "typo" else rng.choice(keys)), value
    else:
        new: Part = rng.choice(HOSTILE)
        if kind == "graft":
            new = _copy(rng.choice(holders))
        old = holder[at] if isinstance(holder, Seq) else holder[at][1]
        if kind == "wrap":
            new = rng.choice((Seq([old]), Map([("a", old)])))
        if isinstance(holder, Seq):
            holder[at] = new
        else:
            holder[at] = holder[at][0], new


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a spec with one to three mutations that know nothing of YAML."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 5, 30)))
        lines = data.split(b"\n")
        row = rng.randrange(len(lines))
        match rng.choice(BYTE_MUTATIONS):
            case "cut":
                data = data[:at] + data[end:]
            case "insert":
                data = data[:at] + rng.choice(HOSTILE).encode() + data[at:]
            case "flip":
                changed = bytes(byte ^ 1 << rng.randrange(8) for byte in data[at:end])
                data = data[:at] + changed + data[end:]
            case "truncate":
                data = data[:at]
            case "line":
                del lines[row]
                data = b"\n".join(lines)
            case "indent":
                lines[row] = b" " * rng.randrange(4) + lines[row].lstrip()
                data = b"\n".join(lines)
            case _:
                data = data[:end] + data[at:]
    return data


@dataclass
class Mutator:
    """Makes mutant number `n` of all specs, always the same for the same number."""

    sources: list[bytes] = field(default_factory=lambda: [p.read_bytes() for p in SPECS])
    trees: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        self.trees = [parts(read(Source("", data.decode()))) for data in self.sources]

    def mutant(self, number: int) -> bytes:
        """The text of a mutant."""
        rng = random.Random(number)
        which = rng.randrange(len(self.sources))
        if rng.random() < 0.6:
            return mutated_tree(self.trees[which], rng).encode("utf-8", "replace")
        return mutated_bytes(self.sources[which], rng)


class TooSlowError(Exception):
    """Loading took more processor time than anything may."""


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise `TooSlowError` after so much time of the processor, whatever else runs on it."""

    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(data: bytes) -> tuple[str, ...]:
    """Load and analyze: the codes of the errors, or nothing where the mutant is a network.

    Any exception but SpecError comes out, and AssertionError for a diagnostic with a wrong place.
    """
    try:
        report = cnnspec.load(text=data).analyze()
    except SpecError as failure:
        errors = failure.diagnostics
    else:
        assert report.totals.params >= 0
        assert report.outputs
        for diagnostic in report.warnings:
            check_place(diagnostic, data)
        return ()
    assert errors
    for diagnostic in errors:
        check_place(diagnostic, data)
    return tuple(diagnostic.code for diagnostic in errors)


def check_place(diagnostic: Diagnostic, data: bytes) -> None:
    """Assert that a diagnostic, and its notes, lie within the text."""
    assert diagnostic.message
    for span in (diagnostic.span, *(n.span for n in diagnostic.notes if n.span is not None)):
        assert span is not None, diagnostic
        source = span.source
        assert 1 <= span.line <= source.line_count + 1, diagnostic
        assert 1 <= span.column <= len(source.line(span.line)) + 2, diagnostic
        assert (span.line, span.column) <= (span.end_line, span.end_column), diagnostic
        assert span.end_line <= source.line_count + 1, diagnostic
        assert len(source.text) <= len(data), diagnostic
