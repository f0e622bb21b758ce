"""Measures generated modules side by side with torchvision's own.

What operations both run below autograd, how long forward and a training step take (in turn, in one
process, with equal weights), how long a module takes to build and what memory that takes.
`python -m bench.module` writes `bench/results/module.md` and `.json`; `--quick` is a smoke test
that writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import process, tables
from bench.tables import Table

OURS, THEIRS = "cnnspec", "torchvision"
BUILT = ("resnet18", "resnet50", "vgg16", "densenet121", "convnext_tiny")
TIMED = ("resnet50", "mobilenet_v3_large", "densenet121", "convnext_tiny")
MOST = 1.02
"""Up to this median of the ratios nobody notices a difference."""

RESULTS = Path(__file__).parent / "results"

Found = Mapping[str, Any]


def _operations(networks: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    _say(f"operations of {', '.join(networks) or 'all networks'}")
    run = process.run_python(("-m", "bench.modules", "operations", *networks), environment)
    found: dict[str, Any] = json.loads(run.output)
    return found


def _construction(
    networks: Sequence[str], rounds: int, environment: Mapping[str, str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number in range(rounds + 1):
        for network in networks:
            for side in (OURS, THEIRS):
                _say(f"construction, round {number}: {side}, {network}")
                command = ("-m", "bench.modules", "construct", side, network)
                run = process.run_python(command, environment)
                if not number:  # the first round fills caches: of bytecode, of files
                    continue
                series = found.setdefault(network, {}).setdefault(side, {})
                for name, value in json.loads(run.output).items():
                    series.setdefault(name, []).append(value)
                series.setdefault("peak_bytes", []).append(run.peak_bytes)
    return found


def _times(
    networks: Sequence[str], options: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, Any]:
    found = {}
    numbers = [str(number) for number in (options.size, options.batch, options.rounds)]
    for network in networks:
        _say(f"times: {network}")
        run = process.run_python(("-m", "bench.modules", "times", network, *numbers), environment)
        found[network] = json.loads(run.output)
    return found


# -------------------------------------------------------------------------------------- tables


def _ratios(series: Mapping[str, Sequence[float]]) -> list[float]:
    """Ours by theirs, round by round."""
    return [a / b for a, b in zip(series[OURS], series[THEIRS], strict=True)]


def _quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) < 2:
        return (ratios[0],) * 3
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def _verdict(of: Found) -> str:
    if of["equal"]:
        return "equal"
    return "as stated" if of["as_stated"] else "not equal"


def _operations_tables(operations: Found) -> Iterator[Table]:
    table = Table(
        "Operations",
        ("network", "inference", "forward in training", "backward"),
        note="The sequence of aten operations with shapes and arguments, batch 2 at the network's "
        "own size, on the meta device. Numbers: ours, torchvision's. `as stated`: what differs is "
        "checked to be what the next table says, and nothing else.",
    )
    for network, parts in operations.items():
        cells = [f"{_verdict(of)} ({of['ours']:,}, {of['theirs']:,})" for of in parts.values()]
        table.rows.append((network, *cells))
    yield table
    different = [
        (f"{network}, {part}", of)
        for network, parts in operations.items()
        for part, of in parts.items()
        if not of["equal"]
    ]
    if different:
        columns = ("network and part", "difference", "first operation")
        reasons = Table("Differences on purpose", columns)
        for where, of in different:
            reason = of["reason"] if of["as_stated"] else "not on purpose"
            reasons.rows.append((where, reason, f"`{of['first']}`"))
        yield reasons


def _times_tables(times: Found) -> Iterator[Table]:
    for network, found in times.items():
        table = Table(
            f"Times, {network}",
            ("how and what", OURS, THEIRS, "ratio", "quartiles of the ratios"),
            note=f"Outputs differ by {found['difference']:.1e} of the largest element.",
        )
        for way, of in found["seconds"].items():
            for task, series in of.items():
                low, middle, high = _quartiles(_ratios(series))
                table.rows.append(
                    (
                        f"{way}, {task}",
                        tables.spread(series[OURS]),
                        tables.spread(series[THEIRS]),
                        f"{middle:.3f}",
                        f"{low:.3f} to {high:.3f}",
                    )
                )
        yield table


def _construction_table(construction: Found) -> Table:
    table = Table(
        "Construction",
        ("network and side", "wall time", "processor time", "ratio", "peak memory", "ratio"),
        note="From a name to a module with started weights, in a fresh process that has imported "
        "everything; peak memory is of the whole process. cnnspec reads, checks and analyses the "
        "spec, writes the source and runs it in that time.",
    )
    for network, sides in construction.items():
        for side, of in sides.items():
            ratios = [
                median(a / b for a, b in zip(of[what], sides[THEIRS][what], strict=True))
                for what in ("cpu_seconds", "peak_bytes")
            ]
            table.rows.append(
                (
                    f"{network}, {side}",
                    tables.spread(of["seconds"]),
                    tables.spread(of["cpu_seconds"]),
                    f"{ratios[0]:.2f}",
                    tables.mb(median(of["peak_bytes"])),
                    f"{ratios[1]:.2f}",
                )
            )
    return table


def _bars(operations: Found, times: Found, construction: Found) -> Table:
    table = Table("Bars", ("what", "bar", "measured", "met"))

    def judge(what: str, bar: str, measured: str, met: bool) -> None:
        table.rows.append((what, bar, measured, "yes" if met else "no"))

    parts = [of for each in operations.values() for of in each.values()]
    equal, stated = sum(of["equal"] for of in parts), sum(of["as_stated"] for of in parts)
    measured = f"{equal} equal, {stated} as stated, of {len(parts)}"
    bar = "equal sequences, or different as stated"
    judge("operations", bar, measured, equal + stated == len(parts))
    for network, found in times.items():
        for way, of in found["seconds"].items():
            for task, series in of.items():
                low, middle, high = _quartiles(_ratios(series))
                met = middle <= MOST or low <= 1
                spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
                judge(f"{network}, {way}, {task}", f"{MOST} or within the spread", spread, met)
    for network, sides in construction.items():
        for what, name in (("cpu_seconds", "construction"), ("peak_bytes", "peak memory")):
            ratio = median(_ratios({side: of[what] for side, of in sides.items()}))
            judge(f"{network}, {name}", "1.05", f"{ratio:.2f}", ratio <= 1.05)
    return table


def _circumstances(options: argparse.Namespace, load: Sequence[float]) -> dict[str, Any]:
    from cnnspec import __version__

    return {
        "versions": {
            "cnnspec": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision")},
        },
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "batch": options.batch,
        "size": options.size,
        "load_average": {"before": round(load[0], 1), "after": round(os.getloadavg()[0], 1)},
    }


def _page(circumstances: Found, found: Sequence[Table]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    load, size = circumstances["load_average"], circumstances["size"]
    return (
        "# Generated modules beside torchvision's\n\n"
        "Written by `python -m bench.module`; `bench/README.md` says how it is measured.\n"
        f"{versions}; {circumstances['system']}, {circumstances['cores']} cores, "
        f"{circumstances['rounds']} rounds, batch {circumstances['batch']} of 3x{size}x{size}, "
        f"load average {load['before']} before and {load['after']} after. Times are medians (least "
        "to most), ratios ours by torchvision's within a round.\n\n" + tables.markdown(found)
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.module", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything; write nothing")
    parser.add_argument("--rounds", type=int, default=15, help="of every measurement")
    parser.add_argument("--builds", type=int, default=5, help="rounds of construction")
    parser.add_argument("--size", type=int, default=224, help="height and width of images")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--timed", nargs="+", default=TIMED, metavar="NETWORK", help="what to time")
    options = parser.parse_args()
    built, timed = BUILT, tuple(options.timed)
    compared: tuple[str, ...] = ()  # all
    if options.quick:
        built, timed, compared = ("resnet18",), ("mobilenet_v3_small",), ("alexnet", "resnet18")
        options.rounds, options.builds, options.size, options.batch = 3, 1, 64, 2
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        environment = process.even_environment(folder)
        # Where others compute too, threads that spin while they wait take what they wait for.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        construction = _construction(built, options.builds, environment)
        operations = _operations(compared, environment)
        times = _times(timed, options, environment)
    circumstances = _circumstances(options, load)
    bars = _bars(operations, times, construction)
    found = [
        bars,
        *_operations_tables(operations),
        *_times_tables(times),
        _construction_table(construction),
    ]
    tables.show(found)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        document = {
            **circumstances,
            "operations": operations,
            "times": times,
            "construction": construction,
        }
        (RESULTS / "module.json").write_text(
            json.dumps(document, indent=1) + "\n", encoding="utf-8"
        )
        (RESULTS / "module.md").write_text(_page(circumstances, found), encoding="utf-8")
    return 0 if all(row[-1] == "yes" for row in bars.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
