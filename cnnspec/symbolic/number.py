"""A whole number that is not known yet, and what is asked of it.

`Symbolic` stands where rules expect an `int`. Arithmetic makes formulas. A question whose answer
depends on the size is answered for the sizes at hand, and the `Trail` notes it: what was computed
is right for all sizes that answer every noted question alike. What has no formula (an index, a
`range`) takes the number at hand and notes just that, so nothing is ever silently wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from math import floor
from typing import NamedTuple

from cnnspec.symbolic.polynomial import Atom, Polynomial, Symbol

__all__ = ["Condition", "Guard", "Ratio", "Symbolic", "Trail"]

_EXACT = 2**53
"""Whole numbers that a float can tell apart."""

_LARGEST = 2**48
"""No tensor has more elements."""

_MOST = 2**24
"""No input is longer: what holds up to there is not asked."""


class Guard(NamedTuple):
    """A condition on sizes: the polynomial is at least 0 (`>=`), is 0 (`==`) or is not (`!=`)."""

    relation: str
    polynomial: Polynomial

    def holds(self, sizes: Mapping[str, int]) -> bool:
        """Whether it is so at given sizes."""
        value = self.polynomial.at(sizes)
        if self.relation == ">=":
            return value >= 0
        return (value == 0) is (self.relation == "==")

    def negated(self) -> Guard:
        """The condition that holds exactly where this one does not."""
        if self.relation == ">=":
            return Guard(">=", self.polynomial * -1 - 1)
        return Guard("!=" if self.relation == "==" else "==", self.polynomial)

    def __str__(self) -> str:
        number = self.polynomial.constant
        shown, bound = self.polynomial - number, -number
        relation = {"==": "=", "!=": "is not"}.get(self.relation, self.relation)
        if all(n < 0 for n in shown.terms.values()):
            shown, bound = shown * -1, -bound
            relation = "<=" if relation == ">=" else relation
        return f"{shown} {relation} {bound:,}"


class Trail:
    """The sizes at hand, and the guards noted so far.

    `least` are lower bounds of the sizes that follow from the guards.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        self.least = dict.fromkeys(sizes, 1)
        self.guards: dict[Guard, None] = {}
        self.floats_count = True

    def size(self, name: str) -> Symbolic:
        """The size of that name."""
        return Symbolic(Polynomial.symbol(name), self.sizes[name], self)

    def number(self, polynomial: Polynomial) -> Symbolic | int:
        """A polynomial as a number: a plain one where it is constant."""
        if polynomial.is_constant:
            return int(polynomial.constant)
        return Symbolic(polynomial, int(polynomial.at(self.sizes)), self)

    def known(self, guard: Guard) -> bool | None:
        """Whether a guard holds for all sizes that satisfy those noted; None if that is open."""
        relation, polynomial = guard
        if polynomial.is_constant:
            return guard.holds(self.sizes)
        if guard in self.guards:
            return True
        if guard.negated() in self.guards:
            return False
        for noted in self.guards:
            if noted.relation == "==":
                for value in (polynomial - noted.polynomial, polynomial + noted.polynomial):
                    if value.is_constant:
                        return Guard(relation, value).holds(self.sizes)
        largest = dict.fromkeys(polynomial.symbols, _MOST)
        falling = all(n < 0 for monomial, n in polynomial.terms.items() if monomial)
        if relation == ">=" and falling and guard.holds(largest):
            return True
        least = self._least(polynomial)
        if relation == ">=" and least is not None and least >= 0:
            return True
        if relation != ">=" and least is not None and least > 0:
            return relation == "!="
        less = self._least(polynomial * -1)
        if less is not None and less > 0:
            return relation == "!="
        return None

    def ask(self, guard: Guard) -> bool:
        """Whether a guard holds, noted where that depends on the sizes."""
        known = self.known(guard)
        if known is not None:
            return known
        holds = guard.holds(self.sizes)
        self.note(guard if holds else guard.negated())
        return holds

    def note(self, guard: Guard) -> None:
        """Rely on a guard, which holds for the sizes at hand."""
        relation, polynomial = guard
        growing = all(n > 0 for monomial, n in polynomial.terms.items() if monomial)
        if relation == ">=" and growing and len(polynomial.symbols) == 1:
            (name,) = polynomial.symbols
            low, high = 0, self.sizes[name]
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if polynomial.at({name: middle}) >= 0 else (middle, high)
            if high <= self.least[name]:
                return
            self.least[name] = high
            guard = Guard(">=", Polynomial.symbol(name) - high)
        self.guards[guard] = None

    @contextmanager
    def floats_aside(self) -> Iterator[None]:
        """Do not note where a number is taken as a float inside: it decides nothing there."""
        before, self.floats_count = self.floats_count, False
        try:
            yield
        finally:
            self.floats_count = before

    @contextmanager
    def apart(self) -> Iterator[dict[Guard, None]]:
        """What is noted inside is put into the mapping, and forgotten on leaving."""
        guards, least = dict(self.guards), dict(self.least)
        found: dict[Guard, None] = {}
        try:
            yield found
        finally:
            found.update((guard, None) for guard in self.guards if guard not in guards)
            self.guards, self.least = guards, least

    def _least(self, polynomial: Polynomial) -> int | None:
        """A lower bound for all sizes that are possible, the better of two."""
        bounds = self._termwise(polynomial), self._relaxed(polynomial)
        return max((bound for bound in bounds if bound is not None), default=None)

    def _termwise(self, polynomial: Polynomial) -> int | None:
        """The value where each atom is least, if from there on every term grows."""
        shifted = polynomial.rewritten(self._above_least)
        if any(n < 0 for monomial, n in shifted.terms.items() if monomial):
            return None
        return int(shifted.constant)

    def _above_least(self, atom: Atom) -> Polynomial:
        """An atom as its least value and what is above that, which stands for the atom."""
        if isinstance(atom, Symbol):
            least = self.least[atom.text]
        else:
            inside = self._termwise(atom.numerator)
            assert inside is not None  # its coefficients are not negative
            least = inside // atom.divisor
        return Polynomial.atom(atom) + least

    def _relaxed(self, polynomial: Polynomial) -> int | None:
        """Every `floor(p/c)` as `p/c`, or `(p - c + 1)/c`: linear polynomials only."""
        slopes: dict[str, Fraction] = {}
        start = Fraction(0)
        stack = [(polynomial, Fraction(1))]
        while stack:
            current, scale = stack.pop()
            for monomial, coefficient in current.terms.items():
                weight = scale * coefficient
                if not monomial:
                    start += weight
                    continue
                ((atom, power), *others) = monomial
                if others or power > 1:
                    return None
                if isinstance(atom, Symbol):
                    slopes[atom.text] = slopes.get(atom.text, Fraction(0)) + weight
                    continue
                weight /= atom.divisor
                if weight > 0:
                    start -= weight * (atom.divisor - 1)
                stack.append((atom.numerator, weight))
        if any(slope < 0 for slope in slopes.values()):
            return None
        return -floor(-sum((s * self.least[n] for n, s in slopes.items()), start))


class Condition:
    """A question not yet asked: whether one of several guards holds. Truth asks it.

    Joined by `|`, a condition that holds for all sizes settles the others unasked.
    """

    __slots__ = ("guards", "trail")

    def __init__(self, trail: Trail, *guards: Guard) -> None:
        self.trail = trail
        self.guards = guards

    def __bool__(self) -> bool:
        known = [self.trail.known(guard) for guard in self.guards]
        if True in known:
            return True
        asked = [guard for guard, k in zip(self.guards, known, strict=True) if k is None]
        asked.sort(key=lambda guard: not guard.holds(self.trail.sizes))
        return any(self.trail.ask(guard) for guard in asked)

    def __or__(self, other: object) -> Condition | bool:
        if isinstance(other, Condition):
            return Condition(self.trail, *self.guards, *other.guards)
        if isinstance(other, bool):
            return True if other else self
        return NotImplemented

    __ror__ = __or__


class Symbolic:
    """A whole number with a formula, and its `value` for the sizes at hand."""

    __slots__ = ("polynomial", "trail", "value")

    def __init__(self, polynomial: Polynomial, value: int, trail: Trail) -> None:
        self.polynomial = polynomial
        self.value = value
        self.trail = trail

    # ---------------------------------------------------------------------------- arithmetic

    def __add__(self, other: object) -> Symbolic | int:
        term = _polynomial(other)
        return NotImplemented if term is None else self.trail.number(self.polynomial + term)

    __radd__ = __add__

    def __sub__(self, other: object) -> Symbolic | int:
        term = _polynomial(other)
        return NotImplemented if term is None else self.trail.number(self.polynomial - term)

    def __rsub__(self, other: object) -> Symbolic | int:
        term = _polynomial(other)
        return NotImplemented if term is None else self.trail.number(term - self.polynomial)

    def __neg__(self) -> Symbolic | int:
        return self.trail.number(self.polynomial * -1)

    def __mul__(self, other: object) -> Symbolic | int | Ratio | float:
        if isinstance(other, float):
            return self._times(other)
        factor = _polynomial(other)
        return NotImplemented if factor is None else self.trail.number(self.polynomial * factor)

    __rmul__ = __mul__

    def _times(self, factor: float) -> Ratio | float:
        """Exact where float64 is for every size there can be; else the number at hand is taken."""
        if factor.is_integer() or (factor * 1024).is_integer():
            top, bottom = factor.as_integer_ratio()
            if abs(top) * _LARGEST < _EXACT:
                return Ratio(self * top, bottom)
        return int(self) * factor

    def __floordiv__(self, other: object) -> Symbolic | int:
        if isinstance(other, Symbolic):
            exact = self._by(other)
            return self // int(other) if exact is None else exact
        if not isinstance(other, int):
            return NotImplemented
        if other > 0:
            return self.trail.number(self.polynomial.floor_divide(other))
        return -self // -other if other else self.value // other

    def __rfloordiv__(self, other: object) -> int:
        return other // int(self) if isinstance(other, int) else NotImplemented

    def _by(self, other: Symbolic) -> Symbolic | int | None:
        quotient = self.polynomial.divide(other.polynomial)
        if quotient is None or not other:
            return None
        return self.trail.number(quotient)

    def __mod__(self, other: object) -> Symbolic | int:
        if not isinstance(other, (int, Symbolic)):
            return NotImplemented
        result = self - self // other * other
        assert isinstance(result, (int, Symbolic))  # no float came in
        return result

    def __rmod__(self, other: object) -> int:
        return other % int(self) if isinstance(other, int) else NotImplemented

    def __pow__(self, power: object) -> Symbolic | int:
        if not isinstance(power, int) or power < 0:
            return NotImplemented
        product = Polynomial.of(1)
        for _ in range(power):
            product = product * self.polynomial
        return self.trail.number(product)

    def __divmod__(self, other: object) -> tuple[Symbolic | int, Symbolic | int]:
        return self // other, self % other

    def __pos__(self) -> Symbolic:
        return self

    def __abs__(self) -> Symbolic | int:
        return self if self >= 0 else -self

    def __round__(self, digits: int | None = None) -> Symbolic:
        return self

    def __floor__(self) -> Symbolic:
        return self

    def __ceil__(self) -> Symbolic:
        return self

    def __truediv__(self, other: object) -> float:
        return int(self) / other if isinstance(other, (int, float)) else NotImplemented

    # ----------------------------------------------------------------------------- questions

    def __lt__(self, other: object) -> Condition:
        return self._at_most(other, -1)

    def __le__(self, other: object) -> Condition:
        return self._at_most(other, 0)

    def __gt__(self, other: object) -> Condition:
        return self._at_least(other, -1)

    def __ge__(self, other: object) -> Condition:
        return self._at_least(other, 0)

    def _at_most(self, other: object, more: int) -> Condition:
        term = _polynomial(other)
        if term is None:
            raise TypeError(f"a size cannot be compared with {other!r}")
        return Condition(self.trail, Guard(">=", term - self.polynomial + more))

    def _at_least(self, other: object, more: int) -> Condition:
        term = _polynomial(other)
        if term is None:
            raise TypeError(f"a size cannot be compared with {other!r}")
        return Condition(self.trail, Guard(">=", self.polynomial - term + more))

    def __eq__(self, other: object) -> Condition | bool:  # type: ignore[override]  # asked later
        term = _polynomial(other)
        if term is None:
            return NotImplemented
        return Condition(self.trail, Guard("==", _signed(self.polynomial - term)))

    def __ne__(self, other: object) -> Condition | bool:  # type: ignore[override]  # asked later
        term = _polynomial(other)
        if term is None:
            return NotImplemented
        return Condition(self.trail, Guard("!=", _signed(self.polynomial - term)))

    def __bool__(self) -> bool:
        return self.trail.ask(Guard("!=", _signed(self.polynomial)))

    def __index__(self) -> int:
        self.trail.ask(Guard("==", _signed(self.polynomial - self.value)))
        return self.value

    def __int__(self) -> int:
        return self.__index__()

    def __float__(self) -> float:
        return float(self.__index__() if self.trail.floats_count else self.value)

    def __hash__(self) -> int:
        return hash(self.__index__())

    def __str__(self) -> str:
        return str(self.polynomial)

    def __format__(self, form: str) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Symbolic({self.polynomial}, {self.value})"


class Ratio:
    """`top / bottom` of a number not known: what a float factor makes until it is rounded."""

    __slots__ = ("bottom", "top")

    def __init__(self, top: object, bottom: int) -> None:
        assert isinstance(top, (int, Symbolic))  # no float came in
        self.top = top
        self.bottom = bottom

    def __floor__(self) -> Symbolic | int:
        return self.top // self.bottom

    def __ge__(self, other: int) -> Condition | bool:
        return self.top >= other * self.bottom

    def __le__(self, other: int) -> Condition | bool:
        return self.top <= other * self.bottom

    def __format__(self, form: str) -> str:
        return f"({self.top})/{self.bottom}" if self.bottom > 1 else str(self.top)


def _polynomial(value: object) -> Polynomial | None:
    if isinstance(value, Symbolic):
        return value.polynomial
    return Polynomial.of(int(value)) if isinstance(value, int) else None


def _signed(polynomial: Polynomial) -> Polynomial:
    """Of a polynomial and its negative always the same one: both are 0 at the same sizes."""
    if not polynomial.terms:
        return polynomial
    first = min(polynomial.terms, key=lambda monomial: [(a.text, power) for a, power in monomial])
    return polynomial * -1 if polynomial.terms[first] < 0 else polynomial
