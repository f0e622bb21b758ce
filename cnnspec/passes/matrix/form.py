"""Affine forms: what an element of a tensor is, as a function of the input and of the weights.

Numbers of `numpy` object arrays. Exact where coefficients are: whole numbers and fractions stay so.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite
from typing import TypeAlias

__all__ = ["CONSTANT", "Form", "NotAffineError", "Number", "Term", "exact_number"]

Number: TypeAlias = int | Fraction | float
Term: TypeAlias = tuple[int, tuple[int, ...]]
"""The number of an input element, or `CONSTANT`, and those of the weights that multiply it."""

CONSTANT = -1
_FINEST = 4096


class NotAffineError(Exception):
    """Two elements of the input were multiplied, or something else was done that is not affine."""


def exact_number(value: float) -> Number:
    """A float as the whole number or plain fraction that it was computed from, if it is one."""
    if not isfinite(value):
        return value
    near = Fraction(value).limit_denominator(_FINEST)
    if float(near) != value:
        return value
    return _plain(near)


class Form:
    """A sum of terms, each an element of the input or 1, times weights, times a number."""

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[Term, Number]) -> None:
        self.terms = terms

    def __add__(self, other: object) -> Form:
        terms = dict(self.terms)
        for term, number in _terms(other).items():
            total = _sum(terms.get(term, 0), number)
            if total:
                terms[term] = total
            else:
                terms.pop(term, None)
        return Form(terms)

    __radd__ = __add__

    def __neg__(self) -> Form:
        return self * -1

    def __sub__(self, other: object) -> Form:
        return self + Form({term: -number for term, number in _terms(other).items()})

    def __rsub__(self, other: object) -> Form:
        return -self + other

    def __mul__(self, other: object) -> Form:
        """A product, of which one factor at most may depend on the input."""
        terms: dict[Term, Number] = {}
        others = _terms(other)
        for (column, weights), number in self.terms.items():
            for (second, further), factor in others.items():
                if column != CONSTANT and second != CONSTANT:
                    raise NotAffineError
                key = max(column, second), tuple(sorted((*weights, *further)))
                total = _sum(terms.get(key, 0), number * factor)
                if total:
                    terms[key] = total
                else:
                    terms.pop(key, None)
        return Form(terms)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> Form:
        """A quotient by a number."""
        if isinstance(other, Form):
            raise NotAffineError
        (divisor,) = _terms(other).values()
        return self * (1 / divisor if isinstance(divisor, float) else _plain(1 / Fraction(divisor)))

    def __rtruediv__(self, other: object) -> Form:
        raise NotAffineError

    def __pow__(self, other: object) -> Form:
        raise NotAffineError


def _sum(left: Number, right: Number) -> Number:
    total = left + right
    return _plain(total) if isinstance(total, Fraction) else total


def _plain(number: Fraction) -> Number:
    return number.numerator if number.denominator == 1 else number


def _terms(value: object) -> Mapping[Term, Number]:
    if isinstance(value, Form):
        return value.terms
    if isinstance(value, (int, Fraction)):
        return {(CONSTANT, ()): value} if value else {}
    assert isinstance(value, float)  # arrays are made of these alone
    return {(CONSTANT, ()): exact_number(value)} if value else {}
