"""Images to inputs in the file, as torchvision's transforms and Pillow do it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import cnnspec
from cnnspec.backends.onnx import VerificationFailure, file
from cnnspec.backends.onnx.preprocessing import Wrapped, around
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.preparing import preparation

TEXT = """\
cnnspec: 1
name: tiny
inputs: {{image: {input}}}
{said}
layers:
  - Conv2d: {{out_channels: 4, kernel_size: 1}}
    name: conv
  - AdaptiveAvgPool2d: {{output_size: 1}}
  - Flatten
"""
IMAGENET = {
    "resize": 32,
    "crop": 28,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}
SAID: dict[str, tuple[list[int], dict[str, Any]]] = {
    "imagenet": ([3, 28, 28], IMAGENET),
    "bgr": ([3, 28, 28], {**IMAGENET, "colour": "bgr", "scale": 1}),
    "grey": ([1, 32, 32], {"resize": 32, "mean": 0.1307, "std": 0.3081, "colour": "grey"}),
    "one channel": ([1, 32, 32], {"resize": 32, "mean": 0.1}),
    "bicubic": ([3, 24, 28], {**IMAGENET, "crop": [24, 28], "interpolation": "bicubic"}),
    "nearest": ([3, 28, 28], {**IMAGENET, "interpolation": "nearest"}),
    "two sizes": ([3, 20, 30], {"resize": [20, 30]}),
    "nothing resized": ([3, 30, 20], {"mean": 0.5, "std": 0.5}),
    "cropped only": ([3, 30, 21], {"crop": [30, 21]}),
    "crop larger": ([3, 40, 40], {"resize": 30, "crop": 40}),
}
SIZES = [(45, 61), (61, 45), (33, 32), (20, 19), (32, 90)]
each_way = pytest.mark.parametrize("case", SAID)


def network(input: list[int], said: dict[str, Any] | None) -> cnnspec.Network:
    line = "" if said is None else f"preprocess: {said}"
    return cnnspec.load(text=TEXT.format(input=input, said=line))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def pictures(size: tuple[int, int], channels: int, batch: int = 2) -> NDArray[np.uint8]:
    """Something between noise and a photograph."""
    random = np.random.default_rng(sum(size))
    noise = random.integers(0, 256, (batch, *size, channels))
    slope = np.linspace(0, 255, size[1])[None, None, :, None]
    return ((noise + slope) / 2).astype(np.uint8)


def prepared(net: cnnspec.Network, images: NDArray[np.uint8], in_graph: str) -> NDArray[Any]:
    """What `cnnspec predict` feeds to a file, by Pillow."""
    ((_, value),) = net.graph.inputs.items()
    shape = (None, *net.graph.tensors[value].shape)
    prepare = preparation(net.graph.metadata["preprocess"], shape, in_graph=in_graph)  # type: ignore[arg-type]
    found = [prepare(Image.fromarray(np.squeeze(image))) for image in images]
    return np.stack(found)


@each_way
def test_images_of_any_size_become_what_pillow_makes_of_them(case: str, tmp_path: Path) -> None:
    """Up to one level of the 255 where it rounds the other way: half-way cases, above all."""
    net = network(*SAID[case])
    report = net.to_onnx(tmp_path / "net.onnx", preprocess="full")
    module = net.to_torch().eval()
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("image:preprocessed"))
    onnx.save(model, tmp_path / "wider.onnx")
    runtime = session(tmp_path / "wider.onnx")
    channels = report.inputs["image"].shape[3]
    assert isinstance(channels, int)
    level = 1.01 * float(Wrapped(module, report.around).factor.abs().max())
    for size in SIZES:
        images = pictures(size, channels)
        wanted = prepared(net, images, "none")
        result, inputs = runtime.run(None, {"image": images})
        assert inputs.shape == wanted.shape
        different = np.abs(inputs - wanted)
        assert different.max() <= level
        assert (different > level / 2).mean() < 0.25
        with torch.no_grad():
            scores = module(torch.from_numpy(inputs)).numpy()
        assert np.abs(result - scores).max() <= 1e-5 * max(1.0, np.abs(scores).max())


@each_way
def test_normalising_takes_images_that_are_resized_already(case: str, tmp_path: Path) -> None:
    net = network(*SAID[case])
    report = net.to_onnx(tmp_path / "net.onnx", preprocess="normalize")
    assert report.inputs["image"].dtype == "float32"
    module = net.to_torch().eval()
    channels = report.inputs["image"].shape[1]
    assert isinstance(channels, int)
    images = pictures((45, 61), channels)
    (found,) = session(tmp_path / "net.onnx").run(
        None, {"image": prepared(net, images, "normalize")}
    )
    with torch.no_grad():
        wanted = module(torch.from_numpy(prepared(net, images, "none"))).numpy()
    assert np.abs(found - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def test_it_is_what_torchvision_does(tmp_path: Path) -> None:
    """On images of Pillow, as training reads them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import transforms

    pipeline = transforms.Compose(
        [
            transforms.Resize(IMAGENET["resize"]),
            transforms.CenterCrop(IMAGENET["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET["mean"], IMAGENET["std"]),
        ]
    )
    net = network(*SAID["imagenet"])
    report = net.to_onnx(tmp_path / "net.onnx", preprocess="full")
    wrapped = Wrapped(net.to_torch(), report.around)
    for size in SIZES:
        images = pictures(size, 3)
        wanted = torch.stack([pipeline(Image.fromarray(image)) for image in images])
        found = wrapped.prepared(torch.from_numpy(images))
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= 1.01 * wrapped.factor.abs().max()
    del library


@pytest.mark.parametrize("preprocess", ["normalize", "full"])
def test_open_sizes_stay_open(preprocess: str, tmp_path: Path) -> None:
    said = {"resize": 30} if preprocess == "full" else {"mean": 0.5}
    net = network([3, 28, 28], said)
    report = net.to_onnx(tmp_path / "n.onnx", preprocess=preprocess, size="dynamic")  # type: ignore[arg-type]
    images = pictures((45, 61), 3)
    given = images if preprocess == "full" else np.float32(images.transpose(0, 3, 1, 2) / 255)
    (found,) = session(tmp_path / "n.onnx").run(None, {"image": given})
    with torch.no_grad():
        (wanted,) = Wrapped(net.to_torch().eval(), report.around)(torch.from_numpy(given))
    assert np.abs(found - wanted.numpy()).max() < 1e-2  # bytes that round the other way


def test_nodes_lie_before_the_network_which_keeps_its_names(tmp_path: Path) -> None:
    net = network(*SAID["imagenet"])
    net.to_onnx(tmp_path / "net.onnx", preprocess="full", softmax=True)
    model = onnx.load(tmp_path / "net.onnx")
    names = [node.name for node in model.graph.node]
    ours = [name.startswith("/preprocess/") for name in names]
    assert ours == sorted(ours, reverse=True)
    assert len(names) == len(set(names))
    assert names[-1] == "output/softmax"
    assert "conv" in names
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["output"]


# ----------------------------------------------------------------------------------------- softmax


def test_scores_become_probabilities(tmp_path: Path) -> None:
    net = network([3, 28, 28], None)
    report = net.to_onnx(tmp_path / "net.onnx", softmax=True)
    assert report.around.softmax == ("output",)
    assert report.metadata.softmax
    image = torch.rand(3, 3, 28, 28)
    (found,) = session(tmp_path / "net.onnx").run(None, {"image": image.numpy()})
    with torch.no_grad():
        wanted = net.to_torch().eval()(image).softmax(1).numpy()
    assert np.abs(found - wanted).max() < 1e-6


MAPS = """\
cnnspec: 1
name: maps
inputs: {image: [3, 8, 8]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
    name: conv
  - Softmax: {dim: 1}
    from: conv
    name: done
  - Conv2d: {out_channels: 1, kernel_size: 1}
    from: conv
    name: single
outputs: {map: conv, done: done, single: single}
"""


def test_only_scores_of_several_classes_do(tmp_path: Path) -> None:
    net = cnnspec.load(text=MAPS)
    report = net.to_onnx(tmp_path / "net.onnx", softmax=True)
    assert report.around.softmax == ("map",)
    assert report.around.as_they_are == (
        ("done", "is probabilities already"),
        ("single", "has a single class"),
    )
    plain = net.to_onnx(tmp_path / "net.onnx")
    assert plain.around.softmax == ()
    assert plain.metadata.softmax, "one of them is probabilities"


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("input", "said", "options", "message"),
    [
        ([3, 28, 28], None, {"preprocess": "full"}, "does not say how images become inputs"),
        ([3, 28, 28], None, {"preprocess": "normalize"}, "does not say how images become"),
        ([3, 28, 28], IMAGENET, {"preprocess": "full", "opset": 17}, "opset 17 cannot resize"),
        ([3, 32, 32], IMAGENET, {"preprocess": "full"}, "become 28x28, the network takes 32x32"),
        ([4, 28, 28], IMAGENET, {"preprocess": "full"}, "has 4 channels, an image in `rgb` has 3"),
        ([1, 28, 28], IMAGENET, {"preprocess": "normalize"}, "has 1 channel, an image in `rgb`"),
        ([3, 28, 28], {"std": [0.1, 0, 1]}, {}, "`std` has to be no zero"),
        ([1, 28, 28], None, {"softmax": True, "channels": 1}, "no output can become prob"),
    ],
)
def test_what_cannot_be_done_is_told(
    input: list[int],
    said: dict[str, Any] | None,
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
) -> None:
    net = network(input, said)
    channels = options.pop("channels", None)
    if channels:
        text = TEXT.replace("out_channels: 4", f"out_channels: {channels}")
        net = cnnspec.load(text=text.format(input=input, said=""))
    with pytest.raises(EnvironmentFailure, match=message):
        net.to_onnx(tmp_path / "net.onnx", **options)
    assert not list(tmp_path.iterdir())


def test_networks_without_images_are_told(tmp_path: Path) -> None:
    two = """\
cnnspec: 1
name: two
inputs: {left: [3, 8, 8], right: [3, 8, 8]}
preprocess: {resize: 8}
layers:
  - add: [left, right]
"""
    row = "cnnspec: 1\nname: row\ninputs: {x: [9]}\npreprocess: {mean: 0}\nlayers: [ReLU]\n"
    for text, message in ((two, "2 inputs (`left`, `right`)"), (row, "`x` is no image: it is 9")):
        with pytest.raises(EnvironmentFailure) as failure:
            cnnspec.load(text=text).to_onnx(tmp_path / "net.onnx", preprocess="full")
        assert message in failure.value.message


@pytest.mark.parametrize(
    ("case", "node", "attribute", "value"),
    [
        ("imagenet", "resized", "antialias", 0),
        ("two sizes", "resized", "exclude_outside", 0),
        ("imagenet", "resized", "coordinate_transformation_mode", "asymmetric"),
        ("imagenet", "channels_first", "perm", [0, 3, 2, 1]),
        ("bicubic", "resized", "cubic_coeff_a", -0.75),
    ],
)
def test_sabotage_before_the_network_is_found(
    case: str,
    node: str,
    attribute: str,
    value: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = file.attach

    def damaged(model: onnx.ModelProto, chosen: Any) -> None:
        honest(model, chosen)
        (found,) = (each for each in model.graph.node if each.name == f"/preprocess/{node}")
        (at,) = (number for number, each in enumerate(found.attribute) if each.name == attribute)
        del found.attribute[at]
        found.attribute.append(onnx.helper.make_attribute(attribute, value))

    monkeypatch.setattr(file, "attach", damaged)
    with pytest.raises(VerificationFailure):
        network(*SAID[case]).to_onnx(tmp_path / "net.onnx", preprocess="full")
    assert not list(tmp_path.iterdir())


def test_factors_are_computed_in_float64() -> None:
    net = network(*SAID["imagenet"])
    model = onnx.ModelProto(opset_import=[onnx.helper.make_opsetid("", 18)])
    shape = ["batch", 3, 28, 28]
    model.graph.input.append(onnx.helper.make_tensor_value_info("image", 1, shape))
    chosen = around(net.graph, model, in_graph="full")
    wrapped = Wrapped(torch.nn.Identity(), chosen)
    wanted = 1 / 255 / np.array(IMAGENET["std"])
    assert np.array_equal(wrapped.factor.flatten().numpy(), wanted.astype(np.float32))
