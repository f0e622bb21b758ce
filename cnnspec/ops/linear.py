"""The fully connected layer: Linear."""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Everything
from cnnspec.lower import In, Node, Out, Own, Tmp, TorchCode, module, node
from cnnspec.op import Connections, Example, LinearMap, Look, Op, Ops, Site, arg
from cnnspec.ops import bind
from cnnspec.ops._windows import unlike_default
from cnnspec.ops.conv import Conv1d, Conv2d, Conv3d
from cnnspec.slots import Bool, Int
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, torch_uniform

_CONVOLUTIONS = {1: Conv1d, 2: Conv2d, 3: Conv3d}
"""By the number of axes that they slide along."""


class Linear(Op):
    """Multiplies the last axis by a learned matrix; other axes are positions that share it."""

    out_features: int = arg(Int(1))
    """Size of the last axis of the output."""
    bias: bool = arg(Bool(), True)
    """Whether each output feature adds a learned constant."""

    quantizable = True
    saves = ("input",)
    examples = (
        Example({"out_features": 10}, (84,), (10,), 850),
        Example({"out_features": 6, "bias": False}, (5, 8), (5, 6), 48, "each of five tokens"),
        Example({"out_features": 6}, (3, 4, 8), (3, 4, 6), 54),
        Example({"out_features": 1, "bias": False}, (1,), (1,), 1),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`out_features` along the last axis; roles stay."""
        x = inputs[0]
        if not x.rank:
            raise Reject(
                "input-rank", f"`{self.name}` needs an axis of features, its input is {x}", at=0
            )
        return (x.with_shape(*x.shape[:-1], self.out_features),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Everything along the last axis, the same place along the others."""
        last = at.x.rank - 1
        return (*((axis, POINTWISE) for axis in range(last)), (last, Everything()))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (out, in) and `bias` (out), torch's uniform initialisation."""
        features = at.x.shape[-1]
        start = torch_uniform(features)
        found = {"weight": Weight((self.out_features, features), start)}
        if self.bias:
            found["bias"] = Weight((self.out_features,), start, decay=False)
        return found

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def cost(self, at: Site) -> Ops:
        """Input features times outputs."""
        return Ops(mac=at.x.shape[-1] * at.y.elements, add=at.y.elements * self.bias)

    def connections(self, at: Site) -> Connections | None:
        """Input features times outputs, and one bias for each output."""
        return Connections(at.x.shape[-1] * at.y.elements, at.y.elements * self.bias)

    def linear_map(self, at: Site) -> LinearMap | None:
        """Outputs lie along the first axis of the weight; channels elsewhere are not outputs."""
        if at.x.rank > 1:
            return None
        bias = "bias" if self.bias else None
        return LinearMap("weight", bias, out_axis=0, in_axis=1, keeps_shifts=True)

    def with_bias(self) -> Op:
        """With the argument `bias`."""
        return self.replace(bias=True)

    def at_each_position(self, at: Site, window: tuple[int, ...]) -> Op | None:
        """A convolution with a kernel as large as the window: the same weights, in their order."""
        convolution = _CONVOLUTIONS.get(len(window) - 1)
        if convolution is None:
            return None
        found = {"out_channels": self.out_features, "kernel_size": list(window[1:])}
        return bind(convolution, {**found, "bias": self.bias})

    def torch(self, at: Site) -> TorchCode:
        """`nn.Linear`."""
        written = {"bias": (self.bias, True)}
        return module("nn.Linear", at.x.shape[-1], self.out_features, **unlike_default(written))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Gemm for a vector of features, else MatMul and Add."""
        if at.x.rank == 1:
            bias = Own("bias") if self.bias else None
            return (node("Gemm", In(0), Own("weight"), bias, transB=1),)
        matrix = Own("weight", permute=(1, 0))
        if not self.bias:
            return (node("MatMul", In(0), matrix),)
        product = Tmp("product")
        return (
            node("MatMul", In(0), matrix, to=product),
            node("Add", product, Own("bias"), to=Out(0)),
        )


__all__ = ["Linear"]
