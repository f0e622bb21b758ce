"""CIFAR's files: both versions, packed or not, and pickles that want more than to be read."""

from __future__ import annotations

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data.cifar import open_cifar
from cnnspec.training.data.unpickling import NotPlain, plain_pickle

TEN = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship"]
TEN.append(b"truck")
FINE = [f"fine {number}".encode() for number in range(100)]
COARSE = [f"coarse {number}".encode() for number in range(20)]


def pixels(seed, count=3):
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def labels(seed, most, count=3):
    return np.random.default_rng(seed).integers(0, most, count).tolist()


def python_10():
    files = {f"data_batch_{n}": {b"data": pixels(n), b"labels": labels(n, 10)} for n in range(1, 6)}
    files["test_batch"] = {b"data": pixels(9), b"labels": labels(9, 10)}
    files["batches.meta"] = {b"label_names": TEN, b"num_vis": 3072}
    return {name: pickle.dumps(held, protocol=3) for name, held in files.items()}


def binary_10():
    def records(seed):
        return np.c_[np.array(labels(seed, 10), np.uint8), pixels(seed)].tobytes()

    files = {f"data_batch_{n}.bin": records(n) for n in range(1, 6)}
    return files | {"test_batch.bin": records(9), "batches.meta.txt": b"\n".join(TEN) + b"\n\n"}


def python_100():
    files = {
        name: {
            b"data": pixels(seed),
            b"fine_labels": labels(seed, 100),
            b"coarse_labels": labels(seed, 20),
            b"filenames": [b"a.png", b"b.png", b"c.png"],
        }
        for name, seed in (("train", 1), ("test", 2))
    }
    files["meta"] = {b"fine_label_names": FINE, b"coarse_label_names": COARSE}
    return {name: pickle.dumps(held, protocol=3) for name, held in files.items()}


def binary_100():
    def records(seed):
        heads = np.c_[labels(seed, 20), labels(seed, 100)].astype(np.uint8)
        return np.c_[heads, pixels(seed)].tobytes()

    return {
        "train.bin": records(1),
        "test.bin": records(2),
        "fine_label_names.txt": b"\n".join(FINE),
        "coarse_label_names.txt": b"\n".join(COARSE),
    }


VERSIONS = [
    ("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz", python_10),
    ("cifar10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz", binary_10),
    ("cifar100", "cifar-100-python", "cifar-100-python.tar.gz", python_100),
    ("cifar100", "cifar-100-binary", "cifar-100-binary.tar.gz", binary_100),
]


def unpacked(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def packed(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(("source", "folder", "archive", "made"), VERSIONS)
def test_versions_hold_the_same(tmp_path, source, folder, archive, made):
    files = made()
    unpacked(tmp_path / "one" / folder, files)
    (tmp_path / "two").mkdir()
    packed(tmp_path / "two" / archive, folder, files)
    places = ["one", f"one/{folder}", "two", f"two/{archive}"]
    found = [open_cifar(str(tmp_path / place), source, None) for place in places]
    assert len({each.fingerprint for each in found}) == 1
    for each in found:
        seeds = range(1, 6) if source == "cifar10" else (1,)
        most = 10 if source == "cifar10" else 100
        assert each.train.targets() == [n for seed in seeds for n in labels(seed, most)]
        assert each.held_out.targets() == labels(9 if source == "cifar10" else 2, most)
        image, _ = each.train.read(1, "RGB")
        assert image.size == (32, 32)
        red_first = np.asarray(image).transpose(2, 0, 1).ravel()
        assert np.array_equal(red_first, pixels(1)[1])
        names = TEN if source == "cifar10" else FINE
        assert each.classes == tuple(name.decode() for name in names)


@pytest.mark.parametrize("made", [python_100, binary_100])
def test_coarse_labels_can_be_asked_for(tmp_path, made):
    unpacked(tmp_path, made())
    found = open_cifar(str(tmp_path), "cifar100", "coarse_labels")
    assert found.train.targets() == labels(1, 20)
    assert len(found.classes) == 20
    assert open_cifar(str(tmp_path), "cifar100", None).fingerprint != found.fingerprint
    with pytest.raises(EnvironmentFailure, match="has no labels `coarse`") as failure:
        open_cifar(str(tmp_path), "cifar100", "coarse")
    assert failure.value.help == "it has `fine_labels` and `coarse_labels`"


def changed(name, change):
    return lambda files: files | {name: change(files[name])}


def rewritten(**said):
    def change(content):
        held = pickle.loads(content) | {key.encode(): value for key, value in said.items()}
        return pickle.dumps(held, protocol=3)

    return change


PYTHON = [
    (
        lambda files: {n: files[n] for n in files if n != "data_batch_3"},
        "has no file `data_batch_3`",
    ),
    (
        changed("data_batch_2", lambda held: held[:-50]),
        "data_batch_2` cannot be used: it is no pick",
    ),
    (changed("data_batch_2", lambda held: b""), "it is no pickle of images, or damaged"),
    (changed("test_batch", rewritten(data=pixels(1)[:, 1:].copy())), "no images of 3x32x32"),
    (changed("test_batch", rewritten(data=b"text")), "no images of 3x32x32"),
    (changed("test_batch", rewritten(labels=[1, 2])), "3 images and 2 classes"),
    (changed("test_batch", rewritten(labels=[1, 2, 10])), "classes that are not below 10"),
    (changed("test_batch", rewritten(labels=[1, 2, -1])), "classes that are not below 10"),
    (changed("test_batch", rewritten(labels=[1, 2, 0.5])), "it holds no `labels`"),
    (changed("batches.meta", rewritten(label_names=TEN[1:])), "it names 9 classes"),
    (changed("batches.meta", rewritten(label_names=3)), "it does not name the classes"),
]
BINARY = [
    (
        lambda files: {n: files[n] for n in files if n != "data_batch_3.bin"},
        "no file `data_batch_3",
    ),
    (changed("test_batch.bin", lambda held: held[:-1]), "9,218 bytes, no multiple of 3,073"),
    (changed("test_batch.bin", lambda held: b""), "0 bytes, no multiple of 3,073"),
    (changed("test_batch.bin", lambda held: b"\x0a" + held[1:]), "class 10 of 10"),
    (changed("batches.meta.txt", lambda held: held + b"lorry\n"), "it names 11 classes"),
]


@pytest.mark.parametrize(
    ("folder", "files", "change", "message"),
    [
        *(("cifar-10-batches-py", python_10, *each) for each in PYTHON),
        *(("cifar-10-batches-bin", binary_10, *each) for each in BINARY),
    ],
)
def test_files_that_are_not_cifar_are_named(tmp_path, folder, files, change, message):
    unpacked(tmp_path / folder, change(files()))
    with pytest.raises(EnvironmentFailure, match=message) as failure:
        open_cifar(str(tmp_path), "cifar10", None)
    assert "\n" not in failure.value.message


def test_no_files_at_all(tmp_path):
    with pytest.raises(EnvironmentFailure, match="none of the files of CIFAR-100") as failure:
        open_cifar(str(tmp_path), "cifar100", None)
    assert "`cifar-100-python.tar.gz`" in failure.value.help


@pytest.mark.parametrize("cut", [3, 500, -200])
def test_archives_that_are_cut_are_named(tmp_path, cut):
    path = tmp_path / "cifar-10-python.tar.gz"
    packed(path, "cifar-10-batches-py", python_10())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(EnvironmentFailure, match=r"tar.gz` cannot be used: it is truncated or dam"):
        open_cifar(str(tmp_path), "cifar10", None)


# -------------------------------------------------------------------------------------- pickles


def test_pickles_of_python_2_are_read():
    # {'data': uint8 of 1x2, 'labels': [3]}, as Python 2 and numpy 1 write them.
    old = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85q\x05U\x01bq\x06\x87q\x07Rq\x08(K\x01K\x01K\x02\x86q\x09cnumpy\ndtype\nq\x0a"
        b"U\x02u1q\x0bK\x00K\x01\x87q\x0cRq\x0d(K\x03U\x01|q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00tq\x0fb\x89U\x02\x07\x09q\x10tq\x11bU\x06labelsq\x12]q\x13K\x03au."
    )
    found = plain_pickle(old)
    assert isinstance(found, dict)
    assert found[b"labels"] == [3]
    assert found[b"data"].tolist() == [[7, 9]]


@pytest.mark.parametrize("protocol", [2, 3])
def test_plain_values_are_read(protocol):
    value = {b"a": [1, 2.5, None, True, "text"], b"b": {"c": -(2**40)}}
    if protocol > 2:
        value[b"d"] = np.arange(6, dtype=np.uint8).reshape(2, 3)
    else:
        value = {"a": value[b"b"], "e": [1, 2.5, None, True]}
    found = plain_pickle(pickle.dumps(value, protocol))
    assert repr(found) == repr(value)


def test_arrays_by_columns_are_read():
    array = np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    found = plain_pickle(pickle.dumps(array, 3))
    assert np.array_equal(found, array)


class Calls:
    def __init__(self, function, *given):
        self.said = function, given

    def __reduce__(self):
        return self.said


@pytest.mark.parametrize(
    "evil",
    [
        Calls(os.system, "touch called"),
        Calls(eval, "open('called', 'w')"),
        Calls(getattr, np.ndarray, "tofile"),
        Calls(np.ndarray.tofile, np.zeros(3, np.uint8), "called"),
        np.array([Calls(os.mkdir, "called")], dtype=object),
        np.arange(3.0),
        np.array(["text"]),
        np.uint8(3),
        {1, 2},
        bytearray(b"x"),
        object(),
        np.ndarray,
        np.dtype("u1"),
    ],
)
def test_nothing_is_called(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in (0, 1, 2, 3, 4, 5):
        for value in (evil, {b"data": evil}, [evil]):
            with pytest.raises(NotPlain):
                plain_pickle(pickle.dumps(value, protocol))
    assert not list(tmp_path.iterdir())


def test_pickles_that_hold_themselves_are_refused():
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(NotPlain):
        plain_pickle(pickle.dumps(circle, 3))
    wide: list[object] = []
    for _ in range(7):
        wide = [wide] * 50
    with pytest.raises(NotPlain):
        plain_pickle(pickle.dumps(wide, 3))


def test_a_stand_in_that_is_written_to_changes_nothing_later():
    # The state of a global is set, then a pickle that is sound is read.
    writes = b"\x80\x02cnumpy\nndarray\n}U\x0c__setstate__cnumpy.core.multiarray\n_reconstruct\nsb."
    with pytest.raises(NotPlain):
        plain_pickle(writes)
    array = np.arange(4, dtype=np.uint8)
    assert np.array_equal(plain_pickle(pickle.dumps(array, 3)), array)


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_fail_or_give_plain_values(content):
    try:
        found = plain_pickle(b"\x80\x02" + content)
    except NotPlain:
        return
    assert found is None or isinstance(found, bool | int | float | str | bytes | list | dict)
