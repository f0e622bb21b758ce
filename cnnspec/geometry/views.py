"""How an op looks back along one axis: which input positions an output position reads.

A view is a value that says nothing about sizes it does not need and nothing about the op that made
it. `cnnspec.geometry.fields` composes views; nothing else interprets them. Parameters are those of
an op that has passed its own checks: kernels, strides, dilations and factors are positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import ClassVar, Literal, TypeAlias

__all__ = [
    "POINTWISE",
    "TABLE_LIMIT",
    "AlsoEverything",
    "Bicubic",
    "Bilinear",
    "Continued",
    "Everything",
    "Flattened",
    "Nearest",
    "PeriodicView",
    "Span",
    "Taps",
    "Transposed",
    "Unknown",
    "View",
    "Window",
    "adaptive_taps",
    "bicubic_taps",
    "bilinear_taps",
    "nearest_taps",
]

Span: TypeAlias = tuple[int, int]
"""First and last position of a stretch, both included."""

TABLE_LIMIT = 1 << 16
"""Entries beyond which positions are not listed one by one: the answer is then `Unknown`."""


@dataclass(frozen=True, slots=True)
class Window:
    """Output `o` reads `stride * o - before + dilation * t` for `t` in `0..kernel - 1`.

    Convolution and pooling. With kernel 1: a step slice is a stride, a crop a negative `before`,
    padding a positive one; `Window()` is a pointwise op. Positions outside the axis are padding.
    """

    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0

    @property
    def cycle(self) -> tuple[int, int]:
        """See `PeriodicView`."""
        return 1, self.stride

    @property
    def step(self) -> int:
        """See `PeriodicView`."""
        return self.dilation

    def reads(self, output: int) -> tuple[int, int]:
        """See `PeriodicView`."""
        return self.stride * output - self.before, self.kernel


@dataclass(frozen=True, slots=True)
class Transposed:
    """Output `o` reads `(o + padding - dilation * t) / stride` wherever that is a whole number.

    Transposed convolution. An output between the taps (kernel below the stride) reads nothing.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    @property
    def cycle(self) -> tuple[int, int]:
        """See `PeriodicView`."""
        return self.stride, 1

    @property
    def step(self) -> int:
        """See `PeriodicView`."""
        return self.dilation // gcd(self.dilation, self.stride)

    def reads(self, output: int) -> tuple[int, int]:
        """See `PeriodicView`.

        The taps that meet a whole input solve `dilation * t = output + padding (mod stride)`: none,
        or one in every `stride / gcd(dilation, stride)`.
        """
        position = output + self.padding
        common = gcd(self.dilation, self.stride)
        if position % common:
            return 0, 0
        spacing = self.stride // common
        tap = position // common * pow(self.dilation // common, -1, spacing) % spacing
        if tap >= self.kernel:
            return 0, 0
        count = (self.kernel - 1 - tap) // spacing + 1
        last = (position - self.dilation * tap) // self.stride
        return last - (count - 1) * self.step, count


@dataclass(frozen=True, slots=True)
class Nearest:
    """Output `o` reads `o // factor`: nearest upsampling and pixel shuffle."""

    factor: int
    step: ClassVar[int] = 1

    @property
    def cycle(self) -> tuple[int, int]:
        """See `PeriodicView`."""
        return self.factor, 1

    def reads(self, output: int) -> tuple[int, int]:
        """See `PeriodicView`."""
        return output // self.factor, 1


@dataclass(frozen=True, slots=True)
class Bilinear:
    """Linear interpolation by a whole factor with half-pixel centers (`align_corners=False`).

    Output `o` lies at `(2 * o + 1 - factor) / (2 * factor)` and reads the two inputs around it, or
    the one it falls on. Beyond the edges torch repeats the edge, which adds no position.
    """

    factor: int
    step: ClassVar[int] = 1

    @property
    def cycle(self) -> tuple[int, int]:
        """See `PeriodicView`."""
        return self.factor, 1

    def reads(self, output: int) -> tuple[int, int]:
        """See `PeriodicView`."""
        first, beside = divmod(2 * output + 1 - self.factor, 2 * self.factor)
        return (first, 2) if beside else (first, 1)


@dataclass(frozen=True, slots=True)
class Bicubic:
    """Cubic interpolation by a whole factor with half-pixel centers: four inputs around a point.

    An output that falls on an input reads that input alone, as in `Bilinear`.
    """

    factor: int
    step: ClassVar[int] = 1

    @property
    def cycle(self) -> tuple[int, int]:
        """See `PeriodicView`."""
        return self.factor, 1

    def reads(self, output: int) -> tuple[int, int]:
        """See `PeriodicView`."""
        first, beside = divmod(2 * output + 1 - self.factor, 2 * self.factor)
        return (first - 1, 4) if beside else (first, 1)


PeriodicView: TypeAlias = Window | Transposed | Nearest | Bilinear | Bicubic
"""A view that repeats: output `o + outputs` reads what `o` reads, moved on by `inputs` positions.

`cycle` is `(outputs, inputs)`. `reads(o)` is `(first, count)`: output `o`, any whole number, reads
`first, first + step, ...`, `count` positions in all, possibly none.
"""


@dataclass(frozen=True, slots=True)
class Continued:
    """Padding with the axis itself: output `o` reads `o - before`, or what stands there.

    The stretch `first..last` of the axis is continued on both sides: mirrored without repeating its
    ends (`reflect`, at most once), by its ends (`replicate`), or by its other side (`circular`). A
    negative `before` crops. A periodic map continues into this padding as into one of zeros; a
    table reads `source`.
    """

    mode: Literal["reflect", "replicate", "circular"]
    before: int
    first: int
    last: int

    def source(self, output: int) -> int:
        """The position whose value stands at `output`."""
        position = output - self.before
        match self.mode:
            case "circular":
                return self.first + (position - self.first) % (self.last - self.first + 1)
            case "replicate":
                return min(max(position, self.first), self.last)
            case "reflect":
                if position < self.first:
                    return 2 * self.first - position
                return position if position <= self.last else 2 * self.last - position


@dataclass(frozen=True, slots=True)
class Taps:
    """Output `o` reads `lo..hi` for `rows[o] = (lo, hi)`, or nothing where the row is None.

    For ops that do not repeat: adaptive pooling, resizing by a fraction, aligned corners, one of
    several tensors joined along the axis itself. One row for each output of the real size.
    """

    rows: tuple[Span | None, ...]


@dataclass(frozen=True, slots=True)
class Everything:
    """Every output reads the whole axis: global pooling, attention, linear layers on features.

    From an axis of one position it is a broadcast: all outputs read that one position.
    """


@dataclass(frozen=True, slots=True)
class Flattened:
    """The axis was merged with others: values are kept, positions along the axis are lost."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The op cannot say what it reads; `reason` is text for users, lower case, no full stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class AlsoEverything:
    """Reads through `local`, and the whole axis besides: normalisation by statistics over space."""

    local: PeriodicView | Continued | Taps | Flattened | Unknown | Everything


View: TypeAlias = (
    PeriodicView | Continued | Taps | Everything | AlsoEverything | Flattened | Unknown
)

POINTWISE = Window()
"""Output `o` reads input `o`."""


def adaptive_taps(n: int, out: int) -> View:
    """Adaptive pooling of `n` positions to `out`, as in torch.nn.AdaptiveAvgPool2d.

    Output `o` reads from `floor(o * n / out)` up to, not including, `ceil((o + 1) * n / out)`.
    Whole ratios come back as the window or the repetition they are, one output as `Everything`.
    """
    if out == 1:
        return POINTWISE if n == 1 else Everything()
    if n % out == 0:
        return Window(n // out, n // out)
    if out % n == 0:
        return Nearest(out // n)
    return _listed(out, lambda o: (o * n // out, -(-(o + 1) * n // out) - 1))


def nearest_taps(n: int, out: int) -> View:
    """Nearest resizing of `n` positions to `out`: output `o` reads `floor(o * n / out)`.

    In exact arithmetic: torch multiplies by a float32 ratio and so reads the neighbour at a few
    positions of large tensors.
    """
    if out % n == 0:
        return Nearest(out // n) if out != n else POINTWISE
    if n % out == 0:
        return Window(1, n // out)
    return _listed(out, lambda o: (o * n // out, o * n // out))


def bilinear_taps(n: int, out: int, align_corners: bool) -> View:
    """Linear resizing of `n` positions to `out`: the two inputs around a point, or one on it."""
    if not align_corners and out % n == 0:
        return Bilinear(out // n) if out != n else POINTWISE
    if not align_corners and n % out == 0:
        return _centered(n // out, 2)
    return _listed(out, _interpolated(n, out, align_corners, 0))


def bicubic_taps(n: int, out: int, align_corners: bool) -> View:
    """Cubic resizing of `n` positions to `out`: the four inputs around a point, or one on it."""
    if not align_corners and out % n == 0:
        return Bicubic(out // n) if out != n else POINTWISE
    if not align_corners and n % out == 0:
        return _centered(n // out, 4)
    return _listed(out, _interpolated(n, out, align_corners, 1))


def _centered(stride: int, taps: int) -> Window:
    """Interpolation down by a whole factor: on an input where that is odd, else between two."""
    if stride % 2:
        return Window(1, stride, before=-(stride // 2))
    return Window(taps, stride, before=taps // 2 - stride // 2)


def _interpolated(n: int, out: int, align_corners: bool, beyond: int) -> Callable[[int], Span]:
    """The inputs around output `o`, with `beyond` more on each side, kept within the axis."""

    def row(output: int) -> Span:
        if not align_corners:
            first, beside = divmod((2 * output + 1) * n - out, 2 * out)
        elif out == 1:
            first, beside = 0, 0
        else:
            first, beside = divmod(output * (n - 1), out - 1)
        last = first
        if beside:
            first, last = first - beyond, first + 1 + beyond
        return min(max(first, 0), n - 1), min(max(last, 0), n - 1)

    return row


def _listed(out: int, row: Callable[[int], Span]) -> Taps | Unknown:
    if out > TABLE_LIMIT:
        return Unknown(f"resizing to {out} positions has no period and is too long to list")
    return Taps(tuple(map(row, range(out))))
