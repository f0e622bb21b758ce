"""`images`: a folder with a folder for every class, or images with masks beside them.

Listing reads names alone: a million of files takes seconds and little memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, listed
from cnnspec.runtime.images import SUFFIXES, ImageSource, decode
from cnnspec.training.data.holding_out import parted
from cnnspec.training.data.masks import read_mask
from cnnspec.training.data.samples import Dataset, Samples, Target
from cnnspec.training.recipe.model import Data

__all__ = ["FolderSamples", "Names", "open_images"]

TRAIN = "train"
HELD_OUT = ("val", "validation", "valid", "test")
"""Names of folders that hold a part of the samples, those of what is held out by preference."""

_SUFFIXES = tuple(SUFFIXES)
_MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff")
_SIZED = 10_000
"""Files whose sizes go into the fingerprint at most: all would take minutes on a network."""


class Names:
    """Many texts in one piece of memory, which processes can share."""

    __slots__ = ("_ends", "_joined")

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._joined = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(self.raw(number))

    def raw(self, number: int) -> bytes:
        """A text as the system has it."""
        return self._joined[int(self._ends[number]) : int(self._ends[number + 1])]

    def digest(self) -> bytes:
        """A SHA-256 of all of them, in their order."""
        found = sha256(self._ends.astype("<i8", copy=False).tobytes())
        found.update(self._joined)
        return found.digest()


@dataclass(frozen=True, slots=True, eq=False)
class FolderSamples:
    """Images below `root`, by their paths there; `classes` are numbers, one for each.

    With `masks`, a folder and a suffix, what an image is stands in the mask of the same path there.
    `most` is the number of classes that the network tells apart, where that is known.
    """

    root: str
    names: Names
    classes: NDArray[np.int32]
    masks: tuple[str, Names] | None = None
    most: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        name = self.label(number)
        image = decode(ImageSource(name, Path(name)), mode)
        if self.masks is None:
            return image, int(self.classes[number])
        folder, masks = self.masks
        place = os.path.join(folder, masks[number])
        return image, read_mask(ImageSource(place, Path(place)), self.most)

    def label(self, number: int) -> str:
        """See `Samples`."""
        return os.path.join(self.root, self.names[number])

    def targets(self) -> Sequence[int] | None:
        """See `Samples`."""
        return None if self.masks is not None else [int(each) for each in self.classes]


def open_images(data: Data, classes: int | None) -> Dataset:
    """The images of the folder `data.path`; `classes` is how many the network tells apart.

    Its folders are classes, in the order of their names, unless there are parts: `train` and one of
    `HELD_OUT`, or those that `data` names; then those have the folders of classes. What is hidden
    is passed over. With `data.masks` there are no folders of classes.

    Raises `EnvironmentFailure`.
    """
    if data.path is None:
        raise EnvironmentFailure(
            "the folder of images is not named", help="`--data images:FOLDER`, or `data.path`"
        )
    root = Path(data.path)
    _folder(root)
    train, held_out = _parts(root, data)
    found = _Found(root, data, classes)
    samples = found.samples(train)
    rest = None if held_out is None else found.samples(held_out)
    seen = sha256(samples.names.digest())
    if rest is not None:
        seen.update(rest.names.digest())
    for part in (samples, rest):
        seen.update(b"" if part is None else _sizes(part))
    chosen: tuple[Samples, Samples | None] = samples, rest
    if rest is None:
        chosen = parted(samples, samples.names.raw, data.hold_out)
        seen.update(repr(data.hold_out).encode())
    kind = ", each with its mask" if data.masks else ""
    return Dataset(
        name=root.resolve().name,
        train=chosen[0],
        held_out=chosen[1],
        classes=tuple(found.classes),
        fingerprint=seen.hexdigest(),
        description=f"images of `{data.path}`{kind}",
    )


def _folder(path: Path) -> None:
    if not path.is_dir():
        what = "is no folder" if path.exists() else "is not there"
        raise EnvironmentFailure(
            f"`{path}` {what}", help="images are a folder of folders, by class"
        )


def _parts(root: Path, data: Data) -> tuple[Path, Path | None]:
    """Where samples to train with are, and those held out; None where nobody set any apart."""
    here = [name for name in _folders(root) if name != data.masks]
    held_out = data.held_out
    if data.train is None and TRAIN not in here:
        if held_out is not None:
            raise EnvironmentFailure(
                f"`{root}` has no folder `{TRAIN}`", help="`data.train` names the folder"
            )
        return root, None
    usual = [name for name in HELD_OUT if name in here]
    if data.train is None and held_out is None and not usual and here != [TRAIN]:
        return root, None  # a class may be called train
    for name in (data.train, held_out):
        if name is not None:
            _folder(root / name)
    held_out = held_out or (usual[0] if usual else None)
    return root / (data.train or TRAIN), None if held_out is None else root / held_out


class _Found:
    """What folders hold, with the classes that the first of them has."""

    def __init__(self, root: Path, data: Data, most: int | None) -> None:
        self._root = root
        self._most = most
        self._masks = None if data.masks is None else root / data.masks
        self.classes: dict[str, int] = {}
        if self._masks is not None:
            _folder(self._masks)

    def samples(self, part: Path) -> FolderSamples:
        return self._by_class(part) if self._masks is None else self._masked(part, self._masks)

    def _by_class(self, part: Path) -> FolderSamples:
        folders = _folders(part)
        if not folders:
            raise EnvironmentFailure(
                f"`{part}` has no folders",
                help="put the images of each class into a folder of its name",
            )
        first = not self.classes
        if first:
            self.classes = {name: number for number, name in enumerate(folders)}
        odd = [name for name in folders if name not in self.classes]
        if odd:
            raise EnvironmentFailure(
                f"`{part}` has {_few(odd)}, which the samples to train with do not have"
            )
        names: list[str] = []
        counts: list[int] = []
        for name in folders:
            found = [f"{name}/{each}" for each in _images(part / name, _SUFFIXES)]
            if not found and first:
                raise EnvironmentFailure(
                    f"there is no image in `{part / name}`",
                    help=f"names end with {', '.join(SUFFIXES)}",
                )
            names += found
            counts.append(len(found))
        if not names:
            raise EnvironmentFailure(f"there is no image in `{part}`")
        numbers = np.array([self.classes[name] for name in folders], dtype=np.int32)
        return FolderSamples(str(part), Names(names), np.repeat(numbers, counts))

    def _masked(self, part: Path, masks: Path) -> FolderSamples:
        names = list(_images(part, _SUFFIXES, without=masks))
        if not names:
            raise EnvironmentFailure(
                f"there is no image in `{part}`", help=f"names end with {', '.join(SUFFIXES)}"
            )
        folder = masks / part.relative_to(self._root)
        if not folder.is_dir():
            folder = masks
        stems: Mapping[str, str] = {_stem(name): name for name in _images(folder, _MASKS)}
        missing = [name for name in names if _stem(name) not in stems]
        if missing:
            raise EnvironmentFailure(
                f"there is no mask of {_few(missing)} in `{folder}`",
                help=f"the mask of `{missing[0]}` is `{_stem(missing[0])}.png` there",
            )
        found = Names([stems[_stem(name)] for name in names])
        classes = np.zeros(len(names), np.int32)
        return FolderSamples(str(part), Names(names), classes, (str(folder), found), self._most)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return listed(names[:3]) + more


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{folder}` cannot be read: {reason}") from None
    return sorted(found, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _images(folder: Path, suffixes: tuple[str, ...], without: Path | None = None) -> Iterator[str]:
    """Paths below `folder` with `/`, in the order of names; folders that are links are left out."""
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            if without is None or Path(entry.path) != without:
                for name in _images(Path(entry.path), suffixes, without):
                    yield f"{entry.name}/{name}"
        elif entry.name.lower().endswith(suffixes):
            yield entry.name


def _sizes(samples: FolderSamples) -> bytes:
    """The sizes of at most `_SIZED` files, spread evenly; -1 of what cannot be told."""
    step = max(len(samples) // _SIZED, 1)
    sizes = np.array(
        [_size(samples.label(number)) for number in range(0, len(samples), step)], dtype="<i8"
    )
    return sizes.tobytes()


def _size(name: str) -> int:
    try:
        return os.stat(name).st_size
    except OSError:
        return -1
