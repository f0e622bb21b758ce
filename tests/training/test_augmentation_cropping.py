"""Calls that give images their size, against torchvision on the same parameters."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Preprocess
from cnnspec.runtime.preparing import Preparation, preparation
from cnnspec.training.augmentation.cropping import Cropping, sizing
from cnnspec.training.augmentation.philox import Keys
from cnnspec.training.augmentation.rectangles import rectangles, whole
from cnnspec.training.recipe.model import Call

_LIBRARY = None
if not hasattr(torch.ops.torchvision, "nms"):
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision.transforms.v2 import InterpolationMode  # noqa: E402  # after the declarations
from torchvision.transforms.v2 import functional as oracle  # noqa: E402

MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


def picture(width: int = 61, height: int = 43, mode: str = "RGB", seed: int = 0) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def takes(height: int, width: int, channels: int = 3) -> Preparation:
    return preparation(None, (1, channels, height, width))


def cropping(*calls: Call, to: Preparation, seed: int = 5) -> Cropping:
    found = Cropping.of(calls, to, seed)
    assert found is not None
    return found


def drawn(seed: int, epoch: int, sample: int, place: int, count: int) -> Any:
    return Keys(seed, epoch, np.array([sample]), place).uniform(count)


@pytest.mark.parametrize("way", MODES)
@pytest.mark.parametrize("size", [24, [20, 30]])
def test_random_resized_crop(way: str, size: Any) -> None:
    wanted = [size, size] if isinstance(size, int) else size
    call = Call("RandomResizedCrop", {"size": size, "interpolation": way})
    crop = cropping(Call("RandomHorizontalFlip"), call, to=takes(*wanted))
    seen = set()
    for sample in range(20):
        numbers = drawn(5, 2, sample, 1, 22)
        ((width, height),) = rectangles(
            numbers[:, 2:].reshape(1, 10, 2), (61, 43), (0.08, 1.0), (3 / 4, 4 / 3), full=True
        )
        assert 0.07 < width * height / (61 * 43) <= 1
        top, left = whole(numbers[0, :2], np.array([43 - height + 1, 61 - width + 1]))
        box = int(top), int(left), int(height), int(width)
        seen.add(box)
        expected = oracle.resized_crop(picture(), *box, wanted, MODES[way])
        assert np.array_equal(crop(picture(), 2, sample).transpose(1, 2, 0), np.asarray(expected))
    assert len(seen) == 20


@pytest.mark.parametrize(("width", "height"), [(300, 3), (3, 300)])
def test_where_no_part_fits_the_middle_is_taken(width: int, height: int) -> None:
    call = Call("RandomResizedCrop", {"size": 8, "scale": [0.9, 1.0]})
    image = picture(width, height)
    box = (0, 148, 3, 4) if width > height else (148, 0, 4, 3)
    expected = oracle.resized_crop(image, *box, [8, 8], InterpolationMode.BILINEAR)
    found = cropping(call, to=takes(8, 8))(image, 0, 0)
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(expected))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("padding", [None, 3, [2, 4], [1, 2, 3, 4]])
def test_resize_and_random_crop(mode: str, padding: Any) -> None:
    crop = cropping(
        Call("Resize", {"size": 32}),
        Call("RandomCrop", {"size": [28, 30], "padding": padding, "padding_mode": mode, "fill": 9}),
        to=takes(28, 30),
    )
    resized = oracle.resize(picture(), [32], InterpolationMode.BILINEAR)
    assert resized.size == (45, 32)
    padded = resized if padding is None else oracle.pad(resized, padding, 9, mode)
    seen = set()
    for sample in range(12):
        numbers = drawn(5, 7, sample, 1, 2)[0]
        free = np.array([padded.height - 28 + 1, padded.width - 30 + 1])
        top, left = (int(value) for value in whole(numbers, free))
        seen.add((top, left))
        expected = oracle.crop(padded, top, left, 28, 30)
        assert np.array_equal(crop(picture(), 7, sample).transpose(1, 2, 0), np.asarray(expected))
    assert len(seen) > 6


@pytest.mark.parametrize("size", [33, [50, 20]])
@pytest.mark.parametrize("crop", [None, 30, 70])
def test_resize_and_centre(size: Any, crop: int | None) -> None:
    calls = [Call("Resize", {"size": size, "interpolation": "bicubic"})]
    expected = oracle.resize(
        picture(), [size] if isinstance(size, int) else size, InterpolationMode.BICUBIC
    )
    if crop is not None:
        calls.append(Call("CenterCrop", {"size": crop}))
        expected = oracle.center_crop(expected, [crop, crop])
    side = crop or 16
    found = cropping(*calls, to=takes(side, side))(picture(), 0, 0)
    expected = oracle.center_crop(expected, [side, side])
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(expected))


def test_what_is_too_small_for_a_crop_gets_a_border() -> None:
    found = cropping(Call("RandomCrop", {"size": 8, "fill": 7}), to=takes(8, 8))(
        picture(6, 3), 0, 0
    )
    assert np.array_equal(found[:, 2:5, 1:7].transpose(1, 2, 0), np.asarray(picture(6, 3)))
    assert (np.delete(found[:, :, 1:7], [2, 3, 4], axis=1) == 7).all()


@pytest.mark.parametrize(
    "calls",
    [
        [Call("RandomResizedCrop", {"size": 24})],
        [Call("Resize", {"size": 30}), Call("RandomCrop", {"size": 24, "padding": 6})],
        [Call("Resize", {"size": [20, 40]})],
        [Call("CenterCrop", {"size": 50}), Call("Resize", {"size": 24})],
    ],
)
def test_masks_move_along(calls: list[Call]) -> None:
    """Of an image whose two pixels' colours are also its classes, resized without mixing them."""
    calls = [
        Call(call.name, {**call.arguments, "interpolation": "nearest"})
        if "size" in call.arguments and call.name in ("RandomResizedCrop", "Resize")
        else call
        for call in calls
    ]
    grey = picture(mode="L").point(lambda value: 1 + value % 200)
    crop = cropping(*calls, to=takes(24, 24, 1))
    for sample in range(8):
        pixels, mask = crop.both(grey, np.asarray(grey), 1, sample)
        assert mask is not None
        assert pixels.shape == (1, 24, 24)
        assert mask.dtype == np.int64
        assert np.array_equal(np.where(mask == 255, 0, mask), pixels[0])
        assert np.array_equal(crop(grey, 1, sample), pixels)


def test_masks_are_never_interpolated() -> None:
    mask = np.where(np.arange(43)[:, None] < 20, 3, 9).astype(np.uint8).repeat(61, axis=1)
    crop = cropping(Call("RandomResizedCrop", {"size": 24}), to=takes(24, 24))
    found: list[set[int]] = []
    for sample in range(10):
        _, moved = crop.both(picture(), mask, 0, sample)
        assert moved is not None
        found.append(set(moved.flatten().tolist()))
    assert all(classes <= {3, 9} for classes in found)
    assert {3, 9} in found, "no crop holds the border"


def test_a_sample_is_the_same_wherever_it_is_read() -> None:
    crop = cropping(Call("RandomResizedCrop", {"size": 24}), to=takes(24, 24))
    elsewhere = pickle.loads(pickle.dumps(crop))
    assert np.array_equal(crop(picture(), 3, 8), elsewhere(picture(), 3, 8))
    assert not np.array_equal(crop(picture(), 3, 8), crop(picture(), 4, 8))
    assert not np.array_equal(crop(picture(), 3, 8), crop(picture(), 3, 9))


def test_grey_images_for_networks_of_three_channels() -> None:
    to = preparation(Preprocess(colour="grey"), (1, 3, 24, 24))
    found = cropping(Call("Resize", {"size": 24}), to=to)(picture(mode="L"), 0, 0)
    assert found.shape == (3, 24, 24)
    assert np.array_equal(found[0], found[2])


def test_which_calls_run_in_workers() -> None:
    padded, bare = Call("RandomCrop", {"size": 8, "padding": 2}), Call("RandomCrop", {"size": 8})
    flip, resize = Call("RandomHorizontalFlip"), Call("Resize", {"size": 9})
    assert sizing([flip, padded]) == frozenset()
    assert sizing([flip, bare]) == {1}
    assert sizing([flip, resize, padded, flip]) == {1, 2}
    assert Cropping.of([flip, padded], takes(8, 8), 0) is None


def test_a_size_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        Cropping.of([Call("RandomResizedCrop", {"size": 24})], takes(32, 32), 0)
    assert failure.value.message == (
        "`RandomResizedCrop` makes images of 24x24, the network takes 32x32"
    )


def test_reflections_need_an_image_that_is_large_enough() -> None:
    call = Call("RandomCrop", {"size": 24, "padding": 30, "padding_mode": "reflect"})
    crop = cropping(Call("Resize", {"size": 20}), call, to=takes(24, 24))
    with pytest.raises(EnvironmentFailure) as failure:
        crop(picture(), 0, 0)
    assert failure.value.message == "`RandomCrop` reflects 30 pixels, the image has 20x28"
