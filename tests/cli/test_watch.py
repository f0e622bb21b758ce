"""Watching files: real processes, real writes, as editors do them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnspec.cli.watching import paths_of
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import bundled_specs
from tests.cli.process import environment

PROGRAM = """\
import sys
from cnnspec.__main__ import main
import cnnspec.cli.main as commands
from cnnspec.cli.watching import paths_of, watch
from cnnspec.frontend.load import expand, load_named
from cnnspec.report import analyze

def once():
    loaded, variant = load_named(sys.argv[1])
    report = analyze(expand(loaded, variant=variant))
    print("RAN", report.totals.params, flush=True)
    return report

commands._run = lambda arguments: watch(paths_of(sys.argv[1:]), once)
sys.exit(main())
"""
SPEC = """\
cnnspec: 1
name: net
inputs: {{image: [3, 8, 8]}}
imports: {{b: blocks.yaml}}
layers:
  - Conv2d: {{out_channels: {width}, kernel_size: 1}}
  - b.unit
"""
BLOCKS = """\
cnnspec: 1
blocks:
  unit:
    layers:
      - Linear: {{out_features: {width}}}
"""


class Watcher:
    """A process that watches `net.yaml`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "net.yaml"],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self.shown = ""

    def until(self, wanted: str) -> str:
        """Everything shown up to the end of the next `wanted`, which is then forgotten."""
        assert self.process.stdout is not None
        ends = time.monotonic() + 30
        while wanted not in self.shown:
            assert time.monotonic() < ends, f"no {wanted!r} in {self.shown!r}"
            time.sleep(0.02)
            self.shown += (self.process.stdout.read() or b"").decode()
        before, _, self.shown = self.shown.partition(wanted)
        return before + wanted

    def quiet(self, seconds: float) -> None:
        """Nothing is shown for a while."""
        assert self.process.stdout is not None
        time.sleep(seconds)
        self.shown += (self.process.stdout.read() or b"").decode()
        assert self.shown == ""


def write(folder: Path, name: str, template: str, width: object) -> None:
    """As most editors do: a new file takes the old one's place."""
    draft = folder / f".{name}.new"
    draft.write_text(template.format(width=width), encoding="utf-8")
    draft.replace(folder / name)


@pytest.fixture
def watcher(tmp_path: Path) -> Iterator[Watcher]:
    write(tmp_path, "net.yaml", SPEC, 4)
    write(tmp_path, "blocks.yaml", BLOCKS, 5)
    watcher = Watcher(tmp_path)
    watcher.until("watching 2 files, Ctrl-C ends\n")
    yield watcher
    watcher.process.kill()
    watcher.process.wait()
    assert watcher.process.stdout is not None
    watcher.process.stdout.close()


DONE = "Ctrl-C ends\n"


def test_a_spec_and_what_it_imports(watcher: Watcher) -> None:
    write(watcher.folder, "net.yaml", SPEC, 8)
    shown = watcher.until(DONE)
    assert "RAN 77\n" in shown
    assert "\nparams 61 -> 77 (+26.2%), MACs " in shown
    assert "\x1b" not in shown
    write(watcher.folder, "blocks.yaml", BLOCKS, 6)
    assert "params 77 -> 86 (+11.7%)" in watcher.until(DONE)
    write(watcher.folder, "net.yaml", SPEC + "# a remark\n", 8)
    assert "params, MACs and peak memory as before" in watcher.until(DONE)


def test_a_broken_spec_is_waited_out(watcher: Watcher) -> None:
    write(watcher.folder, "blocks.yaml", BLOCKS, "none")
    shown = watcher.until(DONE)
    assert "--> blocks.yaml:5:" in shown
    assert "watching 2 files" in shown
    write(watcher.folder, "net.yaml", "layers: [", 0)
    assert "error[" in watcher.until(DONE)
    write(watcher.folder, "net.yaml", SPEC, 4)
    watcher.until(DONE)
    write(watcher.folder, "blocks.yaml", BLOCKS, 6)
    assert "params 61 -> 70 " in watcher.until(DONE)


def test_a_file_that_goes_and_comes_back(watcher: Watcher) -> None:
    (watcher.folder / "net.yaml").unlink()
    assert "there is no file `net.yaml`" in watcher.until(DONE)
    write(watcher.folder, "net.yaml", SPEC, 8)
    assert "params 61 -> 77" in watcher.until(DONE)
    (watcher.folder / "blocks.yaml").unlink()
    assert "import-not-found" in watcher.until(DONE)
    write(watcher.folder, "blocks.yaml", BLOCKS, 5)
    assert "RAN 77\n" in watcher.until(DONE)


def test_a_file_that_is_gone_for_a_moment(watcher: Watcher) -> None:
    (watcher.folder / "net.yaml").unlink()
    time.sleep(0.4)
    write(watcher.folder, "net.yaml", SPEC, 8)
    shown = watcher.until(DONE)
    assert "there is no file" not in shown
    assert "RAN 77\n" in shown


def test_a_burst_is_one_change(watcher: Watcher) -> None:
    for width in range(5, 17):
        write(watcher.folder, "net.yaml", SPEC, width)
        time.sleep(0.03)
    shown = watcher.until(DONE)
    assert shown.count("RAN") == 1
    assert "RAN 109\n" in shown
    watcher.quiet(0.8)


def test_other_files_do_not_count(watcher: Watcher) -> None:
    write(watcher.folder, "other.yaml", SPEC, 4)
    watcher.quiet(0.8)


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_in_silence(sent: signal.Signals, code: int, watcher: Watcher) -> None:
    watcher.process.send_signal(sent)
    assert watcher.process.wait(timeout=20) == code
    assert watcher.process.stdout is not None
    assert watcher.process.stdout.read() in (b"", None)


def test_the_files_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths_of(["vgg11"])() == (bundled_specs()["vgg"],)
    write(tmp_path, "net.yaml", SPEC, 4)
    assert paths_of(["net.yaml"])() == (Path("net.yaml"), tmp_path.resolve() / "blocks.yaml")
    assert paths_of(["none.yaml", "none.yaml"])() == (Path("none.yaml"),)
    (tmp_path / "empty").mkdir()
    assert paths_of(["empty"])() == (Path("empty"),)
    find = paths_of(["."])
    assert Path("net.yaml") in find()
    write(tmp_path, "further.yaml", SPEC, 4)
    assert Path("further.yaml") in find()
    with pytest.raises(EnvironmentFailure, match="standard input cannot be watched"):
        paths_of(["net.yaml", "-"])


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_is_cleared(tmp_path: Path) -> None:
    import pty

    write(tmp_path, "net.yaml", SPEC, 4)
    write(tmp_path, "blocks.yaml", BLOCKS, 5)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "net.yaml"],
        cwd=tmp_path,
        env=environment(TERM="xterm"),
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    try:
        while b"ends" not in shown:
            shown += os.read(leader, 10_000)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert shown.startswith(b"\x1b[H\x1b[2J")
