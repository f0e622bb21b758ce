"""Image files: found, decoded, and made into batches. What becomes of pixels is `preparing`.

Files come from anywhere. What Pillow cannot decode, or should not, is an `ImageFailure`.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import glob, has_magic
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.preparing import LARGEST_PIXELS, Array, Preparation

__all__ = [
    "LARGEST_IMAGE",
    "SUFFIXES",
    "ImageFailure",
    "ImageSource",
    "decode",
    "find_images",
    "preprocessed",
]

LARGEST_IMAGE = 1_000_000_000
"""Bytes of an image file."""

SUFFIXES = ".avif .bmp .gif .jfif .jp2 .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
"""What names of images in folders end with, in small or capital letters."""

_FORMATS = "AVIF BMP GIF JPEG JPEG2000 MPO PNG PPM TIFF WEBP".split()
"""Pillow's names of what is decoded. Others would run programs (EPS) or are no photographs."""

_WIDE = 257
"""Steps of 16 bits in one of 8."""


class ImageFailure(EnvironmentFailure):
    """An image that cannot be used; `reason` is the message without its name."""

    def __init__(self, name: str, reason: str) -> None:
        self.name = name
        self.reason = reason
        super().__init__(f"`{name}` cannot be used: {reason}")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image to be read: a file, or bytes that came from elsewhere.

    `name` is what users call it. `below` is its path in the folder that was asked for, or its own
    name: what results are called after.
    """

    name: str
    below: Path
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Its bytes. Raises `ImageFailure`."""
        if self.content is not None:
            return self.content
        try:
            with open(self.name, "rb", opener=_open_unblocked) as file:
                state = os.fstat(file.fileno())
                if not stat.S_ISREG(state.st_mode):
                    raise ImageFailure(self.name, "it is no regular file")
                if state.st_size > LARGEST_IMAGE:
                    raise ImageFailure(
                        self.name, f"it has {state.st_size:,} bytes, more than {LARGEST_IMAGE:,}"
                    )
                return file.read()
        except OSError as failure:
            raise ImageFailure(self.name, (failure.strerror or "unknown reason").lower()) from None


def _open_unblocked(name: str, flags: int) -> int:
    """Open without waiting for whoever writes into a pipe."""
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


# ------------------------------------------------------------------------------------- finding


def find_images(given: Iterable[str | os.PathLike[str]]) -> list[ImageSource]:
    """The images that files, folders and patterns name, each in the order given.

    Folders are searched to their ends for `SUFFIXES`, in the order of names, hidden files and links
    to folders left out. A pattern is one only where no file has that name.

    Raises `EnvironmentFailure` for what is not there, and for a folder or pattern without images.
    """
    found: list[ImageSource] = []
    for each in given:
        name = os.fspath(each)
        path = Path(name)
        if os.path.isdir(name):
            below = list(_in_folder(path))
            if not below:
                raise EnvironmentFailure(
                    f"there is no image in `{name}`", help=f"names end with {', '.join(SUFFIXES)}"
                )
            found.extend(below)
        elif os.path.lexists(name):
            found.append(ImageSource(name, Path(path.name)))
        elif has_magic(name):
            matched = _matching(name)
            if not matched:
                raise EnvironmentFailure(f"nothing matches `{name}`")
            found.extend(ImageSource(match, Path(os.path.basename(match))) for match in matched)
        else:
            raise EnvironmentFailure(f"there is no image `{name}`")
    return found


def _matching(pattern: str) -> list[str]:
    """The files that match, by name; `**` follows links, which may lead back, so each file once."""
    found = [match for match in glob(pattern, recursive=True) if os.path.isfile(match)]
    if "**" in pattern:
        found.sort(key=lambda match: (len(Path(match).parts), match), reverse=True)
        found = list({os.path.realpath(match): match for match in found}.values())
    return sorted(found)


def _in_folder(folder: Path) -> Iterator[ImageSource]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(tuple(SUFFIXES)) and not name.startswith("."):
                path = Path(place, name)
                yield ImageSource(str(path), path.relative_to(folder))


# ------------------------------------------------------------------------------------- decoding


def decode(source: ImageSource, mode: str) -> Image.Image:
    """An image in Pillow's `mode` `RGB` or `L`, upright.

    Turned as its EXIF says; transparency is put over white; 16 bits become 8 by their share of the
    whole range; of an animation the first frame counts.

    Raises `ImageFailure` for what is no image, a damaged one, one of more than `LARGEST_PIXELS`
    pixels, and for numbers whose range nobody knows.
    """
    content = source.read()
    if not content:
        raise ImageFailure(source.name, "it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size, which is judged below, and odd tags
            Image.init()
            known = [name for name in _FORMATS if name in Image.OPEN]
            image = Image.open(BytesIO(content), formats=known)
            if image.width * image.height > LARGEST_PIXELS:
                raise ImageFailure(source.name, _too_large(image.width, image.height))
            image.load()
            return _in_mode(_upright(image), mode)
    except ImageFailure:
        raise
    except UnidentifiedImageError:
        raise ImageFailure(source.name, "it is no image, or of a kind that is not read") from None
    except Image.DecompressionBombError:
        raise ImageFailure(source.name, f"it has more than {LARGEST_PIXELS:,} pixels") from None
    except MemoryError:
        raise ImageFailure(source.name, "there is not enough memory for it") from None
    except _Unscaled as failure:
        raise ImageFailure(source.name, failure.args[0]) from None
    except Exception as failure:  # Pillow's decoders raise whatever they stumble over
        raise ImageFailure(source.name, _damage(failure)) from None


def _upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF says; as it is where that cannot be read."""
    with suppress(Exception):  # Pillow raises whatever it stumbles over
        ImageOps.exif_transpose(image, in_place=True)
    return image


class _Unscaled(Exception):
    """Pixels whose range is not known."""


def _too_large(width: int, height: int) -> str:
    return f"it has {width}x{height} pixels, more than {LARGEST_PIXELS:,}"


def _damage(failure: Exception) -> str:
    said = str(failure)
    return "it is truncated" if "truncated" in said or "Truncated" in said else "it is damaged"


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        return _of_16_bits(image).convert(mode)
    if image.mode == "F":
        raise _Unscaled("its pixels are floats, whose range is not known")
    if image.has_transparency_data:
        # Both may be greyscale or colours; RGBA holds either exactly.
        seen = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB").convert(mode)
    if image.mode in ("L", "RGB"):
        return image if image.mode == mode else image.convert(mode)
    if image.mode == "1":
        return image.convert("L").convert(mode)
    return image.convert("RGB").convert(mode)


def _of_16_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 bits in 8; Pillow itself would cut at 255."""
    pixels = np.asarray(image)
    if pixels.dtype != np.uint16 and (pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535):
        raise _Unscaled("its pixels have 32 bits, whose range is not known")
    return Image.fromarray(((pixels.astype(np.uint32) + _WIDE // 2) // _WIDE).astype(np.uint8))


# -------------------------------------------------------------------------------------- batches


def preprocessed(
    sources: Iterable[ImageSource],
    preparation: Preparation,
    batch: int = 1,
    *,
    failed: Callable[[ImageSource, ImageFailure], None] | None = None,
) -> Iterator[tuple[Sequence[ImageSource], Array]]:
    """Images as arrays of at most `batch`, in order, with what they were made of.

    Images of different sizes, where the network takes any, are never in one batch. `failed` is told
    about an image that cannot be used, which is then left out; without it that is raised, as
    `ImageFailure`.
    """
    names: list[ImageSource] = []
    arrays: list[Array] = []
    for source in sources:
        try:
            array = _array(source, preparation)
        except ImageFailure as failure:
            if failed is None:
                raise
            failed(source, failure)
            continue
        if arrays and array.shape != arrays[0].shape:
            yield tuple(names), np.stack(arrays)
            names, arrays = [], []
        names.append(source)
        arrays.append(array)
        if len(arrays) == batch:
            yield tuple(names), np.stack(arrays)
            names, arrays = [], []
    if arrays:
        yield tuple(names), np.stack(arrays)


def _array(source: ImageSource, preparation: Preparation) -> Array:
    image = decode(source, preparation.mode)
    try:
        return preparation(image)
    except EnvironmentFailure as failure:
        raise ImageFailure(source.name, failure.message) from None
