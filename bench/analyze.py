"""Measures `cnnspec analyze` side by side with torchinfo, fvcore and torch's FlopCounterMode.

Everything is measured in one run, in turn (one round after another), so that what else the machine
does hits all alike; ratios are taken within a round. `python -m bench.analyze` writes
`bench/results/analyze.md` and `.json`; `--quick` is a smoke test that writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench import process, tables
from bench.networks import WAYS
from bench.tables import Table
from bench.tools import PEERS

NETWORKS = ("vgg16", "resnet50", "densenet121", "resnet152")
SIZES = (1_000, 10_000, 100_000)
OURS = "cnnspec"
REFERENCE = "torchinfo"
"""The tool that the bars speak of."""

JUDGED = "resnet50"
"""The network that the bars speak of."""

RESULTS = Path(__file__).parent / "results"

Series = dict[str, dict[str, dict[str, list[float]]]]
"""Measurements by network (or way of writing), by tool (or size), by quantity, in rounds."""


def _whole(networks: Sequence[str], rounds: int, environment: Mapping[str, str]) -> Series:
    """Processes from start to exit."""
    found = _series()
    for number in range(rounds + 1):
        for network in networks:
            for tool in (OURS, *PEERS):
                _say(f"whole process, round {number}: {tool}, {network}")
                command = (
                    ("-m", "cnnspec", "analyze", network)
                    if tool == OURS
                    else ("-m", "bench.tools", "whole", tool, network)
                )
                run = process.run_python(command, environment)
                if number:  # the first round fills caches: of bytecode, of files
                    _note(found[network][tool], run)
    _trust(found)
    return found


def _warm(
    networks: Sequence[str], rounds: int, environment: Mapping[str, str]
) -> tuple[Series, dict[str, dict[str, list[int | None]]]]:
    """From text or builder to figures, in a process that has everything imported."""
    found, counts = _series(), {}
    for network in networks:
        _say(f"warm: {network}")
        command = ("-m", "bench.tools", "warm", network, str(rounds))
        result = json.loads(process.run_python(command, environment).output)
        for tool, values in result["seconds"].items():
            found[network][tool]["seconds"] = values
        counts[network] = result["counts"]
    return found, counts


def _growth(sizes: Sequence[int], rounds: int, environment: Mapping[str, str]) -> Series:
    """cnnspec alone, on larger and larger specs."""
    found = _series()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for size in sizes:
                for way, write in WAYS.items():
                    _say(f"growth, round {number + 1}: {way}, {size:,} entries")
                    path = Path(folder) / f"{way}_{size}.yaml"
                    with path.open("w", encoding="utf-8") as file:
                        file.writelines(write(size))
                    series = found[way][str(size)]
                    run = process.run_python(
                        ("-m", "bench.tools", "growth", str(path)), environment
                    )
                    inner = json.loads(run.output)
                    series["library_seconds"].append(inner["seconds"])
                    series["library_cpu_seconds"].append(inner["cpu_seconds"])
                    command = ("-m", "cnnspec", "analyze", str(path))
                    _note(series, process.run_python(command, environment))
    _trust(found)
    return found


def _series() -> Series:
    return defaultdict(lambda: defaultdict(lambda: defaultdict(list)))


def _note(series: dict[str, list[float]], run: process.Run) -> None:
    series["seconds"].append(run.seconds)
    series["cpu_seconds"].append(run.cpu_seconds)
    series["peak_bytes"].append(run.peak_bytes)


def _trust(found: Series) -> None:
    """See that no peak is that of this process (see `bench.process`)."""
    least = min(min(of["peak_bytes"]) for series in found.values() for of in series.values())
    assert process.own_peak() < least, "the measuring process is larger than what it measures"


def _ratio(series: Mapping[str, Mapping[str, Sequence[float]]], tool: str, quantity: str) -> float:
    """How many times more `tool` takes than cnnspec: the median over rounds."""
    ours, theirs = series[OURS][quantity], series[tool][quantity]
    return median(b / a for a, b in zip(ours, theirs, strict=True))


def _whole_tables(whole: Series) -> Iterator[Table]:
    for network, series in whole.items():
        table = Table(
            f"Whole process, {network}",
            ("tool", "wall time", "ratio", "processor time", "ratio", "peak memory", "ratio"),
            note="From the start of Python to its exit, imports and output included.",
        )
        for tool, of in series.items():
            table.rows.append(
                (
                    tool,
                    tables.spread(of["seconds"]),
                    tables.times(_ratio(series, tool, "seconds")),
                    tables.seconds(median(of["cpu_seconds"])),
                    tables.times(_ratio(series, tool, "cpu_seconds")),
                    tables.mb(median(of["peak_bytes"])),
                    tables.times(_ratio(series, tool, "peak_bytes")),
                )
            )
        yield table


def _warm_table(warm: Series) -> Table:
    table = Table(
        "Warm process",
        ("network and tool", "wall time", "ratio"),
        note="Imports done. cnnspec: YAML text to the full report, with receptive fields and "
        "memory; the others: build the module, then count.",
    )
    for network, series in warm.items():
        for tool, of in series.items():
            ratio = tables.times(_ratio(series, tool, "seconds"))
            table.rows.append((f"{network}, {tool}", tables.spread(of["seconds"]), ratio))
    return table


def _counts_table(counts: Mapping[str, Mapping[str, Sequence[int | None]]]) -> Table:
    table = Table(
        "What each tool says",
        ("network and tool", "parameters", "MACs"),
        note="cnnspec and FlopCounterMode (which says 2 for each, halved here) count convolution, "
        "linear, matmul and attention alone. torchinfo adds biases and the parameters of norms, "
        "fvcore adds norms and average pooling.",
    )
    for network, of in counts.items():
        for tool, (params, macs) in of.items():
            table.rows.append(
                (f"{network}, {tool}", "-" if params is None else f"{params:,}", f"{macs:,}")
            )
    return table


def _growth_table(growth: Series) -> Table:
    table = Table(
        "Growth",
        ("way of writing", "entries", "time an entry", "against the least", "command", "peak"),
        note="`loop` repeats a block of 7 entries, `calls` has a line for each call of it, "
        "`entries` a line for each entry. Time an entry: processor time of text to full report in "
        "a fresh process, imports not counted. Command: wall time and peak memory of `cnnspec "
        "analyze FILE`.",
    )
    for way, by_size in growth.items():
        least = next(iter(by_size))
        for size, of in by_size.items():
            each = median(of["library_cpu_seconds"]) / int(size)
            table.rows.append(
                (
                    way,
                    f"{int(size):,}",
                    f"{each * 1e6:.1f} us",
                    tables.times(_growth_ratio(by_size, least, size)),
                    tables.spread(of["seconds"]),
                    tables.mb(max(of["peak_bytes"])),
                )
            )
    return table


def _growth_ratio(by_size: Mapping[str, Mapping[str, Sequence[float]]], a: str, b: str) -> float:
    """Time per entry at size `b` over that at size `a`: of the medians over rounds."""
    first, last = (median(by_size[size]["library_cpu_seconds"]) / int(size) for size in (a, b))
    return last / first


def _bars(whole: Series, warm: Series, growth: Series) -> Table:
    table = Table("Bars", ("what", "bar", "measured", "met"))

    def judge(what: str, bar: str, measured: str, met: bool) -> None:
        table.rows.append((what, bar, measured, "yes" if met else "no"))

    for what, series, quantity, least in (
        ("whole process, wall time", whole[JUDGED], "seconds", 10),
        ("whole process, peak memory", whole[JUDGED], "peak_bytes", 5),
        ("warm process, wall time", warm[JUDGED], "seconds", 8),
    ):
        ratio = _ratio(series, REFERENCE, quantity)
        bar = f"1/{least} of {REFERENCE}"
        judge(f"{JUDGED}, {what}", bar, f"1/{ratio:.1f}", ratio >= least)
    for way, by_size in growth.items():
        least_size, *_, most_size = by_size
        ratio = _growth_ratio(by_size, least_size, most_size)
        what = f"{way}, {int(least_size):,} to {int(most_size):,} entries, time an entry"
        judge(what, "1.5x", tables.times(ratio), ratio <= 1.5)
        of = by_size[most_size]
        time, peak = median(of["seconds"]), max(of["peak_bytes"])
        what = f"{way}, {int(most_size):,} entries"
        judge(f"{what}, wall time", "20 s", tables.seconds(time), time < 20)
        judge(f"{what}, peak memory", "1,000 MB", tables.mb(peak), peak < 1e9)
    return table


def _circumstances(rounds: int, load: Sequence[float]) -> dict[str, Any]:
    from cnnspec import __version__

    peers = ("torch", "torchvision", "torchinfo", "fvcore")
    return {
        "versions": {
            "cnnspec": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in peers},
        },
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "rounds": rounds,
        "load_average": {"before": round(load[0], 1), "after": round(os.getloadavg()[0], 1)},
    }


def _page(circumstances: Mapping[str, Any], found: Sequence[Table]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    load = circumstances["load_average"]
    return (
        "# `cnnspec analyze` beside other tools\n\n"
        "Written by `python -m bench.analyze`; `bench/README.md` says how it is measured.\n"
        f"{versions}; {circumstances['system']}, {circumstances['cores']} cores, "
        f"{circumstances['rounds']} rounds, load average {load['before']} before and "
        f"{load['after']} after. Times are medians (least to most), "
        "ratios medians of the ratios within a round.\n\n" + tables.markdown(found)
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.analyze", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of little; write nothing")
    parser.add_argument("--rounds", type=int, default=5, help="of every measurement")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    networks = (JUDGED,) if options.quick else NETWORKS
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        environment = process.even_environment(folder)
        whole = _whole(networks, rounds, environment)
        growth = _growth(SIZES[:2] if options.quick else SIZES, rounds, environment)
        warm, counts = _warm(networks, rounds, environment)
    circumstances = _circumstances(rounds, load)
    bars = _bars(whole, warm, growth)
    found = [
        bars,
        *_whole_tables(whole),
        _warm_table(warm),
        _growth_table(growth),
        _counts_table(counts),
    ]
    tables.show(found)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        document = {**circumstances, "whole": whole, "warm": warm, "growth": growth}
        (RESULTS / "analyze.json").write_text(
            json.dumps({**document, "counts": counts}, indent=1) + "\n", encoding="utf-8"
        )
        (RESULTS / "analyze.md").write_text(_page(circumstances, found), encoding="utf-8")
    return 0 if all(row[-1] == "yes" for row in bars.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
