"""The library as its users meet it: loading, choosing, analyzing, errors, many threads."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import cnnspec
from cnnspec import EnvironmentFailure, SpecError
from cnnspec.diagnostics import Diagnostic

TEXT = """\
cnnspec: 1
name: tiny
params: {width: int = 4, never: 1}
inputs: {image: [3, H = 8, 8]}
layers:
  - Conv2d: {out_channels: width, kernel_size: 3}
    name: conv
  - ReLU
variants:
  wide: {width: 8}
expect: {output: [4, 6, 6]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_everything_public_is_documented() -> None:
    assert cnnspec.__doc__
    for name in cnnspec.__all__:
        member = getattr(cnnspec, name)
        if name != "__version__":
            assert inspect.getdoc(member), name


def test_loading(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [
        cnnspec.load(text=TEXT),
        cnnspec.load(text=TEXT.encode()),
        cnnspec.load(file),
        cnnspec.load(str(file)),
    ]
    monkeypatch.chdir(file.parent)
    documents.append(cnnspec.load("tiny.yaml"))
    without_places = []
    for network in documents:
        told = network.analyze().to_dict()
        for warning in told["warnings"]:
            del warning["file"]
        without_places.append(told)
    assert all(told == without_places[0] for told in without_places)
    assert documents[0].name == "tiny"
    assert documents[0].variants == ("wide",)


def test_loading_by_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cnnspec.load("vgg16").analyze().totals.params == 138_357_544
    assert cnnspec.load("resnet101").name == "resnet101"
    assert cnnspec.load("resnet", variant="resnet101").analyze().totals.params == 44_549_160
    (tmp_path / "vgg16").mkdir()
    assert cnnspec.load("vgg16").name == "vgg16"


def test_choosing(file: Path) -> None:
    def shape(network: cnnspec.Network) -> tuple[int, ...]:
        (found,) = network.analyze().outputs.values()
        return found

    network = cnnspec.load(file)
    assert shape(network) == (4, 6, 6)
    assert shape(cnnspec.load(file, variant="wide")) == (8, 6, 6)
    assert shape(cnnspec.load(file, variant="tiny")) == (4, 6, 6)
    assert shape(cnnspec.load(file, variant="wide", params={"width": 5})) == (5, 6, 6)
    assert shape(cnnspec.load(file, inputs={"image": (1, 16, 8)})) == (4, 14, 6)
    assert shape(network.with_params(width=7)) == (7, 6, 6)
    assert shape(network.with_inputs(H=10)) == (4, 8, 6)
    assert shape(network.with_params(width=7).with_inputs(image=[3, 9, 8])) == (7, 7, 6)
    assert shape(network.with_inputs(H=10).with_params(width=7).with_params(width=2)) == (2, 8, 6)
    assert shape(network) == (4, 6, 6)


def test_a_report_is_read() -> None:
    report = cnnspec.load(text=TEXT).analyze()
    assert report.totals.params == 4 * 3 * 9 + 4
    assert report.totals.macs == 4 * 6 * 6 * 27
    assert report["conv"].output_shape == (4, 6, 6)
    assert report["conv"].line == 6
    assert [layer.path for layer in report.layers] == ["conv", "1"]
    assert [warning.code for warning in report.warnings] == ["unused-param"]
    assert all(isinstance(warning, Diagnostic) for warning in report.warnings)
    with pytest.raises(KeyError, match="did you mean `conv`"):
        report["conf"]


def test_strict() -> None:
    network = cnnspec.load(text=TEXT.replace("- ReLU", "- MaxPool2d: {kernel_size: 4, stride: 4}"))
    assert network.analyze().warnings
    with pytest.raises(SpecError):
        network.analyze(strict=True)


def test_what_is_shown_in_a_session() -> None:
    network = cnnspec.load(text=TEXT)
    assert repr(network) == "Network(tiny: image 3x8x8 -> output 4x6x6, 2 entries)"
    report = network.analyze()
    assert repr(report).startswith("<Report tiny: input image 3x8x8; ")
    assert "params 112; MACs 3,888 (3.89 K)" in repr(report)


def test_what_is_shown_in_a_notebook() -> None:
    hostile = TEXT.replace("name: tiny", "name: '<script>alert(1)</script>'")
    shown = cnnspec.load(text=hostile).analyze()._repr_html_()
    assert shown.startswith("<table>")
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "3,888" in shown


@pytest.mark.parametrize(
    ("arguments", "help"),
    [
        ({"source": "vgg61"}, "did you mean `vgg16`?"),
        ({"source": "none.yaml"}, ""),
        ({"source": "vgg", "variant": "vgg166"}, "did you mean `vgg16`?"),
        ({"text": TEXT, "variant": "wid"}, "did you mean `wide`?"),
        ({"text": TEXT, "params": {"widht": 3}}, "did you mean `width`?"),
        ({"text": TEXT, "inputs": {"imag": (3, 8, 8)}}, "did you mean `image`?"),
        ({"text": TEXT, "inputs": {"image": (8, 8)}}, None),
        ({"text": TEXT, "inputs": {"image": (3, 0, 8)}}, None),
        ({"text": TEXT, "inputs": {"image": (3, 8.5, 8)}}, None),
        ({"text": TEXT, "inputs": {"image": "3x8x8"}}, None),
        ({"text": TEXT, "params": {"width": "many"}}, None),
        ({"text": TEXT, "params": {"width": 1.5}}, None),
        ({"text": TEXT, "params": {"width": object()}}, None),
    ],
)
def test_what_the_caller_gets_wrong(arguments: dict[str, object], help: str | None) -> None:
    with pytest.raises(EnvironmentFailure) as raised:
        cnnspec.load(**arguments)  # type: ignore[arg-type]
    assert raised.value.message == str(raised.value)
    assert "object at 0x" not in raised.value.message
    if help is not None:
        assert raised.value.help == help


def test_a_source_or_a_text() -> None:
    with pytest.raises(TypeError, match="either a source or text"):
        cnnspec.load()
    with pytest.raises(TypeError, match="either a source or text"):
        cnnspec.load("vgg16", text=TEXT)


def test_a_directory_and_an_empty_name(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="is a folder"):
        cnnspec.load(tmp_path)
    with pytest.raises(EnvironmentFailure, match="empty"):
        cnnspec.load("")


def test_a_wrong_spec_raises_all_its_mistakes(file: Path) -> None:
    file.write_text(TEXT.replace("- ReLU", "- RelU").replace("width, ", "wdth, "), encoding="utf-8")
    with pytest.raises(SpecError) as raised:
        cnnspec.load(file)
    found = raised.value.diagnostics
    assert [(d.code, d.span.line) for d in found if d.span] == [
        ("unknown-name", 6),
        ("unknown-operation", 8),
    ]
    assert "did you mean `width`?" in {diagnostic.help for diagnostic in found}
    assert "unknown-operation" in str(raised.value)


def test_many_threads_get_what_one_gets() -> None:
    names = ["vgg16", "resnet50", "googlenet", "unet", "lenet5", "densenet121", "mobilenet_v3"]
    alone = {name: cnnspec.load(name).analyze().to_dict() for name in names}
    shared = cnnspec.load("resnet50")
    threads = 8
    barrier = Barrier(threads)

    def work(number: int) -> bool:
        barrier.wait()
        turned = names[number % len(names) :] + names[: number % len(names)]
        return all(cnnspec.load(name).analyze().to_dict() == alone[name] for name in turned) and (
            shared.analyze().to_dict() == alone["resnet50"]
        )

    with ThreadPoolExecutor(threads) as pool:
        assert all(pool.map(work, range(threads)))
