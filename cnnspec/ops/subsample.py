"""Subsample2d: pooling with a learned weight and bias for each channel, as in LeNet-5."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from cnnspec.lower import In, Node, Own, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, LinearMap, Ops, Saved, Site
from cnnspec.ops._pooling import Pool
from cnnspec.ops._windows import short, unlike_default
from cnnspec.weights import Buffer, Weight, torch_uniform

_SOURCE = '''class Subsample2d(nn.Module):
    """The sum of each window, times a weight for each channel, plus a bias."""

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.weight = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))
        height, width = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
        bound = 1 / math.sqrt(height * width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = F.avg_pool2d(x, self.kernel_size, self.stride, divisor_override=1)
        return total * self.weight + self.bias
'''


class Subsample2d(Pool):
    """The sum of each window of a channel, times a weight of that channel, plus a bias.

    S2 and S4 of LeNet-5 (LeCun et al., Gradient-based learning applied to document recognition,
    1998, section II.B); the squashing that follows there is an operation of its own.
    """

    quantizable = True
    saves = ("input",)
    examples = (
        Example({"kernel_size": 2}, (6, 28, 28), (6, 14, 14), 12, "S2 of LeNet-5"),
        Example({"kernel_size": 2}, (16, 10, 10), (16, 5, 5), 32, "S4 of LeNet-5"),
        Example({"kernel_size": [2, 3], "stride": 2}, (2, 5, 8), (2, 2, 3), 4),
    )

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` and `bias` (channels, 1, 1), uniform as of a filter of that size."""
        shape = (at.x.shape[0], 1, 1)
        start = torch_uniform(prod(self.kernel_size))
        return {"weight": Weight(shape, start), "bias": Weight(shape, start, decay=False)}

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def cost(self, at: Site) -> Ops:
        """The sum of each window, its weight and bias; not what is called a MAC."""
        return Ops(add=prod(self.kernel_size) * at.y.elements, mul=at.y.elements)

    def connections(self, at: Site) -> Connections | None:
        """Each unit reads a window, and has a bias: 5,880 in S2 of LeNet-5, as the paper says."""
        return Connections(prod(self.kernel_size) * at.y.elements, at.y.elements)

    def linear_map(self, at: Site) -> LinearMap | None:
        """Channels lie along the first axis of the weight."""
        return LinearMap("weight", "bias", out_axis=0)

    def saved(self, at: Site, batch: int) -> Saved:
        """The input and the sums."""
        return super().saved(at, batch)._replace(elements=at.y.in_batch(batch))

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """The sums alone where the input needs no gradient."""
        return self.saved(at, batch)._replace(inputs=(0,) if needs[0] else ())

    def torch(self, at: Site) -> TorchCode:
        """A small class, as torch.nn has none."""
        kernel = short(self.kernel_size)
        written = {"stride": (short(self._stride), kernel)}
        return helper(self.name, _SOURCE, at.x.shape[0], kernel, **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """AveragePool, times what makes it a sum, and the weights, which broadcast."""
        kernel, steps = list(self.kernel_size), list(self._stride)
        mean, total, weighted = Tmp("mean"), Tmp("total"), Tmp("weighted")
        return (
            node("AveragePool", In(0), to=mean, kernel_shape=kernel, strides=steps),
            node("Mul", mean, const(float(prod(kernel))), to=total),
            node("Mul", total, Own("weight"), to=weighted),
            node("Add", weighted, Own("bias")),
        )


__all__ = ["Subsample2d"]
