"""Formulas as people read them: sums of numbers times sizes, grouped by sizes.

    86,704,128*ceil(H/4)*ceil(W/4) + 2,048,000

The text keeps the factors in which a formula was made; the value is the polynomial's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm, prod
from typing import Any

from cnnspec.symbolic.number import Guard
from cnnspec.symbolic.polynomial import Atom, Coefficient, Floor, Monomial, Polynomial, Symbol
from cnnspec.symbolic.sizes import SizeSet

__all__ = ["Formula", "Simplifier", "Term", "formula"]

Factors = tuple[Polynomial, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """A number times sizes."""

    coefficient: Coefficient
    factors: Factors

    def __str__(self) -> str:
        shown = [_factor_text(factor) for factor in self.factors]
        if not shown:
            return _number(self.coefficient)
        if self.coefficient == 1:
            return "*".join(shown)
        return "*".join([_number(self.coefficient), *shown])

    def to_dict(self) -> dict[str, Any]:
        """The number, whole or as text, and the factors as text."""
        coefficient = self.coefficient
        number = coefficient if isinstance(coefficient, int) else str(coefficient)
        return {"coefficient": number, "factors": [str(f).replace(",", "") for f in self.factors]}


@dataclass(frozen=True)
class Formula:
    """A whole number as a function of sizes. `str` has the text, `at` the value.

    Exact wherever the conditions hold that it came with.
    """

    polynomial: Polynomial
    terms: tuple[Term, ...]

    @property
    def symbols(self) -> frozenset[str]:
        """Names of the sizes it depends on."""
        return self.polynomial.symbols

    def at(self, **sizes: int) -> int:
        """The value at given sizes: `formula.at(H=256, W=256)`.

        Raises `ValueError` where the formula gives no whole number (sizes that it does not hold
        for), `TypeError` where a size is missing.
        """
        missing = self.symbols - sizes.keys()
        if missing:
            raise TypeError(f"the formula needs {', '.join(sorted(missing))}")
        value = self.polynomial.at(sizes)
        if not isinstance(value, int):
            raise ValueError("the formula does not hold for these sizes")
        return value

    @cached_property
    def limit(self) -> tuple[Fraction, tuple[str, ...]] | None:
        """What the value divided by the product of all its sizes tends to, and those sizes.

        None for a constant, and where there is no such limit.
        """
        names = sorted(self.symbols)
        if not names:
            return None
        linear = self.polynomial.rewritten(_without_rounding)
        found = Fraction(0)
        for monomial, coefficient in linear.terms.items():
            powers = [power for _, power in monomial]
            if any(power > 1 for power in powers):
                return None
            if len(powers) == len(names):
                found = Fraction(coefficient)
        return found, tuple(names)

    def to_dict(self) -> dict[str, Any]:
        """Text and terms, as JSON has them."""
        return {"formula": self.plain, "terms": [term.to_dict() for term in self.terms]}

    @property
    def plain(self) -> str:
        """The text without commas in its numbers, for programs."""
        return str(self).replace(",", "")

    @property
    def pieces(self) -> list[str]:
        """The text in pieces, between which a line may end."""
        if len(self.terms) == 1 and self.terms[0].coefficient == 1:
            factors = self.terms[0].factors
            return [str(factors[0])] if len(factors) == 1 else [str(self.terms[0])]
        found: list[str] = []
        for term in self.terms:
            negative = term.coefficient < 0
            text = str(Term(-term.coefficient, term.factors) if negative else term)
            if found:
                found.append(f"{'-' if negative else '+'} {text}")
            else:
                found.append(f"-{text}" if negative else text)
        return found or ["0"]

    def __str__(self) -> str:
        return " ".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Simplifier:
    """What is settled about polynomials on a domain of sizes.

    `common` has for each size the remainder that all its values share: `(m, r)` for a divisor `m`,
    `(0, n)` where it is `n` alone. `products` are monomials that have one value only.
    """

    common: Mapping[str, tuple[int, int]]
    products: Mapping[Monomial, int] = field(default_factory=dict)

    @staticmethod
    def on(sizes: Mapping[str, SizeSet], conditions: Iterable[Guard] = ()) -> Simplifier:
        """What holds for all sizes of given sets that satisfy further conditions."""
        common = {name: found.common for name, found in sizes.items()}
        products = {}
        for relation, polynomial in conditions:
            monomials = [monomial for monomial in polynomial.terms if monomial]
            if relation == "==" and len(monomials) == 1:
                value, rest = divmod(-polynomial.constant, polynomial.terms[monomials[0]])
                if not rest:
                    products[monomials[0]] = int(value)
        return Simplifier(common, products)

    def __call__(self, polynomial: Polynomial) -> Polynomial:
        """The polynomial as it is there: `H/2` for `floor(H/2)` where all sizes are even."""
        found = polynomial.rewritten(self._atom)
        for monomial, value in self.products.items():
            found = found.settled(monomial, value)
        return found

    def _atom(self, atom: Atom) -> Polynomial | None:
        if isinstance(atom, Symbol):
            step, rest = self.common.get(atom.text, (1, 0))
            return None if step else Polynomial.of(rest)
        if len(atom.numerator.symbols) != 1:
            return None
        (name,) = atom.numerator.symbols
        step, rest = self.common.get(name, (1, 0))
        if not step:
            return Polynomial.of(atom.numerator.at({name: rest}) // atom.divisor)
        if any(isinstance(inner, Floor) for inner in atom.numerator.atoms()):
            return None
        if any(
            coefficient * step % atom.divisor
            for monomial, coefficient in atom.numerator.terms.items()
            if monomial
        ):
            return None
        remainder = atom.numerator.at({name: rest}) % atom.divisor
        return (atom.numerator - remainder) * Fraction(1, atom.divisor)


def formula(
    parts: Iterable[tuple[Polynomial, Sequence[Polynomial]]],
    simplify: Simplifier,
    sizes: Mapping[str, int],
) -> Formula:
    """The sum of parts, each with the sizes it may be divided by.

    Terms stand in the order of their factors' value at `sizes`, large ones first.
    """
    grouped: dict[Factors, Coefficient] = {}
    loose = total = Polynomial({})
    for part, by in parts:
        total = total + part
        found = _divided(part, by)
        if found is None:
            loose = loose + part
            continue
        for coefficient, factors in found:
            key = tuple(sorted(factors, key=str))
            grouped[key] = grouped.get(key, 0) + coefficient
    terms: dict[Factors, Coefficient] = {}

    def add(coefficient: Coefficient, factors: Factors) -> None:
        terms[factors] = terms.get(factors, 0) + coefficient

    for factors, coefficient in grouped.items():
        product = prod(factors, start=Polynomial.of(coefficient))
        if simplify(product).is_constant:
            add(simplify(product).constant, ())
        else:
            settled = _settled(Term(coefficient, tuple(map(simplify, factors))))
            add(settled.coefficient, settled.factors)
    for monomial, coefficient in simplify(loose).terms.items():
        add(coefficient, tuple(Polynomial({((atom, power),): 1}) for atom, power in monomial))
    found_terms = [Term(coefficient, factors) for factors, coefficient in terms.items()]
    kept = [term for term in found_terms if term.coefficient]
    kept.sort(key=lambda term: (-prod(f.at(sizes) for f in term.factors), not term.factors))
    return Formula(simplify(total), tuple(kept))


def _divided(
    part: Polynomial, by: Sequence[Polynomial]
) -> list[tuple[Coefficient, Factors]] | None:
    """A polynomial as a sum of numbers times factors among `by`; None where it is not one."""
    if part.is_constant:
        return [(part.constant, ())]
    for factor in by:
        quotient, rest = part.divided(factor)
        if quotient.terms and rest.is_constant:
            found = _divided(quotient, by)
            if found is not None:
                whole = [(coefficient, (factor, *factors)) for coefficient, factors in found]
                return [*whole, (rest.constant, ())] if rest.terms else whole
    return None


def _without_rounding(atom: Atom) -> Polynomial | None:
    if isinstance(atom, Symbol):
        return None
    return atom.numerator.rewritten(_without_rounding) * Fraction(1, atom.divisor)


def _settled(term: Term) -> Term:
    """With the numbers that its factors have in common, as long as that leaves a whole number."""
    coefficient = Fraction(term.coefficient)
    factors = []
    for factor in term.factors:
        content = _content(factor)
        coefficient *= content
        if not factor.is_constant:
            factors.append(factor * (1 / content))
    if coefficient.denominator > 1:
        return term
    return Term(int(coefficient), tuple(factors))


def _content(polynomial: Polynomial) -> Fraction:
    """The largest number by which all coefficients can be divided and stay whole."""
    fractions = [Fraction(n) for n in polynomial.terms.values()]
    if not fractions:
        return Fraction(1)
    top = gcd(*(f.numerator for f in fractions))
    return Fraction(top, lcm(*(f.denominator for f in fractions)))


def _factor_text(factor: Polynomial) -> str:
    text = str(factor)
    whole = len(factor.terms) == 1 and all(isinstance(n, int) for n in factor.terms.values())
    return text if whole else f"({text})"


def _number(number: Coefficient) -> str:
    if isinstance(number, int):
        return f"{number:,}"
    return f"{number.numerator:,}/{number.denominator:,}"
