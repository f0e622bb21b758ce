"""`cifar10` and `cifar100` from their published files: the Python and the binary version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.data.in_memory import ArraySamples, array_fingerprint
from cnnspec.training.data.packed import damaged, folder_of, read_file, read_tar
from cnnspec.training.data.samples import Dataset
from cnnspec.training.data.unpickling import NotPlain, plain_pickle

__all__ = ["open_cifar"]

_VALUES = 3 * 32 * 32
_MOST = 2**29
_FINE, _COARSE = "fine_labels", "coarse_labels"


@dataclass(frozen=True, slots=True)
class _Labels:
    """A kind of labels: key in pickles, byte of a binary record, keys and file of their names."""

    key: str
    byte: int
    names_key: str
    names_file: str
    count: int


@dataclass(frozen=True, slots=True)
class _Edition:
    """How CIFAR-10 or CIFAR-100 is published."""

    title: str
    stem: str
    train: tuple[str, ...]
    test: str
    folders: tuple[str, str]
    meta: str
    labels: Mapping[str, _Labels]

    @property
    def label_bytes(self) -> int:
        """Bytes before the pixels of a binary record."""
        return len(self.labels)


_EDITIONS = {
    "cifar10": _Edition(
        "CIFAR-10",
        "cifar-10",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        ("cifar-10-batches-py", "cifar-10-batches-bin"),
        "batches.meta",
        {"labels": _Labels("labels", 0, "label_names", "batches.meta.txt", 10)},
    ),
    "cifar100": _Edition(
        "CIFAR-100",
        "cifar-100",
        ("train",),
        "test",
        ("cifar-100-python", "cifar-100-binary"),
        "meta",
        {
            _FINE: _Labels(_FINE, 1, "fine_label_names", "fine_label_names.txt", 100),
            _COARSE: _Labels(_COARSE, 0, "coarse_label_names", "coarse_label_names.txt", 20),
        },
    ),
}


def open_cifar(path: str | None, source: str, label: str | None) -> Dataset:
    """50,000 images to train with and 10,000 held out, 32x32 in colours.

    `path` is a folder with the archive or with what was in it, or one of these itself; what is
    unpacked comes before archives, the Python version before the binary one. `label` is
    `fine_labels` (the default) or `coarse_labels` for CIFAR-100.

    Raises `EnvironmentFailure`, naming the file, for what is not there or not what it has to be.
    """
    edition = _EDITIONS[source]
    labels = edition.labels.get(label or next(iter(edition.labels)))
    if labels is None:
        raise EnvironmentFailure(
            f"{edition.title} has no labels `{label}`",
            help=f"it has {' and '.join(f'`{name}`' for name in edition.labels)}",
        )
    place = folder_of(path, edition.title, source)
    stored = _stored(place, edition)
    train = stored.part(edition.train, labels)
    held_out = stored.part((edition.test,), labels)
    return Dataset(
        name=source,
        train=train,
        held_out=held_out,
        classes=stored.names(labels),
        fingerprint=array_fingerprint(train, held_out),
        description=f"{edition.title} of `{path}`",
    )


@dataclass(frozen=True, slots=True)
class _Stored:
    """Files by name, each with its bytes when asked for, and how they are to be read."""

    edition: _Edition
    place: str
    binary: bool
    read: Callable[[str], bytes | None]

    def part(self, names: Iterable[str], labels: _Labels) -> ArraySamples:
        pixels, classes = [], []
        for name in names:
            file = f"{name}.bin" if self.binary else name
            content = self._content(file)
            where = f"{self.place}/{file}"
            found = (self._of_binary if self.binary else self._of_pickle)(content, where, labels)
            pixels.append(found[0])
            classes.append(found[1])
        images = np.concatenate(pixels).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        where = f"{self.place}/{'+'.join(names)}"
        return ArraySamples(
            np.ascontiguousarray(images),
            np.concatenate(classes),
            where,
            np.arange(len(images), dtype=np.int64),
        )

    def names(self, labels: _Labels) -> tuple[str, ...]:
        file = labels.names_file if self.binary else self.edition.meta
        content = self._content(file)
        if self.binary:
            names = content.split(b"\n")
            found = [name.decode("ascii", "replace").strip() for name in names if name.strip()]
        else:
            said = _mapping(content, f"{self.place}/{file}").get(labels.names_key.encode())
            if not isinstance(said, list) or not all(isinstance(name, bytes) for name in said):
                raise damaged(f"{self.place}/{file}", "it does not name the classes")
            found = [name.decode("ascii", "replace") for name in said]
        if len(found) != labels.count:
            raise damaged(f"{self.place}/{file}", f"it names {len(found)} classes")
        return tuple(found)

    def _content(self, file: str) -> bytes:
        content = self.read(file)
        if content is None:
            raise EnvironmentFailure(f"`{self.place}` has no file `{file}`", help="fetch it again")
        return content

    def _of_binary(
        self, content: bytes, where: str, labels: _Labels
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        record = self.edition.label_bytes + _VALUES
        if not content or len(content) % record:
            raise damaged(where, f"it has {len(content):,} bytes, no multiple of {record:,}")
        records = np.frombuffer(content, np.uint8).reshape(-1, record)
        classes = records[:, labels.byte].astype(np.int64)
        return records[:, self.edition.label_bytes :], _classes(classes, where, labels)

    def _of_pickle(
        self, content: bytes, where: str, labels: _Labels
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        said = _mapping(content, where)
        pixels, classes = said.get(b"data"), said.get(labels.key.encode())
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _VALUES:
            raise damaged(where, "it holds no images of 3x32x32")
        if not isinstance(classes, list) or not all(type(each) is int for each in classes):
            raise damaged(where, f"it holds no `{labels.key}`")
        if len(classes) != len(pixels) or not classes:
            raise damaged(where, f"it has {len(pixels):,} images and {len(classes):,} classes")
        if not all(0 <= each < labels.count for each in classes):
            raise damaged(where, f"it holds classes that are not below {labels.count}")
        return pixels, np.array(classes, dtype=np.int64)


def _classes(classes: NDArray[np.int64], where: str, labels: _Labels) -> NDArray[np.int64]:
    if classes.max() >= labels.count:
        raise damaged(where, f"it holds class {classes.max()} of {labels.count}")
    return classes


def _mapping(content: bytes, where: str) -> Mapping[object, object]:
    try:
        found = plain_pickle(content)
    except NotPlain:
        found = None
    if not isinstance(found, dict):
        raise damaged(where, "it is no pickle of images, or damaged")
    return found


def _stored(place: Path, edition: _Edition) -> _Stored:
    archives = [f"{edition.stem}-python.tar.gz", f"{edition.stem}-binary.tar.gz"]
    if place.is_file():
        return _archived(place, edition, "binary" in place.name)
    for binary, folder in zip((False, True), edition.folders, strict=True):
        first = f"{edition.test}.bin" if binary else edition.test
        for within, there in (
            (place / folder, (place / folder).is_dir()),
            (place, (place / first).is_file()),
        ):
            if there:
                return _Stored(edition, str(within), binary, _reading(within))
    for binary, name in zip((False, True), archives, strict=True):
        for file in (place / name, place / name.removesuffix(".gz")):
            if file.is_file():
                return _archived(file, edition, binary)
    raise EnvironmentFailure(
        f"`{place}` has none of the files of {edition.title}",
        help=f"it is published as `{archives[0]}` and `{archives[1]}`",
    )


def _reading(folder: Path) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        path = folder / name
        return read_file(path, _MOST) if path.is_file() else None

    return read


def _archived(path: Path, edition: _Edition, binary: bool) -> _Stored:
    wanted = [*edition.train, edition.test]
    if binary:
        names = [f"{name}.bin" for name in wanted]
        names += [labels.names_file for labels in edition.labels.values()]
    else:
        names = [*wanted, edition.meta]
    return _Stored(edition, str(path), binary, read_tar(path, names, _MOST).get)
