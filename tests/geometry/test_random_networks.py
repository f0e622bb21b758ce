"""Fields of random one-dimensional networks against sets of inputs carried through the ops.

The sets are computed the slow way, op by op as the op is defined (a transposed convolution
scatters, an interpolation has coordinates), each set a bit mask. A periodic map promises the
interior only: a position whose past reached beyond a border is *touched* and not compared. Tables
know their borders, so nothing is touched behind a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cnnspec.geometry import (
    AlsoEverything,
    AxisField,
    Bilinear,
    Everything,
    Nearest,
    Taps,
    Transposed,
    View,
    Window,
    adaptive_taps,
    apply,
    bicubic_taps,
    bilinear_taps,
    conv_size,
    input_field,
    join,
    nearest_taps,
    pool_size,
    transposed_size,
)

WIDEST = 400
Masks = list[tuple[int, bool]]
"""For each position: the inputs it depends on as bits, and whether a border was touched."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a random network: its real dependencies and the field to be judged."""

    masks: Masks
    field: AxisField
    globally: bool = False

    @property
    def n(self) -> int:
        return len(self.masks)

    def at(self, position: int) -> tuple[int, bool]:
        if 0 <= position < self.n:
            return self.masks[position]
        return 0, not self.field.tabled

    def gather(self, out: int, taps: Callable[[int], list[int]]) -> Masks:
        masks = []
        for output in range(out):
            seen, touched = 0, False
            for tap in taps(output):
                mask, past = self.at(tap)
                seen, touched = seen | mask, touched or past
            masks.append((seen, touched))
        return masks

    def then(self, view: View, masks: Masks) -> Tensor:
        field = apply(self.field, view, self.n, len(masks), "op")
        return Tensor(masks, field, self.globally)


Choice = tuple[int, int, int, int, int]


def window(x: Tensor, c: Choice, *, ceil_mode: bool = False) -> Tensor | None:
    _, k, s, d, p = c
    kernel, stride, dilation = 1 + k % 5, 1 + s % 3, 1 + d % 3
    if ceil_mode:
        out = pool_size(x.n, kernel, stride, p, p, dilation, True)
    else:
        out = conv_size(x.n, kernel, stride, dilation, p, p)
    if not out:
        return None
    masks = x.gather(out, lambda o: [o * stride - p + dilation * t for t in range(kernel)])
    return x.then(Window(kernel, stride, dilation, p), masks)


def pool(x: Tensor, c: Choice) -> Tensor | None:
    return window(x, c, ceil_mode=True)


def transposed(x: Tensor, c: Choice) -> Tensor | None:
    _, k, s, d, p = c
    kernel, stride, dilation, extra = 1 + k % 6, 1 + s % 4, 1 + d % 4, s % 2
    out = transposed_size(x.n, kernel, stride, p, extra, dilation)
    if not 0 < out <= WIDEST:
        return None
    masks: Masks = [(0, False)] * out
    reach = dilation * kernel + p + extra + 1
    for position in range(-reach, x.n + reach):
        mask, past = x.at(position)
        for tap in range(kernel):
            output = position * stride - p + dilation * tap
            if 0 <= output < out:
                masks[output] = (masks[output][0] | mask, masks[output][1] or past)
    return x.then(Transposed(kernel, stride, dilation, p), masks)


def nearest(x: Tensor, c: Choice) -> Tensor | None:
    factor = 2 + c[1] % 2
    if x.n * factor > WIDEST:
        return None
    return x.then(Nearest(factor), x.gather(x.n * factor, lambda o: [o // factor]))


def around(point: Fraction, beyond: int) -> list[int]:
    below = floor(point)
    return [below] if below == point else list(range(below - beyond, below + 2 + beyond))


def bilinear(x: Tensor, c: Choice) -> Tensor | None:
    factor = 2 + c[1] % 3
    if x.n * factor > WIDEST:
        return None

    def taps(output: int) -> list[int]:
        return around((output + Fraction(1, 2)) / factor - Fraction(1, 2), 0)

    return x.then(Bilinear(factor), x.gather(x.n * factor, taps))


def resized(x: Tensor, c: Choice) -> Tensor | None:
    """Resizing to any size, in all modes; what lies beyond an edge is the edge."""
    _, k, s, d, p = c
    out = 1 + (k * 7 + s * 3 + d) % 60
    if out == 1 or x.n == 1:
        return None
    ratio = Fraction(x.n, out)
    half = Fraction(1, 2)
    if p % 4 == 0:
        view = adaptive_taps(x.n, out)
        rows = [list(range(floor(o * ratio), ceil((o + 1) * ratio))) for o in range(out)]
    elif p % 4 == 1:
        view = nearest_taps(x.n, out)
        rows = [[floor(o * ratio)] for o in range(out)]
    elif p % 4 == 2:
        view = bilinear_taps(x.n, out, True)
        rows = [around(Fraction(o * (x.n - 1), out - 1), 0) for o in range(out)]
    else:
        cubic = bool(d % 2)
        view = (bicubic_taps if cubic else bilinear_taps)(x.n, out, False)
        rows = [around((o + half) * ratio - half, int(cubic)) for o in range(out)]
    if isinstance(view, Taps):
        rows = [[min(max(tap, 0), x.n - 1) for tap in row] for row in rows]
    return x.then(view, x.gather(out, lambda o: rows[o]))


def crop_or_pad(x: Tensor, c: Choice) -> Tensor | None:
    before, after = c[1] - 4, c[2] - 3
    out = x.n + before + after
    if out <= 0:
        return None
    return x.then(Window(before=before), x.gather(out, lambda o: [o - before]))


def stepped(x: Tensor, c: Choice) -> Tensor | None:
    start, step = c[1] % 4, 1 + c[2] % 4
    out = len(range(start, x.n, step))
    if not out:
        return None
    view = Window(1, step, before=-start)
    return x.then(view, x.gather(out, lambda o: [start + step * o]))


def alike(x: Tensor) -> bool:
    """Whether all positions see the same inputs: then the whole axis sees no more than that."""
    positions = range(x.n if x.field.tabled else 1 + len(x.field.spans))
    return len({x.field.at(position) for position in positions}) == 1


def normalised(x: Tensor, c: Choice) -> Tensor | None:
    made = x.then(AlsoEverything(Window(3, before=1)), x.gather(x.n, lambda o: [o - 1, o, o + 1]))
    adds = x.n > 1 and not made.field.is_empty and not alike(x)
    return replace(made, globally=x.globally or adds)


def pooled_and_spread(x: Tensor, c: Choice) -> Tensor | None:
    """Global pooling, spread over the axis again; the local part is gone but for what is alike."""
    if x.n == 1:
        return x.then(Everything(), x.masks * (1 + c[1]))
    if alike(x):
        seen = 0
        for mask, _ in x.masks:
            seen |= mask
        past = all(touched for _, touched in x.masks)
        return x.then(Everything(), [(seen, past)] * (x.n * (1 + c[1] % 2)))
    made = x.then(Everything(), [(0, False)] * x.n)
    return replace(made, globally=x.globally or not x.field.is_empty)


OPS = (
    window,
    pool,
    transposed,
    nearest,
    bilinear,
    resized,
    crop_or_pad,
    stepped,
    window,
    normalised,
    window,
    pooled_and_spread,
)


def joined(parts: list[Tensor]) -> Tensor:
    n = min(part.n for part in parts)
    cut = []
    for part in parts:
        before = (part.n - n) // 2
        masks = part.gather(n, lambda o, before=before: [o + before])  # type: ignore[misc]
        cut.append(part.then(Window(before=-before), masks))
    field = join([part.field for part in cut], n)
    masks = []
    for column in zip(*(part.masks for part in cut), strict=True):
        seen = 0
        for mask, _ in column:
            seen |= mask
        masks.append((seen, any(touched for _, touched in column)))
    return Tensor(masks, field, any(part.globally for part in cut))


def check(x: Tensor) -> int:
    """Compares every untouched position; the number of positions compared."""
    field, compared = x.field, 0
    assert field.unavailable is None
    assert field.is_global == x.globally
    for position, (mask, touched) in enumerate(x.masks):
        if touched:
            continue
        expected = ((mask & -mask).bit_length() - 1, mask.bit_length() - 1) if mask else None
        assert field.at(position) == expected, position
        compared += 1
    if field.tabled:
        assert len(field.spans) == x.n
    elif field.spans:
        assert len(field.spans) <= max(1, x.n)
        assert_shortest(field)
    return compared


def assert_shortest(field: AxisField) -> None:
    period = len(field.spans)
    for shorter in (p for p in range(1, period) if period % p == 0):
        move, rest = divmod(field.advance * shorter, period)
        same = not rest and all(
            field.at(o + shorter) == (None if seen is None else (seen[0] + move, seen[1] + move))
            for o, seen in enumerate(field.spans)
        )
        assert not same


choices = st.tuples(
    st.integers(0, 199), st.integers(0, 7), st.integers(0, 7), st.integers(0, 7), st.integers(0, 3)
)


@settings(max_examples=2500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(20, 160), st.lists(choices, min_size=1, max_size=9))
@example(20, [(116, 0, 0, 1, 0), (1, 0, 1, 0, 0), (44, 1, 0, 0, 0), (133, 0, 0, 0, 0)])
def test_fields_are_the_hulls_of_the_dependencies(n: int, program: list[Choice]) -> None:
    tensors = [Tensor([(1 << i, False) for i in range(n)], input_field(n))]
    for choice in program:
        code = choice[0]
        if code % 4 == 3:
            picks = (choice[1] % len(tensors), choice[2] % len(tensors), -1)
            made: Tensor | None = joined([tensors[i] for i in picks])
        else:
            source = tensors[-1] if code % 3 else tensors[choice[4] % len(tensors)]
            made = OPS[code // 4 % len(OPS)](source, choice)
        if made is None:
            continue
        check(made)
        tensors.append(made)


def test_the_comparison_compares() -> None:
    """A network of every kind of op leaves most positions untouched, so they are compared."""
    x = Tensor([(1 << i, False) for i in range(160)], input_field(160))
    program: list[tuple[Callable[[Tensor, Choice], Tensor | None], Choice]] = [
        (window, (0, 2, 1, 0, 1)),
        (window, (0, 2, 0, 1, 2)),
        (transposed, (0, 4, 1, 0, 1)),
        (bilinear, (0, 0, 0, 0, 0)),
        (stepped, (0, 1, 2, 0, 0)),
        (resized, (0, 5, 2, 1, 0)),
        (window, (0, 2, 0, 0, 1)),
    ]
    for op, choice in program:
        made = op(x, choice)
        assert made is not None
        x = made
        assert check(x) > 0.6 * x.n
    assert x.field.tabled
