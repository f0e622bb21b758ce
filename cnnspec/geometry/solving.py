"""Which windows fit an axis: the size formula solved for whatever of it is not known.

The formula is that of `cnnspec.geometry.sizes`. Candidates are tried one after the other, so that
rounding, `same` and pooling mean what they mean there; only the input is found by arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from cnnspec.geometry.sizes import kernel_extent, pool_size, remainder, same_padding, unread

__all__ = ["Fit", "Question", "fits"]


@dataclass(frozen=True, slots=True)
class Fit:
    """One way in which a window moves over an axis of `size` positions, with `out` outputs."""

    size: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int
    ceil: bool = False

    @property
    def extent(self) -> int:
        """Positions from the first to the last tap."""
        return kernel_extent(self.kernel, self.dilation)

    @property
    def room(self) -> int:
        """By how many padded positions the window can move: `in + before + after - extent`."""
        return self.size + self.before + self.after - self.extent

    @property
    def exact(self) -> bool:
        """Whether the stride divides that, so that nothing is rounded."""
        return not self.room % self.stride

    @property
    def left(self) -> int:
        """Padded positions behind the last whole window, all of them where there is none."""
        if self.room < 0:
            return self.room + self.extent
        return remainder(
            self.size, self.kernel, self.stride, self.dilation, self.before, self.after
        )

    @property
    def short(self) -> int:
        """By how many positions the last, partial window of `ceil` is short of its extent."""
        return -self.room % self.stride if self.ceil else 0

    @property
    def unread(self) -> int:
        """Positions of the input itself that no window reads; 0 where a partial window does."""
        if self.ceil:
            return 0
        return unread(self.size, self.kernel, self.stride, self.dilation, self.before, self.after)

    @property
    def clipped(self) -> bool:
        """Whether rounding up gave a window that would start in the far padding: it is dropped."""
        return self.ceil and self.out < -(-self.room // self.stride) + 1

    @property
    def symmetric(self) -> bool:
        """Whether there is as much padding before as after."""
        return self.before == self.after

    @property
    def same(self) -> bool:
        """Whether the padding is that of `same`, under which `out = ceil(in / stride)`."""
        wanted = same_padding(self.size, self.kernel, self.stride, self.dilation)
        return not self.ceil and (self.before, self.after) == wanted


@dataclass(frozen=True, slots=True)
class Question:
    """What is known of a window: the values that each part may have, None for any.

    Strides and paddings that are not given are tried up to the kernel's extent: a larger stride
    skips positions, a larger padding gives windows of padding alone. A padding that is not given
    is symmetric or has one position more behind. A kernel that is not given is tried up to
    `most_kernel` and the padded input. With `pool` the padding is symmetric and no more than half
    of the kernel, as torch has it; with `ceil` sizes are rounded up, as pooling's `ceil_mode` does.
    At least one of `sizes` and `outs` must be given.
    """

    sizes: Sequence[int] | None = None
    kernels: Sequence[int] | None = None
    strides: Sequence[int] | None = None
    paddings: Sequence[tuple[int, int] | str] | None = None
    dilations: Sequence[int] = (1,)
    outs: Sequence[int] | None = None
    pool: bool = False
    ceil: bool = False
    most_kernel: int = 15


def fits(question: Question) -> Iterator[Fit]:
    """All windows that a question admits, by size, kernel, dilation, stride and padding.

    Of paddings that were not given, uneven ones are found only where they fit exactly.
    """
    kernels = question.kernels or range(1, question.most_kernel + 1)
    for kernel, dilation in product(kernels, question.dilations):
        extent = kernel_extent(kernel, dilation)
        for stride in question.strides or range(1, extent + 1):
            if question.sizes is None:
                yield from _sized(question, kernel, stride, dilation)
                continue
            for size in question.sizes:
                for before, after in _paddings(question, size, kernel, stride, dilation):
                    found = _fit(question, size, kernel, stride, dilation, before, after)
                    if found is not None:
                        yield found


def _sized(question: Question, kernel: int, stride: int, dilation: int) -> Iterator[Fit]:
    """Those of inputs that are not given: outputs name them, up to what rounding hides."""
    extent = kernel_extent(kernel, dilation)
    given = question.paddings
    paddings = _tried(question, kernel, extent) if given is None else given
    for padding, out in product(paddings, question.outs or ()):
        if isinstance(padding, str):
            sizes = range((out - 1) * stride + 1, out * stride + 1)
        else:
            exactly = (out - 1) * stride + extent - sum(padding)
            sizes = range(max(1, exactly - stride), exactly + stride + 1)
        for size in sizes:
            before, after = (
                same_padding(size, kernel, stride, dilation)
                if isinstance(padding, str)
                else padding
            )
            found = _fit(question, size, kernel, stride, dilation, before, after)
            if found is not None:
                yield found


def _paddings(
    question: Question, size: int, kernel: int, stride: int, dilation: int
) -> list[tuple[int, int]]:
    if question.paddings is None:
        return list(_tried(question, kernel, kernel_extent(kernel, dilation)))
    return [
        same_padding(size, kernel, stride, dilation) if isinstance(padding, str) else padding
        for padding in question.paddings
    ]


def _tried(question: Question, kernel: int, extent: int) -> Iterator[tuple[int, int]]:
    """Paddings to try where none is given."""
    if question.pool:
        yield from ((side, side) for side in range(kernel // 2 + 1))
        return
    for side in range(extent):
        yield side, side
        if side + 1 < extent:
            yield side, side + 1


def _fit(
    question: Question, size: int, kernel: int, stride: int, dilation: int, before: int, after: int
) -> Fit | None:
    if not question.ceil and kernel_extent(kernel, dilation) > size + before + after:
        return None
    if question.pool and before > kernel // 2:
        return None
    out = pool_size(size, kernel, stride, before, after, dilation, question.ceil)
    found = Fit(size, kernel, stride, dilation, before, after, out, question.ceil)
    if not out or (question.outs is not None and out not in question.outs):
        return None
    if question.paddings is None and not found.symmetric and not found.exact:
        return None
    return found
