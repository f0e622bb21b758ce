"""Power-average pooling with torch's meaning: LPPool1d, LPPool2d, LPPool3d."""

from __future__ import annotations

from math import prod

from cnnspec.diagnostics import Reject
from cnnspec.lower import In, Node, Tmp, TorchCode, const, module, node
from cnnspec.op import Example, Ops, Saved, Site, Stateless, arg
from cnnspec.ops._pooling import Pool, require_kernel_inside
from cnnspec.ops._windows import short, unlike_default
from cnnspec.slots import Bool, Float
from cnnspec.tensor import Tensor


class _LPPool(Pool, Stateless, abstract=True):
    """The rules that power-average pools of every rank share."""

    norm_type: float = arg(Float())
    """The power: 1 sums, 2 is the root of the sum of squares; not 0."""
    ceil_mode: bool = arg(Bool(), False)
    """Whether a last window that reaches beyond the input counts; what it has is scaled up."""

    saves = ("input",)

    @property
    def _ceil_mode(self) -> bool:
        return self.ceil_mode

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Channels stay; sizes as of average pooling without padding."""
        if not self.norm_type:
            raise Reject("argument-value", "`norm_type` must not be 0", at="norm_type")
        return super().infer(inputs)

    def cost(self, at: Site) -> Ops:
        """A power for each input, a sum for each window, and a root."""
        outputs = at.y.elements
        powers = 0 if self.norm_type == 1 else at.x.elements
        roots = 0 if self.norm_type == 1 else outputs
        return Ops(add=(prod(self.kernel_size) - 1) * outputs, exp=powers + roots)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input, its powers, and each of torch's steps from the mean to the root."""
        steps = at.x.in_batch(batch) + 4 * at.y.in_batch(batch)
        return super().saved(at, batch)._replace(elements=steps)

    def torch(self, at: Site) -> TorchCode:
        """`nn.LPPool*d`."""
        written = {
            "stride": (short(self._stride), short(self.kernel_size)),
            "ceil_mode": (self.ceil_mode, False),
        }
        norm, kernel = self.norm_type, short(self.kernel_size)
        return module(f"nn.{self.name}", norm, kernel, **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Pow, AveragePool, Mul, Pow.

        LpPool takes absolute values and whole powers only; torch takes neither.
        """
        powers, mean, total = Tmp("powers"), Tmp("mean"), Tmp("total")
        nodes = [node("Pow", In(0), const(float(self.norm_type)), to=powers)]
        if any(ends := self._ends(at)):
            cut = Tmp("cut")
            pads = const((0,) * (self.axes + 4) + ends, "int64")
            nodes.append(node("Pad", powers, pads, to=cut, mode="constant"))
            powers = cut
        return (
            *nodes,
            node(
                "AveragePool",
                powers,
                to=mean,
                kernel_shape=list(self.kernel_size),
                strides=list(self._stride),
                ceil_mode=int(self.ceil_mode),
            ),
            node("Mul", mean, const(float(prod(self.kernel_size))), to=total),
            node("Pow", total, const(1 / self.norm_type)),
        )


class LPPool1d(_LPPool):
    """The power average of each window of a sequence: the root of a sum of powers."""

    axes = 1
    examples = (
        Example({"norm_type": 2, "kernel_size": 2}, (3, 9), (3, 4), 0),
        Example({"norm_type": 1, "kernel_size": 3, "stride": 2, "ceil_mode": True}, (3, 8), (3, 4)),
    )


class LPPool2d(_LPPool):
    """The power average of each window of an image: the root of a sum of powers.

    As torch computes it, without absolute values: `(sum x**p) ** (1/p)`, which is the p-norm where
    `p` is even or nothing is negative. For an odd `p` a sum below zero has no real root and gives
    NaN (but for 1, the sum). A window cut short by `ceil_mode` counts as if its mean went on.
    """

    examples = (
        Example({"norm_type": 2, "kernel_size": 3, "stride": 2}, (4, 9, 10), (4, 4, 4)),
        Example(
            {"norm_type": 2, "kernel_size": 2, "stride": 3, "ceil_mode": True},
            (2, 6, 7),
            (2, 2, 3),
            note="a window cut short",
        ),
        Example({"norm_type": 1, "kernel_size": 2}, (2, 6, 7), note="sums, of either sign"),
        Example({"norm_type": 4, "kernel_size": [1, 3]}, (2, 6, 7)),
        Example(
            {"norm_type": 3, "kernel_size": 2}, (2, 4, 4), note="NaN where the sum is below zero"
        ),
        Example(
            {"norm_type": 2, "kernel_size": 1, "stride": 3, "ceil_mode": True},
            (2, 6, 7),
            (2, 2, 3),
            note="a window that would start beyond the input is dropped",
        ),
    )


class LPPool3d(_LPPool):
    """The power average of each window of a volume: the root of a sum of powers."""

    axes = 3
    examples = (
        Example({"norm_type": 2, "kernel_size": 2}, (2, 4, 5, 6), (2, 2, 2, 3)),
        Example(
            {"norm_type": 2, "kernel_size": [1, 2, 3], "stride": 2, "ceil_mode": True},
            (2, 3, 4, 6),
        ),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As for images, but torch wants the whole kernel inside the input."""
        outputs = super().infer(inputs)
        require_kernel_inside(inputs[0], self.kernel_size)
        return outputs


__all__ = ["LPPool1d", "LPPool2d", "LPPool3d"]
