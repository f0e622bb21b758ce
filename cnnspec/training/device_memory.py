"""Memory of the device while training: how much is used, and what to say when there is too little.

What a step is expected to take is `memory_estimate`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.memory_estimate import largest_batch
from cnnspec.training.planning import Plan

__all__ = ["memory_used", "shortage_explained"]

_ON_CPU = ("can't allocate memory", "not enough memory")
"""How torch says on the CPU that memory is short."""


def memory_used(device: torch.device) -> int:
    """The most bytes that tensors took on a GPU, or this process on the CPU; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@contextmanager
def shortage_explained(plan: Plan) -> Iterator[None]:
    """Say it with the batch that is expected to fit, where a block runs out of memory."""
    try:
        yield
    except torch.OutOfMemoryError:
        whole = torch.cuda.get_device_properties(plan.place.device).total_memory
        raise _short(plan, whole) from None
    except MemoryError:
        raise _short(plan, _installed()) from None
    except RuntimeError as failure:
        if not any(said in str(failure) for said in _ON_CPU):
            raise
        raise _short(plan, _installed()) from None


def _installed() -> int | None:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _short(plan: Plan, room: int | None) -> EnvironmentFailure:
    recipe, place, memory = plan.recipe, plan.place, plan.memory
    parts = place.world * recipe.accumulate
    said = f"a step of {memory.batch:,} samples at once does not fit into the memory"
    if room is None:
        return EnvironmentFailure(said, help="a smaller `--batch-size` takes less")
    room //= 1 if place.on_gpu else place.local_world
    at_most = largest_batch(plan.graph, recipe, room)
    said += f" of {room / 2**30:,.1f} GiB: about {memory.step / 2**30:,.1f} GiB of tensors"
    if not at_most:
        return EnvironmentFailure(
            said, help="not even one sample is expected to fit; other processes may be using it"
        )
    if at_most >= memory.batch:
        return EnvironmentFailure(
            said + ", and what kernels and other processes take",
            help=f"a smaller batch than {memory.batch * parts:,} may fit",
        )
    parted = -(-recipe.batch_size // (at_most * place.world))
    return EnvironmentFailure(
        said,
        help=f"`--batch-size {at_most * parts}` is expected to fit, or the same batch in parts: "
        f"`accumulate: {parted}`",
    )
