"""Polynomials in sizes and in rounded-down quotients of them, in one canonical form.

    2*H*W + floor((3*H + 1)/4) - 7

Sizes are whole numbers of at least 1. Equal polynomials are equal functions; the reverse holds but
for identities between several quotients (`floor(H/2) + floor((H + 1)/2)` is `H`), which nobody is
asked to know. Coefficients are whole numbers; fractions appear only in what was rewritten under a
condition, such as `H/2` for an even `H`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm

__all__ = ["Atom", "Coefficient", "Floor", "Monomial", "Polynomial", "Symbol"]

Coefficient = int | Fraction


class Symbol:
    """A size that is not known, by its name."""

    __slots__ = ("text",)

    def __init__(self, name: str) -> None:
        self.text = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Symbol) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


class Floor:
    """`floor(numerator / divisor)`, never negative. Made by `Polynomial.floor_divide` alone.

    The numerator's coefficients, its constant among them, are at least 0 and below the divisor.
    """

    __slots__ = ("divisor", "numerator", "text")

    def __init__(self, numerator: Polynomial, divisor: int) -> None:
        self.numerator = numerator
        self.divisor = divisor
        rest = numerator.constant
        if rest and rest == divisor - 1:
            self.text = f"ceil({_over(numerator - rest, divisor)})"
        else:
            self.text = f"floor({_over(numerator, divisor)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Floor) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def _over(numerator: Polynomial, divisor: int) -> str:
    text = str(numerator)
    return f"{text}/{divisor}" if len(numerator.terms) == 1 else f"({text})/{divisor}"


Atom = Symbol | Floor
Monomial = tuple[tuple[Atom, int], ...]
"""Atoms with their powers, in the order of their text; the empty one is the constant's."""


class Polynomial:
    """A sum of monomials with coefficients. Immutable; equal forms are equal and hash alike."""

    def __init__(self, terms: Mapping[Monomial, Coefficient]) -> None:
        self.terms = {
            monomial: _plain(coefficient) for monomial, coefficient in terms.items() if coefficient
        }

    @staticmethod
    def of(number: Coefficient) -> Polynomial:
        """A number as a polynomial."""
        return Polynomial({(): number})

    @staticmethod
    def atom(atom: Atom) -> Polynomial:
        """One atom as a polynomial."""
        return Polynomial({((atom, 1),): 1})

    @staticmethod
    def symbol(name: str) -> Polynomial:
        """A size that is not known."""
        return Polynomial.atom(Symbol(name))

    # ----------------------------------------------------------------------------- questions

    @property
    def constant(self) -> Coefficient:
        """The term without atoms."""
        return self.terms.get((), 0)

    @property
    def is_constant(self) -> bool:
        """Whether it is a number."""
        return not self.terms or (len(self.terms) == 1 and () in self.terms)

    def atoms(self) -> Iterator[Atom]:
        """Every atom that stands in it, as often as it does; not those inside of others."""
        for monomial in self.terms:
            for atom, _ in monomial:
                yield atom

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Names of the sizes it depends on."""
        found: set[str] = set()
        for atom in self.atoms():
            found |= {atom.text} if isinstance(atom, Symbol) else atom.numerator.symbols
        return frozenset(found)

    @cached_property
    def period(self) -> int:
        """Steps after which the rounding repeats: on each residue it is a true polynomial."""
        return lcm(
            *(
                atom.divisor * atom.numerator.period if isinstance(atom, Floor) else 1
                for atom in self.atoms()
            )
        )

    @cached_property
    def degree(self) -> int:
        """The highest degree of a monomial in the sizes themselves."""
        return max(map(_degree, self.terms), default=0)

    def at(self, sizes: Mapping[str, int]) -> Coefficient:
        """The value at given sizes; `KeyError` names one that is missing."""
        total: Coefficient = 0
        for monomial, coefficient in self.terms.items():
            product = coefficient
            for atom, power in monomial:
                value = (
                    sizes[atom.text]
                    if isinstance(atom, Symbol)
                    else atom.numerator.at(sizes) // atom.divisor
                )
                product *= value**power
            total += product
        return _plain(total)

    # ---------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Polynomial | Coefficient) -> Polynomial:
        terms = dict(self.terms)
        for monomial, coefficient in _as_polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Polynomial(terms)

    def __neg__(self) -> Polynomial:
        return self * -1

    def __sub__(self, other: Polynomial | Coefficient) -> Polynomial:
        return self + _as_polynomial(other) * -1

    def __mul__(self, other: Polynomial | Coefficient) -> Polynomial:
        if not isinstance(other, Polynomial):
            return Polynomial({monomial: n * other for monomial, n in self.terms.items()})
        terms: dict[Monomial, Coefficient] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = _product(left, right)
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial(terms)

    def floor_divide(self, divisor: int) -> Polynomial:
        """`floor(self / divisor)` for a divisor of at least 1, whole parts taken out."""
        if divisor == 1:
            return self
        if all(n < 0 for monomial, n in self.terms.items() if monomial) and not self.is_constant:
            return (self * -1 + (divisor - 1)).floor_divide(divisor) * -1
        whole: dict[Monomial, Coefficient] = {}
        rest: dict[Monomial, Coefficient] = {}
        for monomial, coefficient in self.terms.items():
            whole[monomial], rest[monomial] = divmod(coefficient, divisor)
        return Polynomial(whole) + _floor(Polynomial(rest), divisor)

    def divide(self, divisor: Polynomial) -> Polynomial | None:
        """The quotient, if there is no remainder and all stays whole; else None."""
        quotient, rest = self.divided(divisor)
        return None if rest.terms else quotient

    def divided(self, divisor: Polynomial) -> tuple[Polynomial, Polynomial]:
        """`(q, r)` with `self = q*divisor + r`, in whole numbers and with no multiple left in `r`.

        For a divisor that is not 0.
        """
        lead, by = max(divisor.terms.items(), key=lambda term: _rank(term[0]))
        rest, quotient, left = self, Polynomial({}), Polynomial({})
        while rest.terms:
            monomial, coefficient = max(rest.terms.items(), key=lambda term: _rank(term[0]))
            beside = _quotient(monomial, lead)
            if beside is None or coefficient % by:
                part = Polynomial({monomial: coefficient})
                left, rest = left + part, rest - part
            else:
                part = Polynomial({beside: coefficient // by})
                quotient, rest = quotient + part, rest - part * divisor
        return quotient, left

    def settled(self, monomial: Monomial, value: Coefficient) -> Polynomial:
        """With `monomial`, wherever it is a factor, replaced by a number."""
        total: dict[Monomial, Coefficient] = {}
        for own, coefficient in self.terms.items():
            beside = _quotient(own, monomial)
            while beside is not None:
                own, coefficient = beside, coefficient * value
                beside = _quotient(own, monomial)
            total[own] = total.get(own, 0) + coefficient
        return Polynomial(total)

    def rewritten(self, rewrite: Callable[[Atom], Polynomial | None]) -> Polynomial:
        """With each atom that `rewrite` has something for replaced, those inside others first."""
        total = Polynomial({})
        for monomial, coefficient in self.terms.items():
            product = Polynomial.of(coefficient)
            for atom, power in monomial:
                value = rewrite(atom)
                if value is None:
                    value = Polynomial.atom(atom)
                    if isinstance(atom, Floor):
                        inside = atom.numerator.rewritten(rewrite)
                        whole = all(isinstance(n, int) for n in inside.terms.values())
                        if whole and inside != atom.numerator:
                            value = inside.floor_divide(atom.divisor)
                for _ in range(power):
                    product = product * value
            total = total + product
        return total

    # ----------------------------------------------------------------------------- identity

    @cached_property
    def _key(self) -> frozenset[tuple[Monomial, Coefficient]]:
        return frozenset(self.terms.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    @cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        if not self.terms:
            return "0"
        pieces: list[str] = []
        for monomial, coefficient in sorted(self.terms.items(), key=lambda term: _order(term[0])):
            sign = "-" if coefficient < 0 else "+"
            text = _term_text(-coefficient if coefficient < 0 else coefficient, monomial)
            if pieces:
                pieces.append(f" {sign} {text}")
            else:
                pieces.append(f"-{text}" if coefficient < 0 else text)
        return "".join(pieces)

    def __repr__(self) -> str:
        return f"Polynomial({self})"


def _plain(number: Coefficient) -> Coefficient:
    if isinstance(number, Fraction) and number.denominator == 1:
        return number.numerator
    return number


def _as_polynomial(value: Polynomial | Coefficient) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial.of(value)


def _product(left: Monomial, right: Monomial) -> Monomial:
    if not left or not right:
        return left or right
    powers = dict(left)
    for atom, power in right:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].text))


def _quotient(monomial: Monomial, by: Monomial) -> Monomial | None:
    powers = dict(monomial)
    for atom, power in by:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        if left:
            powers[atom] = left
        else:
            del powers[atom]
    return tuple(sorted(powers.items(), key=lambda item: item[0].text))


def _rank(monomial: Monomial) -> tuple[tuple[str, int], ...]:
    """A lexicographic order that products respect: the atom that comes last counts most."""
    return tuple(sorted(((atom.text, power) for atom, power in monomial), reverse=True))


def _degree(monomial: Monomial) -> int:
    return sum(
        power * (1 if isinstance(atom, Symbol) else atom.numerator.degree)
        for atom, power in monomial
    )


def _order(monomial: Monomial) -> tuple[int, str]:
    """The order in which monomials are written: high degrees first, then by text."""
    return -_degree(monomial), "*".join(atom.text for atom, _ in monomial)


def _term_text(coefficient: Coefficient, monomial: Monomial) -> str:
    fraction = Fraction(coefficient)
    top, bottom = fraction.numerator, fraction.denominator
    factors = [atom.text if power == 1 else f"{atom.text}^{power}" for atom, power in monomial]
    if top != 1 or not factors:
        factors.insert(0, f"{top:,}")
    return "*".join(factors) + (f"/{bottom}" if bottom > 1 else "")


def _floor(rest: Polynomial, divisor: int) -> Polynomial:
    """`floor(rest / divisor)` where coefficients are below the divisor and not negative."""
    if rest.is_constant:
        return Polynomial({})
    common = gcd(divisor, *(int(n) for monomial, n in rest.terms.items() if monomial))
    if common > 1:
        reduced = {m: n // common for m, n in rest.terms.items()}
        return Polynomial(reduced).floor_divide(divisor // common)
    nested = [
        (atom, monomial)
        for monomial, coefficient in rest.terms.items()
        for atom, power in monomial
        if isinstance(atom, Floor) and (coefficient, power, len(monomial)) == (1, 1, 1)
    ]
    if len(nested) == 1 and sum(isinstance(atom, Floor) for atom in rest.atoms()) == 1:
        # floor((floor(p/a) + b)/c) is floor((p + a*b)/(a*c)) for a whole b.
        inner = nested[0][0]
        beside = rest - Polynomial.atom(inner)
        flat = inner.numerator + beside * inner.divisor
        return flat.floor_divide(inner.divisor * divisor)
    return Polynomial.atom(Floor(rest, divisor))
