"""How images reach a network under evaluation: views, batches, data, and who disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnspec
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.metadata import Preprocess
from cnnspec.runtime.images import ImageFailure
from cnnspec.runtime.preparing import Preparation, preparation
from cnnspec.training.data.samples import Target
from cnnspec.training.evaluating.choosing import (
    chosen_samples,
    disagreement,
    kind_of,
    labels_for,
)
from cnnspec.training.evaluating.reading import SampleReader, following
from cnnspec.training.evaluating.request import Request
from cnnspec.training.evaluating.task import Task
from cnnspec.training.evaluating.torch_networks import Network, networks_prepared
from cnnspec.training.evaluating.views import Views
from cnnspec.training.recipe.model import Data
from tests.training.made_runs import digits_arrays, made_run, small, taught

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
"""Operators that torchvision wants to be there when it is imported; kept alive with this module."""
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from torchvision import transforms  # noqa: E402 - after its operators


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )


def prepared(**said: object) -> Preparation:
    return preparation(Preprocess.of(said), (None, 3, 12, 16))


# ------------------------------------------------------------------------------------------ views


def test_ten_crops_are_torchvisions() -> None:
    prepare = prepared(resize=[21, 25], crop=[12, 16], mean=[0.4, 0.5, 0.6], std=0.25)
    image = picture(40, 50)
    ours = np.stack(Views(ten=True).arrays(image, prepare))
    resized = transforms.Resize((21, 25))(image)
    theirs = [np.asarray(each) for each in transforms.TenCrop((12, 16))(resized)]
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32(0.25)
    wanted = np.stack(
        [
            ((each.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
            for each in theirs
        ]
    )
    assert ours.shape == (10, 3, 12, 16)
    assert (ours == wanted).all()


def test_a_mirror_image_is_exactly_that() -> None:
    prepare = prepared(resize=[13, 17], crop=[12, 16])
    plain, mirrored = Views(flip=True).arrays(picture(31, 37), prepare)
    assert (mirrored == plain[:, :, ::-1]).all()
    (bytes_,) = (preparation(Preprocess.of({}), (None, 12, 16, 3), dtype="uint8", in_graph="full"),)
    plain, mirrored = Views(flip=True).arrays(picture(12, 16), bytes_)
    assert (mirrored == plain[:, ::-1]).all()


@pytest.mark.parametrize("said", [{}, {"crop": [12, 16]}])
def test_ten_crops_need_something_to_cut_from(said: dict[str, object]) -> None:
    with pytest.raises(EnvironmentFailure, match="needs to know the size"):
        Views(ten=True).check(prepared(**said))


def test_ten_crops_of_a_whole_image_are_refused() -> None:
    with pytest.raises(EnvironmentFailure, match="ten crops of 12x16 cannot be cut from 12x16"):
        Views(ten=True).arrays(picture(30, 30), prepared(resize=[12, 16], crop=[12, 16]))


# ---------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Numbered:
    """Samples that are their own numbers; some cannot be read."""

    count: int
    broken: tuple[int, ...] = ()
    mask: bool = False

    def __len__(self) -> int:
        return self.count

    def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
        if number in self.broken:
            raise ImageFailure(self.label(number), "it is damaged")
        image = Image.new(mode, (6, 4), number if mode == "L" else (number,) * 3)
        if not self.mask:
            return image, number % 7
        return image, np.arange(24, dtype=np.uint8).reshape(4, 6)

    def label(self, number: int) -> str:
        return f"number {number}"

    def targets(self) -> Sequence[int] | None:
        return None


GREY = preparation(Preprocess.of({"colour": "grey", "scale": 1.0}), (None, 1, 4, 6))


@pytest.mark.parametrize("threads", [1, 5])
@pytest.mark.parametrize("batch", [1, 16, 40])
def test_every_sample_is_read_once_and_in_order(threads: int, batch: int) -> None:
    reader = SampleReader(Numbered(101), [GREY], Views(flip=True), batch, threads)
    found = list(reader.batches())
    assert [len(each.targets) for each in found[:-1]] == [batch] * (len(found) - 1)
    ((first, second),) = (
        [np.concatenate([each.images[0][view] for each in found]) for view in range(2)],
    )
    assert first[:, 0, 0, 0].tolist() == list(range(101))
    assert (first == second).all()
    assert np.concatenate([each.targets for each in found]).tolist() == [n % 7 for n in range(101)]


def test_damaged_samples_are_skipped_where_that_is_asked_for() -> None:
    failures: list[ImageFailure] = []
    broken = Numbered(20, broken=(0, 9, 19))
    reader = SampleReader(broken, [GREY], Views(), 4, 2, corrupt="skip", failed=failures.append)
    images = np.concatenate([each.images[0][0] for each in reader.batches()])
    assert images[:, 0, 0, 0].tolist() == [n for n in range(20) if n not in (0, 9, 19)]
    assert [each.name for each in failures] == ["number 0", "number 9", "number 19"]
    with pytest.raises(ImageFailure, match="`number 0` cannot be used"):
        list(SampleReader(broken, [GREY], Views(), 4, 2).batches())


def test_sizes_do_not_mix() -> None:
    @dataclass(frozen=True)
    class Growing(Numbered):
        def read(self, number: int, mode: str) -> tuple[Image.Image, Target]:
            return Image.new(mode, (4 + number // 3, 4)), 0

    free = preparation(Preprocess.of({}), (None, None, None, 3), dtype="uint8", in_graph="full")
    reader = SampleReader(Growing(8), [free], Views(), 5, 2)
    assert [each.images[0][0].shape for each in reader.batches()] == [
        (3, 4, 4, 3),
        (3, 4, 5, 3),
        (2, 4, 6, 3),
    ]


def test_masks_follow_a_file_that_crops_itself() -> None:
    said = Preprocess.of({"crop": [2, 2], "colour": "grey"})
    inside = preparation(said, (None, None, None, 1), dtype="uint8", in_graph="full")
    masks = following(inside, (2, 2))
    reader = SampleReader(Numbered(1, mask=True), [inside], Views(), 1, 1, masks=masks)
    (batch,) = reader.batches()
    assert batch.images[0][0].shape == (1, 4, 6, 1)
    assert batch.targets.tolist() == [[[8, 9], [14, 15]]]


# ------------------------------------------------------------------------------------------- data


DIGITS = Data(source="digits")
TEN = Task("y", "classes", 10)


def test_splits_are_parts_of_the_whole() -> None:
    found = {
        split: chosen_samples(DIGITS, split, TEN, shape=(1, 8, 8), seed=0).samples
        for split in ("held-out", "train", "all")
    }
    held_out, train, whole = found["held-out"], found["train"], found["all"]
    assert (len(held_out), len(train), len(whole)) == (360, 1437, 1797)
    assert whole.label(1437) == held_out.label(0)
    assert whole.read(1436, "L")[1] == train.read(1436, "L")[1]
    targets = whole.targets()
    assert targets is not None
    assert len(targets) == 1797


def test_data_with_more_classes_than_the_output_are_refused() -> None:
    with pytest.raises(EnvironmentFailure, match="has 10 classes, and output `y` tells 9"):
        chosen_samples(DIGITS, "held-out", Task("y", "classes", 9), shape=(1, 8, 8), seed=0)


def test_other_data_than_those_of_the_run_are_told(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", small(), None)
    same = chosen_samples(DIGITS, "held-out", TEN, shape=(1, 8, 8), seed=0, run=run)
    assert same.remarks == ()
    run.facts["fingerprint"] = "other"  # type: ignore[index]
    (said,) = chosen_samples(DIGITS, "held-out", TEN, shape=(1, 8, 8), seed=0, run=run).remarks
    assert "not what the run was trained with" in said


def test_names_that_disagree_are_told() -> None:
    assert disagreement(None, ("cat",), "m") is None
    assert disagreement(("Cat", "dog"), ("cat", "DOG"), "m") is None
    assert disagreement(("zero", "one"), ("0", "1"), "m") is None
    assert disagreement(("zero", "one"), ("1", "0"), "m") is not None
    assert disagreement(("cat", "dog"), ("dog", "cat"), "m") == (
        "`m` has the same classes in another order: 0 is `cat` there and `dog` in the data, "
        "and 1 more differ"
    )
    said = disagreement(("cat", "dog"), ("cat", "cow"), "m")
    assert said == "`m` has other names of classes: 1 is `dog` there and `cow` in the data"


def test_words_of_the_command_line(tmp_path: Path) -> None:
    made_run(tmp_path / "run", small(), None)
    (tmp_path / "built").mkdir()
    kinds = [kind_of(str(tmp_path / name)) for name in ("run", "built", "x.onnx", "x.yaml")]
    assert kinds == ["run", "built", "onnx", "spec"]


# --------------------------------------------------------------------------------------- networks


def test_averages_are_those_of_probabilities(tmp_path: Path) -> None:
    network = small()
    modules = [taught(network, steps=15, seed=seed) for seed in (1, 2)]
    files = []
    for number, module in enumerate(modules):
        files.append(tmp_path / f"{number}.pt")
        torch.save(module.state_dict(), files[-1])
    subjects = [Network(str(file), network.graph, file) for file in files]
    found = networks_prepared(
        subjects,
        Request(DIGITS, "held-out", views=Views(flip=True)),
        device="cpu",
        average="probabilities",
    ).evaluation()
    images, targets = digits_arrays(network, held_out=True)
    with torch.no_grad():
        views = [m(x).softmax(1) for m in modules for x in (images, images.flip(-1))]
    mean = torch.stack(views).mean(0)
    wanted = -mean.log().gather(1, targets[:, None]).mean()
    assert found.loss == pytest.approx(wanted.item(), rel=1e-5)
    assert round((found.top1 or 0) * 360) == int((mean.argmax(1) == targets).sum())
    plain = networks_prepared(
        subjects, Request(DIGITS, "held-out"), device="cpu", average="weights"
    ).evaluation()
    states = [module.state_dict() for module in modules]
    averaged = network.to_torch(
        {
            key: torch.stack([s[key].double() for s in states]).mean(0).to(states[0][key].dtype)
            for key in states[0]
        }
    )
    with torch.no_grad():
        right = (averaged.eval()(images).argmax(1) == targets).sum()
    assert round((plain.top1 or 0) * 360) == int(right)


def test_networks_that_differ_do_not_answer_together(tmp_path: Path) -> None:
    wide = cnnspec.load("lenet5")
    network = small()
    file = tmp_path / "w.pt"
    torch.save(taught(network, steps=1).state_dict(), file)
    with pytest.raises(EnvironmentFailure, match="they are different networks"):
        networks_prepared(
            [
                Network("a", network.graph, file),
                Network("b", _reordered(network).graph, file),
            ],
            Request(DIGITS, "held-out"),
            device="cpu",
            average="weights",
        )
    with pytest.raises(EnvironmentFailure, match="10 classes and 5 classes"):
        networks_prepared(
            [
                Network("a", wide.graph, file),
                Network("b", wide.with_params(classes=5).graph, file),
            ],
            Request(DIGITS, "held-out"),
            device="cpu",
            average="probabilities",
        )


def _reordered(network: cnnspec.Network) -> cnnspec.Network:
    """The same weights under the same keys, and another network."""
    from tests.training.made_runs import SMALL

    assert "MaxPool2d" in SMALL
    return cnnspec.load(text=SMALL.replace("MaxPool2d", "AvgPool2d"))


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        (None, ("cat", "dog"), ["cat", "dog"]),
        (("zero", "one"), ("cat", "dog"), ["cat", "dog"]),
        (("zero", "one", "two"), ("cat", "dog"), ["cat", "dog"]),
        (("Cat", "Dog"), ("cat", "dog"), ["Cat", "Dog"]),
        (("zero", "one"), ("0", "1"), ["zero", "one"]),
        (("cat", "dog"), ("cat", "dog", "cow"), ["cat", "dog"]),
        (None, (), None),
    ],
)
def test_classes_are_called_as_the_data_says(labels, names, found):
    assert labels_for(labels, names, 2) == found
