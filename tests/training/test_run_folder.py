"""The folder of a run: made whole, claimed by one process, refused where it is something else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.recipe.read import read_recipe
from cnnspec.training.runs import run_folder
from cnnspec.training.runs.run_folder import RunFolder, abandon, claimed, is_run

ROOT = Path(__file__).parents[2]
SPEC = "cnnspec: 1\nname: net\n"
FACTS = {"seed": 3, "fingerprint": "ab", "versions": {"torch": "2.13.0"}}


@pytest.fixture
def recipe() -> Recipe:
    return read_recipe("digits").recipe


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE", 0.2)


def create(path: Path, recipe: Recipe) -> RunFolder:
    with claimed(path):
        return RunFolder.create(path, spec=SPEC, recipe=recipe, facts=FACTS)


def test_what_is_created_is_what_is_opened(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "runs" / "net-1"
    made = create(path, recipe)
    found = RunFolder.open(path)
    assert (found.spec, found.recipe, found.facts) == (SPEC, recipe, made.facts)
    assert {key: found.facts[key] for key in FACTS} == FACTS
    assert sorted(os.listdir(path)) == [
        ".lock", "checkpoints", "recipe.yaml", "run.json", "spec.yaml"
    ]  # fmt: skip
    assert not found.finished
    found.weights.touch()
    assert found.finished


def test_a_run_is_the_same_elsewhere_and_another_one_is_not(tmp_path: Path, recipe: Recipe) -> None:
    made = create(tmp_path / "one", recipe)
    (tmp_path / "one").rename(tmp_path / "moved")
    assert RunFolder.open(tmp_path / "moved").identity == made.identity
    assert create(tmp_path / "two", recipe).identity == made.identity
    assert create(tmp_path / "other", replace(recipe, seed=1)).identity != made.identity


def test_a_run_is_not_begun_twice(tmp_path: Path, recipe: Recipe) -> None:
    create(tmp_path / "run", recipe)
    with pytest.raises(EnvironmentFailure, match="holds a run already") as failure:
        create(tmp_path / "run", recipe)
    assert "--resume" in failure.value.help


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="is not there"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(EnvironmentFailure, match=r"is no run of cnnspec: it has no `run\.json`"):
        RunFolder.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match="is no folder"):
        RunFolder.open(tmp_path / "file")
    with pytest.raises(EnvironmentFailure, match="is no folder"), claimed(tmp_path / "file"):
        pass


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    holds = pytest.raises(EnvironmentFailure, match=r"not empty: it holds `thesis\.tex`")
    with holds, claimed(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["spec.yaml", "recipe.yaml"])
def test_texts_of_a_run_that_were_edited(name: str, tmp_path: Path, recipe: Recipe) -> None:
    create(tmp_path / "run", recipe)
    with (tmp_path / "run" / name).open("a") as file:
        file.write("# more\n")
    with pytest.raises(EnvironmentFailure, match=f"{name}` was changed since the run was begun"):
        RunFolder.open(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"format": 2}', '"x"', "\xff"])
def test_damaged_facts(text: str, tmp_path: Path, recipe: Recipe) -> None:
    create(tmp_path / "run", recipe)
    (tmp_path / "run" / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(EnvironmentFailure, match=r"damaged|another version"):
        RunFolder.open(tmp_path / "run")


def test_odd_facts(tmp_path: Path, recipe: Recipe) -> None:
    create(tmp_path / "run", recipe)
    for files in (None, [], {}, {"spec.yaml": 1}):
        (tmp_path / "run" / "run.json").write_text(json.dumps({"format": 1, "files": files}))
        with pytest.raises(EnvironmentFailure, match="was changed since the run was begun"):
            RunFolder.open(tmp_path / "run")


# ------------------------------------------------------------------------------------ claims

HOLDS = """
import os, sys, time
from cnnspec.training.runs.run_folder import claimed
with claimed(sys.argv[1]):
    child = os.fork() if "fork" in sys.argv else 1
    if child:
        print(os.getpid(), child, flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_run_that_another_process_trains(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        assert process.stdout is not None
        number = process.stdout.readline().split()[0]
        busy = pytest.raises(EnvironmentFailure, match=f"is being trained by process {number}")
        with busy, claimed(tmp_path / "run"):
            pass
        process.kill()
        process.wait()
        with claimed(tmp_path / "run"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_workers_of_a_killed_run_do_not_hold_it(tmp_path: Path) -> None:
    with holder(tmp_path / "run", "fork") as process:
        assert process.stdout is not None
        child = int(process.stdout.readline().split()[1])
        try:
            process.kill()
            process.wait()
            os.kill(child, 0)  # it lives
            with claimed(tmp_path / "run"):
                pass
        finally:
            os.kill(child, 9)


def test_a_run_that_ends_within_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "_PATIENCE", 20.0)
    monkeypatch.setattr("time.sleep", lambda _: process.kill())
    with holder(tmp_path / "run") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with claimed(tmp_path / "run"):
            pass


def test_a_claim_that_came_to_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), claimed(tmp_path / "runs" / "a"):
        raise ZeroDivisionError
    assert not (tmp_path / "runs" / "a").exists()
    (tmp_path / "mine").mkdir()
    with claimed(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("left", [None, "checkpoints/last.pt", "metrics.jsonl"])
def test_a_run_that_came_to_nothing_is_taken_back(
    left: str | None, tmp_path: Path, recipe: Recipe
) -> None:
    path = tmp_path / "run"
    with claimed(path):
        run = RunFolder.create(path, spec=SPEC, recipe=recipe, facts=FACTS)
        for figures in (run.metrics_csv, run.metrics_jsonl):
            figures.touch()
        if left is not None:
            (path / left).write_text("{}", encoding="utf-8")
        abandon(run)
    assert path.exists() == is_run(path) == (left is not None)


# ------------------------------------------------------------------------------------ kills

BEGINS = """
import os, signal, sys
from pathlib import Path
from cnnspec.training.recipe.read import read_recipe
from cnnspec.training.runs.run_folder import RunFolder, claimed
recipe = read_recipe("digits").recipe
calls, limit, armed = 0, 0, False

def event(name, arguments):
    global calls
    if armed and name in ("open", "os.mkdir", "os.rename", "os.remove"):
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(event)
RunFolder  # what is imported late is imported by a first run
for number in range(1000):
    path = Path(sys.argv[1]) / str(number)
    child = os.fork()
    if not child:
        armed, limit = number > 0, number
        with claimed(path):
            RunFolder.create(path, spec="cnnspec: 1\\n", recipe=recipe, facts={})
        os._exit(0)
    if os.WIFEXITED(os.waitpid(child, 0)[1]) and number:
        break
print(number)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_run_killed_while_it_is_begun_is_begun_again(tmp_path: Path, recipe: Recipe) -> None:
    """Before every file that is opened, and every name that is made or changed."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    count = int(done.stdout)
    assert 8 < count < 100
    for number in range(1, count):
        path = tmp_path / str(number)
        with claimed(path):
            assert not is_run(path) or number == count - 1
            if not is_run(path):
                RunFolder.create(path, spec=SPEC, recipe=recipe, facts=FACTS)
        RunFolder.open(path)
        assert not [name for name in os.listdir(path) if name.endswith(".tmp")]


DROPS = """
import os, sys
from pathlib import Path
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.runs.run_folder import claimed
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for name in ("closed", "closed/new"):
    try:
        with claimed(Path(sys.argv[1]) / name):
            print("claimed")
    except EnvironmentFailure as failure:
        print(failure.message.replace(sys.argv[1], "F"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no such modes")
def test_a_folder_that_cannot_be_written() -> None:
    """As a user without rights: root, under whom tests may run, has them all."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "closed").mkdir(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", DROPS, str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        (folder / "closed").chmod(0o755)
        shutil.rmtree(folder)
    assert done.stdout == (
        "`F/closed` cannot be written: permission denied\n"
        "`F/closed/new` cannot be written: permission denied\n"
    ), done.stderr
