"""Files of every bundled network, proved: `python -m bench.onnx_networks`.

What is asked of a file is in `tests/backends/onnx_proof.py`, whose tests try small networks. Here
every spec and every variant is written at its own size, each in a process of its own. Writes
`bench/results/onnx_networks.md`; exits with 1 if a file is not as it should be.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import tables
from bench.tables import Table

if TYPE_CHECKING:
    from tests.backends.onnx_proof import Proof

SPECS = Path(__file__).parents[1] / "specs"
RESULTS = Path(__file__).parent / "results"
_LONG = 6_000_000_000
"""Multiply-accumulates above which a network is run less, as variants are."""

Case = tuple[str, str | None]


def cases() -> list[Case]:
    """Every network that comes with cnnspec."""
    from cnnspec.api import load
    from cnnspec.diagnostics import SpecError

    found: list[Case] = []
    for path in sorted(SPECS.glob("*.yaml")):
        try:
            network = load(path)
        except SpecError:
            continue  # blocks for others
        found.append((path.stem, None))
        found.extend((path.stem, variant) for variant in network.variants)
    return found


def proved(case: Case) -> Proof | str:
    """The figures of a network's file, or what is wrong with it."""
    import torch

    from cnnspec.api import load
    from cnnspec.backends.onnx import newest_opset
    from cnnspec.backends.onnx.build import OLDEST_OPSET
    from tests.backends.onnx_proof import LEVELS, prove

    torch.set_num_threads(1)
    spec, variant = case
    report = load(SPECS / f"{spec}.yaml", variant=variant).analyze()
    try:
        if variant or report.totals.macs > _LONG:
            return prove(report, levels=(LEVELS[0], LEVELS[-1]), batches=(1,))
        return prove(report, opsets=range(OLDEST_OPSET, newest_opset() + 1))
    except Exception as failure:
        return f"{type(failure).__name__}: {failure}"[:300]


def page(found: dict[Case, Proof | str], whole: int, seconds: float) -> str:
    """The figures as Markdown, of so many networks as there are by now."""
    from onnxruntime import __version__ as runtime
    from torch import __version__ as torch

    columns = (
        "network",
        "nodes",
        "initialisers",
        "MB",
        "norms",
        "left",
        "difference",
        "open sizes",
        "difference there",
    )
    table = Table("Files", columns)
    for (spec, variant), proof in found.items():
        name = variant or spec
        if isinstance(proof, str):
            table.rows.append((name, proof, *[""] * 7))
            continue
        apart = proof.open_difference
        table.rows.append(
            (
                name,
                f"{proof.nodes:,}",
                f"{proof.initializers:,}",
                f"{proof.size / 1e6:,.1f}",
                f"{proof.norms[0]:,}",
                f"{proof.norms[1]:,}",
                f"{proof.difference:.1e}",
                proof.free,
                "" if apart is None else f"{apart:.1e}",
            )
        )
    proofs = [proof for proof in found.values() if not isinstance(proof, str)]
    worst = max((proof.difference for proof in proofs), default=0.0)
    return (
        "# Files of the bundled networks\n\n"
        "Written by `python -m bench.onnx_networks`; `bench/README.md` says what is asked of a "
        f"file. {len(proofs)} of {whole} files are as they should be, the largest difference "
        f"from torch is {worst:.1e} of the largest element of an output. torch {torch}, ONNX "
        f"Runtime {runtime}, {seconds:,.0f} s.\n\n" + tables.markdown((table,))
    )


def main() -> int:
    """Prove every file, print what is wrong, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.onnx_networks", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="specs; writes nothing")
    options = parser.parse_args()
    chosen = [case for case in cases() if not options.only or case[0] in options.only]
    start = time.perf_counter()
    found: dict[Case, Proof | str] = {}
    # One at a time and each from scratch: large networks take most of a machine's memory.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for case, proof in zip(chosen, pool.imap(proved, chosen, chunksize=1), strict=True):
            found[case] = proof
            shown = proof if isinstance(proof, str) else f"{proof.difference:.1e}, {proof.free}"
            print(f"{len(found)} of {len(chosen)}: {case[1] or case[0]}: {shown}", flush=True)
            if not options.only:
                RESULTS.mkdir(exist_ok=True)
                text = page(found, len(chosen), time.perf_counter() - start)
                (RESULTS / "onnx_networks.md").write_text(text, encoding="utf-8")
    return 1 if any(isinstance(proof, str) for proof in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
