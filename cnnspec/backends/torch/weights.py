"""Weights from elsewhere: files read without running what they hold, and matched with a network.

Nothing here knows a graph. A pickle is read by torch's restricted unpickler only, which builds
tensors and plain containers and calls nothing else.
"""

from __future__ import annotations

import os
import pickle
import warnings
import zlib
from argparse import Namespace
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from cnnspec.diagnostics import (
    EnvironmentFailure,
    listed,
    nearest,
    quantity,
    shape_text,
)

__all__ = [
    "Match",
    "Misshapen",
    "StateDict",
    "WeightsMismatch",
    "match",
    "read_weights",
    "unprefixed",
]

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema",
)
"""Keys under which training programs put a state dict, the plain ones before averages."""

_COUNTER = "num_batches_tracked"
_AVERAGED = "n_averaged"
_SHOWN = 8
_DEEPEST = 4
_LARGEST_HEADER = 100_000_000
_CHUNK = 1 << 20
_ODD_ARCHIVE = (BadZipFile, OSError, ValueError, NotImplementedError, EOFError, zlib.error)
"""What reading an archive raises where some of it is not what it was."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """What a file holds: tensors by key, and what was done to get at them, one remark each."""

    tensors: Mapping[str, Tensor]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Misshapen:
    """A tensor whose key is known and whose shape is another than the network's."""

    key: str
    given: tuple[int, ...]
    wanted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """How tensors fit a network, by key.

    `uncounted` are counters of batches that are not given, as in old checkpoints: they start at 0.
    `converted` are pairs of types, given and wanted, with the number of tensors. `near` has, for
    some missing keys, an unexpected one that may be meant.
    """

    taken: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[Misshapen, ...]
    uncounted: tuple[str, ...]
    converted: Mapping[tuple[str, str], int]
    near: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the network is given, and nothing else."""
        return not (self.missing or self.unexpected or self.misshapen)

    def lines(self) -> Iterator[str]:
        """What is taken and what does not fit, in lines; long lists by level."""
        total = len(self.taken) + len(self.missing) + len(self.misshapen) + len(self.uncounted)
        yield f"{len(self.taken)} of {quantity(total, 'tensor')} taken"
        yield from _grouped("missing", self.missing, self.near)
        yield from _grouped("unexpected", self.unexpected, {})
        if self.misshapen:
            yield f"{quantity(len(self.misshapen), 'tensor')} of another shape:"
            for odd in self.misshapen[:_SHOWN]:
                yield f"  {odd.key}: {shape_text(odd.given)}, not {shape_text(odd.wanted)}"
            if len(self.misshapen) > _SHOWN:
                yield f"  and {len(self.misshapen) - _SHOWN} more"
        if self.uncounted:
            yield f"{quantity(len(self.uncounted), 'counter')} of batches not given, taken as 0"
        for (given, wanted), count in self.converted.items():
            yield f"{quantity(count, 'tensor')} converted from {given} to {wanted}"


class WeightsMismatch(EnvironmentFailure):
    """Weights are not those of the network; `match` has every key."""

    def __init__(self, message: str, match: Match, *, help: str) -> None:
        self.match = match
        super().__init__(message, help=help)
        self.add_note("\n".join(match.lines()))


# ------------------------------------------------------------------------------------ reading


def read_weights(path: str | os.PathLike[str]) -> StateDict:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote.

    What kind it is says its content, not its name. Tensors of both stay on disk until they are
    read, except in files of torch before 1.6. A state dict may be inside a checkpoint.

    Raises `EnvironmentFailure` for a file that is missing, damaged, or of another kind, and for one
    that holds more than tensors and plain values, which only running its code could read.
    """
    name = os.fspath(path)
    kind = _kind(Path(path), name)
    if kind == "safetensors":
        return StateDict(_read_safetensors(name))
    if kind == "zip":
        _refuse_other_archives(name)
        _refuse_damaged_archive(name)
    remarks: list[str] = []
    state = _unwrapped(_read_torch(name, zipped=kind == "zip"), name, remarks)
    return StateDict(state, tuple(remarks))


def _kind(path: Path, name: str) -> str:
    """What the first bytes of a file say that it is: `safetensors`, `zip` or `pickle`."""
    if path.is_dir():
        raise EnvironmentFailure(f"`{name}` is a folder, not a file of weights")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise EnvironmentFailure(f"there is no file `{name}`") from None
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{name}` cannot be read: {reason}") from None
    if not start:
        raise EnvironmentFailure(f"`{name}` is empty")
    if start.startswith(b"PK"):
        return "zip"
    if start.startswith(b"\x80"):
        return "pickle"
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    if path.suffix == ".safetensors":
        raise _damaged(name)
    raise _foreign(name)


def _foreign(name: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"`{name}` is no file of weights",
        help="weights come from a `.safetensors` file, or from one that `torch.save` wrote",
    )


def _damaged(name: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"`{name}` is damaged: it ends too early, or some of it is not what it was",
        help="copy or download it again",
    )


def _read_safetensors(name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(name, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError):
        raise _damaged(name) from None


def _refuse_other_archives(name: str) -> None:
    """Raise for a zip archive that `torch.save` did not write."""
    try:
        with ZipFile(name) as archive:
            inside = {PurePosixPath(entry).name for entry in archive.namelist()}
    except _ODD_ARCHIVE:
        raise _damaged(name) from None
    if "constants.pkl" in inside:
        raise EnvironmentFailure(
            f"`{name}` is a program of TorchScript, which is not run",
            help="write its weights anew: `torch.save(torch.jit.load(FILE).state_dict(), FILE)`",
        )
    if "data.pkl" not in inside:
        raise _foreign(name)


def _refuse_damaged_archive(name: str) -> None:
    """Raise for an archive of which some bytes are not those that were written.

    `torch.load` does not look. An entry without a checksum, as `torch.save` writes where it was
    told to leave them away, is taken as it is.
    """
    try:
        with ZipFile(name) as archive:
            for entry in archive.infolist():
                if entry.CRC:
                    with archive.open(entry) as file:
                        while file.read(_CHUNK):
                            pass
    except _ODD_ARCHIVE:
        raise _damaged(name) from None


def _read_torch(name: str, *, zipped: bool) -> object:
    try:
        # Training programs keep their options beside the weights; an `argparse.Namespace` is a
        # plain holder of values.
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(name, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError:
        raise _holds_code(name, zipped) from None
    except MemoryError:
        raise
    except Exception:
        # The reader of archives and the unpickler raise what they please on damaged input.
        raise _damaged(name) from None


def _holds_code(name: str, zipped: bool) -> EnvironmentFailure:
    """What to say about a pickle that the restricted unpickler refuses."""
    found: list[str] = []
    if zipped:
        try:
            found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(name))
        except Exception:
            return _damaged(name)
    foreign = [word for word in found if not word.startswith("argparse.Namespace")]
    what = f" ({listed(foreign[:3])})" if foreign else ", or is damaged"
    return EnvironmentFailure(
        f"`{name}` holds more than tensors{what}: reading that could run any code, so it is not "
        "read",
        help="where it is trusted, write its weights anew: `torch.save(model.state_dict(), FILE)`",
    )


def _unwrapped(found: object, name: str, remarks: list[str]) -> dict[str, Tensor]:
    """The state dict in what was unpickled, which may be a checkpoint around it."""
    for _ in range(_DEEPEST):
        if not isinstance(found, Mapping):
            break
        inner = [key for key in _WRAPPERS if _has_tensors(found.get(key))]
        if not inner:
            break
        chosen, *others = inner
        remark = f"taken from `{chosen}` of the checkpoint"
        if others:
            remark += f", which also has {listed(others)}"
        remarks.append(remark)
        found = found[chosen]
    if not isinstance(found, Mapping) or not _has_tensors(found):
        raise EnvironmentFailure(
            f"`{name}` holds no weights: {_what_it_is(found)}",
            help="a file of weights has tensors by key, as `model.state_dict()` gives them, itself "
            f"or under {', '.join(f'`{key}`' for key in _WRAPPERS[:3])}",
        )
    others = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if others:
        remarks.append(f"passed over, being no tensors: {_some(others)}")
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def _has_tensors(found: object, depth: int = _DEEPEST) -> bool:
    """Whether a mapping has tensors, or is a checkpoint around one that has."""
    if not isinstance(found, Mapping) or depth == 0:
        return False
    if any(isinstance(value, Tensor) for value in found.values()):
        return True
    return any(_has_tensors(found.get(key), depth - 1) for key in _WRAPPERS)


def _what_it_is(found: object) -> str:
    if isinstance(found, Tensor):
        return "it is a single tensor"
    if isinstance(found, Mapping):
        keys = [str(key) for key in found]
        return f"its keys are {_some(keys)}" if keys else "it is empty"
    return "it is no mapping of tensors by key"


def _some(names: Sequence[str]) -> str:
    shown = listed(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def unprefixed(given: StateDict, known: Container[str]) -> StateDict:
    """Tensors without what data parallelism, `torch.compile` and averaging add to their keys.

    Nothing is taken away where one of the keys is `known` as it is.
    """
    state, remarks = dict(given.tensors), list(given.remarks)
    if any(key in known for key in state):
        return given
    compiled = [key for key in state if "_orig_mod" in key.split(".")]
    if compiled:
        state = {
            ".".join(part for part in key.split(".") if part != "_orig_mod"): tensor
            for key, tensor in state.items()
        }
        remarks.append(f"`_orig_mod.` of torch.compile taken away from {_keys(compiled)}")
    keys = [key for key in state if key != _AVERAGED]
    rounds = 0
    while keys and all(key.startswith("module.") and key not in known for key in keys):
        keys = [key.removeprefix("module.") for key in keys]
        rounds += 1
    if rounds:
        prefix = "module." * rounds
        state = {key.removeprefix(prefix): t for key, t in state.items() if key != _AVERAGED}
        remarks.append(f"`{prefix}` of data parallelism or averaging taken away from {_keys(keys)}")
    return StateDict(state, tuple(remarks))


def _keys(keys: Sequence[str]) -> str:
    return quantity(len(keys), "key")


# ------------------------------------------------------------------------------------ matching


def match(
    wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], *, partial: bool = False
) -> Match:
    """How given tensors fit those of a module's state dict.

    A counter of batches may be missing where the statistics it belongs to are given, as torch
    has it for checkpoints from before there were any. Any real type becomes any other.

    Raises `WeightsMismatch` unless everything fits, or with `partial` at least something does.
    """
    taken: list[str] = []
    missing: list[str] = []
    uncounted: list[str] = []
    misshapen: list[Misshapen] = []
    converted: Counter[tuple[str, str]] = Counter()
    for key, tensor in wanted.items():
        found = given.get(key)
        if found is None:
            level, _, last = key.rpartition(".")
            tracked = last == _COUNTER and f"{level}.running_mean".lstrip(".") in given
            (uncounted if tracked else missing).append(key)
        elif not _fits(found, tensor):
            misshapen.append(Misshapen(key, tuple(found.shape), tuple(tensor.shape)))
        else:
            _refuse_odd(key, found)
            taken.append(key)
            if found.dtype != tensor.dtype:
                converted[_dtype(found), _dtype(tensor)] += 1
    unexpected = [key for key in given if key not in wanted]
    result = Match(
        tuple(taken),
        tuple(missing),
        tuple(unexpected),
        tuple(misshapen),
        tuple(uncounted),
        dict(sorted(converted.items())),
        _near(missing, unexpected, wanted, given),
    )
    if result.complete or (partial and taken) or (partial and not wanted):
        return result
    raise WeightsMismatch(_summary(result), result, help=_hint(result, wanted, given))


def _fits(found: Tensor, wanted: Tensor) -> bool:
    """Whether shapes agree; scalars of torch before 0.4 had one axis."""
    return found.shape == wanted.shape or (wanted.dim() == 0 and found.shape == (1,))


def _refuse_odd(key: str, found: Tensor) -> None:
    """Raise for a tensor that cannot be copied into a plain one without loss."""
    kind = ""
    if found.is_meta:
        kind = "without values"
    elif found.layout != torch.strided:
        kind = "sparse"
    elif found.is_complex():
        kind = "complex"
    elif found.is_quantized:
        kind = "quantized"
    if kind:
        raise EnvironmentFailure(f"the weights do not fit: `{key}` is {kind}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _summary(found: Match) -> str:
    """What does not fit, in one line, with the first of each kind."""
    parts = []
    if found.missing:
        parts.append(f"{quantity(len(found.missing), 'tensor')} missing ({_first(found.missing)})")
    if found.unexpected:
        count = len(found.unexpected)
        parts.append(f"{count} unexpected ({_first(found.unexpected)})")
    if found.misshapen:
        odd = found.misshapen[0]
        more = f", and {len(found.misshapen) - 1} more" if len(found.misshapen) > 1 else ""
        parts.append(f"`{odd.key}` is {shape_text(odd.given)}, not {shape_text(odd.wanted)}{more}")
    return f"the weights do not fit the network: {'; '.join(parts)}"


def _first(keys: Sequence[str]) -> str:
    return f"first `{keys[0]}`" if len(keys) > 1 else f"`{keys[0]}`"


def _hint(found: Match, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What would help, if anything can be told."""
    prefix = _common_level(given)
    if prefix and found.unexpected:
        inner = sum(key.removeprefix(prefix) in wanted for key in given)
        if inner > len(found.taken):
            return f"without `{prefix}` {inner} of {_keys(list(given))} would fit"
    for key, meant in found.near.items():
        return f"`{key}` of the network may be `{meant}` in the weights"
    if found.taken:
        return f"with `partial` what fits is taken: {quantity(len(found.taken), 'tensor')}"
    return "they are of another network, or its layers have other names"


def _common_level(keys: Iterable[str]) -> str:
    """The first level of paths if it is the same for all keys, with its dot."""
    levels = {key.partition(".")[0] if "." in key else "" for key in keys}
    return f"{levels.pop()}." if len(levels) == 1 and "" not in levels else ""


def _near(
    missing: Sequence[str],
    unexpected: Sequence[str],
    wanted: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
) -> dict[str, str]:
    """For the first missing keys the unexpected ones that may be meant, each once.

    One of the same shape and the same last part is meant if it is the only one, or near in name;
    else one that is near in name.
    """
    alike: dict[tuple[str, torch.Size], list[str]] = {}
    for key in unexpected:
        alike.setdefault((key.rpartition(".")[2], given[key].shape), []).append(key)
    left = list(unexpected[: _SHOWN * _SHOWN])
    found: dict[str, str] = {}
    for key in missing[:_SHOWN]:
        same = alike.get((key.rpartition(".")[2], wanted[key].shape), [])
        near = nearest(key, same[:_SHOWN]) or (same[0] if len(same) == 1 else nearest(key, left))
        if near is not None and near not in found.values():
            found[key] = near
    return found


def _grouped(what: str, keys: Sequence[str], near: Mapping[str, str]) -> Iterator[str]:
    """Keys in lines: each, or where they are many, their levels with counts."""
    if not keys:
        return
    yield f"{quantity(len(keys), 'tensor')} {what}:"
    if len(keys) <= _SHOWN:
        for key in keys:
            yield f"  {key}" + (f" (near: {near[key]})" if key in near else "")
        return
    levels = _levels(keys)
    for level, count in levels[:_SHOWN]:
        yield f"  {level} ({count})" if count > 1 else f"  {level}"
    if len(levels) > _SHOWN:
        rest = sum(count for _, count in levels[_SHOWN:])
        yield f"  and {rest} more"


def _levels(keys: Sequence[str]) -> list[tuple[str, int]]:
    """Keys by level, as deep as a few lines allow."""
    found: dict[str, int] = {}
    for depth in range(1, 1 + max(key.count(".") for key in keys) + 1):
        finer: Counter[str] = Counter()
        for key in keys:
            parts = key.split(".")
            finer[key if len(parts) <= depth else ".".join(parts[:depth]) + ".*"] += 1
        if found and len(finer) > _SHOWN:
            break
        found = dict(finer)
    return list(found.items())
