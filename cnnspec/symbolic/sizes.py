"""Exact sets of sizes: all whole numbers from 1 for which conditions hold.

A condition on one size repeats: on every residue of its period the quotients in it are polynomials,
so it holds on finitely many intervals, the last of them perhaps without end. Such sets can be
joined, cut and told apart exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice, pairwise
from math import comb, gcd, lcm

from cnnspec.symbolic.number import Guard

__all__ = ["PERIOD_LIMIT", "Interval", "SizeSet"]

PERIOD_LIMIT = 1 << 12
"""The longest period that is worked out."""

_LISTED = 6
"""Sizes or residues that are named one by one."""

Interval = tuple[int, int | None]
"""First and last, both included; None without end."""

Intervals = tuple[Interval, ...]


class SizeSet:
    """A set of sizes: for each residue `r` of the period `P` the `k` of its members `r + P*k`."""

    def __init__(self, residues: Sequence[Intervals]) -> None:
        self._residues = tuple(residues)
        self._period = len(residues)

    # ----------------------------------------------------------------------------- making one

    @staticmethod
    def all() -> SizeSet:
        """Every size from 1."""
        return SizeSet((((1, None),),))

    @staticmethod
    def none() -> SizeSet:
        """No size."""
        return SizeSet(((),))

    @staticmethod
    def only(size: int) -> SizeSet:
        """A single size."""
        return SizeSet((((size, size),),))

    @staticmethod
    def where(guard: Guard) -> SizeSet | None:
        """The sizes for which a guard on one size holds; None where its period is too long."""
        (name,) = guard.polynomial.symbols
        relation, polynomial = guard
        if relation == "!=":
            equal = SizeSet.where(guard.negated())
            return None if equal is None else SizeSet.all() - equal
        if relation == "==":
            above = SizeSet.where(Guard(">=", polynomial))
            below = SizeSet.where(Guard(">=", polynomial * -1))
            return None if above is None or below is None else above & below
        period = polynomial.period
        if period > PERIOD_LIMIT:
            return None
        samples = range(polynomial.degree + 1)
        residues = []
        for residue in range(period):
            values = [int(polynomial.at({name: residue + period * k})) for k in samples]
            found = _not_negative(_differences(values))
            # Size 0 is no size.
            residues.append(_cut(found, ((0 if residue else 1, None),)))
        return SizeSet(residues)

    # -------------------------------------------------------------------------------- algebra

    def __and__(self, other: SizeSet) -> SizeSet:
        return self._with(other, _cut)

    def __or__(self, other: SizeSet) -> SizeSet:
        return SizeSet.all() - ((SizeSet.all() - self) & (SizeSet.all() - other))

    def __sub__(self, other: SizeSet) -> SizeSet:
        return self._with(other, lambda a, b: _cut(a, _gaps(b)))

    def _with(
        self, other: SizeSet, combine: Callable[[Intervals, Intervals], Intervals]
    ) -> SizeSet:
        period = lcm(self._period, other._period)
        pairs = zip(self._at(period), other._at(period), strict=True)
        return SizeSet([combine(a, b) for a, b in pairs])

    def _at(self, period: int) -> Iterator[Intervals]:
        """The intervals for a multiple of the period."""
        times = period // self._period
        for residue in range(period):
            step, intervals = residue // self._period, self._residues[residue % self._period]
            scaled = (
                (-((step - lo) // times), None if hi is None else (hi - step) // times)
                for lo, hi in intervals
            )
            yield tuple((max(lo, 0), hi) for lo, hi in scaled if hi is None or max(lo, 0) <= hi)

    # ------------------------------------------------------------------------------ questions

    def __contains__(self, size: int) -> bool:
        k, residue = divmod(size, self._period)
        return any(lo <= k and (hi is None or k <= hi) for lo, hi in self._residues[residue])

    def __bool__(self) -> bool:
        return any(self._residues)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SizeSet):
            return NotImplemented
        return not (self - other) and not (other - self)

    __hash__ = None  # type: ignore[assignment]  # equal sets may have unequal periods

    @property
    def period(self) -> int:
        """The period in which it is kept, a multiple of the shortest."""
        return self._period

    @property
    def is_all(self) -> bool:
        """Whether it is every size."""
        return not SizeSet.all() - self

    @property
    def smallest(self) -> int | None:
        """The smallest member; None for the empty set."""
        firsts = [
            residue + self._period * intervals[0][0]
            for residue, intervals in enumerate(self._residues)
            if intervals
        ]
        return min(firsts, default=None)

    @property
    def common(self) -> tuple[int, int]:
        """`(m, r)`: all members leave `r` when divided by `m`, the largest such.

        `(0, n)` where `n` is the only one.
        """
        first = self.smallest or 0
        step = 0
        for residue, intervals in enumerate(self._residues):
            for lo, hi in intervals:
                step = gcd(step, residue + self._period * lo - first)
                if hi != lo:
                    step = gcd(step, self._period)
        return step, first % step if step else first

    def pattern(self) -> tuple[int, tuple[int, ...], int]:
        """`(P, residues, start)`: from `start` on the members are those with these residues.

        `P` is the shortest period; without residues the set is finite and ends before `start`.
        """
        endless, start = [], 1
        for residue, intervals in enumerate(self._residues):
            if intervals and intervals[-1][1] is None:
                endless.append(residue)
                breaks = intervals[-1][0] - 1
            else:
                breaks = -1
                if intervals:
                    assert intervals[-1][1] is not None  # looked at above
                    breaks = intervals[-1][1]
            if breaks >= 0:
                start = max(start, residue + self._period * breaks + 1)
        period, left = self._period, set(endless)
        factor = 2
        while factor <= period:
            shorter = period // factor
            if period % factor == 0 and all((r + shorter) % period in left for r in left):
                period, left = shorter, {r % shorter for r in left}
            else:
                factor += 1
        return period, tuple(sorted(left)), start

    def before(self, limit: int) -> Iterator[tuple[int, int]]:
        """Members below `limit` as stretches of neighbours, in order, one by one."""
        runs = []
        for residue, intervals in enumerate(self._residues):
            for lo, hi in intervals:
                end = limit if hi is None else min(limit, residue + self._period * hi + 1)
                runs.append(range(residue + self._period * lo, end, self._period))
        return _stretches(merge(*runs))

    def describe(self, name: str) -> str:
        """The set in words, to follow `for`: `H >= 32`, `H a multiple of 16`, `H = 224`."""
        period, residues, start = self.pattern()
        early = list(islice(self.before(start), _LISTED + 1))
        pieces = [_stretch(lo, hi) for lo, hi in early[:_LISTED]]
        if len(early) > _LISTED:
            pieces.append("...")
        listed = f"{name} = {', '.join(pieces)}" if pieces else ""
        if not residues:
            return listed or f"no {name}"
        first = next(n for n in range(start, start + period) if n % period in residues)
        if period == 1:
            endless = f"{name} >= {start}" if start > 1 else f"any {name}"
        elif residues == (0,):
            endless = f"{name} a multiple of {period}"
            endless += f" from {first}" if first > period else ""
        else:
            stretches = list(_stretches(residues))
            named = ", ".join(_stretch(lo, hi) for lo, hi in stretches[:_LISTED])
            named += ", ..." if len(stretches) > _LISTED else ""
            endless = f"{name} mod {period} = {named}"
            endless += f" from {first}" if first > period else ""
        return f"{listed} or {endless}" if listed else endless


def _stretches(members: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Neighbours together, first and last, of numbers in order."""
    first = last = None
    for member in members:
        if first is None or last is None:
            first = member
        elif member != last + 1:
            yield first, last
            first = member
        last = member
    if first is not None and last is not None:
        yield first, last


def _stretch(lo: int, hi: int) -> str:
    return f"{lo}" if lo == hi else f"{lo} to {hi}"


def _cut(a: Intervals, b: Intervals) -> Intervals:
    found = []
    for lo, hi in a:
        for other_lo, other_hi in b:
            first = max(lo, other_lo)
            ends = [end for end in (hi, other_hi) if end is not None]
            last = min(ends) if ends else None
            if last is None or first <= last:
                found.append((first, last))
    return tuple(sorted(found, key=lambda interval: interval[0]))


def _gaps(intervals: Intervals) -> Intervals:
    """What lies between: the complement from 0 on."""
    found: list[Interval] = []
    after: int | None = 0
    for lo, hi in intervals:
        if after is not None and lo > after:
            found.append((after, lo - 1))
        after = None if hi is None else hi + 1
    if after is not None:
        found.append((after, None))
    return tuple(found)


def _differences(values: Sequence[int]) -> list[int]:
    """Newton's forward differences of a polynomial's first values."""
    found = []
    row = list(values)
    while row:
        found.append(row[0])
        row = [after - before for before, after in pairwise(row)]
    while len(found) > 1 and not found[-1]:
        found.pop()
    return found


def _value(differences: Sequence[int], k: int) -> int:
    return sum(comb(k, order) * d for order, d in enumerate(differences))


def _not_negative(differences: Sequence[int]) -> Intervals:
    """The `k` from 0 on at which a polynomial of given forward differences is not negative.

    Between the places where its slope changes sign it is monotonic, and a bisection finds where it
    crosses 0.
    """
    if len(differences) == 1:
        return ((0, None),) if differences[0] >= 0 else ()
    rising = _not_negative(differences[1:])
    stretches = [(lo, hi, True) for lo, hi in rising]
    stretches += [(lo, hi, False) for lo, hi in _gaps(rising)]
    found: list[Interval] = []
    for lo, hi, rises in sorted(stretches):
        # The slope at k leads to k + 1: values up to hi + 1 are monotonic.
        last = hi
        if last is None:
            last = lo + 1
            while (_value(differences, last) >= 0) is not rises:
                last = lo + 2 * (last - lo)
        first, past = lo, last + 1
        good_first = _value(differences, lo) >= 0
        if good_first == (_value(differences, last) >= 0):
            if good_first:
                found.append((lo, hi))
            continue
        while past - first > 1:
            middle = (first + past) // 2
            if (_value(differences, middle) >= 0) is good_first:
                first = middle
            else:
                past = middle
        found.append((lo, first) if good_first else (past, hi))
    return _merged(found)


def _merged(intervals: Sequence[Interval]) -> Intervals:
    found: list[Interval] = []
    for lo, hi in intervals:
        end = found[-1][1] if found else -2
        if found and (end is None or end >= lo - 1):
            if end is not None:
                found[-1] = found[-1][0], hi if hi is None else max(hi, end)
        else:
            found.append((lo, hi))
    return tuple(found)
