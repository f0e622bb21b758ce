"""PixelShuffle and PixelUnshuffle: channels become squares of pixels, and back."""

from __future__ import annotations

from cnnspec.diagnostics import Reject, quantity
from cnnspec.geometry import Nearest, Window
from cnnspec.lower import In, Node, Tmp, TorchCode, const, module, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._windows import require_channels_first
from cnnspec.slots import Int
from cnnspec.tensor import Tensor


class PixelShuffle(Stateless):
    """Lays out every `r*r` channels as a square of pixels (Shi et al. 2016, sub-pixel convolution).

    Channel `c*r*r + i*r + j` at row `y` and column `x` goes to channel `c`, row `y*r + i`, column
    `x*r + j`.
    """

    upscale_factor: int = arg(Int(1))
    """Edge of the square, by which height and width grow."""

    quantizable = True
    saves = ()
    examples = (
        Example({"upscale_factor": 2}, (12, 4, 5), (3, 8, 10), 0),
        Example({"upscale_factor": 3}, (9, 2, 3), (1, 6, 9)),
        Example({"upscale_factor": 1}, (2, 3, 4), (2, 3, 4)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Fewer channels, more pixels."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        factor = self.upscale_factor
        channels, height, width = x.shape
        if channels % factor**2:
            raise Reject(
                "groups-divide",
                f"{quantity(channels, 'input channel')} cannot be laid out as squares of "
                f"{factor}x{factor}, which take {factor**2} each",
                at="upscale_factor",
            )
        return (x.with_shape(channels // factor**2, height * factor, width * factor),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """A square of pixels looks at one, a channel at those it was laid out from."""
        factor = self.upscale_factor
        square = Window(factor**2, factor**2)
        return ((0, square), (1, Nearest(factor)), (2, Nearest(factor)))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`nn.PixelShuffle`."""
        return module("nn.PixelShuffle", self.upscale_factor)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """DepthToSpace, in the order of columns, rows, depth."""
        return (node("DepthToSpace", In(0), blocksize=self.upscale_factor, mode="CRD"),)


class PixelUnshuffle(Stateless):
    """Makes each pixel of an `r*r` square a channel: what undoes PixelShuffle."""

    downscale_factor: int = arg(Int(1))
    """Edge of the square, by which height and width shrink; it divides both."""

    quantizable = True
    saves = ()
    examples = (
        Example({"downscale_factor": 2}, (3, 8, 10), (12, 4, 5), 0),
        Example({"downscale_factor": 3}, (1, 6, 9), (9, 2, 3)),
        Example({"downscale_factor": 1}, (2, 3, 4), (2, 3, 4)),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """More channels, fewer pixels."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        factor = self.downscale_factor
        for n, role in zip(x.shape[1:], x.roles[1:], strict=True):
            if n % factor:
                raise Reject(
                    "unflatten-size",
                    f"{role} is {n}, which cannot be split into squares of {factor}x{factor}",
                    at="downscale_factor",
                )
        channels, height, width = x.shape
        return (x.with_shape(channels * factor**2, height // factor, width // factor),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """A pixel looks at a square, a channel at the one it was a part of."""
        factor = self.downscale_factor
        edge = Window(factor, factor)
        return ((0, Nearest(factor**2)), (1, edge), (2, edge))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def torch(self, at: Site) -> TorchCode:
        """`nn.PixelUnshuffle`."""
        return module("nn.PixelUnshuffle", self.downscale_factor)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape, Transpose, Reshape: SpaceToDepth has the channels of a square last."""
        factor = self.downscale_factor
        channels, (wide, height, width) = at.x.shape[0], at.y.shape
        squares = shape(0, channels, height, factor, width, factor)
        return (
            node("Reshape", In(0), squares, to=Tmp("squares")),
            node("Transpose", Tmp("squares"), to=Tmp("apart"), perm=[0, 1, 3, 5, 2, 4]),
            node("Reshape", Tmp("apart"), shape(0, wide, height, width)),
        )

    def onnx_open(self, at: Site, opset: int) -> tuple[Node, ...]:
        """SpaceToDepth, and its channels in torch's order: those of a pixel behind one another."""
        factor, channels = self.downscale_factor, at.x.shape[0]
        order = tuple(
            place * channels + channel for channel in range(channels) for place in range(factor**2)
        )
        return (
            node("SpaceToDepth", In(0), to=Tmp("deep"), blocksize=factor),
            node("Gather", Tmp("deep"), const(order, "int64"), axis=1),
        )


__all__ = ["PixelShuffle", "PixelUnshuffle"]
