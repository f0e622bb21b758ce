"""The file, and the one beside it where weights take more than 2 GB: both whole, or neither.

What a model means may not enter.

A file of weights is named after its content (`NAME.onnx.0123456789ab.data`). So it never takes the
place of one that another model reads: a model that is replaced keeps its own weights until the
moment it goes, and none is ever beside weights of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx

from cnnspec.backends.onnx.encoding import encoded, outside
from cnnspec.backends.onnx.writer import Array
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import replacing, write_draft

__all__ = ["LARGEST", "Draft", "storing"]

LARGEST = 2**31 - 2**24
"""Bytes of weights that one file holds: protobuf ends at 2 GiB, with room left for the nodes."""

_LARGEST_MODEL = 100_000_000
"""Bytes of a model whose weights are beside it; a larger one has them inside."""


class Draft:
    """A model that is not under its name yet. `place` is where it is, to be looked at.

    `data` is the name of the file with its weights, None where they are inside. `size` is that of
    all files, in bytes.
    """

    def __init__(self, place: Path, target: Path) -> None:
        self.place = place
        self.data: str | None = None
        self.size = 0
        self._target = target
        self._fresh: Path | None = None

    def write(self, model: onnx.ModelProto, arrays: Mapping[str, Array]) -> None:
        """Write `model`, with `arrays` as further initializers by name."""
        weights = sum(array.nbytes for array in arrays.values())
        if weights <= LARGEST:
            write_draft(self.place, encoded(model, arrays), self._target)
            self.size = self.place.stat().st_size
            return
        if self._target.is_symlink():
            raise EnvironmentFailure(
                f"`{self._target}` cannot be written: it is a link, and weights of "
                f"{weights / 1e9:.1f} GB need a file beside it"
            )
        away = outside(arrays)
        self.data = f"{self._target.name}.{away.digest()[:12]}.data"
        place = self.place.with_name(self.data)
        if not place.exists():
            self._fresh = place
        with replacing(place) as draft:
            write_draft(draft, away.pieces(), self._target)
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        whole.graph.initializer.extend(away.tensors(self.data))
        near = {name: array for name, array in arrays.items() if name not in away.arrays}
        write_draft(self.place, encoded(whole, near), self._target)
        self.size = self.place.stat().st_size + place.stat().st_size

    def withdraw(self) -> None:
        """Remove the file of weights, unless it was there before or the model in place reads it."""
        if self._fresh is not None and self._fresh.name not in _weights_of(self._target):
            with suppress(OSError):
                self._fresh.unlink(missing_ok=True)


@contextmanager
def storing(path: str | os.PathLike[str]) -> Iterator[Draft]:
    """A draft of a model, which takes its place at `path` if the block ends well.

    In any other end everything is as it was. Raises `EnvironmentFailure` where no file can be put
    there.
    """
    target = Path(path)
    old = _weights_of(target)
    draft: Draft | None = None
    try:
        with replacing(target) as place:
            draft = Draft(place, target)
            yield draft
    except BaseException:
        if draft is not None:
            draft.withdraw()
        raise
    for name in old - {draft.data}:
        with suppress(OSError):
            target.with_name(name).unlink()


def _weights_of(model: Path) -> set[str]:
    """The files of weights beside a model that were written for it, empty for any other file."""
    ours = re.compile(re.escape(model.name) + r"\.[0-9a-f]{12}\.data")
    try:
        if not any(ours.fullmatch(each.name) for each in model.parent.iterdir()):
            return set()
        if not model.is_file() or model.stat().st_size > _LARGEST_MODEL:
            return set()
        read = onnx.load_model(model, load_external_data=False)
    except Exception:
        return set()  # any file may be there, and protobuf's errors have no base that is public
    said = {
        entry.value
        for tensor in read.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {name for name in said if ours.fullmatch(name)}
