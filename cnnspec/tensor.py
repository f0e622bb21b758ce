"""What is known of a tensor before it exists: sizes, roles of axes, whether it has a batch.

The batch axis is never part of a shape here: `3x224x224` is one image. Values, dtypes and devices
may not enter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import prod

__all__ = ["Role", "Tensor", "default_roles"]


class Role(StrEnum):
    """What an axis means. Spatial roles carry a receptive field; the others do not."""

    CHANNEL = "channel"
    DEPTH = "depth"
    HEIGHT = "height"
    WIDTH = "width"
    LENGTH = "length"
    FEATURE = "feature"
    TOKEN = "token"

    @property
    def spatial(self) -> bool:
        """True for the axes along which a convolution slides."""
        return self in _SPATIAL


_SPATIAL = frozenset((Role.DEPTH, Role.HEIGHT, Role.WIDTH, Role.LENGTH))

_DEFAULT_ROLES: dict[int, tuple[Role, ...]] = {
    0: (),
    1: (Role.FEATURE,),
    2: (Role.CHANNEL, Role.LENGTH),
    3: (Role.CHANNEL, Role.HEIGHT, Role.WIDTH),
    4: (Role.CHANNEL, Role.DEPTH, Role.HEIGHT, Role.WIDTH),
}


def default_roles(rank: int) -> tuple[Role, ...] | None:
    """Roles of a network input of `rank` axes (batch not counted), channels first as in torch.

    1 axis is features, 2 a sequence, 3 an image, 4 a volume; None for a rank that has no
    convention.
    """
    return _DEFAULT_ROLES.get(rank)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Sizes and axis roles of a tensor, without its batch axis.

    `batched` is False for a tensor that is the same for every sample, such as a bare `Parameter`:
    it broadcasts in joins and has to be expanded where it is concatenated.
    """

    shape: tuple[int, ...]
    roles: tuple[Role, ...]
    batched: bool = True

    @property
    def rank(self) -> int:
        """Number of axes, batch not counted."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements of one sample."""
        return prod(self.shape)

    def in_batch(self, batch: int) -> int:
        """Number of elements of a batch of `batch` samples."""
        return self.elements * batch if self.batched else self.elements

    @property
    def channels(self) -> int | None:
        """Size of the channel axis, or None where there is none."""
        return self.size(Role.CHANNEL)

    def size(self, role: Role) -> int | None:
        """Size of the first axis with `role`, or None where there is none."""
        return self.shape[self.roles.index(role)] if role in self.roles else None

    def with_shape(self, *shape: int) -> Tensor:
        """The same roles and batch with other sizes."""
        return Tensor(shape, self.roles, self.batched)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) or "scalar"
