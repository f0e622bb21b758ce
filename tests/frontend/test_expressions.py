"""The expression language: values, exact places of errors, loops and templates."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from cnnspec.diagnostics import Reject
from cnnspec.frontend.expressions import (
    ExpressionError,
    Value,
    bind_targets,
    describe,
    evaluate,
    parse,
    parse_targets,
    parse_template,
)


class FakeTensor:
    """A tensor as expressions see it."""

    def attribute(self, name: str) -> object:
        if name == "channels":
            return 64
        if name == "shape":
            return [64, 56, 56]
        raise Reject("unknown-tensor-field", f"a tensor has no `{name}`", help="try `channels`")


class FakeOp:
    """An operation as expressions see it."""


RELU = FakeOp()
NAMES: dict[str, object] = {
    "a": 3,
    "b": -2.5,
    "zero": 0,
    "width": 64,
    "yes": True,
    "none": None,
    "word": "same",
    "xs": [3, 4, 6, 3],
    "ys": (0.5, 2, -1),
    "nested": [[1, 2], [3, [4]]],
    "r": {"k": 5, "stride": 2, "act": "ReLU", "dims": [1, 2]},
    "rows": [{"k": 1}, {"k": 2}],
    "x": FakeTensor(),
    "op": RELU,
}


def run(text: str, **more: object) -> Value:
    scope = {**NAMES, **more}
    return evaluate(parse(text), scope.__getitem__, names=scope)


def failure(text: str, make: Callable[[str], object] = run) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        make(text)
    error = caught.value
    assert 0 <= error.start <= error.end <= len(text)
    assert error.code
    assert error.message
    assert not error.message.endswith(".")
    return error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2*3", 7),
        ("-2**2", -4),
        ("2**3**2", 512),
        ("2**-1", 0.5),
        ("7 // -2", -4),
        ("-7 % 3", 2),
        ("6/2", 3.0),
        ("not 1 == 2", True),
        ("1 < 2 < 3 > 0", True),
        ("1 if 0 else 2 if 0 else 3", 3),
        ("0 or [] or 5", 5),
        ("0 and 1/0", 0),
        ("a if true else 1/0", 3),
        ("64*2**2", 256),
        ("sum(xs[:2])", 7),
        ("xs[-1]", 3),
        ("xs[::-1]", (3, 6, 4, 3)),
        ("[x*2 for x in xs if x > 3 if x < 6]", (8,)),
        ("[i for x in [[1, 2], [3]] for i in x]", (1, 2, 3)),
        ("[x for x in [1, 2] for x in [x, 9]]", (1, 9, 2, 9)),
        ("[a for a in xs][0] + a", 6),
        ("zip(xs, [1, 2])", ((3, 1), (4, 2))),
        ("zip()", ()),
        ("enumerate(['a', 'b'], 1)", ((1, "a"), (2, "b"))),
        ("rows[1].k", 2),
        ("[row.k for row in rows]", (1, 2)),
        ("r.dims", (1, 2)),
        ("x.shape[1:]", (56, 56)),
        ("x.channels != 64 or r.stride != 1", True),
        ("round(2.5)", 2),
        ("round(0.125, 2)", 0.12),
        ("round(150, -2)", 200),
        ("floor(-0.5)", -1),
        ("ceil(1e3 + 0.5)", 1001),
        ("int(-3.9)", -3),
        ("word == 'same'", True),
        ("'am' in word", True),
        ('r.act == "ReLU"', True),
        ("[64]*3", (64, 64, 64)),
        ("op == null", False),
        ("null != x", True),
        ("null in [op, null]", True),
        ("max(xs)", 6),
        ("min('b', 'a')", "a"),
        ("len(word)", 4),
        ("\n 1 +\n\t2 ", 3),
        ("((((a))))", 3),
        ("[ ]", ()),
        ("[1,]", (1,)),
        ("10**30", 10**30),
        ("true", True),
        ("null", None),
    ],
)
def test_values(text: str, value: object) -> None:
    found = run(text)
    assert found == value
    assert type(found) is type(value)


def test_opaque_values_pass_through() -> None:
    assert run("op if a > 2 else null") is RELU
    assert run("[op, x][0]") is RELU
    assert run("r") is NAMES["r"]


def test_a_tensor_may_have_numbered_results() -> None:
    results = SimpleNamespace(attribute=lambda name: {"0": 7, "1": FakeTensor()}[name])
    assert run("y.0 + y.1.channels", y=results) == 71


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("37", 40),
        ("36", 40),
        ("35", 32),
        ("11", 16),  # 8 is more than a tenth below
        ("1", 8),
        ("16*0.75", 16),
        ("4, 8, 3", 8),
        ("2, 8, 3", 3),
        ("2, 8, null", 8),
        ("10, 4", 12),
        ("1280*1.4", 1792),
    ],
)
def test_make_divisible(arguments: str, value: int) -> None:
    assert run(f"make_divisible({arguments})") == value


def test_names_are_the_free_ones() -> None:
    assert parse("a").names == {"a"}
    assert parse("17").names == set()
    assert parse("min(a, r.k) + xs[i]").names == {"a", "r", "xs", "i"}
    assert parse("[x + y for x in x if x > z]").names == {"x", "y", "z"}
    assert parse("[[q for q in p] for p in ps] + [q]").names == {"ps", "q"}
    assert parse("[j for i in xs for j in i if j < n]").names == {"xs", "n"}
    assert parse("true and null == false").names == set()


def test_branches_not_taken_ask_for_nothing() -> None:
    asked: list[str] = []

    def lookup(name: str) -> object:
        asked.append(name)
        return NAMES[name]

    assert evaluate(parse("a + a if yes else missing"), lookup) == 6
    assert sorted(asked) == ["a", "yes"]


def test_an_expression_is_evaluated_anew() -> None:
    tree = parse("[i*n for i in range(n)]")
    assert evaluate(tree, {"n": 2}.__getitem__) == (0, 2)
    assert evaluate(tree, {"n": 3}.__getitem__) == (0, 3, 6)


# Errors: (text, code, what it points at, part of the message, part of the help)

ERRORS = [
    ("", "expression-syntax", "", "is empty", ""),
    ("1 +", "expression-syntax", "", "ends too early", ""),
    ("a b", "expression-syntax", "b", "unexpected `b`", ""),
    ("a && b", "expression-syntax", "&&", "unexpected", "`and`"),
    ("a || b", "expression-syntax", "||", "unexpected", "`or`"),
    ("!a", "expression-syntax", "!", "unexpected", "`not`"),
    ("a ^ 2", "expression-syntax", "^", "unexpected", "`**`"),
    ("a = 2", "expression-syntax", "=", "unexpected", "`==`"),
    ("a is null", "expression-syntax", "is", "unexpected", "`==`"),
    ("True", "expression-syntax", "True", "unexpected", "`true`"),
    ("[None]", "expression-syntax", "None", "unexpected", "`null`"),
    ("a if false", "expression-syntax", "", "ends too early", "else b"),
    ("a not b", "expression-syntax", "b", "unexpected", "`not in`"),
    ("1 + not a", "expression-syntax", "not", "unexpected", ""),
    ("(1, 7)", "expression-syntax", ",", "unexpected", "[1, 7]"),
    ("(1 + [2)", "expression-syntax", ")", "unexpected", ""),
    ("2*(1 + 3", "expression-syntax", "(", "never closed", ""),
    ("xs[1", "expression-syntax", "[", "never closed", ""),
    ("a]", "expression-syntax", "]", "unexpected", ""),
    ("xs[]", "expression-syntax", "]", "unexpected", ""),
    ("xs[1:2:3:4]", "expression-syntax", ":", "unexpected", ""),
    ("'abc", "expression-syntax", "'", "never closed", ""),
    (r"'a\n'", "expression-syntax", "\\", "no `\\` escapes", ""),
    ("4width", "expression-syntax", "4width", "not a number", "`4*width`"),
    ("0x10", "expression-syntax", "0x10", "not a number", ""),
    ("010", "expression-syntax", "010", "starts with a zero", "`10`"),
    ("{a}", "expression-syntax", "{", "unexpected", "without braces"),
    ("$a", "expression-syntax", "$", "unexpected", "`$`"),
    ("sum(i for i in xs)", "expression-syntax", "for", "unexpected", "sum(["),
    ("[i for i xs]", "expression-syntax", "xs", "unexpected", "NAME in LIST"),
    ("[i for i, i in xs]", "expression-syntax", "i, i", "binds `i` twice", ""),
    ("xs.append(1)", "expression-syntax", "(", "unexpected", ""),
    ("lenn(xs)", "unknown-function", "lenn", "`lenn`", "`len`"),
    ("sqrt(2)", "unknown-function", "sqrt", "`sqrt`", "the functions are"),
    ("len(xs, 1)", "function-arguments", "len(xs, 1)", "1 argument, not 2", "`len(list)`"),
    ("range()", "function-arguments", "range()", "1 to 3 arguments, not 0", "`range("),
    ("min()", "function-arguments", "min()", "at least 1 argument", "`min(list)`"),
    ("round(a, digits=2)", "function-arguments", "digits=", "no names", "`round("),
    ("1 + widht", "unknown-name", "widht", "`widht`", "`width`"),
    ("len", "unknown-name", "len", "`len`", "`len(list)`"),
    ("[i for i in xs] + [i]", "unknown-name", "i", "`i`", ""),
    ("r.strde", "unknown-field", "strde", "no field `strde`", "`stride`"),
    ("r.qq", "unknown-field", "qq", "no field `qq`", "`k`, `stride`, `act`, `dims`"),
    ("x.chanels", "unknown-tensor-field", "chanels", "`chanels`", "try `channels`"),
    ("a.k", "expression-type", "k", "a number has no field `k`", ""),
    ("1 + xs * 2.5", "expression-type", "xs * 2.5", "cannot multiply a list by a number", ""),
    ("xs + 1", "expression-type", "xs + 1", "cannot add a list and a number", ""),
    ("(1 + 2) - word", "expression-type", "(1 + 2) - word", "subtract text from a number", ""),
    ("word % 2", "expression-type", "word % 2", "cannot divide text by a number", ""),
    ("none + 1", "expression-type", "none + 1", "cannot add nothing (null) and a number", ""),
    ("-xs", "expression-type", "-xs", "cannot negate a list", ""),
    ("a < word", "expression-type", "a < word", "cannot order a number and text", ""),
    ("1 < 2 < none", "expression-type", "2 < none", "cannot order", ""),
    ("x == op", "expression-type", "x == op", "compare a tensor and an operation", ""),
    ("1 if r else 2", "expression-type", "r", "a row is neither true nor false", "`null`"),
    ("op and 1", "expression-type", "op", "an operation is neither", "`null`"),
    ("a in 3", "expression-type", "3", "`in` needs a list, not a number", "range"),
    ("1 in word", "expression-type", "1 in word", "text cannot contain a number", ""),
    ("word[0]", "expression-type", "word", "cannot index text", ""),
    ("r['k']", "expression-type", "r", "cannot index a row", "after a dot"),
    ("xs[a/1]", "expression-type", "a/1", "a whole number, not 3.0", "`int(...)`"),
    ("xs[:word]", "expression-type", "word", "a slice needs a whole number, not text", ""),
    ("[i for i in a]", "expression-type", "a", "a loop needs a list, not a number", "range"),
    ("range(3, 2.5)", "expression-type", "2.5", "`range` needs a whole number, not 2.5", "`//`"),
    ("int(word)", "expression-type", "word", "`int` needs a number, not text", ""),
    ("max(1, xs)", "expression-type", "max(1, xs)", "cannot order a list and a number", ""),
    ("sum(word)", "expression-type", "word", "`sum` needs a list, not text", ""),
    ("zip(xs, op)", "expression-type", "op", "`zip` needs a list", ""),
    ("[i for i, j in xs]", "loop-values", "i, j", "a number for 2 names", ""),
    ("[i for i, j in [[1, 2, 3]]]", "loop-values", "i, j", "3 values for 2 names", ""),
    ("1/zero", "division-by-zero", "zero", "division by zero", ""),
    ("2 + 1 % (a - 3)", "division-by-zero", "(a - 3)", "division by zero", ""),
    ("1.5 // 0.0", "division-by-zero", "0.0", "division by zero", ""),
    ("0**-1", "division-by-zero", "0", "zero has no negative power", ""),
    ("xs[4]", "index-out-of-range", "4", "index 4 of a list of 4 elements", ""),
    ("xs[0:1][-2]", "index-out-of-range", "-2", "index -2 of a list of 1 element", ""),
    ("(-8)**.5", "expression-value", ".5", "no power of 0.5", ""),
    ("min([])", "expression-value", "[]", "`min` of an empty list", ""),
    ("range(0, 5, 0)", "expression-value", "0", "cannot step by 0", ""),
    ("xs[::0]", "expression-value", "0", "cannot step by 0", ""),
    ("make_divisible(3, 0)", "expression-value", "0", "by 0", ""),
    ("2**100", "expression-too-large", "2**100", "beyond 10**30", ""),
    ("10**30 + 1", "expression-too-large", "10**30 + 1", "beyond 10**30", ""),
    ("9" * 31, "expression-too-large", "9" * 31, "beyond 10**30", ""),
    ("1e999", "expression-too-large", "1e999", "not finite", ""),
    ("1e308*10", "expression-too-large", "1e308*10", "not finite", ""),
    ("2.0**9999", "expression-too-large", "2.0**9999", "not finite", ""),
    ("int(1e300)", "expression-too-large", "int(1e300)", "beyond 10**30", ""),
    ("range(100001)", "expression-too-large", "range(100001)", "100,000 elements", ""),
    ("'ab'*5001", "expression-too-large", "'ab'*5001", "10,000 characters", ""),
]


@pytest.mark.parametrize(("text", "code", "at", "message", "help"), ERRORS)
def test_errors(text: str, code: str, at: str, message: str, help: str) -> None:
    error = failure(text)
    assert error.code == code
    assert message in error.message
    assert help in error.help
    assert bool(help) == bool(error.help)
    assert text[error.start : error.end] == at
    assert error.start == (text.rindex(at) if at != "(" else text.index(at))


def test_what_a_lookup_rejects_is_placed_at_the_name() -> None:
    def lookup(name: str) -> object:
        raise Reject("forward-reference", f"`{name}` comes later", help="move it", notes=["here"])

    with pytest.raises(ExpressionError) as caught:
        evaluate(parse("1 + later.channels"), lookup)
    error = caught.value
    assert (error.code, error.message, error.help) == (
        "forward-reference",
        "`later` comes later",
        "move it",
    )
    assert (error.start, error.end, error.notes) == (4, 9, ("here",))


@pytest.mark.parametrize("value", [10**31, math.inf, math.nan, [1, [10**31]], "a" * 10_001])
def test_values_from_outside_are_bounded_too(value: object) -> None:
    with pytest.raises(ExpressionError) as caught:
        run("1 if v == 0 else 2", v=value)
    assert caught.value.code == "expression-too-large"
    assert (caught.value.start, caught.value.end) == (5, 6)


# Loops and templates


def test_loop() -> None:
    text = "i, (a, b) in enumerate(zip(xs, ys))"
    loop = parse_targets(text)
    assert loop.targets.names == ("i", "a", "b")
    assert loop.iterable.names == {"xs", "ys"}
    assert loop.turns({"xs": [5, 6], "ys": [7, 8, 9]}.__getitem__) == (
        {"i": 0, "a": 5, "b": 7},
        {"i": 1, "a": 6, "b": 8},
    )
    assert parse_targets("s, t in nested").turns(NAMES.__getitem__) == (
        {"s": 1, "t": 2},
        {"s": 3, "t": (4,)},
    )
    assert bind_targets(loop.targets, [1, [2, [3]]]) == {"i": 1, "a": 2, "b": [3]}
    assert parse_targets("d in a if c else b").iterable.names == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("text", "code", "at"),
    [
        ("range(3)", "expression-syntax", "("),
        ("i range(3)", "expression-syntax", "range"),
        ("i in", "expression-syntax", ""),
        ("3 in xs", "expression-syntax", "3"),
        ("for in xs", "expression-syntax", "for"),
        ("i, (j, i) in xs", "expression-syntax", "i, (j, i"),
        ("(" * 200 + "i", "expression-too-deep", "("),
        ("i in 3", "expression-type", "3"),
        ("i, j in xs", "loop-values", "i, j"),
    ],
)
def test_loop_errors(text: str, code: str, at: str) -> None:
    def turns(text: str) -> object:
        return parse_targets(text).turns(NAMES.__getitem__)

    error = failure(text, turns)
    assert error.code == code
    assert text[error.start : error.end] == at


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("layer{a+1}", "layer4"),
        ("{word}.{xs[0]}-{'}'}", "same.3-}"),
        ("{{{a}}}", "{3}"),
        ("a{{b}}", "a{b}"),
        ("plain", "plain"),
        ("", ""),
        ("{-1}", "-1"),
    ],
)
def test_templates(text: str, value: str) -> None:
    template = parse_template(text)
    assert template.render(NAMES.__getitem__) == value
    assert template.is_literal == (not template.names and "{-" not in text)


@pytest.mark.parametrize(
    ("text", "code", "at", "message"),
    [
        ("u{b}", "template-value", "b", "not -2.5"),
        ("u{yes}", "template-value", "yes", "not a yes/no value"),
        ("u{xs}", "template-value", "xs", "not a list"),
        ("u{none}", "template-value", "none", "not nothing (null)"),
        ("u{a", "expression-syntax", "{", "never closed"),
        ("u}a", "expression-syntax", "}", "closes nothing"),
        ("u{}", "expression-syntax", "", "is empty"),
        ("u{a + }", "expression-syntax", "", "ends too early"),
        ("u{it's}", "expression-syntax", "'", "never closed"),
        ("u{a:02d}", "expression-syntax", ":", "unexpected"),
        ("{word}{1/zero}", "division-by-zero", "zero", "division by zero"),
        ("{'ab'*4000}" * 2, "expression-too-large", "{'ab'*4000}" * 2, "10,000 characters"),
    ],
)
def test_template_errors(text: str, code: str, at: str, message: str) -> None:
    def render(text: str) -> object:
        return parse_template(text).render(NAMES.__getitem__)

    error = failure(text, render)
    assert error.code == code
    assert message in error.message
    assert text[error.start : error.end] == at


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing (null)"),
        (True, "a yes/no value"),
        (3, "a number"),
        (0.5, "a number"),
        ("w", "text"),
        ([1], "a list"),
        ((1,), "a list"),
        ({"k": 1}, "a row"),
        (FakeTensor(), "a tensor"),
        (RELU, "an operation"),
    ],
)
def test_describe(value: object, words: str) -> None:
    assert describe(value) == words
