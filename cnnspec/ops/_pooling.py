"""Windows that summarise each channel by itself: what pools and subsampling have in common."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window, kernel_extent, pool_size, remainder
from cnnspec.op import Look, Op, Site, Stateless, arg
from cnnspec.ops._windows import kernel_too_large, require_channels_first, short, unread_rows
from cnnspec.slots import Bool, Nullable, Size
from cnnspec.tensor import Tensor

__all__ = ["Pool", "SlidingPool", "require_kernel_inside"]


def require_kernel_inside(x: Tensor, kernel: tuple[int, ...]) -> None:
    """Reject a kernel larger than `x`, padding and `ceil_mode` not counted."""
    for axis, (n, k) in enumerate(zip(x.shape[1:], kernel, strict=True), start=1):
        if k > n:
            raise kernel_too_large(x, axis, k, 0)


class Pool(Op, abstract=True):
    """Base of what slides a window over each channel: the window, and what follows from it."""

    kernel_size: tuple[int, ...] = arg(Size(1))
    """Extent of the window along each axis."""
    stride: tuple[int, ...] | None = arg(Nullable(Size(1)), None)
    """Step of the window along each axis; the kernel size if null."""

    @property
    def _stride(self) -> tuple[int, ...]:
        return self.kernel_size if self.stride is None else self.stride

    @property
    def _padding(self) -> tuple[int, ...]:
        return (0,) * self.axes

    @property
    def _dilation(self) -> tuple[int, ...]:
        return (1,) * self.axes

    @property
    def _ceil_mode(self) -> bool:
        return False

    def _along(self, x: Tensor) -> Iterator[tuple[int, int, int, int, int]]:
        """For each spatial axis: size, kernel, stride, dilation, padding."""
        yield from zip(
            x.shape[1:], self.kernel_size, self._stride, self._dilation, self._padding, strict=True
        )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels stay; sizes as torch's `pooling_output_shape` has them."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        sizes = []
        for axis, (n, k, s, d, p) in enumerate(self._along(x), start=1):
            if p > k // 2:
                raise Reject(
                    "padding-too-large",
                    f"padding of {p} is more than half of the kernel's {k} along {x.roles[axis]}",
                    at="padding",
                )
            size = pool_size(n, k, s, p, p, d, self._ceil_mode)
            if not size:
                raise kernel_too_large(x, axis, kernel_extent(k, d), 2 * p)
            first = -p % d  # where the first window comes out of the padding; no later one skips n
            if n <= first:
                raise Reject(
                    "window-in-padding",
                    f"the first window sees padding alone along {x.roles[axis]}: it steps from "
                    f"{first - d} to {first}, over the whole input",
                    at="dilation",
                    label=f"the input is {x}",
                )
            sizes.append(size)
        return (x.with_shape(x.shape[0], *sizes),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at itself, and a kernel along each spatial axis."""
        views = (Window(k, s, d, p) for _, k, s, d, p in self._along(at.x))
        return ((0, POINTWISE), *enumerate(views, start=1))

    def unread(self, at: Site) -> tuple[tuple[int, int, int], ...]:
        """Rows at the far end that the last window does not reach.

        None with `ceil_mode`, which reads on until the next window would start in the padding.
        """
        if self._ceil_mode:
            return ()
        return unread_rows((*along, along[-1]) for along in self._along(at.x))

    def _ends(self, at: Site) -> tuple[int, ...]:
        """Padding after each axis that makes ONNX's windows torch's own; negative ones cut.

        ONNX's `ceil_mode` keeps a last window that starts in the padding (it says otherwise from
        opset 19 on, runtimes vary). Without the positions of that window there is nothing to keep.
        """
        ends = []
        for (n, k, s, d, p), size in zip(self._along(at.x), at.y.shape[1:], strict=True):
            floored = size == pool_size(n, k, s, p, p, d, ceil_mode=False)
            dropped = self._ceil_mode and floored
            ends.append(p - remainder(n, k, s, d, p, p) if dropped else p)
        return tuple(ends)


class SlidingPool(Pool, Stateless, abstract=True):
    """Base of pools without weights that may be padded: max and average pooling."""

    padding: tuple[int, ...] = arg(Size(0), 0)
    """Positions added at both ends of each axis, at most half of the kernel."""
    ceil_mode: bool = arg(Bool(), False)
    """Whether a last window that reaches beyond the padding counts, if it starts before it."""

    quantizable = True

    @property
    def _padding(self) -> tuple[int, ...]:
        return self.padding

    @property
    def _ceil_mode(self) -> bool:
        return self.ceil_mode

    def _written(self) -> dict[str, tuple[object, object]]:
        """The arguments as torch's constructor takes them, each with its default there."""
        return {
            "stride": (short(self._stride), short(self.kernel_size)),
            "padding": (short(self.padding), 0),
            "ceil_mode": (self.ceil_mode, False),
        }
