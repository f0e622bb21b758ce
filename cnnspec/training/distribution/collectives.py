"""Several processes as one: gradients summed in one fixed order, and what else they share.

Gradients go into buckets that are made once and sent in one order, so that a sum is the same to the
bit before and after a resume; torch's DistributedDataParallel makes its buckets anew behind the
first step, and sums in another order from then on. Which gradients there are is decided when the
plan is made: a process that has none adds zeros. With one process nothing here is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn

__all__ = ["GradientSums", "broadcast_tensors", "shared_object", "summed"]

_FIRST = 1 << 20
_BUCKET = 25 << 20
"""Bytes of the first bucket, which is sent early, and of the others, as in torch's own."""


@dataclass(slots=True, eq=False)
class _Bucket:
    """Gradients that are sent together: `views` are their places in `flat`."""

    parameters: list[nn.Parameter]
    flat: Tensor
    views: list[Tensor]
    waiting: int = 0
    work: Any = None


@dataclass(slots=True, eq=False)
class _Copied:
    """Riders on their way to this process's memory, beside the work of the device."""

    stream: torch.cuda.Stream
    values: Tensor
    event: torch.cuda.Event = field(default_factory=torch.cuda.Event)


class GradientSums:
    """Sums gradients over all processes while backward still runs, the last layers' first.

    A few numbers ride along with the first bucket: the loss, and what else has to be known of all
    processes at every step. `expect` arms the next backward pass, the last one of a step.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], riders: int, device: torch.device
    ) -> None:
        self._buckets = _buckets(list(reversed(parameters)), riders, device)
        self._riders = self._buckets[0].flat[-riders:]
        self._of = {
            parameter: bucket for bucket in self._buckets for parameter in bucket.parameters
        }
        self._next = 0
        self._armed = False
        self._copied: _Copied | None = None
        if device.type == "cuda":
            values = torch.empty(riders, pin_memory=True)
            self._copied = _Copied(_stream(device), values)
        for parameter in parameters:
            _on_gradient(parameter, self._arrived)

    def expect(self, riders: Tensor) -> None:
        """The next backward pass completes the gradients; `riders` are this process's numbers."""
        self._riders.copy_(riders)
        self._next = 0
        self._armed = True
        for bucket in self._buckets:
            bucket.waiting = len(bucket.parameters)

    def _arrived(self, parameter: Tensor) -> None:
        if not self._armed:
            return
        self._of[parameter].waiting -= 1  # type: ignore[index]  # hooks are on parameters alone
        while self._next < len(self._buckets) and not self._buckets[self._next].waiting:
            self._send()

    def _send(self) -> None:
        bucket = self._buckets[self._next]
        first = self._next == 0
        self._next += 1
        there = [
            (view, parameter.grad)
            for view, parameter in zip(bucket.views, bucket.parameters, strict=True)
            if parameter.grad is not None
        ]
        if len(there) < len(bucket.views):
            torch._foreach_zero_(bucket.views)
        if there:
            torch._foreach_copy_([view for view, _ in there], [grad for _, grad in there])
        bucket.work = distributed.all_reduce(bucket.flat, async_op=True)
        if first and self._copied is not None:
            copied = self._copied
            with torch.cuda.stream(copied.stream):
                bucket.work.wait()
                copied.values.copy_(self._riders, non_blocking=True)
                copied.event.record()

    def finish(self) -> list[float]:
        """The riders summed over all processes; from here on `grad` is the sum, too.

        On a GPU only the first bucket is waited for, the others by the device.
        """
        while self._next < len(self._buckets):
            self._send()
        self._armed = False
        for bucket in self._buckets:
            bucket.work.wait()
            bucket.work = None
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view
        if self._copied is None:
            return self._riders.tolist()
        self._copied.event.synchronize()
        return self._copied.values.tolist()


def _on_gradient(parameter: nn.Parameter, told: Callable[[Tensor], None]) -> None:
    parameter.register_post_accumulate_grad_hook(told)  # type: ignore[no-untyped-call]


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub


def _buckets(
    parameters: Sequence[nn.Parameter], riders: int, device: torch.device
) -> list[_Bucket]:
    groups: list[list[nn.Parameter]] = [[]]
    room = _FIRST
    for parameter in parameters:
        size = parameter.numel() * parameter.element_size()
        if groups[-1] and size > room:
            groups.append([])
            room = _BUCKET
        groups[-1].append(parameter)
        room -= size
    found = []
    for number, group in enumerate(groups):
        elements = sum(parameter.numel() for parameter in group)
        flat = torch.zeros(elements + (riders if number == 0 else 0), device=device)
        views, start = [], 0
        for parameter in group:
            views.append(flat.as_strided(parameter.shape, parameter.stride(), start))
            start += parameter.numel()
        found.append(_Bucket(group, flat, views))
    return found


# ------------------------------------------------------------------------------------------ others


def broadcast_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Give every process what that of rank 0 has."""
    for tensor in tensors.values():
        distributed.broadcast(tensor, 0)


def shared_object(found: Any, device: torch.device) -> Any:
    """What the process of rank 0 has, for all of them: plain containers and tensors on the CPU."""
    holder = [found]
    distributed.broadcast_object_list(holder, 0, device=device)
    return holder[0]


def summed(number: float, device: torch.device) -> float:
    """A number, summed over all processes, which all wait for it."""
    holder = torch.tensor([number], dtype=torch.float64, device=device)
    distributed.all_reduce(holder)
    return float(holder.item())
