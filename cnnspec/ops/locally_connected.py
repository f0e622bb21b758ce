"""Convolution that shares no weights: LocallyConnected1d, LocallyConnected2d."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from math import prod

from cnnspec.diagnostics import Reject
from cnnspec.geometry import taps_inside
from cnnspec.lower import In, Node, OnnxValue, Out, Own, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, Ops, Saved, Site, arg
from cnnspec.ops._filters import SlidingFilters
from cnnspec.ops._padding import onnx_pad
from cnnspec.ops._windows import require_channels_first, unlike_default
from cnnspec.slots import Bool, Int
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, torch_uniform

_SOURCE_1D = '''class LocallyConnected1d(nn.Module):
    """Convolution that shares no weights: every output position has filters of its own."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        positions: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels, self.stride, self.dilation = out_channels, stride, dilation
        self.extent = dilation * (kernel_size - 1) + 1
        self.weight = nn.Parameter(torch.empty(positions * out_channels, in_channels, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels, positions)) if bias else None
        bound = 1 / math.sqrt(in_channels * kernel_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(2, self.extent, self.stride)[..., :: self.dilation]
        patches = windows.permute(2, 0, 1, 3).contiguous().flatten(2)
        filters = self.weight.view(-1, self.out_channels, self.weight[0].numel())
        y = torch.bmm(patches, filters.transpose(1, 2)).permute(1, 2, 0)
        return y if self.bias is None else y + self.bias
'''

_SOURCE_2D = '''class LocallyConnected2d(nn.Module):
    """Convolution that shares no weights: every output position has filters of its own."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        positions: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels, self.positions = out_channels, positions
        self.stride, self.dilation = stride, dilation
        self.extent = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
        filters = positions[0] * positions[1] * out_channels
        self.weight = nn.Parameter(torch.empty(filters, in_channels, *kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels, *positions)) if bias else None
        bound = 1 / math.sqrt(in_channels * kernel_size[0] * kernel_size[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(2, self.extent[0], self.stride[0])
        windows = windows.unfold(3, self.extent[1], self.stride[1])
        windows = windows[..., :: self.dilation[0], :: self.dilation[1]]
        patches = windows.permute(2, 3, 0, 1, 4, 5).contiguous().flatten(3).flatten(0, 1)
        filters = self.weight.view(-1, self.out_channels, self.weight[0].numel())
        y = torch.bmm(patches, filters.transpose(1, 2)).permute(1, 2, 0)
        y = y.reshape(*y.shape[:2], *self.positions)
        return y if self.bias is None else y + self.bias
'''

_TRIMMED_SOURCE_1D = '''class TrimmedLocallyConnected1d(nn.Module):
    """A locally connected layer that stores no weight for the padding."""

    taps: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        positions: int,
        size: int,
        before: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.extent = stride, dilation * (kernel_size - 1) + 1
        self.dilation = dilation
        table, links = [], 0
        for position in range(positions):
            for tap in range(kernel_size):
                inside = 0 <= stride * position - before + dilation * tap < size
                table.append(links if inside else -1)
                links += inside
        taps = torch.tensor(table).view(positions, kernel_size)
        self.register_buffer("taps", taps, persistent=False)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, links))
        self.bias = nn.Parameter(torch.empty(out_channels, positions)) if bias else None
        bound = 1 / math.sqrt(in_channels * kernel_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(2, self.extent, self.stride)[..., :: self.dilation]
        patches = windows.permute(2, 0, 1, 3).contiguous().flatten(2)
        filters = F.pad(self.weight, (0, 1))[:, :, self.taps].permute(2, 1, 3, 0).flatten(1, 2)
        y = torch.bmm(patches, filters).permute(1, 2, 0)
        return y if self.bias is None else y + self.bias
'''

_TRIMMED_SOURCE_2D = '''class TrimmedLocallyConnected2d(nn.Module):
    """A locally connected layer that stores no weight for the padding."""

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        positions: tuple[int, int],
        size: tuple[int, int],
        before: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        dilation: tuple[int, int] = (1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.positions, self.stride, self.dilation = positions, stride, dilation
        self.extent = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation, strict=True)]
        stored = []
        for axis, name in enumerate(("rows", "columns")):
            table, links = [], 0
            for position in range(positions[axis]):
                start = stride[axis] * position - before[axis]
                for tap in range(kernel_size[axis]):
                    inside = 0 <= start + dilation[axis] * tap < size[axis]
                    table.append(links if inside else -1)
                    links += inside
            taps = torch.tensor(table).view(positions[axis], kernel_size[axis])
            self.register_buffer(name, taps, persistent=False)
            stored.append(links)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *stored))
        self.bias = nn.Parameter(torch.empty(out_channels, *positions)) if bias else None
        bound = 1 / math.sqrt(in_channels * kernel_size[0] * kernel_size[1])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        windows = x.unfold(2, self.extent[0], self.stride[0])
        windows = windows.unfold(3, self.extent[1], self.stride[1])
        windows = windows[..., :: self.dilation[0], :: self.dilation[1]]
        patches = windows.permute(2, 3, 0, 1, 4, 5).contiguous().flatten(3).flatten(0, 1)
        filters = F.pad(self.weight, (0, 1, 0, 1))
        filters = filters[:, :, self.rows[:, :, None, None], self.columns]
        filters = filters.permute(2, 4, 1, 3, 5, 0).flatten(2, 4).flatten(0, 1)
        y = torch.bmm(patches, filters).permute(1, 2, 0)
        y = y.reshape(*y.shape[:2], *self.positions)
        return y if self.bias is None else y + self.bias
'''

_SOURCES = {
    ("LocallyConnected1d", True): _SOURCE_1D,
    ("LocallyConnected2d", True): _SOURCE_2D,
    ("LocallyConnected1d", False): _TRIMMED_SOURCE_1D,
    ("LocallyConnected2d", False): _TRIMMED_SOURCE_2D,
}


class _LocallyConnected(SlidingFilters, abstract=True):
    """The rules that both ranks share."""

    out_channels: int = arg(Int(1))
    """Number of filters at every position, the channels of the output."""
    padding_weights: bool = arg(Bool(), True)
    """Whether weights are stored that only ever meet padding; if not, filters at the border have
    fewer: three taps on n positions are a band matrix of 3n-2 weights instead of 3n."""

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`out_channels`, and along each axis as often as the window fits, rounded down."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        if self.padding_mode != "zeros" and not self.padding_weights:
            raise Reject(
                "argument-conflict",
                f"{self.padding_mode} padding is multiplied with weights, which "
                "`padding_weights: false` leaves out",
                at="padding_weights",
            )
        return (self._slide(x, self.out_channels),)

    def _fan_in(self, at: Site) -> int:
        """Elements of a patch, what a filter meets at one position."""
        return at.x.shape[0] * prod(self.kernel_size)

    def _taps(self, at: Site) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """For each axis, position and tap the number of its stored weight; -1 for the padding."""
        axes = []
        for (n, k, s, d, before, _), positions in zip(
            self._along(at.x), at.y.shape[1:], strict=True
        ):
            number = count()
            axes.append(
                tuple(
                    tuple(
                        next(number) if 0 <= s * position - before + d * tap < n else -1
                        for tap in range(k)
                    )
                    for position in range(positions)
                )
            )
        return tuple(axes)

    def _stored(self, at: Site) -> tuple[int, ...]:
        """For each axis, pairs of position and tap that have a weight."""
        return tuple(
            positions * k if self.padding_weights else taps_inside(n, positions, k, s, d, before)
            for (n, k, s, d, before, _), positions in zip(
                self._along(at.x), at.y.shape[1:], strict=True
            )
        )

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight`, `bias` (out, *positions); both start as those of a convolution in torch.

        The weights are the filters (out, in, *kernel) of one position after the other. Without
        those for the padding they are (out, in, *pairs): pairs of position and tap along each axis.
        """
        start = torch_uniform(self._fan_in(at))
        filters = prod(at.y.shape[1:]) * self.out_channels
        shape = (filters, at.x.shape[0], *self.kernel_size)
        if not self.padding_weights:
            shape = (self.out_channels, at.x.shape[0], *self._stored(at))
        found = {"weight": Weight(shape, start)}
        if self.bias:
            found["bias"] = Weight(at.y.shape, start, decay=False)
        return found

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Where each tap finds its weight; follows from the sizes, so not stored."""
        if self.padding_weights:
            return {}
        names = ("taps",) if self.axes == 1 else ("rows", "columns")
        return {
            name: Buffer(
                (len(axis), len(axis[0])),
                dtype="int64",
                values=tuple(number for taps in axis for number in taps),
                persistent=False,
            )
            for name, axis in zip(names, self._taps(at), strict=True)
        }

    def _links(self, at: Site) -> int:
        return self.out_channels * at.x.shape[0] * prod(self._stored(at))

    def cost(self, at: Site) -> Ops:
        """One multiplication for each weight."""
        return Ops(mac=self._links(at), add=at.y.elements * self.bias)

    def connections(self, at: Site) -> Connections | None:
        """One for each weight, and one for each bias."""
        return Connections(self._links(at), at.y.elements * self.bias)

    def padding_macs(self, at: Site) -> int:
        """As any convolution; none where the padding has no weights."""
        return super().padding_macs(at) if self.padding_weights else 0

    def saved(self, at: Site, batch: int) -> Saved:
        """The patches of all positions, and the filters where they are put together."""
        patches = prod(at.y.shape[1:]) * self._fan_in(at)
        copies = batch if self.padding_weights else batch + self.out_channels
        repeats = self.padding_mode in ("reflect", "replicate")
        padded = any(map(any, self._sides(at.x)))
        return Saved(inputs=(0,) if repeats and padded else (), elements=patches * copies)

    def saved_for(self, at: Site, batch: int, needs: tuple[bool, ...]) -> Saved:
        """The patches alone where the input needs no gradient."""
        if needs[0]:
            return self.saved(at, batch)
        patches = prod(at.y.shape[1:]) * self._fan_in(at)
        return Saved(elements=patches * batch)

    def torch(self, at: Site) -> TorchCode:
        """A module that multiplies the patches of each position with a matrix of its own."""
        sides = self._sides(at.x)
        trimmed = "" if self.padding_weights else "Trimmed"
        plain = self.axes == 1

        def written(values: tuple[int, ...]) -> int | tuple[int, ...]:
            return values[0] if plain else values

        border = (written(at.x.shape[1:]), written(tuple(before for before, _ in sides)))
        ones = written((1,) * self.axes)
        options = {
            "stride": (written(self.stride), ones),
            "dilation": (written(self.dilation), ones),
            "bias": (self.bias, True),
        }
        return helper(
            f"{trimmed}{self.name}",
            _SOURCES[self.name, self.padding_weights],
            at.x.shape[0],
            self.out_channels,
            written(self.kernel_size),
            written(at.y.shape[1:]),
            *(border if trimmed else ()),
            feeds=(self._torch_pad(sides),) if any(map(any, sides)) else None,
            products={"torch.bmm": self._fan_in(at) * at.y.elements},
            **unlike_default(options),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """Gather of the patches along each axis, MatMul with the filters of each position."""
        sides = self._sides(at.x)
        x: OnnxValue = In(0)
        padding: tuple[Node, ...] = ()
        if any(map(any, sides)):
            x = padded = Tmp("padded")
            padding = onnx_pad(In(0), sides, self.padding_mode, opset, padded)
        axes = range(self.axes)
        positions, patch = prod(at.y.shape[1:]), self._fan_in(at)
        reads = [
            tuple(tuple(s * o + d * t for t in range(k)) for o in range(size))
            for (_, k, s, d, _, _), size in zip(self._along(at.x), at.y.shape[1:], strict=True)
        ]
        windows, patches = _gathered(x, reads, "windows")
        # From batch, channels, and position and tap of each axis: positions, patch, batch.
        turned = [*(2 + 2 * axis for axis in axes), 1, *(3 + 2 * axis for axis in axes), 0]
        filter_nodes, filters = self._onnx_filters(at)
        product, lying = Tmp("product"), Tmp("lying")
        out = Tmp("out") if self.bias else Out(0)
        return (
            *padding,
            *windows,
            node("Transpose", patches, to=Tmp("turned"), perm=turned),
            node(
                "Reshape",
                Tmp("turned"),
                const((positions, patch, -1), "int64"),
                to=Tmp("patches"),
            ),
            *filter_nodes,
            node("MatMul", filters, Tmp("patches"), to=product),
            node("Transpose", product, to=lying, perm=[2, 1, 0]),
            node("Reshape", lying, const((-1, *at.y.shape), "int64"), to=out),
            *((node("Add", Tmp("out"), Own("bias")),) if self.bias else ()),
        )

    def _onnx_filters(self, at: Site) -> tuple[tuple[Node, ...], OnnxValue]:
        """The filters as positions x out x patch."""
        axes = range(self.axes)
        sizes = (prod(at.y.shape[1:]), self.out_channels, self._fan_in(at))
        filters = Tmp("filters")
        reshape = const(sizes, "int64")
        if self.padding_weights:
            return (node("Reshape", Own("weight"), reshape, to=filters),), filters
        ends = (*(0,) * (self.axes + 4), *(1,) * self.axes)
        gather, found = _gathered(Tmp("zero_ended"), self._taps(at), "taps")
        turned = [*(2 + 2 * axis for axis in axes), 0, 1, *(3 + 2 * axis for axis in axes)]
        return (
            node("Pad", Own("weight"), const(ends, "int64"), to=Tmp("zero_ended")),
            *gather,
            node("Transpose", found, to=Tmp("filters_turned"), perm=turned),
            node("Reshape", Tmp("filters_turned"), reshape, to=filters),
        ), filters


def _gathered(
    x: OnnxValue, tables: Sequence[tuple[tuple[int, ...], ...]], name: str
) -> tuple[tuple[Node, ...], OnnxValue]:
    """Gather along each spatial axis, which becomes two: position and tap."""
    nodes = []
    for axis, table in enumerate(tables):
        found = Tmp(f"{name}{axis}")
        nodes.append(node("Gather", x, const(table, "int64"), to=found, axis=2 + 2 * axis))
        x = found
    return tuple(nodes), x


class LocallyConnected1d(_LocallyConnected):
    """Filters over a sequence that are not shared: every position has its own."""

    axes = 1
    examples = (
        Example(
            {"out_channels": 1, "kernel_size": 3, "padding": 1, "bias": False},
            (1, 5),
            (1, 5),
            15,
        ),
        Example(
            {
                "out_channels": 1,
                "kernel_size": 3,
                "padding": 1,
                "bias": False,
                "padding_weights": False,
            },
            (1, 5),
            (1, 5),
            13,
            "a band matrix of 3n-2 weights",
        ),
        Example({"out_channels": 4, "kernel_size": 3}, (2, 9), (4, 7), 196),
        Example(
            {
                "out_channels": 3,
                "kernel_size": 3,
                "stride": 2,
                "dilation": 2,
                "padding": "same",
                "padding_weights": False,
            },
            (2, 8),
        ),
        Example(
            {"out_channels": 2, "kernel_size": 2, "padding": [[1, 0]], "padding_mode": "circular"},
            (2, 5),
            (2, 5),
        ),
    )


class LocallyConnected2d(_LocallyConnected):
    """Filters over an image that are not shared: every pixel of the output has its own.

    As Keras has it, with a bias for each output element. LeCun, Generalization and network design
    strategies, 1989; Taigman et al., DeepFace, 2014.
    """

    examples = (
        Example(
            {"out_channels": 1, "kernel_size": 3, "padding": 1, "bias": False},
            (1, 7, 7),
            (1, 7, 7),
            441,
            "a filter for each of 49 pixels",
        ),
        Example({"out_channels": 4, "kernel_size": [3, 2]}, (2, 5, 6), (4, 3, 5), 780),
        Example(
            {
                "out_channels": 3,
                "kernel_size": [3, 2],
                "stride": [2, 1],
                "dilation": [1, 2],
                "padding": "same",
            },
            (2, 6, 5),
            (3, 3, 5),
        ),
        Example(
            {
                "out_channels": 2,
                "kernel_size": 3,
                "stride": [1, 2],
                "padding": [[1, 2], [0, 1]],
                "padding_weights": False,
            },
            (2, 4, 5),
        ),
        Example(
            {"out_channels": 2, "kernel_size": 2, "bias": False, "padding_weights": False},
            (3, 4, 5),
            (2, 3, 4),
            288,
            "without padding nothing is left out",
        ),
        Example(
            {"out_channels": 2, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
            (2, 4, 5),
        ),
    )


__all__ = ["LocallyConnected1d", "LocallyConnected2d"]
