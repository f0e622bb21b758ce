"""Specs of any number of entries, to see how time and memory grow with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def _loop(nodes: int) -> str:
    turns = nodes // _BLOCK_NODES
    return f"{_HEAD}{_BLOCK}layers:\n  - residual: {{width: 16}}\n    repeat: {turns}\n"


def _calls(nodes: int) -> str:
    return f"{_HEAD}{_BLOCK}layers:\n" + "  - residual: {width: 16}\n" * (nodes // _BLOCK_NODES)


def _entries(nodes: int) -> str:
    return f"{_HEAD}layers:\n" + _WRITTEN * (nodes // _WRITTEN_NODES)


WAYS: Mapping[str, Callable[[int], str]] = {"loop": _loop, "calls": _calls, "entries": _entries}
"""Ways to write about `nodes` operations: a block in a loop, a line for each call of the block, a
line for each operation."""
