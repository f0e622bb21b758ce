"""A campaign of broken specs: `python bench/mutants.py 20000` loads and analyzes so many of them.

Every mutant has a number and is the same each time; `--first N` starts elsewhere. Prints what came
out, the slowest mutants by processor time, and the largest memory. Exits with 1 if anything but a
network or well placed errors came out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.frontend.mutants import Mutator, TooSlowError, outcome, processor_time

SECONDS = 20.0
SHOWN = 5
SHOWN_FAILURES = 20


@dataclass
class Findings:
    """What a share of the mutants came to."""

    codes: Counter[str] = field(default_factory=Counter)
    networks: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    memory: int = 0


def share(numbers: range) -> Findings:
    """Load the mutants of these numbers."""
    findings = Findings()
    mutator = Mutator()
    times: list[tuple[float, int]] = []
    for number in numbers:
        data = mutator.mutant(number)
        start = time.process_time()
        try:
            with processor_time(SECONDS):
                codes = outcome(data)
        except TooSlowError:
            findings.failures.append((number, f"more than {SECONDS} seconds"))
        except Exception as failure:
            findings.failures.append((number, f"{type(failure).__name__}: {failure}"[:200]))
        else:
            findings.codes.update(set(codes))
            findings.networks += not codes
        times.append((time.process_time() - start, number))
    findings.slowest = sorted(times, reverse=True)[:SHOWN]
    findings.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return findings


def main() -> int:
    """Run the campaign and print the findings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=20_000, help="how many mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    last = options.first + options.count
    numbers = [range(options.first + i, last, options.processes) for i in range(options.processes)]
    start = time.perf_counter()
    with multiprocessing.Pool(options.processes) as pool:
        shares = pool.map(share, numbers)
    seconds = time.perf_counter() - start

    codes = sum((found.codes for found in shares), Counter[str]())
    failures = sorted(failure for found in shares for failure in found.failures)
    slowest = sorted((entry for found in shares for entry in found.slowest), reverse=True)
    networks = sum(found.networks for found in shares)
    print(f"{options.count:,} mutants in {seconds:.0f} s, {len(failures)} failures")
    print(f"{networks:,} are networks, the others have errors of {len(codes)} codes:")
    print("  " + ", ".join(f"{code} {count:,}" for code, count in codes.most_common()))
    print("slowest, processor seconds: ", end="")
    print(", ".join(f"{number}: {taken:.2f}" for taken, number in slowest[:SHOWN]))
    print(f"largest memory of a process: {max(f.memory for f in shares) / 1024:.0f} MiB")
    for message, count in Counter(message for _, message in failures).most_common(SHOWN_FAILURES):
        number = next(number for number, other in failures if other == message)
        print(f"{count:,} times, first mutant {number}: {message}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
