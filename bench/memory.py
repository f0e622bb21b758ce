"""Sets cnnspec's figures of memory against what torch allocates: inference and a training step.

`python -m bench.memory [NETWORK ...] [--batch N] [--size N]`. Where there is a GPU, torch's own
`torch.cuda.max_memory_allocated`; elsewhere the storages of all tensors that operations make on
the CPU, which leaves out temporaries within kernels. Ratios are torch's bytes by cnnspec's, weights
not counted for inference.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import cnnspec
from bench.tables import Table, mb, show

NETWORKS = ("resnet18", "resnet50", "densenet121", "googlenet", "vgg11_bn", "unet", "convnext_tiny")


class Measured(NamedTuple):
    """Bytes at the peak, of activations in inference and of everything in a training step."""

    inference: int
    training: int


class Storages(TorchDispatchMode):
    """Counts the bytes of storages from the operation that makes one until it is collected."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage, once."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.live -= self._sizes.pop(key)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return made


def _inputs(net: cnnspec.Network, batch: int, device: str) -> list[Tensor]:
    tensors = net.graph.tensors
    values = net.graph.inputs.values()
    return [torch.zeros(batch, *tensors[value].shape, device=device) for value in values]


def _infer(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    with torch.no_grad():
        module(*inputs)


def _train(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    outputs = [value for value in tree_leaves(module(*inputs)) if isinstance(value, Tensor)]
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


def _optimizer(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1e-9, momentum=0.9)


def on_cpu(net: cnnspec.Network, batch: int) -> Measured:
    """By the storages of tensors."""
    module = net.to_torch()
    storages = Storages()
    for stored in (*module.parameters(), *module.buffers()):
        storages.add(stored)
    weights = storages.live
    inputs = _inputs(net, batch, "cpu")
    for tensor in inputs:
        storages.add(tensor)
    storages.peak = storages.live
    with storages:
        _infer(module.eval(), inputs)
    inference = storages.peak - weights
    optimizer = _optimizer(module.train())
    with storages:
        _train(module, inputs)
        optimizer.step()
        optimizer.zero_grad()
        storages.peak = storages.live
        _train(module, inputs)
    return Measured(inference, storages.peak)


def on_gpu(net: cnnspec.Network, batch: int) -> Measured:
    """By CUDA's allocator, which rounds up and holds the workspaces of kernels too."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    module = net.to_torch().cuda()
    weights = torch.cuda.memory_allocated()
    inputs = _inputs(net, batch, "cuda")
    _infer(module.eval(), inputs)
    torch.cuda.reset_peak_memory_stats()
    _infer(module, inputs)
    inference = torch.cuda.max_memory_allocated() - weights
    optimizer = _optimizer(module.train())
    _train(module, inputs)
    optimizer.step()
    optimizer.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    _train(module, inputs)
    return Measured(inference, torch.cuda.max_memory_allocated() - before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="NETWORK")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, help="height and width of images")
    options = parser.parse_args(arguments)
    gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if gpu else "the CPU, storages of tensors"
    table = Table(
        f"Memory at batch {options.batch}, measured on {where}",
        ("network", "inference", "torch", "ratio", "training step", "torch", "ratio"),
    )
    for name in options.networks:
        net = cnnspec.load(name)
        if options.size:
            shapes = {name: net.graph.tensors[v].shape for name, v in net.graph.inputs.items()}
            net = net.with_inputs(
                **{
                    key: (shape[0], *(options.size for _ in shape[1:]))
                    for key, shape in shapes.items()
                }
            )
        report = net.analyze(batch=options.batch)
        measured = (on_gpu if gpu else on_cpu)(net, options.batch)
        ours = Measured(report.totals.peak_activation_bytes, report.training_memory.peak)
        table.rows.append(
            (
                name,
                *(mb(ours.inference), mb(measured.inference)),
                f"{measured.inference / ours.inference:.2f}",
                *(mb(ours.training), mb(measured.training)),
                f"{measured.training / ours.training:.3f}",
            )
        )
        print(f"{name} done", file=sys.stderr)
    show([table])
    return 0


if __name__ == "__main__":
    sys.exit(main())
