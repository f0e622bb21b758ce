"""`cnnspec info`: what is told about files of ours and of others."""

from __future__ import annotations

from hashlib import sha256
from json import dumps, loads
from pathlib import Path

import pytest
from onnx import helper

import cnnspec
from cnnspec.metadata import KEY
from cnnspec.runtime.model_file import open_model
from tests.cli.inside import called
from tests.cli.process import cnnspec as process
from tests.runtime.models import SPEC, classifier, metadata, put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    put(classifier(metadata()), tmp_path / "net.onnx")
    put(classifier(), tmp_path / "foreign.onnx")
    return tmp_path


def test_a_process_tells_everything(folder: Path) -> None:
    done = process("info", "net.onnx", cwd=folder)
    assert (done.code, done.err) == (0, "")
    told = done.out.splitlines()
    assert told[0] == "reds  net.onnx"
    about = open_model(folder / "net.onnx").metadata
    assert about is not None
    tensors = about.tensors_sha256[:16]
    digest = sha256(SPEC.encode()).hexdigest()[:16]
    for line in (
        "input       image  batch x 3 x 8 x 8  float32",
        "output      scores  batch x 3  float32",
        "nodes       3: 1 Flatten, 1 GlobalAveragePool, 1 MatMul",
        "stored      1 tensor of 9 float32 (36 B)",
        "precision   float32",
        f"weights     sha256 {'0' * 16} before folding, {tensors} as stored, as they were exported",
        "labels      3: red, green, blue",
        f"spec        sha256 {digest}, as it was exported",
        "made with   cnnspec 1.2.3",
    ):
        assert line in told, line
    assert any(line.startswith("preprocess  resize the shorter side to 8") for line in told)
    assert any(line.startswith("params            12") for line in told)
    assert "layer " not in done.out


def test_layers_are_those_of_analyze(folder: Path) -> None:
    (folder / "net.yaml").write_text(SPEC, encoding="utf-8")
    for colour in ({}, {"FORCE_COLOR": "1"}):
        table = called("analyze", "net.yaml", cwd=folder, **colour).out
        told = called("info", "net.onnx", "--layers", cwd=folder, **colour).out
        assert told.endswith(table)
        assert told.startswith(called("info", "net.onnx", cwd=folder, **colour).out[:200])


def test_json(folder: Path) -> None:
    done = called("info", "net.onnx", "--format", "json", cwd=folder)
    assert (done.code, done.err) == (0, "")
    document = loads(done.out)
    content = (folder / "net.onnx").read_bytes()
    assert document["format"] == 1
    assert document["sha256"] == sha256(content).hexdigest()
    assert (document["size"], document["opsets"]) == (len(content), {"ai.onnx": 18})
    assert document["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}
    ]
    assert document["stored"] == [{"dtype": "float32", "tensors": 1, "numbers": 9, "bytes": 36}]
    stored = document["cnnspec"]["tensors_sha256"]
    assert document["cnnspec"] == metadata(tensors_sha256=stored).to_dict()
    report = loads(dumps(cnnspec.load(text=SPEC).analyze().to_dict()))
    layers = report.pop("layers")
    assert document["analysis"] == report
    more = loads(called("info", "net.onnx", "--format=json", "--layers", cwd=folder).out)
    assert more["analysis"]["layers"] == layers


def test_a_file_of_someone_else(folder: Path) -> None:
    made = classifier(shape=(1, 3, None, None))
    helper.set_model_props(made, {"author": "some\x1b[2Jone"})
    put(made, folder / "foreign.onnx")
    done = called("info", "foreign.onnx", cwd=folder)
    assert (done.code, done.err) == (0, "")
    told = done.out.splitlines()
    assert told[0] == "foreign.onnx  foreign.onnx"
    assert "input    image  1 x 3 x ? x ?  float32" in told
    assert "cnnspec  nothing: the file was made by something else" in told
    assert "says     author: some\\x1b[2Jone" in told
    document = loads(called("info", "foreign.onnx", "--format", "json", cwd=folder).out)
    assert (document["cnnspec"], document["analysis"]) == (None, None)
    assert document["properties"] == {"author": "some\x1b[2Jone"}
    done = called("info", "foreign.onnx", "--layers", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: `foreign.onnx` has no spec in it, so that its layers are not known\n"
    )


def test_into_a_file(folder: Path) -> None:
    shown = called("info", "net.onnx", cwd=folder).out
    assert called("info", "net.onnx", "-o", "info.txt", cwd=folder).out == ""
    assert (folder / "info.txt").read_text(encoding="utf-8") == shown


def test_narrow_terminals(folder: Path) -> None:
    put(classifier(metadata(labels=tuple(f"label {n}" for n in range(50)))), folder / "net.onnx")
    told = called("info", "net.onnx", cwd=folder, COLUMNS="60").out.splitlines()
    facts = told[2 : told.index("", 2)]
    assert all(len(line) <= 60 for line in facts)
    assert any("38 more" in line for line in facts)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cnnspec: 1\nname: [", "the spec in `net.onnx` is of no use to this version of cnnspec"),
        ("cnnspec: 1\nname: x\nlayers: [Nothing]\n", "the spec in `net.onnx` is of no use"),
        ("", "the spec in `net.onnx` is of no use"),
    ],
)
def test_a_spec_that_is_none(spec: str, message: str, folder: Path) -> None:
    put(classifier(metadata(spec=spec)), folder / "net.onnx")
    done = called("info", "net.onnx", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {message}")


def test_a_spec_that_was_changed_is_refused(folder: Path) -> None:
    made = classifier()
    text = metadata().to_json().replace("name: reds", "name: gods")
    helper.set_model_props(made, {KEY: text})
    put(made, folder / "net.onnx")
    for command in (("info", "net.onnx"), ("predict", "net.onnx", "x.png")):
        done = called(*command, cwd=folder)
        assert (done.code, done.out) == (2, "")
        assert "its spec is not the one it was written with" in done.err


def test_weights_that_were_changed_are_refused(folder: Path) -> None:
    made = classifier(metadata())
    (weight,) = made.graph.initializer
    weight.raw_data = bytes([weight.raw_data[0] ^ 1, *weight.raw_data[1:]])
    put(made, folder / "net.onnx")
    for command in (("info", "net.onnx"), ("predict", "net.onnx", "x.png")):
        done = called(*command, cwd=folder)
        assert (done.code, done.out) == (2, "")
        assert "`net.onnx` is damaged: its weights are not those that it was exported" in done.err
