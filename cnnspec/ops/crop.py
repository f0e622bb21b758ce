"""CenterCrop: the middle of an image, a sequence or a volume."""

from __future__ import annotations

from cnnspec.diagnostics import Reject
from cnnspec.geometry import POINTWISE, Window
from cnnspec.lower import In, Node, Rest, Tmp, TorchCode, const, helper, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._target import check_one_given, like_sizes, need_space, per_axis
from cnnspec.slots import Int, Nullable, PerAxis, TensorRef
from cnnspec.tensor import Tensor

_SOURCE = '''\
class CenterCrop(nn.Module):
    """Cuts out the middle, of the given size or as large as another tensor."""

    def __init__(self, size: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        size = self.size if like is None else like.shape[2:]
        for dim, length in enumerate(size, start=2):
            x = x.narrow(dim, round((x.shape[dim] - length) / 2), length)
        return x
'''


class CenterCrop(Stateless):
    """Cuts out the middle of all spatial axes, as U-Net does with its skips.

    The cut starts at `round((n - size) / 2)`, where a half goes to the even side (torchvision's
    CenterCrop, which pads what is too small; here that is an error).
    """

    size: tuple[int, ...] | None = arg(Nullable(PerAxis(Int(1))), None)
    """Size of the result: an integer, or one per spatial axis."""
    like: int | None = arg(Nullable(TensorRef()), None)
    """The tensor whose spatial sizes the result has, read when the network runs."""

    quantizable = True
    saves = ()
    examples = (
        Example({"size": 4}, (3, 8, 7), (3, 4, 4), 0),
        Example({"size": [1, 7]}, (3, 8, 7), (3, 1, 7), note="7 is odd: the cut starts at 4"),
        Example({"size": 2}, (3, 7), (3, 2)),
        Example({"size": [2, 3, 4]}, (1, 5, 5, 5), (1, 2, 3, 4)),
        Example({"like": 1}, ((3, 9, 8), (6, 4, 5)), (3, 4, 5), note="as the skips of a U-Net"),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The size asked for."""
        x = inputs[0]
        check_one_given(self, "size", "like")
        need_space(self, x)
        if self.like is not None:
            at, sizes = "like", like_sizes(x, inputs[self.like])
        else:
            at, sizes = "size", per_axis(self.size or (), x, "size")
        for role, n, size in zip(x.roles[1:], x.shape[1:], sizes, strict=True):
            if size > n:
                raise Reject(
                    "crop-too-large",
                    f"{role} is {n}, from which {size} cannot be cut",
                    at=at,
                    label=f"the input is {x}",
                )
        return (x.with_shape(x.shape[0], *sizes),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Each position looks at its place in the whole; of `like` only the size is read."""
        if input:
            return None
        sizes = zip(at.x.shape, at.y.shape, strict=True)
        return tuple(
            (axis, POINTWISE if n == m else Window(before=-round((n - m) / 2)))
            for axis, (n, m) in enumerate(sizes)
        )

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """The middle lies in the whole."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """A small class, as torch.nn has none."""
        if self.like is not None:
            return helper("CenterCrop", _SOURCE, feeds=(In(0), In(self.like)))
        return helper("CenterCrop", _SOURCE, at.y.shape[1:], feeds=(In(0),))

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Slice, between bounds computed from the sizes as they are at run time."""
        size = shape(*at.y.shape[1:]) if self.like is None else shape(Rest(In(self.like), 2))
        axes = const(tuple(range(2, at.x.rank + 1)), "int64")
        two = const((2,), "int64")
        # round(n / 2) is (n + n // 2 % 2) // 2 in integers.
        return (
            node("Sub", shape(Rest(In(0), 2)), size, to=Tmp("surplus")),
            node("Div", Tmp("surplus"), two, to=Tmp("half")),
            node("Mod", Tmp("half"), two, to=Tmp("odd")),
            node("Add", Tmp("surplus"), Tmp("odd"), to=Tmp("even")),
            node("Div", Tmp("even"), two, to=Tmp("start")),
            node("Add", Tmp("start"), size, to=Tmp("stop")),
            node("Slice", In(0), Tmp("start"), Tmp("stop"), axes),
        )
