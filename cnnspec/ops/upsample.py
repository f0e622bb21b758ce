"""Upsample: resizing by interpolation, to a size, by a factor, or to the size of another tensor.

torch computes the place `p` in the input that output `o` comes from in float32: `o * ratio` for
`nearest`, `(o + 1/2) * ratio` (`- 1/2` where it interpolates) for the others, and
`o * (n - 1) / (out - 1)` with `align_corners`. `ratio` is `n / out`, or `1 / scale_factor` where a
factor is given. Interpolation is continuous in `p`, so ONNX's Resize agrees. `nearest` is not:
where rounding could decide, the indices are computed step by step as torch does it.

Along some axes torch ignores the factor and copies, or doubles: in linear modes where a size stays
as it is, in `nearest` where one of an image stays or doubles and height and width of the result are
128 together at most. (Its kernel for larger images does not, its kernel for tensors in
channels-last layout always does; what is analysed here has the usual layout.)
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from struct import pack, unpack
from typing import TYPE_CHECKING, Any

from cnnspec.diagnostics import Reject
from cnnspec.geometry import (
    POINTWISE,
    TABLE_LIMIT,
    Everything,
    Taps,
    Unknown,
    View,
    bicubic_taps,
    bilinear_taps,
    nearest_taps,
)
from cnnspec.lower import (
    Const,
    Dim,
    In,
    Node,
    OnnxValue,
    Out,
    Rest,
    Tmp,
    TorchCode,
    call,
    const,
    module,
    node,
    shape,
)
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._target import check_one_given, like_sizes, need_space, per_axis
from cnnspec.ops._windows import short
from cnnspec.slots import LARGEST_INT, Bool, Float, Int, Nullable, PerAxis, TensorRef, Word
from cnnspec.tensor import Tensor

if TYPE_CHECKING:
    from fractions import Fraction

_FLOAT32, _INT64 = 1, 7
"""ONNX's numbers for the two dtypes."""

_AXES = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
"""Spatial axes of the modes that interpolate."""

_NEAREST = ("nearest", "nearest-exact")

_SMALL = 128
"""Height and width together, of results for which torch has a kernel of its own for `nearest`."""

_CUBIC = -0.75
"""The coefficient of cubic convolution (Keys, 1981, equation 4) that torch takes."""


def _float32(value: float) -> float:
    """The nearest float32."""
    (rounded,) = unpack("f", pack("f", value))
    return float(rounded)


def _cubic_matrix(n: int, ratio: Fraction) -> tuple[tuple[float, ...], ...]:
    """For each of `n` outputs the weights of `n` inputs, `ratio` of which go into an output.

    Beyond the ends the outermost input is repeated.
    """

    def weight(distance: float) -> float:
        d = abs(distance)
        if d <= 1:
            return ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
        return _CUBIC * (((d - 5) * d + 8) * d - 4)

    rows = []
    for output in range(n):
        place = float((output * 2 + 1) * ratio - 1) / 2
        row = [0.0] * n
        for tap in range(floor(place) - 1, floor(place) + 3):
            row[min(max(tap, 0), n - 1)] += weight(tap - place)
        rows.append(tuple(row))
    return tuple(rows)


class Upsample(Stateless):
    """Resizes all spatial axes, one to three of them (torch.nn.Upsample, F.interpolate)."""

    size: tuple[int, ...] | None = arg(Nullable(PerAxis(Int(1))), None)
    """Size of the result: an integer, or one per spatial axis."""
    scale_factor: tuple[float, ...] | None = arg(Nullable(PerAxis(Float())), None)
    """How much larger the result is: a number, or one per spatial axis; sizes round down."""
    like: int | None = arg(Nullable(TensorRef()), None)
    """The tensor whose spatial sizes the result has, read when the network runs."""
    mode: str = arg(Word((*_NEAREST, *_AXES)), "nearest")
    """Interpolation: `linear` for one axis, `bilinear` and `bicubic` for two, `trilinear` for
    three, `nearest` and `nearest-exact` (which starts from pixel centers) for any number."""
    align_corners: bool | None = arg(Nullable(Bool()), None)
    """Whether the outermost pixels keep their values; null is false."""
    recompute_scale_factor: bool | None = arg(Nullable(Bool()), None)
    """Whether sizes, once rounded, replace `scale_factor` in the interpolation; null is false."""

    quantizable = True
    saves = ()
    examples = (
        Example({"scale_factor": 2}, (3, 4, 5), (3, 8, 10), 0),
        Example({"size": 7, "mode": "linear"}, (3, 4), (3, 7)),
        Example({"scale_factor": 2, "mode": "bilinear"}, (3, 4, 5), (3, 8, 10)),
        Example({"size": [9, 2], "mode": "bilinear", "align_corners": True}, (3, 4, 5)),
        Example({"size": 1, "mode": "bilinear"}, (3, 4, 5), note="one pixel"),
        Example({"size": 6, "mode": "bilinear"}, (3, 1, 1), note="from one pixel: a broadcast"),
        Example({"scale_factor": 1.7, "mode": "bilinear"}, (3, 4, 5), (3, 6, 8)),
        Example(
            {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True}, (3, 4, 5)
        ),
        Example(
            {"scale_factor": [1.16, 2.12], "mode": "bilinear"},
            (1, 25, 25),
            (1, 28, 53),
            note="the product is a whole number in float32, in float64 almost",
        ),
        Example(
            {"scale_factor": [1.3, 1.5], "mode": "bilinear"},
            (2, 3, 4),
            (2, 3, 6),
            note="rows are copied, whatever the factor",
        ),
        Example(
            {"scale_factor": [1.16, 1.5], "mode": "bicubic"},
            (2, 3, 4),
            (2, 3, 6),
            note="rows are not copied",
        ),
        Example(
            {"scale_factor": [2.3, 1.3]},
            (1, 3, 3),
            (1, 6, 3),
            note="to twice the size and the same, as if by 2 and 1",
        ),
        Example({"scale_factor": 2, "mode": "bicubic"}, (2, 4, 5)),
        Example({"size": [3, 11], "mode": "bicubic", "align_corners": True}, (2, 4, 5)),
        Example({"scale_factor": [1, 2, 3], "mode": "trilinear"}, (2, 3, 4, 2), (2, 3, 8, 6)),
        Example({"scale_factor": [3, 1.5]}, (3, 4, 5), (3, 12, 7)),
        Example({"size": [16, 4]}, (3, 14, 28), note="where float32 decides"),
        Example({"scale_factor": 41}, (1, 12), note="where torch itself is one off"),
        Example({"scale_factor": 2.3, "mode": "nearest-exact"}, (1, 16)),
        Example({"size": 2, "mode": "nearest"}, (2, 4, 4, 4), (2, 2, 2, 2)),
        Example({"like": 1}, ((3, 4, 5), (6, 8, 10)), (3, 8, 10), note="a feature pyramid"),
        Example({"like": 1, "mode": "bilinear"}, ((3, 4, 5), (1, 7, 11)), (3, 7, 11)),
        Example({"like": 1}, ((3, 4, 5), (6, 7, 11)), (3, 7, 11)),
    )

    # ------------------------------------------------------------------------------- geometry

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The size asked for, or `floor(n * scale_factor)`."""
        x = inputs[0]
        check_one_given(self, "size", "scale_factor", "like")
        need_space(self, x)
        self._check_mode(x)
        if self.like is not None:
            sizes = like_sizes(x, inputs[self.like])
        elif self.size is not None:
            sizes = per_axis(self.size, x, "size")
        else:
            sizes = tuple(self._scaled(x))
        return (x.with_shape(x.shape[0], *sizes),)

    def _check_mode(self, x: Tensor) -> None:
        axes = _AXES.get(self.mode, x.rank - 1)
        if axes != x.rank - 1:
            fitting = [f"`{mode}`" for mode, needs in _AXES.items() if needs == x.rank - 1]
            raise Reject(
                "upsample-mode",
                f"`{self.mode}` resizes {axes} spatial {'axis' if axes == 1 else 'axes'}, "
                f"the input is {x}",
                at="mode",
                help=f"{' and '.join(fitting)} would fit, and `nearest` always does",
            )
        if self.mode in _NEAREST and self.align_corners is not None:
            raise Reject(
                "argument-conflict",
                f"`align_corners` means nothing to `{self.mode}`, which does not interpolate",
                at="align_corners",
            )
        if self.recompute_scale_factor and self.scale_factor is None:
            raise Reject(
                "argument-conflict",
                "`recompute_scale_factor` needs `scale_factor`",
                at="recompute_scale_factor",
            )

    def _scaled(self, x: Tensor) -> Iterator[int]:
        for n, scale in zip(x.shape[1:], self._scales(x), strict=True):
            if not 1 <= n * scale <= LARGEST_INT:
                raise Reject(
                    "argument-value",
                    f"`scale_factor` makes {n * scale:g} of {n}, which is no size",
                    at="scale_factor",
                )
            yield floor(n * scale)

    def _scales(self, x: Tensor) -> tuple[float, ...]:
        return per_axis(self.scale_factor or (), x, "scale_factor")

    def _factors(self, at: Site) -> tuple[float | None, ...]:
        """For each spatial axis the factor it is interpolated by; None where its sizes tell."""
        if not self._keeps_factor:
            return (None,) * (at.x.rank - 1)
        small = at.x.rank == 3 and sum(at.y.shape[1:]) <= _SMALL

        def ignored(n: int, out: int) -> bool:
            if self.mode == "nearest":
                return small and out in (n, 2 * n)
            return n == out and self.mode not in ("nearest-exact", "bicubic")

        along = zip(at.x.shape[1:], at.y.shape[1:], self._scales(at.x), strict=True)
        return tuple(None if ignored(n, out) else factor for n, out, factor in along)

    def _ratios(self, at: Site) -> tuple[Fraction, ...]:
        """For each spatial axis, input positions for one output position.

        A factor is taken for the simple fraction that its float stands for: 1.16 is 29/25.
        """
        from fractions import Fraction  # costs milliseconds, and few networks ask

        along = zip(at.x.shape[1:], at.y.shape[1:], self._factors(at), strict=True)
        return tuple(
            Fraction(n, out) if factor is None else 1 / Fraction(factor).limit_denominator(1 << 32)
            for n, out, factor in along
        )

    @property
    def _keeps_factor(self) -> bool:
        """Whether the factor itself counts in the interpolation, not the rounded sizes."""
        return self.scale_factor is not None and not self.recompute_scale_factor

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """The pixels around a place, along each axis; of `like` only the size is read."""
        if input:
            return None
        along = zip(at.x.shape[1:], at.y.shape[1:], self._ratios(at), strict=True)
        views = ((axis, self._view(n, m, ratio)) for axis, (n, m, ratio) in enumerate(along, 1))
        return ((0, POINTWISE), *views)

    def _view(self, n: int, out: int, ratio: Fraction) -> View:
        if n == 1 and out > 1:
            return Everything()
        regular = ratio * out == n
        if self.mode == "nearest-exact":
            if regular and out % n == 0:
                return nearest_taps(n, out)
        elif self.mode == "nearest":
            if regular:
                return nearest_taps(n, out)
        elif regular or self.align_corners:
            resize = bicubic_taps if self.mode == "bicubic" else bilinear_taps
            return resize(n, out, bool(self.align_corners))
        if out > TABLE_LIMIT:
            return Unknown(f"resizing to {out} positions is too long to list")
        return Taps(tuple(self._row(n, o, ratio) for o in range(out)))

    def _row(self, n: int, o: int, ratio: Fraction) -> tuple[int, int]:
        """First and last input position of output `o`, kept within the axis."""
        if self.mode in _NEAREST:
            # By torch's own float32 steps, which may round below the whole number they should be.
            place = o + 0.5 if self.mode == "nearest-exact" else o
            first = last = floor(_float32(place * _float32(float(ratio))))
        else:
            first, beside = divmod((2 * o + 1) * ratio - 1, 2)
            beyond = 1 if self.mode == "bicubic" else 0
            last = first
            if beside:
                first, last = first - beyond, first + 1 + beyond
        return min(max(first, 0), n - 1), min(max(last, 0), n - 1)

    def cost(self, at: Site) -> Ops:
        """Products with 2 taps along each axis (4 if cubic) and their sum, for each element.

        Weights depend on the position only and are not counted; `nearest` copies.
        """
        if self.mode in _NEAREST:
            return Ops()
        taps = (4 if self.mode == "bicubic" else 2) ** _AXES[self.mode]
        return Ops(mul=taps * at.y.elements, add=(taps - 1) * at.y.elements)

    # ------------------------------------------------------------------------------- lowerings

    def torch(self, at: Site) -> TorchCode:
        """`nn.Upsample`, or `F.interpolate` where the size is another tensor's."""
        aligned: dict[str, Any] = (
            {} if self.align_corners is None else {"align_corners": self.align_corners}
        )
        if self.like is not None:
            size = Rest(In(self.like), 2)
            return call("F.interpolate", In(0), size=size, mode=self.mode, **aligned)
        recompute: dict[str, Any] = (
            {"recompute_scale_factor": True} if self.recompute_scale_factor else {}
        )
        if self.size is not None:
            return module("nn.Upsample", size=short(self.size), mode=self.mode, **aligned)
        factor = short(self._scales(at.x))
        return module("nn.Upsample", scale_factor=factor, mode=self.mode, **aligned, **recompute)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Resize; Gather along each axis for nearest neighbours that hang on rounding.

        ONNX Runtime's Resize copies where all sizes stay. Cubic interpolation between the pixels
        does not, and is then written as a product with a matrix along each axis.
        """
        if self.mode in _NEAREST and not self._whole(at):
            return self._gathered(at)
        if self.mode == "bicubic" and self._keeps_factor and not self.align_corners:
            moved = any(factor != 1 for factor in self._factors(at))
            if moved and at.x.shape == at.y.shape:
                return self._multiplied(at)
        modes: dict[str, Any]
        if self.mode in _NEAREST:
            modes = {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            }
        else:
            half = "align_corners" if self.align_corners else "half_pixel"
            modes = {
                "mode": "cubic" if self.mode == "bicubic" else "linear",
                "coordinate_transformation_mode": half,
            }
            if self.mode == "bicubic":
                modes["cubic_coeff_a"] = _CUBIC
        if self._keeps_factor:
            return (node("Resize", In(0), None, self._onnx_scales(at), **modes),)
        if self.like is not None:
            sizes = shape(Dim(In(0), 0), Dim(In(0), 1), Rest(In(self.like), 2))
        else:
            sizes = shape(Dim(In(0), 0), Dim(In(0), 1), *at.y.shape[1:])
        return (node("Resize", In(0), None, None, sizes, **modes),)

    def onnx_open(self, at: Site, opset: int) -> tuple[Node, ...]:
        """As ever; nearest neighbours by Gather, since any ratio of sizes may come."""
        if self.mode in _NEAREST and not self._keeps_factor:
            return self._gathered(at)
        return self.onnx(at, opset)

    def _whole(self, at: Site) -> bool:
        """Whether each output's source is `o // factor` in torch, which Resize computes too.

        In float32, `o * (1 / factor)` rounds to less than the whole number it should be where
        `1 / factor` was rounded down (41 is the first such factor).
        """
        for ratio in self._ratios(at):
            if ratio.numerator != 1 or ratio > _float32(float(ratio)):
                return False
        return True

    def _onnx_scales(self, at: Site) -> Const:
        """Factors in float32 from which the same sizes follow as from torch's, in float64."""
        factors = [1.0, 1.0]
        for n, out, scale in zip(at.x.shape[1:], at.y.shape[1:], self._factors(at), strict=True):
            near = _float32(out / n if scale is None else scale)
            step = 2.0**-23 * near
            around = (_float32(near + steps * step) for steps in (0, -1, 1, -2, 2))
            factors.append(next(f for f in around if floor(_float32(f * n)) == out))
        return const(tuple(factors))

    def _multiplied(self, at: Site) -> tuple[Node, ...]:
        """Cubic interpolation of an image to its own size, along columns and then rows."""
        rows, columns = (
            _cubic_matrix(n, ratio)
            for n, ratio in zip(at.x.shape[1:], self._ratios(at), strict=True)
        )
        return (
            node("MatMul", const(rows), In(0), to=Tmp("columns")),
            node("MatMul", Tmp("columns"), const(tuple(zip(*columns, strict=True)))),
        )

    def _gathered(self, at: Site) -> tuple[Node, ...]:
        nodes: list[Node] = []
        source: In | Tmp = In(0)
        for axis in range(2, at.x.rank + 1):
            target = Out(0) if axis == at.x.rank else Tmp(f"resized{axis}")
            nodes.extend(self._onnx_indices(at, axis))
            nodes.append(node("Gather", source, Tmp(f"index{axis}"), to=target, axis=axis))
            source = Tmp(f"resized{axis}")
        return tuple(nodes)

    def _onnx_indices(self, at: Site, axis: int) -> Iterator[Node]:
        """`index{axis}`: for each output the input it copies, by torch's own float32 steps."""

        def tmp(name: str) -> Tmp:
            return Tmp(f"{name}{axis}")

        def cast(value: OnnxValue, to: Tmp, dtype: int) -> Node:
            return Node("Cast", (value,), (to,), (("to", dtype),))

        before = shape(Dim(In(0), axis))
        after = shape(at.y.shape[axis - 1] if self.like is None else Dim(In(self.like), axis))
        zero, one = const(0, "int64"), const(1, "int64")
        yield node("Squeeze", after, to=tmp("count"))
        yield node("Range", zero, tmp("count"), one, to=tmp("outputs"))
        yield cast(tmp("outputs"), tmp("place"), _FLOAT32)
        place = tmp("place")
        if self.mode == "nearest-exact":
            yield node("Add", place, const(0.5), to=tmp("center"))
            place = tmp("center")
        ratio: OnnxValue = tmp("ratio")
        factor = self._factors(at)[axis - 2]
        if factor is not None:
            ratio = const((1 / factor,))
        else:
            yield cast(before, tmp("from"), _FLOAT32)
            yield cast(after, tmp("to"), _FLOAT32)
            yield node("Div", tmp("from"), tmp("to"), to=tmp("ratio"))
        yield node("Mul", place, ratio, to=tmp("source"))
        yield node("Floor", tmp("source"), to=tmp("floor"))
        yield cast(tmp("floor"), tmp("whole"), _INT64)
        yield node("Sub", before, one, to=tmp("last"))
        yield node("Min", tmp("whole"), tmp("last"), to=tmp("index"))
