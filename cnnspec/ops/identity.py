"""Identity: a place with a name."""

from __future__ import annotations

from cnnspec.lower import In, Node, TorchCode, module, node
from cnnspec.op import Example, Ops, Pointwise, Site, Stateless


class Identity(Pointwise, Stateless):
    """Its input, unchanged: gives a tensor a second name, or stands where nothing is built."""

    takes_unbatched = True
    identity_at_inference = True
    inplace_capable = True
    quantizable = True
    saves = ()
    examples = (Example({}, (3, 4, 5), (3, 4, 5), 0),)

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """It is the input."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """`nn.Identity`."""
        return module("nn.Identity")

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Identity."""
        return (node("Identity", In(0)),)
