"""Filters that slide over a tensor: what convolutions, learned and fixed, have in common.

Which input channels a filter reads, and how its weights are stored, is for the ops themselves.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from cnnspec.geometry import (
    Everything,
    Window,
    conv_size,
    kernel_extent,
    same_padding,
    taps_inside,
)
from cnnspec.lower import Call, In, Node, OnnxValue, Own, Tmp, call, node
from cnnspec.op import Look, Op, Saved, Site, arg
from cnnspec.ops._padding import PADDING_MODES, onnx_pad, require_source, torch_order
from cnnspec.ops._windows import kernel_too_large, require_channels_first, unread_rows
from cnnspec.slots import Bool, Padding, Size, Word
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer

__all__ = ["Sliding", "SlidingFilters"]


class Sliding(Op, abstract=True):
    """Base of what slides a kernel: how it moves, what surrounds the input, and what follows."""

    stride: tuple[int, ...] = arg(Size(1), 1)
    """Step of the filter along each axis."""
    padding: str | tuple[tuple[int, int], ...] = arg(Padding(), 0)
    """Zeros around the input: torch's forms, `same` with any stride, or a pair for each axis."""
    dilation: tuple[int, ...] = arg(Size(1), 1)
    """Distance between the taps of the filter."""
    padding_mode: str = arg(Word(PADDING_MODES), "zeros")
    """What stands in the padding."""

    saves = ("input",)
    _kernel_from: ClassVar[str] = "kernel_size"
    """The argument that says how large the kernel is."""

    @property
    @abstractmethod
    def _kernel(self) -> tuple[int, ...]:
        """Extent of a filter along each axis."""

    def _sides(self, x: Tensor) -> tuple[tuple[int, int], ...]:
        """The padding `(before, after)` of each axis."""
        if not isinstance(self.padding, str):
            return self.padding
        along = zip(x.shape[1:], self._kernel, self.stride, self.dilation, strict=True)
        return tuple(same_padding(n, k, s, d) for n, k, s, d in along)

    def _along(self, x: Tensor) -> Iterator[tuple[int, int, int, int, int, int]]:
        """For each spatial axis: size, kernel, stride, dilation, padding before and after."""
        for n, k, s, d, (before, after) in zip(
            x.shape[1:], self._kernel, self.stride, self.dilation, self._sides(x), strict=True
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
                raise kernel_too_large(x, axis, extent, before + after, self._kernel_from)
            sizes.append(conv_size(n, k, s, d, before, after))
        require_source(x, self._sides(x), self.padding_mode)
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
        return unread_rows(self._along(at.x))

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, or its padded copy where torch's kernels cannot pad; with some modes both."""
        sides = self._sides(at.x)
        if all(before == after for before, after in sides) and (
            self.padding_mode == "zeros" or not any(before for before, _ in sides)
        ):
            return super().saved(at, batch)
        padded = batch * at.x.shape[0]
        for n, (before, after) in zip(at.x.shape[1:], sides, strict=True):
            padded *= n + before + after
        keeps_both = self.padding_mode in ("reflect", "replicate")
        return Saved(inputs=(0,) if keeps_both else (), elements=padded)

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """Only padding in front of the filters asks for the input besides its copy."""
        kept = self.saved(at, batch)
        copied = self.padding_mode != "zeros" and any(map(any, self._sides(at.x)))
        return kept._replace(inputs=()) if copied and not needs[0] else kept

    def padding_macs(self, at: Site) -> int:
        """Taps that fall beside the input; none where the padding repeats the input."""
        if self.padding_mode != "zeros":
            return 0
        met = self.cost(at).mac
        for (n, k, s, d, before, _), out in zip(self._along(at.x), at.y.shape[1:], strict=True):
            met = met * taps_inside(n, out, k, s, d, before) // (out * k)
        return self.cost(at).mac - met

    def _adds_zeros(self, x: Tensor) -> bool:
        """Whether filters read zeros beside the input."""
        return self.padding_mode == "zeros" and any(map(any, self._sides(x)))

    def _torch_pad(self, sides: tuple[tuple[int, int], ...]) -> Call:
        """The input, padded before the module sees it."""
        mode = {} if self.padding_mode == "zeros" else {"mode": self.padding_mode}
        return call("F.pad", In(0), torch_order(sides), **mode)

    def _onnx_slide(
        self, at: Site, opset: int, weight: OnnxValue, bias: OnnxValue, groups: int
    ) -> tuple[Node, ...]:
        """Conv, behind Pad where the padding is not zeros."""
        sides = self._sides(at.x)
        pads = [before for before, _ in sides] + [after for _, after in sides]
        x: OnnxValue = In(0)
        nodes: tuple[Node, ...] = ()
        if self.padding_mode != "zeros" and any(pads):
            x = Tmp("padded")
            nodes = onnx_pad(In(0), sides, self.padding_mode, opset, x)
            pads = [0] * len(pads)
        return (
            *nodes,
            node(
                "Conv",
                x,
                weight,
                bias,
                kernel_shape=list(self._kernel),
                strides=list(self.stride),
                pads=pads,
                dilations=list(self.dilation),
                group=groups,
            ),
        )


class SlidingFilters(Sliding, abstract=True):
    """Base of convolutions whose weights are learned."""

    kernel_size: tuple[int, ...] = arg(Size(1))
    """Extent of a filter along each axis."""
    bias: bool = arg(Bool(), True)
    """Whether each filter adds a learned constant."""

    @property
    def _kernel(self) -> tuple[int, ...]:
        return self.kernel_size

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def with_bias(self) -> Op:
        """With the argument `bias`."""
        return self.replace(bias=True)

    def _onnx_conv(
        self, at: Site, opset: int, weight: OnnxValue, groups: int = 1
    ) -> tuple[Node, ...]:
        """Conv with the bias, behind Pad where the padding is not zeros."""
        return self._onnx_slide(at, opset, weight, Own("bias") if self.bias else None, groups)
