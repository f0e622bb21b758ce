"""Modules that torch compiles, and what to say where it cannot. What is computed may not enter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["compiled", "compiler_explained"]


def compiled(module: nn.Module) -> Callable[..., Any]:
    """The module, compiled when it is first called.

    Each size of a batch gets code of its own: code for any size would come with the second one, and
    a resume, which may meet another size first, would compute other bits.
    """
    made: Callable[..., Any] = torch.compile(module, dynamic=False)
    return made


@contextmanager
def compiler_explained(wanted: bool) -> Iterator[None]:
    """Say it as a failure of the environment where a block fails as torch's compiler does.

    Torch's compiler is imported only where it is `wanted`: it takes seconds.
    """
    if not wanted:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as failure:
        said = next((line for line in str(failure).splitlines() if line), "no reason given")
        raise EnvironmentFailure(
            f"torch cannot compile the network: {said}",
            help="`compile: false` trains without; on the CPU compiling needs a C++ compiler",
        ) from None
