"""`diff` as users meet it: what A and B may be, formats, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cnnspec.cli.main import main
from tests.cli.inside import called
from tests.cli.process import DECIDING, cnnspec

SPEC = """\
cnnspec: 1
name: tiny
params: {width: int = 4}
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: width, kernel_size: 3}
    name: conv
  - ReLU
variants:
  wide: {width: 8}
"""
NO_GIT = shutil.which("git") is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "old.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "new.yaml").write_text(SPEC.replace("int = 4", "int = 6"), encoding="utf-8")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, env=kept
    )


@pytest.fixture
def repository(folder: Path) -> Path:
    """`old.yaml` committed, then made wider; another commit that leaves it alone on top."""
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("new.yaml\n", encoding="utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    (folder / "old.yaml").write_text(SPEC.replace("int = 4", "int = 5"), encoding="utf-8")
    git(folder, "commit", "-q", "-a", "-m", "second")
    (folder / "old.yaml").write_text(SPEC.replace("int = 4", "int = 6"), encoding="utf-8")
    return folder


def test_two_files(folder: Path) -> None:
    code, out, err = called("diff", "old.yaml", "new.yaml", cwd=folder)
    assert (code, err) == (0, "")
    assert out.startswith("old.yaml -> new.yaml\n")
    assert "~ conv Conv2d" in out
    assert "    out_channels 4 -> 6\n" in out
    assert "\nparams" in out
    assert out.endswith("\n1 layer changed, 1 only follow\n")


def test_exit_codes(folder: Path) -> None:
    same = ("diff", "old.yaml", "old.yaml")
    other = ("diff", "old.yaml", "new.yaml")
    assert called(*same, "--exit-code", cwd=folder).code == 0
    assert called(*other, "--exit-code", cwd=folder).code == 1
    assert called(*other, cwd=folder).code == 0
    (folder / "new.yaml").write_text(SPEC.replace("ReLU", "RelU"), encoding="utf-8")
    code, out, err = called(*other, cwd=folder)
    assert (code, out) == (1, "")
    assert "--> new.yaml:8:5" in err


def test_bundled_names_and_json() -> None:
    code, out, err = called("diff", "vgg11", "vgg13", "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["counts"]["added"] == 4
    assert (document["old"]["name"], document["new"]["name"]) == ("vgg11", "vgg13")


def test_standard_input(folder: Path) -> None:
    code, out, err = cnnspec("diff", "old.yaml", "-", stdin=SPEC, cwd=folder)
    assert (code, out, err) == (0, "old.yaml -> <stdin>\nno difference\n", "")
    assert cnnspec("diff", "-", "-", stdin=SPEC, cwd=folder).code == 2


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["old.yaml", "--variant-b", "wide"], "out_channels 4 -> 8"),
        (["old.yaml", "--variant-a", "wide"], "out_channels 8 -> 4"),
        (["old.yaml", "new.yaml", "--variant-a", "wide"], "out_channels 8 -> 6"),
        (["old.yaml", "new.yaml", "--variant", "wide"], "no difference"),
        (["old.yaml", "new.yaml", "--set", "width=3"], "no difference"),
        (["old.yaml", "new.yaml", "--input", "image=1x9x9"], "4x7x7 -> 6x7x7"),
    ],
)
def test_variants_params_and_sizes(arguments: list[str], shown: str, folder: Path) -> None:
    code, out, err = called("diff", *arguments, cwd=folder)
    assert (code, err) == (0, "")
    assert shown in out


def test_markdown_into_a_file(folder: Path) -> None:
    arguments = ("diff", "old.yaml", "new.yaml", "--format", "markdown", "-o", "comment.md")
    assert called(*arguments, cwd=folder) == (0, "", "")
    text = (folder / "comment.md").read_text(encoding="utf-8")
    assert text.startswith("### old.yaml → new.yaml\n")
    assert "| params | 112 | 168 | **+56** | +50.0% |" in text


def test_colour(folder: Path) -> None:
    out = called("diff", "old.yaml", "new.yaml", cwd=folder, FORCE_COLOR="1").out
    assert "\x1b[33m" in out


@pytest.mark.skipif(NO_GIT, reason="git is not installed")
def test_since_the_last_commit(repository: Path) -> None:
    code, out, err = called("diff", "old.yaml", cwd=repository)
    assert (code, err) == (0, "")
    assert out.startswith("HEAD:./old.yaml -> old.yaml\n")
    assert "out_channels 5 -> 6" in out


@pytest.mark.skipif(NO_GIT, reason="git is not installed")
@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["old.yaml", "--since", "HEAD~1"], "out_channels 4 -> 6"),
        (["HEAD~1:old.yaml", "old.yaml"], "out_channels 4 -> 6"),
        (["HEAD~1:old.yaml", "HEAD:old.yaml"], "out_channels 4 -> 5"),
        (["main:old.yaml", ":old.yaml"], "no difference"),
        (["old.yaml", "HEAD:./old.yaml"], "out_channels 6 -> 5"),
        (["old.yaml", "--variant", "wide"], "no difference"),
        (["old.yaml", "--since", "HEAD~1", "--variant-b", "wide"], "out_channels 4 -> 8"),
    ],
)
def test_revisions(arguments: list[str], shown: str, repository: Path) -> None:
    code, out, err = called("diff", *arguments, cwd=repository)
    assert (code, err) == (0, "")
    assert shown in out


@pytest.mark.skipif(NO_GIT, reason="git is not installed")
def test_an_absolute_path_and_a_folder_below(repository: Path) -> None:
    (repository / "below").mkdir()
    for path in (str(repository / "old.yaml"), "../old.yaml"):
        code, out, err = called("diff", path, cwd=repository / "below")
        assert (code, err) == (0, "")
        assert "out_channels 5 -> 6" in out


WRONG: dict[str, tuple[str, str]] = {
    "diff": ("A is missing", "`cnnspec diff --help` shows how"),
    "diff old.yaml new.yaml --since main": (
        "--since compares a file with an earlier one of it, so there is no second network",
        "name the earlier one: `cnnspec diff main:PATH new.yaml`",
    ),
    "diff HEAD:old.yaml": ("B is missing", "`cnnspec diff --help` shows how"),
    "diff vgg16": (
        "`vgg16` is bundled with cnnspec and has no history here",
        "name a second network, or a file",
    ),
    "diff vgg61": ("there is no file and no bundled spec `vgg61`", "did you mean `vgg16`?"),
    "diff old.yaml --since mian": ("there is no revision `mian`", "did you mean `main`?"),
    "diff new.yaml": ("there is no file `HEAD:./new.yaml`", ""),
    "diff HEAD:odl.yaml old.yaml": (
        "there is no file `HEAD:odl.yaml`",
        "did you mean `HEAD:old.yaml`?",
    ),
    "diff old.yaml new.yaml --variant wid": (
        "`old.yaml` has no variant `wid`",
        "did you mean `wide`?",
    ),
    "diff old.yaml new.yaml --depth 2 --format json": (
        "--depth is for people, and json shows all",
        "",
    ),
}


@pytest.mark.skipif(NO_GIT, reason="git is not installed")
@pytest.mark.parametrize("typed", WRONG)
def test_wrong_usage(
    typed: str,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    message, help = WRONG[typed]
    monkeypatch.chdir(repository)
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    code = main(typed.split(" "))
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"error: {message}", *([f"help: {help}"] if help else [])]


def test_without_a_repository(folder: Path) -> None:
    code, out, err = called("diff", "old.yaml", cwd=folder, GIT_CEILING_DIRECTORIES=str(folder))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "git" in err
