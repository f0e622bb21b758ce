"""Arrays whose elements are numbers or affine forms, and the ONNX nodes that move or add them.

Each function takes arrays as ONNX has them, with the batch as axis 0, and gives one. What is known
of ONNX is here, what an operation becomes is said by the operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "average_pool",
    "convolve",
    "convolve_transposed",
    "multiplied",
    "padded",
    "reshaped",
    "resized",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_PAD_MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def reshaped(x: Array, sizes: Sequence[int]) -> Array:
    """Reshape: 0 keeps an axis, -1 is what is left."""
    known = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(known)


def padded(x: Array, pads: Sequence[Sequence[int]], mode: str, value: Any = 0) -> Array:
    """Pad by `(before, after)` for each axis."""
    if mode in _PAD_MODES:
        places = np.arange(x.size).reshape(x.shape)
        moved = np.pad(places, pads, mode=_PAD_MODES[mode])  # type: ignore[call-overload]
        return np.asarray(x.reshape(-1)[moved])
    sizes = [size + before + after for size, (before, after) in zip(x.shape, pads, strict=True)]
    out = np.empty(sizes, dtype=object)
    out.fill(value)
    inside = tuple(
        slice(before, before + size) for size, (before, _) in zip(x.shape, pads, strict=True)
    )
    out[inside] = x
    return out


def _windows(
    out: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Each output position, and where its window stands in the padded input."""
    for place in product(*map(range, out)):
        yield (
            place,
            tuple(
                slice(o * s, o * s + d * (k - 1) + 1, d)
                for o, k, s, d in zip(place, kernel, strides, dilations, strict=True)
            ),
        )


def convolve(
    x: Array,
    weight: Array,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    groups: int,
) -> Array:
    """Conv without a bias."""
    axes = weight.ndim - 2
    sides = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    full = padded(x, sides, "constant")
    kernel = weight.shape[2:]
    sizes = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(full.shape[2:], kernel, strides, dilations, strict=True)
    ]
    filters, reads = weight.shape[0] // groups, weight.shape[1]
    out = np.empty((x.shape[0], weight.shape[0], *sizes), dtype=object)
    for place, window in _windows(sizes, kernel, strides, dilations):
        for sample, group in product(range(x.shape[0]), range(groups)):
            read = slice(group * reads, (group + 1) * reads)
            patch = full[sample][(read, *window)].reshape(-1)
            for row in range(group * filters, (group + 1) * filters):
                out[(sample, row, *place)] = _dot(weight[row].reshape(-1), patch)
    return out


def multiplied(left: Array, right: Array) -> Array:
    """MatMul of arrays of at least two axes."""
    ahead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*ahead, *left.shape[-2:]))
    right = np.broadcast_to(right, (*ahead, *right.shape[-2:]))
    out = np.empty((*ahead, left.shape[-2], right.shape[-1]), dtype=object)
    for place in np.ndindex(*ahead):
        for row, column in np.ndindex(*out.shape[-2:]):
            out[(*place, row, column)] = _dot(left[(*place, row)], right[place][:, column])
    return out


def _dot(left: Array, right: Array) -> Any:
    """A sum of products, those with a zero left out."""
    total: Any = 0
    for a, b in zip(left, right, strict=True):
        if not _is_zero(a) and not _is_zero(b):
            total = total + a * b
    return total


def _is_zero(value: Any) -> bool:
    return isinstance(value, (int, float, Fraction)) and not value


def convolve_transposed(
    x: Array,
    weight: Array,
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    output_padding: Sequence[int],
    groups: int,
) -> Array:
    """ConvTranspose without a bias: each input adds its patch."""
    axes = weight.ndim - 2
    kernel = weight.shape[2:]
    whole = [
        (n - 1) * s + d * (k - 1) + 1 + extra
        for n, k, s, d, extra in zip(
            x.shape[2:], kernel, strides, dilations, output_padding, strict=True
        )
    ]
    reads, writes = x.shape[1] // groups, weight.shape[1]
    out = np.zeros((x.shape[0], writes * groups, *whole), dtype=object)
    for place, window in _windows(x.shape[2:], kernel, strides, dilations):
        for sample, channel in np.ndindex(*x.shape[:2]):
            value = x[(sample, channel, *place)]
            if _is_zero(value):
                continue
            first = channel // reads * writes
            for row in range(writes):
                patch = out[(sample, first + row, *window)]
                for tap in np.ndindex(*kernel):
                    patch[tap] = patch[tap] + weight[(channel, row, *tap)] * value
    cut = tuple(
        slice(before, size - after)
        for before, after, size in zip(pads[:axes], pads[axes:], whole, strict=True)
    )
    return np.asarray(out[(slice(None), slice(None), *cut)])


def average_pool(
    x: Array,
    *,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Array:
    """AveragePool: the divisor counts the padding or not, and never what is beyond it."""
    axes = len(kernel)
    sizes = []
    for n, k, s, before, after in zip(
        x.shape[2:], kernel, strides, pads[:axes], pads[axes:], strict=True
    ):
        rest = n + before + after - k
        out = -(-rest // s) + 1 if ceil_mode else rest // s + 1
        sizes.append(out - 1 if ceil_mode and (out - 1) * s >= n + before else out)
    found = np.empty((*x.shape[:2], *sizes), dtype=object)
    for place in product(*map(range, sizes)):
        inside, divisor = [], 1
        for o, n, k, s, before, after in zip(
            place, x.shape[2:], kernel, strides, pads[:axes], pads[axes:], strict=True
        ):
            start = o * s - before
            first, last = max(start, 0), min(start + k, n)
            inside.append(slice(first, last))
            divisor *= min(start + k, n + after) - start if count_include_pad else last - first
        for sample, channel in np.ndindex(*x.shape[:2]):
            window = x[(sample, channel, *inside)]
            total: Any = sum(window.reshape(-1).tolist())
            found[(sample, channel, *place)] = total / divisor
    return found


# ------------------------------------------------------------------------------------- resizing


def resized(
    x: Array,
    sizes: Sequence[int],
    scales: Sequence[float],
    *,
    mode: str,
    coordinates: str,
    cubic: float,
) -> Array:
    """Resize, axis by axis: each position is a mixture of a few."""
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True)):
        n = x.shape[axis]
        if n == size and scale == 1:
            continue
        columns = []
        for position in range(size):
            column: Any = 0
            for source, share in _mixture(position, n, size, scale, mode, coordinates, cubic):
                column = column + np.take(x, source, axis) * _exact(share)
            columns.append(column)
        x = np.stack(columns, axis)
    return x


def _exact(share: float) -> Any:
    near = Fraction(share).limit_denominator(1 << 12)
    return near if abs(float(near) - share) < 1e-12 else share


def _mixture(
    position: int, n: int, size: int, scale: float, mode: str, coordinates: str, cubic: float
) -> Iterator[tuple[int, float]]:
    """Positions of the input and their shares in an output."""
    if coordinates == "align_corners":
        place = position * (n - 1) / (size - 1) if size > 1 else 0.0
    elif coordinates == "asymmetric":
        place = position / scale
    else:
        place = (position + 0.5) / scale - 0.5
    if mode == "nearest":
        yield min(floor(place), n - 1), 1.0
        return
    if mode == "linear":
        place = min(max(place, 0.0), n - 1.0)
        first = min(floor(place), n - 1)
        share = place - first
        yield first, 1 - share
        if share:
            yield first + 1, share
        return
    first = floor(place)
    for step in range(-1, 3):
        share = _cubic(abs(place - first - step), cubic)
        if share:
            yield min(max(first + step, 0), n - 1), share


def _cubic(distance: float, a: float) -> float:
    """The kernel of Keys (1981), equation 4."""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1
    if distance < 2:
        return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return 0.0
