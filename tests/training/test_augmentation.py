"""Augmentation as a whole: the same for a sample in any batch, and what each call draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Preprocess
from cnnspec.runtime.preparing import preparation
from cnnspec.training.augmentation.augmenting import NAMES, Augmentation
from cnnspec.training.augmentation.philox import Keys
from cnnspec.training.recipe.known import AUGMENTATIONS
from cnnspec.training.recipe.model import Call

CALLS: Mapping[str, Mapping[str, Any]] = {
    "RandomHorizontalFlip": {},
    "RandomVerticalFlip": {},
    "RandomShift": {"pixels": 2},
    "RandomCrop": {"size": [18, 22], "padding": 4, "padding_mode": "reflect"},
    "ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "RandomGrayscale": {"p": 0.5},
    "PCAColor": {},
    "RandAugment": {},
    "RandomErasing": {"value": "random"},
    "RandomRotation": {"degrees": 20, "interpolation": "bilinear", "fill": 30},
    "RandomAffine": {"degrees": 10, "translate": [0.1, 0.1], "scale": [0.8, 1.2], "shear": 5},
    "GaussianBlur": {"kernel_size": 5},
}
SAMPLES = torch.arange(40, 56)


def images(channels: int = 3, count: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, 18, 22), dtype=torch.uint8, generator=generator)


def augmentation(*calls: Call, channels: int = 3, **more: Any) -> Augmentation:
    preprocess = more.pop("preprocess", Preprocess(mean=(0.4,), std=(0.2,)))
    return Augmentation(
        calls, preprocess, channels=channels, **{"seed": 11, "size": (18, 22), **more}
    )


def test_calls_are_those_of_recipes() -> None:
    assert set(NAMES) == set(AUGMENTATIONS)
    assert set(CALLS) | {"RandomResizedCrop", "Resize", "CenterCrop"} == set(NAMES)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("names", [[name] for name in CALLS] + [list(CALLS)])
def test_a_sample_is_the_same_in_any_batch(names: list[str], channels: int) -> None:
    calls = [Call(name, CALLS[name]) for name in names if channels == 3 or name != "PCAColor"]
    change, batch, masks = (
        augmentation(*calls, channels=channels),
        images(channels),
        images(1)[:, 0],
    )
    whole, moved = change(batch, masks.long(), SAMPLES, 4)
    assert whole.shape == batch.shape
    assert whole.dtype == torch.float32
    some = torch.tensor([13, 2, 5])
    part, cut = change(batch[some], masks[some].long(), SAMPLES[some], 4)
    assert torch.equal(part, whole[some])
    assert torch.equal(cut, moved[some])
    for number in some:
        alone, own = change(
            batch[number, None], masks[number, None].long(), SAMPLES[number, None], 4
        )
        assert torch.equal(alone[0], whole[number])
        assert torch.equal(own[0], moved[number])
    if names != ["RandomGrayscale"] and calls:
        assert not torch.equal(change(batch, masks.long(), SAMPLES, 5)[0], whole)
        other = augmentation(*calls, channels=channels, seed=12)
        assert not torch.equal(other(batch, masks.long(), SAMPLES, 4)[0], whole)
    assert torch.equal(batch, images(channels)), "images that came in were changed"


def test_threads_change_nothing() -> None:
    change = augmentation(*(Call(name, CALLS[name]) for name in CALLS))
    labels, threads = torch.zeros(16).long(), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(change(images(), labels, SAMPLES, 0)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_positions_have_streams_of_their_own() -> None:
    flip = Call("RandomHorizontalFlip")
    labels = torch.zeros(16).long()
    once, _ = augmentation(flip)(images(), labels, SAMPLES, 0)
    twice, _ = augmentation(flip, flip)(images(), labels, SAMPLES, 0)
    plain, _ = augmentation()(images(), labels, SAMPLES, 0)
    assert not torch.equal(once, plain)
    assert not torch.equal(twice, plain)


@pytest.mark.parametrize(
    "preprocess",
    [
        None,
        Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocess(scale=1.0, mean=(103.939, 116.779, 123.68), colour="bgr"),
        Preprocess(scale=1 / 127.5, mean=(1.0,)),
        Preprocess(colour="grey", mean=(0.13,), std=(0.31,)),
    ],
)
def test_without_calls_it_is_the_preparation_of_prediction(preprocess: Preprocess | None) -> None:
    channels = 1 if preprocess and preprocess.colour == "grey" else 3
    prepared = preparation(preprocess, (1, channels, 18, 22))
    batch = images(channels)
    found, labels = augmentation(preprocess=prepared.preprocess, channels=channels)(
        batch, SAMPLES, SAMPLES, 0
    )
    for image, result in zip(batch.numpy(), found.numpy(), strict=True):
        pixels = image[0] if channels == 1 else image.transpose(1, 2, 0)
        assert np.array_equal(result, prepared(Image.fromarray(pixels)))
    assert labels is SAMPLES


@pytest.mark.parametrize(
    "preprocess", [Preprocess(scale=1.0, mean=(100.0,), colour="bgr"), Preprocess(std=(0.5,))]
)
def test_floats_are_normalised_like_bytes(preprocess: Preprocess) -> None:
    still = Call("ColorJitter", {"brightness": [0.99999999, 1.00000001]})
    labels = torch.zeros(16).long()
    found, _ = augmentation(still, preprocess=preprocess)(images(), labels, SAMPLES, 0)
    plain, _ = augmentation(preprocess=preprocess)(images(), labels, SAMPLES, 0)
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-4)


def test_pca_colour_is_the_formula_of_alexnet() -> None:
    vectors = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=2e-4)
    values = np.array([0.2175, 0.0188, 0.0045])
    change = augmentation(Call("PCAColor", {"std": 0.3}), preprocess=Preprocess())
    found, _ = change(images(), torch.zeros(16).long(), SAMPLES, 2)
    alphas = 0.3 * Keys(11, 2, SAMPLES.numpy(), 0).normal(3)
    for image, before, alpha in zip(found, images(), alphas, strict=True):
        added = vectors @ (alpha * values)
        wanted = before / 255 + torch.from_numpy(added).float()[:, None, None]
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-6)
    drawn = Keys(0, 0, np.arange(20000), 0).normal(3)
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01


@pytest.mark.parametrize("value", [0, [1.0, -2.0, 3.0], "random"])
def test_erasing(value: Any) -> None:
    scale, ratio = (0.1, 0.3), (0.5, 2.0)
    erasing = {"p": 0.6, "value": value, "scale": list(scale), "ratio": list(ratio)}
    batch, numbers = images().repeat(8, 1, 1, 1).clamp(max=250), torch.arange(128)
    labels = torch.zeros(128).long()
    plain, _ = augmentation()(batch, labels, numbers, 0)
    found, _ = augmentation(Call("RandomErasing", erasing))(batch, labels, numbers, 0)
    changed = (found != plain).any(dim=(1, 2, 3))
    assert 50 < changed.sum() < 100
    pairs = zip(found[changed], plain[changed], strict=True)
    for place, (image, before) in enumerate(pairs):
        places = (image != before).any(dim=0).nonzero()
        (top, left), (bottom, right) = places.amin(dim=0), places.amax(dim=0) + 1
        height, width = int(bottom - top), int(right - left)
        assert 0.1 - 0.06 < height * width / (18 * 22) < 0.3 + 0.06
        assert 0.5 / 1.4 < height / width < 2 * 1.4
        painted = image[:, top:bottom, left:right]
        if value == "random":
            noise = Keys(11, 0, numbers[changed][place, None].numpy(), 0).normal(
                3 * 18 * 22, first=24
            )
            wanted = torch.from_numpy(noise.astype(np.float32)).view(3, 18, 22)
            assert torch.equal(painted, wanted[:, top:bottom, left:right])
        else:
            wanted = torch.as_tensor(value, dtype=torch.float32).expand(3)
            assert torch.equal(painted, wanted[:, None, None].expand_as(painted))


def test_shares() -> None:
    labels, numbers = torch.zeros(2000).long(), torch.arange(2000)
    batch = images(count=1).expand(2000, -1, -1, -1)
    plain, _ = augmentation()(batch[:1], labels[:1], numbers[:1], 0)
    for name, p in (("RandomHorizontalFlip", 0.3), ("RandomGrayscale", 0.7), ("GaussianBlur", 0.2)):
        call = Call(name, {"p": p, **({"kernel_size": 3} if name == "GaussianBlur" else {})})
        found, _ = augmentation(call)(batch, labels, numbers, 0)
        share = (found != plain).any(dim=(1, 2, 3)).float().mean()
        assert abs(share - p) < 0.04, name


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixing_is_the_formula(mixup: float, cutmix: float) -> None:
    labels = torch.arange(16) % 7
    plain, _ = augmentation()(images(), labels, SAMPLES, 3)
    change = augmentation(mixup=mixup, cutmix=cutmix, classes=7)
    found, targets = change(images(), labels, SAMPLES, 3)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(16))
    cuts = 0
    for number in range(16):
        own, partner = plain[number], plain[number - 1]
        share = targets[number, labels[number]]
        wanted = torch.zeros(7)
        wanted[labels[number - 1]] = 1 - share
        wanted[labels[number]] = share
        torch.testing.assert_close(targets[number], wanted)
        blended = share * own + (1 - share) * partner
        if mixup and torch.allclose(found[number], blended, atol=1e-5):
            continue
        cuts += 1
        kept = (found[number] == own).all(dim=0)
        replaced = (found[number] == partner).all(dim=0)
        assert (kept | replaced).all()
        area = (~kept).sum().item()
        assert abs((1 - area / (18 * 22)) - share) < 0.02
    assert (cuts == 0) == (cutmix == 0)
    assert (cuts == 16) == (mixup == 0)


def test_shares_of_mixing_depend_on_the_sample_alone() -> None:
    labels = torch.arange(16)
    change = augmentation(mixup=0.4, cutmix=1.0, classes=16)
    _, whole = change(images(), labels, SAMPLES, 0)
    _, part = change(images()[4:9], labels[4:9], SAMPLES[4:9], 0)
    assert torch.equal(part.diagonal(4), whole[4:9].diagonal(4))
    _, alone = change(images()[:1], labels[:1], SAMPLES[:1], 0)
    assert torch.equal(alone[0], torch.nn.functional.one_hot(labels[0], 16).float())


def test_empty_batches_come_back_empty() -> None:
    change = augmentation(*(Call(name, CALLS[name]) for name in CALLS), mixup=0.1, classes=5)
    found, targets = change(images()[:0], torch.zeros(0).long(), SAMPLES[:0], 0)
    assert found.shape == (0, 3, 18, 22)
    assert targets.shape == (0, 5)


@pytest.mark.parametrize(
    ("calls", "more", "message"),
    [
        (
            [Call("RandomCrop", {"size": 24, "padding": 4})],
            {},
            "`RandomCrop` makes images of 24x24, the network takes 18x22",
        ),
        (
            [Call("PCAColor")],
            {"channels": 1},
            "`PCAColor` is for images of 3 channels, the network takes 1",
        ),
        (
            [Call("RandomErasing", {"value": [1, 2]})],
            {},
            "`RandomErasing` has 2 values, images have 3 channels",
        ),
        ([Call("RandomFlip")], {}, "there is no augmentation `RandomFlip`"),
        ([], {"mixup": 0.1}, "`mixup` and `cutmix` mix classes, of which there are none"),
    ],
)
def test_what_cannot_be_is_refused(calls: list[Call], more: dict[str, Any], message: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        augmentation(*calls, **more)
    assert failure.value.message == message


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            Call("RandomShift", {"pixels": 20, "padding_mode": "reflect"}),
            "`RandomShift` reflects 20 pixels, images have 18x22",
        ),
        (
            Call("GaussianBlur", {"kernel_size": 37}),
            "`GaussianBlur` has a kernel of 37x37, images have 18x22 pixels",
        ),
    ],
)
def test_images_that_are_too_small_are_refused(call: Call, message: str) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        augmentation(call)(images(), SAMPLES, SAMPLES, 0)
    assert failure.value.message == message


def test_masks_are_not_mixed() -> None:
    with pytest.raises(EnvironmentFailure, match="not of pixels"):
        augmentation(mixup=0.1, classes=3)(images(), images(1)[:, 0].long(), SAMPLES, 0)
