"""What the positions of a tensor see of a network's input along one axis.

A field says for every position of a tensor axis the first and the last position of the input axis
it depends on. Networks repeat along an axis, so a field is a *periodic interval map*,

    D(P * q + r) = [A * q + lo_r, A * q + hi_r],    r = 0 .. P - 1,

and composes with an op's view in closed form: exactly, for all sizes at once, borders apart. (For
P = 1 this is the recurrence of Araujo, Norris and Sim, Computing Receptive Fields of Convolutional
Neural Networks, Distill 2019.) Where nothing repeats, it is a table at the real size. A periodic
map continues into the padding: what lies there keeps counting, so sizes are those of the interior.
A table knows its borders and drops what lies outside.

Everything is immutable and exact in integers. No op, graph or report may enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, lcm

from cnnspec.geometry.views import (
    TABLE_LIMIT,
    AlsoEverything,
    Continued,
    Everything,
    Flattened,
    PeriodicView,
    Span,
    Taps,
    Unknown,
    View,
    Window,
)

__all__ = ["AxisField", "apply", "empty_field", "input_field", "join"]

_LAYOUT_LOST = "positions along this axis were lost when it was flattened"


@dataclass(frozen=True, slots=True)
class AxisField:
    """The field of a tensor along one axis of a network input. Make one with `input_field`.

    Three independent facts: what is seen locally (`spans`, or nothing), whether the whole axis is
    seen as well (`globally`), and whether the local part could not be told (`unavailable`).
    """

    extent: int
    """Positions of the input axis."""
    spans: tuple[Span | None, ...] = ()
    """Input positions seen, first and last: by phase, in a table by position. None sees nothing."""
    advance: int = 0
    """How far the spans of a periodic map move on in one period (`A`); 0 if all see the same."""
    tabled: bool = False
    """Whether `spans` is a table with an entry for each position of the tensor."""
    globally: str | None = None
    """The path of the node through which every position sees the whole axis."""
    skew: float = 0.0
    """Input positions by which the branches of a join were displaced; the largest on the way."""
    flattened: bool = False
    """Whether the axis was merged with others: sizes hold, positions do not."""
    unavailable: str | None = None
    """Why the local part is not known, as text for users."""

    @property
    def is_global(self) -> bool:
        """Whether every position sees the whole input axis."""
        return self.globally is not None

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the input is seen: a parameter, a constant."""
        return not self.spans and self.globally is None and self.unavailable is None

    @property
    def aligned(self) -> bool:
        """Whether the branches of all joins on the way look at the same place."""
        return self.skew == 0

    @property
    def size(self) -> int | None:
        """Input positions seen by the position that sees most; None where unavailable."""
        sizes = self._sizes()
        return max(sizes) if sizes else self._size_without_local()

    @property
    def size_min(self) -> int | None:
        """Input positions seen by the position that sees least, those that see none left out."""
        sizes = self._sizes()
        return min(sizes) if sizes else self._size_without_local()

    @property
    def stride(self) -> int | float | None:
        """Input positions from one output to the next, on average: the jump.

        None where positions do not repeat, are lost, or all see the same.
        """
        if self.tabled or self.flattened or not self.advance:
            return None
        whole, rest = divmod(self.advance, len(self.spans))
        return self.advance / len(self.spans) if rest else whole

    @property
    def period(self) -> int | None:
        """Positions after which the map repeats; None where it does not or positions are lost."""
        return None if self.tabled or self.flattened or not self.spans else len(self.spans)

    @property
    def start(self) -> int | None:
        """First input position seen by output 0, or by the first output that sees any.

        Negative in the padding. None where unavailable or empty.
        """
        seen = self._first()
        return None if seen is None else seen[0]

    @property
    def center(self) -> float | None:
        """Middle of what `start` begins, in input positions."""
        seen = self._first()
        return None if seen is None else (seen[0] + seen[1]) / 2

    def at(self, position: int) -> Span | None:
        """First and last input position that `position` sees locally; None where it sees none.

        A periodic map answers for any whole number, a table within the tensor only.
        """
        count = len(self.spans)
        if self.tabled:
            return self.spans[position] if 0 <= position < count else None
        if not count:
            return None
        turn, phase = divmod(position, count)
        return _moved(self.spans[phase], self.advance * turn)

    def to_dict(self) -> dict[str, int | float | bool | str | None]:
        """The field as the JSON report shows it.

        `via` is present where the field is global, `unavailable` (the reason) where the local part
        is not known; its values are then None.
        """
        told: dict[str, int | float | bool | str | None] = {
            "size": self.size,
            "size_min": self.size_min,
            "stride": self.stride,
            "period": self.period,
            "start": self.start,
            "center": self.center,
            "aligned": None if self.unavailable is not None else self.aligned,
            "global": self.is_global,
        }
        if self.globally is not None:
            told["via"] = self.globally
        if self.unavailable is not None:
            told["unavailable"] = self.unavailable
        return told

    def _sizes(self) -> list[int]:
        return [span[1] - span[0] + 1 for span in self.spans if span is not None]

    def _size_without_local(self) -> int | None:
        if self.unavailable is not None:
            return None
        return self.extent if self.is_global else 0

    def _first(self) -> Span | None:
        for span in self.spans:
            if span is not None:
                return span
        if self.unavailable is not None or not self.is_global:
            return None
        return 0, self.extent - 1


def input_field(extent: int) -> AxisField:
    """The field of the network input itself: each of its `extent` positions sees itself."""
    return AxisField(extent, ((0, 0),), 1)


def empty_field(extent: int) -> AxisField:
    """The field of what does not depend on the input (an axis of `extent` positions) at all."""
    return AxisField(extent)


def apply(field: AxisField, view: View, n_in: int, n_out: int, via: str) -> AxisField:
    """The field of an op's output along an axis, from the field of its input and its view.

    `n_in` and `n_out` are the real extents of the tensors' axis before and after the op; `via` is
    the op's path, named where it makes the field global. Costs O(1) for a map of period 1, else
    O(P log kernel). Raises `ValueError` where a table and the extents disagree (a faulty op rule).
    """
    match view:
        case Window():
            if n_in == n_out and view.kernel == view.stride == 1 and not view.before:
                return field
            if len(field.spans) == 1 and field.spans[0] and not (field.tabled or field.flattened):
                return _stepped(field, view, field.spans[0])
            return _composed(field, view, n_in, n_out)
        case Everything():
            return _everywhere(field, n_in, n_out, via)
        case Continued():
            return _continued(field, view, n_in, n_out, via)
        case AlsoEverything():
            local = apply(field, view.local, n_in, n_out, via)
            if local.is_global or local.is_empty or n_in == 1 or _is_constant(field):
                return local
            return replace(local, globally=via)
        case Flattened():
            if field.flattened or not field.spans:
                return field
            return _constant(field) if n_in == 1 else replace(field, flattened=True)
        case Unknown():
            return _without_local(field, view.reason) if field.spans else field
        case _:
            return _composed(field, view, n_in, n_out)


def join(fields: Sequence[AxisField], n: int) -> AxisField:
    """The field of a tensor of `n` positions each of which depends on that position of `fields`.

    Additions, products, concatenation along another axis. Each position sees the hull of what the
    branches see there; a branch that sees nothing adds nothing, a global one makes the result
    global and leaves the hull to the others. Equal jumps stay periodic, unequal ones become a
    table. `skew` is the displacement of the branches' centers, for a periodic map its mean over one
    period (an upsampled branch is off by turns to both sides), for a table its maximum. Branches of
    extent 1 pass through `Everything` first. Needs at least one field.
    """
    first = fields[0]
    if all(field is first for field in fields):
        return first
    live = [field for field in fields if not field.is_empty]
    if not live:
        return first
    globally = next((field.globally for field in live if field.is_global), None)
    skew = max(field.skew for field in live)
    reason = next((f.unavailable for f in live if f.unavailable is not None), None)
    local = [field for field in live if field.spans]
    if reason is not None or not local:
        return AxisField(
            first.extent, globally=globally, skew=skew if local else 0.0, unavailable=reason
        )
    joined = local[0] if len(local) == 1 else _hull(local, n)
    skew = max(skew, joined.skew)
    if joined.globally == globally and joined.skew == skew:
        return joined
    return replace(joined, globally=globally, skew=skew)


def _stepped(field: AxisField, view: Window, seen: Span) -> AxisField:
    """A window over a map of period 1: most of all applications, in closed form."""
    jump = field.advance
    lo = seen[0] - jump * view.before
    hi = seen[1] + jump * (view.dilation * (view.kernel - 1) - view.before)
    return AxisField(
        field.extent, ((lo, hi),), jump * view.stride, globally=field.globally, skew=field.skew
    )


def _composed(field: AxisField, view: PeriodicView | Taps, n_in: int, n_out: int) -> AxisField:
    if not field.spans:
        return field
    if field.flattened:
        return _without_local(field, _LAYOUT_LOST)
    if field.tabled and len(field.spans) != n_in:
        raise ValueError(f"a table of {len(field.spans)} positions for an axis of {n_in}")
    if isinstance(view, Taps):
        if len(view.rows) != n_out:
            raise ValueError(f"{len(view.rows)} rows of taps for an axis of {n_out}")
        hulls = _Hulls(field, 1)
        rows = (None if row is None else hulls.of(row[0], row[1] - row[0] + 1) for row in view.rows)
        return _with_local(field, tuple(rows), 0, tabled=True)

    hulls = _Hulls(field, view.step)
    outputs, inputs = view.cycle
    cycles = len(field.spans) // gcd(len(field.spans), inputs)
    period = outputs * cycles
    tabled = field.tabled or period > max(n_out, 1)
    count = n_out if tabled else period
    if count > TABLE_LIMIT:
        return _without_local(field, f"{count} positions see the input each in its own way")
    spans = tuple(hulls.of(*view.reads(output)) for output in range(count))
    advance = 0 if tabled else field.advance * cycles * inputs // len(field.spans)
    return _with_local(field, spans, advance, tabled=tabled)


def _continued(field: AxisField, view: Continued, n_in: int, n_out: int, via: str) -> AxisField:
    if not field.tabled or n_out > TABLE_LIMIT:
        return apply(field, Window(before=view.before), n_in, n_out, via)
    sources = map(view.source, range(n_out))
    return _composed(field, Taps(tuple((source, source) for source in sources)), n_in, n_out)


def _everywhere(field: AxisField, n_in: int, n_out: int, via: str) -> AxisField:
    single = n_in == 1 and not field.flattened
    if field.is_empty or (single and (n_out == 1 or not field.spans)):
        return field
    if single or _is_constant(field):
        return _constant(field)
    return AxisField(field.extent, globally=field.globally or via)


def _is_constant(field: AxisField) -> bool:
    """Whether all positions see the same, which is then all that the whole axis sees."""
    return len(set(field.spans)) == 1 and not (field.advance or field.flattened)


def _constant(field: AxisField) -> AxisField:
    """The field of a tensor all positions of which see what position 0 of `field` sees."""
    return _with_local(field, (field.at(0),), 0, tabled=False)


def _with_local(
    field: AxisField, spans: tuple[Span | None, ...], advance: int, *, tabled: bool
) -> AxisField:
    """`field` with another local part, brought to its shortest period."""
    if not any(spans):
        return AxisField(field.extent, globally=field.globally)
    if not tabled and len(spans) > 1:
        spans, advance = _shortest(spans, advance)
    return AxisField(field.extent, spans, advance, tabled, field.globally, field.skew)


def _without_local(field: AxisField, reason: str) -> AxisField:
    return AxisField(field.extent, globally=field.globally, unavailable=reason)


def _shortest(spans: tuple[Span | None, ...], advance: int) -> tuple[tuple[Span | None, ...], int]:
    """The same map with the fewest phases: for each prime factor, try the period without it."""
    left, factor = len(spans), 2
    while left > 1:
        if left % factor:
            factor = factor + 1 if factor * factor <= left else left
            continue
        left //= factor
        period, move = len(spans) // factor, advance // factor
        if advance % factor == 0 and all(
            spans[phase + period] == _moved(spans[phase], move)
            for phase in range(len(spans) - period)
        ):
            spans, advance = spans[:period], move
    return spans, advance


def _hull(fields: Sequence[AxisField], n: int) -> AxisField:
    """The hull of several local parts over a tensor of `n` positions, with its skew."""
    first = fields[0]
    for field in fields:
        if field.tabled and not field.flattened and len(field.spans) != n:
            raise ValueError(f"a table of {len(field.spans)} positions for an axis of {n}")
    same_jump = not any(field.tabled for field in fields) and all(
        field.advance * len(first.spans) == first.advance * len(field.spans) for field in fields
    )
    period = lcm(*(len(field.spans) for field in fields))
    if any(field.flattened for field in fields):
        same_table = all(f.tabled and len(f.spans) == len(first.spans) for f in fields)
        if not (same_jump or same_table) or not all(field.flattened for field in fields):
            return _without_local(first, _LAYOUT_LOST)
        tabled, count = same_table, len(first.spans) if same_table else period
    else:
        tabled = not same_jump or period > max(n, 1)
        count = n if tabled else period
    if count > TABLE_LIMIT:
        return _without_local(first, f"{count} positions see the input each in its own way")

    columns = [[field.at(position) for position in range(count)] for field in fields]
    spans: list[Span | None] = columns[0]
    for column in columns[1:]:
        spans = [_around(a, b) for a, b in zip(spans, column, strict=True)]
    advance = 0 if tabled else first.advance * period // len(first.spans)
    joined = _with_local(first, tuple(spans), advance, tabled=tabled)
    return replace(joined, skew=_skew(columns, mean=not tabled), flattened=first.flattened)


def _skew(columns: Sequence[Sequence[Span | None]], *, mean: bool) -> float:
    """How far apart the branches' centers are, measured from the first branch's, in positions."""
    lowest = highest = 0.0
    largest = 0.0
    for column in columns[1:]:
        moves = [
            (b[0] + b[1] - a[0] - a[1]) / 2
            for a, b in zip(columns[0], column, strict=True)
            if a is not None and b is not None
        ]
        if not moves:
            continue
        middle = sum(moves) / len(moves)
        lowest, highest = min(lowest, middle), max(highest, middle)
        largest = max(largest, max(moves), -min(moves))
    return highest - lowest if mean else largest


def _moved(span: Span | None, by: int) -> Span | None:
    return None if span is None else (span[0] + by, span[1] + by)


def _around(a: Span | None, b: Span | None) -> Span | None:
    """The hull of two spans."""
    if a is None or b is None:
        return a or b
    return (a[0] if a[0] < b[0] else b[0], a[1] if a[1] > b[1] else b[1])


class _Hulls:
    """Hulls of what the positions `first, first + step, ...` of a field see together.

    A hull of hulls may overlap, so two stretches of `2 ** level` positions cover any number of
    them: each level is made once, in O(P) or O(n), from the one below.
    """

    def __init__(self, field: AxisField, step: int) -> None:
        self._field = field
        self._step = step
        self._levels = [field]

    def of(self, first: int, count: int) -> Span | None:
        """The hull over `count` positions from `first`; those outside a table are dropped."""
        step = self._step
        if self._field.tabled:
            skipped = max(0, -(first // step))
            first, count = first + skipped * step, count - skipped
            count = min(count, (len(self._field.spans) - 1 - first) // step + 1)
        if count <= 0:
            return None
        if count == 1:
            return self._field.at(first)
        last = first + (count - 1) * step
        if len(self._field.spans) == 1:
            return _around(self._field.at(first), self._field.at(last))
        level = count.bit_length() - 1
        while len(self._levels) <= level:
            self._levels.append(self._doubled())
        reach = self._levels[level]
        return _around(reach.at(first), reach.at(last - ((1 << level) - 1) * step))

    def _doubled(self) -> AxisField:
        below = self._levels[-1]
        onward = self._step << (len(self._levels) - 1)
        spans = tuple(
            _around(span, below.at(position + onward)) for position, span in enumerate(below.spans)
        )
        return replace(below, spans=spans)
