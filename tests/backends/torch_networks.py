"""Networks that the tests of the torch back end compile: the shapes that structure can take."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from cnnspec.backends.torch import named_outputs
from cnnspec.frontend.load import expand, load_text
from cnnspec.ir import Graph

__all__ = [
    "AUXILIARY",
    "DOTTED",
    "NETWORKS",
    "PLAIN",
    "RESIDUAL",
    "SHARED",
    "TAPS",
    "each_network",
    "network",
    "outputs_of",
]


def network(text: str) -> Graph:
    """The graph of a spec without its first line."""
    return expand(load_text(f"cnnspec: 1\n{text}"))


RESIDUAL = """
name: small_resnet
params: {classes: int = 10}
inputs: {image: [3, 16, 16]}
blocks:
  basic:
    params: {width: int, stride: int = 1}
    layers:
      - Conv2d: {out_channels: width, kernel_size: 3, stride: stride, padding: 1, bias: false}
        name: conv1
      - BatchNorm2d:
        name: bn1
      - ReLU
      - Conv2d: {out_channels: width, kernel_size: 3, padding: 1, bias: false}
        name: conv2
      - BatchNorm2d:
        name: bn2
      - Sequential:
          - Conv2d: {out_channels: width, kernel_size: 1, stride: stride, bias: false}
          - BatchNorm2d
        name: downsample
        from: input
        when: stride != 1 or input.channels != width
      - add: [bn2, downsample]
      - ReLU
layers:
  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1, bias: false}
    name: conv1
  - BatchNorm2d:
    name: bn1
  - ReLU
  - Sequential:
      - basic: {width: 8*2**s, stride: 2 if s > 0 and i == 0 else 1}
        for: i in range(4)
    for: s in range(3)
    name: layer{s+1}
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: classes}
    name: fc
"""

PLAIN = """
name: lenet
inputs: {image: [1, 12, 12]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - Tanh
  - AvgPool2d: {kernel_size: 2}
  - Flatten
  - Linear: {out_features: 5}
"""

DENSE = """
name: dense
inputs: {image: [4, 8, 8]}
blocks:
  dense_layer:
    params: {growth: int}
    layers:
      - concat:
          skip: []
          new:
            - BatchNorm2d
            - ReLU: {inplace: true}
            - Conv2d: {out_channels: growth, kernel_size: 3, padding: 1, bias: false}
layers:
  - dense_layer: {growth: 3}
    repeat: 3
"""

UNNAMED = """
name: unnamed
inputs: {image: [4, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
  - ReLU: {inplace: true}
  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: second
  - add: [second, image]
  - Conv2d: {out_channels: 2, kernel_size: [1, 3]}
"""

TAPS = """
name: taps
inputs: {image: [3, 8, 8]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU: {inplace: true}
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU
    name: features
  - Conv2d: {out_channels: 1, kernel_size: 1}
    from: features.0
    name: early
outputs: {early: early, late: features, middle: features.1}
"""

LIKE = """
name: like
inputs: {image: [3, 8, 8], mask: [1, 8, 8]}
blocks:
  gate:
    inputs: [x, gate]
    layers:
      - mul: [x, gate]
      - Conv2d: {out_channels: 4, kernel_size: 1}
layers:
  - gate:
    from: {gate: mask, x: image}
    name: gated
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - add: [gated, "0"]
      - BatchNorm2d
    name: body
"""

TWO_OUTPUTS = """
name: two_outputs
inputs: {image: [3, 8, 8]}
blocks:
  trunk:
    outputs: [low, high]
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: low
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: mid
      - Conv2d: {out_channels: 6, kernel_size: 3, padding: 1}
        name: high
layers:
  - trunk:
    name: a
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: a.low
    name: x
  - trunk:
    from: image
    name: b
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: b.high
    name: y
  - add: [x, y]
"""

AUXILIARY = """
name: auxiliary
inputs: {image: [3, 8, 8]}
blocks:
  trunk:
    outputs: [main, aux]
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: main
      - Conv2d: {out_channels: 2, kernel_size: 1}
        name: pre
      - BatchNorm2d:
        name: aux
layers:
  - trunk:
    name: trunk
  - Flatten:
    from: trunk.main
  - Linear: {out_features: 5}
    name: fc
  - Flatten:
    from: trunk.aux
  - Linear: {out_features: 5}
    name: head
outputs: {logits: fc, aux: {from: head, training: true}}
"""

SHARED = """
name: shared
inputs: {left: [3, 8, 8], right: [3, 8, 8]}
blocks:
  encoder:
    layers:
      - Sequential:
          - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
          - BatchNorm2d
          - ReLU
        name: stem
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        name: conv
      - add: [stem, conv]
layers:
  - encoder:
    from: left
    name: encoder
  - encoder:
    from: right
    share: encoder
    name: other
  - concat: [encoder, other]
"""

BORROWED = """
name: borrowed
inputs: {image: [4, 8, 8]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
      - ReLU
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
    name: first
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        share: first.0
      - BatchNorm2d
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
        share: first.2
    name: second
  - Linear: {out_features: 8}
"""

DOTTED = """
name: dotted
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.2
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.1
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: a.0
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: b.x-y
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: b.7.8
  - Parameter: {shape: [4, 1, 1], value: 0.5}
    name: c.scale
  - mul: [c.scale, b.7.8]
  - BatchNorm2d:
    name: c.items
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: l-m
  - Conv2d: {out_channels: 2, kernel_size: 1}
    name: _private
"""

TRANSFORMER = """
name: transformer
inputs: {tokens: [3, 4, 4]}
layers:
  - Conv2d: {out_channels: 8, kernel_size: 2, stride: 2}
    name: patches
  - Flatten: {start_dim: 2}
  - Permute: {dims: [0, 2, 1]}
    name: sequence
  - Parameter: {shape: [1, 8], batch: true, std: 0.02}
    name: class_token
  - Concat: {dim: 1}
    from: [class_token, sequence]
  - MultiheadAttention: {num_heads: 2}
    name: attention
  - Slice: {dim: 1, stop: 1}
  - Flatten
"""

CHUNKED = """
name: chunked
inputs: {image: [6, 8, 8]}
layers:
  - Chunk: {chunks: 3, dim: 1}
    name: parts
  - Conv2d: {out_channels: 2, kernel_size: 1}
    from: parts.0
    name: left
  - add: [left, parts.2]
"""

PADDED = """
name: padded
inputs: {image: [3, 9, 9]}
layers:
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: [[1, 0], [0, 2]]}
      - ReLU
      - Conv2d: {out_channels: 4, kernel_size: 3, padding: same, stride: 2}
    name: body
"""

UNUSED = """
name: unused
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: kept
  - Sequential:
      - Conv2d: {out_channels: 4, kernel_size: 1}
      - ReLU
    name: dead
outputs: [kept]
"""

NETWORKS: Mapping[str, str] = {
    "residual": RESIDUAL,
    "plain": PLAIN,
    "dense": DENSE,
    "unnamed": UNNAMED,
    "taps": TAPS,
    "like": LIKE,
    "two_outputs": TWO_OUTPUTS,
    "auxiliary": AUXILIARY,
    "shared": SHARED,
    "borrowed": BORROWED,
    "dotted": DOTTED,
    "transformer": TRANSFORMER,
    "chunked": CHUNKED,
    "padded": PADDED,
    "unused": UNUSED,
}
each_network = pytest.mark.parametrize("text", NETWORKS.values(), ids=NETWORKS.keys())


def outputs_of(graph: Graph, module: nn.Module, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """What a module gives without gradients, in the order of the graph's outputs."""
    with torch.no_grad():
        result = module(*(tensor.clone() for tensor in inputs))
    named = named_outputs(graph, result, module.training)
    return [named[output.name] for output in graph.outputs if output.name in named]
