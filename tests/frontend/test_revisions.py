"""Specs of git revisions, in real repositories."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cnnspec.diagnostics import EnvironmentFailure, SpecError
from cnnspec.frontend.load import expand
from cnnspec.frontend.revisions import Revised, load_revised, revised

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

NET = """\
cnnspec: 1
name: {name}
inputs: {{image: [3, 8, 8]}}
imports: {{b: parts/blocks.yaml}}
layers:
  - b.unit: {{width: 4}}
"""
BLOCKS = """\
cnnspec: 1
blocks:
  unit:
    params: {{width: int}}
    layers:
      - Conv2d: {{out_channels: width, kernel_size: {kernel}}}
"""


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


def write(folder: Path, name: str, kernel: int) -> None:
    (folder / "nets" / "parts").mkdir(parents=True, exist_ok=True)
    (folder / "nets" / "net.yaml").write_text(NET.format(name=name), encoding="utf-8")
    blocks = folder / "nets" / "parts" / "blocks.yaml"
    blocks.write_text(BLOCKS.format(kernel=kernel), encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits, a branch, a tag, a staged and an unstaged version."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    write(folder, "first", 1)
    (folder / "nets" / "link.yaml").symlink_to("net.yaml")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "tag", "v1")
    git(folder, "branch", "feature/x")
    write(folder, "second", 3)
    git(folder, "commit", "-q", "-a", "-m", "second")
    write(folder, "staged", 5)
    git(folder, "add", ".")
    write(folder, "unsaved", 7)
    monkeypatch.chdir(folder)
    return folder


def kernel(name: str) -> tuple[str, tuple[int, ...]]:
    file = revised(name)
    assert file is not None
    graph = expand(load_revised(file))
    return graph.name, graph.nodes[0].op.arguments()["kernel_size"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HEAD:nets/net.yaml", ("second", (3, 3))),
        ("HEAD~1:nets/net.yaml", ("first", (1, 1))),
        ("v1:nets/net.yaml", ("first", (1, 1))),
        ("feature/x:nets/net.yaml", ("first", (1, 1))),
        ("main:./nets/net.yaml", ("second", (3, 3))),
        ("HEAD^{/first: none|first}:nets/net.yaml", ("first", (1, 1))),
        (":nets/net.yaml", ("staged", (5, 5))),
        ("v1:nets/link.yaml", ("first", (1, 1))),
        ("v1:nets/../nets/net.yaml", ("first", (1, 1))),
    ],
)
def test_a_file_and_its_imports_are_of_one_revision(
    name: str, expected: tuple[str, tuple[int, ...]], repository: Path
) -> None:
    assert kernel(name) == expected


def test_paths_from_a_folder(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "nets" / "parts")
    assert kernel("HEAD:../net.yaml")[0] == "second"
    assert kernel("HEAD:nets/net.yaml")[0] == "second"


def test_a_bare_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = repository.parent / "bare.git"
    git(repository, "clone", "-q", "--bare", ".", str(bare))
    monkeypatch.chdir(bare)
    assert kernel("v1:nets/net.yaml")[0] == "first"


WRONG = {
    "HEAD:net.yaml": (
        "there is no file `HEAD:net.yaml`",
        "did you mean `HEAD:nets/net.yaml`?",
    ),
    "HEAD:nets/nett.yaml": (
        "there is no file `HEAD:nets/nett.yaml`",
        "did you mean `HEAD:nets/net.yaml`?",
    ),
    "HEAD:nets": ("`HEAD:nets` is a folder", "name a spec in it"),
    "HEAD:": ("`HEAD:` is a folder", "name a spec in it"),
    "HEAD:../net.yaml": ("`HEAD:../net.yaml` lies outside the repository", ""),
    "HED:nets/net.yaml": ("there is no revision `HED`", "did you mean `HEAD`?"),
    "mian:nets/net.yaml": ("there is no revision `mian`", "did you mean `main`?"),
    "v1~9:nets/net.yaml": ("there is no revision `v1~9`", ""),
    "--upload-pack=x:net.yaml": ("there is no revision `--upload-pack=x`", ""),
    "$(touch hacked):net.yaml": ("there is no revision `$(touch hacked)`", ""),
    "HEAD:none\nHEAD:nets/net.yaml": ("the path has a character no path can have", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_there(name: str, repository: Path) -> None:
    message, help = WRONG[name]
    file = revised(name)
    assert file is not None
    with pytest.raises(EnvironmentFailure) as failure:
        load_revised(file)
    assert failure.value.message == message
    if help:
        assert failure.value.help == help
    assert not (repository / "hacked").exists()


def test_a_path_that_is_meant_from_here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "nets")
    with pytest.raises(EnvironmentFailure) as failure:
        load_revised(Revised("HEAD", "net.yaml"))
    assert failure.value.help.endswith("did you mean `HEAD:./net.yaml`?")


def test_a_shallow_clone(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = repository.parent / "shallow"
    git(repository, "clone", "-q", "--depth", "1", f"file://{repository}", str(clone))
    monkeypatch.chdir(clone)
    assert kernel("HEAD:nets/net.yaml")[0] == "second"
    with pytest.raises(EnvironmentFailure) as failure:
        load_revised(Revised("HEAD~1", "nets/net.yaml"))
    assert "git fetch --unshallow" in failure.value.help


def test_no_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository.parent / "elsewhere").mkdir()
    monkeypatch.chdir(repository.parent / "elsewhere")
    with pytest.raises(EnvironmentFailure) as failure:
        load_revised(Revised("HEAD", "net.yaml"))
    assert failure.value.message == "this folder is in no git repository"


def test_no_git(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(EnvironmentFailure) as failure:
        load_revised(Revised("HEAD", "nets/net.yaml"))
    assert failure.value.message.startswith("git is not installed")


def test_mistakes_have_their_place_in_the_revision(repository: Path) -> None:
    blocks = repository / "nets" / "parts" / "blocks.yaml"
    blocks.write_text(BLOCKS.format(kernel="none"), encoding="utf-8")
    (repository / "top.yaml").write_text(
        "cnnspec: 1\nname: top\nimports: {a: nets/none.yaml, o: ../other.yaml}\nlayers: []\n",
        encoding="utf-8",
    )
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "broken")
    with pytest.raises(SpecError) as failure:
        expand(load_revised(Revised("main", "nets/net.yaml")))
    assert str(failure.value.diagnostics[0].span).startswith("main:nets/parts/blocks.yaml:6:")
    loaded = load_revised(Revised("HEAD", "top.yaml"))
    codes = {error.code: error.message for error in loaded.errors}
    assert codes["import-not-found"] == "there is no file `HEAD:nets/none.yaml`"
    assert "import-outside" in codes


@pytest.mark.parametrize("name", ["net.yaml", "vgg16", "nets/net.yaml", "-"])
def test_other_names_are_no_revisions(name: str) -> None:
    assert revised(name) is None


def test_a_file_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert revised("a:b.yaml") == Revised("a", "b.yaml")
    (tmp_path / "a:b.yaml").touch()
    assert revised("a:b.yaml") is None


def test_colons_in_braces() -> None:
    assert revised("HEAD@{10:00}:a.yaml") == Revised("HEAD@{10:00}", "a.yaml")
