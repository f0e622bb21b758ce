"""`huggingface`: data sets of the hub, parquet files and image folders, by the library `datasets`.

The library finds, fetches and stores them; images are decoded as everywhere in cnnspec.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, listed
from cnnspec.runtime.images import ImageSource, decode
from cnnspec.training.data.holding_out import parted
from cnnspec.training.data.masks import read_mask
from cnnspec.training.data.samples import Dataset, Samples, Target
from cnnspec.training.recipe.model import Data

__all__ = ["HubSamples", "open_hub"]

TRAIN = "train"
HELD_OUT = ("validation", "val", "valid", "test")
"""Splits, those of what is held out by preference."""

_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "fine_label", "target", "class", "cls")
"""Names of columns that decide where types leave a choice."""

_CLASS = re.compile(r" \(\w+\)$")
"""The name of an exception, behind what it says."""

_SIZED = 100
"""Images whose bytes go into the fingerprint at most."""


@dataclass(frozen=True, slots=True, eq=False)
class HubSamples:
    """Rows of a split. `images` has the one column `image`, undecoded; `masks` likewise.

    `classes` are numbers, one for each row; None where masks say what images are.
    """

    images: Any
    image: str
    masks: Any
    mask: str
    classes: NDArray[np.int64] | None
    name: str
    most: int | None

    def __len__(self) -> int:
        return len(self.images)

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        """See `Samples`."""
        image = decode(self._source(self.images, self.image, number), mode)
        if self.classes is not None:
            return image, int(self.classes[number])
        return image, read_mask(self._source(self.masks, self.mask, number), self.most)

    def label(self, number: int) -> str:
        """See `Samples`."""
        return f"{self.name}, row {number}"

    def targets(self) -> Sequence[int] | None:
        """See `Samples`."""
        return None if self.classes is None else [int(each) for each in self.classes]

    def bytes_of(self, number: int) -> bytes:
        """An image as it is stored."""
        return self._source(self.images, self.image, number).read()

    def _source(self, rows: Any, column: str, number: int) -> ImageSource:
        found = rows[number][column]
        content = found.get("bytes") if isinstance(found, Mapping) else found
        place = found.get("path") if isinstance(found, Mapping) else None
        if content is None and place:
            return ImageSource(place, Path(place))
        name = self.label(number)
        return ImageSource(name, Path(name), content if isinstance(content, bytes) else b"")


def open_hub(data: Data, classes: int | None) -> Dataset:
    """The data set that `data.path` names: a local folder or file, or `NAME` or `NAME:CONFIG`.

    Raises `EnvironmentFailure`, also for what the library says.
    """
    if data.path is None:
        raise EnvironmentFailure(
            "the data set is not named", help="`--data hf:NAME`, or `data.path`"
        )
    splits = _splits(data.path)
    train = _split(splits, data.train or TRAIN, data.path)
    usual = next((name for name in HELD_OUT if name in splits), None)
    named = data.held_out or (usual if usual != (data.train or TRAIN) else None)
    held_out = None if named is None else _split(splits, named, data.path)
    columns = _Columns.of(train, data)
    known = columns.classes(train)
    samples = columns.samples(train, f"{data.path} {data.train or TRAIN}", known, classes)
    rest = (
        None
        if held_out is None
        else columns.samples(held_out, f"{data.path} {named}", known, classes)
    )
    seen = sha256(_fingerprint(samples))
    chosen: tuple[Samples, Samples | None] = samples, rest
    if rest is None:
        chosen = parted(samples, lambda number: number.to_bytes(8, "little"), data.hold_out)
        seen.update(repr(data.hold_out).encode())
    else:
        seen.update(_fingerprint(rest))
    return Dataset(
        name=Path(data.path).name,
        train=chosen[0],
        held_out=chosen[1],
        classes=known,
        fingerprint=seen.hexdigest(),
        description=f"`{data.path}` by the library datasets",
    )


# ------------------------------------------------------------------------------------- loading


def _splits(path: str) -> Mapping[str, Any]:
    try:
        import datasets
    except ImportError:
        raise EnvironmentFailure(
            "data sets of Hugging Face need the library `datasets`",
            help="`pip install 'cnnspec[datasets]'`",
        ) from None
    local = Path(path)
    with _explained(path), _silently(datasets, bars=not local.exists()):
        if local.is_file():
            return {TRAIN: datasets.load_dataset(_builder(local), data_files=str(local))[TRAIN]}
        if not local.is_dir():
            name, _, config = path.partition(":")
            return dict(datasets.load_dataset(name, config or None))
        stored = any((local / name).exists() for name in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(path) if stored else datasets.load_dataset(path)
        return dict(found) if isinstance(found, Mapping) else {TRAIN: found}


def _builder(file: Path) -> str:
    if file.suffix == ".parquet":
        return "parquet"
    raise EnvironmentFailure(f"`{file}` is no parquet file", help="its name ends with `.parquet`")


@contextmanager
def _silently(datasets: Any, *, bars: bool) -> Iterator[None]:
    """Without the library's log, whose errors are raised too, and perhaps without its bars."""
    level, hidden = datasets.logging.get_verbosity(), datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    fetching = logging.getLogger("huggingface_hub")
    before = fetching.level
    fetching.setLevel(logging.CRITICAL)
    if not bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        fetching.setLevel(before)
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except EnvironmentFailure:
        raise
    except Exception as failure:  # the library raises what the libraries below it do
        said = _CLASS.sub("", _first_line(failure))
        hint = "" if os.path.exists(path) else "is it a folder that is not there?"
        raise EnvironmentFailure(
            f"data set `{path}` cannot be loaded: {said.rstrip('.')}", help=hint
        ) from None


def _first_line(failure: BaseException) -> str:
    """What the first cause of a failure says, which the library wraps."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    lines = (line.strip() for line in str(failure).splitlines())
    return next(filter(None, lines), type(failure).__name__)


def _split(splits: Mapping[str, Any], name: str, path: str) -> Any:
    if name not in splits:
        raise EnvironmentFailure(
            f"`{path}` has no split `{name}`",
            help=did_you_mean(name, splits) or f"it has {listed(splits)}",
        )
    if not len(splits[name]):
        raise EnvironmentFailure(f"split `{name}` of `{path}` is empty")
    return splits[name]


# ------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column holds images and which what they are."""

    image: str
    label: str
    masked: bool

    @classmethod
    def of(cls, rows: Any, data: Data) -> _Columns:
        features = rows.features
        images = [name for name, kind in features.items() if _holds_images(kind)]
        image = _named(data.image, "image", features, images, _IMAGES)
        asked = data.masks or data.label
        others = [name for name, kind in features.items() if name != image and _tells(kind)]
        label = _named(asked, "masks" if data.masks else "label", features, others, _LABELS)
        return cls(image, label, data.masks is not None or _holds_images(features[label]))

    def classes(self, rows: Any) -> tuple[str, ...]:
        """Names of the classes, in order; none where numbers alone are known."""
        names = getattr(rows.features[self.label], "names", None)
        if names:
            return tuple(map(str, names))
        if self.masked or rows.features[self.label].dtype not in ("string", "large_string"):
            return ()
        return tuple(sorted({str(each) for each in self._values(rows)}))

    def samples(self, rows: Any, name: str, known: tuple[str, ...], most: int | None) -> HubSamples:
        return HubSamples(
            images=_undecoded(rows, self.image),
            image=self.image,
            masks=_undecoded(rows, self.label) if self.masked else None,
            mask=self.label,
            classes=None if self.masked else self._numbers(rows, name, known),
            name=name,
            most=most,
        )

    def _values(self, rows: Any) -> list[Any]:
        found: list[Any] = (
            rows.select_columns([self.label]).with_format("arrow")[:][self.label].to_pylist()
        )
        return found

    def _numbers(self, rows: Any, name: str, known: tuple[str, ...]) -> NDArray[np.int64]:
        values = self._values(rows)
        places = {each: number for number, each in enumerate(known)}
        if any(isinstance(each, str) for each in values):
            values = [places.get(each) for each in values]
        for row, value in enumerate(values):
            # -1 is how splits without labels are published.
            if not isinstance(value, int) or value < 0:
                raise EnvironmentFailure(f"{name}, row {row} has no class in `{self.label}`")
        return np.array(values, dtype=np.int64)


def _named(
    asked: str | None,
    what: str,
    features: Mapping[str, Any],
    fitting: Sequence[str],
    usual: Sequence[str],
) -> str:
    if asked is not None:
        if asked not in features:
            raise EnvironmentFailure(
                f"there is no column `{asked}`",
                help=did_you_mean(asked, features) or f"there are {listed(features)}",
            )
        return asked
    if len(fitting) == 1:
        return fitting[0]
    for name in usual:
        if name in fitting:
            return name
    wanted = "images" if what == "image" else "classes"
    found = f"several columns may hold {wanted}" if fitting else f"no column holds {wanted}"
    raise EnvironmentFailure(
        f"{found}; there are {listed(features)}", help=f"`data.{what}` names the column"
    )


def _holds_images(kind: Any) -> bool:
    """An image, or the bytes of its file, alone or beside its path."""
    if isinstance(kind, Mapping):
        return "bytes" in kind
    return type(kind).__name__ == "Image" or getattr(kind, "dtype", None) in (
        "binary",
        "large_binary",
    )


def _tells(kind: Any) -> bool:
    dtype = getattr(kind, "dtype", None)
    whole = isinstance(dtype, str) and dtype.startswith(("int", "uint"))
    return whole or dtype in ("string", "large_string") or _holds_images(kind)


def _undecoded(rows: Any, column: str) -> Any:
    import datasets

    alone = rows.select_columns([column])
    if type(alone.features[column]).__name__ == "Image":
        alone = alone.cast_column(column, datasets.Image(decode=False))
    return alone


def _fingerprint(samples: HubSamples) -> bytes:
    """Of all classes, the number of rows, and some images spread evenly."""
    seen = sha256(len(samples).to_bytes(8, "little"))
    if samples.classes is not None:
        seen.update(samples.classes.astype("<i8", copy=False).tobytes())
    for number in range(0, len(samples), max(len(samples) // _SIZED, 1)):
        try:
            seen.update(samples.bytes_of(number))
        except EnvironmentFailure:
            seen.update(b"unreadable")
    return seen.digest()
