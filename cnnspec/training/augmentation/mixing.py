"""Mixup (Zhang and others, 2017) and CutMix (Yun and others, 2019): two samples in one.

Targets become probabilities. Which of the two it is, how much and where is drawn for every sample;
its partner is the one before it in its part of the batch, and the first one's is the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cnnspec.training.augmentation.erasing import covered
from cnnspec.training.augmentation.philox import CUTTING, MIXING, Integers, Keys
from cnnspec.training.augmentation.pixels import factors
from cnnspec.training.augmentation.rectangles import whole

__all__ = ["Mixing"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """Mixes with shares of the beta distribution: both its parameters are `mixup` or `cutmix`.

    Where both are above 0, each sample is mixed in one of the ways, with even chances.
    """

    mixup: float
    cutmix: float
    classes: int
    seed: int

    def __call__(
        self, images: Tensor, targets: Tensor, samples: Integers, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Mixed images, and NxK of float32 from N classes: the shares of both samples' classes."""
        tall, wide = images.shape[-2:]
        drawn = Keys(self.seed, epoch, samples, CUTTING).uniform(3)
        keys = Keys(self.seed, epoch, samples, MIXING)
        cuts = drawn[:, 0] < (0.5 if self.mixup and self.cutmix else float(self.cutmix > 0))
        shares = np.ones(len(samples))
        if self.mixup:
            shares = np.where(cuts, shares, keys.beta(self.mixup))
        partners = images.roll(1, 0)
        mixed = images
        if self.mixup:
            share = factors(shares, images)[:, None, None, None]
            mixed = images * share + partners * (1 - share)
        if self.cutmix:
            half = 0.5 * np.sqrt(1 - keys.beta(self.cutmix))[:, None]
            size = np.asarray([tall, wide])
            middle = whole(drawn[:, 1:3], size)
            first = np.maximum(middle - (half * size).astype(np.int64), 0)
            sides = np.minimum(middle + (half * size).astype(np.int64), size) - first
            sides = np.where(cuts[:, None], sides, 0)
            mixed = torch.where(covered(first, sides, images), partners, mixed)
            shares = np.where(cuts, 1 - sides.prod(axis=1) / (tall * wide), shares)
        own = (targets[:, None] == torch.arange(self.classes, device=targets.device)).float()
        share = factors(shares, images)[:, None]
        return mixed, own * share + own.roll(1, 0) * (1 - share)
