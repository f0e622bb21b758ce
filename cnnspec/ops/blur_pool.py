"""BlurPool2d: downsampling behind a blur, so that networks stay invariant to shifts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import comb

from cnnspec.geometry import POINTWISE, Window, conv_size, taps_inside
from cnnspec.lower import In, Node, OnnxValue, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, Look, Op, Ops, Saved, Site, arg
from cnnspec.ops._padding import PADDING_MODES, onnx_pad, require_source
from cnnspec.ops._windows import (
    kernel_too_large,
    require_channels_first,
    unlike_default,
    unread_rows,
)
from cnnspec.slots import Int, Word
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight

_SOURCE = '''class BlurPool2d(nn.Module):
    """Blurs each channel with a binomial filter and keeps every `stride`-th pixel."""

    filt: torch.Tensor

    def __init__(
        self, kernel_size: int = 3, stride: int = 2, padding_mode: str = "reflect"
    ) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (stride + kernel_size - 2) // 2
        self.mode = "constant" if padding_mode == "zeros" else padding_mode
        row = torch.tensor([float(math.comb(kernel_size - 1, k)) for k in range(kernel_size)])
        row = row / 2 ** (kernel_size - 1)
        self.register_buffer("filt", (row[:, None] * row)[None, None], persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        if self.padding:
            x = F.pad(x, (self.padding,) * 4, self.mode)
        weight = self.filt.expand(channels, -1, -1, -1)
        return F.conv2d(x, weight, stride=self.stride, groups=channels)
'''


class BlurPool2d(Op):
    """Blurs each channel with a binomial filter and keeps every `stride`-th pixel.

    Zhang, Making convolutional networks shift-invariant again (2019); equal to timm's BlurPool2d,
    which pads `(stride + kernel_size - 2) // 2` on all sides. Zhang's own code pads an even kernel
    by one pixel less in front.
    """

    kernel_size: int = arg(Int(1), 3)
    """Edge of the filter, whose rows are binomial coefficients: 1 2 1 for 3, 1 4 6 4 1 for 5."""
    stride: int = arg(Int(1), 2)
    """Step of the filter."""
    padding_mode: str = arg(Word(PADDING_MODES), "reflect")
    """What stands in the padding."""

    quantizable = True
    saves = ("input",)
    examples = (
        Example({}, (3, 8, 9), (3, 4, 5), 0),
        Example({"kernel_size": 5, "stride": 1}, (2, 6, 7), (2, 6, 7)),
        Example({"kernel_size": 4}, (2, 7, 8), (2, 4, 5)),
        Example({"kernel_size": 1}, (2, 7, 8), (2, 4, 4), note="keeps every second pixel"),
        Example({"kernel_size": 7, "stride": 3, "padding_mode": "zeros"}, (1, 9, 11), (1, 4, 5)),
        Example({"kernel_size": 3, "padding_mode": "circular"}, (2, 6, 5), (2, 3, 3)),
        Example({"kernel_size": 2, "padding_mode": "replicate"}, (2, 6, 5), (2, 4, 3)),
    )

    @property
    def _pad(self) -> int:
        return (self.stride + self.kernel_size - 2) // 2

    def _along(self, x: Tensor) -> Iterator[tuple[int, int, int, int, int, int]]:
        """For each spatial axis: size, kernel, stride, dilation, padding before and after."""
        for n in x.shape[1:]:
            yield n, self.kernel_size, self.stride, 1, self._pad, self._pad

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels stay; sizes are `floor((n + 2*padding - kernel_size) / stride) + 1`."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        require_source(x, ((self._pad, self._pad),) * self.axes, self.padding_mode, "kernel_size")
        sizes = []
        for axis, along in enumerate(self._along(x), start=1):
            size = conv_size(*along)
            if not size:
                raise kernel_too_large(x, axis, self.kernel_size, 2 * self._pad)
            sizes.append(size)
        return (x.with_shape(x.shape[0], *sizes),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """Nothing is learned."""
        return {}

    def _filter(self) -> tuple[float, ...]:
        order = self.kernel_size - 1
        row = [comb(order, k) / 2**order for k in range(order + 1)]
        return tuple(down * across for down in row for across in row)

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """`filt`, timm's name; it follows from the kernel's size, so it is not stored."""
        edge = self.kernel_size
        return {"filt": Buffer((1, 1, edge, edge), values=self._filter(), persistent=False)}

    def cost(self, at: Site) -> Ops:
        """Filter elements times outputs."""
        return Ops(mac=self.kernel_size**2 * at.y.elements)

    def connections(self, at: Site) -> Connections | None:
        """None, as for every pooling."""
        return None

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each channel looks at itself, and the filter along each axis."""
        view = Window(self.kernel_size, self.stride, before=self._pad)
        return ((0, POINTWISE), (1, view), (2, view))

    def unread(self, at: Site) -> tuple[tuple[int, int, int], ...]:
        """Rows at the far end that the last window does not reach."""
        return unread_rows(self._along(at.x))

    def saved(self, at: Site, batch: int) -> Saved:
        """The padded copy of the input, with some modes both."""
        if not self._pad:
            return super().saved(at, batch)
        height, width = (n + 2 * self._pad for n in at.x.shape[1:])
        both = self.padding_mode in ("reflect", "replicate")
        return Saved((0,) if both else (), elements=batch * at.x.shape[0] * height * width)

    def padding_macs(self, at: Site) -> int:
        """Taps that fall beside the input; none where the padding repeats the input."""
        if self.padding_mode != "zeros":
            return 0
        met = at.x.shape[0]
        for (n, k, s, d, before, _), out in zip(self._along(at.x), at.y.shape[1:], strict=True):
            met *= taps_inside(n, out, k, s, d, before)
        return self.cost(at).mac - met

    def torch(self, at: Site) -> TorchCode:
        """A small class, as torch.nn has none."""
        written = {
            "kernel_size": (self.kernel_size, 3),
            "stride": (self.stride, 2),
            "padding_mode": (self.padding_mode, "reflect"),
        }
        products = {"F.conv2d": self.cost(at).mac}
        return helper(self.name, _SOURCE, products=products, **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Conv, with the filter once for each channel, behind Pad where that is not zeros."""
        channels, edge, pad = at.x.shape[0], self.kernel_size, self._pad
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        if pad and self.padding_mode != "zeros":
            x = Tmp("padded")
            sides = ((pad, pad),) * self.axes
            nodes = onnx_pad(In(0), sides, self.padding_mode, opset, x)
            pad = 0
        return (
            *nodes,
            node(
                "Conv",
                x,
                const(self._filter() * channels, shape=(channels, 1, edge, edge)),
                kernel_shape=[edge, edge],
                strides=[self.stride] * 2,
                pads=[pad] * 4,
                group=channels,
            ),
        )


__all__ = ["BlurPool2d"]
