"""ONNX files from anywhere: what is told of them, and every way in which one is refused."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import KEY
from cnnspec.runtime import model_file
from cnnspec.runtime.images import ImageSource
from cnnspec.runtime.model_file import Port, open_model
from cnnspec.runtime.predicting import Predictor
from tests.runtime.models import IMAGE, classifier, metadata, model, put


def refused(path: Path) -> str:
    """The one message with which a file is refused."""
    with pytest.raises(EnvironmentFailure) as failure:
        open_model(path)
    assert "\n" not in failure.value.message
    return failure.value.message.replace(str(path), "M")


# ------------------------------------------------------------------------------------- what is told


def test_what_a_file_of_ours_tells(tmp_path: Path) -> None:
    about = metadata()
    path = put(classifier(about), tmp_path / "m.onnx")
    found = open_model(path)
    assert found.metadata is not None
    assert found.metadata == metadata(tensors_sha256=found.metadata.tensors_sha256)
    assert found.inputs == (Port("image", "float32", IMAGE),)
    assert found.outputs == (Port("scores", "float32", ("batch", 3)),)
    assert str(found.inputs[0]) == "batch x 3 x 8 x 8"
    assert dict(found.nodes) == {"Flatten": 1, "GlobalAveragePool": 1, "MatMul": 1}
    assert dict(found.stored) == {"float32": (1, 9, 36)}
    assert (found.size, found.ir_version, dict(found.opsets)) == (
        path.stat().st_size,
        10,
        {"ai.onnx": 18},
    )
    assert (found.producer, found.external, found.probabilities) == ("tests", (), frozenset())


def test_a_file_of_someone_else(tmp_path: Path) -> None:
    made = classifier(shape=(2, None, "h", 8))
    helper.set_model_props(made, {"author": "someone"})
    # Old files list what they store among their inputs.
    made.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3, 3]))
    found = open_model(put(made, tmp_path / "m.onnx"))
    assert found.metadata is None
    assert dict(found.properties) == {"author": "someone"}
    assert found.inputs == (Port("image", "float32", (2, None, "h", 8)),)
    assert str(found.inputs[0]) == "2 x ? x h x 8"


@pytest.mark.parametrize(("end", "told"), [("Softmax", {"scores"}), ("Sigmoid", set())])
def test_outputs_that_are_probabilities(end: str, told: set[str], tmp_path: Path) -> None:
    assert open_model(put(classifier(end=end), tmp_path / "m.onnx")).probabilities == told


def test_nodes_and_numbers_of_subgraphs_and_other_types(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["image"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, IMAGE)],
    )
    choose = helper.make_node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner)
    made = model(
        [choose],
        {"image": (TensorProto.FLOAT, IMAGE)},
        {"z": (TensorProto.FLOAT, IMAGE)},
        {"flag": np.array(True), "spare": np.zeros(5, np.float16)},
    )
    found = open_model(put(made, tmp_path / "m.onnx"))
    assert dict(found.nodes) == {"Relu": 2, "If": 1}
    assert dict(found.stored) == {"float16": (1, 5, 10), "bool": (1, 1, 1)}


# ---------------------------------------------------------------------------------- what is no ONNX


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data.pkl", b"\x80\x02.")


def picture(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path, "PNG")


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "`M` cannot be read: no such file or directory"),
        (Path.mkdir, "`M` is a folder, no ONNX file"),
        (written(b""), "`M` is empty"),
        (written(b"cnnspec: 1\nname: net\n"), "`M` is no ONNX file: it is text"),
        (written("\u00e9".encode() * 256 + b"\xc3\xa9"), "`M` is no ONNX file: it is text"),
        (written(b" " + "\u00e9".encode() * 256), "`M` is no ONNX file: it is text"),
        (written(b"\xff" * 9), "`M` is no ONNX file, or a damaged one"),
        (picture, "`M` is no ONNX file: it is a PNG image"),
        (archive, "`M` is no ONNX file: it is a zip archive, such as torch.save writes"),
        (written(b"\x80\x02}q\x00."), "`M` is no ONNX file: it is a Python pickle"),
        (written(b"\x40" + bytes(7) + b'{"a":1}'), "`M` is no ONNX file: it is a safetensors file"),
        (
            written(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
            "`M` is no ONNX file: it is a pointer of Git LFS",
        ),
        (written(bytes(range(256)) * 9), "`M` is no ONNX file, or a damaged one"),
        (
            written(b"\x08\x0a"),
            "`M` is no ONNX file, or a damaged one: it has no graph",
        ),
    ],
)
def test_what_is_no_onnx_file(make: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    make(path)
    assert refused(path) == message


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes with names")
def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    assert refused(tmp_path / "m.onnx") == "`M` is no regular file"


def test_a_name_that_is_none() -> None:
    with pytest.raises(EnvironmentFailure, match="that is no name"):
        open_model("a\0b")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = put(classifier(), tmp_path / "m.onnx")
    with path.open("r+b") as file:
        file.truncate(2**31)
    assert refused(path) == (
        "`M` has 2,147,483,648 bytes, and an ONNX file has 2,147,483,647 at most"
    )


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    put(classifier(), tmp_path / "m.onnx")
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    assert open_model(tmp_path / "link.onnx").nodes


# ------------------------------------------------------------------------------------- damaged ones


def test_damage_is_told_or_harmless(tmp_path: Path) -> None:
    """Cut, flipped and stuffed files: each is refused, or does what an ONNX file does."""
    Image.new("RGB", (9, 8), "red").save(tmp_path / "red.png")
    source = ImageSource(str(tmp_path / "red.png"), Path("red.png"))
    whole = [
        classifier(metadata()).SerializeToString(),
        classifier(end="Softmax").SerializeToString(),
    ]
    chance = random.Random(5)
    path = tmp_path / "m.onnx"
    told: list[str] = []
    harmless = 0
    for number in range(150):
        data = bytearray(whole[number % 2])
        if number % 5 == 0:
            del data[chance.randrange(len(data)) :]
        elif number % 5 == 1:
            at = chance.randrange(len(data))
            data[at:at] = chance.randbytes(chance.choice((1, 8, 90)))
        else:
            data[chance.randrange(min(len(data), 400))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            predictor = Predictor(open_model(path), provider="cpu", threads=1)
            list(predictor.predict([source], lambda *_: None))
        except EnvironmentFailure as failure:
            told.append(failure.message)
        else:
            harmless += 1
    assert min(len(told), harmless) > 5
    assert not any("\n" in message or ".cc" in message for message in told)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    whole = classifier(metadata()).SerializeToString()
    for name in (
        b"weight",
        b"image",
        b"GlobalAveragePool",
        b"tests",
        b"batch",
        b"graph",
        b"cnnspec",
    ):
        path = tmp_path / "m.onnx"
        path.write_bytes(whole.replace(name, b"\xf4" * len(name)))
        try:
            open_model(path)
        except EnvironmentFailure as failure:
            assert "codec" not in str(failure)  # noqa: PT017 - some are harmless


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    made = classifier(metadata())
    change(made)
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: made.graph.node[2].ClearField("input"), "`M` is no valid ONNX file: "),
        (lambda made: made.ClearField("opset_import"), "`M` is no valid ONNX file: "),
        (lambda made: setattr(made, "ir_version", 99), "`M` is no valid ONNX file: "),
        (
            lambda made: setattr(made.graph.initializer[0], "raw_data", bytes(16)),
            "`M` is no valid ONNX file: ",
        ),
        (
            lambda made: setattr(made.graph.initializer[0], "raw_data", bytes(40)),
            "`M` is damaged: `weight` holds 40 bytes where its sizes take 36",
        ),
        (lambda made: made.graph.initializer[0].dims.append(-4), "`M` is "),
    ],
)
def test_parts_that_do_not_fit(
    change: Callable[[ModelProto], object], message: str, tmp_path: Path
) -> None:
    assert refused(put(changed(change), tmp_path / "m.onnx")).startswith(message)


@pytest.mark.parametrize(
    "block",
    [
        "",
        "{",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        "[]",
        "null",
        '{"format": 1}',
        '{"format": "1"}',
        json.dumps({**metadata().to_dict(), "labels": {"0": "red"}}),
        json.dumps({**metadata().to_dict(), "labels": [["red"]]}),
        json.dumps({**metadata().to_dict(), "spec": "cnnspec: 1"}),
        json.dumps({**metadata().to_dict(), "preprocess": {"resize": 1e999}}),
        json.dumps({**metadata().to_dict(), "preprocess": {"std": [0]}}),
        json.dumps({**metadata().to_dict(), "in_graph": "all"}),
        "1" * 10_000,
    ],
    ids=lambda block: block[:20],
)
def test_absurd_things_said_of_itself(block: str, tmp_path: Path) -> None:
    made = classifier()
    helper.set_model_props(made, {KEY: block})
    message = refused(put(made, tmp_path / "m.onnx"))
    assert message.startswith("`M`: ")


# -------------------------------------------------------------------------------- weights elsewhere


def outside(location: str, **entries: str) -> ModelProto:
    """A classifier whose weight is in a file of its own."""
    made = classifier(metadata())
    (weight,) = made.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=value)
    return made


def weights(path: Path) -> None:
    path.write_bytes((10 * np.eye(3, dtype=np.float32)).tobytes())


def test_weights_beside_a_file(tmp_path: Path) -> None:
    weights(tmp_path / "w.bin")
    path = put(outside("w.bin", offset="0", length="36"), tmp_path / "m.onnx")
    found = open_model(path)
    assert found.external == (tmp_path / "w.bin",)
    assert found.size == path.stat().st_size + 36
    Image.new("RGB", (9, 8), "blue").save(tmp_path / "b.png")
    predictor = Predictor(found, provider="cpu")
    (seen,) = predictor.predict([ImageSource(str(tmp_path / "b.png"), Path("b.png"))])
    assert getattr(seen, "top")[0].label == "blue"  # noqa: B009 - one of three kinds


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../w.bin",
        "sub/../../w.bin",
        "sub/../w.bin",
        "..\\w.bin",
        "C:\\w.bin",
        "C:w.bin",
        "\\\\host\\share\\w.bin",
        "file:///etc/passwd",
        "w\x01.bin",
        "",
    ],
)
def test_weights_outside_of_its_folder(
    location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    weights(tmp_path / "w.bin")
    weights(folder / "w.bin")
    path = put(outside(location), folder / "m.onnx")

    def never(path: object) -> None:
        raise AssertionError("onnx was asked before the place was judged")

    monkeypatch.setattr(onnx.checker, "check_model", never)
    assert refused(path).startswith("`M` is refused: it has weights ")


@pytest.mark.parametrize("inside", [True, False])
def test_weights_that_are_a_link(inside: bool, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    weights((folder if inside else tmp_path) / "w.bin")
    (folder / "link.bin").symlink_to("w.bin" if inside else "../w.bin")
    (folder / "up").symlink_to("..")
    for location in ("link.bin", "up/w.bin"):
        message = refused(put(outside(location), folder / "m.onnx"))
        assert "are a link, which may lead anywhere" in message


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "`M` is damaged: `weight` reaches beyond the end of `w.bin`"),
        ({"length": "40"}, "`M` is damaged: `weight` reaches beyond the end of `w.bin`"),
        ({"offset": "8", "length": "8"}, "`M` is damaged: `weight` reaches beyond the end of"),
        ({"offset": "-8"}, "`M` is damaged: `weight` has an odd offset"),
        ({"length": "1" * 400}, "`M` is damaged: `weight` has an odd length"),
        ({"length": "\u0663"}, "`M` is damaged: `weight` has an odd length"),
    ],
)
def test_weights_beyond_the_end(entries: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))
    assert refused(put(outside("w.bin", **entries), tmp_path / "m.onnx")).startswith(message)


def test_weights_that_are_missing_or_no_file(tmp_path: Path) -> None:
    path = put(outside("w.bin"), tmp_path / "m.onnx")
    assert refused(path) == (
        "the weights of `M`, `w.bin`, cannot be read: no such file or directory"
    )
    (tmp_path / "w.bin").mkdir()
    assert refused(path) == "the weights of `M`, `w.bin`, are no regular file"


def test_weights_of_constants_and_subgraphs_are_judged_too(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "v")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/passwd")
    constant = helper.make_node("Constant", [], ["y"], value=value)
    port = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    inner = helper.make_graph([constant], "inner", [], [port])
    choose = helper.make_node("If", ["flag"], ["z"], then_branch=inner, else_branch=inner)
    for node in (constant, choose):
        made = model(
            [node],
            {"flag": (TensorProto.BOOL, ())},
            {node.output[0]: (TensorProto.FLOAT, (3,))},
        )
        assert "which is not in its folder" in refused(put(made, tmp_path / "m.onnx"))


def test_the_limit_of_all_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights(tmp_path / "w.bin")
    monkeypatch.setattr(model_file, "LARGEST_EXTERNAL", 35)
    path = put(outside("w.bin"), tmp_path / "m.onnx")
    assert refused(path) == "the weights of `M` have 36 bytes, and 35 is the most that is read"
