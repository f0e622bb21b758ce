"""Unfold and Fold: an image as a list of its patches, and patches added up to an image."""

from __future__ import annotations

from collections.abc import Iterator
from math import gcd, prod
from typing import Any, NamedTuple

from cnnspec.diagnostics import Reject
from cnnspec.geometry import (
    TABLE_LIMIT,
    Nearest,
    Span,
    Taps,
    Transposed,
    Unknown,
    View,
    Window,
    conv_size,
    kernel_extent,
    remainder,
    taps_inside,
)
from cnnspec.lower import In, Node, OnnxValue, Tmp, TorchCode, const, module, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._padding import onnx_pad
from cnnspec.ops._windows import (
    kernel_too_large,
    require_channels_first,
    short,
    unlike_default,
    unread_rows,
)
from cnnspec.slots import Size
from cnnspec.tensor import Role, Tensor


class _Axis(NamedTuple):
    """The patches along one axis of the image."""

    n: int
    kernel: int
    stride: int
    dilation: int
    padding: int

    @property
    def patches(self) -> int:
        return conv_size(
            self.n, self.kernel, self.stride, self.dilation, self.padding, self.padding
        )

    def span(self, patch: int) -> Span | None:
        """The first and last position of the image that a patch has; None if it is all padding."""
        start = patch * self.stride - self.padding
        first = max(0, -(start // self.dilation))
        last = min(self.kernel - 1, (self.n - 1 - start) // self.dilation)
        if first > last:
            return None
        return start + first * self.dilation, start + last * self.dilation

    @property
    def written(self) -> int:
        """Values of patches that lie in the image, padding left out."""
        along = self.kernel, self.stride, self.dilation, self.padding
        return taps_inside(self.n, self.patches, *along)

    @property
    def reached(self) -> int:
        """Positions of the image that lie in some patch.

        `stride*patch + dilation*tap` is the same for patches and taps that differ by whole turns of
        `dilation/common` and `-stride/common`; of those, the one with the smallest tap is counted.
        """
        common = gcd(self.stride, self.dilation)
        turn = self.stride // common
        patches, taps = self.patches - self.dilation // common, self.kernel - turn
        shift = self.padding - turn * self.dilation
        again = taps_inside(self.n, patches, taps, self.stride, self.dilation, shift)
        return self.written - again


class _Patches(Stateless, abstract=True):
    """What cutting into patches and putting them back have in common."""

    kernel_size: tuple[int, ...] = arg(Size(1))
    """Height and width of a patch."""
    dilation: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the pixels of a patch."""
    padding: tuple[int, ...] = arg(Size(0), 0)
    """Zeros around the image, at both ends of each axis."""
    stride: tuple[int, ...] = arg(Size(1), 1)
    """Step from patch to patch."""

    quantizable = True
    saves = ()

    def _along(self, sizes: tuple[int, ...]) -> Iterator[_Axis]:
        yield from map(_Axis, sizes, self.kernel_size, self.stride, self.dilation, self.padding)

    def _written(self) -> dict[str, Any]:
        return unlike_default(
            {
                "dilation": (short(self.dilation), 1),
                "padding": (short(self.padding), 0),
                "stride": (short(self.stride), 1),
            }
        )


class Unfold(_Patches):
    """Cuts an image into patches: a token for each, as im2col does.

    The result is `channels*kernel` x patches, channel by channel, the patches row by row. A
    convolution is a matrix times this.
    """

    examples = (
        Example({"kernel_size": 3}, (2, 5, 6), (18, 12), 0),
        Example({"kernel_size": 4, "stride": 4}, (3, 8, 12), (48, 6), note="patches of a ViT"),
        Example(
            {"kernel_size": [2, 3], "dilation": [2, 1], "padding": [1, 2], "stride": [1, 2]},
            (3, 5, 6),
            (18, 20),
        ),
        Example({"kernel_size": [5, 2], "stride": 2}, (2, 5, 8), (20, 4), note="one row of them"),
        Example({"kernel_size": [2, 4], "padding": [1, 0]}, (2, 5, 4), (16, 6), note="one column"),
        Example({"kernel_size": 1, "padding": 2}, (1, 2, 3), (1, 42), note="patches of padding"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A channel for each value of a patch, a token for each patch."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        patches = 1
        for number, axis in enumerate(self._along(x.shape[1:]), start=1):
            if not axis.patches:
                extent = kernel_extent(axis.kernel, axis.dilation)
                raise kernel_too_large(x, number, extent, 2 * axis.padding)
            patches *= axis.patches
        values = x.shape[0] * prod(self.kernel_size)
        return (Tensor((values, patches), (Role.CHANNEL, Role.TOKEN), x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Both axes of the image lie along the tokens, one of them alone where it has one patch."""
        height, width = self._along(at.x.shape[1:])
        rows, columns = height.patches, width.patches
        channels = Nearest(prod(self.kernel_size))
        if rows == 1 or columns == 1:
            looks = (
                (1, _window(axis)) if axis.patches > 1 else (None, _window(axis))
                for axis in (height, width)
            )
            return ((0, channels), *looks)
        if rows * columns > TABLE_LIMIT:
            long = Unknown(f"{rows * columns} patches along one axis are too many to list")
            return ((0, channels), (1, long), (1, long))
        down = [height.span(row) for row in range(rows)]
        across = tuple(width.span(column) for column in range(columns))
        along_rows: View = Taps(tuple(span for span in down for _ in range(columns)))
        return ((0, channels), (1, along_rows), (1, Taps(across * rows)))

    def unread(self, at: Site) -> tuple[tuple[int, int, int], ...]:
        """Rows at the far end that no patch reaches."""
        return unread_rows(
            (a.n, a.kernel, a.stride, a.dilation, a.padding, a.padding)
            for a in self._along(at.x.shape[1:])
        )

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`nn.Unfold`."""
        return module("nn.Unfold", short(self.kernel_size), **self._written())

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Pad, Gather rows and then columns of all patches, Transpose, Reshape."""
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        if any(self.padding):
            x = Tmp("padded")
            sides = tuple((p, p) for p in self.padding)
            nodes = onnx_pad(In(0), sides, "zeros", opset, x)
        rows, columns = (
            const(
                tuple(
                    tuple(patch * a.stride + tap * a.dilation for patch in range(a.patches))
                    for tap in range(a.kernel)
                ),
                "int64",
            )
            for a in self._along(at.x.shape[1:])
        )
        return (
            *nodes,
            node("Gather", x, rows, to=Tmp("rows"), axis=2),
            node("Gather", Tmp("rows"), columns, to=Tmp("patches"), axis=4),
            node("Transpose", Tmp("patches"), to=Tmp("ordered"), perm=[0, 1, 2, 4, 3, 5]),
            node("Reshape", Tmp("ordered"), shape(0, *at.y.shape)),
        )


class Fold(_Patches):
    """Puts patches back in their places and adds where they overlap: Unfold's transpose.

    The input is `channels*kernel` x patches, as Unfold gives it.
    """

    output_size: tuple[int, ...] = arg(Size(1))
    """Height and width of the image."""

    quantizable = False

    examples = (
        Example({"output_size": [8, 12], "kernel_size": 4, "stride": 4}, (48, 6), (3, 8, 12), 0),
        Example(
            {"output_size": [5, 6], "kernel_size": 3},
            (18, 12),
            (2, 5, 6),
            note="patches that overlap",
        ),
        Example(
            {
                "output_size": [5, 6],
                "kernel_size": [2, 3],
                "dilation": [2, 1],
                "padding": [1, 2],
                "stride": [1, 2],
            },
            (18, 20),
            (3, 5, 6),
        ),
        Example(
            {"output_size": [2, 7], "kernel_size": [2, 1], "stride": 3},
            (2, 3),
            (1, 2, 7),
            note="one row of patches, gaps between them",
        ),
        Example({"output_size": [8, 3], "kernel_size": 3, "stride": 2}, (18, 3), (2, 8, 3)),
        Example({"output_size": 3, "kernel_size": 3}, (18, 1), (2, 3, 3), note="one patch"),
        Example({"output_size": [2, 3], "kernel_size": 1, "padding": 2}, (1, 42), (1, 2, 3)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """An image of the size asked for."""
        x = inputs[0]
        if x.rank != 2 or x.roles[0] not in (Role.CHANNEL, Role.FEATURE):
            raise Reject(
                "input-rank",
                f"`Fold` needs the values of patches and the patches, its input is {x}",
                at=0,
            )
        values, patches = x.shape
        area = prod(self.kernel_size)
        if values % area:
            kernel = "x".join(map(str, self.kernel_size))
            raise Reject(
                "unflatten-size",
                f"{values} cannot be split into patches of {kernel}",
                at="kernel_size",
                label=f"the input is {x}",
            )
        rows, columns = (axis.patches for axis in self._along(self.output_size))
        if rows * columns != patches:
            raise Reject(
                "unflatten-size",
                f"an image of this size has {rows}x{columns} patches, the input has {patches}",
                at="output_size",
                label=f"the input is {x}",
            )
        roles = (Role.CHANNEL, Role.HEIGHT, Role.WIDTH)
        return (Tensor((values // area, *self.output_size), roles, x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Along an axis that has all patches to itself; on a grid their order is lost."""
        axes = tuple(self._along(at.y.shape[1:]))
        own = Window(prod(self.kernel_size), prod(self.kernel_size))
        several = [(number, axis) for number, axis in enumerate(axes, 1) if axis.patches > 1]
        if len(several) > 1:
            return ((0, own), (None, Unknown("patches were laid out in rows and columns")))
        number, axis = several[0] if several else (1, axes[0])
        view: View = Transposed(axis.kernel, axis.stride, axis.dilation, axis.padding)
        return ((0, own), (number, view))

    def cost(self, at: Site) -> Ops:
        """An addition for each value that meets another at its pixel; the padding is dropped."""
        written = reached = at.y.shape[0]
        for axis in self._along(at.y.shape[1:]):
            written *= axis.written
            reached *= axis.reached
        return Ops(add=written - reached)

    def torch(self, at: Site) -> TorchCode:
        """`nn.Fold`."""
        sizes = short(self.output_size), short(self.kernel_size)
        return module("nn.Fold", *sizes, **self._written())

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """ConvTranspose with kernels of a single one, which write each value where it belongs.

        Channels are folded one by one, in the place of samples.
        """
        axes = tuple(self._along(at.y.shape[1:]))
        area = prod(self.kernel_size)
        single = tuple(float(value == place) for value in range(area) for place in range(area))
        rest = [remainder(a.n, a.kernel, a.stride, a.dilation, a.padding, a.padding) for a in axes]
        return (
            node("Reshape", In(0), shape(-1, area, *(a.patches for a in axes)), to=Tmp("grid")),
            node(
                "ConvTranspose",
                Tmp("grid"),
                const(single, shape=(area, 1, *self.kernel_size)),
                kernel_shape=list(self.kernel_size),
                strides=list(self.stride),
                pads=[*self.padding, *self.padding],
                output_padding=rest,
                dilations=list(self.dilation),
                to=Tmp("image"),
            ),
            node("Reshape", Tmp("image"), shape(-1, *at.y.shape)),
        )


def _window(axis: _Axis) -> View:
    return Window(axis.kernel, axis.stride, axis.dilation, axis.padding)


__all__ = ["Fold", "Unfold"]
