"""Self-attention with several heads: MultiheadAttention."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from cnnspec.diagnostics import Reject, quantity
from cnnspec.geometry import Everything
from cnnspec.lower import In, Node, OnnxValue, Out, Own, Tmp, TorchCode, const, module, node
from cnnspec.op import Connections, Example, Look, Op, Ops, Saved, Site, arg
from cnnspec.ops._windows import unlike_default
from cnnspec.slots import Bool, Float, Int
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, constant, torch_uniform, xavier_uniform


class MultiheadAttention(Op):
    """Every token becomes a mixture of all tokens, weighted by how well they match.

    `softmax(Q K^T / sqrt(d)) V` in each head, with queries, keys and values projected from the one
    input of shape tokens x features (Vaswani et al., Attention is all you need, 2017, section 3.2).
    """

    num_heads: int = arg(Int(1))
    """Number of heads; each has its share of the features."""
    dropout: float = arg(Float(0, 1), 0.0)
    """Probability in training that a weight of the mixture is dropped."""
    bias: bool = arg(Bool(), True)
    """Whether the projections add learned constants."""

    saves = ("input",)
    examples = (
        Example({"num_heads": 2}, (5, 8), (5, 8), 288),
        Example({"num_heads": 3, "bias": False}, (4, 6), (4, 6), 144),
        Example({"num_heads": 1, "dropout": 0.1}, (1, 4), (1, 4), note="a single token"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        x = inputs[0]
        if x.rank != 2:
            raise Reject(
                "input-rank", f"`{self.name}` needs tokens x features, its input is {x}", at=0
            )
        if x.shape[1] % self.num_heads:
            raise Reject(
                "heads-divide",
                f"{quantity(x.shape[1], 'feature')} cannot be split into "
                f"{quantity(self.num_heads, 'head')}",
                at="num_heads",
                label=f"the input is {x}",
            )
        return (x,)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """All tokens and all features."""
        return ((0, Everything()), (1, Everything()))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """The three input projections in one, and the output projection, with torch's start."""
        features = at.x.shape[1]
        found = {"in_proj_weight": Weight((3 * features, features), xavier_uniform())}
        if self.bias:
            found["in_proj_bias"] = Weight((3 * features,), constant(0.0), decay=False)
        found["out_proj.weight"] = Weight((features, features), torch_uniform(features))
        if self.bias:
            found["out_proj.bias"] = Weight((features,), constant(0.0), decay=False)
        return found

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Nothing is stored."""
        return {}

    def connections(self, at: Site) -> Connections | None:
        """Links between tokens are computed, not learned: they are not counted."""
        return None

    def cost(self, at: Site) -> Ops:
        """Four projections, the scores, their softmax along each row, and the mixture."""
        tokens, features = at.x.shape
        rows = self.num_heads * tokens
        return Ops(
            mac=4 * tokens * features * features + 2 * tokens * tokens * features,
            add=4 * tokens * features * self.bias + rows * (2 * tokens - 1),
            mul=tokens * features,
            cmp=rows * (tokens - 1),
            div=rows * tokens,
            exp=rows * tokens,
        )

    def macts(self, at: Site) -> int:
        """Queries, keys, values and the result: fused kernels never write the scores."""
        return 4 * at.x.elements

    def saved(self, at: Site, batch: int) -> Saved:
        """Queries, keys, values and their mixture, a logarithm for each row of the softmax.

        The input too, or a copy of it with tokens before samples where there are several of both.
        """
        tokens = at.x.shape[0]
        turned = batch > 1 and tokens > 1
        return Saved(
            inputs=() if turned else (0,),
            elements=(4 + turned) * at.x.in_batch(batch),
            statistics=batch * self.num_heads * tokens,
        )

    def torch(self, at: Site) -> TorchCode:
        """`nn.MultiheadAttention`, its first result."""
        written = {"dropout": (self.dropout, 0.0), "bias": (self.bias, True)}
        return module(
            "nn.MultiheadAttention",
            at.x.shape[1],
            self.num_heads,
            **unlike_default(written),
            batch_first=True,
            feeds=(In(0), In(0), In(0)),
            feed_kwargs={"need_weights": False},
            result=0,
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Projection, split into heads, scaled scores, Softmax, mixture, projection."""
        features = at.x.shape[1]
        head = features // self.num_heads
        heads = const((0, 0, self.num_heads, head), "int64")
        projected = Tmp("projected")
        parts = (Tmp("query"), Tmp("key"), Tmp("value"))
        orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        nodes = [
            *self._onnx_project(In(0), "in_proj_weight", "in_proj_bias", projected),
            node("Split", projected, const((features,) * 3, "int64"), to=parts, axis=2),
        ]
        for part, order in zip(parts, orders, strict=True):
            split = Tmp(f"{part.name}_split")
            nodes.append(node("Reshape", part, heads, to=split))
            nodes.append(node("Transpose", split, to=Tmp(f"{part.name}_heads"), perm=order))
        return (
            *nodes,
            node("Mul", Tmp("query_heads"), const(1 / sqrt(head)), to=Tmp("scaled")),
            node("MatMul", Tmp("scaled"), Tmp("key_heads"), to=Tmp("scores")),
            node("Softmax", Tmp("scores"), to=Tmp("shares"), axis=-1),
            node("MatMul", Tmp("shares"), Tmp("value_heads"), to=Tmp("mixed")),
            node("Transpose", Tmp("mixed"), to=Tmp("turned"), perm=[0, 2, 1, 3]),
            node("Reshape", Tmp("turned"), const((0, 0, features), "int64"), to=Tmp("joined")),
            *self._onnx_project(Tmp("joined"), "out_proj.weight", "out_proj.bias", Out(0)),
        )

    def _onnx_project(
        self, x: OnnxValue, weight: str, bias: str, to: Tmp | Out
    ) -> tuple[Node, ...]:
        matrix = Own(weight, permute=(1, 0))
        if not self.bias:
            return (node("MatMul", x, matrix, to=to),)
        product = Tmp(f"{weight}_product")
        return (node("MatMul", x, matrix, to=product), node("Add", product, Own(bias), to=to))


__all__ = ["MultiheadAttention"]
