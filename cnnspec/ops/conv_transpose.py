"""Transposed convolution, the gradient of convolution: ConvTranspose1d, 2d and 3d."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from cnnspec.diagnostics import Reject
from cnnspec.geometry import Everything, Transposed, taps_inside, transposed_size
from cnnspec.lower import In, Node, OnnxValue, Own, Tmp, TorchCode, const, module, node
from cnnspec.op import Connections, Example, LinearMap, Look, Op, Ops, Site, arg
from cnnspec.ops._windows import require_channels_first, require_groups, short, unlike_default
from cnnspec.slots import Bool, Int, Size, Word
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, torch_uniform


class _TransposedConvolution(Op, abstract=True):
    """The rules that transposed convolutions of every rank share."""

    out_channels: int = arg(Int(1))
    """Channels of the output."""
    kernel_size: tuple[int, ...] = arg(Size(1))
    """Extent of the patch that each input position writes, along each axis."""
    stride: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the patches of neighbouring input positions."""
    padding: tuple[int, ...] = arg(Size(0), 0)
    """Positions cut off each end of the output: the padding of the convolution this reverses."""
    output_padding: tuple[int, ...] = arg(Size(0), 0)
    """Positions added at the far end of the output, fewer than the stride or the dilation."""
    groups: int = arg(Int(1), 1)
    """Blocks of channels that do not see each other."""
    bias: bool = arg(Bool(), True)
    """Whether each output channel adds a learned constant."""
    dilation: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the positions of a patch."""
    padding_mode: str = arg(Word(("zeros",)), "zeros")
    """torch has `zeros` alone."""

    saves = ("input",)

    def _along(self) -> Iterator[tuple[int, int, int, int, int]]:
        """For each spatial axis: kernel, stride, padding, output padding, dilation."""
        yield from zip(
            self.kernel_size,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
            strict=True,
        )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`(n - 1)*stride - 2*padding + dilation*(kernel - 1) + 1 + output_padding` on an axis."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        require_groups(x.shape[0], "input channel", self.groups, "groups")
        require_groups(self.out_channels, "output channel", self.groups, "groups")
        sizes = []
        for axis, (k, s, p, extra, d) in enumerate(self._along(), start=1):
            n, along = x.shape[axis], x.roles[axis]
            if extra >= max(s, d):
                raise Reject(
                    "output-padding-too-large",
                    f"output padding of {extra} along {along} is not below the stride of {s} "
                    f"or the dilation of {d}",
                    at="output_padding",
                )
            size = transposed_size(n, k, s, p, extra, d)
            if not size:
                whole = transposed_size(n, k, s, 0, extra, d)
                raise Reject(
                    "padding-too-large",
                    f"padding of {p} cuts {2 * p} off the {whole} that the output has along "
                    f"{along}, and leaves nothing",
                    at="padding",
                    label=f"the input is {x}",
                )
            sizes.append(size)
        return (Tensor((self.out_channels, *sizes), x.roles, x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Every output channel looks at input channels, and back through the stride in space."""
        views = (Transposed(k, s, d, p) for k, s, p, _, d in self._along())
        return ((0, Everything()), *enumerate(views, start=1))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (in, out/groups, *kernel) and `bias` (out).

        torch takes the weight's second axis for the fan-in here too.
        """
        shape = (at.x.shape[0], self.out_channels // self.groups, *self.kernel_size)
        start = torch_uniform(prod(shape[1:]))
        found = {"weight": Weight(shape, start)}
        if self.bias:
            found["bias"] = Weight((self.out_channels,), start, decay=False)
        return found

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def _links(self, at: Site) -> int:
        return at.x.elements * (self.out_channels // self.groups) * prod(self.kernel_size)

    def cost(self, at: Site) -> Ops:
        """Inputs times the patch each writes, the part that padding cuts off included."""
        return Ops(mac=self._links(at), add=at.y.elements * self.bias)

    def connections(self, at: Site) -> Connections | None:
        """Inputs times patch, as a convolution counts its padding, and one bias for each output."""
        return Connections(self._links(at), at.y.elements * self.bias)

    def linear_map(self, at: Site) -> LinearMap | None:
        """Output channels lie along the second axis of the weight, once for each group.

        Patches larger than a position overlap less at the border, and their elements differ.
        """
        one = all(k == s == 1 and not extra for k, s, _, extra, _ in self._along())
        return LinearMap(
            "weight",
            "bias" if self.bias else None,
            out_axis=1,
            groups=self.groups,
            in_axis=0,
            keeps_shifts=one,
        )

    def with_bias(self) -> Op:
        """With the argument `bias`."""
        return self.replace(bias=True)

    def padding_macs(self, at: Site) -> int:
        """What is multiplied for outputs that the padding cuts off."""
        met = self._links(at)
        sizes = zip(at.x.shape[1:], at.y.shape[1:], self._along(), strict=True)
        for n, out, (k, s, p, _, d) in sizes:
            met = met * taps_inside(out, n, k, s, d, p) // (n * k)
        return self._links(at) - met

    def torch(self, at: Site) -> TorchCode:
        """`nn.ConvTranspose*d`."""
        written = {
            "stride": (short(self.stride), 1),
            "padding": (short(self.padding), 0),
            "output_padding": (short(self.output_padding), 0),
            "groups": (self.groups, 1),
            "bias": (self.bias, True),
            "dilation": (short(self.dilation), 1),
        }
        return module(
            f"nn.{self.name}",
            at.x.shape[0],
            self.out_channels,
            kernel_size=short(self.kernel_size),
            **unlike_default(written),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """ConvTranspose, behind Pad where output padding reaches the stride.

        ONNX Runtime refuses such output padding. Further inputs of zero write the same: nothing.
        """
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        ends, extra = list(self.padding), list(self.output_padding)
        added = [0] * self.axes
        for axis, (_, s, p, reach, _) in enumerate(self._along()):
            if reach >= s:
                added[axis] = -(-reach // s)
                ends[axis] = p + added[axis] * s - reach
                extra[axis] = 0
        if any(added):
            x = Tmp("padded")
            pads = const((0,) * (self.axes + 4) + tuple(added), "int64")
            nodes = (node("Pad", In(0), pads, to=x, mode="constant"),)
        return (
            *nodes,
            node(
                "ConvTranspose",
                x,
                Own("weight"),
                Own("bias") if self.bias else None,
                kernel_shape=list(self.kernel_size),
                strides=list(self.stride),
                pads=[*self.padding, *ends],
                output_padding=extra,
                dilations=list(self.dilation),
                group=self.groups,
            ),
        )


class ConvTranspose1d(_TransposedConvolution):
    """Writes a weighted patch for each position of a sequence, and adds where patches overlap."""

    axes = 1
    examples = (
        Example({"out_channels": 3, "kernel_size": 4, "stride": 2, "padding": 1}, (2, 5), (3, 10)),
        Example({"out_channels": 4, "kernel_size": 2, "stride": 3, "groups": 2}, (2, 4), (4, 11)),
    )


class ConvTranspose2d(_TransposedConvolution):
    """Writes a weighted patch for each pixel, and adds where patches overlap.

    It is the gradient of Conv2d with the same arguments and so maps its output size back to its
    input size (Zeiler et al., Deconvolutional networks, 2010; Dumoulin and Visin, 2016, chapter 4).
    """

    examples = (
        Example(
            {"out_channels": 8, "kernel_size": 2, "stride": 2},
            (16, 5, 6),
            (8, 10, 12),
            520,
            "the up-convolution of U-Net",
        ),
        Example(
            {
                "out_channels": 4,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
                "output_padding": [1, 0],
                "bias": False,
            },
            (2, 4, 5),
            (4, 8, 9),
        ),
        Example(
            {"out_channels": 6, "kernel_size": [3, 2], "stride": [1, 3], "groups": 2}, (4, 5, 4)
        ),
        Example(
            {"out_channels": 3, "kernel_size": 3, "dilation": 2, "stride": 3, "padding": 2},
            (2, 4, 4),
        ),
        Example(
            {"out_channels": 2, "kernel_size": 3, "dilation": 2, "output_padding": 1},
            (2, 3, 3),
            (2, 8, 8),
            note="output padding below the dilation, not the stride",
        ),
        Example({"out_channels": 2, "kernel_size": 1, "stride": 3}, (2, 3, 3), (2, 7, 7)),
    )


class ConvTranspose3d(_TransposedConvolution):
    """Writes a weighted patch for each voxel, and adds where patches overlap."""

    axes = 3
    examples = (
        Example({"out_channels": 2, "kernel_size": 2, "stride": 2}, (4, 2, 3, 4), (2, 4, 6, 8)),
        Example({"out_channels": 2, "kernel_size": [1, 2, 3], "padding": [0, 1, 1]}, (2, 3, 3, 3)),
    )


__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]
