"""What a network says about images: classes, maps, numbers, and how they are shown."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report.styled import as_plain
from cnnspec.runtime import predicting
from cnnspec.runtime.images import ImageFailure, ImageSource
from cnnspec.runtime.map_images import PALETTE, png
from cnnspec.runtime.model_file import open_model
from cnnspec.runtime.predicting import Classes, Map, Numbers, Predictor, profiles, read_as
from cnnspec.runtime.showing import Layout, prediction_document
from tests.runtime.models import IMAGE, classifier, metadata, model, put, segmenter


def source(colour: Any, size: tuple[int, int] = (8, 8), name: str = "image") -> ImageSource:
    written = BytesIO()
    Image.new("RGB", size, colour).save(written, "PNG")
    return ImageSource(name, Path(name), written.getvalue())


def predictor(made: ModelProto, folder: Path, **options: Any) -> Predictor:
    return Predictor(open_model(put(made, folder / "m.onnx")), provider="cpu", **options)


def wide(node: str, sizes: tuple[Any, ...], about: Any = None, **attributes: Any) -> ModelProto:
    """A model of one node from the image to an output of these sizes."""
    made = helper.make_node(node, ["image"], ["y"], **attributes)
    ports = ({"image": (TensorProto.FLOAT, IMAGE)}, {"y": (TensorProto.FLOAT, sizes)})
    return model([made], *ports, about=about)


# ------------------------------------------------------------------------------------------ classes


def test_classes_and_their_probabilities(tmp_path: Path) -> None:
    (found,) = predictor(classifier(metadata()), tmp_path).predict([source((255, 51, 0))])
    assert isinstance(found, Classes)
    want = torch.softmax(torch.tensor([10.0, 2.0, 0.0], dtype=torch.float64), 0)
    assert [guess.label for guess in found.top] == ["red", "green", "blue"]
    assert np.allclose([guess.probability for guess in found.top], want, atol=1e-6)


@pytest.mark.parametrize(
    ("made", "softmax"),
    [
        (classifier(metadata()), True),
        (classifier(), True),
        (classifier(metadata(softmax=True)), False),
        (classifier(end="Softmax"), False),
        (classifier(metadata(), end="Softmax"), False),
        (classifier(end="LogSoftmax"), True),
    ],
)
def test_softmax_is_done_once(made: ModelProto, softmax: bool, tmp_path: Path) -> None:
    own = predictor(made, tmp_path)
    assert own.reading.softmax is softmax
    if made.graph.node[-1].op_type != "MatMul":
        (found,) = own.predict([source("red")])
        assert isinstance(found, Classes)
        assert sum(guess.probability for guess in found.top) == pytest.approx(1)


def test_top_labels_and_ties(tmp_path: Path) -> None:
    (found,) = predictor(classifier(), tmp_path, top=2).predict([source("white")])
    assert isinstance(found, Classes)
    assert [(guess.index, guess.label) for guess in found.top] == [(0, None), (1, None)]
    (more,) = predictor(classifier(metadata(labels=("one",))), tmp_path).predict([source("blue")])
    assert isinstance(more, Classes)
    assert [(guess.index, guess.label) for guess in more.top][:2] == [(2, None), (0, "one")]


def test_scores_without_bounds(tmp_path: Path) -> None:
    (found,) = predictor(classifier(scale=3e38), tmp_path).predict([source("red")])
    assert isinstance(found, Classes)
    assert found.top[0].probability == 1
    assert np.allclose(predicting._softmax(np.array([np.inf, 1, np.inf])), [0.5, 0, 0.5])
    assert np.allclose(predicting._softmax(np.array([-np.inf, -np.inf])), [0.5, 0.5])
    assert np.allclose(predicting._softmax(np.array([1000.0, 1000.0])), [0.5, 0.5])


def test_no_numbers_are_a_failure_of_the_image(tmp_path: Path) -> None:
    made = classifier(scale=float("nan"))
    told: list[ImageFailure] = []
    own = predictor(made, tmp_path)
    assert list(own.predict([source("red")], lambda _, failure: told.append(failure))) == []
    assert [failure.reason for failure in told] == ["the network gives no numbers for it"]
    with pytest.raises(ImageFailure):
        list(own.predict([source("red")]))


# ------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_batches_change_nothing(batch: int, tmp_path: Path) -> None:
    colours = ["red", "lime", "blue", "yellow", "white"]
    found = predictor(classifier(metadata()), tmp_path, batch=batch).predict(map(source, colours))
    assert [getattr(each, "top")[0].label for each in found] == [  # noqa: B009 - of one kind
        "red",
        "green",
        "blue",
        "red",
        "red",
    ]


def test_a_batch_that_is_fixed(tmp_path: Path) -> None:
    made = classifier(metadata(), shape=(2, 3, 8, 8))
    own = predictor(made, tmp_path)
    assert own.batch == 2
    found = list(own.predict(map(source, ["red", "lime", "blue"])))
    assert [getattr(each, "top")[0].index for each in found] == [0, 1, 2]  # noqa: B009 - likewise
    with pytest.raises(EnvironmentFailure, match="takes batches of 2 only, not of 3"):
        predictor(made, tmp_path, batch=3)


def test_outputs_that_are_not_of_an_image_each(tmp_path: Path) -> None:
    made = wide("Flatten", (1, None), axis=0)
    with pytest.raises(EnvironmentFailure, match="has no entry for each of 2 images") as failure:
        list(predictor(made, tmp_path).predict([source("red"), source("red")]))
    assert "--batch 1" in failure.value.help
    node = helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0)
    taken = {"image": (TensorProto.FLOAT, IMAGE)}
    made = model([node], taken, {"sum": (TensorProto.FLOAT, ())})
    with pytest.raises(EnvironmentFailure, match="has no entry for each of 1 image") as failure:
        list(predictor(made, tmp_path).predict([source("red")]))
    assert not failure.value.help


def test_engines_are_built_for_the_batches_there_will_be(tmp_path: Path) -> None:
    def of(made: ModelProto) -> Any:
        return profiles(read_as(open_model(put(made, tmp_path / "m.onnx"))), 4)

    found = of(classifier())["image"]
    assert (found.least, found.usual, found.most) == ((1, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8))
    assert of(classifier(shape=(2, 3, 8, 8))) is None
    assert of(classifier(shape=("n", 3, "h", "w"))) is None


# --------------------------------------------------------------------------------------------- maps


def halves() -> ImageSource:
    """A quarter red, the rest green."""
    image = Image.new("RGB", (8, 8), "lime")
    image.paste((255, 0, 0), (0, 0, 4, 4))
    written = BytesIO()
    image.save(written, "PNG")
    return ImageSource("halves", Path("halves"), written.getvalue())


def test_maps_of_classes(tmp_path: Path) -> None:
    about = metadata(labels=("red", "green", "blue", "none"))
    (found,) = predictor(segmenter(about), tmp_path).predict([halves()])
    assert isinstance(found, Map)
    assert [(each.label, each.share) for each in found.shares] == [("green", 0.75), ("red", 0.25)]
    want = np.ones((8, 8), np.uint8)
    want[:4, :4] = 0
    assert np.array_equal(found.classes, want)
    image = Image.open(BytesIO(png(found.classes)))
    assert (image.mode, image.size) == ("P", (8, 8))
    assert np.array_equal(np.asarray(image), want)
    assert np.asarray(image.convert("RGB"))[[0, 7], [0, 7]].tolist() == [[0, 0, 0], [128, 0, 0]]


def test_maps_of_many_classes(tmp_path: Path) -> None:
    (found,) = predictor(segmenter(classes=300), tmp_path).predict([halves()])
    assert isinstance(found, Map)
    image = Image.open(BytesIO(png(found.classes)))
    assert np.array_equal(np.asarray(image), found.classes)


def test_the_palette_has_a_colour_for_each_class() -> None:
    colours = list(zip(*[iter(PALETTE)] * 3, strict=True))
    assert len(set(colours)) == 256
    assert colours[:5] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]


# ------------------------------------------------------------------------------------------ numbers


def resized(size: int | str, about: Any = None) -> ModelProto:
    """A segmenter that says its map has another size."""
    made = segmenter(about)
    for position in (2, 3):
        dim = made.graph.output[0].type.tensor_type.shape.dim[position]
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size
    return made


def unlabelled(outputs: dict[str, tuple[int, ...]]) -> Any:
    return metadata(labels=None, outputs=outputs)


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (classifier(), "classes"),
        (segmenter(), "map"),
        (segmenter(metadata(labels=tuple("abcd"))), "map"),
        (segmenter(metadata()), "numbers"),
        (segmenter(classes=3), "numbers"),
        (resized(5), "map"),
        (resized(4), "numbers"),
        (resized("h"), "numbers"),
        (resized("h", unlabelled({"map": (4, 8, 8)})), "map"),
        (resized("h", unlabelled({"map": (4, 2, 2)})), "numbers"),
        (wide("Relu", IMAGE), "numbers"),
        (wide("GlobalAveragePool", ("batch", 3, 1, 1)), "numbers"),
        (wide("Flatten", None), "numbers"),
    ],
)
def test_what_an_output_is(made: ModelProto, kind: str, tmp_path: Path) -> None:
    if kind == "numbers" and not made.graph.output[0].type.tensor_type.shape.dim:
        made.graph.output[0].type.tensor_type.ClearField("shape")
        made.graph.output[0].type.tensor_type.shape.Clear()
    assert read_as(open_model(put(made, tmp_path / "m.onnx"))).kind == kind


def test_numbers_are_summed_up(tmp_path: Path) -> None:
    (found,) = predictor(wide("Relu", IMAGE), tmp_path).predict([source((255, 0, 51))])
    assert isinstance(found, Numbers)
    (output,) = found.outputs
    assert (output.name, output.shape) == ("y", (3, 8, 8))
    assert (output.least, output.most) == (0, 1)
    assert output.mean == pytest.approx(0.4)
    document = prediction_document(found)
    assert document["outputs"][0]["shape"] == [3, 8, 8]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "has 0 inputs, and only one"),
        ({"a": (TensorProto.FLOAT, (1,)), "b": (TensorProto.FLOAT, (1,))}, r"\(`a`, `b`\)"),
        ({"a": (TensorProto.FLOAT, (1, 10))}, "the input is 1 x 10 of float32, which no image"),
        ({"a": (TensorProto.INT64, (1, 3, 8, 8))}, "1 x 3 x 8 x 8 of int64"),
        ({"a": (TensorProto.FLOAT, (1, 3, 10**6, 10**6))}, "is too large"),
    ],
)
def test_files_that_take_no_image(inputs: Any, message: str, tmp_path: Path) -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    made = model(
        [helper.make_node("Constant", [], ["y"], value=value)],
        inputs,
        {"y": (TensorProto.FLOAT, (1,))},
    )
    with pytest.raises(EnvironmentFailure, match=message):
        read_as(open_model(put(made, tmp_path / "m.onnx")))


# ---------------------------------------------------------------------------------------- its looks


def shown(own: Predictor, sources: list[ImageSource], width: int = 60) -> list[str]:
    layout = Layout([each.name for each in sources], own.reading, width)
    return [
        line for each in own.predict(sources) for line in as_plain(layout.lines(each)).splitlines()
    ]


def test_one_image_has_bars(tmp_path: Path) -> None:
    assert shown(predictor(classifier(metadata()), tmp_path), [source((255, 204, 0))]) == [
        "image",
        "  red     88.1%  █████████████████▋",
        "  green   11.9%  ██▍",
        "  blue     0.0%",
    ]


def test_of_several_images_each_has_a_line(tmp_path: Path) -> None:
    sources = [source("red", name="a"), source((0, 204, 255), name="long name")]
    own = predictor(classifier(metadata()), tmp_path)
    assert shown(own, sources, 80) == [
        "a          red    100.0%  green    0.0%  blue    0.0%",
        "long name  blue    88.1%  green   11.9%  red    0.0%",
    ]
    for width in (40, 50, 60):
        assert all(len(line) <= width for line in shown(own, sources, width))


def test_names_and_labels_never_act(tmp_path: Path) -> None:
    about = metadata(labels=("\x1b[31mred", "[/x]\n", "\u202eblue"))
    lines = shown(predictor(classifier(about), tmp_path), [source("red", name="a\x1b[2J")])
    assert lines[0] == "a\\x1b[2J"
    assert not any(character in "".join(lines) for character in "\x1b\u202e")
