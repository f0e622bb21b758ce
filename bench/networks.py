"""Specs of any number of entries, to see how time and memory grow with them.

They come in pieces, never as a whole: the process that measures has to stay small (see
`bench.process`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import repeat

__all__ = ["WAYS"]

_HEAD = """\
cnnspec: 1
name: growth
inputs: {image: [16, 32, 32]}
"""

_BLOCK = """\
blocks:
  residual:
    params: {width: int}
    layers:
      - {Conv2d: {out_channels: width, kernel_size: 3, padding: 1, bias: false}, name: conv1}
      - {BatchNorm2d: {}, name: bn1}
      - ReLU
      - {Conv2d: {out_channels: width, kernel_size: 3, padding: 1, bias: false}, name: conv2}
      - {BatchNorm2d: {}, name: bn2}
      - add: [bn2, input]
      - ReLU
"""

_BLOCK_NODES = 7

_WRITTEN = """\
  - Conv2d: {out_channels: 16, kernel_size: 3, padding: 1}
  - BatchNorm2d
  - ReLU
"""

_WRITTEN_NODES = 3


def _loop(nodes: int) -> Iterator[str]:
    turns = nodes // _BLOCK_NODES
    yield f"{_HEAD}{_BLOCK}layers:\n  - residual: {{width: 16}}\n    repeat: {turns}\n"


def _calls(nodes: int) -> Iterator[str]:
    yield f"{_HEAD}{_BLOCK}layers:\n"
    yield from repeat("  - residual: {width: 16}\n", nodes // _BLOCK_NODES)


def _entries(nodes: int) -> Iterator[str]:
    yield f"{_HEAD}layers:\n"
    yield from repeat(_WRITTEN, nodes // _WRITTEN_NODES)


WAYS: Mapping[str, Callable[[int], Iterator[str]]] = {
    "loop": _loop,
    "calls": _calls,
    "entries": _entries,
}
"""Ways to write about `nodes` operations: a block in a loop, a line for each call of the block, a
line for each operation."""
