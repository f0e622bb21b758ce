"""The torch back end: a graph as readable Python source, and as the `nn.Module` it makes.

Lowering data of ops goes in, text and modules come out. No op is known by name here.
"""

from __future__ import annotations

from cnnspec.backends.torch.artifact import Built, BuiltFile, build
from cnnspec.backends.torch.emit import emit
from cnnspec.backends.torch.module import ModuleMismatchError, named_outputs, to_torch
from cnnspec.backends.torch.reshaping import reshaped
from cnnspec.backends.torch.weights import WeightsMismatch

__all__ = [
    "Built",
    "BuiltFile",
    "ModuleMismatchError",
    "WeightsMismatch",
    "build",
    "emit",
    "named_outputs",
    "reshaped",
    "to_torch",
]
