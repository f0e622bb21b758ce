"""A folder of class folders, its parts, and images with masks."""

from __future__ import annotations

import os
from pickle import dumps, loads

import numpy as np
import pytest
import torch
from PIL import Image

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.images import ImageFailure
from cnnspec.training.data.folders import Names, open_images
from cnnspec.training.data.loading import Loader
from cnnspec.training.recipe.model import Data
from tests.training.data.pictures import class_folders, picture, put, to


def opened(path, **said):
    return open_images(Data(source="images", path=str(path), **said), 3)


def names(samples, root):
    return [os.path.relpath(samples.label(n), root) for n in range(len(samples))]


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    class_folders(tmp_path, {"bee": 2, "ant": 3})
    put(tmp_path / "bee" / "of 2020" / "x.JPG", 7)
    put(tmp_path / "bee" / ".hidden.png", 8)
    (tmp_path / "bee" / "notes.txt").write_text("")
    put(tmp_path / ".cache" / "x.png", 9)
    found = opened(tmp_path, hold_out=0)
    assert found.classes == ("ant", "bee")
    assert found.held_out is None
    assert found.train.targets() == [0, 0, 0, 1, 1, 1]
    assert names(found.train, tmp_path)[3:] == ["bee/000.png", "bee/001.png", "bee/of 2020/x.JPG"]
    image, target = found.train.read(0, "RGB")
    assert target == 0
    assert image.tobytes() == Image.open(tmp_path / "ant" / "000.png").tobytes()


def test_a_share_of_every_class_is_held_out(tmp_path):
    class_folders(tmp_path, {"ant": 10, "bee": 20})
    found = opened(tmp_path, hold_out=0.3)
    assert np.bincount(found.held_out.targets()).tolist() == [3, 6]
    assert np.bincount(found.train.targets()).tolist() == [7, 14]
    together = names(found.train, tmp_path) + names(found.held_out, tmp_path)
    assert len(set(together)) == 30
    assert names(opened(tmp_path, hold_out=0.3).held_out, tmp_path) == names(
        found.held_out, tmp_path
    )


@pytest.mark.parametrize("part", ["val", "valid", "validation", "test"])
def test_parts_are_recognised(tmp_path, part):
    class_folders(tmp_path / "train", {"ant": 2, "bee": 2})
    class_folders(tmp_path / part, {"bee": 3})
    (tmp_path / "docs").mkdir()
    found = opened(tmp_path)
    assert found.classes == ("ant", "bee")
    assert len(found.train) == 4
    assert found.held_out.targets() == [1, 1, 1]


def test_parts_can_be_named(tmp_path):
    for part, count in (("train", 2), ("test", 3), ("2019", 4), ("2020", 5)):
        class_folders(tmp_path / part, {"ant": count})
    assert len(opened(tmp_path).held_out) == 3
    found = opened(tmp_path, train="2019", held_out="2020")
    assert (len(found.train), len(found.held_out)) == (4, 5)
    found = opened(tmp_path, held_out="2020")
    assert (len(found.train), len(found.held_out)) == (2, 5)


def test_a_class_may_be_called_train(tmp_path):
    class_folders(tmp_path, {"bus": 2, "train": 2})
    assert opened(tmp_path).classes == ("bus", "train")


def test_a_part_to_train_with_alone_gives_the_share(tmp_path):
    class_folders(tmp_path / "train", {"ant": 5, "bee": 5})
    found = opened(tmp_path, hold_out=0.2)
    assert (len(found.train), len(found.held_out)) == (8, 2)


def test_fingerprints_follow_names_sizes_and_shares(tmp_path):
    class_folders(tmp_path, {"ant": 3, "bee": 3})
    seen = {opened(tmp_path).fingerprint, opened(tmp_path).fingerprint}
    assert len(seen) == 1
    seen.add(opened(tmp_path, hold_out=0.4).fingerprint)
    with (tmp_path / "ant" / "000.png").open("ab") as file:
        file.write(b"more")
    seen.add(opened(tmp_path).fingerprint)
    (tmp_path / "ant" / "000.png").rename(tmp_path / "ant" / "zero.png")
    seen.add(opened(tmp_path).fingerprint)
    (tmp_path / "bee").rename(tmp_path / "cow")
    seen.add(opened(tmp_path).fingerprint)
    assert len(seen) == 5


def test_many_names_are_few_objects(tmp_path):
    several = ["a/b.png", "", "ümlaut.png", os.fsdecode(b"broken\xff.png")] * 3
    packed = loads(dumps(Names(several)))
    assert [packed[n] for n in range(len(packed))] == several
    assert packed.digest() == Names(several).digest() != Names([*several, ""]).digest()
    assert len(dumps(Names(["x" * 20] * 1000))) < 30_000


@pytest.mark.parametrize(
    ("made", "said", "message"),
    [
        ({}, {}, "has no folders"),
        ({"ant": 1, "bee": 0}, {}, "no image in `.*bee`"),
        ({"train/ant": 1, "val/bee": 1, "val/cow": 1}, {}, "has `bee`, `cow`, which the samples"),
        ({"train/ant": 1, "val/ant": 0}, {}, "no image in `.*val`"),
        ({"ant": 1}, {"train": "trian"}, "trian` is not there"),
        ({"ant": 1}, {"held_out": "ant"}, "has no folder `train`"),
        ({"train/ant": 1}, {"held_out": "val"}, "val` is not there"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, made, said, message):
    for name, count in made.items():
        (tmp_path / name).mkdir(parents=True)
        for number in range(count):
            put(tmp_path / name / f"{number}.png", number)
    with pytest.raises(EnvironmentFailure, match=message):
        opened(tmp_path, **said)


def test_flat_images_say_what_to_do(tmp_path):
    put(tmp_path / "x.png", 1)
    with pytest.raises(EnvironmentFailure) as failure:
        opened(tmp_path)
    assert "into a folder of its name" in failure.value.help
    with pytest.raises(EnvironmentFailure, match="is no folder"):
        opened(tmp_path / "x.png")


# ----------------------------------------------------------------------------------------- masks


def masked(root, count=4, classes=3):
    for number in range(count):
        put(root / "photos" / f"{number}.jpg", number)
        pixels = np.asarray(picture(number, mode="L")) % classes
        (root / "masks" / "photos").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "masks" / "photos" / f"{number}.png")


def test_masks_belong_to_the_images_of_their_path(tmp_path):
    masked(tmp_path)
    found = opened(tmp_path, masks="masks", hold_out=0.25)
    assert (len(found.train), len(found.held_out)) == (3, 1)
    assert found.train.targets() is None
    _, mask = opened(tmp_path, masks="masks", hold_out=0).train.read(2, "RGB")
    assert np.array_equal(mask, np.asarray(picture(2, mode="L")) % 3)


def test_masks_of_parts_lie_in_parts(tmp_path):
    for part in ("train", "val"):
        put(tmp_path / part / "x.png", 1)
        put(tmp_path / "labels" / part / "x.png", 2, mode="L")
    found = open_images(Data(source="images", path=str(tmp_path), masks="labels"), None)
    assert (len(found.train), len(found.held_out)) == (1, 1)
    assert found.train.read(0, "RGB")[1].shape == (12, 10)


def test_masks_move_with_their_images(tmp_path):
    masked(tmp_path)
    samples = opened(tmp_path, masks="masks", hold_out=0).train
    prepare = to(3, 16, 6, resize=[12, 10])
    for shuffle in (True, False):
        loader = Loader(
            samples, seed=0, batch_size=4, shuffle=shuffle, preparation=prepare, workers=0
        )
        batch = next(loader.epoch(0))
        assert batch.images.shape == (4, 3, 16, 6)
        assert batch.targets.shape == (4, 16, 6)
        assert batch.targets.dtype == torch.int64
        for mask, number in zip(batch.targets.numpy(), batch.samples.tolist(), strict=True):
            expected = np.asarray(picture(number, mode="L")) % 3
            assert np.array_equal(mask[2:14], expected[:, 2:8])
            assert (mask[:2] == 255).all()
            assert (mask[14:] == 255).all()


def test_classes_of_masks_do_not_mix_when_they_are_resized(tmp_path):
    masked(tmp_path, classes=2)
    samples = opened(tmp_path, masks="masks", hold_out=0).train
    loader = Loader(
        samples, seed=0, batch_size=4, shuffle=True, preparation=to(3, 31, 17), workers=0
    )
    assert set(next(loader.epoch(0)).targets.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (10, 12), 3), "holds class 3 of 3"),
        (Image.new("RGB", (10, 12)), "colours, where a mask has classes"),
        (None, "it is no mask, or damaged"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, mask, message):
    masked(tmp_path, 1)
    place = tmp_path / "masks" / "photos" / "0.png"
    if mask is None:
        place.write_bytes(place.read_bytes()[:60])
    else:
        mask.save(place)
    samples = opened(tmp_path, masks="masks", hold_out=0).train
    with pytest.raises(ImageFailure, match=f"0.png` cannot be used: .*{message}"):
        samples.read(0, "RGB")


def test_masks_of_another_size_are_refused(tmp_path):
    masked(tmp_path, 1)
    Image.new("L", (10, 11)).save(tmp_path / "masks" / "photos" / "0.png")
    samples = opened(tmp_path, masks="masks", hold_out=0).train
    loader = Loader(samples, seed=0, batch_size=1, shuffle=True, preparation=to(3, 4, 4))
    with pytest.raises(EnvironmentFailure, match="mask has 10x11 pixels, the image 10x12"):
        next(loader.epoch(0))


def test_masks_of_palettes_and_of_nothing(tmp_path):
    masked(tmp_path, 1)
    palette = Image.new("P", (10, 12), 2)
    palette.putpalette([each for each in range(256) for _ in range(3)])
    palette.putpixel((0, 0), 255)
    palette.save(tmp_path / "masks" / "photos" / "0.png")
    _, mask = opened(tmp_path, masks="masks", hold_out=0).train.read(0, "RGB")
    assert mask[0, 0] == 255
    assert (mask.ravel()[1:] == 2).all()


def test_images_without_masks_are_named(tmp_path):
    masked(tmp_path)
    (tmp_path / "masks" / "photos" / "2.png").unlink()
    with pytest.raises(EnvironmentFailure, match=r"no mask of `photos/2\.jpg` in") as failure:
        opened(tmp_path, masks="masks")
    assert "`photos/2.png`" in failure.value.help
