"""No text, however broken, brings out anything but a network or errors with places in the text."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cnnspec
from cnnspec.diagnostics import SpecError
from cnnspec.frontend import building, tree
from cnnspec.frontend.document import CONTROLS
from cnnspec.frontend.reader import read
from cnnspec.op import slots_of
from cnnspec.ops import registry
from cnnspec.source import Source
from tests.frontend.mutants import (
    HOSTILE,
    SPECS,
    Mutator,
    emit,
    outcome,
    parts,
    processor_time,
    typo,
)

MUTATOR = Mutator()
SECONDS = 10.0
"""Processor time for one mutant: ten times what the slowest takes on a slow machine."""


@pytest.fixture(autouse=True)
def few_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops that got out of hand stop early."""
    monkeypatch.setattr(building, "MAX_NODES", 3_000)


def test_unchanged_specs_come_out_of_the_emitter_the_same() -> None:
    for path in SPECS:
        text = path.read_text(encoding="utf-8")
        before = parts(read(Source("", text)))
        assert parts(read(Source("", emit(before)))) == before, path.name


def test_mutants_differ_and_most_are_wrong() -> None:
    """The mutations reach all stages: YAML, parsing, expansion."""
    codes = {code for number in range(120) for code in outcome(MUTATOR.mutant(number))}
    assert len(codes) >= 12
    assert codes & {"yaml-syntax", "yaml-colon", "flow-bracket"}
    assert "unknown-argument" in codes
    assert codes & {"concat-shape", "add-shape", "unknown-tensor", "forward-reference"}


@pytest.mark.parametrize("batch", range(8))
def test_mutants(batch: int) -> None:
    for number in range(1000 + 40 * batch, 1000 + 40 * (batch + 1)):
        data = MUTATOR.mutant(number)
        try:
            with processor_time(SECONDS):
                outcome(data)
        except Exception as failure:
            failure.add_note(f"mutant {number}")
            raise


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(HOSTILE),
            st.sampled_from(
                ["cnnspec: 1", "layers:", "  - ", "{", "}", "[", "]", ": ", ", ", "\n"]
            ),
            st.text(max_size=6),
        ),
        max_size=20,
    )
)
@example(["{}"])
@example(["cnnspec: 1", "\n", "layers:", "\n", "  - ", "\ud800"])
def test_soup(pieces: list[str]) -> None:
    data = "".join(pieces).encode("utf-8", "surrogatepass")
    with processor_time(SECONDS):
        outcome(data)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60))
def test_bytes(data: bytes) -> None:
    with processor_time(SECONDS):
        outcome(data)


# -------------------------------------------------------------------------------------- typos


def _keys(path_text: str) -> Iterator[tuple[tree.Scalar, frozenset[str]]]:
    """Control keys and argument keys of all entries, each with the names it may be taken for."""
    root = read(Source("", path_text))
    assert isinstance(root, tree.Mapping)
    blocks = root.get("blocks")
    params: dict[str, frozenset[str]] = {}
    for key, body in blocks.items if isinstance(blocks, tree.Mapping) else ():
        declared = body.get("params") if isinstance(body, tree.Mapping) else None
        names = declared.items if isinstance(declared, tree.Mapping) else ()
        params[key.text] = frozenset(name.text for name, _ in names)
    stack: list[tree.Node] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, tree.Sequence):
            stack.extend(node.items)
        elif isinstance(node, tree.Mapping):
            stack.extend(value for _, value in node.items)
            for key, value in node.items:
                known = params.get(key.text)
                if key.text in registry() and key.text[0].isupper():
                    known = frozenset(slots_of(registry()[key.text]))
                if known is None or not isinstance(value, (tree.Mapping, tree.Scalar)):
                    continue
                arguments = value.items if isinstance(value, tree.Mapping) else ()
                yield from ((name, known) for name, _ in arguments if name.text in known)
                others = frozenset((*CONTROLS, *registry(), *params, "Sequential"))
                for control, _ in node.items:
                    if control.text in CONTROLS:
                        yield control, others


def _typos() -> Iterator[tuple[str, int, str, str]]:
    """(spec, offset, key, typo): each key of each spec once, those alike only once."""
    for path in SPECS:
        text = path.read_text(encoding="utf-8")
        seen: set[str] = set()
        for key, known in _keys(text):
            if len(key.text) < 4 or key.text in seen or "imports:" in text:
                continue
            seen.add(key.text)
            rng = random.Random(f"{path.name} {key.text}")
            wrong = typo(key.text, rng)
            while wrong in known or wrong == key.text:
                wrong = typo(key.text, rng)
            source = key.span.source
            yield path.name, source.offset(key.span.line, key.span.column), key.text, wrong


TYPOS = list(_typos())


def test_typos_are_many() -> None:
    keys = {key for _, _, key, _ in TYPOS}
    assert {"name", "from", "when", "kernel_size", "out_channels", "stride"} <= keys
    assert len(TYPOS) >= 60


@pytest.mark.parametrize(
    ("spec", "offset", "key", "wrong"), TYPOS, ids=[f"{t[0]}-{t[2]}-{t[3]}" for t in TYPOS]
)
def test_typo(spec: str, offset: int, key: str, wrong: str) -> None:
    """A typo in a key is reported at the key, with the name that was meant."""
    path = next(path for path in SPECS if path.name == spec)
    text = path.read_text(encoding="utf-8")
    assert text.startswith(key, offset)
    text = text[:offset] + wrong + text[offset + len(key) :]
    with pytest.raises(SpecError) as caught:
        cnnspec.load(text=text)
    place = Source("", text).position(offset)
    at_key = [
        d for d in caught.value.diagnostics if d.span and (d.span.line, d.span.column) == place
    ]
    (code,) = {d.code for d in at_key}
    assert code in ("unknown-argument", "unknown-control", "unknown-weight")
    assert re.fullmatch(rf"did you mean `{key}`\?", at_key[0].help), at_key[0]
