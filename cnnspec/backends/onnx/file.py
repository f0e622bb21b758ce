"""The file: built, proved, and only then put under its name.

How a model is built or proved may not enter.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from cnnspec.backends.onnx.build import OLDEST_OPSET, to_model
from cnnspec.backends.onnx.session import newest_opset
from cnnspec.backends.onnx.verify import Verification
from cnnspec.backends.onnx.verify import verify as prove
from cnnspec.backends.onnx.writer import Array
from cnnspec.backends.torch import to_torch
from cnnspec.diagnostics import EnvironmentFailure, nearest, quantity
from cnnspec.files import replacing, write_draft
from cnnspec.ir import Graph

__all__ = ["ExportReport", "arrays_of", "export"]

_LARGEST = 2**31 - 2**24
"""Bytes of weights that one file holds: protobuf ends at 2 GiB, with room left for the nodes."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A file that was written: its size in bytes, and its proof unless none was asked for."""

    path: Path
    opset: int
    size: int
    verification: Verification | None


def export(
    graph: Graph,
    path: str | os.PathLike[str],
    weights: nn.Module | Mapping[str, torch.Tensor | Array] | None = None,
    *,
    verify: bool = True,
    opset: int = 18,
    batch: int | Literal["dynamic"] = "dynamic",
    seed: int = 0,
) -> ExportReport:
    """Write `graph` as an ONNX file at `path`.

    `weights` is the network as a module, or a state dict of tensors or arrays; without either they
    are initialised with `seed`. The file appears under its name at once and whole, after it was
    proved equal to torch unless `verify` is False; whatever stops that leaves what was there.

    Raises `EnvironmentFailure` for a path that cannot be written, weights that do not fit, and an
    opset that ONNX Runtime does not load; `VerificationFailure` for a model that fails its proof.
    """
    newest = newest_opset()
    if not OLDEST_OPSET <= opset <= newest:
        raise EnvironmentFailure(
            f"opset {opset} is not possible",
            help=f"the installed onnxruntime and cnnspec agree on {OLDEST_OPSET} to {newest}",
        )
    target = Path(path)
    with replacing(target) as draft:
        module = _reference(graph, weights, seed)
        arrays = arrays_of(module)
        size = sum(array.nbytes for array in arrays.values())
        if size > _LARGEST:
            raise EnvironmentFailure(
                f"the weights take {size / 1e9:.1f} GB, more than the 2 GB one ONNX file holds"
            )
        data = to_model(graph, arrays, opset=opset, batch=batch).SerializeToString(
            deterministic=True
        )
        write_draft(draft, data, target)
        proof = prove(data, graph, module) if verify else None
    return ExportReport(target, opset, len(data), proof)


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Weights and buffers of a float32 module on the CPU as arrays, by key; memory is shared."""
    named = chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    return {name: tensor.detach().numpy() for name, tensor in named}


def _reference(
    graph: Graph, weights: nn.Module | Mapping[str, torch.Tensor | Array] | None, seed: int
) -> nn.Module:
    """The network as a float32 module on the CPU; a given module is used itself where it is one."""
    if isinstance(weights, nn.Module):
        stored = chain(weights.parameters(), weights.buffers())
        if all(
            tensor.device.type == "cpu"
            and (tensor.dtype == torch.float32 or not tensor.is_floating_point())
            for tensor in stored
        ):
            module = weights
        else:
            module = copy.deepcopy(weights).float().cpu()
        _fits(to_torch(graph, seed=seed).state_dict(), module.state_dict())
        return module
    module = to_torch(graph, seed=seed)
    if weights is not None:
        state = {key: torch.as_tensor(value) for key, value in weights.items()}
        _fits(module.state_dict(), state)
        module.load_state_dict(state)
    return module


def _fits(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Raise `EnvironmentFailure` that names what is missing, too many, or of another shape."""
    missing = [key for key in wanted if key not in given]
    unknown = [key for key in given if key not in wanted]
    reshaped = [key for key in wanted if key in given and wanted[key].shape != given[key].shape]
    if not (missing or unknown or reshaped):
        return
    parts = []
    if missing:
        parts.append(f"{quantity(len(missing), 'tensor')} missing, first `{missing[0]}`")
    if unknown:
        parts.append(f"{quantity(len(unknown), 'tensor')} too many, first `{unknown[0]}`")
    if reshaped:
        key = reshaped[0]
        parts.append(
            f"`{key}` is {'x'.join(map(str, given[key].shape))}, the network has "
            f"{'x'.join(map(str, wanted[key].shape))}"
        )
    meant = nearest(unknown[0], missing) if unknown else None
    raise EnvironmentFailure(
        f"the weights do not fit the network: {'; '.join(parts)}",
        help=f"`{unknown[0]}` may be meant as `{meant}`" if meant else "",
    )
