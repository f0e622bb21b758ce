"""Flatten and Unflatten: several axes become one, one axis becomes several."""

from __future__ import annotations

from math import prod

from cnnspec.diagnostics import Reject, shape_text
from cnnspec.geometry import POINTWISE, Flattened, Unknown, View
from cnnspec.lower import Dim, In, Node, Rest, TorchCode, call, node, shape
from cnnspec.op import Example, Look, Ops, Site, Stateless, arg
from cnnspec.ops._dim import position
from cnnspec.slots import Int, Ints
from cnnspec.tensor import Role, Tensor, default_roles

_GRIDS = {2: (Role.HEIGHT, Role.WIDTH), 3: (Role.DEPTH, Role.HEIGHT, Role.WIDTH)}
"""What tokens are laid out on again."""


class Flatten(Stateless):
    """Merges neighbouring axes into one, by default all of them: an image into features.

    What has no channels among it becomes tokens (`start_dim: 2`: an image into a sequence).
    Channels stay channels where axes stay behind them (`end_dim: 2`: a sequence of columns).
    """

    start_dim: int = arg(Int(), 1)
    """First axis to merge, in torch's numbering: 1 is the first after the batch."""
    end_dim: int = arg(Int(), -1)
    """Last axis to merge, likewise."""

    inplace_capable = True
    quantizable = True
    saves = ()
    examples = (
        Example({}, (3, 4, 5), (60,), 0),
        Example({}, (8, 1, 1), (8,), note="behind global pooling"),
        Example({"start_dim": 2}, (3, 4, 5), (3, 20), note="tokens"),
        Example({"end_dim": 2}, (3, 4, 5), (12, 5), note="columns, each with its own channels"),
        Example({"start_dim": -3, "end_dim": -2}, (2, 3, 4, 5), (2, 12, 5)),
        Example({}, (7,), (7,)),
    )

    def _span(self, x: Tensor) -> tuple[int, int]:
        """The first merged axis and the one behind the last, batch not counted."""
        first = position(self.start_dim, x, "start_dim")
        last = position(self.end_dim, x, "end_dim")
        if first > last:
            raise Reject(
                "axis-order",
                f"`end_dim` is axis {last + 1}, before `start_dim`, which is axis {first + 1}",
                at="end_dim",
            )
        return first, last + 1

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The product of the merged sizes."""
        x = inputs[0]
        first, stop = self._span(x)
        merged = x.roles[first:stop]
        if stop - first == x.rank:
            role = Role.FEATURE
        elif len(merged) == 1:
            role = merged[0]
        elif not first and Role.CHANNEL in merged:
            role = Role.CHANNEL
        else:
            mixed = Role.CHANNEL in merged or Role.FEATURE in merged
            role = Role.FEATURE if mixed else Role.TOKEN
        sizes = (*x.shape[:first], prod(x.shape[first:stop]), *x.shape[stop:])
        return (Tensor(sizes, (*x.roles[:first], role, *x.roles[stop:]), x.batched),)

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Positions are lost, unless one of the merged axes is all there is."""
        first, stop = self._span(at.x)
        alone = sum(n > 1 for n in at.x.shape[first:stop]) <= 1

        def look(axis: int) -> tuple[int, View]:
            if first <= axis < stop:
                kept = alone and at.x.shape[axis] > 1
                return first, POINTWISE if kept else Flattened()
            return (axis if axis < first else axis - (stop - first - 1)), POINTWISE

        return tuple(look(axis) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """The same elements in the same order."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """`torch.flatten`."""
        end = () if self.end_dim == -1 else (self.end_dim,)
        return call("torch.flatten", In(0), self.start_dim, *end)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Flatten, or Reshape where axes on either side stay."""
        first, stop = self._span(at.x)
        if stop - first == at.x.rank:
            return (node("Flatten", In(0), axis=1),)
        after = (Rest(In(0), stop + 1),) if stop < at.x.rank else ()
        return (node("Reshape", In(0), shape(*(0,) * (first + 1), -1, *after)),)


class Unflatten(Stateless):
    """Splits one axis into several: features into an image, tokens into a grid.

    All features together become channels and space as in a network input; tokens become height and
    width (or depth, height and width); of any other axis the last part keeps the meaning.
    """

    dim: int = arg(Int())
    """The axis to split, in torch's numbering: 1 is the first after the batch."""
    unflattened_size: tuple[int, ...] = arg(Ints(-1, 1, 4))
    """The sizes it is split into; one of them may be -1, which is what is left."""

    inplace_capable = True
    quantizable = True
    saves = ()
    examples = (
        Example({"dim": 1, "unflattened_size": [3, 4, 5]}, (60,), (3, 4, 5), 0),
        Example({"dim": 2, "unflattened_size": [4, -1]}, (3, 20), (3, 4, 5), note="tokens"),
        Example({"dim": 1, "unflattened_size": [2, 3]}, (6, 4, 5), (2, 3, 4, 5)),
        Example({"dim": -1, "unflattened_size": [-1]}, (7,), (7,)),
    )

    def _sizes(self, n: int) -> tuple[int, ...]:
        sizes = self.unflattened_size
        if sizes.count(-1) > 1 or 0 in sizes:
            raise Reject(
                "argument-value",
                "`unflattened_size` must be sizes of at least 1, and at most one -1",
                at="unflattened_size",
            )
        known = prod(size for size in sizes if size > 0)
        if n % known or (-1 not in sizes and known != n):
            raise Reject(
                "unflatten-size",
                f"{n} cannot be split into {shape_text(sizes).replace('-1', '?')}",
                at="unflattened_size",
            )
        return tuple(n // known if size == -1 else size for size in sizes)

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The sizes in the place of the axis."""
        x = inputs[0]
        axis = position(self.dim, x)
        sizes = self._sizes(x.shape[axis])
        role = x.roles[axis]
        roles = (*(Role.TOKEN,) * (len(sizes) - 1), role)
        if x.rank == 1:
            roles = default_roles(len(sizes)) or roles
        elif role is Role.TOKEN:
            roles = _GRIDS.get(len(sizes), roles)
        return (
            Tensor(
                (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]),
                (*x.roles[:axis], *roles, *x.roles[axis + 1 :]),
                x.batched,
            ),
        )

    def window(self, at: Site, input: int, output: int) -> Look | None:
        """Positions are kept only if one of the parts is all there is."""
        own = position(self.dim, at.x)
        parts = len(self.unflattened_size)
        wide = [axis for axis in range(own, own + parts) if at.y.shape[axis] > 1]

        def look(axis: int) -> tuple[int | None, View]:
            if axis != own:
                return (axis if axis < own else axis + parts - 1), POINTWISE
            if len(wide) > 1:
                return None, Unknown("the axis was split into several")
            return (wide[0] if wide else own), POINTWISE

        return tuple(look(axis) for axis in range(at.x.rank))

    def cost(self, at: Site) -> Ops:
        """Nothing is computed."""
        return Ops()

    def is_view(self, at: Site) -> bool:
        """The same elements in the same order."""
        return True

    def torch(self, at: Site) -> TorchCode:
        """`unflatten`."""
        return call(".unflatten", In(0), position(self.dim, at.x) + 1, self.unflattened_size)

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Reshape; a part that is what is left stays so where nothing else is."""
        axis = position(self.dim, at.x)
        after = (Dim(In(0), behind) for behind in range(axis + 2, at.x.rank + 1))
        return (node("Reshape", In(0), shape(*(0,) * (axis + 1), *self.unflattened_size, *after)),)
