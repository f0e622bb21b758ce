"""Convolution (cross-correlation, as in torch): Conv1d, Conv2d, Conv3d."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from cnnspec.lower import Node, Own, TorchCode, module
from cnnspec.op import Connections, Example, LinearMap, Ops, Site, arg
from cnnspec.ops._filters import SlidingFilters
from cnnspec.ops._windows import require_channels_first, require_groups, short, unlike_default
from cnnspec.slots import Int
from cnnspec.tensor import Tensor
from cnnspec.weights import Weight, torch_uniform


class _Convolution(SlidingFilters, abstract=True):
    """The rules that convolutions of every rank share."""

    out_channels: int = arg(Int(1))
    """Number of filters, the channels of the output."""
    groups: int = arg(Int(1), 1)
    """Blocks of channels that do not see each other; `groups: input.channels` is depthwise."""

    quantizable = True

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`out_channels`, and along each axis as often as the window fits, rounded down."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        require_groups(x.shape[0], "input channel", self.groups, "groups")
        require_groups(self.out_channels, "output channel", self.groups, "groups")
        return (self._slide(x, self.out_channels),)

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (out, in/groups, *kernel) and `bias` (out), torch's uniform initialisation."""
        shape = (self.out_channels, at.x.shape[0] // self.groups, *self.kernel_size)
        start = torch_uniform(prod(shape[1:]))
        found = {"weight": Weight(shape, start)}
        if self.bias:
            found["bias"] = Weight((self.out_channels,), start, decay=False)
        return found

    def _fan_in(self, at: Site) -> int:
        return at.x.shape[0] // self.groups * prod(self.kernel_size)

    def cost(self, at: Site) -> Ops:
        """Fan-in times outputs; the padding is multiplied too, as every implementation does."""
        return Ops(mac=self._fan_in(at) * at.y.elements, add=at.y.elements * self.bias)

    def connections(self, at: Site) -> Connections | None:
        """Fan-in times outputs, and one bias for each output."""
        return Connections(self._fan_in(at) * at.y.elements, at.y.elements * self.bias)

    def linear_map(self, at: Site) -> LinearMap | None:
        """Filters lie along the first axis of the weight, the channels they read on the second."""
        return LinearMap(
            "weight",
            "bias" if self.bias else None,
            out_axis=0,
            groups=self.groups,
            in_axis=1,
            keeps_shifts=not self._adds_zeros(at.x),
        )

    def torch(self, at: Site) -> TorchCode:
        """`nn.Conv*d`, behind `F.pad` where torch has no such padding."""
        sides = self._sides(at.x)
        symmetric = all(before == after for before, after in sides)
        padding: str | int | tuple[int, ...] = 0
        if symmetric:
            padding = short(tuple(before for before, _ in sides))
            if padding and self.padding == "same" and set(self.stride) == {1}:
                padding = "same"
        written = {
            "stride": (short(self.stride), 1),
            "padding": (padding, 0),
            "dilation": (short(self.dilation), 1),
            "groups": (self.groups, 1),
            "bias": (self.bias, True),
            "padding_mode": (self.padding_mode, "zeros"),
        }
        if not (symmetric and padding):
            # With a mode torch pads by nothing too, and keeps the copy for backward.
            written.pop("padding_mode")
        return module(
            f"nn.{self.name}",
            at.x.shape[0],
            self.out_channels,
            kernel_size=short(self.kernel_size),
            feeds=None if symmetric else (self._torch_pad(sides),),
            **unlike_default(written),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Conv, behind Pad where the padding is not zeros."""
        return self._onnx_conv(at, opset, Own("weight"), self.groups)


class Conv1d(_Convolution):
    """Slides filters along a sequence of shape channels x length."""

    axes = 1
    examples = (
        Example({"out_channels": 8, "kernel_size": 3}, (4, 16), (8, 14), 104),
        Example({"out_channels": 4, "kernel_size": 5, "stride": 2, "padding": "same"}, (2, 15)),
        Example({"out_channels": 4, "kernel_size": 3, "dilation": 2, "groups": 2}, (4, 12)),
    )


class Conv2d(_Convolution):
    """Slides filters over an image of shape channels x height x width."""

    examples = (
        Example(
            {"out_channels": 10, "kernel_size": 5, "padding": 2},
            (3, 32, 32),
            (10, 32, 32),
            760,
            "ten 5x5 filters on a colour image",
        ),
        Example(
            {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": "same"},
            (3, 8, 9),
            (6, 4, 5),
            note="`same` with a stride: the odd pixel comes after",
        ),
        Example({"out_channels": 8, "kernel_size": [1, 4], "padding": "same"}, (3, 8, 9)),
        Example(
            {"out_channels": 8, "kernel_size": 3, "groups": 4, "dilation": 2, "bias": False},
            (4, 9, 10),
        ),
        Example(
            {"out_channels": 4, "kernel_size": 3, "padding": [[1, 0], [2, 1]]}, (2, 7, 7), (4, 6, 8)
        ),
        Example(
            {"out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
            (2, 6, 7),
        ),
        Example(
            {"out_channels": 4, "kernel_size": 3, "padding": [1, 2], "padding_mode": "circular"},
            (2, 6, 7),
        ),
        Example(
            {"out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "replicate"},
            (2, 6, 7),
        ),
    )


class Conv3d(_Convolution):
    """Slides filters through a volume of shape channels x depth x height x width."""

    axes = 3
    examples = (
        Example(
            {"out_channels": 4, "kernel_size": 3, "padding": 1}, (2, 5, 6, 7), (4, 5, 6, 7), 220
        ),
        Example({"out_channels": 4, "kernel_size": [1, 2, 3], "stride": [1, 2, 1]}, (2, 5, 6, 7)),
    )


__all__ = ["Conv1d", "Conv2d", "Conv3d"]
