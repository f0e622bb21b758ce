"""Images to arrays: what torchvision's transforms make of them, and what no decoder should see."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Preprocess
from cnnspec.runtime import images, preparing
from cnnspec.runtime.images import ImageFailure, ImageSource, decode, find_images, preprocessed
from cnnspec.runtime.preparing import preparation

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
"""Operators that torchvision wants to be there when it is imported; kept alive with this module."""
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import transforms  # noqa: E402 - after its operators

MODES = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
    "nearest": transforms.InterpolationMode.NEAREST,
}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def source(content: bytes | Image.Image, kind: str = "PNG", **options: Any) -> ImageSource:
    """An image in memory, as a source."""
    if isinstance(content, Image.Image):
        written = BytesIO()
        content.save(written, kind, **options)
        content = written.getvalue()
    return ImageSource("image", Path("image"), content)


def refused(content: bytes | Image.Image, kind: str = "PNG", **options: Any) -> str:
    with pytest.raises(ImageFailure) as failure:
        decode(source(content, kind, **options), "RGB")
    assert failure.value.message == f"`image` cannot be used: {failure.value.reason}"
    return failure.value.reason


# ------------------------------------------------------------------------------ against torchvision


def theirs(said: dict[str, Any], grey: bool = False) -> Any:
    """What a spec's `preprocess` means, in torchvision's words."""
    steps: list[Any] = [transforms.Grayscale(1)] if grey else []
    if "resize" in said:
        mode = MODES[said.get("interpolation", "bilinear")]
        steps.append(transforms.Resize(said["resize"], interpolation=mode))
    if "crop" in said:
        steps.append(transforms.CenterCrop(said["crop"]))
    steps.append(transforms.ToTensor())
    if "mean" in said or "std" in said:
        mean, std = (np.atleast_1d(said.get(key, other)).tolist() for key, other in DEFAULTS)
        steps.append(transforms.Normalize(mean, std))
    return transforms.Compose(steps)


DEFAULTS = (("mean", 0.0), ("std", 1.0))


@settings(max_examples=80, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    resize=st.one_of(
        st.none(), st.integers(1, 60), st.tuples(st.integers(1, 60), st.integers(1, 60))
    ),
    crop=st.one_of(st.none(), st.tuples(st.integers(1, 60), st.integers(1, 60))),
    interpolation=st.sampled_from(sorted(MODES)),
    grey=st.booleans(),
    normal=st.booleans(),
)
def test_equal_to_torchvision_to_the_bit(
    width: int,
    height: int,
    resize: int | tuple[int, int] | None,
    crop: tuple[int, int] | None,
    interpolation: str,
    grey: bool,
    normal: bool,
) -> None:
    said: dict[str, Any] = {"interpolation": interpolation}
    if resize is not None:
        said["resize"] = resize
    if crop is not None:
        said["crop"] = crop
    if normal:
        said |= {"mean": 0.1307, "std": 0.3081} if grey else IMAGENET
    image = noise(width, height)
    want = theirs(said, grey)(image).numpy()
    colour = {"colour": "grey"} if grey else {}
    prepare = preparation({**said, **colour}, ("batch", 1 if grey else 3, "h", "w"))
    have = prepare(image.convert(prepare.mode))
    assert have.dtype == np.float32
    assert have.shape == want.shape
    assert np.array_equal(have, want), "not what torchvision makes of it"


def test_the_usual_preprocessing_of_imagenet() -> None:
    image = noise(333, 500)
    said = {"resize": 256, "crop": 224, **IMAGENET}
    have = preparation(said, ("batch", 3, 224, 224))(image)
    assert np.array_equal(have, theirs({**said, "crop": (224, 224)})(image).numpy())


# --------------------------------------------------------------------------------- what is not said


def test_the_middle_of_what_the_network_takes() -> None:
    image = noise(48, 32)
    prepare = preparation({"resize": 32, "colour": "rgb"}, (1, 3, 32, 32))
    assert np.array_equal(prepare(image), prepare(image.crop((8, 0, 40, 32))))


def test_without_any_size_it_is_resized_to_what_the_network_takes() -> None:
    image = noise(20, 30)
    for said in (None, {"mean": 0.5}):
        prepare = preparation(said, ("n", 3, 8, 16))
        assert prepare(image).shape == (3, 8, 16)
        assert prepare.assumed is (said is None)
    free = preparation(None, (None, 3, None, "w"))
    assert free(image).shape == (3, 30, 20)
    assert np.array_equal(free(image), transforms.ToTensor()(image).numpy())


def test_colours_scales_and_types() -> None:
    image = noise(8, 8)
    rgb = preparation({}, (1, 3, 8, 8))(image)
    bgr = preparation({"colour": "bgr", "mean": [0.1, 0.2, 0.3]}, (1, 3, 8, 8))(image)
    shift = np.float32([0.1, 0.2, 0.3])[:, None, None]
    assert np.array_equal(bgr, rgb[::-1] - shift)
    bytes_ = preparation({"scale": 1}, (1, 3, 8, 8))(image)
    assert np.array_equal(bytes_, np.asarray(image).transpose(2, 0, 1).astype(np.float32))
    half = preparation({}, (1, 3, 8, 8), dtype="float16")(image)
    assert half.dtype == np.float16
    last = preparation(None, (1, 8, 8, 3))(image)
    assert np.array_equal(last, rgb.transpose(1, 2, 0))
    # One channel without a word means grey, and grey may be wanted three times.
    assert preparation(None, (1, 1, 8, 8)).mode == "L"
    assert preparation({"mean": 0.1307}, (1, 1, 8, 8)).mode == "L"
    grey = preparation({"colour": "grey"}, (1, 3, 8, 8))
    assert np.array_equal(*(grey(image.convert("L"))[channel] for channel in (0, 2)))


def test_what_the_file_does_itself() -> None:
    image = noise(40, 30)
    said = {"resize": 16, "crop": 16, "colour": "bgr", "scale": 0.5, **IMAGENET}
    whole = preparation(said, (1, 3, 16, 16))(image)
    scaled = preparation(said, (1, 3, 16, 16), in_graph="normalize")(image)
    mean, std = (np.float32(IMAGENET[key])[:, None, None] for key in ("mean", "std"))
    assert np.array_equal((scaled[::-1] - mean) / std, whole)
    full = preparation(said, ("n", "h", "w", 3), in_graph="full", dtype="uint8")(image)
    assert full.dtype == np.uint8
    assert np.array_equal(full, np.asarray(image))
    grey = {"colour": "grey"}
    fixed = preparation(grey, ("n", 16, 16, 1), in_graph="full", dtype="uint8")
    assert fixed(image.convert("L")).shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 10), "float32"),
        ((1, 3, 8), "float32"),
        ((1, 4, 8, 8), "float32"),
        ((1, "c", 8, 8), "float32"),
        ((1, 3, 8, 8), "int64"),
        ((1, 3, 8, 8), ""),
        ((), "float32"),
    ],
)
def test_inputs_that_are_no_image(shape: tuple[Any, ...], dtype: str) -> None:
    with pytest.raises(EnvironmentFailure, match="which no image becomes"):
        preparation(None, shape, dtype=dtype)


def test_colours_for_an_input_that_is_grey() -> None:
    with pytest.raises(EnvironmentFailure, match="images in rgb do not fit"):
        preparation(IMAGENET, (1, 1, 8, 8))


@pytest.mark.parametrize("key", ["resize", "crop"])
def test_sizes_that_nobody_wants(key: str) -> None:
    prepare = preparation({key: (10**6, 10**6)}, (1, 3, 8, 8))
    with pytest.raises(ImageFailure, match="takes it at 1000000x1000000, which is more than"):
        list(preprocessed([source(noise(2, 2))], prepare))


# ----------------------------------------------------------------------------------------- decoding


def pixels(content: Image.Image, kind: str, mode: str = "RGB", **options: Any) -> Any:
    return np.asarray(decode(source(content, kind, **options), mode))


def test_orientation() -> None:
    image = noise(6, 4)
    for turned, back in (
        (1, None),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
    ):
        exif = Image.Exif()
        exif[0x0112] = turned
        want = image if back is None else image.transpose(back)
        assert np.array_equal(pixels(image, "PNG", exif=exif), np.asarray(want))


def test_odd_exif_is_passed_over() -> None:
    image = noise(6, 4)
    for exif in (b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\xff" * 50):
        assert pixels(image, "PNG", exif=exif).shape == (4, 6, 3)


def test_greyscale_palettes_and_bits() -> None:
    grey = noise(6, 4, "L")
    assert np.array_equal(pixels(grey, "PNG"), np.repeat(np.asarray(grey)[..., None], 3, 2))
    assert np.array_equal(pixels(grey, "PNG", "L"), np.asarray(grey))
    colours = noise(6, 4).quantize(8)
    assert np.array_equal(pixels(colours, "PNG"), np.asarray(colours.convert("RGB")))
    bits = grey.convert("1")
    assert set(np.unique(pixels(bits, "PNG"))) <= {0, 255}


def test_colours_become_grey_as_in_torchvision() -> None:
    image = noise(6, 4)
    want = transforms.Grayscale(1)(image)
    assert np.array_equal(pixels(image, "PNG", "L"), np.asarray(want))


def test_transparency_is_put_over_white() -> None:
    clear = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    clear.putpixel((0, 0), (10, 20, 30, 0))
    want = [[[255, 255, 255], [10, 20, 30]]]
    assert pixels(clear, "PNG").tolist() == want
    grey = Image.new("LA", (2, 1), (10, 255))
    grey.putpixel((0, 0), (10, 0))
    assert pixels(grey, "PNG").tolist() == [[[255] * 3, [10] * 3]]
    indexed = clear.convert("P")
    assert pixels(indexed, "PNG", transparency=indexed.getpixel((0, 0)))[0, 0].tolist() == [255] * 3
    keyed = Image.new("RGB", (1, 1), (1, 2, 3))
    assert pixels(keyed, "PNG", transparency=(1, 2, 3)).tolist() == [[[255, 255, 255]]]


def test_sixteen_bits_keep_their_share_of_the_range() -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        found = pixels(Image.fromarray(deep), kind, "L")
        assert found.tolist() == [[0, 0, 1, 1, 128, 255]]
    whole = Image.fromarray(np.array([[0, 65535]], np.int32))
    assert pixels(whole, "TIFF", "L").tolist() == [[0, 255]]


@pytest.mark.parametrize(
    "values", [np.array([[0, 70_000]], np.int32), np.array([[0.0, 1.0]], np.float32)]
)
def test_numbers_without_a_range(values: Any) -> None:
    assert "whose range is not known" in refused(Image.fromarray(values), "TIFF")


def test_other_colour_spaces() -> None:
    image = noise(16, 16)
    for mode in ("CMYK", "YCbCr"):
        assert pixels(image.convert(mode), "TIFF").shape == (16, 16, 3)
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert abs(pixels(flat, "JPEG", quality=100).astype(int) - [255, 0, 0]).max() < 6


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "green", "blue")]
    for kind in ("GIF", "PNG", "WEBP"):
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        found = pixels(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert found[0, 0].tolist() == [255, 0, 0]


# --------------------------------------------------------------------------------- what is no image


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_bombs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sizes in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (13_400, 13_400)):
            assert "pixels" in refused(bomb(*sizes))
    # Large, but not too large: it fails for what it lacks.
    assert refused(bomb(9_000, 10_000)) in ("it is truncated", "it is damaged")


def test_what_is_no_image() -> None:
    assert refused(b"") == "it is empty"
    for content in (b"cnnspec: 1\n", bytes(100), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"PK\x03\x04"):
        assert refused(content) == "it is no image, or of a kind that is not read"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files_are_told(kind: str) -> None:
    written = BytesIO()
    noise(64, 64).save(written, kind)
    content = written.getvalue()
    for part in (0.1, 0.5, 0.8):
        reason = refused(content[: int(len(content) * part)])
        assert reason in (
            "it is truncated",
            "it is damaged",
            "it is no image, or of a kind that is not read",
        )


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=6),
    end=st.floats(0.2, 1),
)
def test_damage_is_told_or_harmless(kind: str, flips: list[tuple[float, int]], end: float) -> None:
    written = BytesIO()
    noise(24, 24).save(written, kind)
    data = bytearray(written.getvalue())
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    try:
        image = decode(source(bytes(data[: max(int(len(data) * end), 1)])), "RGB")
    except ImageFailure:
        return
    assert image.mode == "RGB"


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(4, 4).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "LARGEST_IMAGE", 10)
    for name, reason in (
        ("a.png", "more than 10"),
        ("none.png", "no such file or directory"),
        ("", "is a directory"),
    ):
        own = ImageSource(str(tmp_path / name), Path(name))
        with pytest.raises(ImageFailure, match=reason):
            decode(own, "RGB")


# ------------------------------------------------------------------------------------------ finding


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.png", "a.JPG", "notes.txt", "sub/c.jpeg", "sub/deep/d.gif", ".hidden/e.png"):
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    (tmp_path / ".f.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_files_and_patterns(folder: Path) -> None:
    def found(*given: str) -> list[tuple[str, str]]:
        return [(each.name, each.below.as_posix()) for each in find_images(given)]

    below = ["a.JPG", "b.png", "sub/c.jpeg", "sub/deep/d.gif"]
    assert [name for name, _ in found(".")] == below
    assert found("sub") == [("sub/c.jpeg", "c.jpeg"), ("sub/deep/d.gif", "deep/d.gif")]
    assert found("notes.txt", "b.png") == [("notes.txt", "notes.txt"), ("b.png", "b.png")]
    assert [name for name, _ in found("**/*.[jg]*")] == ["sub/c.jpeg", "sub/deep/d.gif"]
    (folder / "[x].png").write_bytes(b"")
    assert [name for name, _ in found("[x].png")] == ["[x].png"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.png", "there is no image `none.png`"),
        ("*.bmp", "nothing matches `*.bmp`"),
        ("empty", "there is no image in `empty`"),
    ],
)
def test_what_is_not_there(given: str, message: str, folder: Path) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        find_images(["b.png", given])
    assert failure.value.message == message


# ------------------------------------------------------------------------------------------ batches


def test_batches_are_of_one_size_and_in_order() -> None:
    sizes = [(8, 8), (8, 8), (8, 8), (9, 8), (8, 8), (8, 8)]
    sources = [source(noise(*size, seed=seed)) for seed, size in enumerate(sizes)]
    prepare = preparation(None, ("n", 3, "h", "w"))
    found = list(preprocessed(sources, prepare, 2))
    assert [len(names) for names, _ in found] == [2, 1, 1, 2]
    assert [name for names, _ in found for name in names] == sources
    assert [array.shape for _, array in found] == [
        (2, 3, 8, 8),
        (1, 3, 8, 8),
        (1, 3, 8, 9),
        (2, 3, 8, 8),
    ]
    assert np.array_equal(found[3][1][1], prepare(noise(8, 8, seed=5)))


def test_images_that_fail_are_told_or_raised() -> None:
    sources = [source(noise(8, 8)), source(b"none"), source(noise(8, 8))]
    prepare = preparation(None, ("n", 3, 8, 8))
    told: list[tuple[ImageSource, ImageFailure]] = []
    found = list(preprocessed(sources, prepare, 8, failed=lambda *each: told.append(each)))
    assert [len(names) for names, _ in found] == [2]
    assert [each for each, _ in told] == [sources[1]]
    with pytest.raises(ImageFailure):
        list(preprocessed(sources, prepare))


def test_defaults_of_a_file_are_those_of_a_spec() -> None:
    image = noise(9, 7)
    said = {"resize": 8, "crop": 8}
    for given_ in (said, Preprocess.of(said), Preprocess.of(Preprocess.of(said).to_dict())):
        assert np.array_equal(
            preparation(given_, (1, 3, 8, 8))(image), preparation(said, (1, 3, 8, 8))(image)
        )


def test_an_image_that_would_grow_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "LARGEST_PIXELS", 1000)
    thin = source(noise(1, 200))
    with pytest.raises(ImageFailure, match="takes it at 2000x10, which is more than 1,000 pixels"):
        list(preprocessed([thin], preparation({"resize": 10}, (1, 3, "h", "w"))))
