"""A search workload: candidates a second, beside torchinfo on torch's meta device.

The search loads a spec once and asks for one candidate after another (`with_params`, `analyze`),
ResNets with other depths, widths and blocks. The other side builds the same candidate as
torchvision's class on the meta device, where nothing is computed, and has torchinfo summarise it.
Both take turns, candidate by candidate, and have to agree on the number of parameters.
`python -m bench.search` writes `bench/results/search.md`; `--quick` is a smoke test that writes
nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bench import tables
from bench.tables import Table

if TYPE_CHECKING:
    import cnnspec

RESULTS = Path(__file__).parent / "results"
SHAPE = (1, 3, 224, 224)
_WARM = 3
_SEED = 0
SPACE = """\
cnnspec: 1
name: space
params: {depths: [3, 4, 6, 3], deep: bool = true, base: int = 64, classes: int = 1000}
inputs: {image: [3, 224, 224]}
defaults: {Conv2d: {bias: false}}

blocks:
  residual:
    params:
      planes: int
      stride: int
      deep: bool
      base: int
      width: int = planes*base // 64 if deep else planes
      out: int = 4*planes if deep else planes
    layers:
      - add:
          main:
            - Sequential:
                - Conv2d: {out_channels: width, kernel_size: 1}
                - BatchNorm2d
                - ReLU
              when: deep
            - Conv2d: {out_channels: width, kernel_size: 3, stride: stride, padding: 1}
            - BatchNorm2d
            - ReLU
            - Conv2d: {out_channels: out, kernel_size: 1 if deep else 3, padding: 0 if deep else 1}
            - BatchNorm2d
          skip:
            - Sequential:
                - Conv2d: {out_channels: out, kernel_size: 1, stride: stride}
                - BatchNorm2d
              when: stride != 1 or input.channels != out
      - ReLU

layers:
  - Conv2d: {out_channels: 64, kernel_size: 7, stride: 2, padding: 3}
  - BatchNorm2d
  - ReLU
  - MaxPool2d: {kernel_size: 3, stride: 2, padding: 1}
  - Sequential:
      - residual:
          planes: 64*2**s
          stride: 2 if i == 0 and s > 0 else 1
          deep: deep
          base: base
        for: i in range(depth)
    for: s, depth in enumerate(depths)
    name: layer{s+1}
  - AdaptiveAvgPool2d: {output_size: 1}
  - Flatten
  - Linear: {out_features: classes}
"""
"""The search space, as one would write it: ResNets of basic and of bottleneck blocks."""

BAR = 8
"""The same bar as for a warm process: see `bench.analyze`."""


@dataclass(frozen=True)
class Candidate:
    """A network of the search space; `base` is the width of a bottleneck where planes are 64."""

    depths: tuple[int, int, int, int]
    deep: bool
    base: int

    @property
    def params(self) -> dict[str, object]:
        """As a spec's params have it."""
        return {"depths": list(self.depths), "deep": self.deep, "base": self.base}


def candidates(count: int) -> Iterator[Candidate]:
    """Random points of the search space, the same each time."""
    rng = Random(_SEED)
    for _ in range(count):
        first, second, third, fourth = (rng.randint(1, most) for most in (4, 6, 12, 4))
        yield Candidate(
            (first, second, third, fourth),
            rng.random() < 0.5,
            rng.choice((32, 64, 96, 128)),
        )


def _ours(network: cnnspec.Network, candidate: Candidate, layers: bool) -> tuple[int, int]:
    report = network.with_params(**candidate.params).analyze()
    assert not layers or report.layers  # rows are made when they are asked for
    return report.totals.params, report.totals.macs


def _theirs(candidate: Candidate) -> tuple[int, int]:
    import torch
    from torchinfo import summary
    from torchvision.models import resnet

    with torch.device("meta"):
        if not candidate.deep:
            model = resnet.ResNet(resnet.BasicBlock, list(candidate.depths))
        else:
            model = resnet.ResNet(
                resnet.Bottleneck, list(candidate.depths), width_per_group=candidate.base
            )
    found = summary(model.eval(), input_size=SHAPE, device="meta", verbose=0)
    return found.total_params, found.total_mult_adds


def _measure(count: int) -> tuple[dict[str, list[float]], list[int]]:
    import torch

    import cnnspec
    from bench.tools import import_torchvision

    import_torchvision()
    torch.set_num_threads(1)
    network = cnnspec.load(text=SPACE)
    seconds: dict[str, list[float]] = {"totals": [], "report": [], "torchinfo": []}
    layers: list[int] = []
    for number, candidate in enumerate(candidates(count + _WARM)):
        start = perf_counter()
        totals = _ours(network, candidate, layers=False)
        middle = perf_counter()
        report = _ours(network, candidate, layers=True)
        end = perf_counter()
        theirs = _theirs(candidate)
        last = perf_counter()
        if totals != report or totals[0] != theirs[0]:
            raise RuntimeError(f"{candidate}: {totals[0]} parameters, by torchinfo {theirs[0]}")
        if number < _WARM:
            continue
        seconds["totals"].append(middle - start)
        seconds["report"].append(end - middle)
        seconds["torchinfo"].append(last - end)
        layers.append(len(network.with_params(**candidate.params).graph.nodes))
    return seconds, layers


def _tables(seconds: dict[str, list[float]], layers: Sequence[int]) -> list[Table]:
    names = {
        "totals": "cnnspec, all totals",
        "report": "cnnspec, totals and a row for every layer",
        "torchinfo": "torchvision's class and torchinfo, meta device",
    }
    table = Table(
        "Candidates a second",
        ("tool", "candidates a second", "time a candidate", "ratio"),
        note=f"{len(layers)} candidates of {min(layers)} to {max(layers)} layers (median "
        f"{median(layers):.0f}). Ratio: the time of torchinfo over that of the row, the median "
        "over candidates. cnnspec's totals have receptive fields, peak memory and connections "
        "besides, which are found for all layers.",
    )
    for name, label in names.items():
        values = seconds[name]
        table.rows.append(
            (
                label,
                f"{len(values) / sum(values):,.1f}",
                tables.spread(values),
                tables.times(_ratio(seconds, name)),
            )
        )
    ratio = _ratio(seconds, "totals")
    bar = Table("Bar", ("what", "bar", "measured", "met"))
    met = "yes" if ratio >= BAR else "no"
    bar.rows.append(("time a candidate", f"1/{BAR} of torchinfo", f"1/{ratio:.1f}", met))
    return [bar, table]


def _ratio(seconds: dict[str, list[float]], name: str) -> float:
    pairs = zip(seconds[name], seconds["torchinfo"], strict=True)
    return median(theirs / ours for ours, theirs in pairs)


def main() -> int:
    """Measure, print, write; 1 if the bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few candidates; write nothing")
    parser.add_argument("--candidates", type=int, default=100, help="how many")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    seconds, layers = _measure(5 if options.quick else options.candidates)
    found = _tables(seconds, layers)
    tables.show(found)
    if not options.quick:
        names = ("torch", "torchvision", "torchinfo")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        text = (
            "# A search workload\n\n"
            "Written by `python -m bench.search`; `bench/README.md` says how it is measured.\n"
            f"Python {platform.python_version()}, {versions}; {platform.system()} "
            f"{platform.machine()}, {os.cpu_count()} cores, load average {before:.1f} before and "
            f"{os.getloadavg()[0]:.1f} after.\n\n"
        )
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "search.md").write_text(text + tables.markdown(found), encoding="utf-8")
    return 0 if found[0].rows[0][-1] == "yes" else 1


if __name__ == "__main__":
    sys.exit(main())
