"""What a file does before its network and after it: images to inputs, scores to probabilities.

Nodes beside those of the network, and the same in torch, to prove the file by. How the network
itself is lowered may not enter.

Images become inputs as torchvision's transforms make them: `Resize` (with antialias), `CenterCrop`,
bytes times `scale`, `Normalize`. Bytes are resized as bytes: with `exclude_outside`, which is what
Pillow does at borders, ONNX Runtime gives Pillow's bytes but for some that round the other way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from cnnspec.diagnostics import EnvironmentFailure, listed, quantity, shape_text
from cnnspec.ir import Graph
from cnnspec.metadata import InGraph, Preprocess

__all__ = ["OLDEST_FULL", "Around", "Wrapped", "around", "attach", "images_alone"]

OLDEST_FULL = 18
"""The first opset whose `Resize` has `antialias`."""

PREFIX = "/preprocess/"
"""What the names of nodes and tensors begin with that make an input of an image."""

_CUBIC = -0.5
"""The coefficient of Pillow's bicubic filter, and of torch's with antialias."""

_PROBABLE = "Softmax"
_ALREADY = "is probabilities already"


@dataclass(frozen=True, slots=True)
class Around:
    """What is around a network in its file.

    `outputs` are the network's, in order. `image` is the input that images become, of `shape`
    (channels, height, width), where `in_graph` is not `none`. There `resize` and `crop` are what
    happens to them in the file. With `half` inputs are float16. `softmax` are the outputs that
    become probabilities over their first axis, and `as_they_are` others about which there is
    something to say.
    """

    outputs: tuple[str, ...]
    in_graph: InGraph = "none"
    preprocess: Preprocess = field(default_factory=Preprocess)
    image: str = ""
    shape: tuple[int, ...] = ()
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    half: bool = False
    softmax: tuple[str, ...] = ()
    as_they_are: tuple[tuple[str, str], ...] = ()

    @property
    def probabilities(self) -> bool:
        """Whether some output is probabilities, by the network itself or behind it."""
        return bool(self.softmax) or any(reason == _ALREADY for _, reason in self.as_they_are)

    @property
    def renamed(self) -> Mapping[str, str]:
        """Tensors of the network that have another name in the file, by their own name."""
        found = {name: f"{name}:logits" for name in self.softmax}
        if self.in_graph != "none":
            found[self.image] = f"{self.image}:preprocessed"
        return MappingProxyType(found)

    @property
    def pads(self) -> bool:
        """Whether images may be smaller than what is cut out of them."""
        if self.crop is None:
            return False
        if self.resize is None:
            return True
        least = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        return least[0] < self.crop[0] or least[1] < self.crop[1]

    def feeds(self, batch: int, seed: int = 0) -> dict[str, NDArray[Any]]:
        """Random images as the file takes them, in a size that resizing leaves as it is."""
        images = self.images(batch, self._left_alone(), seed)
        if self.in_graph == "normalize":
            scaled = images.transpose(0, 3, 1, 2) * np.float32(self.preprocess.scale)
            floats = np.float16 if self.half else np.float32
            return {self.image: np.ascontiguousarray(scaled, floats)}
        return {self.image: images}

    def images(self, batch: int, size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
        """Random images: bytes in NHWC."""
        shape = (batch, *size, self.preprocess.channels)
        return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

    def _left_alone(self) -> tuple[int, int]:
        """A height and width of images."""
        if self.in_graph == "normalize" or self.resize is None:
            return (self.shape[1], self.shape[2])
        return self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)


class Wrapped(nn.Module):
    """A network with what is around it in its file: takes and gives what the file does.

    Factors and offsets are buffers, so that the whole can be computed in another type.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, network: nn.Module, chosen: Around) -> None:
        super().__init__()
        self.network = network
        self.chosen = chosen
        factor, offset = _affine(chosen.preprocess, chosen.in_graph)
        self.register_buffer("factor", torch.from_numpy(factor))
        self.register_buffer("offset", torch.from_numpy(offset))
        self.train(network.training)

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The outputs of the file, in order."""
        if self.chosen.in_graph != "none":
            (images,) = inputs
            inputs = (self.prepared(images),)
        elif self.chosen.half:
            inputs = tuple(given.to(self.factor.dtype) for given in inputs)
        found = self.network(*inputs)
        results = (found,) if isinstance(found, torch.Tensor) else tuple(found)
        return tuple(
            result.softmax(1) if name in self.chosen.softmax else result
            for name, result in zip(self.chosen.outputs, results, strict=True)
        )

    def prepared(self, images: torch.Tensor) -> torch.Tensor:
        """What the network takes, of images that the file takes."""
        if self.chosen.in_graph == "full":
            images = self._cropped(self._resized(images.permute(0, 3, 1, 2)))
        if self.chosen.preprocess.colour == "bgr":
            images = images.flip(1)
        return images.to(self.factor.dtype) * self.factor + self.offset

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        resize = self.chosen.resize
        height, width = images.shape[2:]
        if resize is None:
            return images
        if isinstance(resize, int):
            short = min(height, width)
            resize = (height * resize // short, width * resize // short)
        if resize == (height, width):
            return images
        mode = self.chosen.preprocess.interpolation
        if mode == "nearest":
            return functional.interpolate(images, resize, mode="nearest-exact")
        return functional.interpolate(images, resize, mode=mode, antialias=True)

    def _cropped(self, images: torch.Tensor) -> torch.Tensor:
        crop = self.chosen.crop
        if crop is None:
            return images
        pads: list[int] = []
        for size, wanted in zip(images.shape[:1:-1], crop[::-1], strict=True):
            missing = max(wanted - size, 0)
            pads += [missing // 2, missing - missing // 2]
        images = functional.pad(images, pads)
        top, left = (
            round((size - wanted) / 2) for size, wanted in zip(images.shape[2:], crop, strict=True)
        )
        return images[:, :, top : top + crop[0], left : left + crop[1]]


def around(
    graph: Graph,
    model: onnx.ModelProto,
    *,
    in_graph: InGraph = "none",
    softmax: bool = False,
    half: bool = False,
) -> Around:
    """What is to be put around the network `graph`, which is lowered to `model`.

    With `half` its inputs will be float16.

    Raises `EnvironmentFailure` where the network takes no images, its spec does not say how they
    become inputs, or what it says does not fit.
    """
    outputs = tuple(output.name for output in graph.outputs if not output.training)
    probable, left = _softmax(graph, model)
    if not softmax:
        probable, left = (), tuple(each for each in left if each[1] == _ALREADY)
    elif not probable and all(reason != _ALREADY for _, reason in left):
        raise EnvironmentFailure(
            "no output can become probabilities: "
            + "; ".join(f"`{name}` {reason}" for name, reason in left)
        )
    if in_graph == "none":
        return Around(outputs, half=half, softmax=probable, as_they_are=left)
    said = _said(graph)
    image, shape, said = _image(graph, said)
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    if in_graph == "full":
        opset = model.opset_import[0].version
        if opset < OLDEST_FULL:
            raise EnvironmentFailure(
                f"opset {opset} cannot resize images as training does",
                help=f"opset {OLDEST_FULL} can; or take `normalize`, and resize before",
            )
        (declared,) = model.graph.input
        sizes = declared.type.tensor_type.shape.dim[2:]
        free = not any(size.HasField("dim_value") for size in sizes)
        resize, crop = _geometry(said, (shape[1], shape[2]), free)
    return Around(outputs, in_graph, said, image, shape, resize, crop, half, probable, left)


def _softmax(
    graph: Graph, model: onnx.ModelProto
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The outputs to put a softmax behind, and the others with the reason."""
    writers = {name: node.op_type for node in model.graph.node for name in node.output}
    chosen: list[str] = []
    left: list[tuple[str, str]] = []
    for output in graph.outputs:
        if output.training:
            continue
        tensor = graph.tensors[output.value]
        if writers.get(output.name) == _PROBABLE:
            left.append((output.name, _ALREADY))
        elif not tensor.batched or not tensor.shape:
            left.append((output.name, "has no axis of classes"))
        elif tensor.shape[0] == 1:
            left.append((output.name, "has a single class"))
        else:
            chosen.append(output.name)
    return tuple(chosen), tuple(left)


def _said(graph: Graph) -> Preprocess:
    said = graph.metadata.get("preprocess")
    if not said:
        raise EnvironmentFailure(
            f"the spec of `{graph.name}` does not say how images become inputs",
            help="for example `preprocess: {resize: 256, crop: 224, mean: 0.5, std: 0.5}`",
        )
    return Preprocess.of(said)


def _image(graph: Graph, said: Preprocess) -> tuple[str, tuple[int, ...], Preprocess]:
    """The name and the shape of the input that is an image, and what is said about that image."""
    if len(graph.inputs) != 1:
        raise EnvironmentFailure(
            f"the network has {quantity(len(graph.inputs), 'input')} ({listed(graph.inputs)}), and "
            "the file would not know which of them are images"
        )
    ((name, value),) = graph.inputs.items()
    shape = graph.tensors[value].shape
    if len(shape) != 3:
        raise EnvironmentFailure(f"input `{name}` is no image: it is {shape_text(shape)}")
    if shape[0] == 1 and len(said.mean) == len(said.std) == 1:
        said = replace(said, colour="grey")
    if shape[0] != said.channels:
        raise EnvironmentFailure(
            f"input `{name}` has {quantity(shape[0], 'channel')}, an image in `{said.colour}` "
            f"has {said.channels}"
        )
    return name, shape, said


def _geometry(
    said: Preprocess, taken: tuple[int, int], free: bool
) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
    """What images are resized to, and what is cut out of them, so that the network takes them.

    Where the network has a size and the spec says too little, the centre of that size is cut out
    of what was resized, and images that are not resized at all are resized to that size.
    """
    resize, crop = said.resize, said.crop
    if resize == crop:
        crop = None
    if not free:
        if resize is None and crop is None:
            resize = taken
        elif crop is None and isinstance(resize, int):
            crop = taken  # the longer side is of any length
        made = crop or resize
        if made != taken:
            assert isinstance(made, tuple)  # a single size has a crop
            raise EnvironmentFailure(
                f"images become {shape_text(made)}, the network takes {shape_text(taken)}",
                help="`resize` and `crop` of the spec's `preprocess` say what images become",
            )
    return resize, crop


def _affine(said: Preprocess, in_graph: InGraph) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor and offset by channel, of shape Cx1x1, that normalize; in float64 until the end."""
    mean, std = np.array(said.mean), np.array(said.std)
    factor = (said.scale if in_graph == "full" else 1.0) / std
    offset = -mean / std
    shape = (-1, 1, 1)
    return (
        np.broadcast_to(factor, offset.shape).reshape(shape).astype(np.float32),
        np.broadcast_to(offset, factor.shape).reshape(shape).astype(np.float32),
    )


# ------------------------------------------------------------------------------------- the nodes


def attach(model: onnx.ModelProto, chosen: Around) -> None:
    """Put the nodes of `chosen` around a network, which keeps its own.

    Inputs and outputs keep their names; the network reads and writes those of `Around.renamed`.
    """
    renamed = chosen.renamed
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    nodes = _Nodes(model.graph)
    if chosen.in_graph != "none":
        _images(nodes, chosen)
    own = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes.made, *own])
    for name in chosen.softmax:
        model.graph.node.append(
            helper.make_node("Softmax", [renamed[name]], [name], name=f"{name}/softmax", axis=1)
        )


class _Nodes:
    """Nodes in a row, each with the name of what it writes."""

    def __init__(self, body: onnx.GraphProto) -> None:
        self.body = body
        self.made: list[onnx.NodeProto] = []

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        written = PREFIX + name
        self.made.append(helper.make_node(op, inputs, [written], name=written, **attributes))
        return written

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.body.initializer.append(numpy_helper.from_array(array, PREFIX + name))
        return PREFIX + name


def _images(nodes: _Nodes, chosen: Around) -> None:
    """From the file's input to the network's."""
    (declared,) = (each for each in nodes.body.input if each.name == chosen.image)
    kind = declared.type.tensor_type.elem_type
    network = onnx.ValueInfoProto()
    network.CopyFrom(declared)
    network.name = chosen.renamed[chosen.image]
    nodes.body.value_info.append(network)
    said = chosen.preprocess
    found = chosen.image
    if chosen.in_graph == "full":
        _declare_bytes(declared, chosen)
        found, size = _resize_nodes(nodes, chosen)
        found = _crop_nodes(nodes, chosen, found, size)
        found = nodes.add("Transpose", "channels_first", found, perm=(0, 3, 1, 2))
    if said.colour == "bgr":
        order = nodes.constant("bgr", np.array([2, 1, 0]))
        found = nodes.add("Gather", "swapped", found, order, axis=1)
    if chosen.in_graph == "full" or kind != TensorProto.FLOAT:
        found = nodes.add("Cast", "floats", found, to=TensorProto.FLOAT)
    factor, offset = _affine(said, chosen.in_graph)
    found = nodes.add("Mul", "scaled", found, nodes.constant("factor", factor))
    found = nodes.add("Add", "normalized", found, nodes.constant("offset", offset))
    if kind != TensorProto.FLOAT:
        found = nodes.add("Cast", "narrow", found, to=kind)
    nodes.made[-1].output[0] = network.name


def _declare_bytes(declared: onnx.ValueInfoProto, chosen: Around) -> None:
    """Make of an input in NCHW one of bytes in NHWC, whose size is free unless nothing resizes."""
    tensor = declared.type.tensor_type
    tensor.elem_type = TensorProto.UINT8
    _, channels, height, width = tensor.shape.dim
    sizes: list[Any] = [onnx.TensorShapeProto.Dimension() for _ in range(3)]
    for size, old, name in zip(sizes, (height, width), ("height", "width"), strict=False):
        if chosen.resize is None and chosen.crop is None:
            size.CopyFrom(old)
        else:
            size.dim_param = name
    sizes[2].CopyFrom(channels)
    del tensor.shape.dim[1:]
    tensor.shape.dim.extend(sizes)


def _resize_nodes(nodes: _Nodes, chosen: Around) -> tuple[str, str]:
    """The resized images, and the tensor that has their height and width.

    Channels stay last until the end: ONNX Runtime's optimiser breaks a `Resize` of some axes behind
    a `Transpose`.
    """
    resize, found = chosen.resize, chosen.image
    if isinstance(resize, tuple):
        size = nodes.constant("resize", np.array(resize))
    elif resize is None and chosen.crop is None:
        return found, ""
    else:
        size = nodes.add("Shape", "size", found, start=1, end=3)
    if resize is None:
        return found, size
    if isinstance(resize, int):
        short = nodes.add("ReduceMin", "short", size, keepdims=1)
        times = nodes.add("Mul", "times", size, nodes.constant("resize", np.array([resize])))
        size = nodes.add("Div", "resized_size", times, short)
    attributes: dict[str, Any] = {"coordinate_transformation_mode": "half_pixel", "axes": (1, 2)}
    match chosen.preprocess.interpolation:
        case "nearest":
            attributes |= {"mode": "nearest", "nearest_mode": "round_prefer_ceil"}
        case "bilinear":
            attributes |= {"mode": "linear", "antialias": 1, "exclude_outside": 1}
        case "bicubic":
            attributes |= {"mode": "cubic", "antialias": 1, "exclude_outside": 1}
            attributes["cubic_coeff_a"] = _CUBIC
    return nodes.add("Resize", "resized", found, "", "", size, **attributes), size


def _crop_nodes(nodes: _Nodes, chosen: Around, found: str, size: str) -> str:
    """The centre of images of `size`, as torchvision rounds: half to even."""
    if chosen.crop is None:
        return found
    crop = nodes.constant("crop", np.array(chosen.crop))
    axes = nodes.constant("axes", np.array([1, 2]))
    if chosen.pads:
        lacking = nodes.add("Sub", "lacking", crop, size)
        missing = nodes.add("Max", "missing", lacking, nodes.constant("zero", np.array([0])))
        before = nodes.add("Div", "before", missing, nodes.constant("two", np.array([2])))
        after = nodes.add("Sub", "after", missing, before)
        pads = nodes.add("Concat", "pads", before, after, axis=0)
        found = nodes.add("Pad", "padded", found, pads, "", axes)
        size = nodes.add("Max", "padded_size", size, crop)
    spare = nodes.add("Sub", "spare", size, crop)
    exact = nodes.add("Cast", "spare_float", spare, to=TensorProto.FLOAT)
    half = nodes.add("Mul", "half", exact, nodes.constant("one_half", np.array([0.5], np.float32)))
    start = nodes.add("Cast", "start", nodes.add("Round", "rounded", half), to=TensorProto.INT64)
    end = nodes.add("Add", "end", start, crop)
    return nodes.add("Slice", "cropped", found, start, end, axes)


def images_alone(model: onnx.ModelProto, chosen: Around) -> onnx.ModelProto:
    """The part of a file that makes an input of images, as a model of its own."""
    alone = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    body = alone.graph
    body.name = "images"
    body.node.extend(node for node in model.graph.node if node.name.startswith(PREFIX))
    body.initializer.extend(t for t in model.graph.initializer if t.name.startswith(PREFIX))
    body.input.extend(each for each in model.graph.input if each.name == chosen.image)
    name = chosen.renamed[chosen.image]
    body.output.append(helper.make_empty_tensor_value_info(name))
    return alone
