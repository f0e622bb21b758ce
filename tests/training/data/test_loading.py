"""Batches: the same whatever reads them, from any step on, and ends that are clean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data import loading
from cnnspec.training.data.in_memory import ArraySamples
from cnnspec.training.data.loading import Loader
from cnnspec.training.data.samples import Batch
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.recipe.model import Data
from tests.training.data.pictures import class_folders, to

PLAIN = {"seed": 5, "batch_size": 8, "shuffle": True, "preparation": to(3, 8, 8)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("data"), {"ant": 11, "bee": 9})


@pytest.fixture
def images(folder):
    dataset = open_dataset(
        Data(source="images", path=str(folder), hold_out=0), shape=(3, 8, 8), seed=0, classes=2
    )
    return dataset.train


@pytest.fixture(scope="module")
def digits():
    return open_dataset(Data(source="digits"), shape=(1, 8, 8), seed=0, classes=10)


def same(some: Iterator[Batch], others: Iterator[Batch]) -> int:
    count = 0
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.samples, other.samples)
        count += 1
    return count


# ------------------------------------------------------------------------------ what batches are


def test_batches_for_training_are_bytes_of_the_samples_in_their_order(images):
    loader = Loader(images, **PLAIN)
    batches = list(loader.epoch(0))
    assert [len(batch.samples) for batch in batches] == [8, 8, 4]
    assert [loader.count(step) for step in range(loader.steps)] == [8, 8, 4]
    assert sorted(n for batch in batches for n in batch.samples.tolist()) == list(range(20))
    prepare = replace(PLAIN["preparation"], dtype="uint8")
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.targets.dtype == batch.samples.dtype == torch.int64
        for pixels, target, number in zip(
            batch.images, batch.targets, batch.samples.tolist(), strict=True
        ):
            image, said = images.read(number, "RGB")
            assert np.array_equal(pixels.numpy(), prepare(image))
            assert target == said == (0 if number < 11 else 1)


def test_batches_for_evaluation_are_what_the_preparation_gives(images):
    prepare = to(3, 8, 8, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    loader = Loader(images, seed=5, batch_size=8, shuffle=False, preparation=prepare, workers=0)
    batches = list(loader.epoch(0))
    assert [n for batch in batches for n in batch.samples.tolist()] == list(range(20))
    found = torch.cat([batch.images for batch in batches])
    expected = np.stack([prepare(images.read(number, "RGB")[0]) for number in range(20)])
    assert np.array_equal(found.numpy(), expected)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("shuffle", [True, False])
def test_samples_at_hand_are_prepared_once_and_the_same(digits, shuffle, monkeypatch):
    said = {"seed": 1, "batch_size": 50, "shuffle": shuffle, "preparation": to(1, 10, 9)}
    kept = Loader(digits.held_out, **said)
    assert kept.workers == 0
    first = list(kept.epoch(2))
    monkeypatch.setattr(ArraySamples, "read", None)
    assert same(iter(first), kept.epoch(2)) == 8
    monkeypatch.undo()
    monkeypatch.setattr(loading, "MOST_KEPT", 1000)
    afresh = Loader(digits.held_out, **said, workers=0)
    assert same(iter(first), afresh.epoch(2)) == 8


def test_a_batch_is_no_view_of_what_is_kept(digits):
    loader = Loader(digits.held_out, seed=0, batch_size=4, shuffle=False, preparation=to(1, 8, 8))
    batch = next(loader.epoch(0))
    before = batch.images.clone()
    batch.images.zero_()
    batch.samples.zero_()
    again = next(loader.epoch(0))
    assert torch.equal(again.images, before)
    assert again.samples.tolist() == [0, 1, 2, 3]


# -------------------------------------------------------------------- what they do not depend on


def test_workers_change_nothing(images):
    alone = Loader(images, **PLAIN, workers=0)
    for workers in (1, 3):
        with Loader(images, **PLAIN, workers=workers) as loader:
            for epoch in (0, 1):
                assert same(alone.epoch(epoch), loader.epoch(epoch)) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_step(images, workers):
    said = {**PLAIN, "batch_size": 4, "accumulate": 2, "workers": workers}
    with Loader(images, **said) as loader:
        whole = list(loader.epoch(1))
        assert len(whole) == 10
        for first in (0, 1, 4, 5):
            assert same(iter(whole[2 * first :]), loader.epoch(1, first)) == 10 - 2 * first


def test_an_epoch_left_in_the_middle_leaves_nothing_behind(images):
    with Loader(images, **PLAIN, workers=2) as loader:
        next(loader.epoch(0))
        whole = list(Loader(images, **PLAIN, workers=0).epoch(1))
        assert same(iter(whole), loader.epoch(1)) == 3


def test_an_epoch_that_another_ended_does_not_go_on(images):
    with Loader(images, **PLAIN, workers=1) as loader:
        first = loader.epoch(0)
        next(first)
        assert len(list(loader.epoch(1))) == 3
        with pytest.raises(RuntimeError, match="was ended by another"):
            next(first)
        last = loader.epoch(2)
        next(last)
        loader.close()
        with pytest.raises(RuntimeError, match="was ended by another"):
            next(last)


def test_workers_are_chosen(images, digits, monkeypatch):
    monkeypatch.setattr(loading, "usable_threads", lambda: 64)
    assert Loader(images, **PLAIN).workers == 3  # no more than there are batches
    assert Loader(images, **{**PLAIN, "batch_size": 1}).workers == 8
    assert Loader(images, **{**PLAIN, "batch_size": 1}, world=32).workers == 2
    assert Loader(images, **{**PLAIN, "batch_size": 1}, world=80).workers == 1
    assert Loader(images, **PLAIN, workers=5).workers == 5
    said = {**PLAIN, "preparation": to(1, 9, 9)}
    assert Loader(digits.train, **said).workers == 0
    assert Loader(digits.train, **said, crop=Corner(9)).workers == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_see_epoch_and_sample(images, workers):
    said = {**PLAIN, "preparation": to(3, 5, 5), "crop": Corner(5)}
    with Loader(images, **said, workers=workers) as loader:
        for epoch in (0, 1):
            for batch in loader.epoch(epoch):
                for pixels, number in zip(batch.images, batch.samples.tolist(), strict=True):
                    image = np.asarray(images.read(number, "RGB")[0]).transpose(2, 0, 1)
                    start = (epoch + number) % 5
                    assert np.array_equal(pixels, image[:, start : start + 5, :5])


class Corner:
    """A crop of `size` that begins further down in every epoch and sample."""

    def __init__(self, size):
        self.size = size

    def both(self, image, mask, epoch, sample):
        pixels = np.asarray(image).transpose(2, 0, 1)
        start = (epoch + sample) % self.size
        return pixels[:, start : start + self.size, : self.size].copy(), mask


def test_batches_are_pinned_where_asked(digits, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    loader = Loader(digits.train, **{**PLAIN, "preparation": to(1, 8, 8)}, pin=True)
    batch = next(loader.epoch(0))
    assert [each is one for each, one in zip(pinned, (batch.images, batch.targets), strict=True)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_batch_of_a_step(images, world):
    said = {**PLAIN, "workers": 0, "batch_size": 7, "drop_last": True}
    whole = list(Loader(images, **said).epoch(4))
    parts = [Loader(images, **said, rank=rank, world=world) for rank in range(world)]
    for batch, *shares in zip(whole, *(part.epoch(4) for part in parts), strict=True):
        assert torch.equal(batch.images, torch.cat([share.images for share in shares]))
        assert torch.equal(batch.samples, torch.cat([share.samples for share in shares]))


def test_evaluation_has_every_sample_once_over_all_processes(images):
    said = {**PLAIN, "workers": 0, "shuffle": False, "drop_last": True}
    seen = [
        number
        for rank in range(3)
        for batch in Loader(images, **said, rank=rank, world=3).epoch(0)
        for number in batch.samples.tolist()
    ]
    assert sorted(seen) == list(range(20))


def test_parts_without_samples_have_their_shape(images):
    said = {**PLAIN, "workers": 0, "batch_size": 19, "accumulate": 2}
    *_, first, second = Loader(images, **said).epoch(0)
    assert (len(first.samples), len(second.samples)) == (1, 0)
    assert second.images.shape == (0, 3, 8, 8)
    assert second.images.dtype == torch.uint8


def test_torchs_random_numbers_stay_untouched(images):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with Loader(images, **PLAIN, workers=1) as loader:
        list(loader.epoch(0))
    assert torch.equal(torch.rand(4), expected)


# ---------------------------------------------------------------------------- what goes wrong


@pytest.fixture
def damaged(tmp_path):
    root = class_folders(tmp_path, {"ant": 6, "bee": 6})
    whole = (root / "ant" / "002.png").read_bytes()
    (root / "ant" / "002.png").write_bytes(whole[: len(whole) // 2])
    (root / "bee" / "005.png").write_text("no image")
    dataset = open_dataset(
        Data(source="images", path=str(root), hold_out=0), shape=(3, 8, 8), seed=0, classes=2
    )
    return dataset.train


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_fatal_with_their_name(damaged, workers):
    with (
        Loader(damaged, **PLAIN, workers=workers) as loader,
        pytest.raises(
            EnvironmentFailure, match=r"`.*(ant/002|bee/005).png` cannot be used: it is"
        ) as failure,
    ):
        list(loader.epoch(0))
    assert failure.value.help == "`--with data.corrupt=skip` leaves such images out"


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_replaced_in_training(damaged, workers):
    told: list[str] = []
    with Loader(damaged, **PLAIN, workers=workers, corrupt="skip", said=told.append) as loader:
        for epoch in (0, 1):
            batches = list(loader.epoch(epoch))
            assert [len(batch.samples) for batch in batches] == [8, 4]
            numbers = [n for batch in batches for n in batch.samples.tolist()]
            assert sorted(numbers) == list(range(12))
            places = {n: i for i, n in enumerate(numbers)}
            images = torch.cat([batch.images for batch in batches])
            targets = torch.cat([batch.targets for batch in batches])
            # The next that can be read: 3 for 2, and the first for the last, with its class.
            assert torch.equal(images[places[2]], images[places[3]])
            assert torch.equal(images[places[11]], images[places[0]])
            assert targets[places[11]] == 0
    assert len(told) == 2
    assert {line.split("`")[2] for line in told} == {
        " is skipped: it is truncated",
        " is skipped: it is no image, or of a kind that is not read",
    }


def test_corrupt_images_are_left_out_of_evaluation(damaged):
    loader = Loader(damaged, **{**PLAIN, "shuffle": False}, workers=0, corrupt="skip")
    numbers = [n for batch in loader.epoch(0) for n in batch.samples.tolist()]
    assert numbers == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]


def test_nothing_that_can_be_read_is_fatal_even_when_skipping(tmp_path):
    root = class_folders(tmp_path, {"ant": 3})
    dataset = open_dataset(
        Data(source="images", path=str(root), hold_out=0), shape=(3, 8, 8), seed=0, classes=1
    )
    for file in (root / "ant").iterdir():
        file.unlink()
    loader = Loader(dataset.train, **PLAIN, workers=0, corrupt="skip")
    with pytest.raises(EnvironmentFailure, match="no image of 3 in a row can be used"):
        list(loader.epoch(0))


def test_fewer_samples_than_a_batch_are_refused(images):
    with pytest.raises(
        EnvironmentFailure, match="20 samples to train with, fewer than a batch"
    ) as e:
        Loader(images, **{**PLAIN, "batch_size": 21}, drop_last=True)
    assert "20" in e.value.help


def test_images_of_different_sizes_are_refused(tmp_path):
    root = class_folders(tmp_path, {"ant": 2})
    from tests.training.data.pictures import put

    put(root / "ant" / "tall.png", 9, height=20)
    dataset = open_dataset(
        Data(source="images", path=str(root), hold_out=0), shape=(3, 8, 8), seed=0, classes=1
    )
    any_size = replace(to(3, 8, 8), size=(None, None))
    loader = Loader(dataset.train, seed=0, batch_size=3, shuffle=True, preparation=any_size)
    with pytest.raises(EnvironmentFailure, match="3x12x10 and 3x20x10"):
        list(loader.epoch(0))


# ------------------------------------------------------------------------------- how workers end


def children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def gone(processes: list[int], within: float = 20) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(Path(f"/proc/{each}").exists() for each in processes):
            return True
        time.sleep(0.05)
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
def test_workers_end_with_the_loader(images):
    before = set(children(os.getpid()))
    loader = Loader(images, **PLAIN, workers=2)
    epoch = loader.epoch(0)
    next(epoch)
    workers = sorted(set(children(os.getpid())) - before)
    assert len(workers) == 2
    loader.close()
    assert gone(workers)


@linux
def test_a_worker_that_dies_is_one_line(images):
    before = set(children(os.getpid()))
    handler = signal.getsignal(signal.SIGCHLD)
    with Loader(images, **{**PLAIN, "batch_size": 1}, workers=1) as loader:
        epoch = loader.epoch(0)
        next(epoch)
        assert signal.getsignal(signal.SIGCHLD) is handler
        (worker,) = set(children(os.getpid())) - before
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(EnvironmentFailure, match="a process that reads samples ended") as e:
            list(epoch)
    assert "--workers 0" in e.value.help


TRAINS = """
import signal, sys, time
from cnnspec.training.data.loading import Loader
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.recipe.model import Data
from cnnspec.runtime.preparing import preparation

heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
data = Data(source="images", path=sys.argv[1], hold_out=0)
samples = open_dataset(data, shape=(3, 8, 8), seed=0, classes=2).train
with Loader(samples, seed=0, batch_size=1, shuffle=True, workers=2,
            preparation=preparation(None, (1, 3, 8, 8))) as loader:
    epoch = loader.epoch(0)
    next(epoch)
    print("reading", flush=True)
    while len(heard) < 2:
        time.sleep(0.01)
    print(sum(1 for batch in epoch), flush=True)
"""


@pytest.fixture
def training(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINS, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    yield process
    process.kill()
    process.communicate()


@linux
def test_workers_read_on_when_the_run_is_asked_to_end(training):
    workers = children(training.pid)
    assert len(workers) == 2
    # A terminal signals the process group, and so does torchrun; the run may need its next batch.
    os.killpg(training.pid, signal.SIGINT)
    os.killpg(training.pid, signal.SIGTERM)
    said, errors = training.communicate(timeout=60)
    assert (said, errors) == ("19\n", "")
    assert gone(workers)


@linux
def test_workers_end_with_a_run_that_is_killed(training):
    workers = children(training.pid)
    assert len(workers) == 2
    training.kill()
    assert gone(workers)
