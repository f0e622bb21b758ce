"""Checks of the textbook that are answered by analysis alone: sizes, params, connections, depth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import cnnspec
from cnnspec.geometry import remainder, same_padding
from cnnspec.report import Report
from tests.textbook.cases import bundled, convolutions, output, weighted


def analysed(layers: str, *shape: int) -> Report:
    """The analysis of a network of one input."""
    text = f"cnnspec: 1\nname: net\ninputs: {{x: {list(shape)}}}\nlayers: [{layers}]\n"
    return cnnspec.load(text=text).analyze()


# ------------------------------------------------------------------------------------------ sizes


def grid_of_vectors(size: int, kernel: int, filters: int) -> list[int]:
    """Positions of a feature map, and the length of the vector at each."""
    conv = f"Conv2d: {{out_channels: {filters}, kernel_size: {kernel}}}"
    channels, *grid = output(analysed(conv, 3, size, size))
    return [prod(grid), channels]


def map_size(height: int, width: int, kernel: int, padding: int, stride: int) -> list[int]:
    """Height and width of a feature map."""
    sizes = f"kernel_size: {kernel}, padding: {padding}, stride: {stride}"
    conv = f"{{Conv2d: {{out_channels: 1, {sizes}}}, allow: [unread-rows]}}"
    return output(analysed(conv, 1, height, width))[1:]


def exact_size(n: int, kernel: int, stride: int) -> float:
    """(N - F) / S + 1 before it is rounded."""
    left = remainder(n, kernel, stride, 1, 0, 0)
    return float(map_size(n, n, kernel, 0, stride)[0] + Fraction(left, stride))


def padding_that_keeps(kernel: int) -> int:
    """The padding on either side under which a map keeps its size."""
    before, after = same_padding(32, kernel, 1, 1)
    assert before == after
    assert map_size(32, 32, kernel, before, 1) == [32, 32]
    return before


def same_padding_of(n: int, k: int, s: int) -> dict[str, Any]:
    """What `padding: same` adds before and after, and the size it leads to."""
    conv = f"Conv2d: {{out_channels: 1, kernel_size: {k}, stride: {s}, padding: same}}"
    return {"out": output(analysed(conv, 1, n, n))[1], "pads": list(same_padding(n, k, s, 1))}


def row_length(n: int, k: int, s: int, p: int) -> int:
    """The length of a convolved row."""
    conv = f"Conv1d: {{out_channels: 1, kernel_size: {k}, stride: {s}, padding: {p}}}"
    return output(analysed(conv, 1, n))[1]


def cells_times_bins(height: int, width: int, cell: int, bins: int) -> int:
    """Histograms of gradients as a convolution: a bin for each filter, a step for each cell."""
    conv = f"Conv2d: {{out_channels: {bins}, kernel_size: {cell}, stride: {cell}}}"
    return prod(output(analysed(conv, 1, height, width)))


# -------------------------------------------------------------------------- params, connections


def weights_of_dense_row(n: int) -> int:
    """Every output of a row reads every input."""
    return analysed(f"Linear: {{out_features: {n}, bias: false}}", n).totals.params


def weights_of_local_row(n: int) -> int:
    """Every output reads its three neighbours, with weights of its own."""
    arguments = "out_channels: 1, kernel_size: 3, padding: 1, bias: false, padding_weights: false"
    return analysed(f"LocallyConnected1d: {{{arguments}}}", 1, n).totals.params


def weights_of_local_map(size: int, maps: int, kernel: int) -> int:
    """Weights for every position of a map that keeps its size, those of the padding among them."""
    arguments = f"out_channels: {maps}, kernel_size: {kernel}, padding: same, bias: false"
    report = analysed(f"LocallyConnected2d: {{{arguments}}}", 1, size, size)
    assert report.totals.params == report.totals.connections
    return report.totals.params


def connections_of_lenet() -> dict[str, Any]:
    """Links, biases among them, of each layer of LeNet-5."""
    layers = bundled("lenet5_1998").layers
    found = [layer.connections_with_bias for layer in layers if layer.connections]
    return {"per_layer": found, "total": sum(found)}


def params_of(networks: Sequence[str]) -> list[int]:
    """Params of bundled networks."""
    return [bundled(name).totals.params for name in networks]


def cost_of_projections(projected: str, padded: str, widths: Sequence[int]) -> dict[str, int]:
    """What shortcuts that project cost beyond those that pad."""
    more, less = params_of([projected, padded])
    steps = list(pairwise(widths))
    kernels = sum(narrow * wide for narrow, wide in steps)
    norms = sum(2 * wide for _, wide in steps)
    return {"difference": more - less, "convs_and_norms": kernels + norms}


def frozen_and_trained(network: str, part: str, classes: int) -> dict[str, int]:
    """Params below a part that is frozen, and the others, with a head of so many classes."""
    report = cnnspec.load(network, params={"classes": classes}).analyze()
    frozen = sum(one.params for one in report.layers if one.path.startswith(f"{part}."))
    return {"frozen": frozen, "trained": report.totals.params - frozen}


# ------------------------------------------------------------------------------------- networks


def convolutions_of(network: str) -> int:
    """How many convolutions a network has."""
    return len(convolutions(bundled(network)))


def depths_of(networks: Sequence[str]) -> list[int]:
    """Layers with weights, without the projections of shortcuts."""
    return [
        sum(
            layer.op in ("Conv2d", "Linear") and "downsample" not in layer.path
            for layer in bundled(name).layers
        )
        for name in networks
    ]


def deeper_and_cheaper(deep: str, shallow: str, costly: str) -> dict[str, Any]:
    """How many times deeper a network is than one, and whether it needs fewer MACs than another."""
    depth, base = depths_of([deep, shallow])
    cheaper = bundled(deep).totals.macs < bundled(costly).totals.macs
    return {"times": depth / base, "cheaper": cheaper}


def overlapping_pools() -> dict[str, Any]:
    """AlexNet's pools: their kernel, their stride, and height before and after each."""
    graph = cnnspec.load("alexnet_paper").graph
    pools = [node for node in graph.nodes if node.op.name == "MaxPool2d"]
    ((kernel, stride),) = {(node.op.kernel_size, node.op.stride) for node in pools}
    assert kernel > stride
    sites = [graph.site(node) for node in pools]
    return {
        "kernel": kernel[0],
        "stride": stride[0],
        "sizes": [[at.x.shape[1], at.y.shape[1]] for at in sites],
    }


def sixth_row_of_alexnet() -> dict[str, int]:
    """What the row `6 FC 9216` is, its next layer, and what it would be as a layer."""
    report = bundled("alexnet_ungrouped")
    (flat,) = (one.output_shape[0] for one in report.layers if one.op == "Flatten")
    literal = analysed(f"Linear: {{out_features: {flat}}}", flat)
    return {
        "flattened": flat,
        "params": weighted(report, "Linear")[0],
        "as_a_layer": literal.totals.params,
    }


def dropouts_of_alexnet() -> dict[str, list[int]]:
    """How wide the linear layers behind the dropouts are, and which of all linear layers."""
    layers = [layer for layer in bundled("alexnet_paper").layers if layer.op != "ReLU"]
    linear = [layer.path for layer in layers if layer.op == "Linear"]
    behind = [after for before, after in pairwise(layers) if before.op == "Dropout"]
    return {
        "widths": [layer.output_shape[0] for layer in behind],
        "of_linear_layers": [linear.index(layer.path) + 1 for layer in behind],
    }


def yolo_tensor(boxes: int, classes: int) -> list[int]:
    """The shape of YOLO's answer."""
    return output(cnnspec.load("yolov1", params={"boxes": boxes, "classes": classes}).analyze())


def numbers_of_a_box() -> int:
    """By how much YOLO's answer grows with one more box."""
    return yolo_tensor(3, 20)[-1] - yolo_tensor(2, 20)[-1]


def expanded_pattern(N: int, M: int, K: int, pool: bool) -> dict[str, Any]:  # noqa: N803 - as the lecture writes it
    """Layers of the pattern by kind, without the layer that has the classes."""
    params = {"n": N, "m": M, "k": K, "pool": pool}
    layers = cnnspec.load("convnet", params=params).analyze().layers
    kinds = {"Conv2d": "conv", "ReLU": "relu", "MaxPool2d": "pool", "Softmax": "softmax"}
    kinds["Linear"] = "fc"
    found = Counter(dict.fromkeys(kinds.values(), 0))
    found.update(
        kinds[layer.op] for layer in layers if layer.op in kinds and layer.path != "classifier"
    )
    return {"count": dict(found), "total": found.total()}
