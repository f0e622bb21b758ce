"""The wheel: what is in it, that it runs where nothing else is, and what it asks for where."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--target", folder, wheel, cwd=folder)
    return folder


def test_the_wheel_has_all_it_needs(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cnnspec").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names >= sources
    assert "cnnspec/py.typed" in names
    assert any(name.startswith("cnnspec/explain/") for name in names)
    specs = {f"cnnspec/specs/{path.name}" for path in (ROOT / "specs").glob("*.yaml")}
    assert specs
    assert names >= specs
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    strangers = {name.split("/")[0] for name in names} - {"cnnspec"}
    assert all(name.endswith(".dist-info") for name in strangers)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert "\nName: cnnspec\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata


def test_the_wheel_runs_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    alone = {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1"}
    where = run(
        sys.executable, "-P", "-c", "import cnnspec; print(cnnspec.__file__)", cwd=tmp_path, **alone
    )
    assert Path(where.strip()).is_relative_to(installed)
    command = (sys.executable, "-m", "cnnspec")
    assert run(*command, "analyze", "vgg16", cwd=tmp_path, **alone).startswith("vgg16  3x224x224")
    assert "138,357,544" in run(*command, "analyze", "vgg16", cwd=tmp_path, **alone)
    assert "no errors" in run(*command, "check", "vgg16", "resnet101", cwd=tmp_path, **alone)
    assert run(*command, "explain", "concat-shape", cwd=tmp_path, **alone).startswith("# ")
    assert run(*command, "schema", cwd=tmp_path, **alone).startswith("{")
    assert list(tmp_path.iterdir()) == []


def test_the_wheel_takes_the_bundled_specs_from_itself(installed: Path, tmp_path: Path) -> None:
    program = (
        "from cnnspec.frontend.load import bundled_specs;"
        "print(*{path.parent for path in bundled_specs().values()}, sep='\\n')"
    )
    found = run(sys.executable, "-P", "-c", program, cwd=tmp_path, PYTHONPATH=str(installed))
    assert found.strip() == str(installed / "cnnspec" / "specs")


def test_the_command_is_installed(installed: Path, tmp_path: Path) -> None:
    script = installed / ("Scripts/cnnspec.exe" if os.name == "nt" else "bin/cnnspec")
    shown = run(script, "--version", cwd=tmp_path, PYTHONPATH=str(installed))
    assert shown.startswith("cnnspec ")


MACHINES: Mapping[str, tuple[dict[str, str], str]] = {
    "Linux x86_64": (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
        "onnxruntime-gpu",
    ),
    "Linux aarch64": (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
        "onnxruntime",
    ),
    "Windows AMD64": (
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
        "onnxruntime-gpu",
    ),
    "Windows ARM64": (
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "ARM64"},
        "onnxruntime",
    ),
    "macOS arm64": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
        "onnxruntime",
    ),
    "macOS x86_64": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "x86_64"},
        "onnxruntime",
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_each_machine_gets_one_onnxruntime(machine: str) -> None:
    environment, expected = MACHINES[machine]
    requirements = map(Requirement, PROJECT["project"]["dependencies"])
    wanted = [
        requirement.name
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    assert [name for name in wanted if name.startswith("onnxruntime")] == [expected]
    assert {"pyyaml", "jsonschema", "rich", "numpy", "safetensors", "torch", "onnx"} <= set(wanted)


def test_what_tests_ran_with_satisfies_what_is_asked_for() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {
        requirement.name.lower(): next(iter(requirement.specifier)).version
        for line in lines
        if (text := line.partition("#")[0].strip())
        for requirement in [Requirement(text)]
    }
    for requirement in map(Requirement, PROJECT["project"]["dependencies"]):
        if requirement.name in pinned:
            assert requirement.specifier.contains(pinned[requirement.name], prereleases=True)
    assert pinned["torch"].startswith("2.13.0")
