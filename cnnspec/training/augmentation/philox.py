"""Random numbers that are a function of what they are for: seed, epoch, sample and stream.

A counter-based generator (Philox4x32-10; Salmon and others, Parallel Random Numbers: As Easy as 1,
2, 3, 2011), vectorised over samples. Nothing is drawn in sequence, so the numbers of a sample
depend on no other sample, on no process and on no device. What they become may not enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CUTTING", "MIXING", "Floats", "Integers", "Keys", "normals", "philox", "uniform"]

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]

MIXING = 0xFFFF
CUTTING = 0xFFFE
"""Streams of what is no call of a recipe; the stream of a call is its position there."""

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_FACTORS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Four words of 32 bits for each counter of four words, all held in uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = _FACTORS[0] * c0, _FACTORS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _WORD,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def uniform(
    seed: int, epoch: int, samples: Integers, stream: int, count: int, *, first: int = 0
) -> Floats:
    """`count` numbers for each sample, N x count, evenly in (0, 1): never 0 and never 1.

    `first`, a multiple of four, skips so many numbers of the stream. Seeds count modulo 2^64; an
    epoch is below 2^32, the number of a sample below 2^48, a stream below 2^16.
    """
    numbers = np.asarray(samples, np.uint64)
    blocks = np.arange(first // 4, first // 4 - (-count // 4), dtype=np.uint64)
    upper = (numbers >> _HALF) << np.uint64(16)
    shape = (len(numbers), len(blocks))
    words = philox(
        (
            np.broadcast_to(blocks, shape),
            np.broadcast_to((numbers & _WORD)[:, None], shape),
            np.full(shape, epoch, np.uint64),
            np.broadcast_to((upper | np.uint64(stream))[:, None], shape),
        ),
        (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF),
    )
    flat = np.stack(words, axis=2).reshape(len(numbers), 4 * len(blocks))[:, :count]
    return (flat.astype(np.float64) + 0.5) * 2.0**-32


def normals(drawn: Floats) -> Floats:
    """Standard normal numbers of uniform ones, an even number of them along the last axis.

    Box and Muller's transform (1958).
    """
    radius = np.sqrt(-2 * np.log(drawn[..., 0::2]))
    angle = 2 * np.pi * drawn[..., 1::2]
    pairs = np.stack((radius * np.cos(angle), radius * np.sin(angle)), axis=-1)
    return pairs.reshape(drawn.shape)


@dataclass(frozen=True, slots=True)
class Keys:
    """What the numbers of a batch are a function of: for each sample a stream of its own."""

    seed: int
    epoch: int
    samples: Integers
    stream: int

    def of(self, chosen: Integers) -> Keys:
        """The keys of some of the samples, by their places in the batch."""
        return Keys(self.seed, self.epoch, self.samples[chosen], self.stream)

    def uniform(self, count: int, *, first: int = 0) -> Floats:
        """`count` numbers in (0, 1) for each sample, N x count, behind `first` of its stream."""
        return uniform(self.seed, self.epoch, self.samples, self.stream, count, first=first)

    def normal(self, count: int, *, first: int = 0) -> Floats:
        """`count` standard normal numbers for each sample, N x count; they use up as many."""
        return normals(self.uniform(count + count % 2, first=first))[:, :count]

    def beta(self, alpha: float) -> Floats:
        """A number for each sample of the beta distribution of which both parameters are `alpha`.

        It is 0 or 1 where a float cannot tell it from that, as with a small `alpha`.
        """
        apart = self._log_gamma(alpha, 1) - self._log_gamma(alpha, 0)
        return np.asarray(1 / (1 + np.exp(np.clip(apart, -700, 700))), np.float64)

    def _log_gamma(self, shape: float, part: int) -> Floats:
        """The logarithm of a number for each sample of the gamma distribution of that shape.

        Marsaglia and Tsang's rejection (2000), with their step for shapes below 1, in logarithms:
        a small shape gives numbers smaller than any float. `part`, 0 or 1, are independent.
        """
        d = (shape + 1 if shape < 1 else shape) - 1 / 3
        c = 1 / np.sqrt(9 * d)
        found = np.full(len(self.samples), np.nan)
        attempt = 1
        while np.isnan(found).any():
            drawn = self.uniform(4, first=4 * (2 * attempt + part))
            x = normals(drawn[:, :2])[:, 0]
            v = (1 + c * x) ** 3
            positive = np.where(v > 0, v, 1.0)
            log = np.log(positive)
            fits = (v > 0) & (np.log(drawn[:, 2]) < x * x / 2 + d * (1 - positive + log))
            found = np.where(np.isnan(found) & fits, np.log(d) + log, found)
            attempt += 1
        if shape < 1:
            found = found + np.log(self.uniform(1, first=4 * part)[:, 0]) / shape
        return np.asarray(found, np.float64)
