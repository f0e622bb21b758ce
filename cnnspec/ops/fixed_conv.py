"""FixedConv2d: kernels that are given, not learned, over each channel: Sobel, blur, Laplacian."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from math import prod
from typing import ClassVar

from cnnspec.diagnostics import Reject
from cnnspec.geometry import Nearest, Window
from cnnspec.lower import Node, Own, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, Look, Ops, Saved, Site, arg
from cnnspec.ops._filters import Sliding
from cnnspec.ops._windows import require_channels_first, short, unlike_default
from cnnspec.slots import Float, Kernels
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight

_SOURCE = '''class FixedConv2d(nn.Module):
    """Slides fixed kernels over each channel by itself."""

    kernels: torch.Tensor

    def __init__(
        self,
        kernels: tuple[tuple[tuple[float, ...], ...], ...],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.register_buffer("kernels", torch.tensor(kernels)[:, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        weight = self.kernels.expand(channels, *self.kernels.shape).flatten(0, 1)
        return F.conv2d(x, weight, None, self.stride, self.padding, self.dilation, groups=channels)
'''


class FixedConv2d(Sliding):
    """Slides fixed kernels over each channel of an image by itself.

    With `m` kernels, channels `c*m` to `c*m + m - 1` of the result are those of input channel `c`:
    `kernel: [[1, 2, 1], [2, 4, 2], [1, 2, 1]]` with `scale: 1 / 16` blurs, Sobel's two kernels give
    both derivatives of each channel. What is slid is not flipped, as in Conv2d.
    """

    kernel: tuple[tuple[tuple[float, ...], ...], ...] = arg(Kernels())
    """The kernel as a list of rows, or a list of kernels of one size."""
    scale: float = arg(Float(), 1.0)
    """What every weight is multiplied by; not 0."""

    quantizable = True
    _kernel_from: ClassVar[str] = "kernel"
    examples = (
        Example(
            {"kernel": [[1, 2, 1], [2, 4, 2], [1, 2, 1]], "scale": 0.0625, "padding": 1},
            (3, 6, 7),
            (3, 6, 7),
            0,
            "a blur",
        ),
        Example(
            {
                "kernel": [
                    [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
                    [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
                ],
                "padding": 1,
                "padding_mode": "replicate",
            },
            (2, 6, 7),
            (4, 6, 7),
            note="Sobel: the derivatives across and down",
        ),
        Example({"kernel": [[0.5, -0.5]], "stride": [1, 2], "dilation": 2}, (2, 6, 9), (2, 6, 4)),
        Example(
            {"kernel": [[0, 0, 0, 0], [0, 0, 3, 0], [0, 1, 0, 0]], "dilation": 2, "padding": 2},
            (1, 9, 9),
            (1, 9, 7),
            note="rows and columns of zeros read nothing",
        ),
        Example(
            {"kernel": [[1, 1], [1, 1]], "padding": "same", "padding_mode": "reflect"}, (2, 5, 6)
        ),
    )

    @property
    def _kernel(self) -> tuple[int, ...]:
        return len(self.kernel[0]), len(self.kernel[0][0])

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A channel for each kernel and input channel, sizes as in Conv2d."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        if not self.scale:
            raise Reject("argument-value", "`scale` must not be 0", at="scale")
        if not any(any(map(any, kernel)) for kernel in self.kernel):
            raise Reject("argument-value", "`kernel` has no weight other than 0", at="kernel")
        return (self._slide(x, len(self.kernel) * x.shape[0]),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Nothing is learned."""
        return {}

    def _scaled(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        return tuple(
            tuple(tuple(float(self.scale * weight) for weight in row) for row in kernel)
            for kernel in self.kernel
        )

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """`kernels` (kernels, 1, height, width), which all channels share."""
        values = tuple(weight for kernel in self._scaled() for row in kernel for weight in row)
        return {"kernels": Buffer((len(self.kernel), 1, *self._kernel), values=values)}

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at its own, along each axis as far as the kernels are not zero."""
        rows = [any(any(kernel[row]) for kernel in self.kernel) for row in range(self._kernel[0])]
        columns = [any(column) for column in zip(*chain(*self.kernel), strict=True)]
        looks = []
        for (_, _, s, d, before, _), used in zip(self._along(at.x), (rows, columns), strict=True):
            first, last = used.index(True), len(used) - 1 - used[::-1].index(True)
            looks.append(Window(last - first + 1, s, d, before - first * d))
        return ((0, Nearest(len(self.kernel))), *enumerate(looks, start=1))

    def cost(self, at: Site) -> Ops:
        """Kernel elements times outputs; zeros are multiplied too, as every implementation does."""
        return Ops(mac=prod(self._kernel) * at.y.elements)

    def connections(self, at: Site) -> Connections | None:
        """Kernel elements times outputs."""
        return Connections(prod(self._kernel) * at.y.elements)

    def saved(self, at: Site, batch: int) -> Saved:
        """As of a convolution; several kernels are copied for the channels, one is read by all."""
        found = super().saved(at, batch)
        copied = len(self.kernel) > 1 and at.x.shape[0] > 1
        weights = at.y.shape[0] * prod(self._kernel) if copied else 0
        return found._replace(elements=found.elements + weights)

    def torch(self, at: Site) -> TorchCode:
        """A small class, as torch.nn has none."""
        sides = self._sides(at.x)
        symmetric = all(before == after for before, after in sides)
        inside = symmetric and (self.padding_mode == "zeros" or not any(map(any, sides)))
        written = {
            "stride": (short(self.stride), 1),
            "padding": (short(tuple(before for before, _ in sides)) if inside else 0, 0),
            "dilation": (short(self.dilation), 1),
        }
        return helper(
            self.name,
            _SOURCE,
            self._scaled(),
            feeds=None if inside else (self._torch_pad(sides),),
            products={"F.conv2d": self.cost(at).mac},
            **unlike_default(written),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Tile of the kernels for every channel, which runtimes fold at load, and Conv."""
        channels = at.x.shape[0]
        return (
            node("Tile", Own("kernels"), const((channels, 1, 1, 1), "int64"), to=Tmp("weight")),
            *self._onnx_slide(at, opset, Tmp("weight"), None, channels),
        )


__all__ = ["FixedConv2d"]
