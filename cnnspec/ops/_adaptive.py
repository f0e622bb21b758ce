"""Windows that follow from the size asked for: what adaptive pools have in common."""

from __future__ import annotations

from math import gcd, prod

from cnnspec.geometry import POINTWISE, adaptive_taps
from cnnspec.lower import TorchCode, module
from cnnspec.op import Look, Op, Site, Stateless, arg
from cnnspec.ops import bind
from cnnspec.ops._windows import require_channels_first
from cnnspec.ops.identity import Identity
from cnnspec.slots import Size
from cnnspec.tensor import Tensor

__all__ = ["AdaptivePool", "bins"]


class AdaptivePool(Stateless, abstract=True):
    """Base of pools that divide each axis among the outputs asked for."""

    output_size: tuple[int | None, ...] = arg(Size(1, nullable=True))
    """Size of the output along each axis; null keeps the input's."""

    quantizable = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels stay; each axis gets the size asked for."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        sizes = (out or n for n, out in zip(x.shape[1:], self.output_size, strict=True))
        return (x.with_shape(x.shape[0], *sizes),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at itself, and along each axis as adaptive pooling divides it."""
        sizes = zip(at.x.shape[1:], at.y.shape[1:], strict=True)
        views = (adaptive_taps(n, out) for n, out in sizes)
        return ((0, POINTWISE), *enumerate(views, start=1))

    def _fixed(self, at: Site, pool: type[Op]) -> Op | None:
        """The `pool` with windows as large as those here, where all of an axis are alike.

        A window that is the whole axis moves by single positions, others side by side.
        """
        sizes = list(zip(at.x.shape[1:], at.y.shape[1:], strict=True))
        if all(n == out for n, out in sizes):
            return bind(Identity, {})
        if any(n % out for n, out in sizes):
            return None
        kernel = [n // out for n, out in sizes]
        stride = [1 if out == 1 else n // out for n, out in sizes]
        return bind(pool, {"kernel_size": kernel, "stride": stride})

    def _combined(self, at: Site) -> int:
        """How often two values are combined: one less than its positions in each window."""
        read = at.x.shape[0] * prod(map(_read, at.x.shape[1:], at.y.shape[1:]))
        return read - at.y.elements

    def torch(self, at: Site) -> TorchCode:
        """The module of that name in torch.nn."""
        size = self.output_size
        same = len(set(size)) == 1 and size[0] is not None
        return module(f"nn.{self.name}", size[0] if same else size)


def _read(n: int, out: int) -> int:
    """Positions of all windows along an axis.

    Neighbouring windows share a position at each of their boundaries that cuts through one;
    `gcd(n, out)` of the `out` boundaries do not.
    """
    rest = n % out
    return n + out - gcd(rest, out) if rest else n


def bins(n: int, out: int) -> tuple[tuple[int, int], ...]:
    """The half-open stretch of `n` positions that each of `out` outputs reads."""
    return tuple((i * n // out, -(-(i + 1) * n // out)) for i in range(out))
