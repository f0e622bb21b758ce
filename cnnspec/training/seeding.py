"""The generators of torch before every step, made from where the step stands and nothing else.

So dropout is the same after a resume, and no generator's state has to be kept. Which numbers
augmentation draws is `augmentation.philox`.
"""

from __future__ import annotations

import torch

__all__ = ["mixed", "seed_step"]

_MASK = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """64 bits that depend on every bit of the numbers and on their order.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), chained.
    """
    state = 0
    for number in numbers:
        state = (state ^ (number & _MASK)) + 0x9E3779B97F4A7C15 & _MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & _MASK
        state ^= state >> 31
    return state


def seed_step(seed: int, epoch: int, step: int, rank: int, device: torch.device) -> None:
    """Start the generators of the CPU and of `device` for one step of one process."""
    number = mixed(seed, epoch, step, rank)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(number)
