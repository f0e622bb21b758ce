"""Computes what generated modules and torchvision's own make of equal weights and images.

Every network that torchvision has as well, at its own size: inference, and steps of training with
the gradients of all parameters, until each of them has had one. `python -m bench.values` writes
`bench/results/values.md` and `.json`; `--quick` takes small images and writes nothing. Nothing is
downloaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from time import process_time
from typing import Any

from bench import process, tables
from bench.tables import Table

BARS: Mapping[str, float] = {
    "inference": 1e-6,
    "training": 1e-6,
    "gradients": 1e-5,
    "stored": 1e-6,
}
"""The most by which each may differ: max|ours - theirs| / max|theirs| of a tensor."""

RESULTS = Path(__file__).parent / "results"


def _values(network: str, size: int | None) -> dict[str, Any]:
    """The largest difference of each kind, of one network."""
    import cnnspec
    from tests.torchvision_networks import reference
    from tests.torchvision_values import input_of, of_inference, of_training, one_thread

    began = process_time()
    net = cnnspec.load(network, inputs={"image": (3, size, size)} if size else None)
    theirs = reference(network)
    ours = net.to_torch()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    with one_thread():
        inference = of_inference(net, ours, theirs)
        steps = [of_training(net, ours, theirs)]
        # Stochastic depth drops blocks for both images: until each has been there once.
        while frozenset.intersection(*(step.silent for step in steps)):
            steps.append(of_training(net, ours, theirs, seed=3 + len(steps)))
    return {
        "input": list(input_of(net).shape),
        "parameters": len(steps[0].gradients),
        "steps": len(steps),
        "inference": max(inference.values()),
        "training": max(value for step in steps for value in step.outputs.values()),
        "gradients": max(value for step in steps for value in step.gradients.values()),
        "stored": max(value for step in steps for value in step.stored.values()),
        "equal_gradients": sum(
            not any(step.gradients[key] for step in steps) for key in steps[0].gradients
        ),
        "cpu_seconds": process_time() - began,
    }


def _networks() -> list[str]:
    from tests.golden.oracles import SHARED

    return sorted({network for networks in SHARED.values() for network in networks})


def _met(of: Mapping[str, Any]) -> bool:
    return all(of[kind] <= bar for kind, bar in BARS.items())


def _tables(found: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    met = sum(map(_met, found.values()))
    bars = Table("Bars", ("what", "bar", "measured", "met"))
    for kind, bar in BARS.items():
        most = max(of[kind] for of in found.values())
        bars.rows.append((kind, f"{bar:.0e}", f"{most:.1e}", "yes" if most <= bar else "no"))
    bars.rows.append(
        ("networks", "all", f"{met} of {len(found)}", "yes" if met == len(found) else "no")
    )
    table = Table(
        "Differences",
        ("network", "input", "steps", *BARS, "equal gradients", "processor time"),
        note="max|ours - torchvision's| / max|torchvision's| of a tensor, the most of all tensors: "
        "outputs of inference and of training, gradients of all parameters, and parameters, "
        "statistics and counters after a step of SGD. 0 is equal to the bit. Where stochastic "
        "depth drops blocks it takes several steps until every parameter has had a gradient.",
    )
    for network, of in found.items():
        figures = [f"{of[kind]:.1e}" if of[kind] else "0" for kind in BARS]
        equal = f"{of['equal_gradients']} of {of['parameters']}"
        given = "x".join(map(str, of["input"]))
        seconds = tables.seconds(of["cpu_seconds"])
        table.rows.append((network, given, str(of["steps"]), *figures, equal, seconds))
    return [bars, table]


def _circumstances() -> dict[str, Any]:
    from cnnspec import __version__

    versions = {name: version(name) for name in ("torch", "torchvision")}
    python = platform.python_version()
    return {
        "versions": {"cnnspec": __version__, "python": python, **versions},
        "system": f"{platform.system()} {platform.machine()}",
    }


def _kept(circumstances: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What earlier runs under equal circumstances have found."""
    path = RESULTS / "values.json"
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = all(document.get(key) == value for key, value in circumstances.items())
    return dict(document["networks"]) if same else {}


def _write(circumstances: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> None:
    document = {**circumstances, "networks": found}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "values.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    page = (
        "# What generated modules compute beside torchvision's\n\n"
        "Written by `python -m bench.values`; `bench/README.md` says how it is measured.\n"
        f"{versions}; {circumstances['system']}, 1 thread.\n\n{tables.markdown(_tables(found))}"
    )
    (RESULTS / "values.md").write_text(page, encoding="utf-8")


def main() -> int:
    """Compare, print, write; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.values", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images; write nothing")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="these, beside those done")
    parser.add_argument("--one", metavar="NETWORK", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_values(options.one, options.size)))
        return 0
    circumstances = _circumstances()
    found = {} if options.quick or not options.only else _kept(circumstances)
    networks = options.only or _networks()
    with tempfile.TemporaryDirectory() as folder:
        environment = process.even_environment(folder)
        for number, network in enumerate(networks, start=1):
            # A process each: what one took of memory is given back before the next.
            arguments = ["-m", "bench.values", "--one", network]
            if options.quick and network != "vit_b_16":  # which has a position for each patch
                arguments += ["--size", "64"]
            found[network] = json.loads(process.run_python(arguments, environment).output)
            found = dict(sorted(found.items()))
            most = ", ".join(f"{kind} {found[network][kind]:.1e}" for kind in BARS)
            print(f"{number}/{len(networks)} {network}: {most}", file=sys.stderr, flush=True)
            if not options.quick:
                _write(circumstances, found)
    tables.show(_tables(found))
    return 0 if all(map(_met, found.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
