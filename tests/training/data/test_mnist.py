"""MNIST's files: found where people have them, and never believed."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data.mnist import FASHION, open_mnist


def idx(array):
    array = np.asarray(array, np.uint8)
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def contents():
    pixels = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
    return {
        "train-images-idx3-ubyte": idx(pixels),
        "train-labels-idx1-ubyte": idx([3, 1, 4, 1, 9]),
        "t10k-images-idx3-ubyte": idx(pixels[:2][:, ::-1]),
        "t10k-labels-idx1-ubyte": idx([0, 7]),
    }


def put(folder, files, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_files_are_found(tmp_path, packed, below):
    put(tmp_path / below, contents(), packed)
    found = open_mnist(str(tmp_path), "mnist")
    assert (len(found.train), len(found.held_out)) == (5, 2)
    assert found.train.targets() == [3, 1, 4, 1, 9]
    image, target = found.train.read(2, "L")
    assert target == 4
    pixels = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
    assert np.array_equal(np.asarray(image), pixels[2])
    assert found.train.label(2).endswith(
        f"train-images-idx3-ubyte{'.gz' if packed else ''}, image 2"
    )


def test_other_spellings_and_classes(tmp_path):
    put(tmp_path, {name.replace("-idx", ".idx"): held for name, held in contents().items()})
    found = open_mnist(str(tmp_path), "fashion-mnist")
    assert found.classes == FASHION
    assert found.name == "fashion-mnist"


def test_fingerprints_follow_the_pixels(tmp_path):
    put(tmp_path / "a", contents())
    put(tmp_path / "b", contents(), packed=True)
    same = {open_mnist(str(tmp_path / name), "mnist").fingerprint for name in "ab"}
    assert len(same) == 1
    changed = contents()
    changed["t10k-labels-idx1-ubyte"] = idx([0, 8])
    put(tmp_path / "a", changed)
    assert open_mnist(str(tmp_path / "a"), "mnist").fingerprint not in same


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (IMAGES, lambda held: held[:-1], "3,919 bytes of data, its head says 3,920"),
        (IMAGES, lambda held: held + b"x", "3,921 bytes of data"),
        (IMAGES, lambda held: held[:9], "it is truncated"),
        (IMAGES, lambda held: b"", "it is truncated"),
        (IMAGES, lambda held: b"\x00\x00\x0d\x03" + held[4:], "begins with 0x00000d03, where"),
        (IMAGES, lambda held: gzip.compress(held), "begins with 0x1f8b"),
        (IMAGES, lambda held: held[:4] + b"\xff" * 12 + held[16:], "its head says 79,228"),
        (IMAGES, lambda held: idx(np.zeros((0, 28, 28))), "5 classes, `.*` 0 images"),
        (LABELS, lambda held: idx([1, 2, 3]), "3 classes, `.*` 5 images"),
        (LABELS, lambda held: idx([1, 2, 3, 4, 10]), "class 10 of 10"),
        (LABELS, None, "has no file `train-labels-idx1-ubyte`"),
    ],
)
def test_files_that_are_not_mnist_are_named(tmp_path, name, change, message):
    files = contents()
    if change is None:
        del files[name]
    else:
        files[name] = change(files[name])
    put(tmp_path, files)
    with pytest.raises(EnvironmentFailure, match=message) as failure:
        open_mnist(str(tmp_path), "mnist")
    assert "\n" not in failure.value.message
    assert failure.value.help


@pytest.mark.parametrize("cut", [5, 100, -9, -3])
def test_packed_files_that_are_cut_are_named(tmp_path, cut):
    put(tmp_path, contents(), packed=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(EnvironmentFailure, match=r"ubyte.gz` cannot be used: it is truncated"):
        open_mnist(str(tmp_path), "mnist")


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(EnvironmentFailure, match="has no file"):
        open_mnist(str(tmp_path / "x"), "mnist")
