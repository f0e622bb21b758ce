"""Takes the whole zoo through all that cnnspec does: analysis, check, build, weights, export.

`python -m bench.zoo` goes on where it was stopped, `python -m bench.zoo NAME ...` measures some
networks or files anew, `--all` everything. It writes `bench/results/zoo.json` and `.md`, and the
page of the zoo, `docs/zoo.md`. Networks that torchvision has as well are compared with it, with
equal weights, and analysis with torchvision's construction and torchinfo. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from statistics import median
from textwrap import wrap
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import tables
from bench.process import ROOT
from bench.tables import Table

if TYPE_CHECKING:
    from torch import nn

    import cnnspec

__all__ = ["PAGE", "PARTS", "RESULTS", "page", "passed"]

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "zoo.md"

PARTS = ("analyze", "check", "build", "weights", "export")
"""What every network goes through; `weights` only what torchvision has as well."""

BARS: Mapping[str, float] = {"inference": 1e-5, "training": 1e-5, "gradients": 1e-5}
"""The most by which values may differ: max|ours - theirs| / max|theirs| of a tensor."""

MOST_OF_RUNTIME = 1e-4
"""The most by which ONNX Runtime may differ from torch, where the proof would allow more."""

SIZES = (64, 96, 128, 160, 256)
"""Pixels a side at which values are compared: the first that leaves the weights as they are."""

MOST_TO_TRAIN = 150_000_000
"""Parameters of the largest network of which gradients are compared here."""

MOST_TO_EXPORT = 300_000_000
"""Parameters of the largest that is exported here: the proof has several copies in memory."""

_ROUNDS = 3
_EXPLODED = 1e6

Found = Mapping[str, Any]


# ------------------------------------------------------------------------------------- one network


def _measure(name: str, spec: str, variant: str | None) -> dict[str, Any]:
    """Everything of one network; what fails says so under `error` of its part."""
    import cnnspec

    seconds, net = _timed(lambda: _analyzed(spec, variant))
    report = net.analyze()
    theirs = _theirs(net)
    found: dict[str, Any] = {
        "spec": spec,
        "torchvision": theirs,
        "input": [list(shape) for shape in report.inputs.values()],
        "params": report.totals.params,
        "macs": report.totals.macs,
        "analyze": {"seconds": seconds},
        "check": _guarded(lambda: _checked(spec, net.name)),
        "build": _guarded(lambda: _built(net)),
    }
    if theirs is not None:
        found["torchinfo"] = _guarded(lambda: _counted(theirs, report.totals.params, net))
    small = _reduced(net)
    found["size"] = [list(shape) for shape in small.analyze().inputs.values()]
    if theirs is not None:
        found["weights"] = _guarded(lambda: _compared(small, theirs))
    if report.totals.params <= MOST_TO_EXPORT:
        found["export"] = _guarded(lambda: _exported(small))
    assert isinstance(net, cnnspec.Network)
    return found


def _guarded(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A part with its time, or what it failed with: one network must not end the campaign."""
    began = perf_counter()
    try:
        found = part()
    except Exception as failure:
        found = {"error": f"{type(failure).__name__}: {failure}"[:300]}
    return {"seconds": perf_counter() - began, **found}


def _timed(task: Callable[[], Any]) -> tuple[float, Any]:
    """The median of some rounds."""
    seconds = []
    for _ in range(_ROUNDS):
        began = perf_counter()
        result = task()
        seconds.append(perf_counter() - began)
    return median(seconds), result


def _analyzed(spec: str, variant: str | None) -> cnnspec.Network:
    """From the text to every figure of the report."""
    import cnnspec

    net = cnnspec.load(spec, variant=variant)
    assert net.analyze().layers
    return net


def _theirs(net: cnnspec.Network) -> str | None:
    """torchvision's network of that name."""
    from tests.golden.oracles import NETWORKS

    return net.name if net.name in NETWORKS else None


def _counted(name: str, params: int, net: cnnspec.Network) -> dict[str, Any]:
    """torchvision's construction and torchinfo, both without computing: on the meta device."""
    from torchinfo import summary

    from tests.golden import oracles

    shapes = [(1, *shape) for shape in net.analyze().inputs.values()]
    oracles.model(name)  # what is imported when needed

    def task() -> int:
        oracles.model.cache_clear()
        found = summary(oracles.model(name), input_size=shapes, device="meta", verbose=0)
        return int(found.total_params)

    seconds, counted = _timed(task)
    return {"seconds": seconds, "params": counted, "more_params": counted - params}


def _checked(spec: str, name: str) -> dict[str, Any]:
    from cnnspec.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["check", spec, "--variant", name, "--format", "json"])
    diagnostics = json.loads(printed.getvalue())["diagnostics"]
    if code:
        raise AssertionError(f"{len(diagnostics)} diagnostics, exit code {code}")
    return {"warnings": len(diagnostics)}


def _built(net: cnnspec.Network) -> dict[str, Any]:
    """The module, proved on the meta device to be what the report says, with started weights."""
    verified = net.build().verification
    assert verified is not None
    return {"layers": verified.layers, "tensors": verified.tensors}


def _reduced(net: cnnspec.Network) -> cnnspec.Network:
    """At the least of `SIZES` at which the network has the same layers with the same weights."""
    from cnnspec.diagnostics import SpecError
    from tests.fuzzing.comparison import module_of
    from tests.golden.oracles import stored

    own = net.analyze().inputs
    weights = stored(module_of(net.graph))
    for size in SIZES:
        inputs = {
            name: (shape[0], *(min(size, each) for each in shape[1:])) if len(shape) > 2 else shape
            for name, shape in own.items()
        }
        with contextlib.suppress(SpecError):
            small = net.with_inputs(**inputs)
            if small.same_layers(net) and stored(module_of(small.graph)) == weights:
                return small
    return net


def _compared(net: cnnspec.Network, name: str) -> dict[str, Any]:
    """Outputs of both modes and gradients, with torchvision's state dict loaded strictly."""
    from tests.golden.oracles import stored
    from tests.torchvision_networks import reference
    from tests.torchvision_values import of_inference, of_training

    ours, theirs = net.to_torch(), reference(name)
    if stored(ours) != stored(theirs):
        raise AssertionError("keys, their order, shapes or types differ")
    ours.load_state_dict(theirs.state_dict(), strict=True)
    found: dict[str, Any] = {"inference": max(of_inference(net, ours, theirs).values())}
    if sum(parameter.numel() for parameter in ours.parameters()) <= MOST_TO_TRAIN:
        step = of_training(net, ours, theirs)
        found["training"] = max(step.outputs.values())
        found["gradients"] = max(step.gradients.values())
    beyond = {kind: found[kind] for kind in BARS.keys() & found if found[kind] > BARS[kind]}
    if beyond:
        raise AssertionError(f"differences are {beyond}")
    return found


def _exported(net: cnnspec.Network) -> dict[str, Any]:
    """Written and proved: shapes, and ONNX Runtime against torch at several batch sizes."""
    module = _settled(net)
    with tempfile.TemporaryDirectory() as folder:
        report = net.to_onnx(Path(folder) / "network.onnx", module)
    assert report.verification is not None
    difference = report.verification.worst.difference
    if difference > MOST_OF_RUNTIME:
        raise AssertionError(f"ONNX Runtime differs by {difference}")
    return {"difference": difference, "nodes": report.nodes}


def _settled(net: cnnspec.Network) -> nn.Module:
    """A module with started weights; where its outputs explode, batch norms have seen a batch.

    With statistics of no data, hundreds of residual blocks overflow.
    """
    import torch
    from torch.nn.modules.batchnorm import _NormBase
    from torch.utils._pytree import tree_leaves

    from tests.torchvision_networks import pixels

    module = net.to_torch().eval()
    given = [pixels(4, *shape) for shape in net.analyze().inputs.values()]
    with torch.no_grad():
        results = [each for each in tree_leaves(module(*given)) if isinstance(each, torch.Tensor)]
        if all(bool((result.abs() < _EXPLODED).all()) for result in results):
            return module
        norms = [part for part in module.modules() if isinstance(part, _NormBase)]
        usual = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = None  # the average of all batches, which are one
        module.train()(*given)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    return module.eval()


# ------------------------------------------------------------------------------------- the results


def passed(of: Found, part: str) -> bool | None:
    """Whether a network passed a part; None where there is nothing to compare, or not yet."""
    if part not in of:
        return None
    return "error" not in of[part]


def _results(networks: Mapping[str, Found]) -> list[Table]:
    summary = Table("Summary", ("part", "passed", "failed", "not measured", "time of all"))
    for part in PARTS:
        verdicts = [passed(of, part) for of in networks.values()]
        time = sum(of[part].get("seconds", 0.0) for of in networks.values() if part in of)
        missing = sum(
            verdict is None and (part != "weights" or of["torchvision"] is not None)
            for verdict, of in zip(verdicts, networks.values(), strict=True)
        )
        counts = (verdicts.count(True), verdicts.count(False), missing)
        summary.rows.append((part, *map(str, counts), tables.seconds(time)))
    both = [of for of in networks.values() if passed(of, "torchinfo")]
    ours = sum(of["analyze"]["seconds"] for of in both)
    other = sum(of["torchinfo"]["seconds"] for of in both)
    if both:
        summary.note = (
            f"Analysis of the {len(both)} networks that torchvision has as well took "
            f"{tables.seconds(ours)}, torchvision's construction and torchinfo, both on the meta "
            f"device, {tables.seconds(other)}: {tables.times(other / ours)} as long."
        )
    table = Table(
        "Networks",
        (
            "network",
            "analyze",
            "torchvision + torchinfo",
            "check",
            "build",
            "values",
            "largest difference",
            "export",
            "difference of ORT",
        ),
        note="Times of analysis are medians of three; all others were taken once. Values and "
        "export at a reduced size. The largest difference is that of outputs in inference and "
        "training and of gradients, by the largest element.",
    )
    for name, of in networks.items():
        table.rows.append((name, *_cells(of)))
    failures = Table("What failed", ("network", "part", "why"))
    for name, of in networks.items():
        for part in (*PARTS, "torchinfo"):
            if passed(of, part) is False:
                failures.rows.append((name, part, " ".join(of[part]["error"].split())))
    return [summary, table, *([failures] if failures.rows else [])]


def _cells(of: Found) -> Iterable[str]:
    def time(part: str) -> str:
        if part not in of:
            return ""
        return tables.seconds(of[part]["seconds"]) if "error" not in of[part] else "failed"

    compared = of.get("weights", {})
    most = max((compared[kind] for kind in BARS if kind in compared), default=None)
    proved = of.get("export", {}).get("difference")
    yield from map(time, ("analyze", "torchinfo", "check", "build", "weights"))
    yield "" if most is None else f"{most:.1e}" if most else "0"
    yield time("export")
    yield "" if proved is None else f"{proved:.1e}"


def page(networks: Mapping[str, Found]) -> str:
    """`docs/zoo.md`: every file with what its header says, and what its networks have passed."""
    from cnnspec.report.numbers import short

    compared = sum(bool(passed(of, "weights")) for of in networks.values())
    text = [
        f"{len(networks)} networks come with cnnspec; `cnnspec analyze NAME` shows any of them, "
        "`cnnspec list` all. This page is generated by `python -m bench.zoo`, which takes each "
        "through everything.",
        "- **analyze**: it is analyzed, `cnnspec check` finds no mistake, and `expect` holds.",
        "- **build**: the module is built, and proved to be what the report says.",
        f"- **weight-exact**: {compared} networks have a counterpart in torchvision: equal keys in "
        "equal order, its state dict loads strictly, and outputs in inference and training and "
        "gradients are equal to 1e-5 of the largest (in inference only above "
        f"{MOST_TO_TRAIN // 10**6} million parameters).",
        "- **export**: the ONNX file is written and proved: ONNX Runtime gives what torch gives, "
        f"at most {MOST_OF_RUNTIME:.0e} of the largest apart. Networks of more than "
        f"{MOST_TO_EXPORT // 10**6} million parameters were not exported.",
        "A dash stands for what there is nothing to compare with, or was not measured.",
    ]
    lines = ["# The zoo", ""]
    for each in text:
        lines += wrap(each, 100, subsequent_indent="  " if each.startswith("- ") else "")
        lines += [] if each.startswith("- ") and not each.startswith("- **export") else [""]
    for spec, members in groupby(networks.items(), key=lambda item: item[1]["spec"]):
        lines += [f"## {spec}", "", *_header(spec), ""]
        lines += ["| network | params | MACs | input | analyze | build | weight-exact | export |"]
        lines += ["| --- | ---: | ---: | --- | --- | --- | --- | --- |"]
        for name, of in members:
            analyzed = bool(passed(of, "analyze")) and bool(passed(of, "check"))
            marks = [analyzed, *(passed(of, part) for part in ("build", "weights", "export"))]
            shapes = ", ".join("x".join(map(str, shape)) for shape in of["input"])
            cells = [
                f"`{name}`",
                short(of["params"]),
                short(of["macs"]),
                shapes,
                *({True: "yes", False: "no", None: "-"}[mark] for mark in marks),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _header(spec: str) -> list[str]:
    """The comment that a file begins with."""
    from cnnspec.frontend.load import bundled_specs

    text = bundled_specs()[spec].read_text(encoding="utf-8").splitlines()
    comment = text[: next(at for at, line in enumerate(text) if not line.startswith("#"))]
    return [line.removeprefix("#").strip() for line in comment]


def _circumstances() -> dict[str, Any]:
    import onnxruntime

    from cnnspec import __version__

    versions = {name: version(name) for name in ("torch", "torchvision")}
    return {
        "versions": {
            "cnnspec": __version__,
            "python": platform.python_version(),
            **versions,
            "onnxruntime": onnxruntime.__version__,
        },
        "system": f"{platform.system()} {platform.machine()}",
    }


def _write(circumstances: Found, networks: Mapping[str, Found]) -> None:
    RESULTS.mkdir(exist_ok=True)
    document = {**circumstances, "networks": networks}
    (RESULTS / "zoo.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{name} {number}" for name, number in circumstances["versions"].items())
    text = (
        "# The zoo, from analysis to export\n\n"
        "Written by `python -m bench.zoo`; `bench/README.md` says how it is measured.\n"
        f"{versions}; {circumstances['system']}, 1 thread.\n\n"
        f"{tables.markdown(_results(networks))}"
    )
    (RESULTS / "zoo.md").write_text(text, encoding="utf-8")
    PAGE.write_text(page(networks), encoding="utf-8")


def _kept() -> dict[str, dict[str, Any]]:
    """What earlier runs have found."""
    path = RESULTS / "zoo.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["networks"]) if path.exists() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 if a network fails a part."""
    parser = argparse.ArgumentParser(prog="python -m bench.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks or files to do anew")
    parser.add_argument("--all", action="store_true", help="every network anew")
    options = parser.parse_args(arguments)

    import torch

    from cnnspec.report.catalogue import bundled_networks

    torch.set_num_threads(1)
    every = {one.name: one for one in bundled_networks()}
    unknown = set(options.names) - every.keys() - {one.spec for one in every.values()}
    if unknown:
        parser.error(f"there is no network {', '.join(sorted(unknown))}")
    kept = {} if options.all else _kept()
    named = [one for one in every.values() if {one.name, one.spec} & {*options.names}]
    todo = named if options.names else [one for one in every.values() if one.name not in kept]
    failed = 0
    for number, one in enumerate(todo, start=1):
        began = perf_counter()
        kept[one.name] = found = _measure(one.name, one.spec, one.variant)
        wrong = [part for part in (*PARTS, "torchinfo") if passed(found, part) is False]
        failed += bool(wrong)
        took = tables.seconds(perf_counter() - began)
        verdict = f"failed: {', '.join(wrong)}" if wrong else "all passed"
        print(f"{number}/{len(todo)} {one.name}: {verdict}, {took}", file=sys.stderr, flush=True)
        kept = {name: kept[name] for name in every if name in kept}
        _write(_circumstances(), kept)
        gc.collect()
    _write(_circumstances(), kept)
    tables.show(_results(kept)[:1])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
