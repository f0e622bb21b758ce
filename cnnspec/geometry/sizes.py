"""How long an axis is after a window has moved over it, and what the window left unread.

Pure arithmetic on integers, one axis at a time. Extents are counted in positions; `before` and
`after` are the padding on the two sides of the axis. A size of 0 says that the window does not fit:
the op that asked turns that into an error.
"""

from __future__ import annotations

__all__ = [
    "conv_size",
    "kernel_extent",
    "pool_size",
    "remainder",
    "same_padding",
    "taps_inside",
    "transposed_size",
    "unread",
]


def kernel_extent(kernel: int, dilation: int = 1) -> int:
    """Positions from the first to the last tap of a kernel, both included: `d * (k - 1) + 1`."""
    return dilation * (kernel - 1) + 1


def conv_size(n: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Outputs of a convolution over `n` positions, rounded down as torch does; 0 if none fits.

    `floor((n + before + after - extent) / stride) + 1` (Dumoulin and Visin, A guide to convolution
    arithmetic for deep learning, relationship 15).
    """
    return max(0, (n + before + after - kernel_extent(kernel, dilation)) // stride + 1)


def transposed_size(
    n: int, kernel: int, stride: int, padding: int, output_padding: int, dilation: int
) -> int:
    """Outputs of a transposed convolution over `n` positions; 0 if the padding removes them all.

    `(n - 1) * stride - 2 * padding + extent + output_padding` (torch.nn.ConvTranspose2d).
    """
    extent = kernel_extent(kernel, dilation)
    return max(0, (n - 1) * stride - 2 * padding + extent + output_padding)


def pool_size(
    n: int, kernel: int, stride: int, before: int, after: int, dilation: int, ceil_mode: bool
) -> int:
    """Outputs of a pooling over `n` positions; 0 if no window fits.

    With `ceil_mode` a last, partial window is kept, unless it would start in the padding at the far
    end (torch's `pooling_output_shape`).
    """
    if not ceil_mode:
        return conv_size(n, kernel, stride, dilation, before, after)
    rest = n + before + after - kernel_extent(kernel, dilation)
    size = -(-rest // stride) + 1
    if (size - 1) * stride >= n + before:
        size -= 1
    return max(0, size)


def same_padding(n: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding `(before, after)` under which a convolution has `ceil(n / stride)` outputs.

    The odd position goes after, as in ONNX's SAME_UPPER; for stride 1 it is torch's `same`.
    """
    outputs = -(-n // stride)
    total = max(0, (outputs - 1) * stride + kernel_extent(kernel, dilation) - n)
    return total // 2, total - total // 2


def taps_inside(n: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> int:
    """Pairs of an output and a tap of its kernel that meet one of `n` positions, not the padding.

    Tap `t` of output `o` stands at `stride * o - before + dilation * t`.
    """
    pairs = 0
    for tap in range(kernel):
        shift = before - dilation * tap
        first = max(0, -(-shift // stride))
        last = min(outputs - 1, (n - 1 + shift) // stride)
        pairs += max(0, last - first + 1)
    return pairs


def remainder(n: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Padded positions left over at the far end because the stride does not divide; 0 if none.

    This is the lectures' "doesn't fit"; the positions may all be padding or unread by intent (see
    `unread`). 0 as well where no window fits at all, which is an error of its own.
    """
    rest = n + before + after - kernel_extent(kernel, dilation)
    return rest % stride if rest >= 0 else 0


def unread(n: int, kernel: int, stride: int, dilation: int, before: int, after: int) -> int:
    """Real positions at the far end that no window reads though the stride suggests it; 0 if none.

    A stride beyond the kernel's extent skips `stride - extent` positions between any two windows:
    up to so many at the end are the author's intent and do not count.
    """
    left = remainder(n, kernel, stride, dilation, before, after) - after
    if left <= max(0, stride - kernel_extent(kernel, dilation)):
        return 0
    return min(n, left)
