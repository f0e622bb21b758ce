"""Filters that slide over a tensor: what Conv1d to Conv3d and MaskedConv2d have in common.

Which input channels a filter reads, and how its weights are stored, is for the ops themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cnnspec.diagnostics import Reject
from cnnspec.geometry import (
    Everything,
    Window,
    conv_size,
    kernel_extent,
    remainder,
    same_padding,
    unread,
)
from cnnspec.lower import Call, In, Node, OnnxValue, Own, Tmp, call, const, node
from cnnspec.op import Look, Op, Site, arg
from cnnspec.ops._windows import kernel_too_large, require_channels_first
from cnnspec.slots import Bool, Padding, Size, Word
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer

__all__ = ["SlidingFilters"]

_PAD_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


class SlidingFilters(Op, abstract=True):
    """Base of convolutions: the window's arguments and everything that follows from them alone."""

    kernel_size: tuple[int, ...] = arg(Size(1))
    """Extent of a filter along each axis."""
    stride: tuple[int, ...] = arg(Size(1), 1)
    """Step of the filter along each axis."""
    padding: str | tuple[tuple[int, int], ...] = arg(Padding(), 0)
    """Zeros around the input: torch's forms, `same` with any stride, or a pair for each axis."""
    dilation: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the taps of the filter."""
    bias: bool = arg(Bool(), True)
    """Whether each filter adds a learned constant."""
    padding_mode: str = arg(Word(("zeros", "reflect", "replicate", "circular")), "zeros")
    """What stands in the padding."""

    saves = ("input",)

    def _sides(self, x: Tensor) -> tuple[tuple[int, int], ...]:
        """The padding `(before, after)` of each axis."""
        if not isinstance(self.padding, str):
            return self.padding
        along = zip(x.shape[1:], self.kernel_size, self.stride, self.dilation, strict=True)
        return tuple(same_padding(n, k, s, d) for n, k, s, d in along)

    def _along(self, x: Tensor) -> Iterator[tuple[int, int, int, int, int, int]]:
        """For each spatial axis: size, kernel, stride, dilation, padding before and after."""
        for n, k, s, d, (before, after) in zip(
            x.shape[1:], self.kernel_size, self.stride, self.dilation, self._sides(x), strict=True
        ):
            yield n, k, s, d, before, after

    def _slide(self, x: Tensor, filters: int) -> Tensor:
        """The output of `filters` filters.

        `floor((n + before + after - dilation*(kernel-1) - 1) / stride) + 1` along each axis.
        """
        require_channels_first(self.name, self.axes, x)
        sizes = []
        for axis, (n, k, s, d, before, after) in enumerate(self._along(x), start=1):
            extent = kernel_extent(k, d)
            if extent > n + before + after:
                raise kernel_too_large(x, axis, extent, before + after)
            if self.padding_mode in ("reflect", "circular") and max(before, after) > n - (
                self.padding_mode == "reflect"
            ):
                raise Reject(
                    "padding-too-large",
                    f"{self.padding_mode} padding of {max(before, after)} needs more than the "
                    f"{n} that the input has along {x.roles[axis]}",
                    at="padding",
                )
            sizes.append(conv_size(n, k, s, d, before, after))
        return Tensor((filters, *sizes), x.roles, x.batched)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Every output channel looks at input channels, and a kernel along each spatial axis."""
        return (
            (0, Everything()),
            *(
                (axis, Window(k, s, d, before))
                for axis, (_, k, s, d, before, _) in enumerate(self._along(at.x), start=1)
            ),
        )

    def unread(self, at: Site) -> tuple[tuple[int, int, int], ...]:
        """Rows at the far end that the last window does not reach."""
        return tuple(
            (axis, unread(*along), left)
            for axis, along in enumerate(self._along(at.x), start=1)
            if (left := remainder(*along))
        )

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def _torch_pad(self, sides: tuple[tuple[int, int], ...]) -> Call:
        """The input, padded before the module sees it."""
        flat = tuple(side for pair in reversed(sides) for side in pair)
        mode = {} if self.padding_mode == "zeros" else {"mode": self.padding_mode}
        return call("F.pad", In(0), flat, **mode)

    def _onnx_conv(
        self, at: Site, opset: int, weight: OnnxValue, groups: int = 1
    ) -> tuple[Node, ...]:
        """Conv, behind Pad where the padding is not zeros."""
        sides = self._sides(at.x)
        pads = [before for before, _ in sides] + [after for _, after in sides]
        x: In | Tmp = In(0)
        before_nodes: tuple[Node, ...] = ()
        if self.padding_mode != "zeros" and any(pads):
            before_nodes, x = self._onnx_pad(at, sides, opset)
            pads = [0] * len(pads)
        return (
            *before_nodes,
            node(
                "Conv",
                x,
                weight,
                Own("bias") if self.bias else None,
                kernel_shape=list(self.kernel_size),
                strides=list(self.stride),
                pads=pads,
                dilations=list(self.dilation),
                group=groups,
            ),
        )

    def _onnx_pad(
        self, at: Site, sides: tuple[tuple[int, int], ...], opset: int
    ) -> tuple[tuple[Node, ...], Tmp]:
        """Pad; `wrap` came with opset 19, before it circular padding is slices put together."""
        if self.padding_mode != "circular" or opset >= 19:
            full = (0, 0, *(b for b, _ in sides), 0, 0, *(a for _, a in sides))
            padded = Tmp("padded")
            mode = _PAD_MODES[self.padding_mode]
            return (node("Pad", In(0), const(full, "int64"), to=padded, mode=mode),), padded
        nodes: list[Node] = []
        current: In | Tmp = In(0)
        for axis, ((before, after), n) in enumerate(zip(sides, at.x.shape[1:], strict=True), 2):
            parts: list[In | Tmp] = []
            for label, start, stop in (("head", n - before, n), ("tail", 0, after)):
                if start < stop:
                    part = Tmp(f"{label}{axis}")
                    cut = (const((start,), "int64"), const((stop,), "int64"))
                    nodes.append(node("Slice", current, *cut, const((axis,), "int64"), to=part))
                    parts.append(part)
            if parts:
                joined = Tmp(f"wrapped{axis}")
                ordered = [current, parts[-1]] if not before else [parts[0], current, *parts[1:]]
                nodes.append(node("Concat", *ordered, to=joined, axis=axis))
                current = joined
        assert isinstance(current, Tmp)  # some side is padded, or this is not called
        return tuple(nodes), current
