"""Stochastic depth: whole branches dropped at random in training."""

from __future__ import annotations

from cnnspec.lower import In, Node, TorchCode, helper, node
from cnnspec.op import Example, Ops, Pointwise, Saved, Site, Stateless, arg
from cnnspec.slots import Float, Word

_SOURCE = '''\
class StochasticDepth(nn.Module):
    """Zeroes its input at random in training: each sample's (mode row) or all (mode batch)."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        draws = x.shape[0] if self.mode == "row" else 1
        size = (draws,) + (1,) * (x.dim() - 1)
        kept = torch.empty(size, dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        if self.p < 1:
            kept.div_(1 - self.p)
        return x * kept
'''


class StochasticDepth(Pointwise, Stateless):
    """Drops the branch it ends with probability `p`, as torchvision has it (Huang et al. 2016).

    In training what stays is scaled by `1 / (1 - p)`; inference passes everything on.
    """

    p: float = arg(Float(0, 1))
    """Probability with which the branch is dropped."""
    mode: str = arg(Word(("row", "batch")), "row")
    """`row` draws for each sample, `batch` once for all."""

    identity_at_inference = True
    inplace_capable = True
    quantizable = True
    saves = ()
    examples = (
        Example({"p": 0.1}, (3, 4, 5), (3, 4, 5), 0),
        Example({"p": 1, "mode": "batch"}, (4, 6)),
    )

    def cost(self, at: Site) -> Ops:
        """Inference computes nothing."""
        return Ops()

    def saved(self, at: Site, batch: int) -> Saved:
        """A number for each sample, or one for all."""
        if not self.p:
            return Saved()
        return Saved(elements=batch if self.mode == "row" else 1)

    def is_view(self, at: Site) -> bool:
        """The input itself where nothing is ever dropped."""
        return not self.p

    def torch(self, at: Site) -> TorchCode:
        """A small class, as torch.nn has none."""
        return helper("StochasticDepth", _SOURCE, self.p, self.mode)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Identity."""
        return (node("Identity", In(0)),)
