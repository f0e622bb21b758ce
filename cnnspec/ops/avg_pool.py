"""Average pooling: AvgPool1d, AvgPool2d, AvgPool3d."""

from __future__ import annotations

from math import prod

from cnnspec.lower import In, Node, OnnxValue, Out, Tmp, TorchCode, const, module, node
from cnnspec.op import Example, Ops, Site, arg
from cnnspec.ops._pooling import SlidingPool, require_kernel_inside
from cnnspec.ops._windows import short, unlike_default
from cnnspec.slots import Bool, Int, Nullable
from cnnspec.tensor import Tensor


class _AvgPool(SlidingPool, abstract=True):
    """The rules that average pools of every rank share."""

    count_include_pad: bool = arg(Bool(), True)
    """Whether the divisor counts the padding that a window covers."""

    saves = ("input",)

    @property
    def _divisor(self) -> int | None:
        return None

    def cost(self, at: Site) -> Ops:
        """One addition less than the window has positions, and a division, for each output."""
        outputs = at.y.elements
        return Ops(add=(prod(self.kernel_size) - 1) * outputs, div=outputs)

    def torch(self, at: Site) -> TorchCode:
        """`nn.AvgPool*d`."""
        written = {
            **self._written(),
            "count_include_pad": (self.count_include_pad, True),
            "divisor_override": (self._divisor, None),
        }
        return module(f"nn.{self.name}", short(self.kernel_size), **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """AveragePool, behind Pad where ONNX and its runtimes divide by something else.

        torch's divisor counts the padding, but not what `ceil_mode` adds beyond it. AveragePool
        over a padded input without padding of its own says just that.
        """
        if self._divisor is not None:
            return self._onnx_sum(at, self._divisor)
        before, ends = self.padding, self._ends(at)
        explicit = self.ceil_mode and self.count_include_pad and any(self.padding)
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        if explicit:
            x, nodes = self._onnx_pad(before, ends)
            before = ends = (0,) * self.axes
        elif any(end < 0 for end in ends):
            x, nodes = self._onnx_pad((0,) * self.axes, tuple(min(0, end) for end in ends))
            ends = tuple(max(0, end) for end in ends)
        return (
            *nodes,
            node(
                "AveragePool",
                x,
                kernel_shape=list(self.kernel_size),
                strides=list(self._stride),
                pads=[*before, *ends],
                ceil_mode=int(self.ceil_mode),
                count_include_pad=int(self.count_include_pad and any(before)),
            ),
        )

    def _onnx_sum(self, at: Site, divisor: int) -> tuple[Node, ...]:
        """The sum of each window over a divisor of its own, from a mean over whole windows."""
        ends = self.padding
        if self.ceil_mode:
            along = zip(self._along(at.x), at.y.shape[1:], strict=True)
            ends = tuple((size - 1) * s + k - n - p for (n, k, s, _, p), size in along)
        padded, nodes = self._onnx_pad(self.padding, ends)
        mean = Tmp("mean")
        whole = prod(self.kernel_size)
        return (
            *nodes,
            node(
                "AveragePool",
                padded,
                to=mean,
                kernel_shape=list(self.kernel_size),
                strides=list(self._stride),
            ),
            node("Mul", mean, const(whole / divisor), to=Out(0)),
        )

    def _onnx_pad(
        self, before: tuple[int, ...], ends: tuple[int, ...]
    ) -> tuple[OnnxValue, tuple[Node, ...]]:
        if not any(before) and not any(ends):
            return In(0), ()
        padded = Tmp("padded")
        pads = const((0, 0, *before, 0, 0, *ends), "int64")
        return padded, (node("Pad", In(0), pads, to=padded, mode="constant"),)


class AvgPool1d(_AvgPool):
    """The mean of each window of a sequence."""

    axes = 1
    examples = (
        Example({"kernel_size": 2}, (3, 9), (3, 4), 0),
        Example({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (3, 8), (3, 5)),
    )


class _AvgPoolDivided(_AvgPool, abstract=True):
    """Adds the argument that torch has for images and volumes only."""

    divisor_override: int | None = arg(Nullable(Int(1)), None)
    """What the sum of a window is divided by, instead of its number of positions."""

    @property
    def _divisor(self) -> int | None:
        return self.divisor_override


class AvgPool2d(_AvgPoolDivided):
    """The mean of each window of an image."""

    examples = (
        Example({"kernel_size": 2}, (4, 8, 9), (4, 4, 4)),
        Example({"kernel_size": 3, "stride": 2, "padding": 1}, (2, 7, 8)),
        Example(
            {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
            (2, 8, 9),
            (2, 5, 5),
            note="the last window reaches beyond the padding, which the divisor does not count",
        ),
        Example(
            {
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
                "ceil_mode": True,
                "count_include_pad": False,
            },
            (2, 8, 9),
        ),
        Example(
            {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
            (2, 5, 6),
            (2, 2, 3),
            note="a window that would start in the padding is dropped, on one axis here",
        ),
        Example(
            {
                "kernel_size": [2, 1],
                "stride": [3, 4],
                "padding": [1, 0],
                "ceil_mode": True,
                "count_include_pad": False,
            },
            (2, 5, 6),
        ),
        Example({"kernel_size": 2, "divisor_override": 1}, (2, 5, 6), note="sums"),
        Example(
            {
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
                "ceil_mode": True,
                "divisor_override": 4,
            },
            (2, 8, 9),
        ),
    )


class AvgPool3d(_AvgPoolDivided):
    """The mean of each window of a volume."""

    axes = 3
    examples = (
        Example({"kernel_size": 2}, (2, 4, 5, 6), (2, 2, 2, 3)),
        Example(
            {"kernel_size": 3, "stride": 2, "padding": [0, 1, 1], "ceil_mode": True}, (2, 4, 6, 7)
        ),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As for images, but torch wants the whole kernel inside the input, padding not counted."""
        outputs = super().infer(inputs)
        require_kernel_inside(inputs[0], self.kernel_size)
        return outputs


__all__ = ["AvgPool1d", "AvgPool2d", "AvgPool3d"]
