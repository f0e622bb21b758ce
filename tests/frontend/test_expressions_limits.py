"""The expression language on hostile text: bounded in time, memory and depth; no other errors."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnspec.frontend.expressions import (
    FUNCTION_NAMES,
    Budget,
    ExpressionError,
    Value,
    evaluate,
    parse,
    parse_targets,
    parse_template,
)

NAMES: dict[str, object] = {
    "a": 3,
    "x": -0.5,
    "none": None,
    "word": "same",
    "xs": [3, 4, 6, 3],
    "r": {"k": 5},
    "op": object(),
}
LIMITS = {"expression-too-large", "expression-too-long", "expression-too-deep"}


def run(text: str) -> Value:
    return evaluate(parse(text), NAMES.__getitem__, names=NAMES)


def render(text: str) -> Value:
    return parse_template(text).render(NAMES.__getitem__)


def turns(text: str) -> Value:
    return parse_targets(text).turns(NAMES.__getitem__)


def attempt(make: Callable[[str], object], text: str) -> ExpressionError | None:
    try:
        make(text)
    except ExpressionError as error:
        return error
    return None


def refusal(text: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        run(text)
    return caught.value


def nest(levels: int) -> str:
    """Lists within lists built by clauses, each name holding the former twice."""
    clauses = "".join(f" for v{i + 1} in [[v{i}, v{i}]]" for i in range(levels))
    return f"[v{levels} for v0 in [0]{clauses}]"


def comparing(levels: int) -> str:
    other = nest(levels).replace("v", "w")
    return f"{nest(levels)} == {other}"


HOSTILE = {
    "tower": "9**9**9**9",
    "power": "(10**29)**(10**29)",
    "negative power": "2**-(10**30) + 7**(10**30)",
    "list": "[0]*10**9",
    "lists": "[[0]*99999]*99999",
    "text": '"a"*10**9',
    "range": "range(10**12)",
    "range by a step": "range(-10**30, 10**30, 10**9)",
    "product": "[x for x in range(99999) for y in range(99999)]",
    "lists in turns": "[range(99999) for i in range(99999)]",
    "texts in turns": "['a'*9999 for i in range(99999)]",
    "slices in turns": "[xs[:] for xs in [range(99999)] for i in range(9999)]",
    "search in turns": "[-1 in xs for xs in [range(99999)] for i in range(9999)]",
    "zips in turns": "[zip(xs, xs, xs) for xs in [range(30000)] for i in range(9999)]",
    "empty turns": "[1 for i in [[]]*99999 for j in i]"
    + "+ [1 for i in [[]]*99999 for j in i]" * 9,
    "groups": "[" + "(" * 98 + "x" + ")" * 98 + " for x in range(99999)]",
    "conditions": "[1 for x in range(99999) if " + " or ".join(["false"] * 900) + "]",
    "parentheses": "(" * 9_999,
    "more parentheses": "(" * 100_000,
    "brackets": "[" * 5_000 + "]" * 5_000,
    "indices": "a" + "[0]" * 3_000,
    "fields": "a" + ".b" * 4_900,
    "signs": "-" * 9_999 + "1",
    "nots": "not " * 2_400 + "1",
    "conditionals": "1 if 0 else " * 800 + "1",
    "million": "1+" * 500_000 + "1",
    "million letters": "a" * 1_000_000,
    "digits": "9" * 9_999,
    "shared": nest(60),
    "deep": nest(200),
    "compared": comparing(60),
    "rounded": "round(7, -10**30)",
    "exponent": "1e" + "9" * 9_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_expressions_are_refused(text: str) -> None:
    began = time.process_time()
    error = refusal(text)
    assert time.process_time() - began < 1
    assert error.code in LIMITS | {"expression-value"}


@pytest.mark.parametrize(
    "name", ["lists in turns", "texts in turns", "lists", "compared", "zips in turns"]
)
def test_hostile_expressions_take_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        refusal(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_long_expressions_are_fine() -> None:
    assert run("+".join(["1"] * 5_000)) == 5_000
    assert run(" and ".join(["1"] * 1_600)) == 1
    assert run("(" * 99 + "a" + ")" * 99) == 3
    assert run("[" * 50 + "]" * 50)
    assert run("[i for i in range(30000)][-1]") == 29_999


def test_depth_is_allowed_far_down_the_stack() -> None:
    """The deepest expression needs a small part of Python's default stack of 1,000 frames."""
    texts = [
        "-" * 99 + "1",
        "[" * 99 + "]" * 99,
        "1+(" * 49 + "1" + ")" * 49,
        "xs[xs[0]*" * 40 + "0" + "]" * 40,
        "min(" * 97 + "xs" + ")" * 97,
        "[0 for i in " * 90 + "xs" + "]" * 90,
    ]
    limit = sys.getrecursionlimit()
    frame, used = sys._getframe(), 0
    while frame is not None:
        frame, used = frame.f_back, used + 1  # type: ignore[assignment]
    sys.setrecursionlimit(used + 500)
    try:
        for text in texts:
            error = attempt(run, text)
            assert error is None or error.code in {"expression-type", "index-out-of-range"}, text
    finally:
        sys.setrecursionlimit(limit)


def test_lists_are_not_deep_even_where_they_share_parts() -> None:
    deep: object = 0
    for _ in range(60):
        deep = [deep]
    scope = {"d": deep}
    assert evaluate(parse("[d, [d]]"), scope.__getitem__)
    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("[d, " + "[" * 50 + "d" + "]" * 50 + "]"), scope.__getitem__)
    assert caught.value.code == "expression-too-deep"


def test_a_budget_may_be_shared() -> None:
    budget = Budget(50)
    tree = parse("sum(range(10))")
    for _ in range(3):
        evaluate(tree, NAMES.__getitem__, budget)
    with pytest.raises(ExpressionError) as caught:
        evaluate(tree, NAMES.__getitem__, budget)
    assert caught.value.code == "expression-too-long"
    assert "50 steps" in caught.value.message


PIECES = st.sampled_from(
    [
        *"()[]{},:.+-*/%<>=!&|^~$?'\"\\ \n\t_0159aexr",
        "**",
        "//",
        "==",
        "not ",
        " in ",
        " if ",
        " for ",
    ]
    + [
        " else ",
        "xs",
        "word",
        "true",
        "None",
        "op",
        "1e5",
        "0x1",
        "r.k",
        "\u00d7",
        "\u2264",
        "\x00",
    ]
    + [f"{name}(" for name in sorted(FUNCTION_NAMES)]
)
GARBAGE = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=25).map("".join))


@pytest.mark.parametrize("make", [run, render, turns])
@settings(max_examples=800, deadline=None)
@given(text=GARBAGE)
def test_any_text_gives_a_value_or_an_expression_error(
    make: Callable[[str], object], text: str
) -> None:
    error = attempt(make, text)
    assert error is None or 0 <= error.start <= error.end <= len(text)
