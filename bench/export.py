"""Measures the export to ONNX beside torch's own two exporters, and the files beside each other.

Time and peak memory of each export in a fresh process, size and nodes of the files, and how long
ONNX Runtime takes for them beside torch eager, in turn in one process at equal threads.
`python -m bench.export` writes `bench/results/export.md` and `.json`; `--quick` is a smoke test
that writes nothing. On Linux.
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

OURS, PROVED = "cnnspec", "cnnspec, verified"
DYNAMO, TORCHSCRIPT = "torch.onnx, dynamo", "torch.onnx, TorchScript"
EAGER = "torch eager"
FILES = {
    OURS: "ours.onnx",
    PROVED: "proved.onnx",
    DYNAMO: "dynamo.onnx",
    TORCHSCRIPT: "torchscript.onnx",
}

NETWORKS: Mapping[str, int] = {
    "resnet50": 224,
    "vgg16": 224,
    "densenet121": 224,
    "googlenet": 224,
    "unet": 256,
}
"""Networks, and the height and width of their images."""

FASTER, LARGEST, MOST = 5, 3.0, 1.02
"""The bars: so many times as fast as dynamo, peak memory in weights, latency by dynamo's file."""

RESULTS = Path(__file__).parent / "results"

Found = Mapping[str, Any]


def _exports(
    networks: Mapping[str, int], rounds: int, folder: Path, environment: Mapping[str, str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """What each way takes for each network; the files of the last round stay in `folder`."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for way in FILES:  # fills caches: of bytecode, of files
        _say(f"export, not counted: {way}")
        small = str(folder / "small.onnx")
        process.run_python(
            ("-m", "bench.exports", "export", way, "lenet5", "0", small), environment
        )
    for number in range(rounds):
        for network, size in networks.items():
            (folder / network).mkdir(exist_ok=True)
            for way, name in FILES.items():
                _say(f"export, round {number + 1}: {way}, {network}")
                path = str(folder / network / name)
                command = ("-m", "bench.exports", "export", way, network, str(size), path)
                run = process.run_python(command, environment)
                series = found.setdefault(network, {}).setdefault(way, {})
                for what, value in json.loads(run.output).items():
                    series.setdefault(what, []).append(value)
                series.setdefault("process_seconds", []).append(run.seconds)
    return found


def _latency(
    networks: Mapping[str, int],
    options: argparse.Namespace,
    folder: Path,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    found = {}
    for network, size in networks.items():
        _say(f"latency: {network}")
        numbers = [str(number) for number in (size, options.batch, options.rounds)]
        place = str(folder / network)
        command = ("-m", "bench.exports", "latency", network, *numbers, place)
        found[network] = json.loads(process.run_python(command, environment).output)
    return found


# -------------------------------------------------------------------------------------- tables


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Theirs by ours, round by round."""
    return [b / a for a, b in zip(ours, theirs, strict=True)]


def _quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    if len(ratios) < 2:
        return (ratios[0],) * 3
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return low, middle, high


def _weights(series: Mapping[str, Sequence[float]]) -> float:
    """Peak memory above what was there before the module, in weights."""
    return max(
        (peak - before) / weights
        for peak, before, weights in zip(
            series["peak_bytes"], series["before_bytes"], series["weight_bytes"], strict=True
        )
    )


def _exports_table(exports: Found) -> Table:
    columns = ("wall time", "ratio", "processor time", "ratio", "peak memory", "in weights")
    table = Table(
        "Export",
        ("network and way", *columns, "whole process"),
        note="From a module to its file, in a fresh process that has exported a small network the "
        "same way; cnnspec also reads the spec in that time. Peak memory is what comes on top of "
        "what the process had before it made the module, so the module's own weights are in it: "
        "`in weights` is that by the bytes of weights and buffers. Whole process: from its start, "
        "imports and the small network included.",
    )
    for network, ways in exports.items():
        ours = ways[OURS]
        for way, of in ways.items():
            above = [a - b for a, b in zip(of["peak_bytes"], of["before_bytes"], strict=True)]
            table.rows.append(
                (
                    f"{network}, {way}",
                    tables.spread(of["seconds"]),
                    tables.times(median(_ratios(ours["seconds"], of["seconds"]))),
                    tables.seconds(median(of["cpu_seconds"])),
                    tables.times(median(_ratios(ours["cpu_seconds"], of["cpu_seconds"]))),
                    tables.mb(max(above)),
                    f"{_weights(of):.2f}",
                    tables.seconds(median(of["process_seconds"])),
                )
            )
    return table


def _files_table(exports: Found, latency: Found) -> Table:
    table = Table(
        "Files",
        ("network and way", "size", "nodes", "difference"),
        note="Difference: of what ONNX Runtime computes from what torch does, the largest by the "
        "largest element.",
    )
    for network, ways in exports.items():
        for way, of in ways.items():
            difference = latency[network]["differences"].get(way)
            table.rows.append(
                (
                    f"{network}, {way}",
                    f"{of['file_bytes'][-1] / 1e6:,.2f} MB",
                    f"{of['nodes'][-1]:,.0f}",
                    "" if difference is None else f"{difference:.1e}",
                )
            )
    return table


def _latency_tables(latency: Found) -> Iterator[Table]:
    for network, found in latency.items():
        table = Table(
            f"Latency, {network}",
            ("threads and contender", "time of a run", "ratio", "quartiles of the ratios"),
            note="Ratios are by our file, within a round.",
        )
        for threads, sides in found["seconds"].items():
            for side, series in sides.items():
                low, middle, high = _quartiles(_ratios(sides[OURS], series))
                table.rows.append(
                    (
                        f"{threads}, {side}",
                        tables.spread(series),
                        f"{middle:.3f}",
                        f"{low:.3f} to {high:.3f}",
                    )
                )
        yield table


def _bars(exports: Found, latency: Found) -> Table:
    table = Table("Bars", ("what", "bar", "measured", "met"))

    def judge(what: str, bar: str, measured: str, met: bool) -> None:
        table.rows.append((what, bar, measured, "yes" if met else "no"))

    for network, ways in exports.items():
        ratio = median(_ratios(ways[OURS]["seconds"], ways[DYNAMO]["seconds"]))
        what = f"{network}, export without verification"
        judge(what, f"1/{FASTER} of dynamo's time", f"1/{ratio:.1f}", ratio >= FASTER)
        most = _weights(ways[OURS])
        judge(f"{network}, peak memory", f"{LARGEST:g}x weights", f"{most:.2f}x", most <= LARGEST)
    for network, found in latency.items():
        for threads, sides in found["seconds"].items():
            where = f"{network}, {threads} thread{'s' * (threads != '1')}"
            low, middle, high = _quartiles(_ratios(sides[DYNAMO], sides[OURS]))
            spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
            met = middle <= MOST or low <= 1
            judge(f"{where}, by dynamo's file", f"{MOST} or within the spread", spread, met)
            _, middle, _ = _quartiles(_ratios(sides[EAGER], sides[OURS]))
            judge(f"{where}, by torch eager", "below 1", f"{middle:.3f}", middle < 1)
    return table


def _circumstances(options: argparse.Namespace, load: Sequence[float]) -> dict[str, Any]:
    from cnnspec import __version__

    names = ("torch", "onnx", "onnxscript")
    return {
        "versions": {
            "cnnspec": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in names},
            "onnxruntime": _runtime(),
        },
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "exports": options.exports,
        "rounds": options.rounds,
        "batch": options.batch,
        "load_average": {"before": round(load[0], 1), "after": round(os.getloadavg()[0], 1)},
    }


def _runtime() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def _page(circumstances: Found, networks: Mapping[str, int], found: Sequence[Table]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    load = circumstances["load_average"]
    sizes = ", ".join(f"{network} at {size}x{size}" for network, size in networks.items())
    return (
        "# Export to ONNX beside torch's own\n\n"
        "Written by `python -m bench.export`; `bench/README.md` says how it is measured.\n"
        f"{versions}; {circumstances['system']}, {circumstances['cores']} cores, "
        f"{circumstances['exports']} rounds of exports, {circumstances['rounds']} of latency, "
        f"batch {circumstances['batch']}, load average {load['before']} before and "
        f"{load['after']} after. {sizes}. Times are medians (least to most).\n\n"
        + tables.markdown(found)
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.export", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything; write nothing")
    parser.add_argument("--exports", type=int, default=5, help="rounds of exports")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of latency")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK"
    )
    options = parser.parse_args()
    networks = {network: NETWORKS[network] for network in options.networks}
    if options.quick:
        networks, options.exports, options.rounds = {"resnet18": 64}, 1, 3
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        environment = process.even_environment(folder)
        # Where others compute too, threads that spin while they wait take what they wait for.
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        files = Path(folder) / "files"
        files.mkdir()
        exports = _exports(networks, options.exports, files, environment)
        latency = _latency(networks, options, files, environment)
    circumstances = _circumstances(options, load)
    bars = _bars(exports, latency)
    found = [
        bars,
        _exports_table(exports),
        _files_table(exports, latency),
        *_latency_tables(latency),
    ]
    tables.show(found)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        document = {**circumstances, "exports_of": exports, "latency": latency}
        (RESULTS / "export.json").write_text(
            json.dumps(document, indent=1) + "\n", encoding="utf-8"
        )
        (RESULTS / "export.md").write_text(_page(circumstances, networks, found), encoding="utf-8")
    return 0 if all(row[-1] == "yes" for row in bars.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
