"""The folder of a run: what is in it, whose it is, and that one process at a time trains there.

What a state, a figure or a recipe means may not enter, nor torch.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cnnspec.diagnostics import EnvironmentFailure, SpecError, listed
from cnnspec.files import write_file
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.recipe.read import parse_recipe
from cnnspec.training.recipe.write import to_yaml

__all__ = ["RunFolder", "abandon", "claimed", "is_run"]

_SPEC: Final = "spec.yaml"
_RECIPE: Final = "recipe.yaml"
_FACTS: Final = "run.json"
_LOCK: Final = ".lock"
_CHECKPOINTS: Final = "checkpoints"
_FORMAT: Final = 1
_PATIENCE: Final = 3.0
"""Seconds for the processes of a run whose launcher was killed to notice it and end."""

_LARGEST: Final = 100_000_000
"""Bytes of a text that may be real."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run on the disk: `spec` is the flat network's text, `facts` what `run.json` holds.

    `run.json` is written last when a run is made, so that a folder with it is complete;
    `model.safetensors` is written last of all, so that a run with it is finished.
    """

    path: Path
    spec: str
    recipe: Recipe
    facts: Mapping[str, Any]

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, spec: str, recipe: Recipe, facts: Mapping[str, Any]
    ) -> RunFolder:
        """Begin a run in a folder that is `claimed`. `facts` are plain values for `run.json`.

        Raises `EnvironmentFailure` where a run is there already, and where a file cannot be
        written.
        """
        folder = Path(path)
        if is_run(folder):
            raise EnvironmentFailure(
                f"`{folder}` holds a run already",
                help="go on with it by --resume, or choose another folder with -o",
            )
        try:
            (folder / _CHECKPOINTS).mkdir(exist_ok=True)
        except OSError as failure:
            raise _unwritable(folder / _CHECKPOINTS, failure) from None
        texts = {_SPEC: spec.encode(), _RECIPE: to_yaml(recipe).encode()}
        for name, text in texts.items():
            write_file(folder / name, text)
        hashes = {name: sha256(text).hexdigest() for name, text in texts.items()}
        about = {"format": _FORMAT, **facts, "files": hashes}
        write_file(folder / _FACTS, (json.dumps(about, indent=2) + "\n").encode())
        return cls(folder, spec, recipe, about)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """The run in a folder, which another process may be training.

        Raises `EnvironmentFailure` for a folder that is no run, and for one whose files are not
        what `create` wrote.
        """
        folder = Path(path)
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "is not there"
            raise EnvironmentFailure(f"`{folder}` {what}")
        if not is_run(folder):
            raise EnvironmentFailure(
                f"`{folder}` is no run of cnnspec: it has no `{_FACTS}`",
                help=f"`cnnspec train SPEC -o {folder}` makes one",
            )
        try:
            facts = json.loads(_text(folder / _FACTS))
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            raise EnvironmentFailure(f"`{folder / _FACTS}` is damaged: it is no JSON object")
        if facts.get("format") != _FORMAT:
            raise EnvironmentFailure(
                f"`{folder}` was written by another version of cnnspec: its format is not {_FORMAT}"
            )
        texts = {name: _text(folder / name) for name in (_SPEC, _RECIPE)}
        hashes = facts.get("files")
        for name, text in texts.items():
            written = hashes.get(name) if isinstance(hashes, dict) else None
            if written != sha256(text.encode()).hexdigest():
                raise EnvironmentFailure(
                    f"`{folder / name}` was changed since the run was begun",
                    help="what a run is cannot change: begin another with -o",
                )
        try:
            recipe = parse_recipe(texts[_RECIPE], os.fspath(folder / _RECIPE))
        except SpecError as failure:
            raise EnvironmentFailure(
                f"`{folder / _RECIPE}` is not understood: {failure.diagnostics[0].message}"
            ) from None
        return cls(folder, texts[_SPEC], recipe, facts)

    @property
    def spec_file(self) -> Path:
        """The flat network as a spec."""
        return self.path / _SPEC

    @property
    def identity(self) -> str:
        """A digest of what decides the weights: network, recipe, samples, what they began with.

        It stays when the folder moves.
        """
        decides = {key: self.facts.get(key) for key in ("files", "fingerprint", "initial")}
        return sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    @property
    def checkpoints(self) -> Path:
        """The folder of states; `cnnspec.training.runs.checkpoints` fills it."""
        return self.path / _CHECKPOINTS

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self.path / "model.safetensors"

    @property
    def best(self) -> Path:
        """The weights that were best on held-out samples, where the recipe asks for them."""
        return self.checkpoints / "best.safetensors"

    @property
    def metrics_csv(self) -> Path:
        """A row of figures for each epoch, under a header."""
        return self.path / "metrics.csv"

    @property
    def metrics_jsonl(self) -> Path:
        """The same as a JSON object on each line."""
        return self.path / "metrics.jsonl"

    @property
    def curve(self) -> Path:
        """The picture of the learning curve."""
        return self.path / "curve.svg"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the data, where it has any."""
        found = self.facts.get("classes")
        return tuple(map(str, found)) if isinstance(found, list) else ()

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.weights.is_file()


def abandon(folder: RunFolder) -> None:
    """Take back what `create` made of a run that came to no figures and no state.

    Its folder, which is still `claimed`, may then be used again, and goes if it was made for it.
    """
    figures = (folder.metrics_csv, folder.metrics_jsonl)
    made = (folder.path / _FACTS, folder.spec_file, folder.path / _RECIPE)
    with suppress(OSError):
        if any(folder.checkpoints.iterdir()) or folder.metrics_jsonl.stat().st_size:
            return
        for path in (*figures, *made):
            path.unlink()
        folder.checkpoints.rmdir()


def is_run(path: Path) -> bool:
    """Whether a folder holds a run that was begun completely."""
    return (path / _FACTS).is_file()


# ------------------------------------------------------------------------------------ whose it is


@contextmanager
def claimed(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Have a folder for this process alone while the block runs; make it if it is not there.

    The claim ends with the process, whatever ends that. A folder that this made goes again if the
    block puts nothing into it.

    Raises `EnvironmentFailure` for a folder that another process has claimed, that holds something
    else than a run, or that cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise EnvironmentFailure(f"`{folder}` cannot be written: it is no folder")
    _refuse_foreign(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a+", encoding="utf-8")
    except OSError as failure:
        raise _unwritable(folder, failure) from None
    with file:
        if not _locked_soon(file):
            file.seek(0)
            holder = file.read(20).strip()
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise EnvironmentFailure(
                f"`{folder}` is being trained by {who}",
                help="wait for it, stop it, or choose another folder with -o",
            )
        try:
            with suppress(OSError):
                # For the message above only: a full disk is told by what matters.
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            yield folder
        finally:
            if made and set(os.listdir(folder)) == {_LOCK}:
                with suppress(OSError):
                    (folder / _LOCK).unlink()
                    folder.rmdir()


def _locked_soon(file: io.TextIOWrapper) -> bool:
    """Whether this process has the file, at once or after the moment that a killed run takes."""
    end = time.monotonic() + _PATIENCE
    while not _lock(file):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


if sys.platform == "win32":
    import msvcrt

    def _lock(file: io.TextIOWrapper) -> bool:
        """Whether this process now has the file; behind its text, which others may read."""
        file.seek(1 << 20)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(file: io.TextIOWrapper) -> bool:
        """Whether this process now has the file.

        A lock of POSIX, not of `flock`: workers that a process forked do not keep it alive.
        """
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def _refuse_foreign(folder: Path) -> None:
    """Raise for a folder whose files nobody should lose."""
    if not folder.is_dir() or is_run(folder):
        return
    own = {_LOCK, _SPEC, _RECIPE, _CHECKPOINTS}
    try:
        names = sorted(os.listdir(folder))
    except OSError as failure:
        raise _unwritable(folder, failure) from None
    # What a kill leaves of `create`: files of its own, and drafts of them.
    drafts = tuple(f".{name}." for name in (_SPEC, _RECIPE, _FACTS))
    odd = [n for n in names if n not in own and not (n.startswith(drafts) and n.endswith(".tmp"))]
    if odd:
        raise EnvironmentFailure(
            f"`{folder}` is no run of cnnspec, and not empty: it holds {listed(odd[:3])}",
            help="choose another folder with -o",
        )
    for name in set(names) - own:
        with suppress(OSError):
            (folder / name).unlink()


def _unwritable(path: Path, failure: OSError) -> EnvironmentFailure:
    reason = (failure.strerror or "unknown reason").lower()
    return EnvironmentFailure(f"`{path}` cannot be written: {reason}")


# ------------------------------------------------------------------------------------ its texts


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8")
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{path}` cannot be read: {reason}") from None
    except UnicodeDecodeError:
        raise EnvironmentFailure(f"`{path}` is damaged: it is no text in UTF-8") from None
