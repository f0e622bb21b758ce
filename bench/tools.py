"""What each tool does for one network: build it, count it. Runs in processes of its own.

`python -m bench.tools whole TOOL NETWORK` is what a user's script does, from import to the
printed figures. `warm NETWORK ROUNDS` times all tools in turn in one process, imports done.
`growth FILE` times cnnspec alone on a spec.

Networks of the other tools are torchvision's, with random weights, in eval mode, for one image of
3x224x224. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PEERS", "Counts", "import_torchvision"]

SHAPE = (1, 3, 224, 224)


class Counts(NamedTuple):
    """What a tool says: parameters (None if it does not count them) and multiply-accumulates."""

    params: int | None
    macs: int


def import_torchvision() -> None:
    """Make torchvision importable where it was built for another torch: declare what it names."""
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        _KEPT.append(library)
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _build(network: str, device: str = "cpu") -> nn.Module:
    import torch

    import_torchvision()
    import torchvision

    with torch.device(device):
        model: nn.Module = torchvision.models.get_model(network, weights=None)
    return model.eval()


_KEPT: list[object] = []
"""A torch library takes its definitions back when it is collected."""


def _torchinfo(network: str, device: str = "cpu") -> Counts:
    from torchinfo import summary

    found = summary(_build(network, device), input_size=SHAPE, device=device, verbose=0)
    return Counts(found.total_params, found.total_mult_adds)


def _torchinfo_meta(network: str) -> Counts:
    return _torchinfo(network, "meta")


def _fvcore(network: str) -> Counts:
    import torch
    from fvcore.nn import FlopCountAnalysis, parameter_count

    model = _build(network)
    analysis = FlopCountAnalysis(model, torch.zeros(SHAPE))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return Counts(parameter_count(model)[""], int(analysis.total()))


def _flop_counter(network: str, device: str = "cpu") -> Counts:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = _build(network, device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(SHAPE, device=device))
    return Counts(None, counter.get_total_flops() // 2)


def _flop_counter_meta(network: str) -> Counts:
    return _flop_counter(network, "meta")


PEERS: Mapping[str, Callable[[str], Counts]] = {
    "torchinfo": _torchinfo,
    "torchinfo, meta device": _torchinfo_meta,
    "fvcore": _fvcore,
    "FlopCounterMode": _flop_counter,
    "FlopCounterMode, meta device": _flop_counter_meta,
}
"""The other tools by name. On the meta device nothing is computed; one has to know of it."""


def _cnnspec(text: str, variant: str | None = None) -> Counts:
    """From YAML text to every figure of the report."""
    import cnnspec

    report = cnnspec.load(text=text, variant=variant).analyze()
    assert report.layers  # rows are made when they are asked for
    return Counts(report.totals.params, report.totals.macs)


def _warm(network: str, rounds: int) -> dict[str, object]:
    from cnnspec.frontend.load import locate

    found = locate(network)
    assert found is not None  # it is bundled
    path, variant = found
    text = path.read_text(encoding="utf-8")
    tools: dict[str, Callable[[], Counts]] = {"cnnspec": lambda: _cnnspec(text, variant)}
    for name, peer in PEERS.items():
        tools[name] = lambda peer=peer: peer(network)  # type: ignore[misc]
    counts = {name: tool() for name, tool in tools.items()}
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, tool in tools.items():
            start = perf_counter()
            tool()
            seconds[name].append(perf_counter() - start)
    return {"seconds": seconds, "counts": counts}


def _growth(path: Path) -> dict[str, object]:
    # A first, small network: imports and first uses are no growth.
    _cnnspec("{cnnspec: 1, name: one, inputs: {x: [8]}, layers: [ReLU]}")
    text = path.read_text(encoding="utf-8")
    wall, cpu = perf_counter(), process_time()
    counts = _cnnspec(text)
    return {
        "seconds": perf_counter() - wall,
        "cpu_seconds": process_time() - cpu,
        "params": counts.params,
    }


def _main(mode: str, *arguments: str) -> None:
    match mode, *arguments:
        case "whole", tool, network:
            result: object = PEERS[tool](network)
        case "warm", network, rounds:
            result = _warm(network, int(rounds))
        case "growth", path:
            result = _growth(Path(path))
        case _:
            raise SystemExit(f"unknown: {mode} {' '.join(arguments)}")
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
