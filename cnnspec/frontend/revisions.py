"""Specs as a revision of a git repository has them: `main:specs/net.yaml`, `HEAD~1:./net.yaml`.

All of one spec, its imports too, is of one revision. git itself is asked, never through a shell,
and nothing in the repository is changed. What the text means may not enter.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cached_property
from pathlib import PurePath, PurePosixPath
from posixpath import normpath
from typing import NamedTuple

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean
from cnnspec.frontend.load import Loaded, load_file
from cnnspec.frontend.reader import MAX_BYTES, read_bytes
from cnnspec.source import Source

__all__ = ["Revised", "load_revised", "revised"]

_ROOT = PurePosixPath("/repository")
"""Stands for the top folder, so that a path which leaves it can be told."""

_FIELDS = 3


class Revised(NamedTuple):
    """A file of a revision, as git writes it: `revision:path`.

    The path is relative to the top folder of the repository, or to the current one where it begins
    with `./` or `../`. No revision means the index, what `git add` has noted.
    """

    revision: str
    path: str

    def __str__(self) -> str:
        return f"{self.revision}:{self.path}"


def revised(name: str) -> Revised | None:
    """What `REVISION:PATH` names; None for a name that is none. A file of that name wins.

    Colons in braces are the revision's own: `HEAD@{12:00}:net.yaml`.
    """
    if PurePath(name).drive or os.path.lexists(name):
        return None
    depth = 0
    for at, character in enumerate(name):
        if character == ":" and depth == 0:
            return Revised(name[:at], name[at + 1 :])
        depth += (character == "{") - (character == "}")
    return None


def load_revised(file: Revised) -> Loaded:
    """Read, parse and check a spec of a revision, and its imports of the same.

    Raises:
        EnvironmentFailure: there is no git, repository, revision or file.
        SpecError: the file is no spec.
    """
    history = _History(file.revision)
    return load_file(history.place(file.path), str(file), history)


class _History:
    """The files of one revision: an `Origin`."""

    def __init__(self, revision: str) -> None:
        self._revision = revision
        self._prefix = _git("rev-parse", "--show-prefix").decode("utf-8", "replace").strip("\r\n")

    @cached_property
    def _tree(self) -> str:
        """The tree of the revision, found once: a branch may move meanwhile."""
        revision = self._revision
        if not revision:
            return ""
        asked = f"{revision}^{{tree}}"
        done = _run("rev-parse", "--verify", "--quiet", "--end-of-options", asked)
        if done.returncode != 0:
            raise EnvironmentFailure(f"there is no revision `{revision}`", help=_near(revision))
        return done.stdout.decode("ascii", "replace").strip()

    def place(self, path: str) -> PurePosixPath:
        """Where a path that a user wrote leads."""
        if path.startswith(("./", "../")):
            path = self._prefix + path
        return PurePosixPath(normpath(f"{_ROOT}/{path}"))

    def resolve(self, path: PurePath) -> PurePath:
        """The path without `..`."""
        return PurePosixPath(normpath(path.as_posix()))

    def read(self, path: PurePath, name: str) -> Source:
        """The text of a file, links within the repository followed."""
        try:
            inside = path.relative_to(_ROOT).as_posix()
        except ValueError:
            raise EnvironmentFailure(f"`{name}` lies outside the repository") from None
        if "\n" in inside or "\0" in inside:
            raise EnvironmentFailure("the path has a character no path can have")
        wanted = f"{self._tree}:{'' if inside == '.' else inside}\n"
        out = _git("cat-file", "--batch", "--follow-symlinks", input=os.fsencode(wanted))
        head, _, content = out.partition(b"\n")
        fields = head.rsplit(b" ", _FIELDS - 1)
        kind = fields[1] if len(fields) == _FIELDS and fields[2].isdigit() else b""
        if kind == b"tree":
            raise EnvironmentFailure(f"`{name}` is a folder", help="name a spec in it")
        if kind != b"blob":
            raise EnvironmentFailure(f"there is no file `{name}`", help=self._near(inside))
        size = min(int(fields[2]), MAX_BYTES + 1)
        return read_bytes(name, content[:size])

    def _near(self, path: str) -> str:
        """Help for a path that the revision does not have: as git means it, or one like it."""
        command = ["ls-files", "-z"] if not self._tree else ["ls-tree", "-rz", "--name-only"]
        scope = ["--full-name", ":/"] if not self._tree else ["--full-tree", self._tree]
        done = _run(*command, *scope)
        files = done.stdout.decode("utf-8", "replace").split("\0")
        if self._prefix + path in files:
            return (
                "paths start at the top folder of the repository: "
                f"did you mean `{Revised(self._revision, f'./{path}')}`?"
            )
        specs = {file for file in files if file.endswith((".yaml", ".yml"))}
        elsewhere = sorted(file for file in specs if PurePath(file).name == PurePath(path).name)
        if elsewhere:
            return f"did you mean `{Revised(self._revision, elsewhere[0])}`?"
        beside = [file for file in specs if PurePath(file).parent == PurePath(path).parent]
        near = did_you_mean(path, beside)
        return near.replace("`", f"`{self._revision}:", 1) if near else ""

    def shown(self, target: PurePath, importer: PurePath, importer_name: str) -> str:
        """By its path from the top folder, in the same revision."""
        inside = target.relative_to(_ROOT) if target.is_relative_to(_ROOT) else target
        return str(Revised(self._revision, inside.as_posix()))


def _near(revision: str) -> str:
    """Help for a revision that is not there: one of a similar name, or how to get it."""
    names = ("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags", "refs/remotes")
    known = ["HEAD", *_run(*names).stdout.decode("utf-8", "replace").split()]
    begin = re.split("[~^@:]", revision, maxsplit=1)[0]
    near = "" if begin in known else did_you_mean(revision, known)
    shallow = _run("rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    if not near and shallow:
        return "this clone is shallow: `git fetch --unshallow` gets the rest of the history"
    return near


def _git(*arguments: str, input: bytes = b"") -> bytes:
    """What git prints. Raises `EnvironmentFailure` with its words where it fails."""
    done = _run(*arguments, input=input)
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode("utf-8", "replace").strip().split("\n", 1)[0]
    if "not a git repository" in said:
        raise EnvironmentFailure(
            "this folder is in no git repository", help="name two files, or bundled networks"
        )
    reason = said.removeprefix("fatal: ") or f"it ends with {done.returncode}"
    raise EnvironmentFailure(f"git cannot read the repository: {reason}")


def _run(*arguments: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "--no-pager", *arguments],
            input=input,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
            check=False,
        )
    except FileNotFoundError:
        raise EnvironmentFailure(
            "git is not installed, and revisions are read with it",
            help="without it, name two files",
        ) from None
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"git cannot be run: {reason}") from None
    except ValueError:
        raise EnvironmentFailure("the revision has a character no revision can have") from None
