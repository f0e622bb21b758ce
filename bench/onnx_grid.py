"""Operations on a grid of arguments through ONNX Runtime: `python -m bench.onnx_grid 400`.

How combinations are made and compared is in `tests/backends/onnx_grid.py`, whose tests try some of
each operation. Here so many of each are tried at every opset from 13 to the newest that ONNX
Runtime loads. Writes `bench/results/onnx_grid.md`; exits with 1 if any combination differs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from bench import tables
from bench.tables import Table

if TYPE_CHECKING:
    from tests.backends.onnx_grid import Outcome

RESULTS = Path(__file__).parent / "results"
_PART = 40
"""Combinations of one model."""


def operation(count: int, seed: int, opsets: Sequence[int], name: str) -> tuple[str, Outcome]:
    """So many combinations of an operation, and what came of them."""
    import torch

    from tests.backends.onnx_grid import Outcome, combinations, compare

    torch.set_num_threads(1)
    found = combinations(name, Random(f"{name} {seed}"))
    total = Outcome(0, 0, 0, ())
    while total.combinations < count:
        part = compare(found, min(_PART, count - total.combinations), opsets)
        if not part.combinations:
            break
        total = Outcome(*(a + b for a, b in zip(total, part, strict=True)))
    return name, total


def page(found: dict[str, Outcome], arguments: str, opsets: Sequence[int], seconds: float) -> str:
    """The figures as Markdown."""
    from onnxruntime import __version__ as runtime
    from torch import __version__ as torch

    whole = Table("What was compared", ("what", "number"))
    each = Table(
        "Combinations of each operation",
        ("operation", "combinations", "unsteady", "results", "different"),
        note="Operations that take few different arguments run out of combinations.",
    )
    for name, outcome in sorted(found.items()):
        figures = (*outcome[:3], len(outcome.different))
        each.rows.append((name, *(f"{n:,}" for n in figures)))
    for what, number in (
        ("operations", len(found)),
        ("combinations", sum(outcome.combinations for outcome in found.values())),
        ("of these left out, unsteady in torch", sum(each.unsteady for each in found.values())),
        ("results compared", sum(outcome.runs for outcome in found.values())),
        ("results that differ", sum(len(outcome.different) for outcome in found.values())),
    ):
        whole.rows.append((what, f"{number:,}"))
    return (
        "# Operations in ONNX Runtime against torch\n\n"
        f"Written by `python -m bench.onnx_grid {arguments}`; `bench/README.md` says what is "
        f"compared. Opsets {opsets[0]} to {opsets[-1]}, torch {torch}, ONNX Runtime {runtime}, "
        f"{seconds:,.0f} s.\n\n" + tables.markdown((whole, each))
    )


def main() -> int:
    """Run the grid, print what differs, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.onnx_grid", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=400, help="of each operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[], help="operations; writes nothing")
    options = parser.parse_args()

    from cnnspec.backends.onnx import newest_opset
    from cnnspec.backends.onnx.build import OLDEST_OPSET
    from cnnspec.ops import registry

    opsets = range(OLDEST_OPSET, newest_opset() + 1)
    names = options.only or sorted(registry())
    start = time.perf_counter()
    found: dict[str, Outcome] = {}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        run = partial(operation, options.count, options.seed, opsets)
        for name, outcome in pool.imap_unordered(run, names):
            found[name] = outcome
            for line in outcome.different[:8]:
                print(line, flush=True)
            print(f"{len(found)} of {len(names)}: {name}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - start
    if not options.only:
        RESULTS.mkdir(exist_ok=True)
        arguments = f"{options.count} --seed {options.seed}"
        text = page(found, arguments, opsets, seconds)
        (RESULTS / "onnx_grid.md").write_text(text, encoding="utf-8")
    different = sum(len(outcome.different) for outcome in found.values())
    print(f"{sum(each.combinations for each in found.values()):,} combinations, {different} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
