"""Dropout of elements and of channels: noise in training, nothing at inference."""

from __future__ import annotations

from typing import Any, ClassVar

from cnnspec.lower import In, Node, TorchCode, module, node
from cnnspec.op import Example, Ops, Pointwise, Saved, Site, Stateless, arg
from cnnspec.ops._windows import require_channels_first
from cnnspec.slots import Bool, Float
from cnnspec.tensor import Tensor


class _Dropout(Pointwise, Stateless, abstract=True):
    """The rules that all kinds of dropout share."""

    p: float = arg(Float(0, 1), 0.5)
    """Probability with which an element, or a channel, is dropped."""
    inplace: bool = arg(Bool(), False)
    """Whether the torch module overwrites its input."""

    identity_at_inference = True
    inplace_capable = True
    quantizable = True
    saves: ClassVar[tuple[str, ...]] = ("mask",)

    def cost(self, at: Site) -> Ops:
        """Inference computes nothing: torch scales by `1 / (1 - p)` in training."""
        return Ops()

    def saved(self, at: Site, batch: int) -> Saved:
        """What is dropped; nothing where nothing is, a zero where everything is."""
        if self.p in (0, 1):
            return Saved(elements=int(self.p))
        return self._kept(at, batch)

    def _kept(self, at: Site, batch: int) -> Saved:
        return super().saved(at, batch)

    def is_view(self, at: Site) -> bool:
        """The input itself where nothing is ever dropped."""
        return not self.p

    def torch(self, at: Site) -> TorchCode:
        """The module of torch.nn of the same name."""
        inplace: dict[str, Any] = {"inplace": True} if self.inplace else {}
        return module(f"nn.{self.name}", p=self.p, **inplace)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Identity."""
        return (node("Identity", In(0)),)


class Dropout(_Dropout):
    """Zeroes single elements (Srivastava et al. 2014)."""

    examples = (
        Example({}, (3, 4, 5), (3, 4, 5), 0),
        Example({"p": 0, "inplace": True}, (7,)),
        Example({"p": 1}, (4, 6)),
    )


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance behind a SELU (Klambauer et al. 2017)."""

    saves = ()  # factors of two values, which are no mask: see `_kept`
    examples = (Example({"p": 0.1}, (7,), (7,), 0),)

    def _kept(self, at: Site, batch: int) -> Saved:
        return Saved(elements=at.y.in_batch(batch))


class _ChannelDropout(_Dropout, abstract=True):
    """Zeroes whole channels (Tompson et al. 2014)."""

    saves = ()  # one draw for a channel: see `_kept`

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The shape stays."""
        require_channels_first(self.name, self.axes, inputs[0])
        return super().infer(inputs)

    def _kept(self, at: Site, batch: int) -> Saved:
        return Saved(elements=batch * at.x.shape[0])


class Dropout1d(_ChannelDropout):
    """Zeroes whole channels of a sequence (Tompson et al. 2014)."""

    axes = 1
    examples = (Example({}, (3, 8), (3, 8), 0),)


class Dropout2d(_ChannelDropout):
    """Zeroes whole channels of an image (Tompson et al. 2014)."""

    examples = (Example({"p": 0.2}, (3, 4, 5), (3, 4, 5), 0),)


class Dropout3d(_ChannelDropout):
    """Zeroes whole channels of a volume (Tompson et al. 2014)."""

    axes = 3
    examples = (Example({"p": 0.2}, (3, 4, 5, 6), (3, 4, 5, 6), 0),)


class FeatureAlphaDropout(_Dropout):
    """Dropout of whole channels that keeps mean and variance behind a SELU."""

    saves = ()  # one draw for a channel: see `_kept`
    examples = (Example({"p": 0.2}, (3, 4, 5), (3, 4, 5), 0),)

    def _kept(self, at: Site, batch: int) -> Saved:
        return Saved(elements=batch * at.x.shape[0])
