"""What `cnnspec build` makes: a folder with the source, the weights and the resolved spec.

    model.py              imports torch only
    weights.safetensors   the state dict; its metadata says what it belongs to
    spec.yaml             the flat network, as `cnnspec expand` writes it

Equal to the byte for an equal network, seed, weights and versions. How source, module and weights
come to be may not enter.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from json import dumps, loads
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnspec.backends.torch.emit import write
from cnnspec.backends.torch.module import (
    Chosen,
    Given,
    Progress,
    choose,
    construct,
    dtype_of,
    fill,
)
from cnnspec.backends.torch.verify import (
    Verification,
    promises,
    verify_counts,
    verify_shapes,
)
from cnnspec.diagnostics import EnvironmentFailure, listed
from cnnspec.files import filling, write_draft
from cnnspec.ir import Graph
from cnnspec.report import Report, analyze
from cnnspec.report.flat import FlatNetwork

__all__ = ["METADATA", "MODEL", "SPEC", "WEIGHTS", "Built", "BuiltFile", "build", "built_files"]

MODEL = "model.py"
WEIGHTS = "weights.safetensors"
SPEC = "spec.yaml"

METADATA = "cnnspec"
"""The key of the weights' metadata, with a JSON object. safetensors writes keys in any order, so
that more than one would not be equal to the byte."""

_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file that was written: its size in bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Built:
    """A network that was built: the module, its source, and the files where there is a folder.

    `network` is the class in the source that is the network. `chosen` says how given weights fit,
    `verification` what was compared with the report; each is None where that was not asked for.
    """

    module: nn.Module
    source: str
    network: str
    report: Report
    seed: int
    dtype: str
    chosen: Chosen | None
    verification: Verification | None
    folder: Path | None
    files: tuple[BuiltFile, ...]


def build(
    graph: Graph,
    folder: str | os.PathLike[str] | None = None,
    *,
    version: str,
    weights: Given | None = None,
    partial: bool = False,
    seed: int = 0,
    dtype: str = "float32",
    verify: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Make a module and compare it with the report; with a folder, write what it is made of.

    The folder appears whole or not at all. One that is there has to be empty or built before, and
    not changed by hand since, unless `force` overwrites the three files; what else it holds stays.
    `weights` are a file or a state dict that fits, or with `partial` of which something does.
    `version` is cnnspec's own, for the metadata.

    Raises `EnvironmentFailure` for a folder that cannot be written and weights that cannot be read
    or do not fit, `ModuleMismatchError` for a module that is not what was analyzed. Neither leaves
    anything behind.
    """
    floats, seed = dtype_of(dtype), operator.index(seed)
    if folder is not None:
        _refuse_foreign(Path(folder), force)
    report = analyze(graph)
    written = write(graph)
    promised = promises(graph)
    module = construct(written, graph, promised, floats)
    chosen = choose(module, weights, partial=partial)
    verification = None
    if verify:
        verify_counts(module, report)
        verification = verify_shapes(module, graph)
    fill(module, promised, seed, chosen.tensors if chosen else {}, progress)
    files: tuple[BuiltFile, ...] = ()
    if folder is not None:
        totals = report.totals
        spec = FlatNetwork(graph).spec({"params": totals.params, "macs": totals.macs})
        texts = {MODEL: written.text.encode(), SPEC: spec.encode()}
        origin = _origin(weights, chosen)
        about = {
            "class": written.network,
            "cnnspec": version,
            "dtype": dtype,
            "network": graph.name,
            "seed": seed,
            "torch": torch.__version__.partition("+")[0],
            "weights": origin,
            **{name: sha256(text).hexdigest() for name, text in texts.items()},
        }
        files = _write(Path(folder), texts, module, about)
    return Built(
        module,
        written.text,
        written.network,
        report,
        seed,
        dtype,
        chosen,
        verification,
        Path(folder) if folder is not None else None,
        files,
    )


def _origin(weights: Given | None, chosen: Chosen | None) -> dict[str, Any] | None:
    """Where given weights are from, for the metadata: the file's name and its content's hash."""
    if chosen is None:
        return None
    found: dict[str, Any] = {"tensors": len(chosen.match.taken)}
    if isinstance(weights, (str, os.PathLike)):
        path = Path(weights)
        found |= {"file": path.name, "sha256": _hash(path)}
    return found


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


# --------------------------------------------------------------------------------------- the folder


def built_files(folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The spec and the weights in a folder that `build` made, the network that is in it.

    Raises `EnvironmentFailure` for any other folder, and for one whose source or spec was changed
    since: its three files are then no longer one network.
    """
    place = Path(folder)
    apart = f"name them apart: `{place / SPEC} --weights {place / WEIGHTS}`"
    for name in (SPEC, WEIGHTS):
        if not (place / name).is_file():
            raise EnvironmentFailure(
                f"`{place}` was not built by cnnspec: it has no `{name}`",
                help=f"`cnnspec build SPEC -o {place}` makes such a folder",
            )
    about = _metadata(place / WEIGHTS)
    if about is None:
        raise EnvironmentFailure(
            f"`{place}` was not built by cnnspec: `{WEIGHTS}` does not say what it belongs to",
            help=apart,
        )
    for name in (MODEL, SPEC):
        if (place / name).is_file() and _hash(place / name) != about.get(name):
            raise EnvironmentFailure(f"`{place / name}` was changed since it was built", help=apart)
    return place / SPEC, place / WEIGHTS


def _write(
    folder: Path, texts: Mapping[str, bytes], module: nn.Module, about: Mapping[str, Any]
) -> tuple[BuiltFile, ...]:
    with filling(folder) as draft:
        for name, text in texts.items():
            write_draft(draft / name, text, folder / name)
        _write_weights(draft / WEIGHTS, folder / WEIGHTS, module, about)
        return tuple(
            BuiltFile(name, (draft / name).stat().st_size, _hash(draft / name))
            for name in (MODEL, WEIGHTS, SPEC)
        )


def _write_weights(draft: Path, path: Path, module: nn.Module, about: Mapping[str, Any]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
    try:
        save_file(tensors, draft, {METADATA: dumps(about, sort_keys=True)})
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        # safetensors writes for the owner alone.
        draft.chmod(draft.with_name(MODEL).stat().st_mode & 0o777)
    except (SafetensorError, OSError) as failure:
        reason = str(failure).rpartition(": ")[2].partition(" (os error")[0].lower()
        raise EnvironmentFailure(f"`{path}` cannot be written: {reason}") from None


def _refuse_foreign(folder: Path, force: bool) -> None:
    """Raise unless nothing that somebody wrote by hand would be lost in a folder."""
    if not folder.is_dir():
        if folder.exists() or folder.is_symlink():
            raise EnvironmentFailure(f"`{folder}` cannot be written: it is no folder")
        if not folder.absolute().parent.is_dir():
            raise EnvironmentFailure(
                f"`{folder}` cannot be written: there is no folder `{folder.parent}`"
            )
        return
    there = [name for name in (MODEL, WEIGHTS, SPEC) if (folder / name).exists()]
    odd = [name for name in there if not (folder / name).is_file()]
    if odd:
        raise EnvironmentFailure(f"`{folder / odd[0]}` cannot be written: it is no regular file")
    if force or not any(folder.iterdir()):
        return
    about = _metadata(folder / WEIGHTS)
    if about is None:
        raise EnvironmentFailure(
            f"`{folder}` is not empty, and was not built by cnnspec",
            help=f"choose another folder; --force puts {listed((MODEL, WEIGHTS, SPEC))} into it",
        )
    changed = [n for n in there if n != WEIGHTS and _hash(folder / n) != about.get(n)]
    if changed:
        raise EnvironmentFailure(
            f"`{folder / changed[0]}` was changed since it was built",
            help="choose another folder; --force overwrites it",
        )


def _metadata(weights: Path) -> Mapping[str, Any] | None:
    """What a file of weights says of itself, if `build` wrote it."""
    try:
        with weights.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _LARGEST_HEADER:
                return None
            about = loads(loads(file.read(size))["__metadata__"][METADATA])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return about if isinstance(about, dict) else None
