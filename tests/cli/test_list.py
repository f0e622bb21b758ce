"""`list`: every network by a name that `analyze` takes, with the figures that `analyze` gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cnnspec import load
from cnnspec.cli import progress
from cnnspec.frontend.load import bundled_names, load_text, locate
from cnnspec.report.catalogue import about, bundled_networks, networks_of
from tests.cli.inside import called
from tests.cli.process import ROOT
from tests.zoo.networks import EVERY

KEYS = ["name", "spec", "variant", "params", "macs", "inputs", "about"]
SPEC = """\
cnnspec: 1
name: tiny
params: {width: int = 4}
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: width, kernel_size: 3}
variants:
  wide: {width: 8}
  also_wide: wide
"""


def test_names_are_those_that_analyze_takes() -> None:
    found = list(bundled_networks())
    assert max(Counter(one.name for one in found).values()) == 1
    for one in found:
        located = locate(one.name)
        assert located is not None
        assert (located[0].stem, located[1]) == (one.spec, one.variant)
    every = {locate(name) for name, _, _ in bundled_names()}
    aliases = {(path, variant) for _, path, variant in bundled_names()}
    assert every <= aliases


def test_the_first_of_a_name_is_what_it_means() -> None:
    meant: dict[str, tuple[Path, str | None]] = {}
    for name, path, variant in bundled_names():
        meant.setdefault(name, (path, variant))
    assert {name: locate(name) for name in meant} == meant


def test_json() -> None:
    code, out, err = called("list", "--format", "json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert len(document) == len(EVERY)
    assert all(list(one) == KEYS for one in document)
    of = {one["name"]: one for one in document}
    for name in ("vgg16", "resnet101", "resnet", "lenet5_table"):
        totals = load(name).analyze().totals
        assert (of[name]["params"], of[name]["macs"]) == (totals.params, totals.macs)
    assert of["resnet50"]["spec"] == "resnet50"
    assert of["resnet101"] == {
        "name": "resnet101",
        "spec": "resnet",
        "variant": "resnet101",
        "params": 44_549_160,
        "macs": 7_801_405_440,
        "inputs": {"image": [3, 224, 224]},
        "about": "ResNet (He et al., CVPR 2016) and Wide ResNet (Zagoruyko & Komodakis, "
        "BMVC 2016), with torchvision's keys",
    }


def test_the_table() -> None:
    code, out, err = called("list", "resnet18", "vgg")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["name", "params", "MACs", "input"]
    assert lines[1].split()[:2] == ["resnet18", "ResNet"]
    assert lines[2].split() == [
        "resnet18",
        "11,689,512",
        "11.7",
        "M",
        "1,814,073,344",
        "1.81",
        "G",
        "3x224x224",
    ]
    assert lines[3].split()[:2] == ["vgg", "VGG"]
    assert lines[4].split()[:2] == ["vgg16", "138,357,544"]
    assert not any(line != line.rstrip() for line in lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("given", ["nets/tiny.yaml", "nets", "./nets/"])
def test_files_and_folders(given: str, folder: Path) -> None:
    document = json.loads(called("list", given, "--format", "json", cwd=folder).out)
    spec = str(Path("nets/tiny.yaml"))
    both = {"inputs": {"image": [3, 8, 8]}, "about": ""}
    assert document == [
        {"name": "tiny", "spec": spec, "variant": None, "params": 112, "macs": 3888, **both},
        {"name": "wide", "spec": spec, "variant": "wide", "params": 224, "macs": 7776, **both},
    ]


def test_a_folder_of_a_bundled_name(folder: Path) -> None:
    (folder / "vgg").mkdir()
    assert "vgg16" in called("list", "vgg", cwd=folder).out


def test_what_is_not_there(folder: Path) -> None:
    (folder / "empty").mkdir()
    code, out, err = called("list", "empty", cwd=folder)
    assert (code, out, err) == (2, "", "error: there is no network in `empty`\n")
    blocks = "cnnspec: 1\nblocks:\n  b:\n    layers: [ReLU]\n"
    (folder / "blocks.yaml").write_text(blocks, encoding="utf-8")
    code, out, err = called("list", "blocks.yaml", cwd=folder)
    assert (code, out) == (2, "")
    assert err == "error: there is no network in `blocks.yaml`\n"
    (folder / "bad.yaml").write_text(SPEC.replace("Conv2d", "Conv2"), encoding="utf-8")
    assert called("list", "bad.yaml", cwd=folder).code == 1
    assert called("list", "none.yaml", cwd=folder).code == 2


def test_a_spec_with_a_mistake_hides_no_other(folder: Path) -> None:
    (folder / "bad.yaml").write_text(SPEC.replace("Conv2d", "Conv2"), encoding="utf-8")
    alone = called("list", "nets", cwd=folder).out
    code, out, err = called("list", "bad.yaml", "nets", cwd=folder)
    assert (code, out) == (1, alone)
    assert err.startswith("error[unknown-operation]")
    code, out, err = called("list", "none.yaml", "bad.yaml", "nets", cwd=folder)
    assert (code, out) == (2, alone)
    assert "error: there is no file `none.yaml`" in err


def test_blocks_in_a_folder_are_passed_over(folder: Path) -> None:
    blocks = "cnnspec: 1\nblocks:\n  b:\n    layers: [ReLU]\n"
    (folder / "nets" / "blocks.yaml").write_text(blocks, encoding="utf-8")
    assert len(json.loads(called("list", "nets", "--format", "json", cwd=folder).out)) == 2


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_progress_is_for_terminals(folder: Path) -> None:
    import pty

    program = (
        "import sys; from cnnspec.cli import progress; progress._QUIET = 0.0;"
        "from cnnspec.cli.main import main; sys.exit(main(['list', 'nets']))"
    )
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=follower,
        timeout=60,
        check=True,
    )
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "1 of 2 networks" in shown
    assert shown.endswith("\r\x1b[K")
    assert done.stdout.decode().count("\n") == 4


def test_progress_waits() -> None:
    assert progress._QUIET >= 1
    assert called("list", "vgg").err == ""


def test_listings_of_names() -> None:
    assert [one.variant for one in networks_of(["vgg11"])] == ["vgg11"]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            "# A net (Doe et al., Proc. X 1998: 3), with keys: more\n",
            "A net (Doe et al., Proc. X 1998: 3), with keys",
        ),
        ("# One clause\n# over two lines. More.\n", "One clause over two lines"),
        ("# v1.5 of a net\n", "v1.5 of a net"),
        ("\n# too late\n", ""),
        ("", ""),
    ],
)
def test_what_a_file_says_of_itself(header: str, said: str) -> None:
    assert about(load_text(header + SPEC)) == said


def test_every_bundled_file_says_what_it_is() -> None:
    for one in bundled_networks():
        assert 3 < len(about(one.loaded)) < 140, one.spec
