"""Sources by name, and those that need no files."""

from __future__ import annotations

import subprocess
import sys
from gzip import decompress
from hashlib import sha256
from importlib.resources import files
from pickle import dumps, loads

import numpy as np
import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data.digits_source import open_digits
from cnnspec.training.data.holding_out import held_out_share
from cnnspec.training.data.sources import SOURCES, open_dataset
from cnnspec.training.recipe.model import Data


def random(**said):
    data = Data(source="random", **said)
    return open_dataset(data, shape=(3, 5, 7), seed=2, classes=4)


# ---------------------------------------------------------------------------------------- digits


def test_digits_are_those_of_the_repository():
    found = open_digits()
    assert (len(found.train), len(found.held_out)) == (1437, 360)
    assert found.classes == tuple("0123456789")
    # Of scikit-learn's copy: the classes of the first twenty, and how many there are of each.
    whole = np.zeros(1797, np.int64)
    whole[::5] = found.held_out.targets()
    whole[np.arange(1797) % 5 != 0] = found.train.targets()
    assert whole[:20].tolist() == [*range(10), *range(10)]
    assert np.bincount(whole).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_greyscale_of_eight_bits():
    image, target = open_digits().held_out.read(0, "L")
    steps = [
        [0, 0, 5, 13, 9, 1, 0, 0],
        [0, 0, 13, 15, 10, 15, 5, 0],
        [0, 3, 15, 2, 0, 11, 8, 0],
        [0, 4, 12, 0, 0, 8, 8, 0],
        [0, 5, 8, 0, 0, 9, 8, 0],
        [0, 4, 11, 0, 1, 12, 7, 0],
        [0, 2, 14, 5, 10, 12, 0, 0],
        [0, 0, 6, 13, 10, 0, 0, 0],
    ]
    assert target == 0
    assert (image.mode, image.size) == ("L", (8, 8))
    assert np.array_equal(np.asarray(image), np.rint(np.array(steps) * 255 / 16))


def test_every_fifth_digit_is_held_out():
    found = open_digits()
    assert [found.held_out.label(number) for number in (0, 1)] == [
        "digits, image 0",
        "digits, image 5",
    ]
    assert [found.train.label(number) for number in (0, 4)] == [
        "digits, image 1",
        "digits, image 6",
    ]


def test_digits_name_where_they_come_from():
    said = files("cnnspec.training.data").joinpath("digits/ATTRIBUTION.md").read_text()
    assert "CC BY 4.0" in said
    assert "https://doi.org/10.24432/C50P49" in said


def test_digits_are_stored_as_they_were_published():
    packed = files("cnnspec.training.data").joinpath("digits/digits.csv.gz").read_bytes()
    text = decompress(packed)
    assert text.startswith(b"0,0,5,13,9,1,0,0,0,0,13,15,10,15,5,0,")
    expected = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
    assert sha256(text).hexdigest() == expected


# ---------------------------------------------------------------------------------------- random


def test_random_samples_are_a_function_of_seed_and_number():
    one, other = random(), random()
    assert one.fingerprint == other.fingerprint
    image, target = one.train.read(6, "RGB")
    assert (image.size, target) == ((7, 5), 2)
    assert image.tobytes() == other.train.read(6, "RGB")[0].tobytes()
    assert image.tobytes() != one.train.read(7, "RGB")[0].tobytes()
    assert image.tobytes() != one.held_out.read(6, "RGB")[0].tobytes()
    assert one.train.read(6, "L")[0].mode == "L"
    assert np.asarray(image).std() > 50


def test_random_samples_are_as_many_as_asked_for():
    found = random(samples=50, hold_out=0.1, classes=3)
    assert (len(found.train), len(found.held_out)) == (50, 5)
    assert set(found.train.targets()) == {0, 1, 2}
    assert random(samples=50, hold_out=0).held_out is None
    assert len(random().train) == 1024


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((2, 5, 7), 4, "1 or 3 channels"),
        ((3, 5), 4, "1 or 3 channels"),
        ((3, 5, 7), None, "number of classes"),
    ],
)
def test_random_samples_are_images_of_classes(shape, classes, message):
    with pytest.raises(EnvironmentFailure, match=message):
        open_dataset(Data(source="random"), shape=shape, seed=0, classes=classes)


# ------------------------------------------------------------------------------------ in general


def test_unknown_sources_are_refused():
    with pytest.raises(EnvironmentFailure, match="no source of data `cifar`") as failure:
        open_dataset(Data(source="cifar"), shape=(3, 32, 32), seed=0, classes=10)
    assert failure.value.help.startswith("did you mean `cifar1")


@pytest.mark.parametrize("source", [s for s in SOURCES if s not in ("digits", "random")])
def test_sources_on_disks_need_a_path(source):
    with pytest.raises(EnvironmentFailure, match="is not named") as failure:
        open_dataset(Data(source=source), shape=(3, 32, 32), seed=0, classes=10)
    assert "--data" in failure.value.help
    if source == "huggingface":
        return
    with pytest.raises(EnvironmentFailure, match="`nowhere` is not there"):
        open_dataset(Data(source=source, path="nowhere"), shape=(3, 9, 9), seed=0, classes=10)


def test_samples_travel_between_processes():
    for samples in (open_digits().train, random().train):
        moved = loads(dumps(samples))
        assert moved.read(3, "L")[0].tobytes() == samples.read(3, "L")[0].tobytes()


def test_opening_needs_no_torch():
    code = (
        "import sys; from cnnspec.training.data.sources import open_dataset; "
        "from cnnspec.training.recipe.model import Data; "
        "open_dataset(Data(source='digits'), shape=(1, 8, 8), seed=0, classes=10); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_held_out_shares_are_of_every_class_and_stay_when_samples_come():
    targets = [0] * 50 + [1] * 10 + [2]
    keys = [f"{n}".encode() for n in range(61)]
    held = held_out_share(61, keys.__getitem__, targets, 0.2)
    assert np.bincount(np.array(targets)[held], minlength=3).tolist() == [10, 2, 0]
    fewer = held_out_share(60, keys[1:].__getitem__, targets[1:], 0.2)
    assert (held[1:] != fewer).sum() <= 1
    assert not held_out_share(61, keys.__getitem__, targets, 0).any()
    # Not to be changed: runs and their evaluations have to hold out the same.
    assert np.flatnonzero(held).tolist() == [2, 6, 14, 17, 18, 23, 29, 34, 39, 47, 55, 56]
