"""Numbers that are none: seen without holding up the device, and traced to where they come from.

What a run does then is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Gauge", "first_odd_layer", "first_odd_tensor"]


class Gauge:
    """A few numbers of a step, read while the device is still busy with what was queued behind.

    `send` is called between forward and backward, `read` when backward is queued: it waits for
    forward alone, and the device has work for as long as backward takes.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self._values = torch.zeros(size)
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._values = self._values.pin_memory()
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stub

    def send(self, values: Tensor) -> None:
        """Have the numbers brought here."""
        self._values.copy_(values, non_blocking=True)
        if self._event is not None:
            self._event.record()

    def read(self) -> list[float]:
        """The numbers that were sent last."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


def first_odd_tensor(tensors: Mapping[str, Tensor]) -> str | None:
    """The key of the first tensor that has a value that is not finite. Waits for the device."""
    keys = [key for key, each in tensors.items() if each.is_floating_point() and each.numel()]
    if not keys:
        return None
    largest = torch._foreach_norm([tensors[key].detach() for key in keys], float("inf"))
    sound = torch.stack(largest).isfinite().tolist()
    return next((key for key, is_sound in zip(keys, sound, strict=True) if not is_sound), None)


def first_odd_layer(module: nn.Module, images: Tensor) -> str | None:
    """What is not finite first when `images` go through, in words; None where all outputs are.

    Layers are modules of their own; what an expression makes is seen where it goes into the next.
    """
    found: list[str] = []
    with _watched(module, found):
        module(images)
    return found[0] if found else None


@contextmanager
def _watched(module: nn.Module, found: list[str]) -> Iterator[None]:
    def into(path: str) -> Callable[..., None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not found and not all(map(_finite, inputs)):
                found.append(f"what goes into `{path}` is not finite")

        return look

    def out_of(path: str) -> Callable[..., None]:
        def look(layer: nn.Module, inputs: tuple[Any, ...], result: Any) -> None:
            if found or all(map(_finite, result if isinstance(result, tuple) else (result,))):
                return
            odd = first_odd_tensor(dict(layer.named_parameters(recurse=False)))
            why = f": its `{odd}` is not, behind the step before" if odd is not None else ""
            found.append(f"`{path}` is the first layer whose output is not finite{why}")

        return look

    handles = []
    for path, layer in module.named_modules():
        if path and not any(True for _ in layer.children()):
            handles.append(layer.register_forward_pre_hook(into(path)))
            handles.append(layer.register_forward_hook(out_of(path)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _finite(value: object) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return True
    return bool(value.isfinite().all())
