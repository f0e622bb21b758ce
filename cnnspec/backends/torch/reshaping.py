"""Weights of linear layers as those of the convolutions that take their place.

Nothing else about weights is changed here: what then does not fit is reported by whoever reads it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod

from torch import Tensor

from cnnspec.backends.torch.verify import promises
from cnnspec.backends.torch.weights import StateDict, read_weights, unprefixed
from cnnspec.ir import Graph

__all__ = ["reshaped"]


def reshaped(
    graph: Graph, weights: str | os.PathLike[str] | Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weights of a network for the one that `Network.to_fcn` makes of it, whose graph this is.

    A linear weight (out, C*H*W) becomes that of a convolution (out, C, H, W): a flattened map lies
    row by row in its channels, so that the elements stay where they are. All other tensors are
    handed on. `weights` are a state dict or a file; no tensor is copied.

    Raises `EnvironmentFailure` for a file that cannot be read.
    """
    wanted = {key: promise.stored.shape for key, promise in promises(graph).items()}
    given = StateDict(weights) if isinstance(weights, Mapping) else read_weights(weights)
    found = dict(unprefixed(given, wanted).tensors)
    for key, tensor in found.items():
        shape = wanted.get(key, ())
        if len(shape) > tensor.dim() == 2 and tensor.shape == (shape[0], prod(shape[1:])):
            found[key] = tensor.reshape(shape)
    return found
