"""A campaign of random networks: `python -m bench.fuzz 10000` compares so many of them with torch.

What is compared, and how networks are written, is in `tests/fuzzing`. Every network has a number;
`--first N` starts elsewhere. Writes `bench/results/fuzz.md`, and prints the smallest spec found for
each failure. Exits with 1 if there is any.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from bench import tables
from bench.tables import Table
from tests.fuzzing.campaign import Campaign, Failure, Findings

RESULTS = Path(__file__).parent / "results"
_PART = 20
_SHOWN = 20


def part(numbers: range) -> Findings:
    """The networks of these numbers."""
    import torch

    torch.set_num_threads(1)
    campaign = Campaign()
    found = Findings()
    for number in numbers:
        try:
            found.add(campaign.run(number))
        except Exception as failure:
            what = f"{type(failure).__name__}: {failure}"[:300]
            found.failures.append(Failure(number, "writing", what, ""))
    return found


def page(found: Findings, first: int, seconds: float) -> str:
    """The figures as Markdown."""
    from cnnspec.ops import registry

    layers = sum(found.layers.values())
    refusals = sum(found.rejected.values())
    general = Table("What was compared", ("what", "number"))
    for what, number in (
        ("networks, every layer's shapes, params, buffers and MACs", found.networks),
        ("their layers", layers),
        ("networks whose receptive fields were compared with brute force", found.fields),
        ("networks compiled, in values and gradients of both modes", found.modules),
        ("networks run in ONNX Runtime", found.exports),
        ("careless programs, with torch's verdict", found.programs),
        ("of these refused by torch", found.refused),
        ("entries refused while networks were written", refusals),
        ("failures", len(found.failures)),
    ):
        general.rows.append((what, f"{number:,}"))
    ops = Table("Layers of each operation", ("operation", "layers"))
    for name in registry():
        ops.rows.append((name, f"{found.layers[name]:,}"))
    codes = Table("Reasons for refusal while networks were written", ("code", "entries"))
    for code, number in found.rejected.most_common():
        codes.rows.append((code, f"{number:,}"))
    slowest = ", ".join(f"{number} ({taken * 1e3:.0f} ms)" for taken, number in found.slowest)
    return (
        "# Random networks against torch\n\n"
        f"Written by `python -m bench.fuzz {found.networks} --first {first}`; `bench/README.md` "
        f"says what is compared. {seconds:,.0f} s. Slowest to load and analyze, in processor time: "
        f"{slowest}.\n\n" + tables.markdown((general, codes, ops))
    )


def _collect(parts: Iterable[Findings], count: int) -> Findings:
    found = Findings()
    shown = 0
    start = time.perf_counter()
    for number, each in enumerate(parts, start=1):
        found.add(each)
        for failure in each.failures[: max(0, _SHOWN - shown)]:
            print(failure, flush=True)
            shown += 1
        done = min(number * _PART, count)
        if number % 10 == 0 or done == count:
            rate = done / (time.perf_counter() - start)
            so_far = f"{len(found.failures)} failures, {rate:.1f} a second"
            print(f"{done:,} of {count:,} networks, {so_far}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Run the campaign, print failures, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000, help="how many networks")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="write nothing")
    options = parser.parse_args()
    last = options.first + options.count
    parts = [range(start, min(start + _PART, last)) for start in range(options.first, last, _PART)]
    start = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = _collect(pool.imap_unordered(part, parts), options.count)
    seconds = time.perf_counter() - start
    print(f"{found.networks:,} networks in {seconds:.0f} s, {len(found.failures)} failures")
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "fuzz.md").write_text(page(found, options.first, seconds), encoding="utf-8")
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
