"""Convolution with a connection table, as LeNet-5's C3: each filter reads some channels only."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from cnnspec.diagnostics import Reject, quantity
from cnnspec.lower import Node, Own, Tmp, TorchCode, const, helper, node
from cnnspec.op import Connections, Example, LinearMap, Ops, Saved, Site, arg
from cnnspec.ops._filters import SlidingFilters
from cnnspec.ops._windows import require_channels_first, short, unlike_default
from cnnspec.slots import ConnectionTable
from cnnspec.tensor import Tensor
from cnnspec.weights import Buffer, Weight, torch_uniform

_SOURCE = '''class MaskedConv2d(nn.Module):
    """Convolution whose filter `i` reads only the input channels `table[i]`."""

    filters: torch.Tensor
    channels: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        table: tuple[tuple[int, ...], ...],
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        height, width = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
        links = [(row, channel) for row, channels in enumerate(table) for channel in channels]
        self.dense_shape = (len(table), in_channels, height, width)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = nn.Parameter(torch.empty(len(links), height, width))
        self.bias = nn.Parameter(torch.empty(len(table))) if bias else None
        self.register_buffer("filters", torch.tensor([row for row, _ in links]), persistent=False)
        self.register_buffer("channels", torch.tensor([c for _, c in links]), persistent=False)
        bound = 1 / math.sqrt(max(map(len, table)) * height * width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dense = self.weight.new_zeros(self.dense_shape)
        dense = dense.index_put((self.filters, self.channels), self.weight)
        return F.conv2d(x, dense, self.bias, self.stride, self.padding, self.dilation)
'''


class MaskedConv2d(SlidingFilters):
    """Slides filters over an image, each over the input channels that a table gives it.

    Only links that exist are stored, counted and reported: C3 of LeNet-5 has 60 of 96 and so 1,516
    parameters (LeCun et al., Gradient-based learning applied to document recognition, 1998, table
    I). Libraries have no such kernel: they multiply the missing links as zeros.
    """

    table: tuple[tuple[int, ...], ...] = arg(ConnectionTable())
    """For each output channel the input channels it reads, counted from 0."""

    examples = (
        Example(
            {"table": [[0, 1], [1, 2], [0, 1, 2]], "kernel_size": 3},
            (3, 8, 9),
            (3, 6, 7),
            66,
            "seven links of nine weights, and three biases",
        ),
        Example(
            {
                "table": [
                    *([i, (i + 1) % 6, (i + 2) % 6] for i in range(6)),
                    *([i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6] for i in range(6)),
                    *([i, i + 1, (i + 3) % 6, (i + 4) % 6] for i in range(3)),
                    [0, 1, 2, 3, 4, 5],
                ],
                "kernel_size": 5,
            },
            (6, 14, 14),
            (16, 10, 10),
            1516,
            "C3 of LeNet-5",
        ),
        Example(
            {
                "table": [[2], [0, 1]],
                "kernel_size": [3, 2],
                "stride": 2,
                "padding": "same",
                "bias": False,
            },
            (3, 8, 9),
            (2, 4, 5),
            18,
        ),
        Example({"table": [[0], [1, 0]], "kernel_size": 3, "padding": 2, "dilation": 2}, (2, 6, 7)),
        Example(
            {"table": [[0], [1]], "kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
            (2, 6, 7),
        ),
    )

    def infer(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A channel for each row of the table, sizes as in Conv2d."""
        x = inputs[0]
        require_channels_first(self.name, self.axes, x)
        for number, row in enumerate(self.table):
            if max(row) >= x.shape[0]:
                raise Reject(
                    "connection-table",
                    f"row {number} of `table` reads input channel {max(row)}, but the input has "
                    f"{quantity(x.shape[0], 'channel')}, counted from 0",
                    at="table",
                )
            if len(set(row)) < len(row):
                twice = next(channel for channel in row if row.count(channel) > 1)
                raise Reject(
                    "connection-table",
                    f"row {number} of `table` reads input channel {twice} more than once",
                    at="table",
                )
        return (self._slide(x, len(self.table)),)

    @property
    def _links(self) -> int:
        return sum(map(len, self.table))

    def weights(self, at: Site) -> Mapping[str, Weight]:
        """`weight` (links, *kernel), in the order of the table, and `bias` (out).

        Uniform within the bound that torch has for the filter with the most links.
        """
        start = torch_uniform(max(map(len, self.table)) * prod(self.kernel_size))
        found = {"weight": Weight((self._links, *self.kernel_size), start)}
        if self.bias:
            found["bias"] = Weight((len(self.table),), start, decay=False)
        return found

    def buffers(self, at: Site) -> Mapping[str, Buffer]:
        """Where each link stands in the dense kernel; follows from the table, so not stored."""
        filters = [row for row, channels in enumerate(self.table) for _ in channels]
        channels = [channel for channels in self.table for channel in channels]
        return {
            name: Buffer((len(places),), dtype="int64", values=tuple(places), persistent=False)
            for name, places in (("filters", filters), ("channels", channels))
        }

    def _positions(self, at: Site) -> int:
        return prod(at.y.shape[1:])

    def cost(self, at: Site) -> Ops:
        """The multiplications of existing links."""
        return Ops(
            mac=self._links * prod(self.kernel_size) * self._positions(at),
            add=at.y.elements * self.bias,
        )

    def connections(self, at: Site) -> Connections | None:
        """Existing links times kernel times positions, and one bias for each output."""
        return Connections(
            self._links * prod(self.kernel_size) * self._positions(at), at.y.elements * self.bias
        )

    def linear_map(self, at: Site) -> LinearMap | None:
        """Links lie along the first axis of the weight, in the order of the table."""
        rows = tuple(row for row, channels in enumerate(self.table) for _ in channels)
        return LinearMap("weight", "bias" if self.bias else None, out_axis=0, rows=rows)

    def saved(self, at: Site, batch: int) -> Saved:
        """As any convolution, and the dense kernel that torch multiplies with."""
        kept = super().saved(at, batch)
        dense = len(self.table) * at.x.shape[0] * prod(self.kernel_size)
        return kept._replace(elements=kept.elements + dense)

    def torch(self, at: Site) -> TorchCode:
        """A module that scatters the links into a dense kernel."""
        sides = self._sides(at.x)
        repeats = self.padding_mode != "zeros" and any(map(any, sides))
        inside = not repeats and all(before == after for before, after in sides)
        dense = len(self.table) * at.x.shape[0] * prod(self.kernel_size)
        written = {
            "stride": (short(self.stride), 1),
            "padding": (short(tuple(before for before, _ in sides)) if inside else 0, 0),
            "dilation": (short(self.dilation), 1),
            "bias": (self.bias, True),
        }
        return helper(
            self.name,
            _SOURCE,
            at.x.shape[0],
            self.table,
            kernel_size=short(self.kernel_size),
            feeds=None if inside else (self._torch_pad(sides),),
            products={"F.conv2d": dense * self._positions(at)},
            **unlike_default(written),
        )

    def onnx(self, at: Site, opset: int) -> tuple[Node, ...]:
        """ScatterND of the links into zeros, which runtimes fold at load, and Conv."""
        dense_shape = (len(self.table), at.x.shape[0], *self.kernel_size)
        places = tuple((row, c) for row, channels in enumerate(self.table) for c in channels)
        dense = Tmp("dense")
        return (
            node(
                "ScatterND",
                const((0.0,) * prod(dense_shape), shape=dense_shape),
                const(places, "int64"),
                Own("weight"),
                to=dense,
            ),
            *self._onnx_conv(at, opset, dense),
        )


__all__ = ["MaskedConv2d"]
