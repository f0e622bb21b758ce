"""Files of states: whole or not there, and never taken for what they are not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, load_model
from torch import nn

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs import checkpoints
from cnnspec.training.runs.checkpoints import (
    LAST,
    PREVIOUS,
    DamagedCheckpoint,
    DiskCheckpointer,
    newest,
    read,
    snapshot,
    sweep,
    write,
    write_weights,
)
from cnnspec.training.watching import EpochFigures

ROOT = Path(__file__).parents[2]


def state(step: int = 1) -> dict[str, Any]:
    return {"step": step, "model": {"weight": torch.full((3, 4), float(step))}}


@dataclass(frozen=True)
class Places:
    """A folder for everything."""

    checkpoints: Path
    identity: str = "this"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def weights(self) -> Path:
        return self.checkpoints / "model.safetensors"


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def same(left: object, right: object) -> bool:
    if isinstance(left, torch.Tensor):
        return (
            isinstance(right, torch.Tensor)
            and (left.dtype, left.shape) == (right.dtype, right.shape)
            and bits(left).equal(bits(right))
        )
    if isinstance(left, Mapping):
        return (
            isinstance(right, Mapping)
            and list(left) == list(right)
            and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, list | tuple):
        return (
            type(left) is type(right)
            and isinstance(right, list | tuple)
            and len(left) == len(right)
            and all(map(same, left, right))
        )
    return type(left) is type(right) and left == right


# ------------------------------------------------------------------------------------ contents


def everything() -> dict[str, Any]:
    weight = torch.randn(3, 4, 2, 2).contiguous(memory_format=torch.channels_last)
    return {
        "plain": {"a": 1, 2: 0.1 + 0.2, "inf": float("inf"), "no": None, "yes": True},
        "nested": [("x", b"\0\xff"), [], {}, ()],
        "weight": weight,
        "tied": weight,
        "types": [torch.tensor(value) for value in (1.5, 3, True)],
        "half": torch.randn(5).bfloat16(),
        "nan": torch.tensor([float("nan"), -0.0]),
        "empty": torch.zeros(0, 3),
        "view": torch.arange(10.0)[2:7:2],
        "parameter": nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(z=1, a=2),
    }


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    given = everything()
    write(tmp_path / LAST, snapshot(given))
    found = read(tmp_path / LAST)
    assert same(found, given)
    assert found["weight"].stride() == given["weight"].stride()
    assert found["weight"].data_ptr() == found["tied"].data_ptr()
    assert sorted(os.listdir(tmp_path)) == [LAST]


def test_any_torch_reads_a_checkpoint_without_us(tmp_path: Path) -> None:
    write(tmp_path / LAST, snapshot(everything()))
    assert same(torch.load(tmp_path / LAST, weights_only=True), read(tmp_path / LAST))
    with ZipFile(tmp_path / LAST) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"cnnspec checkpoint 1, sha256 ")


def test_a_snapshot_does_not_change_any_more() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    copy = snapshot({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(copy["model"]["weight"], before)
    assert not torch.equal(model.weight, before)
    assert copy["optimizer"]["state"] == {}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {"b": object()}]}, "state.a.1.b is a object"),
        ({"a": {1.5: 0}}, r"state.a has the key 1\.5"),
        ({"f": len}, "state.f is a builtin_function"),
        ({"s": {1, 2}}, "state.s is a set"),
    ],
)
def test_what_no_file_can_hold(value: dict[str, Any], place: str) -> None:
    with pytest.raises(TypeError, match=place):
        snapshot(value)


# ------------------------------------------------------------------------------------ two files


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in range(1, 4):
        write(tmp_path / LAST, state(step))
        found = newest(tmp_path)
        assert found is not None
        assert (found.state["step"], found.path, found.notes) == (step, tmp_path / LAST, ())
    assert read(tmp_path / PREVIOUS)["step"] == 2
    assert sorted(os.listdir(tmp_path)) == [LAST, PREVIOUS]


def test_two_names_of_one_file_leave_no_third(tmp_path: Path) -> None:
    """They are what a kill leaves between the change of one name and that of the other."""
    write(tmp_path / LAST, state(1))
    os.link(tmp_path / LAST, tmp_path / PREVIOUS)
    write(tmp_path / LAST, state(2))
    assert sorted(os.listdir(tmp_path)) == [LAST, PREVIOUS]
    assert [read(tmp_path / name)["step"] for name in (LAST, PREVIOUS)] == [2, 1]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with DiskCheckpointer(Places(tmp_path, "one")) as checkpointer:
        checkpointer.save(state(1))
    found = newest(tmp_path, "one")
    assert found is not None
    assert found.state["step"] == 1
    with pytest.raises(EnvironmentFailure, match="is a checkpoint of another run"):
        newest(tmp_path, "other")


def test_without_links_the_one_before_is_kept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    write(tmp_path / LAST, state(1))
    write(tmp_path / LAST, state(2))
    assert (read(tmp_path / LAST)["step"], read(tmp_path / PREVIOUS)["step"]) == (2, 1)
    assert sorted(os.listdir(tmp_path)) == [LAST, PREVIOUS]


def test_a_damaged_one_is_passed_over_and_said(tmp_path: Path) -> None:
    write(tmp_path / LAST, state(1))
    write(tmp_path / LAST, state(2))
    flip(tmp_path / LAST, 300, 0)
    found = newest(tmp_path)
    assert found is not None
    assert (found.state["step"], found.path) == (1, tmp_path / PREVIOUS)
    assert found.notes == (
        f"`{tmp_path / LAST}` is damaged: it ends too early, or some of it is not what was written",
        f"training goes on from `{tmp_path / PREVIOUS}`, the checkpoint before it",
    )


def test_a_damaged_one_never_takes_the_place_of_the_whole_one(tmp_path: Path) -> None:
    write(tmp_path / LAST, state(1))
    write(tmp_path / LAST, state(2))
    flip(tmp_path / LAST, 300, 0)
    with DiskCheckpointer(Places(tmp_path)) as checkpointer:
        checkpointer.save(state(3))
        checkpointer.settle()
        assert read(tmp_path / PREVIOUS)["step"] == 1
        checkpointer.save(state(4))
    assert (read(tmp_path / LAST)["step"], read(tmp_path / PREVIOUS)["step"]) == (4, 3)


def test_the_last_one_gone(tmp_path: Path) -> None:
    write(tmp_path / LAST, state(1))
    (tmp_path / LAST).rename(tmp_path / PREVIOUS)
    found = newest(tmp_path)
    assert found is not None
    assert found.state["step"] == 1
    assert found.notes[0].startswith(f"there is no `{tmp_path / LAST}`: training goes on from")


def test_both_damaged(tmp_path: Path) -> None:
    write(tmp_path / LAST, state(1))
    write(tmp_path / LAST, state(2))
    flip(tmp_path / LAST, 300, 0)
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match=r"no checkpoint in .* is whole"):
        newest(tmp_path)


# ------------------------------------------------------------------------------------ damage


def flip(path: Path, byte: int, bit: int) -> None:
    with path.open("rb+") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ (1 << bit)]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / LAST
    write(path, state())
    return path.read_bytes()


def refused(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        read(path)
    except DamagedCheckpoint:
        return True
    return False


def test_every_bit_counts(whole: bytes, tmp_path: Path) -> None:
    """One bit of every byte, and every bit of the archive's end and of the digest."""
    path = tmp_path / LAST
    assert not refused(path, whole)
    bits = [(byte, byte % 8) for byte in range(len(whole) - 130)]
    bits += [(byte, bit) for byte in range(len(whole) - 130, len(whole)) for bit in range(8)]
    for byte, bit in bits:
        data = bytearray(whole)
        data[byte] ^= 1 << bit
        assert refused(path, bytes(data)), (byte, bit)


def test_every_length_but_one_is_refused(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / LAST
    for size in range(len(whole)):
        assert refused(path, whole[:size]), size
    assert refused(path, whole + b"\0")
    assert refused(path, whole + whole)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_damage_is_found(whole: bytes, data: st.DataObject) -> None:
    """Ranges overwritten, dropped, doubled or swapped: whatever differs is refused."""
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    piece = data.draw(
        st.one_of(
            st.binary(max_size=40), st.just(bytes(end - start)), st.just(whole[start:end] * 2)
        )
    )
    damaged = whole[:start] + piece + whole[end:]
    path = ROOT / "never"
    with pytest.MonkeyPatch.context() as patch:
        # No file for each example: what is judged is the content.
        patch.setattr(Path, "open", lambda *_: Opened(damaged))
        patch.setattr(os, "fstat", lambda number: number)
        assert checkpoints._is_whole(path) == (damaged == whole)


class Opened:
    """A file in memory, as far as `_is_whole` asks."""

    def __init__(self, data: bytes) -> None:
        from io import BytesIO

        self._file = BytesIO(data)
        self.st_size = len(data)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def fileno(self) -> Opened:
        return self

    def seek(self, place: int) -> None:
        self._file.seek(place)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / LAST
    torch.save(state(), path)
    with pytest.raises(DamagedCheckpoint):
        read(path)
    with pytest.raises(EnvironmentFailure, match="no such file"):
        read(tmp_path / "none.pt")


# ------------------------------------------------------------------------------------ the thread


def test_training_goes_on_while_a_state_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file holds what the state was at `save`, whatever became of the tensors since."""
    go = threading.Event()
    saved: list[str] = []
    fill = checkpoints._fill

    def slow(*arguments: Any) -> None:
        assert go.wait(10)
        fill(*arguments)

    monkeypatch.setattr(checkpoints, "_fill", slow)
    weight = torch.ones(4)
    with DiskCheckpointer(Places(tmp_path), saved.append) as checkpointer:
        checkpointer.save({"weight": weight})
        weight.mul_(5)
        assert saved == []
        assert newest(tmp_path) is None
        go.set()
    assert saved == [str(tmp_path / LAST)]
    assert torch.equal(read(tmp_path / LAST)["weight"], torch.ones(4))


def test_what_goes_wrong_in_the_thread_is_raised_later(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()

    def training() -> None:
        with DiskCheckpointer(Places(folder)) as checkpointer:
            checkpointer.save(state(1))
            checkpointer.settle()
            shutil.rmtree(folder)
            for step in range(2, 5):
                checkpointer.save(state(step))
            pytest.fail("the second of them has to be told of the first")

    with pytest.raises(EnvironmentFailure, match="cannot be written: no such file"):
        training()


def test_what_stops_training_is_not_hidden_by_what_could_not_be_written(tmp_path: Path) -> None:
    def training() -> None:
        with DiskCheckpointer(Places(tmp_path / "none")) as checkpointer:
            checkpointer.save(state(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        training()


def test_the_final_weights_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = checkpoints._fill

    def checked(*arguments: Any) -> None:
        time.sleep(0.05)
        assert not (tmp_path / "model.safetensors").exists()
        fill(*arguments)

    monkeypatch.setattr(checkpoints, "_fill", checked)
    weight = torch.ones(2)
    figures = EpochFigures(3, 9, 40, 0.5, None, {"top1": 0.75}, 0.1, 1.0, 1.0, 0)
    ends: list[bool] = []

    def finishing() -> None:
        ends.append((tmp_path / LAST).exists() and not (tmp_path / "model.safetensors").exists())

    with DiskCheckpointer(Places(tmp_path), finishing=finishing) as checkpointer:
        checkpointer.save_best({"w": weight}, figures)
        checkpointer.save({"w": weight})
        weight.mul_(3)
        checkpointer.save_final({"w": weight})
        assert torch.equal(load_file(tmp_path / "model.safetensors")["w"], weight)
        assert newest(tmp_path) is not None
    assert ends == [True]
    with safe_open(tmp_path / "best.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["cnnspec"]) == {"epoch": 4, "held_out": {"top1": 0.75}}
        assert torch.equal(file.get_tensor("w"), torch.ones(2))


def test_drafts_of_killed_processes_go(tmp_path: Path) -> None:
    write(tmp_path / LAST, state(1))
    (tmp_path / ".last.pt.0a1b2c3d.tmp").write_bytes(b"half")
    (tmp_path / "mine.tmp").write_bytes(b"other")
    assert newest(tmp_path) is not None
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [LAST, "mine.tmp"]


# ------------------------------------------------------------------------------------ real trouble


def python(code: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


WRITES = """
import sys, torch
from pathlib import Path
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs.checkpoints import DiskCheckpointer, newest, write
from tests.training.test_checkpoints import Places
folder = Path(sys.argv[1])
{before}
for size in (1000, 300_000, 3_000_000):
    try:
        with DiskCheckpointer(Places(folder)) as checkpointer:
            checkpointer.save({{"step": 2, "weight": torch.ones(size)}})
        print("written")
    except EnvironmentFailure as failure:
        print(failure.message.replace(f"{{folder}}/", "F/"), "|", failure.help)
print(newest(folder).state["step"], sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """Whatever part of the file it is that does not fit."""
    write(tmp_path / LAST, state(1))
    code = WRITES.replace("(1000, 300_000, 3_000_000)", "(300_000, 3_000_000)").format(
        before="import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, 900_000))"
    )
    done = python(code, tmp_path)
    said = (
        "`F/last.pt` cannot be written: file too large | "
        "the checkpoint before it is whole: mend this, then go on with --resume\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"{said * 2}1 ['last.pt']\n", "", 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
@pytest.mark.parametrize("elements", [0, 10, 100_000, 3_000_000])
def test_no_space_left_is_found_wherever_it_strikes(elements: int, tmp_path: Path) -> None:
    """`/dev/full` refuses the first byte; `torch.save` must not end the process over it."""
    with pytest.raises(EnvironmentFailure, match="cannot be written: no space left on device"):
        checkpoints._fill(Path("/dev/full"), {"w": torch.zeros(elements)}, tmp_path / LAST)


DROP = """
import os
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such modes")
def test_a_folder_that_cannot_be_written() -> None:
    """As a user without rights: root, under whom tests may run, has them all."""
    folder = Path(tempfile.mkdtemp())
    write(folder / LAST, state(1))
    folder.chmod(0o555)
    code = WRITES.replace("(1000, 300_000, 3_000_000)", "(1000,)").format(before=DROP)
    try:
        done = python(code, folder)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
    assert done.stdout == (
        "`F/last.pt` cannot be written: permission denied | "
        "the checkpoint before it is whole: mend this, then go on with --resume\n"
        "1 ['last.pt']\n"
    ), done.stderr


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from cnnspec.training.runs import checkpoints
folder, at = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def maybe(function):
    def called(*arguments, **named):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return called

checkpoints._Hashing._put = maybe(checkpoints._Hashing._put)
for name in ("fsync", "link", "open"):
    setattr(os, name, maybe(getattr(os, name)))
Path.replace = maybe(Path.replace)
for step in (1, 2, 3):
    checkpoints.write(folder / "last.pt", {"step": step, "weight": torch.full((9,), float(step))})
    print(step, calls, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_at_every_point_of_a_write(tmp_path: Path) -> None:
    """Before every piece that is written, every wait for the disk and every change of a name."""
    (tmp_path / "all").mkdir()
    done = python(KILLED, tmp_path / "all", 0)
    calls = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(calls) == 3, done.stderr
    # The third write, which has both files to lose; forks are much quicker than new processes.
    script = KILLED.replace("int(sys.argv[2])", "0").replace(
        "for step in (1, 2, 3)", "for step in ()"
    )
    fork = script + (
        f"\nfor at in range({calls[1]} + 1, {calls[2]} + 1):\n"
        "    place = folder / str(at)\n"
        "    place.mkdir()\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        for step in (1, 2, 3):\n"
        "            checkpoints.write(place / 'last.pt', "
        "{'step': step, 'weight': torch.full((9,), float(step))})\n"
        "        os._exit(1)\n"
        "    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL\n"
    )
    fork = fork.replace("    if not child:\n", "    if not child:\n        calls = 0\n")
    done = python(fork, tmp_path)
    assert done.returncode == 0, done.stderr
    folders = [path for path in tmp_path.iterdir() if path.name != "all"]
    assert len(folders) == calls[2] - calls[1]
    steps = set()
    for folder in folders:
        found = newest(folder)
        assert found is not None
        assert found.notes == (), folder.name
        assert torch.equal(found.state["weight"], torch.full((9,), float(found.state["step"])))
        steps.add(found.state["step"])
        sweep(folder)
        assert set(os.listdir(folder)) == {LAST, PREVIOUS}
        read(folder / PREVIOUS)
    assert steps == {2, 3}


# ------------------------------------------------------------------------------------ weights


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.conv = nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last)


def test_weights_are_contiguous_and_shared_ones_there_once(tmp_path: Path) -> None:
    model, path = Tied(), tmp_path / "model.safetensors"
    write_weights(path, model.state_dict(), {"cnnspec": "{}"})
    write_weights(path, model.state_dict(), {"cnnspec": "{}"})
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
    found = load_file(path)
    assert set(found) == set(model.state_dict()) - {"second.weight"}
    other = Tied()
    assert load_model(other, path) == (set(), [])
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_weights_that_cannot_be_written_leave_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, {"w": torch.ones(2)}, {})
    with pytest.raises(EnvironmentFailure, match="cannot be written"):
        write_weights(tmp_path / "none" / "model.safetensors", {"w": torch.ones(2)}, {})
    assert torch.equal(load_file(path)["w"], torch.ones(2))
