"""What an exported file says about itself, and what a spec says about its images.

One JSON object with a fixed format, equal to the byte for equal content. What is read from a file
is never trusted: every value is of the type it has to be and of a size that makes sense, or the
whole is refused. How files are written or run may not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from json import JSONDecodeError, dumps, loads
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args

from cnnspec.diagnostics import EnvironmentFailure

__all__ = [
    "KEY",
    "LARGEST_SIZE",
    "Colour",
    "InGraph",
    "Interpolation",
    "ModelMetadata",
    "Precision",
    "Preprocess",
    "Size",
    "tensors_hash",
]

KEY = "cnnspec"
"""The key of the JSON object in the metadata of a file."""

FORMAT = 1

Colour = Literal["rgb", "bgr", "grey"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
InGraph = Literal["none", "normalize", "full"]
Precision = Literal["float32", "float16", "int8"]
Size = Literal["fixed", "dynamic"]

_LONGEST = 64_000_000
"""Characters of a block that may be real: the flat spec of 100,000 layers has fewer."""

_MOST_LABELS = 1_000_000
_MOST_TENSORS = 10_000
_LONGEST_WORD = 10_000
LARGEST_SIZE = 2**31 - 1
"""The largest size of an axis that is believed."""

_HEX = frozenset("0123456789abcdef")

_Word = TypeVar("_Word")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How the images of a network become its input; every default is filled in.

    In this order: `resize` (one size is the shorter side, the longer one in proportion and cut to a
    whole number, as in torchvision; two are height and width; None leaves the size), `crop` of the
    centre (height and width), bytes times `scale`, minus `mean`, over `std` (one number for all
    channels, or one for each in the order of `colour`).
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    colour: Colour = "rgb"

    @property
    def channels(self) -> int:
        """Channels of an image: 1 for `grey`, else 3."""
        return 1 if self.colour == "grey" else 3

    @classmethod
    def of(cls, said: Mapping[str, object]) -> Preprocess:
        """What a mapping says, such as a spec's `preprocess`; what it leaves out has its default.

        Raises `EnvironmentFailure` where it makes no sense.
        """
        reader = _Reader(said, "`preprocess`")
        given = {key: value for key, value in said.items() if value is not None}
        known: dict[str, Any] = {}
        for key in given:
            match key:
                case "resize":
                    value = given[key]
                    pair = isinstance(value, (list, tuple))
                    known[key] = reader.pair(key) if pair else reader.size(key)
                case "crop":
                    known[key] = reader.pair(key)
                case "interpolation":
                    known[key] = reader.word(key, get_args(Interpolation))
                case "colour":
                    known[key] = reader.word(key, get_args(Colour))
                case "scale":
                    known[key] = reader.number(key, given[key])
                case "mean" | "std":
                    known[key] = reader.numbers(key)
        found = cls(**known)
        for key in ("mean", "std"):
            if len(getattr(found, key)) not in (1, found.channels):
                raise reader.odd(key, f"one number, or {found.channels} for `{found.colour}`")
        if 0.0 in found.std:
            raise reader.odd("std", "no zero: it divides")
        return found

    def to_dict(self) -> dict[str, object]:
        """As `of` reads it, with what JSON has."""
        pair = isinstance(self.resize, tuple)
        return {
            "resize": list(cast(tuple[int, int], self.resize)) if pair else self.resize,
            "crop": None if self.crop is None else list(self.crop),
            "interpolation": self.interpolation,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "colour": self.colour,
        }


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a file says about itself.

    `spec` is the flat YAML text of the network, `weights_sha256` a hash of the state dict it was
    made from, before any folding, `tensors_sha256` the `tensors_hash` of the initializers that the
    file and the one beside it hold. `inputs` and `outputs` are the shapes of the network at which
    it was exported, by name, without the batch; the file's own declarations say what is free.

    `in_graph` says how much of `preprocess` the file does itself, and so what it takes:

    - `none`: float32 NCHW, preprocessed;
    - `normalize`: float32 NCHW, resized, cropped and times `scale`, in RGB (or one channel for
      `grey`);
    - `full`: uint8 NHWC, the images of a batch of one size, in RGB (or one channel for `grey`).

    With `softmax` probabilities come out.
    """

    name: str
    spec: str
    weights_sha256: str
    tensors_sha256: str
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    in_graph: InGraph = "none"
    softmax: bool = False
    precision: Precision = "float32"
    batch: int | Literal["dynamic"] = "dynamic"
    size: Size = "fixed"
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def spec_sha256(self) -> str:
        """The SHA-256 of `spec` in UTF-8, in hexadecimal."""
        return sha256(self.spec.encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """The JSON object, its keys in a fixed order."""
        return {
            "format": FORMAT,
            "name": self.name,
            "spec": self.spec,
            "spec_sha256": self.spec_sha256,
            "weights_sha256": self.weights_sha256,
            "tensors_sha256": self.tensors_sha256,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "outputs": {name: list(shape) for name, shape in self.outputs.items()},
            "labels": None if self.labels is None else list(self.labels),
            "preprocess": None if self.preprocess is None else self.preprocess.to_dict(),
            "in_graph": self.in_graph,
            "softmax": self.softmax,
            "precision": self.precision,
            "batch": self.batch,
            "size": self.size,
            "versions": dict(sorted(self.versions.items())),
        }

    def to_json(self) -> str:
        """The JSON object as ASCII text without line breaks, equal for equal content."""
        return dumps(self.to_dict(), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelMetadata:
        """What `to_json` wrote; keys of later versions are passed over.

        Raises `EnvironmentFailure` for text that is anything else.
        """
        if len(text) > _LONGEST:
            raise EnvironmentFailure(
                f"{_WHAT} cannot be read: it has {len(text):,} characters", help=_HELP
            )
        try:
            found = loads(text)
            dumps(found, ensure_ascii=False).encode()  # half of a character is no text
        except (JSONDecodeError, RecursionError, ValueError):
            raise EnvironmentFailure(f"{_WHAT} cannot be read: it is no JSON", help=_HELP) from None
        if not isinstance(found, dict):
            raise EnvironmentFailure(f"{_WHAT} cannot be read: it is no object", help=_HELP)
        reader = _Reader(found, _WHAT)
        if found.get("format") != FORMAT or isinstance(found["format"], bool):
            raise reader.odd("format", f"{FORMAT}")
        metadata = cls(
            name=reader.text("name"),
            spec=reader.text("spec", _LONGEST),
            weights_sha256=reader.hash("weights_sha256"),
            tensors_sha256=reader.hash("tensors_sha256"),
            inputs=reader.shapes("inputs"),
            outputs=reader.shapes("outputs"),
            labels=reader.labels("labels"),
            preprocess=reader.preprocess("preprocess"),
            in_graph=cast(InGraph, reader.word("in_graph", get_args(InGraph))),
            softmax=reader.flag("softmax"),
            precision=cast(Precision, reader.word("precision", get_args(Precision))),
            batch=reader.batch("batch"),
            size=cast(Size, reader.word("size", get_args(Size))),
            versions=reader.texts("versions"),
        )
        if reader.hash("spec_sha256") != metadata.spec_sha256:
            raise EnvironmentFailure(
                f"{_WHAT} cannot be read: its spec is not the one it was written with", help=_HELP
            )
        if metadata.in_graph != "none" and metadata.preprocess is None:
            raise reader.odd("preprocess", "an object, as the file preprocesses images")
        return metadata


def tensors_hash(tensors: Iterable[tuple[str, int, Sequence[int], bytes | memoryview]]) -> str:
    """The SHA-256 of what a file stores, in hexadecimal, whatever order it is stored in.

    Of each tensor name, the number that ONNX has for its type, sizes, and values: little-endian,
    the last axis fastest. Each is hashed by itself, and then their hashes in order.
    """
    hashes = []
    for name, kind, sizes, values in tensors:
        found = sha256(dumps([name, kind, list(sizes)]).encode())
        found.update(values)
        hashes.append(found.digest())
    return sha256(b"".join(sorted(hashes))).hexdigest()


_WHAT = "what the file says about itself"
_HELP = "export it again"


class _Reader:
    """Values of a mapping that nobody vouches for, each checked as it is read."""

    def __init__(self, given: Mapping[str, object], what: str) -> None:
        self._given = given
        self._what = what

    def odd(self, key: str, wanted: str) -> EnvironmentFailure:
        help = _HELP if self._what == _WHAT else ""
        return EnvironmentFailure(
            f"{self._what} cannot be used: `{key}` has to be {wanted}", help=help
        )

    def text(self, key: str, longest: int = _LONGEST_WORD) -> str:
        value = self._given.get(key)
        if not isinstance(value, str) or len(value) > longest:
            raise self.odd(key, "text")
        return value

    def word(self, key: str, words: tuple[str, ...]) -> str:
        value = self._given.get(key)
        if not isinstance(value, str) or value not in words:
            *others, last = words
            raise self.odd(key, f"{', '.join(others)} or {last}")
        return value

    def flag(self, key: str) -> bool:
        value = self._given.get(key)
        if not isinstance(value, bool):
            raise self.odd(key, "true or false")
        return value

    def hash(self, key: str) -> str:
        value = self._given.get(key)
        if not isinstance(value, str) or len(value) != 64 or not _HEX.issuperset(value):
            raise self.odd(key, "a SHA-256 in hexadecimal")
        return value

    def number(self, key: str, value: object) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                found = float(value)
            except OverflowError:
                found = float("inf")
            if isfinite(found):
                return found
        raise self.odd(key, "a number")

    def numbers(self, key: str) -> tuple[float, ...]:
        value = self._given.get(key)
        items = value if isinstance(value, (list, tuple)) else (value,)
        if not 0 < len(items) <= _MOST_TENSORS:
            raise self.odd(key, "a number, or one for each channel")
        return tuple(self.number(key, item) for item in items)

    def size(self, key: str) -> int:
        value = self._given.get(key)
        if not _whole(value, 1):
            raise self.odd(key, "a whole number of at least 1")
        return cast(int, value)

    def pair(self, key: str) -> tuple[int, int]:
        value = self._given.get(key)
        items = value if isinstance(value, (list, tuple)) else (value, value)
        if len(items) != 2 or not all(_whole(item, 1) for item in items):
            raise self.odd(key, "a height and a width")
        return cast(int, items[0]), cast(int, items[1])

    def batch(self, key: str) -> int | Literal["dynamic"]:
        value = self._given.get(key)
        if value == "dynamic":
            return "dynamic"
        if not _whole(value, 1):
            raise self.odd(key, "a whole number of at least 1, or dynamic")
        return cast(int, value)

    def shapes(self, key: str) -> Mapping[str, tuple[int, ...]]:
        value = self._given.get(key)
        if not isinstance(value, dict) or len(value) > _MOST_TENSORS:
            raise self.odd(key, "shapes by name")
        found: dict[str, tuple[int, ...]] = {}
        for name, sizes in value.items():
            if len(name) > _LONGEST_WORD or not isinstance(sizes, list) or len(sizes) > 16:
                raise self.odd(key, "shapes by name")
            if not all(_whole(size, 0) for size in sizes):
                raise self.odd(key, "shapes by name")
            found[name] = tuple(sizes)
        return MappingProxyType(found)

    def texts(self, key: str) -> Mapping[str, str]:
        value = self._given.get(key)
        if not isinstance(value, dict) or len(value) > 100:
            raise self.odd(key, "texts by name")
        for name, text in value.items():
            if not isinstance(text, str) or len(text) > _LONGEST_WORD or len(name) > _LONGEST_WORD:
                raise self.odd(key, "texts by name")
        return MappingProxyType(value)

    def labels(self, key: str) -> tuple[str, ...] | None:
        value = self._given.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > _MOST_LABELS:
            raise self.odd(key, "a list of texts")
        if not all(isinstance(label, str) and len(label) <= _LONGEST_WORD for label in value):
            raise self.odd(key, "a list of texts")
        return tuple(value)

    def preprocess(self, key: str) -> Preprocess | None:
        value = self._given.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.odd(key, "an object")
        return Preprocess.of(value)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST_SIZE
