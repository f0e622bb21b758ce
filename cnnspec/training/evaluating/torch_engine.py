"""Networks in torch under evaluation: float32, in eval mode, TF32 off, counted on the device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnspec.backends.torch.module import named_outputs
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.runtime.preparing import Array
from cnnspec.training.evaluating.figures import Evaluation
from cnnspec.training.evaluating.running import averaged_task
from cnnspec.training.evaluating.task import Task
from cnnspec.training.evaluating.torch_counting import Counting, log_probabilities

__all__ = ["TorchEngine"]


class TorchEngine:
    """Networks that answer together."""

    def __init__(
        self,
        networks: Sequence[tuple[Graph, nn.Module, Task]],
        uses: Sequence[int],
        device: torch.device,
        *,
        averaging: bool,
        threads: int,
        confusion: bool = False,
    ) -> None:
        """`averaging` where there are several networks or views."""
        self.uses = uses
        self._networks = [
            (graph, module.to(device).eval(), task) for graph, module, task in networks
        ]
        self._device = device
        self._averaging = averaging
        self._threads = threads
        task = networks[0][2]
        self._counting = Counting(
            averaged_task(task) if averaging else task, device, confusion=confusion
        )

    def add(
        self,
        images: Sequence[Sequence[Array]],
        targets: NDArray[np.int64],
        mirrored: Sequence[bool],
    ) -> None:
        """See `Engine`."""
        with torch.inference_mode(), _exactly(self._threads):
            there = [
                [torch.from_numpy(view).to(self._device) for view in views] for views in images
            ]
            true = torch.from_numpy(targets).to(self._device)
            if not self._averaging:
                (single,) = there[self.uses[0]]
                self._counting.add(self._run(0, single), true, single)
            else:
                self._counting.add(self._averaged(there, mirrored), true)

    def _averaged(self, images: Sequence[Sequence[Tensor]], mirrored: Sequence[bool]) -> Tensor:
        """Logarithms of the mean probabilities over networks and views."""
        whole: Tensor | None = None
        for number, use in enumerate(self.uses):
            probabilities = self._networks[number][2].probabilities
            for view, mirror in zip(images[use], mirrored, strict=True):
                logs = log_probabilities(self._run(number, view), probabilities=probabilities)
                if mirror and logs.dim() == 4:
                    logs = logs.flip(-1)
                whole = logs if whole is None else torch.logaddexp(whole, logs)
        assert whole is not None  # there is a network, and a view
        return whole - math.log(len(self.uses) * len(mirrored))

    def _run(self, number: int, images: Tensor) -> Tensor:
        graph, module, task = self._networks[number]
        try:
            found = module(images)
        except torch.cuda.OutOfMemoryError:
            raise EnvironmentFailure(
                f"the memory of the device is too small for batches of {len(images)}",
                help="a smaller --batch-size",
            ) from None
        return named_outputs(graph, found, training=False)[task.output]

    def evaluation(self, *, seconds: float, names: Sequence[str]) -> Evaluation:
        """See `Engine`."""
        return self._counting.evaluation(seconds=seconds, names=names)


@contextmanager
def _exactly(threads: int) -> Iterator[None]:
    """Products of float32 in float32, with so many threads of the CPU."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, torch.get_num_threads()
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, count = before
        torch.set_num_threads(count)
