"""What a file is that is no ONNX file, told by how it begins."""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import NamedTuple

__all__ = ["Kind", "kind_of"]


class Kind(NamedTuple):
    """A kind of file, and what may help whoever took it for ONNX."""

    what: str
    help: str = ""


_EXPORT = "`cnnspec export` makes an ONNX file of a spec and weights"

_BEGINNINGS: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x89PNG", Kind("a PNG image")),
    (0, b"\xff\xd8\xff", Kind("a JPEG image")),
    (0, b"GIF8", Kind("a GIF image")),
    (0, b"%PDF", Kind("a PDF document")),
    (0, b"PK\x03\x04", Kind("a zip archive, such as torch.save writes", _EXPORT)),
    (0, b"\x1f\x8b", Kind("a gzip archive")),
    (0, b"\x89HDF", Kind("an HDF5 file")),
    (0, b"\x7fELF", Kind("a program")),
    (0, b"MZ", Kind("a program")),
    (4, b"ORTM", Kind("ONNX Runtime's own format")),
    (4, b"TFL3", Kind("a TensorFlow Lite file")),
    (8, b'{"', Kind("a safetensors file", _EXPORT)),
    *((0, bytes((0x80, version)), Kind("a Python pickle", _EXPORT)) for version in range(2, 6)),
)
_POINTER = b"version https://git-lfs"
_BREAKS = frozenset(b"\t\n\r")


def kind_of(head: bytes) -> Kind | None:
    """What a file that begins with `head` is, None where it may be ONNX."""
    if head.startswith(_POINTER):
        return Kind("a pointer of Git LFS", "`git lfs pull` fetches the file itself")
    for offset, beginning, kind in _BEGINNINGS:
        if head[offset : offset + len(beginning)] == beginning:
            return kind
    # An ONNX file begins with its fields' numbers, which are control characters.
    if all(byte >= 0x20 or byte in _BREAKS for byte in head) and _is_text(head):
        return Kind("text", _EXPORT)
    return None


def _is_text(head: bytes) -> bool:
    try:
        getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return False
    return True
