"""`cnnspec predict`: files, processes and streams as users have them."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from json import loads
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.inside import called
from tests.cli.process import cnnspec as process
from tests.cli.process import environment
from tests.runtime.models import classifier, metadata, put, segmenter

CPU = ("--provider", "cpu", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(classifier(metadata()), tmp_path / "net.onnx")
    put(classifier(), tmp_path / "foreign.onnx")
    put(segmenter(metadata(name="maps", labels=tuple("abcd"))), tmp_path / "maps.onnx")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    Image.new("RGB", (9, 12), "red").save(tmp_path / "red.png")
    Image.new("RGB", (9, 12), "blue").save(tmp_path / "photos" / "blue.png")
    Image.new("RGB", (9, 12), "lime").save(tmp_path / "photos" / "more" / "lime.jpg")
    return tmp_path


def broken(folder: Path) -> None:
    (folder / "photos" / "broken.png").write_bytes((folder / "red.png").read_bytes()[:45])


def test_a_process_and_its_table(folder: Path) -> None:
    done = process("predict", "net.onnx", "red.png", "photos", *CPU, cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "reds  on the CPU, 1 thread",
        "",
        "red.png               red    100.0%  green    0.0%  blue    0.0%",
        "photos/blue.png       blue   100.0%  red    0.0%  green    0.0%",
        "photos/more/lime.jpg  green  100.0%  blue    0.0%  red    0.0%",
    ]


def test_a_process_loads_no_torch(folder: Path) -> None:
    program = (
        "import sys; from cnnspec.cli.main import main; "
        f"code = main(['predict', 'net.onnx', 'red.png', *{CPU!r}]); "
        "code += main(['info', 'net.onnx']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_json_is_stable(folder: Path) -> None:
    done = called("predict", "net.onnx", "red.png", "--format=json", "--top=1", *CPU, cwd=folder)
    assert (done.code, done.err) == (0, "")
    document = loads(done.out)
    (prediction,) = document.pop("predictions")
    assert document == {
        "format": 1,
        "model": "net.onnx",
        "provider": "cpu",
        "threads": 1,
        "failed": [],
    }
    (top,) = prediction.pop("top")
    assert prediction == {"image": "red.png"}
    assert top.pop("probability") == pytest.approx(0.9999, abs=1e-4)
    assert top == {"index": 0, "label": "red"}
    assert done.out.isascii()


def test_one_image_from_standard_input(folder: Path) -> None:
    image = (folder / "red.png").read_bytes()
    done = process("predict", "net.onnx", "-", *CPU, cwd=folder, stdin=image)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[2:4] == ["<stdin>", "  red    100.0%  ████████████████████"]
    done = process("predict", "net.onnx", "-", *CPU, cwd=folder, stdin=b"no image")
    assert done.code == 1
    assert done.err == (
        "error: `<stdin>` cannot be used: it is no image, or of a kind that is not read\n"
    )
    done = called("predict", "net.onnx", "-", "-", cwd=folder)
    assert (done.code, done.err) == (
        2,
        "error: standard input can be read once, not for several images\n",
    )


def test_images_that_cannot_be_used_are_named(folder: Path) -> None:
    broken(folder)
    done = called("predict", "net.onnx", "photos", "red.png", *CPU, cwd=folder)
    assert done.code == 1
    assert done.err == "error: `photos/broken.png` cannot be used: it is truncated\n"
    assert len(done.out.splitlines()) == 2 + 3
    document = loads(
        called("predict", "net.onnx", "photos", "--format", "json", *CPU, cwd=folder).out
    )
    assert len(document["predictions"]) == 2
    assert document["failed"] == [{"image": "photos/broken.png", "reason": "it is truncated"}]


def test_strict_stops_at_the_first(folder: Path) -> None:
    broken(folder)
    arguments = ("predict", "net.onnx", "photos", "--strict", "--batch", "1", *CPU)
    done = called(*arguments, cwd=folder)
    assert done.code == 1
    assert "photos/broken.png" in done.err
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == ["photos/blue.png"]
    document = loads(called(*arguments, "--format", "json", cwd=folder).out)
    assert [each["image"] for each in document["predictions"]] == ["photos/blue.png"]


def test_a_file_of_someone_else(folder: Path) -> None:
    done = called("predict", "foreign.onnx", "red.png", "--top", "1", *CPU, cwd=folder)
    assert done.code == 0
    assert done.out.splitlines() == [
        "foreign.onnx  on the CPU, 1 thread",
        "",
        "red.png",
        "  class 0  100.0%  ████████████████████",
    ]
    assert done.err == (
        "note: the file does not say how images are prepared: resized, and scaled to 0..1\n"
    )


def test_colour(folder: Path) -> None:
    done = called("predict", "net.onnx", "red.png", *CPU, cwd=folder, FORCE_COLOR="1")
    assert "\x1b[1mreds\x1b[0m" in done.out
    assert "\x1b[32m" in done.out


# --------------------------------------------------------------------------------------------- maps


def test_maps_become_images(folder: Path) -> None:
    done = called("predict", "maps.onnx", "red.png", "photos", "-o", "out/maps", *CPU, cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[2:] == [
        "red.png               a  100.0%  -> out/maps/red.png",
        "photos/blue.png       c  100.0%  -> out/maps/blue.png",
        "photos/more/lime.jpg  b  100.0%  -> out/maps/more/lime.png",
    ]
    for name, index in (("red.png", 0), ("blue.png", 2), ("more/lime.png", 1)):
        image = Image.open(folder / "out" / "maps" / name)
        assert (image.mode, image.size) == ("P", (8, 8))
        assert (np.asarray(image) == index).all()


def test_maps_in_json(folder: Path) -> None:
    arguments = ("predict", "maps.onnx", "red.png", "--format", "json", *CPU)
    classes = [{"index": 0, "label": "a", "share": 1.0}]
    for more, place in (((), None), (("-o", "out"), str(Path("out/red.png")))):
        (found,) = loads(called(*arguments, *more, cwd=folder).out)["predictions"]
        assert found == {"image": "red.png", "size": [8, 8], "map": place, "classes": classes}


def test_maps_of_one_name_and_maps_over_images(folder: Path) -> None:
    Image.new("RGB", (8, 8), "lime").save(folder / "photos" / "red.jpg")
    Image.new("RGB", (8, 8), "lime").save(folder / "photos" / "red.png")
    done = called("predict", "maps.onnx", "red.png", "photos", "-o", "out", *CPU, cwd=folder)
    assert done.code == 0
    assert [path.name for path in sorted((folder / "out").glob("red*"))] == [
        "red-2.png",
        "red-3.png",
        "red.png",
    ]
    before = (folder / "red.png").read_bytes()
    done = called("predict", "maps.onnx", "red.png", "-o", ".", *CPU, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == (
        "error: the map of `red.png` would replace the image `red.png`"
    )
    assert (folder / "red.png").read_bytes() == before


def test_a_folder_for_maps_that_cannot_be(folder: Path) -> None:
    (folder / "file").write_bytes(b"")
    done = called("predict", "maps.onnx", "red.png", "-o", "file/maps", *CPU, cwd=folder)
    assert done.code == 2
    assert "error: `file/maps` cannot be made: not a directory" in done.err
    done = called("predict", "net.onnx", "red.png", "-o", "out", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: --output is for maps of classes, and output `scores` of `net.onnx` is none\n"
    )
    assert not (folder / "out").exists()


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.onnx", "red.png"), "`none.onnx` cannot be read: no such file or directory"),
        (("red.png", "red.png"), "`red.png` is no ONNX file: it is a PNG image"),
        ((".", "red.png"), "`.` is a folder, no ONNX file"),
        (("net.onnx", "none.png"), "there is no image `none.png`"),
        (("net.onnx", "*.bmp"), "nothing matches `*.bmp`"),
        (("net.onnx",), "IMAGE is missing"),
        (
            ("net.onnx", "red.png", "--provider", "gpu"),
            "--provider takes auto, cpu, cuda or tensorrt, not `gpu`",
        ),
        (
            ("net.onnx", "red.png", "--threads", "0"),
            "--threads takes a whole number of at least 1, not `0`",
        ),
    ],
)
def test_usage_and_what_is_not_there(
    arguments: tuple[str, ...], message: str, folder: Path
) -> None:
    done = called("predict", *arguments, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[0] == f"error: {message}"


def test_hostile_files_in_a_process(folder: Path) -> None:
    whole = (folder / "net.onnx").read_bytes()
    cases = {"cut": whole[: len(whole) // 2], "zeros": bytes(5000), "flipped": whole[::-1]}
    for name, content in cases.items():
        (folder / name).write_bytes(content)
        for command in (("predict", name, "red.png"), ("info", name)):
            done = called(*command, cwd=folder)
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith("error: `")
    done = process("predict", "cut", "red.png", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: `cut` is no ONNX file, or a damaged one\n"


def test_no_gpu_is_no_silent_cpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnspec.runtime import session
    from cnnspec.runtime.providers import Driver

    monkeypatch.setattr(session, "driver", lambda: Driver(False))
    done = called("predict", "net.onnx", "red.png", "--provider", "cuda", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: CUDA cannot be used: ")
    assert "\nhelp: " in done.err


def test_a_label_never_acts(folder: Path) -> None:
    put(classifier(metadata(labels=("[/x]\x1b[2J", "b", "c"))), folder / "net.onnx")
    for colour in ({}, {"FORCE_COLOR": "1"}):
        done = called("predict", "net.onnx", "red.png", *CPU, cwd=folder, **colour)
        assert "[/x]\\x1b[2J" in done.out


def test_many_images_are_watched_by_nobody_in_a_pipe(folder: Path) -> None:
    for number in range(12):
        written = BytesIO()
        Image.new("RGB", (8, 8), "red").save(written, "PNG")
        (folder / "photos" / f"{number:02}.png").write_bytes(written.getvalue())
    done = called("predict", "net.onnx", "photos", *CPU, cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert len(done.out.splitlines()) == 2 + 14
