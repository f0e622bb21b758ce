"""Padding layers: zeros, a constant, reflection, replication, circular, in 1 to 3 dimensions."""

from __future__ import annotations

from typing import ClassVar

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE
from cnnspec.lower import In, Node, Out, TorchCode, module, node
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._padding import onnx_pad, padding_view, require_source, torch_order
from cnnspec.ops._windows import require_channels_first, short
from cnnspec.slots import Float, Margins
from cnnspec.tensor import Tensor


class _Pad(Stateless, abstract=True):
    """The rules that padding layers share; what stands in the padding is theirs."""

    padding: tuple[tuple[int, int], ...] = arg(Margins())
    """Positions added on every side: an integer, or torch's list, which begins with the last axis
    (`[left, right, top, bottom]`), or a pair for each axis. Negative ones cut off."""

    quantizable = True
    _mode: ClassVar[str]

    @property
    def _value(self) -> float:
        return 0.0

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels stay; each axis grows by its sides."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        sizes = []
        for (before, after), n, role in zip(self.padding, x.shape[1:], x.roles[1:], strict=True):
            self._require_rest(n, before, after, role)
            sizes.append(n + before + after)
        require_source(x, self.padding, self._mode)
        return (x.with_shape(x.shape[0], *sizes),)

    def _require_rest(self, n: int, before: int, after: int, role: str) -> None:
        """Reject negative padding that leaves nothing, or that torch cannot cut off."""
        cut = -min(0, before) - min(0, after)
        if n + before + after < 1 or (self._mode == "zeros" and cut > n):
            raise Reject(
                "crop-too-large",
                f"{role} is {n}, from which {cut} cannot be cut",
                at="padding",
            )
        if self._mode == "circular" and cut >= n:
            raise Reject(
                "crop-too-large",
                f"{role} is {n}, of which {cut} are cut: nothing is left to pad with",
                at="padding",
            )

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at its place, or at what was put there."""
        sizes = zip(at.x.shape[1:], self.padding, strict=True)
        views = (padding_view(n, *sides, self._mode) for n, sides in sizes)
        return ((0, POINTWISE), *enumerate(views, start=1))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def _torch_arguments(self) -> tuple[int | float | tuple[int, ...], ...]:
        return (short(torch_order(self.padding)),)

    def torch(self, at: Site) -> TorchCode:
        """The module of that name in torch.nn."""
        return module(f"nn.{self.name}", *self._torch_arguments())

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Pad, and Slice where padding is negative."""
        if not any(map(any, self.padding)):
            return (node("Identity", In(0)),)
        return onnx_pad(In(0), self.padding, self._mode, opset, Out(0), self._value)


class _ZeroPad(_Pad, abstract=True):
    saves = ()
    _mode = "zeros"


class ZeroPad1d(_ZeroPad):
    """Zeros around a sequence."""

    axes = 1
    examples = (
        Example({"padding": 2}, (3, 5), (3, 9), 0),
        Example({"padding": [1, -2]}, (3, 5), (3, 4)),
    )


class ZeroPad2d(_ZeroPad):
    """Zeros around an image."""

    examples = (
        Example({"padding": 1}, (3, 5, 6), (3, 7, 8), 0),
        Example({"padding": [1, 2, 3, 0]}, (2, 4, 5), (2, 7, 8), note="left, right, top, bottom"),
        Example({"padding": [[3, 0], [1, 2]]}, (2, 4, 5), (2, 7, 8), note="the same, by axis"),
        Example({"padding": [0, 0, -1, -2]}, (2, 6, 5), (2, 3, 5), note="a crop"),
        Example({"padding": 0}, (2, 3, 4), (2, 3, 4)),
    )


class ZeroPad3d(_ZeroPad):
    """Zeros around a volume."""

    axes = 3
    examples = (
        Example({"padding": 1}, (1, 2, 3, 4), (1, 4, 5, 6)),
        Example({"padding": [1, 0, 2, -1, 0, 3]}, (2, 3, 4, 5), (2, 6, 5, 6)),
    )


class _ConstantPad(_ZeroPad, abstract=True):
    value: float = arg(Float())
    """What stands in the padding."""

    @property
    def _value(self) -> float:
        return float(self.value)

    def _torch_arguments(self) -> tuple[int | float | tuple[int, ...], ...]:
        return (*super()._torch_arguments(), self.value)


class ConstantPad1d(_ConstantPad):
    """A constant around a sequence."""

    axes = 1
    examples = (
        Example({"padding": [0, 3], "value": -1.5}, (3, 5), (3, 8), 0),
        Example({"padding": [-5, 2], "value": 0.5}, (3, 5), (3, 2), note="nothing else is left"),
    )


class ConstantPad2d(_ConstantPad):
    """A constant around an image."""

    examples = (
        Example({"padding": 2, "value": 0.5}, (3, 4, 5), (3, 8, 9), 0),
        Example({"padding": [-1, 2, 1, -2], "value": 3}, (3, 6, 5), (3, 5, 6)),
    )


class ConstantPad3d(_ConstantPad):
    """A constant around a volume."""

    axes = 3
    examples = (Example({"padding": [1, 2, 0, 1, -1, 0], "value": 2}, (2, 3, 3, 4), (2, 2, 4, 7)),)


class _ReflectionPad(_Pad, abstract=True):
    saves = ("input",)
    _mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    """A sequence mirrored at both ends, which are not repeated."""

    axes = 1
    examples = (
        Example({"padding": 4}, (3, 5), (3, 13), 0),
        Example({"padding": [-2, 3]}, (3, 6), (3, 7)),
    )


class ReflectionPad2d(_ReflectionPad):
    """An image mirrored at its edges, which are not repeated; less than the image on each side."""

    examples = (
        Example({"padding": 3}, (3, 5, 6), (3, 11, 12), 0),
        Example({"padding": [1, 2, 3, 0]}, (2, 4, 5), (2, 7, 8)),
        Example({"padding": [2, -1, -4, 2]}, (2, 6, 5), (2, 4, 6), note="mirrors what is cut off"),
    )


class ReflectionPad3d(_ReflectionPad):
    """A volume mirrored at its faces, which are not repeated."""

    axes = 3
    examples = (
        Example({"padding": 1}, (1, 2, 3, 4), (1, 4, 5, 6)),
        Example({"padding": [1, 0, 2, -1, 0, 2]}, (2, 3, 4, 5), (2, 5, 5, 6)),
    )


class _ReplicationPad(_Pad, abstract=True):
    saves = ("input",)
    _mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    """A sequence continued by its first and last value."""

    axes = 1
    examples = (
        Example({"padding": 4}, (3, 2), (3, 10), 0),
        Example({"padding": [-2, 3]}, (3, 6), (3, 7)),
    )


class ReplicationPad2d(_ReplicationPad):
    """An image continued by its edges."""

    examples = (
        Example({"padding": 2}, (3, 4, 5), (3, 8, 9), 0),
        Example({"padding": [7, 2, 0, 1]}, (2, 3, 2), (2, 4, 11)),
        Example({"padding": [2, -1, -4, 2]}, (2, 6, 5), (2, 4, 6)),
    )


class ReplicationPad3d(_ReplicationPad):
    """A volume continued by its faces."""

    axes = 3
    examples = (
        Example({"padding": 2}, (1, 1, 2, 3), (1, 5, 6, 7)),
        Example({"padding": [1, 0, 2, -1, 0, 2]}, (2, 3, 4, 5), (2, 5, 5, 6)),
    )


class _CircularPad(_Pad, abstract=True):
    saves = ()
    _mode = "circular"


class CircularPad1d(_CircularPad):
    """A sequence continued by its other end."""

    axes = 1
    examples = (
        Example({"padding": 5}, (3, 5), (3, 15), 0),
        Example({"padding": [-2, 3]}, (3, 6), (3, 7), note="cut first, then continued"),
    )


class CircularPad2d(_CircularPad):
    """An image continued by its opposite edges, at most by the image itself on each side."""

    examples = (
        Example({"padding": 2}, (3, 4, 5), (3, 8, 9), 0),
        Example({"padding": [1, 2, 3, 0]}, (2, 4, 5), (2, 7, 8)),
        Example({"padding": [2, -1, 0, 0]}, (2, 6, 5), (2, 6, 6)),
        Example({"padding": [0, -1, -2, 0]}, (2, 6, 5), (2, 4, 4)),
    )


class CircularPad3d(_CircularPad):
    """A volume continued by its opposite faces."""

    axes = 3
    examples = (
        Example({"padding": 1}, (1, 2, 3, 4), (1, 4, 5, 6)),
        Example({"padding": [1, 0, 2, -1, 0, 2]}, (2, 3, 4, 5), (2, 5, 5, 6)),
    )


__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]
