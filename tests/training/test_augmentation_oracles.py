"""What changes make of images, against torchvision with the same parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from cnnspec.training.augmentation import colouring
from cnnspec.training.augmentation.colouring import Blur, Grayscale
from cnnspec.training.augmentation.moving import Flip, Window
from cnnspec.training.augmentation.philox import Keys
from cnnspec.training.augmentation.pixels import unit
from cnnspec.training.augmentation.rand_augment import KINDS, RandAugment
from cnnspec.training.augmentation.rectangles import whole
from cnnspec.training.augmentation.warping import Affine, inverses, warped

_LIBRARY = None
if not hasattr(torch.ops.torchvision, "nms"):
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision.transforms import InterpolationMode, v2  # noqa: E402  # after the declarations
from torchvision.transforms.v2 import functional as oracle  # noqa: E402

KEYS = Keys(5, 3, np.arange(100, 112), 2)


def images(channels: int = 3, height: int = 21, width: int = 26, count: int = 12) -> Tensor:
    """Smooth images with some noise, so that a pixel's neighbour is not just anything."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, channels, 4, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = torch.rand(fine.shape, generator=generator) * 0.2
    return ((fine + noise).clamp(0, 1) * 255).to(torch.uint8)


@pytest.mark.parametrize(("axis", "flip"), [(-1, oracle.hflip), (-2, oracle.vflip)])
def test_flips(axis: int, flip: Callable[[Tensor], Tensor]) -> None:
    batch = images()
    found, masks = Flip(axis, 0.5)(batch, batch[:, 0].long(), KEYS)  # type: ignore[arg-type]
    chosen = KEYS.uniform(1)[:, 0] < 0.5
    assert 0 < chosen.sum() < len(batch)
    for image, mask, before, flipped in zip(found, masks, batch, chosen, strict=True):
        wanted = flip(before) if flipped else before
        assert torch.equal(image, wanted)
        assert torch.equal(mask, wanted[0].long())


@pytest.mark.parametrize("outside", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("size", [None, (16, 20)])
@pytest.mark.parametrize("floats", [False, True])
def test_windows_are_padding_and_cropping(
    outside: str, size: tuple[int, int] | None, floats: bool
) -> None:
    batch = unit(images()) if floats else images()
    window = Window("RandomCrop", size, (3, 2, 4, 5), outside, 7.0)  # type: ignore[arg-type]
    found, masks = window(batch, images()[:, 0].long(), KEYS)
    height, width = size or (21, 26)
    drawn = KEYS.uniform(2)
    tops = whole(drawn[:, 0], 21 + 7 - height + 1)
    lefts = whole(drawn[:, 1], 26 + 7 - width + 1)
    assert len(set(tops)) > 2
    assert len(set(lefts)) > 2
    fill = 7 / 255 if floats else 7
    for image, mask, before, bytes_, top, left in zip(
        found, masks, batch, images(), tops, lefts, strict=True
    ):
        padded = oracle.pad(before, [3, 2, 4, 5], fill, outside)
        assert torch.equal(image, oracle.crop(padded, top, left, height, width))
        padded = oracle.pad(bytes_[:1], [3, 2, 4, 5], 255, outside)
        assert torch.equal(mask, oracle.crop(padded, top, left, height, width)[0].long())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "factor"),
    [
        (colouring.brightness, oracle.adjust_brightness, [0.0, 0.6, 1.0, 1.7]),
        (colouring.contrast, oracle.adjust_contrast, [0.0, 0.6, 1.0, 1.7]),
        (colouring.saturation, oracle.adjust_saturation, [0.0, 0.6, 1.0, 1.7]),
        (colouring.hue, oracle.adjust_hue, [-0.5, -0.1, 0.0, 0.3]),
    ],
)
def test_colours(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Tensor, float], Tensor],
    factor: list[float],
    channels: int,
) -> None:
    batch = images(channels, count=4)
    found = ours(unit(batch), torch.tensor(factor))
    for image, before, each in zip(found, batch, factor, strict=True):
        # torchvision's grey has weights of four digits, kornia's of three.
        torch.testing.assert_close(image, theirs(unit(before), each), rtol=0, atol=2e-3)
        # Whole bytes round at every step within.
        assert (image * 255 - theirs(before, each)).abs().max() < 2.5


def test_grayscale() -> None:
    batch = images()
    found, _ = Grayscale(0.5)(batch, None, KEYS)
    for image, before, grey in zip(found, batch, KEYS.uniform(1)[:, 0] < 0.5, strict=True):
        wanted = oracle.rgb_to_grayscale(unit(before), 3) if grey else unit(before)
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-3)


def test_blur() -> None:
    batch = images()
    found, _ = Blur((5, 7), (0.4, 1.9), 0.5)(batch, None, KEYS)
    drawn = KEYS.uniform(2)
    for image, before, (chance, part) in zip(found, batch, drawn, strict=True):
        sigma = 0.4 + 1.5 * part
        wanted = (
            oracle.gaussian_blur(unit(before), [7, 5], [sigma]) if chance < 0.5 else unit(before)
        )
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-6)


MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR}


@pytest.mark.parametrize("interpolation", MODES)
def test_affine(interpolation: str) -> None:
    batch = unit(images())
    change = Affine((-40, 70), (0.2, 0.3), (0.7, 1.4), ((-10, 20), (-15, 5)), interpolation)  # type: ignore[arg-type]
    found, _ = change(batch, None, KEYS)
    for image, before, drawn in zip(found, batch, KEYS.uniform(6), strict=True):
        wanted = oracle.affine(
            before,
            -40 + 110 * drawn[0],
            [round(26 * 0.2 * (2 * drawn[1] - 1)), round(21 * 0.3 * (2 * drawn[2] - 1))],
            0.7 + 0.7 * drawn[3],
            [-10 + 30 * drawn[4], -15 + 20 * drawn[5]],
            MODES[interpolation],
        )
        if interpolation == "nearest":
            assert (image != wanted).float().mean() < 0.01  # halves, rounded either way
        else:
            torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)


def test_nearest_keeps_bytes_and_moves_masks_alike() -> None:
    batch = images()
    masks = batch[:, 0].long()
    found, moved = Affine((-40, 70), fill=255.0)(batch, masks, KEYS)
    assert found.dtype == torch.uint8
    assert torch.equal(found[:, 0].long(), moved)


def test_rotation_turns_as_torchvision_says() -> None:
    from cnnspec.metadata import Preprocess
    from cnnspec.training.augmentation.augmenting import Augmentation
    from cnnspec.training.recipe.model import Call

    batch = images(count=2)
    rotation = Augmentation(
        [Call("RandomRotation", {"degrees": [30, 30], "interpolation": "bilinear"})],
        Preprocess(),
        seed=0,
        channels=3,
    )
    found, _ = rotation(batch, torch.zeros(2, dtype=torch.int64), torch.arange(2), 0)
    wanted = oracle.rotate(unit(batch), 30, InterpolationMode.BILINEAR)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_fill_lies_around() -> None:
    still = np.zeros(1)
    moved = inverses(still, (still + 4, still), still + 1, (still, still))
    for interpolation in ("nearest", "bilinear"):
        found, _ = warped(torch.ones(1, 1, 4, 8), None, moved, interpolation, 51.0)  # type: ignore[arg-type]
        torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.2] * 4 + [1.0] * 4))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment(kind: str, channels: int, magnitude: int) -> None:
    batch = images(channels, count=2)
    ours = RandAugment(magnitude=magnitude)
    theirs = v2.RandAugment(magnitude=magnitude)
    magnitudes, signed = theirs._AUGMENTATION_SPACE[kind]
    strengths = magnitudes(31, 21, 26)
    for sign in (1.0, -1.0) if signed else (1.0,):
        found, _ = ours.applied(batch, None, np.full(2, KINDS.index(kind)), np.full(2, sign))
        strength = 0.0 if strengths is None else strengths[magnitude].item() * sign
        wanted = theirs._apply_image_or_video_transform(
            batch, kind, strength, interpolation=InterpolationMode.NEAREST, fill={Tensor: 0}
        )
        apart = (found * 255 - wanted).abs()
        if kind in ("ShearX", "ShearY", "Rotate"):
            assert (apart > 0.5).float().mean() < 0.01  # halves, rounded either way
        else:
            assert apart.max() < 2.5
    assert tuple(theirs._AUGMENTATION_SPACE) == KINDS
