"""Where a process trains: its device, its rank among the processes, the threads it may use.

Started by torchrun, a process learns its rank from the environment. What is trained may not enter.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import distributed

from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.runtime.threads import usable_threads
from cnnspec.training.distribution.launching import OthersGone

__all__ = ["Place", "find_place", "joined"]

_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What cuBLAS has to be told before it starts, or its sums depend on what else runs."""


@dataclass(frozen=True, slots=True)
class Place:
    """One process of `world`, the `local_rank`-th of `local_world` on its machine.

    `threads` are those of the CPU that one operation uses; sums on the CPU depend on their number.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    threads: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes, shows and decides."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether the device works by itself, behind this process."""
        return self.device.type == "cuda"

    def describe(self) -> str:
        """The device as users know it: `NVIDIA L4`, or `CPU, 2 threads`."""
        if self.on_gpu:
            return torch.cuda.get_device_name(self.device)
        return f"CPU, {quantity(self.threads, 'thread')}"


def find_place(
    device: Literal["auto", "cpu", "cuda"] = "auto",
    *,
    threads: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Place:
    """The place of this process: a GPU of its own with `auto` where there is one, else the CPU.

    `environment` is torchrun's (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`); without it
    this process is the only one. Threads are by default the usable ones, shared by the processes of
    the machine.

    Raises `EnvironmentFailure` where there is no GPU, or fewer than processes.
    """
    rank, world = (_number(environment, name, 0) for name in ("RANK", "WORLD_SIZE"))
    world = max(world, 1)
    local_rank = _number(environment, "LOCAL_RANK", 0)
    local_world = max(_number(environment, "LOCAL_WORLD_SIZE", 1), 1)
    found = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and not found:
        reason = "torch was built without CUDA" if torch.version.cuda is None else "there is no GPU"
        raise EnvironmentFailure(
            f"`cuda` cannot be used: {reason}", help="`--device cpu` trains on the CPU"
        )
    if found and local_rank >= found:
        raise EnvironmentFailure(
            f"{quantity(local_world, 'process')} share {quantity(found, 'GPU')}",
            help=f"start at most {found} on this machine, or train with `--device cpu`",
        )
    if found:
        os.environ.setdefault(*_WORKSPACE)
    return Place(
        torch.device("cuda", local_rank) if found else torch.device("cpu"),
        rank,
        world,
        local_rank,
        local_world,
        threads if threads is not None else max(1, usable_threads() // local_world),
    )


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, "")
    if not text:
        return otherwise
    if not text.isdecimal():
        raise EnvironmentFailure(
            f"`{name}` is `{text}` in the environment, no whole number",
            help="start several processes with `--nproc` or with torchrun",
        )
    return int(text)


@contextmanager
def joined(place: Place) -> Iterator[None]:
    """This process at its place: its device chosen, its threads set, the others found.

    Behind the block the threads are as they were and the processes go their own ways. Raises
    `EnvironmentFailure` where the processes do not find each other, and `OthersGone` where one of
    them ends before its time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(place.threads)
    if place.on_gpu:
        torch.cuda.set_device(place.device)
    try:
        if place.world == 1:
            yield
            return
        try:
            distributed.init_process_group(
                "nccl" if place.on_gpu else "gloo",
                rank=place.rank,
                world_size=place.world,
                device_id=place.device if place.on_gpu else None,
            )
        except (RuntimeError, ValueError, socket.gaierror) as failure:
            raise EnvironmentFailure(
                f"process {place.rank} of {place.world} does not find the others: "
                f"{str(failure).splitlines()[0]}",
                help="start all of them with `--nproc` or with torchrun",
            ) from None
        try:
            yield
        except RuntimeError as failure:
            if not _of_others(failure):
                raise
            raise OthersGone(
                f"process {place.rank} of {place.world} lost the others: one of them ended",
                help="--resume goes on from the last checkpoint",
            ) from None
        finally:
            distributed.destroy_process_group()
    finally:
        torch.set_num_threads(before)


def _of_others(failure: RuntimeError) -> bool:
    """Whether a failure is that of a connection to another process; gloo has no type for it."""
    return isinstance(failure, distributed.DistError) or "gloo/transport" in str(failure)
