"""The expression language means what Python means: generated expressions, Python's own `eval`."""

from __future__ import annotations

import math
from functools import reduce
from operator import add
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from cnnspec.frontend.expressions import ExpressionError, evaluate, parse

NAMES: dict[str, object] = {
    "a": 3,
    "b": -2.5,
    "zero": 0,
    "width": 64,
    "yes": True,
    "none": None,
    "word": "same",
    "xs": [3, 4, 6, 3],
    "ys": [0.5, 2, -1],
    "nested": [[1, 2], [3, [4]]],
}
RECORD: dict[str, object] = {"k": 5, "act": "ReLU", "dims": [1, 2]}
LIMITS = {"expression-too-large", "expression-too-long", "expression-too-deep"}


def lists(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [lists(item) for item in value]
    return value


def python_sum(values: list[object], start: object = 0) -> object:
    return reduce(add, values, start)


def python_divisible(value: float, divisor: int = 8, least: int | None = None) -> int:
    rounded = max(
        divisor if least is None else least, int(value + divisor / 2) // divisor * divisor
    )
    return rounded + divisor if rounded < 0.9 * value else rounded


def python(text: str) -> object:
    scope: dict[str, object] = {
        **NAMES,
        "__builtins__": {},
        "true": True,
        "false": False,
        "null": None,
        "r": SimpleNamespace(**RECORD),
        "min": min,
        "max": max,
        "abs": abs,
        "round": round,
        "floor": math.floor,
        "ceil": math.ceil,
        "int": int,
        "len": len,
        "range": lambda *a: list(range(*a)),
        "zip": lambda *a: lists(list(zip(*a, strict=False))),
        "enumerate": lambda *a: lists(list(enumerate(*a))),
        "sum": python_sum,
        "make_divisible": python_divisible,
    }
    return eval(text, scope)  # the test's own text, without builtins


def ours(text: str) -> object:
    """The value, or the error."""
    try:
        return lists(evaluate(parse(text), {**NAMES, "r": RECORD}.__getitem__))
    except ExpressionError as error:
        return error


def same(text: str) -> None:
    """Ours and Python's value agree in value and type, or both fail; only limits are ours alone.

    Complex numbers are not of the language: they count as failures.
    """
    found = ours(text)
    try:
        wanted = python(text)
    except (SyntaxError, TypeError, ValueError, ArithmeticError, LookupError):
        wanted = 1j
    if isinstance(found, ExpressionError):
        assert isinstance(wanted, complex) or found.code in LIMITS, (text, found, wanted)
    else:
        assert repr(found) == repr(wanted), text


NUMBERS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "7",
        "10",
        "0.5",
        ".25",
        "1e-5",
        "2.0",
        "1_000",
        "a",
        "b",
        "zero",
        "width",
        "xs[1]",
        "r.k",
        "true",
        "yes",
        "len(xs)",
    ]
)
LISTS = st.sampled_from(
    ["xs", "ys", "[]", "[1, 2, 3]", "range(4)", "r.dims", "[a, b,]", "range(5, 0, -2)"]
)
TEXTS = st.sampled_from(["word", "'same'", '"s"', "''", "r.act"])


def grow(inner: st.SearchStrategy[dict[str, str]]) -> st.SearchStrategy[dict[str, str]]:
    """From texts of a number, a list, a text and a condition to larger ones of each."""
    small = st.sampled_from(["0", "1", "2", "3", "-1"])
    picks = st.lists(st.integers(0, 99), min_size=4, max_size=4)

    def build(one: dict[str, str], two: dict[str, str], k: str, picks: list[int]) -> dict[str, str]:
        n, m, xs, ys = one["number"], two["number"], one["list"], two["list"]
        s, t, c, d = one["text"], two["text"], one["truth"], two["truth"]
        numbers = [
            *(f"{n} {sign} {m}" for sign in ("+", "-", "*", "/", "//", "%")),
            *(f"({n}) {sign} ({m})" for sign in ("-", "*", "/", "//", "%")),
            f"-{n}",
            f"(({n}) ** {k})",
            f"-(({n}) ** 2)",
            f"{n} if {c} else {m}",
            f"({n}) or ({m})",
            f"min({n}, {m})",
            f"max({xs})",
            f"sum({xs})",
            f"len({xs})",
            f"abs({n})",
            f"round({n})",
            f"round({n}, {k})",
            f"floor({n})",
            f"ceil({n})",
            f"int({n})",
            f"make_divisible({n})",
            f"make_divisible({n}, 4)",
            f"({xs})[{k}]",
            f"({xs})[int({n})]",
            f"sum([i for i in {xs} if i])",
            f"[{n}, {m}][{k}]",
        ]
        sequences = [
            f"({xs}) + {ys}",
            f"({xs}) * {k}",
            f"{k} * ({xs})",
            f"({xs})[{k}:]",
            f"({xs})[:{k}]",
            f"({xs})[::{k}]",
            f"({xs})[{k}:int({m}):-1]",
            f"[{n}, {m}]",
            f"[{n} for i in {xs}]",
            f"[i for i in {xs} if {c}]",
            f"[i * 2 + j for i in ({xs})[:4] for j in ({ys})[:4] if i != j]",
            f"[i + j for i, j in enumerate({xs})]",
            f"[p - q + o for o, (p, q) in enumerate(zip({xs}, {ys}), {k})]",
            f"[[j for j in {ys}] for i in ({xs})[:3]]",
            f"({xs}) if {c} else {ys}",
            f"range(min(int({n}), 9))",
        ]
        texts = [f"{s} + {t}", f"({s}) * {k}", f"({s}) if {c} else ({t})", f"max({s}, {t})"]
        truths = [
            *(f"{n} {sign} {m}" for sign in ("==", "!=", "<", "<=", ">", ">=")),
            f"{n} < {m} <= 3 != {n}",
            f"({s}) == ({t})",
            f"({s}) in ({t})",
            f"({s}) < ({t})",
            f"({n}) in {xs}",
            f"({n}) not in {xs}",
            f"({xs}) < ({ys})",
            f"({xs}) == ({ys})",
            f"not {c}",
            f"{c} and {d}",
            f"({c}) or {d}",
            f"({xs}) and ({n})",
            f"({s}) == ({n})",
            f"({xs}) != none",
        ]
        choices = (numbers, sequences, texts, truths)
        made = [items[pick % len(items)] for items, pick in zip(choices, picks, strict=True)]
        return dict(zip(("number", "list", "text", "truth"), made, strict=True))

    return st.builds(build, inner, inner, small, picks)


LEAVES = st.fixed_dictionaries(
    {"number": NUMBERS, "list": LISTS, "text": TEXTS, "truth": st.sampled_from(["true", "a > 2"])}
)
TYPED = st.recursive(LEAVES, grow, max_leaves=12)


@settings(max_examples=1200, deadline=None)
@given(TYPED)
def test_equals_python(texts: dict[str, str]) -> None:
    for text in texts.values():
        same(text)


ANY = st.sampled_from(["1", "-2", "0.5", "true", "null", "[]", "[1, 2]", "[null]", "nested", "xs"])
SIGNS = ["+", "-", "/", "//", "<", ">=", "==", "!=", "in", "not in", "and", "or"]


@settings(max_examples=800, deadline=None)
@given(st.lists(ANY, min_size=2, max_size=4), st.lists(st.sampled_from(SIGNS), min_size=3))
def test_equals_python_whatever_the_types(operands: list[str], signs: list[str]) -> None:
    text = operands[0]
    for sign, operand in zip(signs, operands[1:], strict=False):
        text += f" {sign} {operand}"
    same(text)


PRECEDENCE = ["or", "and", "<", "==", "not in", "+", "-", "*", "/", "//", "%", "**"]


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(st.sampled_from(["1", "2", "3", "-1", "+2", "- -2"]), min_size=6, max_size=6),
    st.lists(st.sampled_from(PRECEDENCE), max_size=5).filter(lambda s: s.count("**") < 3),
    st.sampled_from(["", "not ", "1 if 0 else ", "2 if 1 else ", "not not "]),
)
def test_precedence_equals_python(numbers: list[str], signs: list[str], start: str) -> None:
    text = start + numbers[0]
    for sign, number in zip(signs, numbers[1:], strict=False):
        text += f" {sign} {number if sign != 'not in' else '[1, 2]'}"
    same(text)
