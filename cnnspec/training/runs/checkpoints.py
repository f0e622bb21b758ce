"""Checkpoints: a state put on the disk whole or not at all, and read only if it is what was put.

A file is what `torch.save` writes, a zip archive, so that `torch.load(path, weights_only=True)`
reads it anywhere. Its comment, the last bytes of the file, holds the SHA-256 of all that is before
the digest: a file that was cut off or changed by a single bit is known for what it is.

What a state means, and when it is stored, may not enter.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, cast

import torch
from torch import Tensor

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import replacing

if TYPE_CHECKING:
    from typing import Self

    from cnnspec.training.watching import EpochFigures

__all__ = [
    "LAST",
    "PREVIOUS",
    "DamagedCheckpoint",
    "DiskCheckpointer",
    "Found",
    "Places",
    "State",
    "newest",
    "read",
    "snapshot",
    "sweep",
    "write",
    "write_weights",
]

LAST: Final = "last.pt"
PREVIOUS: Final = "previous.pt"

State = dict[str, Any]
"""Tensors and plain values, in dictionaries, lists and tuples."""

_RUN: Final = "run"
"""The key of a state that says which run it is of."""

_MARK: Final = b"cnnspec checkpoint 1, sha256 "
_DIGEST: Final = 64
"""Bytes of a SHA-256 in hexadecimal."""

_CHUNK: Final = 1 << 20
_KEPT: Final = "the checkpoint before it is whole: mend this, then go on with --resume"


class DamagedCheckpoint(EnvironmentFailure):
    """A file that is not what was written as a checkpoint, or never was one."""


# ------------------------------------------------------------------------------------ copying


def snapshot(state: Mapping[str, Any]) -> State:
    """A copy of a state in the memory of the CPU that nothing changes any more.

    Tensors that are one stay one; layouts in memory stay. Raises `TypeError` for values that
    `torch.load` would not read with `weights_only=True`, and says where they are.
    """
    return cast(State, _copied(state, "state", {}))


def _copied(value: object, place: str, seen: dict[object, Tensor]) -> object:
    if isinstance(value, Tensor):
        if not value.numel():
            return value.detach().to("cpu", copy=True)
        key = _identity(value)
        if key not in seen:
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(value, Mapping):
        odd = [key for key in value if type(key) not in (str, int)]
        if odd:
            raise TypeError(f"{place} has the key {odd[0]!r}, which is neither text nor a number")
        return {key: _copied(item, f"{place}.{key}", seen) for key, item in value.items()}
    if type(value) in (list, tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        copies = [_copied(item, f"{place}.{n}", seen) for n, item in enumerate(items)]
        return copies if type(value) is list else tuple(copies)
    if value is None or type(value) in (str, int, float, bool, bytes):
        return value
    raise TypeError(f"{place} is a {type(value).__name__}, which a checkpoint cannot hold")


def _identity(tensor: Tensor) -> object:
    """Equal for tensors that are one: the same elements of the same memory."""
    return (
        tensor.device,
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
    )


# ------------------------------------------------------------------------------------ writing


def write(path: Path, state: State) -> None:
    """Put a state at `path`; what was there goes to `previous.pt` beside it, if it is whole.

    The file appears under its name when the disk has all of it; until then, and if anything goes
    wrong, the old one stays. There is a whole file under one of the two names at any moment.

    Raises `EnvironmentFailure` where the file cannot be written.
    """
    _write(path, state, whole=path.exists() and _is_whole(path))


def _write(path: Path, state: State, *, whole: bool) -> None:
    """`whole` says whether what is at `path` is worth keeping as the previous one."""
    try:
        with replacing(path) as draft:
            _fill(draft, state, path)
            if whole:
                _keep(path, path.with_name(PREVIOUS))
        _settle_folder(path.parent)
    except EnvironmentFailure as failure:
        raise EnvironmentFailure(failure.message, help=_KEPT if path.exists() else "") from None


def _fill(draft: Path, state: State, path: Path) -> None:
    # Not buffered: nothing may be left for a worker that is forked meanwhile to write again.
    with draft.open("wb", buffering=0) as raw:
        file = _Hashing(raw)
        try:
            torch.save(state, cast(IO[bytes], file))
            file.finish()
        except RuntimeError:
            # torch wraps what `write` raised into an error of its own.
            if file.failure is None:
                raise
        if file.failure is None:
            try:
                os.fsync(raw.fileno())
            except OSError as failure:
                file.failure = failure
    if file.failure is not None:
        reason = (file.failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{path}` cannot be written: {reason}")


class _Hashing:
    """A file that hashes what passes, for an archive whose comment becomes the digest.

    torch aborts the process in some cases where a write fails: what fails is kept in `failure`, and
    the rest is swallowed.
    """

    def __init__(self, file: RawIOBase | Any) -> None:
        self.failure: OSError | None = None
        self._file = file
        self._hash = sha256()
        self._tail = b""

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`. The last two bytes wait: at the end they count the comment."""
        held = memoryview(data)
        size = len(held)
        if size >= 2:
            self._put(self._tail)
            self._put(held[:-2])
            self._tail = bytes(held[-2:])
        else:
            joined = self._tail + bytes(held)
            self._put(joined[:-2])
            self._tail = joined[-2:]
        return size

    def flush(self) -> None:
        """Nothing waits but the tail."""

    def finish(self) -> None:
        """Put the digest into the archive's comment, whose length is its last two bytes."""
        if self._tail != b"\0\0":
            raise RuntimeError("torch.save did not end with an archive without a comment")
        self._put((len(_MARK) + _DIGEST).to_bytes(2, "little"))
        self._put(_MARK)
        self._put(self._hash.hexdigest().encode())

    def _put(self, data: bytes | memoryview) -> None:
        if self.failure is not None:
            return
        self._hash.update(data)
        rest = memoryview(data)
        try:
            while rest:
                written = self._file.write(rest)
                if not written:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                rest = rest[written:]
        except OSError as failure:
            self.failure = failure


def _keep(path: Path, previous: Path) -> None:
    """Have what is at `path` under the other name too, in one step."""
    link = previous.with_name(f".{previous.name}.{os.urandom(4).hex()}.tmp")
    try:
        os.link(path, link)
        link.replace(previous)
        # Two names of one file do not replace each other: both stay.
        link.unlink(missing_ok=True)
    except OSError:
        # A system without links: for a moment there is the previous one alone.
        with suppress(OSError):
            link.unlink(missing_ok=True)
        try:
            path.replace(previous)
        except OSError as failure:
            reason = (failure.strerror or "unknown reason").lower()
            raise EnvironmentFailure(f"`{previous}` cannot be written: {reason}") from None


def _settle_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder, on systems that can be told to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove drafts in a folder that a killed process left. Nobody else may be writing there."""
    for draft in folder.glob(".*.tmp"):
        with suppress(OSError):
            draft.unlink()


class Places(Protocol):
    """Where a run keeps what it makes; `cnnspec.training.runs.run_folder` has them."""

    @property
    def identity(self) -> str:
        """What tells states of this run from those of others."""

    @property
    def checkpoints(self) -> Path:
        """The folder of states."""

    @property
    def best(self) -> Path:
        """The file of the best weights."""

    @property
    def weights(self) -> Path:
        """The file of the final weights."""


class DiskCheckpointer:
    """Keeps states and weights of a run while training goes on.

    `save` copies the state and comes back; a thread writes the copy. Two copies wait at most: who
    comes with a third waits until the first is on the disk. What goes wrong in the thread is
    raised by a later call or by `settle`, which leaving the block does. `saved` is called in the
    thread with the path of a state that is on the disk, `finishing` before the final weights are
    written, which say that a run is finished.
    """

    def __init__(
        self,
        places: Places,
        saved: Callable[[str], None] | None = None,
        finishing: Callable[[], None] | None = None,
    ) -> None:
        self._places = places
        self._saved = saved
        self._finishing = finishing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: deque[Future[None]] = deque()
        self._whole = False

    def __enter__(self) -> Self:
        sweep(self._places.checkpoints)
        sweep(self._places.weights.parent)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.settle()
        except EnvironmentFailure:
            if raised is None:
                raise
        finally:
            self._thread.shutdown()

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep what `state` is now, to go on from. Raises `EnvironmentFailure` for earlier ones."""
        self._submit(self._write_state, snapshot({**state, _RUN: self._places.identity}))

    def save_best(self, tensors: Mapping[str, Tensor], figures: EpochFigures) -> None:
        """Keep the best weights so far, and in the file's metadata the figures that they have."""
        about = {"epoch": figures.epoch + 1, "held_out": dict(figures.held_out)}
        metadata = {"format": "pt", "cnnspec": json.dumps(about, sort_keys=True)}
        self._submit(write_weights, self._places.best, snapshot(tensors), metadata)

    def save_final(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep the weights that the run ends with; all else is on the disk before them.

        They are on the disk when this comes back. Raises `EnvironmentFailure`.
        """
        self.settle()
        if self._finishing is not None:
            self._finishing()
        write_weights(self._places.weights, tensors, {"format": "pt"})

    def settle(self) -> None:
        """Wait until all is on the disk; raises `EnvironmentFailure` for what is not."""
        while self._pending:
            self._pending.popleft().result()

    def _submit(self, work: Callable[..., None], *arguments: object) -> None:
        while len(self._pending) > 1 or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(work, *arguments))

    def _write_state(self, state: State) -> None:
        path = self._places.checkpoints / LAST
        whole = self._whole or (path.exists() and _is_whole(path))
        _write(path, state, whole=whole)
        self._whole = True
        if self._saved is not None:
            self._saved(os.fspath(path))


# ------------------------------------------------------------------------------------ reading


@dataclass(frozen=True, slots=True)
class Found:
    """The newest state of a folder that is whole, and what there is to say about newer ones."""

    state: State
    path: Path
    notes: tuple[str, ...] = ()


def newest(folder: Path, run: str | None = None) -> Found | None:
    """The last state of a folder, or the one before it where the last one is damaged.

    None where no state was ever stored. Raises `EnvironmentFailure` where none of those that were
    is whole, where one cannot be read, and for that of another run than `run`, where that is given.
    """
    damaged: list[str] = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = read(path)
        except DamagedCheckpoint as failure:
            damaged.append(failure.message)
            continue
        if run is not None and state.get(_RUN) != run:
            raise EnvironmentFailure(
                f"`{path}` is a checkpoint of another run",
                help="put back the file that belongs here, or begin anew with -o",
            )
        notes = tuple(damaged)
        if name == PREVIOUS:
            reason = "" if damaged else f"there is no `{folder / LAST}`: "
            notes = (*notes, f"{reason}training goes on from `{path}`, the checkpoint before it")
        return Found(state, path, notes)
    if damaged:
        raise EnvironmentFailure(
            f"no checkpoint in `{folder}` is whole: nothing can be resumed",
            help="start again in another folder",
        )
    return None


def read(path: Path) -> State:
    """The state in a file, its tensors in the memory of the CPU.

    Raises `DamagedCheckpoint` for a file of which any byte is not the one that was written, and
    `EnvironmentFailure` for one that cannot be read.
    """
    if not _is_whole(path):
        raise DamagedCheckpoint(
            f"`{path}` is damaged: it ends too early, or some of it is not what was written"
        )
    try:
        return cast(State, torch.load(path, map_location="cpu", weights_only=True))
    except OSError as failure:
        raise _unreadable(path, failure) from None
    except Exception as failure:
        # The checksum is right: this torch does not read what another one wrote.
        raise EnvironmentFailure(
            f"`{path}` is whole, but torch {torch.__version__} does not read it"
        ) from failure


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the digest of all that is before it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            left = size - _DIGEST
            if left < len(_MARK):
                return False
            file.seek(left - len(_MARK))
            if file.read(len(_MARK)) != _MARK:
                return False
            file.seek(0)
            found = sha256()
            while left:
                piece = file.read(min(_CHUNK, left))
                if not piece:
                    return False
                found.update(piece)
                left -= len(piece)
            return file.read() == found.hexdigest().encode()
    except OSError as failure:
        raise _unreadable(path, failure) from None


def _unreadable(path: Path, failure: OSError) -> EnvironmentFailure:
    reason = (failure.strerror or "unknown reason").lower()
    return EnvironmentFailure(f"`{path}` cannot be read: {reason}")


# ------------------------------------------------------------------------------------ weights


def write_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Put tensors into a `.safetensors` file at `path`, whole or not at all.

    Tensors are contiguous there, and those that are one stand under their first name only, as
    safetensors' `load_model` expects it. `about` is its metadata.

    Raises `EnvironmentFailure` where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    seen: set[object] = set()
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = _identity(tensor)
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        # A view of a larger tensor would be written with memory that is not its own.
        plain[name] = tensor.detach().to("cpu", copy=True).contiguous()
    with replacing(path) as draft:
        mode = draft.stat().st_mode & 0o777
        try:
            save_file(plain, draft, dict(about))
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            # safetensors writes for the owner alone.
            draft.chmod(mode)
        except (SafetensorError, OSError) as failure:
            reason = str(failure).rpartition(": ")[2].partition(" (os error")[0].lower()
            raise EnvironmentFailure(f"`{path}` cannot be written: {reason}") from None
    _settle_folder(path.parent)
