"""Networks written by hand that the tests of reports share."""

from __future__ import annotations

from cnnspec.ir import Graph
from tests.graphs import Dense, Flat, Mean, Net, Norm, Plus, Rectify

__all__ = ["lenet", "resnet50", "two_heads", "unfit", "vgg16"]


def lenet() -> Graph:
    """LeNet-5 as it is built today: full connections, plain pooling."""
    net = Net("lenet", image=(1, 32, 32))
    for name, channels in (("c1", 6), ("c3", 16)):
        net.add("Conv2d", out_channels=channels, kernel_size=5, name=name)
        net.add(Rectify())
        net.add("MaxPool2d", kernel_size=2, stride=2)
    net.add(Flat())
    for name, units in (("c5", 120), ("f6", 84)):
        net.add(Dense(units=units), name=name)
        net.add(Rectify())
    net.add(Dense(units=10), name="output")
    return net.build()


def vgg16() -> Graph:
    """VGG-16 (configuration D)."""
    net = Net("vgg16", image=(3, 224, 224))
    with net.scope("Sequential", "features"):
        for channels, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(convolutions):
                net.add("Conv2d", out_channels=channels, kernel_size=3, padding=1)
                net.add(Rectify())
            net.add("MaxPool2d", kernel_size=2, stride=2)
    net.add(Flat())
    with net.scope("Sequential", "classifier"):
        for units in (4096, 4096):
            net.add(Dense(units=units))
            net.add(Rectify())
        net.add(Dense(units=1000))
    return net.build()


def resnet50() -> Graph:
    """ResNet-50 with the stride on the 3x3, as torchvision has it."""
    net = Net("resnet50", image=(3, 224, 224))
    _conv(net, "conv1", 64, 7, 2)
    net.add(Norm(), name="bn1")
    net.add(Rectify())
    net.add("MaxPool2d", kernel_size=3, stride=2, padding=1)
    for stage, depth in enumerate((3, 4, 6, 3)):
        with net.scope("Sequential", f"layer{stage + 1}"):
            for turn in range(depth):
                stride = 2 if turn == 0 and stage > 0 else 1
                _bottleneck(net, 64 * 2**stage, stride, project=turn == 0)
    net.add(Mean())
    net.add(Flat())
    net.add(Dense(units=1000), name="fc")
    return net.build()


def _conv(net: Net, name: str | None, channels: int, kernel: int, stride: int = 1) -> None:
    net.add(
        "Conv2d",
        out_channels=channels,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        bias=False,
        name=name,
    )


def _bottleneck(net: Net, width: int, stride: int, *, project: bool) -> None:
    with net.scope("bottleneck", arguments={"width": width, "stride": stride}):
        shortcut = net.last
        for number, (channels, kernel) in enumerate(((width, 1), (width, 3), (4 * width, 1)), 1):
            _conv(net, f"conv{number}", channels, kernel, stride if number == 2 else 1)
            net.add(Norm(), name=f"bn{number}")
            if number < 3:
                net.add(Rectify())
        main = net.last
        if project:
            with net.scope("Sequential", "downsample"):
                net.last = shortcut
                _conv(net, None, 4 * width, 1, stride)
                shortcut = net.add(Norm())
        net.add(Plus(), main, shortcut)
        net.add(Rectify())


def two_heads() -> Graph:
    """Two inputs, an output that only training has, shared weights."""
    net = Net("two_heads", left=(3, 16, 16), right=(3, 16, 16))
    ends: list[int] = []
    for name, value in net.inputs.items():
        share = net.nodes[0].index if ends else None
        ends.append(
            net.add(
                "Conv2d", value, out_channels=4, kernel_size=3, padding=1, name=name, share=share
            )
        )
    net.add(Plus(), *ends, name="sum")
    trunk = net.add(Flat())
    main = net.add(Dense(units=10), name="main")
    with net.scope("head", "aux"):
        aux = net.add(Dense(units=5), trunk, name="fc")
    return net.build({"logits": main}, training={"aux": aux})


def unfit() -> Graph:
    """A network with warnings."""
    net = Net("unfit", image=(1, 6, 6))
    end = net.add("Conv2d", out_channels=2, kernel_size=3, stride=2, name="strided")
    with net.scope("unit", "block"):
        end = net.add("Conv2d", out_channels=2, kernel_size=5, padding=2, name="wide")
    net.add(Rectify(), name="left_over")
    return net.build({"y": end})
