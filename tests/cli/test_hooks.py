"""The hooks for pre-commit: its file, and what their entries do when they are run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.process import ROOT, environment

HOOKS = {
    hook["id"]: hook
    for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
}
GOOD = "cnnspec: 1\nname: good\ninputs: {image: [3, 8, 8]}\nlayers: [ReLU]\n"


def hook(identifier: str, folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Run a hook as pre-commit does: its entry, and the files after it."""
    command, *arguments = shlex.split(HOOKS[identifier]["entry"])
    assert command == "cnnspec"
    return subprocess.run(
        [sys.executable, "-m", "cnnspec", *arguments, *files],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = {
        "good.yaml": GOOD,
        "bad.yaml": GOOD.replace("ReLU", "ReLu"),
        "loose.yaml": GOOD.replace(": 1", ":  1"),
        "compose.yaml": "services:  {web: !tag x}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_file() -> None:
    assert set(HOOKS) == {"cnnspec-check", "cnnspec-fmt"}
    for given in HOOKS.values():
        assert set(given) == {"id", "name", "description", "entry", "language", "types"}
        assert given["language"] == "python"
        assert given["types"] == ["yaml"]


def test_check(folder: Path) -> None:
    fine = hook("cnnspec-check", folder, "good.yaml", "loose.yaml", "compose.yaml")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout == "2 specs, 2 networks: no errors\n"
    wrong = hook("cnnspec-check", folder, "bad.yaml", "compose.yaml")
    assert wrong.returncode == 1
    assert "bad.yaml:4:10" in wrong.stdout


def test_fmt(folder: Path) -> None:
    done = hook("cnnspec-fmt", folder, "good.yaml", "loose.yaml", "compose.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "changed loose.yaml\n1 file changed, 1 file left as it is\n"
    assert (folder / "loose.yaml").read_text(encoding="utf-8") == GOOD
    assert (folder / "compose.yaml").read_text(encoding="utf-8").startswith("services:  ")
